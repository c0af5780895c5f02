"""Batch sizes, lengths and classes that a run exercised of those deployable, and what its verdict is silent on.

Pure. A verdict holds for what was executed. Whatever else the deployment would take is named, always, PASS or not.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.errors import SeatrialError
from seatrial.optimize.samples import Samples

from ..measurement import Unavailable
from ..quality.evidence import Evidence, gathered
from ..quality.weakest import LEAST, weakest
from ..server_statistics import sizes_of
from .findings import complete_pairs
from .pairs import Deployable, DeployedTensor, GateRun, SampledTensor, SlotRecord

_MOST = 4  # axes or classes named one by one


def deployable(artifact: Artifact, samples: Samples, max_batch: int | None) -> Deployable:
    """Return the batches and shapes that a deployed model takes, for a run's header.

    `max_batch` is None where the servers' limit is not known.
    """
    sampled = {name: array.shape[1:] for name, array in samples.inputs.items()}
    return Deployable(
        max_batch=max_batch,
        inputs=tuple(
            SampledTensor(name=spec.name, shape=tuple(spec.shape), sampled=sampled.get(spec.name, ()))
            for spec in artifact.inputs
        ),
        outputs=tuple(DeployedTensor(name=spec.name, shape=tuple(spec.shape)) for spec in artifact.outputs),
    )


def exercised(run: GateRun, quality_batch: int) -> tuple[str, ...]:
    """Sentences on what the run executed and what it did not, and where the candidate lost most."""
    about, evidence = run.header.deployable, _evidence(run)
    found = [*_batches(run, about, quality_batch), *_lengths(about.inputs)]
    if evidence is not None:
        found += [*_classes(evidence, about.outputs), *weakest(evidence)]
    return tuple(found)


def executed(records: Iterable[SlotRecord]) -> set[int]:
    """The batch sizes that the servers say they executed, under load and at saturation."""
    found = set[int]()
    for record in records:
        saturated = () if isinstance(record.saturation, Unavailable) else (record.saturation.server,)
        for counted in (record.server, *saturated):
            found |= {size for size, count in sizes_of(counted).items() if count}
    return found


def _batches(run: GateRun, about: Deployable, quality_batch: int) -> Iterator[str]:
    usable = [record for record in run.arm("candidate") if record.usable]
    if not usable:
        return
    sizes, how = executed(usable), "executed"
    if not sizes:  # a server that does not count: what it was sent
        sizes, how = {getattr(record.saturation, "batch", 1) for record in usable}, "sent"
    most = about.max_batch
    quality_batch = min(quality_batch, most or quality_batch)
    said = f"batch sizes {how} under load and at saturation: {spans(sizes)}"
    if not most:
        yield f"{said}; the deployment's largest batch is unknown"
        return
    missing = set(range(1, most + 1)) - sizes
    if not missing:
        yield f"{said}, every size that the deployment allows"
        return
    answered = f" (plus batches of {quality_batch} for quality)" if quality_batch in missing else ""
    yield f"{said}, out of 1 to {most} deployable; the speed at {spans(missing)} is unknown{answered}"


def _lengths(inputs: Sequence[SampledTensor]) -> Iterator[str]:
    """Free axes besides the batch, each of which the samples have at one length alone."""
    fixed = []
    for each in inputs:
        row = each.shape[len(each.shape) - len(each.sampled) :]
        fixed += [
            f"{each.name} axis {axis!r} at {size}"
            for axis, size in zip(row, each.sampled, strict=False)
            if isinstance(axis, str)
        ]
    if fixed:
        more = f" and {len(fixed) - _MOST} more" if len(fixed) > _MOST else ""
        yield f"lengths exercised of free axes: {', '.join(fixed[:_MOST])}{more}; other lengths were not tested"


def _classes(evidence: Evidence, outputs: Sequence[DeployedTensor]) -> Iterator[str]:
    """Classes of which the samples say little or nothing."""
    try:
        names, counts = np.unique(evidence.classes(), return_counts=True)
    except SeatrialError:
        return
    widths = {width for each in outputs for width in each.shape[-1:] if isinstance(width, int)}
    known = max((width for width in widths if width > names.max()), default=None) if names.min() >= 0 else None
    if known is not None and known > len(names):
        yield f"classes exercised: {len(names)} of {known}; the others were not tested"
    few = [f"{name} ({count})" for name, count in zip(names.tolist(), counts.tolist(), strict=True) if count < LEAST]
    if few and len(names) <= 1000:
        more = f" and {len(few) - _MOST} more" if len(few) > _MOST else ""
        yield f"classes with fewer than {LEAST} samples: {', '.join(few[:_MOST])}{more}"


def _evidence(run: GateRun) -> Evidence | None:
    """Return what was answered in both arms; None where it was not kept whole."""

    pairs = sorted(complete_pairs(run), key=lambda pair: pair[0].quality_start)
    asked = [(base.checks, candidate.checks) for base, candidate in pairs if base.quality.size]
    try:
        return gathered([base for base, _ in asked], [candidate for _, candidate in asked])
    except (SeatrialError, KeyError, TypeError, ValueError):
        return None


def spans(sizes: Iterable[int]) -> str:
    """Numbers in words: ``1 to 4, 8``."""
    found = []
    for _, group in groupby(enumerate(sorted(sizes)), key=lambda pair: pair[1] - pair[0]):
        run = [size for _, size in group]
        found.append(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}")
    return ", ".join(found)
