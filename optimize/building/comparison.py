"""Comparison of two stored artifacts on samples: contract, sweep, verdict, and first disagreement.

Ties the pure rooms (`rounding`, `sweep`, `parity`, `divergence`) to the store and the engines; judges by the contract.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..artifact import Artifact
from ..environment import environment
from ..errors import ConfigError
from ..graphs.execution_graph import Graph
from ..parity import divergence, rounding, sweep
from ..parity.agreement import Agreement, futile, rejudged
from ..parity.divergence import Divergence, Pair, Reading
from ..parity.measures import distances, relative_error
from ..parity.parity import answers, measured
from ..parity.sweep import Point
from ..recipe.configs import EXACT, QUANTIZED, Tolerance
from ..recipe.data import Data
from ..recipe.kinds import default_contract
from ..recipe.recipe import Recipe
from ..record import as_json, finite
from ..samples import Array, Samples
from ..sessions.choice import OWN, EngineChoice
from ..sessions.engine import RanOn, engine_of
from ..sessions.session import Session, open_artifact
from ..store import Store

Progress = Callable[[str, float, str], None]
SAMPLES = 256
_WORST = 8  # samples that a bisection runs on


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Agreement of the candidate with the reference at every point, its contract, and the first disagreement.

    `ran_on` says what the reference and the candidate ran on.

    `left_out` are points that the reference itself refuses. `divergence` is None where it was not looked for.
    """

    reference: Artifact
    candidate: Artifact
    basis: str
    agreements: tuple[Agreement, ...]
    points: tuple[Point, ...]
    left_out: tuple[Point, ...]
    divergence: Divergence | None = None
    ran_on: tuple[RanOn, ...] = ()

    @property
    def broken(self) -> tuple[Agreement, ...]:
        """Return the violations of the contract."""
        return tuple(row for row in self.agreements if row.broken)

    def to_json(self) -> dict[str, Any]:
        """JSON values; what is infinite is None."""
        return {
            "reference": self.reference.digest,
            "candidate": self.candidate.digest,
            "contract": self.basis,
            "kept": not self.broken,
            "agreements": [row.to_json() for row in self.agreements],
            "points": as_json(self.points),
            "left_out": as_json(self.left_out),
            "ran_on": dict(zip(("reference", "candidate"), as_json(self.ran_on), strict=False)),
            "divergence": finite(as_json(self.divergence)),
        }


def hold(
    reference: Artifact,
    candidate: Artifact,
    recipe: Recipe,
    store: Store,
    *,
    bisect: bool = False,
    choice: EngineChoice = OWN,
    progress: Progress = lambda label, share, text: None,
) -> Comparison:
    """Compare on the recipe's calibration samples over batch sizes and lengths; `bisect` looks for the first bad node.

    Both run in the engine of `choice` where it opens their format. A bisection reads tensors in ONNX Runtime's CPU.

    Raises:
        ConfigError: the two do not take the same inputs, or a bisection is requested for a format other than ONNX.
        ContractError, StageError: one of them cannot run here, or refuses the samples.
    """
    _check(reference, candidate, bisect)
    choice.check([reference.format, candidate.format])
    progress("parity", 0.0, "loading samples")
    samples = Data(recipe, store, environment()).samples("calibration").take(SAMPLES)
    graphs = [_graph(each, samples, store) for each in (reference, candidate)]
    (one, first), (other, second) = (
        _session(each, graph, store, choice) for each, graph in zip((reference, candidate), graphs, strict=True)
    )
    contract, basis = _contract(reference, candidate, graphs)
    points = sweep.points(candidate.inputs, samples, recipe.stages)

    def tell(point: Point) -> None:
        progress("parity", 0.1 + 0.8 * points.index(point) / len(points), str(point))

    rows = measured(one, other, samples, contract, inputs=candidate.inputs, points=points, tell=tell)
    rows, replaced = _able_to_fail(rows, candidate, graphs)
    seen = {(row.batch, tuple(row.lengths.items())) for row in rows}
    left_out = [point for point in points if (point.batch, tuple(point.lengths.items())) not in seen]
    parted = None
    broken = next((row for row in rows if row.broken), None)
    if bisect and broken is not None:
        progress("parity", 0.9, "looking for the first bad node")
        at = sweep.at(Point(batch=broken.batch, lengths=broken.lengths), candidate.inputs, samples)
        parted = _part(reference, candidate, _worst(one, other, at, broken), store, broken.relative_error)
    progress("parity", 1.0, "done")
    return Comparison(
        reference=reference,
        candidate=candidate,
        basis=f"{basis}{replaced}",
        agreements=rows,
        points=points,
        left_out=tuple(left_out),
        divergence=parted,
        ran_on=(first, second),
    )


def _check(reference: Artifact, candidate: Artifact, bisect: bool) -> None:
    names = [{spec.name for spec in each.inputs} for each in (reference, candidate)]
    if names[0] != names[1]:
        raise ConfigError(
            f"{reference.short} takes {', '.join(sorted(names[0]))}, {candidate.short} {', '.join(sorted(names[1]))}",
            next_step="compare artifacts of one model; seatrial history REF shows the chain of one",
        )
    if bisect and (other := next((each for each in (reference, candidate) if each.format != "onnx"), None)):
        raise ConfigError(
            f"{other.short} is {other.format}, and a bisection reads the tensors of two ONNX graphs",
            next_step="name onnx artifacts; history lists them",
        )


def _graph(artifact: Artifact, samples: Samples, store: Store) -> Graph | None:
    """The artifact's graph as it is written, or None where it is not made of one."""
    if not any(file.path == "model.onnx" for file in artifact.files):
        return None
    from ..sessions.on_ort_graph import Exposed

    return Exposed(store.path(artifact, "model.onnx")).graph(samples.take(1).inputs)


def _session(artifact: Artifact, graph: Graph | None, store: Store, choice: EngineChoice) -> tuple[Session, RanOn]:
    """The artifact open as it will run; as it is written where it computes in fp16 and this machine would not.

    ONNX Runtime's CPU provider has hardly a kernel for fp16: it joins what stands between casts in float32 and hides
    what overflows.
    """
    found = open_artifact(artifact, store, threads=environment().cores, choice=choice)
    own = choice.engine_for(artifact.format) is engine_of(artifact.format)
    if graph is None or artifact.format != "onnx" or not own or not graph.computes_in("float16"):
        return found.session, found.ran_on
    from ..sessions.on_ort_graph import Exposed

    return Exposed(store.path(artifact, "model.onnx")), found.ran_on


def _contract(
    reference: Artifact, candidate: Artifact, graphs: Sequence[Graph | None]
) -> tuple[Mapping[str, Tolerance], str]:
    """Return the contract of the candidate's stage where the reference is its parent, else one from rounding error."""
    made = candidate.made_by
    if made.parent == reference.digest and (stated := made.config.get("parity")):
        own = {name: Tolerance(**limits) for name, limits in stated.items()}
        return {**default_contract(made.stage), **own}, f"the tolerances of the {made.stage} stage"
    held = [graph for graph in graphs if graph is not None]
    if not held:
        return EXACT, "equal modules: neither has a graph from which depth could be read"
    deepest = max(rounding.depths(held[-1]).values(), key=lambda depth: depth.variance)
    basis = f"number formats and depth: {deepest.roundings} roundings on the longest path, sums of up to "
    return rounding.contract(held[0], held[-1], candidate.outputs), f"{basis}{deepest.longest_sum} terms"


def _able_to_fail(
    rows: tuple[Agreement, ...], candidate: Artifact, graphs: Sequence[Graph | None]
) -> tuple[tuple[Agreement, ...], str]:
    """The rows under a contract that can fail on every output, and what was replaced for it, in words."""
    names = dict.fromkeys(row.output for row in rows)
    weak = {name: why for name in names if (why := futile([row for row in rows if row.output == name]))}
    if not weak:
        return rows, ""
    held = [graph for graph in graphs if graph is not None]
    default = default_contract(candidate.made_by.stage).get("*", QUANTIZED["*"] if held else EXACT["*"])
    said = "; ".join(f"it cannot fail on output {name!r}: {why}" for name, why in weak.items())
    changed = tuple(rejudged(row, default) if row.output in weak else row for row in rows)
    return changed, f" ({said}; the default is used there)"


def _worst(one: Session, other: Session, samples: Samples, broken: Agreement) -> Samples:
    """The samples on which the broken output differs most, as many as were run at once there, 8 at most."""
    first, second = (answers(session, samples, broken.batch)[broken.output] for session in (one, other))
    count = min(broken.batch, _WORST)
    if first.shape != second.shape:
        return samples.take(count)
    order = np.argsort(-distances(first, second))[:count]
    picked = {name: array[order] for name, array in samples.inputs.items()}
    return Samples(split=samples.split, inputs=picked, labels=None)


def _part(reference: Artifact, candidate: Artifact, samples: Samples, store: Store, seen: float) -> Divergence:
    from ..sessions.on_ort_graph import Exposed

    one, other = (Exposed(store.path(each, "model.onnx")) for each in (reference, candidate))
    first, second = one.graph(samples.inputs), other.graph(samples.inputs)
    depths = rounding.depths(first), rounding.depths(second)

    def read(pairs: Sequence[Pair]) -> list[Reading]:
        expected = one.read(sorted({pair.reference for pair in pairs}), samples.inputs)
        got = other.read([pair.candidate for pair in pairs], samples.inputs)
        return [
            _reading(
                expected[pair.reference],
                got[pair.candidate],
                rounding.limit(depths[0][pair.reference], depths[1][pair.candidate]),
            )
            for pair in pairs
        ]

    return divergence.part(divergence.pairs(first, second), second, other.outputs, read, seen)


def _reading(expected: Array, got: Array, limit: float) -> Reading:
    """Return the relative error of `got` from `expected`, both of one shape, beside their largest finite magnitudes."""
    peaks = [float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) for array in (expected, got)]
    return Reading(error=relative_error(expected, got), limit=limit, peak=peaks[0], candidate_peak=peaks[1])
