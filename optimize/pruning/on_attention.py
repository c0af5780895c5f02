"""Attention: whole heads and feed-forward columns, found by structure, removed with the bookkeeping done.

Heads are grouped by shape and call order, not by layers' names: three Linear layers of one width (or one of three
times the width) inside a module that knows its number of heads, and the Linear that is called next on that width.
Whatever was guessed is proven: the smaller module must compute what the whole one does with these units off.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch

from ..errors import StageError
from ..samples import Array
from .on_cut import cut, switch_off, tensors_of
from .on_layers import Tensors, called, kept_by
from .on_proof import prove
from .widths import WidthReduction, choose

HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "nhead", "num_key_value_heads")
HEAD_SIZE = ("head_dim", "attention_head_size", "head_size", "dim_head", "dim_per_head", "d_head")
WIDTHS = ("all_head_size", "attn_dim", "inner_dim", "embed_dim", "hidden_size", "d_model", "dim")
Layers = Mapping[str, Any]  # modules by name; what each of them is was checked when it was found


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Removable units between layers: `count` of `size` rows in each of `into` (`parts` times), columns in `out`.

    `owner` names the attention module whose attributes count heads; feed-forward columns have none.
    """

    name: str
    into: tuple[str, ...]
    out: str
    count: int
    size: int = 1
    parts: int = 1
    owner: str | None = None

    def columns(self, units: Array) -> torch.Tensor:
        """Return the columns of `out`, [units * size], that belong to `units` [units]."""
        return (torch.from_numpy(units)[:, None] * self.size + torch.arange(self.size)).flatten()

    def rows(self, units: Array) -> torch.Tensor:
        """Return the rows of each layer of `into`, [parts * units * size], that belong to `units` [units]."""
        width = self.count * self.size
        return torch.cat([self.columns(units) + part * width for part in range(self.parts)])


def find_units(
    module: torch.nn.Module, tensors: Tensors, keep: Sequence[str], *, heads: bool = True
) -> tuple[tuple[Units, ...], tuple[Units, ...]]:
    """Attention blocks and feed-forward pairs that may lose units; without `heads` all attention counts as kept.

    Raises:
        StageError: attention that cannot lose heads (``torch.nn.MultiheadAttention``, grouped queries), not under keep.
    """
    layers: Layers = dict(module.named_modules())
    order = called(module, tensors)
    untouched = keep if heads else (*keep, "*")
    blocks = [found for name in layers if (found := _attention(name, layers, order, untouched)) is not None]
    taken = {name for unit in blocks for name in (*unit.into, unit.out)}
    columns = _feed_forward(layers, order, taken)
    return (
        tuple(unit for unit in blocks if not kept_by(unit.name, untouched)),
        tuple(unit for unit in columns if not any(kept_by(name, keep) for name in unit.into)),
    )


def has_attention(module: torch.nn.Module) -> bool:
    """Return True if any layer is attention: torch's own, or a module with a number of heads."""
    return any(
        isinstance(layer, torch.nn.MultiheadAttention) or (_head_count(layer, 0) and _linears(layer))
        for layer in module.modules()
    )


def scores(module: torch.nn.Module, units: Units, importance: Literal["magnitude", "taylor"]) -> Array:
    """One score per unit, higher stays, [count].

    ``magnitude`` is the mean square of all weights of the unit. ``taylor`` is the first-order effect of a gate on the
    unit, ``|sum w dL/dw|`` over its columns of `out` (Michel et al., 2019, section 4.1); needs gradients.
    """
    layers: Layers = dict(module.named_modules())
    out = layers[units.out].weight
    if importance == "taylor":
        effect: Array = (out.detach() * out.grad).sum(0).reshape(units.count, units.size).sum(1).abs().numpy()
        return effect
    squares = [out.detach().square().sum(0).reshape(units.count, units.size).sum(1)]
    for name in units.into:
        weight = layers[name].weight
        rows = weight.detach().square().sum(1).reshape(units.parts, units.count, units.size)
        squares.append(rows.sum(dim=(0, 2)))
    return torch.stack(squares).sum(0).numpy()


def prune_units(
    module: torch.nn.Module,
    units: Sequence[Units],
    reduction: WidthReduction,
    *,
    importance: Literal["magnitude", "taylor"],
    tensors: Tensors,
    outputs: tuple[str, ...],
) -> None:
    """Remove units in place as far as the reduction says, and prove the result.

    Raises:
        StageError: the smaller module does not answer as the whole one with these units switched off.
    """
    if not units:
        return
    _check_plain(module, units)
    layers: Layers = dict(module.named_modules())
    shared = _shared(layers, units)
    multiple = reduction.multiple
    counts = [min(alike[0].count, reduction.kept(alike[0].name, multiple)) for alike in shared]
    ranks = [np.mean([scores(module, unit, importance) for unit in alike], axis=0) for alike in shared]
    chosen = choose(ranks, counts, multiple, reduction.scope)
    stays = [(unit, units) for alike, units in zip(shared, chosen, strict=True) for unit in alike]
    stays = [(unit, units) for unit, units in stays if len(units) < unit.count]
    if not stays:
        return
    prove(
        module,
        lambda whole: switch_off(
            whole, {f"{unit.out}.weight": {1: unit.columns(left).numpy()} for unit, left in stays}
        ),
        lambda smaller: _cut(smaller, stays),
        tensors,
        outputs,
        ", ".join(unit.name for unit, _ in stays),
    )
    _cut(module, stays)


def _check_plain(module: torch.nn.Module, units: Sequence[Units]) -> None:
    tensors = tensors_of(module)
    computed = [name for unit in units for name in (*unit.into, unit.out) if f"{name}.weight" not in tensors]
    if computed:
        raise StageError(
            "computed (parametrized) weights cannot be pruned",
            where=", ".join(computed),
            next_step="name these layers under keep, or fold the parametrization in the factory",
        )


def _shared(layers: Layers, units: Sequence[Units]) -> list[list[Units]]:
    """Units of layers that share a weight together: they lose the same."""
    found: list[tuple[set[int], list[Units]]] = []
    for unit in units:
        own = {id(layers[name].weight) for name in (*unit.into, unit.out)}
        joined = [pair for pair in found if pair[0] & own]
        if clash := [
            other for _, alike in joined for other in alike if (other.count, other.size) != (unit.count, unit.size)
        ]:
            raise StageError(
                f"{unit.name} and {clash[0].name} share a weight but differ in units",
                where=f"{unit.name}, {clash[0].name}",
                next_step="name both under keep",
            )
        found = [pair for pair in found if pair not in joined]
        found.append((own.union(*(pair[0] for pair in joined)), [*(u for pair in joined for u in pair[1]), unit]))
    return [alike for _, alike in found]


def _cut(module: torch.nn.Module, stays: Sequence[tuple[Units, Array]]) -> None:
    """Cut the module in place to the units that stay: for each group their indices, [kept]."""
    layers: Layers = dict(module.named_modules())
    slices: dict[str, dict[int, Array]] = {}
    known = {name: id(tensor) for name, tensor in tensors_of(module).items()}
    first: dict[int, str] = {}

    def note(name: str, axis: int, stay: torch.Tensor) -> None:
        if name in known:
            slices.setdefault(first.setdefault(known[name], name), {})[axis] = stay.numpy()

    for unit, left in stays:
        for name in unit.into:
            note(f"{name}.weight", 0, unit.rows(left))
            note(f"{name}.bias", 0, unit.rows(left))
        note(f"{unit.out}.weight", 1, unit.columns(left))
    cut(module, slices)
    for unit, left in stays:
        owner = None if unit.owner is None else layers[unit.owner]
        for names, old, new in (
            (HEADS, unit.count, len(left)),
            (WIDTHS, unit.count * unit.size, len(left) * unit.size),
        ):
            for name in names:
                if owner is not None and getattr(owner, name, None) == old:
                    setattr(owner, name, new)


def _attention(name: str, layers: Layers, order: Sequence[str], keep: Sequence[str]) -> Units | None:
    """The module of that name as heads, or None if it is no attention."""
    layer = layers[name]

    def refuse(why: str) -> StageError:
        return StageError(
            f"{why} cannot lose heads",
            where=name or "the model",
            next_step="name it under keep, or prune ffn and layers",
        )

    if isinstance(layer, torch.nn.MultiheadAttention):
        if kept_by(name, keep):
            return None
        raise refuse("torch.nn.MultiheadAttention (its width is its heads)")
    children = _linears(layer)
    inner = [f"{name}.{child}" if name else child for child in children]
    inner = sorted((full for full in inner if full in order), key=order.index)
    widths = [layers[full].weight.shape[0] for full in inner]
    heads = _head_count(layer, widths[0] if len(widths) >= 3 else 0)
    if not inner or not heads:
        return None
    if len(inner) >= 3 and widths[0] == widths[1] == widths[2] and widths[0] % heads == 0:
        into, width, parts = inner[:3], widths[0], 1
    elif widths[0] % (3 * heads) == 0 and len(inner) <= 2:
        into, width, parts = inner[:1], widths[0] // 3, 3
    elif kept_by(name, keep):
        return None
    else:
        raise refuse(f"attention with projections of widths {widths} (grouped queries or an unknown form)")
    following = order[order.index(into[-1]) + 1 :]
    out = following[0] if following else ""
    if not out or layers[out].weight.shape[1] != width:
        if kept_by(name, keep):
            return None
        raise refuse("attention whose output projection is not the next Linear")
    return Units(name=name, into=tuple(into), out=out, count=heads, size=width // heads, parts=parts, owner=name)


def _feed_forward(layers: Layers, order: Sequence[str], taken: set[str]) -> list[Units]:
    """Pairs of a widening and the next, narrowing Linear; a gate of the same shape just before the first joins in."""
    shapes = {name: tuple(layers[name].weight.shape) for name in order}
    found = []
    for place, (up, down) in enumerate(pairwise(order)):
        if {up, down} & taken or shapes[up] != shapes[down][::-1] or shapes[up][0] <= shapes[up][1]:
            continue
        gate = order[place - 1] if place else ""
        joined = gate and gate not in taken and shapes[gate] == shapes[up]
        found.append(Units(name=up, into=(gate, up) if joined else (up,), out=down, count=shapes[up][0]))
    return found


def _linears(layer: torch.nn.Module) -> list[str]:
    return [name for name, child in layer.named_children() if isinstance(child, torch.nn.Linear)]


def _head_count(layer: torch.nn.Module, width: int) -> int:
    """The number of heads that a module states, or that its head size implies for this width; 0 if neither."""
    for name in HEADS:
        if isinstance(count := getattr(layer, name, None), int) and count > 0:
            return count
    for name in HEAD_SIZE:
        if isinstance(size := getattr(layer, name, None), int) and size > 0:
            return max(1, width // size)
    return 0
