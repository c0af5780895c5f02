"""Rules for operators that only move numbers: labels are moved alike, and channels that a cut would shift are tied.

A shape or an index that the module's code takes from a channel count (``c // 2``) shrinks with the channels. Which
number that is cannot be seen in the graph; a rule assumes the usual form, and the proof refuses where it is another.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch

from .on_labels import Derived, Follower, Ids, Label, Operand, Weight, operands_in, shape_of
from .on_units import compact

Node = torch.fx.Node
Rule = Callable[..., Any]
_SPLIT = "they are split at a fixed index"


def same(follower: Follower, node: Node, value: Operand, *_: Any) -> Label:
    """Pass on the label."""
    return value.label


def literal(follower: Follower, node: Node, value: Operand, *rest: Any) -> Label:
    """Move the labels by the operator itself."""
    return _moved(value, lambda places: node.target(places, *rest, **node.kwargs))  # type: ignore[operator]


def _moved(value: Operand, move: Callable[[torch.Tensor], torch.Tensor]) -> Label:
    if isinstance(value.label, Ids):
        return Ids(move(value.label.labels))
    if isinstance(value.label, Weight):
        return Weight(name=value.label.name, places=move(value.label.places))
    return value.label


def reshape(follower: Follower, node: Node, value: Operand, *rest: Any) -> Label:
    """Reshape; of an axis that is split the last part shrinks, so that the others hold the same channels each."""
    shape = shape_of(node)
    if not isinstance(value.label, Ids):
        return _moved(value, lambda places: places.reshape(shape))
    sets, runs = follower.sets, factors(value.shape, shape)
    for before, after in runs:
        mixed = [axis for axis in before if sets.varies(value.label.labels, axis)]
        if not mixed or len(after) < 2:
            continue
        if len(before) > 1 and len(mixed) > 1:
            sets.freeze(value.label.labels, "a reshape mixes two axes of them")
    made = _reshaped(value.label.labels, shape, runs)
    for _, after in runs:
        wide = [axis for axis in after if shape[axis] > 1]
        for axis in wide[:-1]:
            if sets.varies(made, axis):
                sets.merge_along(made, axis, _SPLIT)
    return Ids(made)


def _reshaped(labels: torch.Tensor, shape: tuple[int, ...], runs: list[tuple[list[int], list[int]]]) -> torch.Tensor:
    """Reshape; axes along which labels are merely expanded stay so, which costs no memory."""
    small, size = compact(labels), list(shape)
    for before, after in runs:
        if all(small.shape[axis] == 1 for axis in before):
            for axis in after:
                size[axis] = 1
        else:
            for axis in before:
                small = small.expand(
                    [labels.shape[place] if place == axis else each for place, each in enumerate(small.shape)]
                )
    return small.reshape(size).expand(shape)


def factors(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Return runs of axes that a reshape turns into one another, axes of size 1 with their left neighbour."""
    if 0 in before or prod(before) != prod(after):
        return [(list(range(len(before))), list(range(len(after))))]
    found: list[tuple[list[int], list[int]]] = []
    one, other = 0, 0
    while one < len(before) or other < len(after):
        left: list[int] = []
        right: list[int] = []
        products = [1, 1]
        while True:
            if one < len(before) and (products[0] <= products[1] or other >= len(after)):
                products[0] *= before[one]
                left.append(one)
                one += 1
            elif other < len(after):
                products[1] *= after[other]
                right.append(other)
                other += 1
            done = one >= len(before) and other >= len(after)
            if products[0] == products[1] and (done or (left and right)):
                break
        found.append((left, right))
    return found


def cat(follower: Follower, node: Node, values: Any, axis: int = 0) -> Label:
    """Put labels one behind the other."""
    parts = operands_in(values)
    if not any(isinstance(part.label, Ids) for part in parts):
        return _computed(follower, parts)
    return Ids(torch.cat([part.ids(follower) for part in parts], dim=axis))


def stack(follower: Follower, node: Node, values: Any, axis: int = 0) -> Label:
    """Put labels side by side."""
    parts = operands_in(values)
    if not any(isinstance(part.label, Ids) for part in parts):
        return _computed(follower, parts)
    return Ids(torch.stack([part.ids(follower) for part in parts], dim=axis))


def _computed(follower: Follower, parts: list[Operand]) -> Label:
    names: list[str] = []
    for part in parts:
        if isinstance(part.label, Weight | Derived):
            follower.nail(part.label, "a weight is concatenated from it")
            names += [part.label.name] if isinstance(part.label, Weight) else part.label.names
    return Derived(names=tuple(dict.fromkeys(names)))


def split(follower: Follower, node: Node, value: Operand, sizes: int | list[int], axis: int = 0) -> Any:
    """Cut apart; where channels lie along the axis, equal parts lose the same ones, and others none."""
    whole = value.shape[axis]
    if isinstance(sizes, int):
        sizes = [min(sizes, whole - start) for start in range(0, whole, sizes)]
    if isinstance(value.label, Ids) and follower.sets.varies(value.label.labels, axis):
        if len(set(sizes)) == 1:
            _tie_blocks(follower, value.label.labels, axis, len(sizes))
        else:
            follower.sets.freeze(value.label.labels, _SPLIT)
    if isinstance(value.label, Ids):
        return [Ids(part) for part in torch.split(value.label.labels, sizes, dim=axis)]
    if isinstance(value.label, Weight):
        name = value.label.name
        return [Weight(name=name, places=part) for part in torch.split(value.label.places, sizes, dim=axis)]
    return value.label


def _blocks(labels: torch.Tensor, axis: int, count: int) -> torch.Tensor:
    """Cut an axis into `count` equal parts, [..., count, size / count, ...]."""
    place = axis % labels.ndim
    return labels.reshape(*labels.shape[:place], count, -1, *labels.shape[place + 1 :])


def _tie_blocks(follower: Follower, labels: torch.Tensor, axis: int, count: int) -> None:
    """Let `count` equal blocks along an axis lose the same channels, position by position."""
    blocks = _blocks(labels, axis, count)
    follower.sets.merge_along(blocks, axis % labels.ndim, _SPLIT)


def unbind(follower: Follower, node: Node, value: Operand, axis: int = 0) -> Any:
    """Take apart along an axis, along which no channels may lie."""
    _keep_along(follower, value, axis)
    if isinstance(value.label, Ids):
        return [Ids(part) for part in torch.unbind(value.label.labels, axis)]
    if isinstance(value.label, Weight):
        return [Weight(name=value.label.name, places=part) for part in torch.unbind(value.label.places, axis)]
    return value.label


def select(follower: Follower, node: Node, value: Operand, axis: int, index: int) -> Label:
    """Take one position of an axis."""
    _keep_along(follower, value, axis)
    return _moved(value, lambda places: places.select(axis, index))


def _keep_along(follower: Follower, value: Operand, axis: int) -> None:
    if isinstance(value.label, Ids) and follower.sets.varies(value.label.labels, axis):
        follower.sets.freeze(value.label.labels, "one of them is selected by index")


def slice_(
    follower: Follower, node: Node, value: Operand, axis: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Label:
    """Take a part: one of equal blocks or every n-th, which then lose the same channels; else they stay."""
    size = value.shape[axis]
    first, last, step = slice(start, end, step).indices(size)
    if isinstance(value.label, Ids) and (last - first, step) != (size, 1):
        length = last - first
        if follower.sets.varies(value.label.labels, axis):
            if step == 1 and length and size % length == 0 and first % length == 0:
                _tie_blocks(follower, value.label.labels, axis, size // length)
            elif step > 1 and size % step == 0 and last == size and first < step:
                strides = _blocks(value.label.labels, axis, value.shape[axis] // step)
                follower.sets.merge_along(strides, axis % value.label.labels.ndim + 1, _SPLIT)
            else:
                follower.sets.freeze(value.label.labels, _SPLIT)
    return _moved(value, lambda places: torch.ops.aten.slice(places, axis, start, end, step))


def roll(follower: Follower, node: Node, value: Operand, shifts: Any, axes: Any = ()) -> Label:
    """Roll; of channels those that come round stay, since the shift is a fixed number."""
    places = [axes] if isinstance(axes, int) else list(axes)
    counts = [shifts] if isinstance(shifts, int) else list(shifts)
    if isinstance(value.label, Ids):
        labels = value.label.labels
        if not places:
            follower.sets.freeze(labels, "they are rolled over several axes")
        for axis, shift in zip(places, counts, strict=False):
            size = labels.shape[axis]
            if follower.sets.varies(labels, axis) and (turn := shift % size):
                follower.sets.freeze(labels.narrow(axis, size - turn, turn), "they are rolled by a fixed offset")
    return literal(follower, node, value, shifts, axes)


def pixel_shuffle(follower: Follower, node: Node, value: Operand, factor: int) -> Label:
    """Spread each run of channels over one grid; a run goes together."""
    if isinstance(value.label, Ids):
        runs = _blocks(value.label.labels, 1, value.shape[1] // factor**2)
        follower.sets.merge_along(runs, 2, _SPLIT)
    return literal(follower, node, value, factor)


def channel_shuffle(follower: Follower, node: Node, value: Operand, groups: int) -> Label:
    """Interleave equal blocks of channels, which lose the same ones."""
    if isinstance(value.label, Ids):
        _tie_blocks(follower, value.label.labels, 1, groups)
    return _moved(value, lambda places: _blocks(places, 1, groups).transpose(1, 2).flatten(1, 2))


def slice_scatter(
    follower: Follower,
    node: Node,
    base: Operand,
    source: Operand,
    axis: int = 0,
    start: Any = None,
    end: Any = None,
    step: int = 1,
) -> Label:
    """Write a part; every n-th position cannot be followed through a cut."""
    labels, written = base.ids(follower), source.ids(follower)
    first, last, step = slice(start, end, step).indices(base.shape[axis])
    if (step != 1 or last - first != base.shape[axis]) and follower.sets.varies(written, axis):
        follower.sets.freeze(written, "they are written to fixed positions")
        follower.sets.freeze(labels, "some of them are overwritten")
    return Ids(torch.slice_scatter(labels, written.expand(source.shape), axis, start, end, step))


def copy(follower: Follower, node: Node, target: Operand, source: Operand, *_: Any) -> Label:
    """Take the source's label in the target's shape."""
    return _moved(source, lambda places: places.expand(target.shape))


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("clone", "alias", "detach", "contiguous", "lift_fresh", "lift_fresh_copy", "_to_copy"), same),
    **dict.fromkeys(("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"), same),
    **dict.fromkeys(("permute", "t", "transpose", "unsqueeze", "squeeze", "expand", "flip", "repeat"), literal),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias"), reshape),
    "pixel_unshuffle": literal,
    "cat": cat,
    "stack": stack,
    "split": split,
    "split_with_sizes": split,
    "unbind": unbind,
    "select": select,
    "slice": slice_,
    "roll": roll,
    "pixel_shuffle": pixel_shuffle,
    "channel_shuffle": channel_shuffle,
    "native_channel_shuffle": channel_shuffle,
    "slice_scatter": slice_scatter,
    "copy": copy,
}
