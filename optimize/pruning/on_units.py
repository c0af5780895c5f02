"""Unit sets: labels of channels that are merged where they must go together, and frozen where none of them can go.

A label tensor has the shape of the tensor that it describes: at each element the number of a channel, or -1 where
there is none. Channels that must be removed together become one set; `why` says why a set stays.
"""

from collections.abc import Iterator

import numpy as np
import torch

from ..samples import Array

NONE = -1


class UnitSets:
    """Disjoint sets of channels with a reason for those that must stay."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._table = np.array([NONE])  # each channel's set, and none for -1 at the end; empty where it is out of date
        self._frozen: dict[int, str] = {}

    def fresh(self, count: int) -> torch.Tensor:
        """Return `count` new channels, each a set of its own, [count]."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        self._table = self._table[:0]
        return torch.arange(first, first + count)

    def find(self, unit: int) -> int:
        """Return the set's number."""
        parent = self._parent
        while parent[unit] != unit:
            parent[unit] = parent[parent[unit]]
            unit = parent[unit]
        return unit

    def roots(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the labels [...] with each channel replaced by its set's number; same shape."""
        small = compact(labels)
        return torch.from_numpy(self._sets()[small.numpy()]).reshape(small.shape).expand(labels.shape)

    def _sets(self) -> Array:
        """Return the representative of every element and of `NONE`, [elements + 1], all paths shortened."""
        if not len(self._table):
            table = np.array([*self._parent, NONE])
            while not np.array_equal(further := table[table], table):
                table = further
            self._table = table
            self._parent = table[:-1].tolist()
        return self._table

    def union(self, one: torch.Tensor, other: torch.Tensor, why: str) -> None:
        """Merge two label tensors of broadcastable shapes element by element; a channel beside none is frozen."""
        left, right = np.broadcast_arrays(*(self._sets()[compact(each).numpy()] for each in (one, other)))
        apart = left != right
        pairs = np.unique(np.stack([left[apart], right[apart]]), axis=1)
        for first, second in zip(pairs[0].tolist(), pairs[1].tolist(), strict=True):
            if first != NONE and second != NONE:
                self._merge(first, second)
            elif first != second:
                self.freeze_unit(max(first, second), why)

    def merge_along(self, labels: torch.Tensor, axis: int, why: str) -> None:
        """Merge all channels of each line along an axis."""
        small = compact(labels)
        if small.shape[axis] > 1:
            self.union(small, small.narrow(axis, 0, 1), why)

    def freeze(self, labels: torch.Tensor, why: str) -> None:
        """Mark every channel of the labels [...] as kept."""
        for unit in np.unique(self._sets()[compact(labels).numpy()]).tolist():
            if unit != NONE:
                self.freeze_unit(unit, why)

    def freeze_unit(self, unit: int, why: str) -> None:
        """Let one channel stay; the first reason is kept."""
        self._frozen.setdefault(self.find(unit), why)

    def why(self, unit: int) -> str:
        """Return the reason for which the set stays, or nothing where it may go."""
        return self._frozen.get(self.find(unit), "")

    def varies(self, labels: torch.Tensor, axis: int) -> bool:
        """Return True if the sets of the labels [...] differ along an axis."""
        small = compact(labels)
        if small.shape[axis] < 2:
            return False
        roots = self.roots(small)
        return not torch.equal(roots, roots.narrow(axis, 0, 1).expand(roots.shape))

    def _merge(self, first: int, second: int) -> None:
        one, other = self.find(first), self.find(second)
        if one == other:
            return
        self._parent[other] = one
        self._table = self._table[:0]
        if (why := self._frozen.pop(other, "")) and one not in self._frozen:
            self._frozen[one] = why


def compact(labels: torch.Tensor) -> torch.Tensor:
    """Return the labels with size 1 along every axis along which they are merely expanded."""
    for axis, (size, stride) in enumerate(zip(labels.shape, labels.stride(), strict=True)):
        if size > 1 and stride == 0:
            labels = labels.narrow(axis, 0, 1)
    return labels


def along(labels: torch.Tensor, axis: int, rank: int) -> torch.Tensor:
    """Return labels [n] as a view of `rank` axes that varies along one."""
    return labels.view([-1 if place == axis % rank else 1 for place in range(rank)])


def positions(roots: Array) -> Iterator[tuple[int, Array]]:
    """Yield each set of an axis, `roots` [n], with its positions in ascending order; NONE is left out."""
    order = np.argsort(roots, kind="stable")
    values, starts = np.unique(roots[order], return_index=True)
    for value, places in zip(values.tolist(), np.split(order, starts[1:]), strict=True):
        if value != NONE:
            yield value, places
