"""Ensemble: the fastest subset of several models of one interface whose mean output keeps quality, as one graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx

from ..artifact import Artifact, TensorSpec
from ..errors import ConfigError, SourceError, StageError
from ..intake import on_onnx as intake
from ..quality import Score
from ..recipe.configs import EnsembleConfig
from ..record import as_json
from ..samples import Array, Samples
from ..sessions.answers import answers
from ..sessions.on_ort import OrtSession
from ..timing.pace import LatencyRatio, pace
from .halves import Bound, bound, halves, too_few
from .members import joined
from .stage import Context, Made

FILE = "model.onnx"
_CONFIDENCE = 0.95
Subset = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One model: its name, its graph, its outputs to all samples, [n, ...] each, and its seconds a batch alone."""

    name: str
    model: onnx.ModelProto
    outputs: Mapping[str, Array]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A subset: quality lost against all members on the half that confirms, and its time over theirs."""

    subset: Subset
    lost: Bound
    pace: LatencyRatio


def run(config: EnsembleConfig, parent: Artifact, context: Context) -> Made:
    """Make ``model.onnx``, the mean of the chosen members; the notes list them and every subset that was timed.

    Raises:
        SourceError, ConfigError: a member cannot be read, or has another interface.
        StageError: an output has no mean, or there are too few samples.
    """
    samples = context.samples("calibration")
    if context.score is None:
        raise StageError("this stage needs the recipe's metric", next_step="build it from a recipe")
    if why := too_few(len(samples)):
        raise StageError(why, next_step="raise data.calibration")
    if whole := [spec.name for spec in parent.outputs if not spec.dtype.startswith("float")]:
        floats = [spec.name for spec in parent.outputs if spec.dtype.startswith("float")]
        raise StageError(
            f"output {whole[0]!r} holds no floats, and has no mean",
            next_step=f"leave it out: outputs = {floats} under [source]" if floats else "remove this stage",
        )
    members = _members(config, parent, context, samples)
    everyone = tuple(range(len(members)))
    subsets = [each for count in range(1, len(members)) for each in combinations(everyone, count)]
    lost = _Losses(members, samples, context.score)
    one, other = halves(len(samples), context.seed)
    holding = [each for each in subsets if bound(lost.of(each)[one], _CONFIDENCE).high <= config.max_quality_drop]
    holding.sort(key=lambda each: (sum(members[at].seconds for at in each), each))
    tested = holding[: config.candidates]
    confidence = 1 - (1 - _CONFIDENCE) / max(1, len(tested))  # one of several is kept: Bonferroni
    reference = _opened(members, everyone, context)
    candidates: list[Candidate] = []
    for place, subset in enumerate(tested):
        found = bound(lost.of(subset)[other], confidence)
        if found.high > config.max_quality_drop:
            continue
        context.progress(0.5 + 0.4 * place / len(tested), f"timing {len(subset)} of {len(members)} members")
        ratio = pace(reference, _opened(members, subset, context), samples, batch=config.batch)
        candidates.append(Candidate(subset=subset, lost=found, pace=ratio))
    best = chosen(candidates)
    subset = everyone if best is None else best.subset
    _write(members, subset, context.folder / FILE)
    notes = {
        "members": [members[at].name for at in subset],
        "left_out": [members[at].name for at in everyone if at not in subset],
        "drop": None if best is None else round(best.lost.mean, 6),
        "drop_at_most": None if best is None else round(best.lost.high, 6),
        "confirmed_on": len(other),
        "latency": None if best is None else as_json(best.pace),
        "timed": [
            {
                "members": [members[at].name for at in each.subset],
                "latency": round(each.pace.ratio, 4),
                "drop_at_most": round(each.lost.high, 6),
            }
            for each in candidates
        ],
    }
    return Made(format="onnx", files=(FILE,), inputs=parent.inputs, outputs=parent.outputs, notes=notes)


def chosen(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the fastest candidate; of those whose intervals reach its own, the one with the fewest members."""
    if not candidates:
        return None
    fastest = min(candidates, key=lambda each: each.pace.ratio)
    alike = [each for each in candidates if each.pace.low <= fastest.pace.high]
    return min(alike, key=lambda each: (len(each.subset), each.pace.ratio))


class _Losses:
    """Quality that each subset loses against the mean of all, per sample."""

    def __init__(self, members: Sequence[Member], samples: Samples, score: Score) -> None:
        self._members, self._labels, self._score = members, samples.labels, score
        self._before = self._scores(tuple(range(len(members))))
        self._known: dict[Subset, Array] = {}

    def of(self, subset: Subset) -> Array:
        """Return the loss of each sample, [n]."""
        if subset not in self._known:
            self._known[subset] = self._before - self._scores(subset)
        return self._known[subset]

    def _scores(self, subset: Subset) -> Array:
        names = self._members[0].outputs
        means = {name: np.mean([self._members[at].outputs[name] for at in subset], axis=0) for name in names}
        return np.asarray(self._score(means, self._labels), dtype=np.float64)


def _members(config: EnsembleConfig, parent: Artifact, context: Context, samples: Samples) -> list[Member]:
    """Open the source and every file, and run each on all samples."""
    folders, names = [context.store.path(parent, FILE)], ["source"]
    golden = context.samples("golden").inputs
    for number, name in enumerate(config.members):
        place = context.folder / f"member-{number}"
        place.mkdir()
        path = context.base / name
        if beside := intake.external(intake.read(path), path):
            raise ConfigError(
                f"the weights lie beside the file, in {beside[0]}", where=str(path), next_step="save them inside"
            )
        try:
            taken = intake.take_in(
                path, place, golden, [spec.name for spec in parent.outputs], context.environment.cores
            )
        except SourceError as error:
            error.where = error.where or str(path)
            raise
        _same_interface(parent, (*taken.tensors.inputs, *taken.tensors.outputs), str(path))
        folders.append(place / FILE)
        names.append(name)
    found = []
    for number, (path, name) in enumerate(zip(folders, names, strict=True)):
        context.progress(0.5 * number / len(names), f"running {name}")
        session = OrtSession(path, threads=1)
        outputs = answers(session, parent.inputs, samples.inputs, outputs=parent.outputs)
        ratio = pace(session, session, samples, batch=config.batch, pairs=4)
        found.append(Member(name=name, model=onnx.load(str(path)), outputs=outputs, seconds=ratio.seconds))
    return found


def _same_interface(parent: Artifact, tensors: Sequence[TensorSpec], where: str) -> None:
    """Refuse a member whose tensors differ from the source's.

    Raises:
        ConfigError: names the first tensor that differs.
    """
    theirs = {spec.name: spec for spec in tensors}
    for spec in (*parent.inputs, *parent.outputs):
        mine = _form(spec)
        if spec.name not in theirs or _form(theirs[spec.name]) != mine:
            found = theirs.get(spec.name)
            raise ConfigError(
                f"the source has {spec.name!r} as {mine[0]} {list(mine[1])}, the member "
                + ("has none" if found is None else f"as {found.dtype} {list(_form(found)[1])}"),
                where=where,
                next_step="export all members with the same inputs and outputs",
            )
    if more := set(theirs) - {spec.name for spec in (*parent.inputs, *parent.outputs)}:
        raise ConfigError(
            f"the member has {sorted(more)[0]!r}, which the source has not",
            where=where,
            next_step="export all members with the same inputs and outputs",
        )


def _form(spec: TensorSpec) -> tuple[str, tuple[int | str, ...]]:
    """Return what must agree: the type, and the shape with every free axis alike."""
    return spec.dtype, tuple(dim if isinstance(dim, int) else "n" for dim in spec.shape)


def _write(members: Sequence[Member], subset: Subset, path: Path) -> None:
    model = joined([members[at].model for at in subset])
    path.write_bytes(model.SerializeToString(deterministic=True))


def _opened(members: Sequence[Member], subset: Subset, context: Context) -> OrtSession:
    path = context.folder / "candidate.onnx"
    _write(members, subset, path)
    return OrtSession(path, threads=1)
