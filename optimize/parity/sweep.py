"""The sweep: at which batch sizes and dynamic lengths two models are compared, and samples of those shapes.

Every size is 1, 2, what is expected and the greatest: constants that slipped into a graph, and shapes that an engine
was never tuned for, show there. Runs no model.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..artifact import TensorSpec
from ..errors import ConfigError
from ..intake.axes import along, free, resized
from ..recipe.configs import Profile, StageConfig
from ..samples import Samples

BATCH = 32  # where nothing says which batch is expected
_ROWS = 4  # batches of samples per small batch size
_BATCH_OF_LENGTHS = 8  # lengths are varied at this batch, or the expected one where it is smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One batch size and the length of every dynamic axis that is not the samples' own; `source` says whose sizes."""

    batch: int
    lengths: Mapping[str, int] = field(default_factory=dict)
    source: str = ""

    def __str__(self) -> str:
        return ", ".join([f"batch {self.batch}", *(f"{axis} {length}" for axis, length in self.lengths.items())])


def batches(samples: Samples, batch: int = BATCH) -> tuple[Point, ...]:
    """Batch 1, 2 and `batch` (or all samples where they are fewer), at the samples' own lengths."""
    most = min(batch, len(samples))
    return tuple(Point(batch=size, source="samples") for size in dict.fromkeys((1, 2, most)) if size <= len(samples))


def points(inputs: Sequence[TensorSpec], samples: Samples, stages: Iterable[StageConfig] = ()) -> tuple[Point, ...]:
    """1, 2, opt and max of the batch and of every other dynamic axis; the other axes stay as the samples are.

    opt and max are those of the compile stage among `stages`, where there is one that says; else what the samples have.
    """
    found = _profile(inputs, stages)
    own = lengths(inputs, samples)
    told = {0: _told(inputs, found, None)} if found else {}
    opt, most = told.get(0) or (min(BATCH, len(samples)),) * 2
    source = "compile stage" if told.get(0) else "samples"
    rows = [Point(batch=size, source=source) for size in dict.fromkeys((1, 2, opt, most)) if size <= max(2, most)]
    for axis, length in own.items():
        said = _told(inputs, found, axis) if found else None
        source = "compile stage" if said else "samples"
        for size in dict.fromkeys((1, 2, *(said or (length,)))):
            if size != length:
                rows.append(Point(batch=min(opt, _BATCH_OF_LENGTHS), lengths={axis: size}, source=source))
    return tuple(rows)


def lengths(inputs: Sequence[TensorSpec], samples: Samples) -> dict[str, int]:
    """Return the lengths of the samples along every dynamic axis other than the batch, by the axis's name."""
    return {dim: int(samples.inputs[name].shape[axis]) for dim, name, axis in free(inputs, samples.inputs)}


def at(point: Point, inputs: Sequence[TensorSpec], samples: Samples, *, most: int | None = None) -> Samples:
    """Samples of the point's shape: cut, or continued by repetition, along axes and rows; at most `most` rows.

    For a small batch a few rows suffice, for the expected one all are taken.
    """
    rows = len(samples) if most is None else min(most, len(samples))
    if point.batch < min(BATCH, len(samples)) or point.lengths:
        rows = min(rows, _ROWS * point.batch)
    rows = max(rows, point.batch)
    arrays = {name: along(array, 0, rows) for name, array in samples.inputs.items()}
    return Samples(split=samples.split, inputs=resized(inputs, arrays, point.lengths), labels=None)


def _profile(inputs: Sequence[TensorSpec], stages: Iterable[StageConfig]) -> Profile | None:
    """The widest profile of the first stage that has ranges; None without one, or where it leaves out an input."""
    try:
        return next((ranges[-1] for stage in stages if (ranges := stage.accepted_shapes(inputs))), None)
    except ConfigError:
        return None


def _told(inputs: Sequence[TensorSpec], profile: Profile, axis: str | None) -> tuple[int, int] | None:
    """The profile's opt and max of the axis of that name, or of the batch; None where it does not have it."""
    for spec in inputs:
        for place, dim in enumerate(spec.shape):
            if spec.name in profile and isinstance(dim, str) and (place == 0 if axis is None else dim == axis):
                return profile[spec.name].opt[place], profile[spec.name].max[place]
    return None
