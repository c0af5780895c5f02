"""Free axes of a model's tensors, found by runs at several sizes and not read from declarations.

Pure except for the runs passed in. An axis that only varies together with another is one axis with it; an axis at
which the model refuses every other size is fixed at the samples' size; what an output's axis does as the free ones vary
is what it is declared as. The first axis of samples is the sample: a model whose tensors have one axis less takes one
sample a run, and so does one whose first axis is fixed at one row.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ..artifact import TensorSpec
from ..errors import SeatrialError, SourceError
from ..samples import Array
from ..sessions import rows

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]
BATCH = "batch"
_ROWS = 2  # samples of the first run, where the model takes any number of them
_BATCHES = (3, 1)  # further sizes of the batch
_VARIED = 3  # further sizes at which a free axis is tried, as far as the model takes them


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """Inputs and outputs as runs showed them; `fixed` are axes declared free at which no other size runs."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    fixed: tuple[str, ...] = ()

    @property
    def batches(self) -> bool:
        """Return whether every tensor begins with the batch, of any size."""
        return all(spec.shape[:1] == (BATCH,) for spec in (*self.inputs, *self.outputs))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """One run: the size of every free axis, and the shape of every output."""

    sizes: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """Runner of arrays that records sizes and shapes; where a run takes a `single` sample, those of that sample."""

    run: Run
    single: bool

    def __call__(self, inputs: Sequence[TensorSpec], arrays: Mapping[str, Array]) -> _Taken | SeatrialError:
        sizes = {dim: int(arrays[name].shape[axis]) for dim, name, axis in free(inputs, arrays)}
        try:
            results = self.run({name: array.copy() for name, array in arrays.items()})
        except SeatrialError as error:
            return error
        return _Taken(
            sizes={BATCH: len(next(iter(arrays.values())))} | sizes,
            shapes={name: np.shape(array)[int(self.single) :] for name, array in results.items()},
            dtypes={name: str(array.dtype) for name, array in results.items()},
        )


def measured(declared: Sequence[TensorSpec], run: Run, samples: Mapping[str, Array], where: str = "") -> Tensors:
    """Run samples at several sizes of every free axis, and return the tensors as the runs show them.

    `declared` are the inputs, their free axes as names; `samples` are arrays whose first axis is the sample.

    Raises:
        SourceError: the samples do not fit the inputs, the model refuses them, or an output has not one row per sample.
    """
    _check(declared, samples, where)
    inputs = _distinct(declared, samples)
    single, fixed = rows.single(inputs, samples), rows.fixed_rows(inputs)
    if not single and fixed is None and not is_batched(inputs, samples):
        raise _mixed(inputs, where)
    count = 1 if single else fixed or _ROWS
    trial = _Trial(run=run, single=single)
    first = {name: along(array, 0, count) for name, array in samples.items()}
    base = trial(inputs, first)
    if isinstance(base, SeatrialError):
        raise SourceError(
            f"the model refuses the samples: {base.what}",
            where=f"{where}, {base.where}" if where and base.where else where or base.where,
            next_step="return arrays from the loader that fit the model's inputs",
        ) from base
    inputs, runs, refused = _varied(trial, inputs, first, base)
    runs += _other_rows(trial, inputs, samples, count)
    if not single:
        _check_rows((base, *runs), where)
    names = [name for name in base.sizes if any(name in spec.shape for spec in inputs)]
    outputs = tuple(_output(name, base, runs, names) for name in base.shapes)
    return Tensors(inputs=inputs, outputs=_apart(inputs, outputs) if single else outputs, fixed=refused)


def is_batched(inputs: Sequence[TensorSpec], samples: Mapping[str, Array]) -> bool:
    """Return whether one run takes any number of samples: each input's first axis is the samples' and free."""
    return all(samples[spec.name].ndim == len(spec.shape) and spec.shape[:1] == (BATCH,) for spec in inputs)


def free(inputs: Sequence[TensorSpec], samples: Mapping[str, Array]) -> Iterator[tuple[str, str, int]]:
    """Yield every free axis beside the batch: its name, the input, and the axis of the samples' array."""
    for spec in inputs:
        if spec.name in samples:
            offset = samples[spec.name].ndim - len(spec.shape)
            for axis, dim in enumerate(spec.shape):
                if isinstance(dim, str) and (axis or offset):
                    yield dim, spec.name, axis + offset


def resized(inputs: Sequence[TensorSpec], samples: Mapping[str, Array], sizes: Mapping[str, int]) -> dict[str, Array]:
    """Samples [n, ...] cut, or continued by repetition, along the free axes that `sizes` names, in elements."""
    arrays = dict(samples)
    for dim, name, axis in free(inputs, samples):
        if dim in sizes:
            arrays[name] = along(arrays[name], axis, sizes[dim])
    return arrays


def other_sizes(size: int) -> tuple[int, ...]:
    """Return sizes to try besides that one, the most informative first: twice, half, one more."""
    tried = (2 * size, size // 2, size + 1, size - 1, 3 * size, size + 32)
    return tuple(each for each in dict.fromkeys(tried) if each > 0 and each != size)


def mismatch(spec: TensorSpec, shape: Sequence[int], sizes: Mapping[str, int]) -> str:
    """Return why an output of that shape is not what was declared, where free axes of the request had these sizes."""
    if len(shape) != len(spec.shape):
        return f"{list(shape)} has {len(shape)} axes, the model declares {list(spec.shape)}"
    for axis, (size, dim) in enumerate(zip(shape, spec.shape, strict=True)):
        wanted = sizes.get(dim) if isinstance(dim, str) else dim
        if wanted is not None and wanted != size:
            return f"{list(shape)} has {size} along axis {axis}, the model declares {list(spec.shape)}"
    return ""


def sizes_of(inputs: Sequence[TensorSpec], arrays: Mapping[str, Array]) -> dict[str, int]:
    """Return the size of every free axis in the arrays of one request (the batch too)."""
    return {
        dim: int(arrays[spec.name].shape[axis])
        for spec in inputs
        if spec.name in arrays and arrays[spec.name].ndim == len(spec.shape)
        for axis, dim in enumerate(spec.shape)
        if isinstance(dim, str)
    }


def _check(declared: Sequence[TensorSpec], samples: Mapping[str, Array], where: str) -> None:
    """Refuse samples whose names or ranks are not the inputs': [n, ...], or [n, 1, ...] of whole tensors."""
    names = [spec.name for spec in declared]
    if sorted(names) != sorted(samples):
        raise SourceError(
            f"the loader gives {sorted(samples)}, the model takes {sorted(names)}",
            where=where,
            next_step="return one array for every input of the model, by its name",
        )
    ranks = {spec.name: samples[spec.name].ndim - len(spec.shape) for spec in declared}
    if set(ranks.values()) not in ({0}, {1}):
        shown = ", ".join(f"{spec.name} {list(samples[spec.name].shape)} for {list(spec.shape)}" for spec in declared)
        raise SourceError(
            f"the loader's arrays do not fit the inputs: {shown}",
            where=where,
            next_step="give every input rows along its first axis, or every input one axis more: whole tensors, "
            "one for each sample",
        )


def _distinct(declared: Sequence[TensorSpec], samples: Mapping[str, Array]) -> tuple[TensorSpec, ...]:
    """The inputs with the batch under its name, and a name for each axis that shares one with an axis of another size.

    Where samples have an axis more, no axis is the batch.
    """
    seen: dict[str, int] = {}
    found = []
    for spec in declared:
        array, dims = samples[spec.name], list(spec.shape)
        offset = array.ndim - len(dims)
        for axis, dim in enumerate(dims):
            if not isinstance(dim, str):
                continue
            if axis == 0 and not offset:
                dims[axis] = BATCH
                continue
            size = array.shape[axis + offset]
            if dim == BATCH or seen.setdefault(dim, size) != size:
                dims[axis] = f"{spec.name}.{axis}"
        found.append(replace(spec, shape=tuple(dims)))
    return tuple(found)


def _varied(
    run: _Trial, inputs: tuple[TensorSpec, ...], arrays: Mapping[str, Array], base: _Taken
) -> tuple[tuple[TensorSpec, ...], list[_Taken], tuple[str, ...]]:
    """Vary every free axis: alone, else together with others of its size, which are then one axis; else it is fixed."""
    runs: list[_Taken] = []
    names = [name for name in base.sizes if name != BATCH]
    waiting = []
    for name in names:
        found = _tried(run, inputs, arrays, (name,), base.sizes[name])
        runs += found
        waiting += [] if found else [name]
    for group in _groups(waiting, base.sizes):
        if not set(group) <= set(waiting):
            continue
        if _tried(run, inputs, arrays, group, base.sizes[group[0]]):
            inputs = tuple(_renamed(spec, group, group[0]) for spec in inputs)
            runs += _tried(run, inputs, arrays, (group[0],), base.sizes[group[0]])
            waiting = [name for name in waiting if name not in group]
    fixed = tuple(f"{name} at {base.sizes[name]}" for name in waiting)
    inputs = tuple(_sized(spec, {name: base.sizes[name] for name in waiting}) for spec in inputs)
    for count in _BATCHES if is_batched(inputs, arrays) else ():
        taken = run(inputs, {name: along(array, 0, count) for name, array in arrays.items()})
        if isinstance(taken, SeatrialError):
            raise SourceError(
                f"the model takes {_ROWS} samples at once but not {count}: {taken.what}",
                where=taken.where,
                next_step="export it with a dynamic batch axis, or give whole tensors, one for each sample",
            )
        runs.append(taken)
    return inputs, runs, fixed


def _groups(names: Sequence[str], sizes: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """Axes that may be one: all of one size, the most first."""
    for size in dict.fromkeys(sizes[name] for name in names):
        alike = [name for name in names if sizes[name] == size]
        for count in range(len(alike), 1, -1):
            yield from list(combinations(alike, count))[:32]


def _tried(
    run: _Trial, inputs: Sequence[TensorSpec], arrays: Mapping[str, Array], names: Sequence[str], size: int
) -> list[_Taken]:
    """Return what the model took of the samples [n, ...] at other sizes of the named axes, at most `_VARIED`."""
    found = []
    for other in other_sizes(size):
        taken = run(inputs, resized(inputs, arrays, dict.fromkeys(names, other)))
        if isinstance(taken, _Taken):
            found.append(taken)
        if len(found) == _VARIED:
            break
    return found


def _other_rows(run: _Trial, inputs: Sequence[TensorSpec], samples: Mapping[str, Array], count: int) -> list[_Taken]:
    """Run other samples of the same sizes: shapes that change then depend on the values."""
    arrays = {name: along(np.roll(array, -count, axis=0), 0, count) for name, array in samples.items()}
    taken = run(inputs, arrays)
    return [taken] if isinstance(taken, _Taken) else []


def _check_rows(runs: Sequence[_Taken], where: str) -> None:
    for taken in runs:
        count = taken.sizes[BATCH]
        for name, shape in taken.shapes.items():
            if shape[:1] != (count,):
                raise SourceError(
                    f"output {name!r} has shape {shape} for {count} samples",
                    where=where,
                    next_step="return one row per sample, leave that output out (source.outputs), or for an ONNX file "
                    "give whole tensors, one for each sample",
                )


def _mixed(inputs: Sequence[TensorSpec], where: str) -> SourceError:
    shown = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in inputs)
    return SourceError(
        f"not every input has the batch as its first axis: {shown}",
        where=where,
        next_step="give every input one axis more: whole tensors, one for each sample",
    )


def _apart(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The outputs of a model without a batch, so named that a first axis that all share is not taken for one."""
    firsts = {spec.shape[0] if spec.shape else None for spec in (*inputs, *outputs)}
    if len(firsts) > 1 or not isinstance(next(iter(firsts)), str):
        return tuple(outputs)
    return tuple(replace(spec, shape=(f"{spec.name}.0", *spec.shape[1:])) for spec in outputs)


def _output(name: str, base: _Taken, runs: Sequence[_Taken], names: Sequence[str]) -> TensorSpec:
    shapes = [(taken.sizes, taken.shapes.get(name, ())) for taken in (base, *runs)]
    if len({len(shape) for _, shape in shapes}) != 1:
        raise SourceError(
            f"the rank of output {name!r} changes with the input sizes: {sorted({shape for _, shape in shapes})}",
            next_step="return tensors of one rank, or leave that output out (source.outputs)",
        )
    dims: list[int | str] = []
    for axis in range(len(base.shapes[name])):
        sizes = [shape[axis] for _, shape in shapes]
        equal = [each for each in (BATCH, *names) if all(given.get(each) == shape[axis] for given, shape in shapes)]
        dims.append(sizes[0] if len(set(sizes)) == 1 else next(iter(equal), f"{name}.{axis}"))
    return TensorSpec(name=name, dtype=base.dtypes[name], shape=tuple(dims))


def _renamed(spec: TensorSpec, group: Sequence[str], name: str) -> TensorSpec:
    return replace(spec, shape=tuple(name if dim in group else dim for dim in spec.shape))


def _sized(spec: TensorSpec, sizes: Mapping[str, int]) -> TensorSpec:
    return replace(spec, shape=tuple(sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in spec.shape))


def along(array: Array, axis: int, size: int) -> Array:
    """Return an array [...] of length `size` along `axis`: cut, or continued by repetition."""
    return array if array.shape[axis] == size else np.take(array, np.arange(size), axis=axis, mode="wrap")
