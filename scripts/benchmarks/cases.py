"""Run a folder of cases, models, graphs and servers that once went wrong, and say of each what became of it.

A case is a folder with recipes and what they need (``make.py`` may write more of both). Every recipe is built by the
command in a home of its own. What is kept is run by ONNX Runtime alone, on samples that the build never saw, beside
its source: the error is relative to each output's own spread, non-finite values are compared by position. What is
refused must say why, in one message without a traceback, with an exit code of its kind. Cases without a recipe, in a
folder called ``serve``, are held by tests (`cases_serve`).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.benchmarks import cases_models, cases_serve
from scripts.benchmarks.rows import Row
from seatrial.optimize.errors import SeatrialError
from seatrial.optimize.store import Store

_REFUSALS = (1, 2, 4)  # a failed contract, an input that cannot be, what this machine lacks
_SEATRIAL = "import sys; from seatrial.serve.command import main; sys.argv[0] = 'seatrial'; raise SystemExit(main())"
_SECONDS = 600.0
_WITHIN = {"quantize": 0.5, "mixed": 0.5, "cast": 0.05, "export": 1e-3, "compile": 1e-3}
"""By the last stage, the greatest error of an output that counts as right, in parts of its spread."""
_REFUSED = (
    "07-exclude-fused/typo",
    "qdq/recipe",
    *(
        f"16-trt-lint/{name}"
        for name in (
            "int8-zp",
            "uint8",
            "zero-scale",
            "zero-wscale",
            "axis",
            "if-inside",
            "double",
            "loop-string",
        )
    ),
)
"""Recipes that must be refused, because they request something impossible.

``16-trt-lint/no-zp`` is none: without a zero point a Q/DQ pair is uint8 with 0, which TensorRT's builder takes.
"""
_PROBES = {"08-fp16-eps": "zeros", "02b-if-smooth-inner": "tail", "07-exclude-fused": "head", "tagdyn": "lengths"}
"""Cases that go wrong where the samples do not show it, and what shows it."""
_TRAINED = frozenset({"prune", "qat", "distill"})  # their numbers differ from the source's on purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of one recipe: kept with an error relative to the spread, or refused with a message."""

    case: str
    recipe: str
    exit: int
    error: float | None
    said: str
    fault: str

    @property
    def line(self) -> str:
        """Return one line for people."""
        what = f"kept, error {self.error:.3g} of the spread" if self.exit == 0 and self.error is not None else ""
        what = what or self.said if self.recipe == "tests" else what
        what = what or ("kept" if self.exit == 0 else f"refused ({self.exit}): {self.said}")
        return f"{'MISS' if self.fault else 'ok  '} {self.case}/{self.recipe}: {self.fault or what}"


def outcomes(folder: Path, only: str) -> Iterator[Outcome]:
    """Run every case below the folder whose path contains `only`."""
    for recipe in sorted(folder.rglob("*.toml")):
        if "serve" in recipe.relative_to(folder.parent).parts[:-1] or "stages" not in tomllib.loads(recipe.read_text()):
            continue
        if only in str(recipe.relative_to(folder)):
            yield _outcome(folder, recipe)

    for place in (folder, folder / "serve"):
        if place.name == "serve" and place.is_dir():
            for case, passed, fault in cases_serve.run(place, only):
                said = f"{passed} tests hold it"
                yield Outcome(case=f"serve/{case}", recipe="tests", exit=0, error=None, said=said, fault=fault)


def _outcome(folder: Path, recipe: Path) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="seatrial-case-") as scratch:
        room = Path(scratch) / "room"
        if cases_models.is_one(recipe):
            here = cases_models.lay_out(recipe, room, os.environ)
        else:
            top = folder / recipe.relative_to(folder).parts[0]
            base = top if any(top.glob("*/CASE.md")) and not (top / "CASE.md").exists() else folder
            shutil.copytree(base, room)
            here = room / recipe.relative_to(base).parent
        environment = os.environ | {"SEATRIAL_HOME": f"{scratch}/home", "PYTHONPATH": _paths(here, room)}
        text = (here / recipe.name).read_text()
        if (here / "make.py").exists():
            subprocess.run([sys.executable, "make.py"], cwd=here, env=environment, check=True, capture_output=True)
            if not (here / recipe.name).exists():
                (here / recipe.name).write_text(text)
        command = [sys.executable, "-c", _SEATRIAL, "build", recipe.name]
        try:
            done = subprocess.run(
                command, cwd=here, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
            code, output = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            code, output = -1, "no end"
        error, fault = None, _fault(code, output)
        if not fault and code == 0 and f"{here.name}/{recipe.stem}" in _REFUSED:
            fault = "done in silence, where a refusal was due"
        if not fault and code == 0:
            error, fault = _judged(here, recipe.name, Path(scratch) / "home")
    case = str(recipe.parent.relative_to(folder))
    return Outcome(case=case, recipe=recipe.name, exit=code, error=error, said=_message(output), fault=fault)


def _paths(here: Path, room: Path) -> str:
    return os.pathsep.join((str(Path.cwd()), str(here), str(room), str(here.parent)))


def _fault(code: int, output: str) -> str:
    if "Traceback (most recent call last)" in output:
        return "a traceback"
    if code not in (0, *_REFUSALS):
        return f"exit code {code}: {_message(output)}"
    if code and "next:" not in output.lower():
        return f"refused without a next step: {_message(output)}"
    if "Warning" in output:
        return f"a warning of a library reached the terminal: {output[output.index('Warning') :][:120]}"
    return ""


def _message(output: str) -> str:
    text = " ".join(output.split())
    at = text.rfind("error:")
    return text[max(at, 0) :][:400] if at >= 0 else text[-400:]


def _judged(here: Path, recipe: str, home: Path) -> tuple[float | None, str]:
    """Compare what was kept with its source; return the error and the fault."""
    content = tomllib.loads((here / recipe).read_text())
    stages = [stage["kind"] for stage in content["stages"]]
    store = Store(home / "store")
    try:
        artifact = store.get(content["name"])
        kept = store.path(artifact, "model.onnx")
    except SeatrialError as error:
        return None, "" if set(stages) & _TRAINED else f"nothing was kept: {error.what}"
    if set(stages) & _TRAINED:
        return None, ""
    reference = _reference(here, content)
    found = _answers(here, content, ["onnx", str(kept)])
    if fault := _probed(here, content, kept):
        return None, fault
    worst = max(error_of(reference[name], found[name]) for name in found if name in reference)
    within = max(_WITHIN.get(stage, 1e-3) for stage in stages)
    return worst, "" if worst <= within else f"kept in silence with an error of {worst:.3g} of the spread"


def _probed(here: Path, content: dict[str, Any], kept: Path) -> str:
    """Return what a probe of that case found wrong."""
    probe = _PROBES.get(here.name)
    if probe == "head":
        import onnx

        graph = onnx.load(kept).graph
        weights = {each.name: each.data_type for each in graph.initializer}
        heads = [node for node in graph.node if node.name.startswith("head")]
        kinds = {weights[name] for node in heads for name in node.input if name in weights}
        return "" if heads and kinds <= {onnx.TensorProto.FLOAT} else "the excluded node is quantized"
    if probe == "lengths":
        import onnx

        axes = onnx.load(kept).graph.output[0].type.tensor_type.shape.dim
        return "" if axes[1].dim_param else f"the free length is declared as {axes[1].dim_value}"
    if probe is None:
        return ""
    models = (str(here / content["source"]["onnx"]), str(kept))
    a, b = (next(iter(_answers(here, content, ["onnx", model, probe]).values())) for model in models)
    worst = error_of(a[:, 16:], b[:, 16:]) if probe == "tail" else float(np.abs(a - b).max())
    return "" if worst <= 0.05 else f"kept in silence, off by {worst:.3g} at {probe}"


def error_of(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """Return the greatest root mean square error of a column in parts of its spread over the samples.

    A value that is not finite must stand where the other one has the same; else the error is infinite.
    """
    if expected.shape != found.shape:
        return float("inf")
    a, b = (np.asarray(each, np.float64).reshape(len(each), -1) for each in (expected, found))
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
    spread = max(float(a.std(0).max()), 1e-12 + 1e-6 * float(np.abs(a).max()))
    return float(np.sqrt(((a - b) ** 2).mean(0)).max()) / spread


def _reference(here: Path, content: dict[str, Any]) -> dict[str, NDArray[Any]]:
    source = content["source"]
    if "onnx" in source:
        return _answers(here, content, ["onnx", source["onnx"]])
    return _answers(here, content, ["torch", source["factory"], json.dumps(source.get("arguments", {}))])


def _answers(here: Path, content: dict[str, Any], what: list[str]) -> dict[str, NDArray[Any]]:
    """Run a model in a process of its own, by ONNX Runtime or torch alone, on samples of another seed."""
    outputs = json.dumps(content["source"].get("outputs", []))
    command = [sys.executable, str(Path(__file__).with_name("cases_run.py")), content["data"]["loader"], outputs, *what]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/answers.npz"
        subprocess.run([*command, path], cwd=here, check=True, capture_output=True)
        with np.load(path) as answers:
            return {name: answers[name] for name in answers.files}


def main() -> int:
    """Run the cases of a folder and print a row of what became of them."""
    parser = argparse.ArgumentParser(description="Run a folder of cases and say what became of each.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="part of a case's path")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    found = []
    for outcome in outcomes(options.folder, options.only):
        found.append(outcome)
        print(outcome.line, file=sys.stderr if options.json else sys.stdout, flush=True)
    faults = [each for each in found if each.fault]
    row = Row(
        name="cases",
        claim=f"{len(found)} cases of models, graphs and servers that once went wrong",
        value=f"{sum(not each.fault and each.exit == 0 for each in found)} right, "
        f"{sum(not each.fault and each.exit != 0 for each in found)} refused with a reason, {len(faults)} wrong",
        bar="0 wrong",
        met=not faults and bool(found),
    )
    if options.json:
        print(json.dumps({"rows": [asdict(row)], "outcomes": [asdict(each) for each in found]}, indent=1))
    else:
        print(f"{'met ' if row.met else 'MISS'} {row.claim}: {row.value} (bar {row.bar})")
    return 0 if row.met else 1


if __name__ == "__main__":
    raise SystemExit(main())
