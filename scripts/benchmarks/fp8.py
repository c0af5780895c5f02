"""Row of fp8: whole builds in Q/DQ of E4M3 of three models, with the default contract, coverage and TensorRT's rules.

Nothing here has kernels in fp8: ONNX Runtime restores floats on the CPU, which shows the rounding and no speed.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.benchmarks.low_precision import LENGTH
from scripts.benchmarks.rows import Row
from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.building.build import build
from seatrial.optimize.building.built import Build
from seatrial.optimize.building.coverage_cache import measured
from seatrial.optimize.errors import ParityError
from seatrial.optimize.recipe.configs.terms import Profile, Shapes
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.store import Store
from seatrial.optimize.tensorrt.legality import check
from seatrial.optimize.tensorrt.on_onnx import describe

MODELS = Path(__file__).parent.parent / "models"
SHAPES = Path(__file__).parent / "low_precision.py"
COVERED = 0.95
RECIPE = """
schema = 1
name = "{net}-fp8"
[source]
{source}
[data]
{loader}
calibration = 64
evaluation = 64
golden = 2
[[stages]]
kind = "export"
[[stages]]
kind = "quantize"
target = "tensorrt"
precision = "fp8"
coverage = {covered}
{parity}
"""
SCENES = f'''factory = "{MODELS}/scenes.py:teacher"
weights = "{MODELS}/scenes-teacher.safetensors"
outputs = ["logits"]'''
# The default limits but for agreement of decisions: the greatest of an embedding's numbers is none.
EMBEDDING = "parity = { y = { cosine = 0.98, spread_error = 0.2, column_error = 0.5 } }"
NETS = {"scenes": SCENES} | {name: f'factory = "{SHAPES}:{name}"\noutputs = ["y"]' for name in ("minilm", "bert")}


def fp8(folder: Path) -> Row:
    """The scenes ResNet, MiniLM's and BERT-base's shape in fp8: the default contract on the CPU, coverage, legality."""
    said, met = [], True
    for net in NETS:
        ok, text = _net(net, folder)
        met = met and ok
        said.append(f"{net} {text}")
        print(said[-1], file=sys.stderr, flush=True)
    return Row(
        name="fp8",
        claim="fp8 Q/DQ (scenes trained, the others random): default contract on the CPU, coverage, TensorRT's rules",
        value="; ".join(said),
        bar=f"contract holds, coverage >= {COVERED:.0%}, no breach of the rules for 10.16 and 11.x",
        met=met,
    )


def _net(net: str, folder: Path) -> tuple[bool, str]:
    """Build one net in fp8; return whether all holds, and the figures."""
    path, store, trained = folder / f"{net}.toml", Store(folder / "store"), net == "scenes"
    loader = f'loader = "{MODELS}/scenes.py:samples"' if trained else f'loader = "{SHAPES}:sentences"'
    parity = "" if trained else EMBEDDING
    path.write_text(RECIPE.format(net=net, source=NETS[net], loader=loader, covered=COVERED, parity=parity))
    try:
        made = build(load_recipe(path), store, tag=False)
    except ParityError as error:
        return False, str(error)
    found = measured(made.artifact, store, recipe=made.recipe)
    breaches = check(describe(store.path(made.artifact, "model.onnx")), [_profile(made.artifact.inputs)], [1, 8])
    text = f"{_errors(made)}, {found.share('fp8'):.1%} of the MACs in fp8, {len(breaches)} breaches"
    return found.share("fp8") >= COVERED and not breaches, text


def _profile(inputs: Sequence[TensorSpec]) -> Profile:
    """Batches of 1 to 32; lengths of the samples."""
    rest = {spec.name: tuple(dim if isinstance(dim, int) else LENGTH for dim in spec.shape[1:]) for spec in inputs}
    return {name: Shapes(min=(1, *dims), opt=(8, *dims), max=(32, *dims)) for name, dims in rest.items()}


def _errors(made: Build) -> str:
    """The worst figures of all batch sizes tried, each beside its limit where the contract has one."""
    rows = made.steps[-1].agreements
    limits = rows[0].tolerance
    spread = max((row.spread_error for row in rows if row.spread_error is not None), default=float("nan"))
    column = max((row.column_error for row in rows if row.column_error is not None), default=float("nan"))
    snr, cosine, agreement = (min(getattr(row, name) for row in rows) for name in ("snr", "cosine", "agreement"))
    return (
        f"{snr:.1f} dB, cosine {cosine:.4f} (>= {limits.cosine}), "
        f"spread error {spread:.3f} (<= {limits.spread_error}), "
        f"worst column {column:.3f} (<= {limits.column_error}), decisions {agreement:.3f}"
    )
