"""Rules for operators that compute: what merges channels, what consumes and makes them, and what mixes them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from .on_labels import Derived, Follower, Ids, Label, Operand, Weight, operands_in, shape_of
from .on_units import NONE, along, compact

Node = torch.fx.Node
_FOREIGN = "they are combined with values that no layer computes: a constant, a position or an input"


def pointwise(follower: Follower, node: Node, *arguments: Any) -> Label:
    """Merge what meets element by element; what is spread over all channels joins none of them."""
    parts, shape, sets = operands_in(arguments), shape_of(node), follower.sets
    if not any(isinstance(part.label, Ids) for part in parts):
        return _of_weights(follower, parts)
    tracked = []
    for part in parts:
        if part.label is not None and not isinstance(part.label, Derived):
            labels = part.ids(follower)
            tracked.append(labels[(None,) * (len(shape) - labels.ndim)])
    varying = [[sets.varies(labels, axis) for axis in range(len(shape))] for labels in tracked]
    joined: list[torch.Tensor] = []
    for number, labels in enumerate(tracked):
        others = [axes for place, axes in enumerate(varying) if place != number]
        if any(
            labels.shape[axis] == 1 < shape[axis] and any(axes[axis] for axes in others) for axis in range(len(shape))
        ):
            sets.freeze(labels, "it is broadcast over all channels of another layer")
        else:
            joined.append(labels)
    for part in parts:
        if part.label is None or isinstance(part.label, Derived):
            sizes = (1,) * (len(shape) - len(part.shape)) + part.shape
            for labels, axes in zip(tracked, varying, strict=True):
                if any(size > 1 and varies for size, varies in zip(sizes, axes, strict=True)):
                    sets.freeze(labels, _FOREIGN)
    for labels in joined[1:]:
        sets.union(joined[0], labels, _FOREIGN)
    made = compact(joined[0]) if joined else torch.full((1,) * len(shape), NONE)
    for labels in joined[1:]:
        one, other = torch.broadcast_tensors(made, compact(labels))  # type: ignore[no-untyped-call]
        made = torch.where(one == NONE, other, one)
    return Ids(made.expand(shape))


def _of_weights(follower: Follower, parts: list[Operand]) -> Label:
    """A weight under numbers stays that weight; several make a derived one."""
    weights = [part for part in parts if isinstance(part.label, Weight | Derived)]
    plain = all(part in weights or not part.shape for part in parts)
    if len(weights) == 1 and plain:
        return weights[0].label
    names: list[str] = []
    for part in weights:
        assert isinstance(part.label, Weight | Derived)
        follower.nail(part.label, "a weight is computed from it")
        names += [part.label.name] if isinstance(part.label, Weight) else part.label.names
    return Derived(names=tuple(dict.fromkeys(names)))


def prelu(follower: Follower, node: Node, value: Operand, slope: Operand) -> Label:
    """One slope for each channel, or one for all."""
    labels = value.ids(follower)
    if isinstance(slope.label, Weight) and slope.label.places.numel() > 1 and labels.ndim > 1:
        _per_channel_weights(follower, labels, (slope,), "PReLU's slopes are computed")
    return Ids(labels)


def reduce(follower: Follower, node: Node, value: Operand, *arguments: Any) -> Any:
    """Reduce axes; channels that lie along one of them are mixed."""
    if not isinstance(value.label, Ids):
        return NotImplemented
    labels, sets, shape = value.label.labels, follower.sets, shape_of(node)
    chosen = next((argument for argument in arguments if isinstance(argument, list | tuple)), None)
    axes = [axis % labels.ndim for axis in chosen] if chosen else list(range(labels.ndim))
    for axis in axes:
        if sets.varies(labels, axis):
            sets.freeze(labels, f"operator {node.target.overloadpacket.__name__} mixes them")  # type: ignore[union-attr]
    for axis in axes:
        labels = labels.narrow(axis, 0, 1)
    return Ids(labels.reshape(shape))


def normalize_along(follower: Follower, node: Node, value: Operand, axis: int, *_: Any) -> Any:
    """Normalize or sum up along an axis; channels along it are mixed."""
    if isinstance(value.label, Ids) and follower.sets.varies(value.label.labels, axis):
        name = node.target.overloadpacket.__name__.strip("_")  # type: ignore[union-attr]
        follower.sets.freeze(value.label.labels, f"operator {name} mixes them")
    return value.label if isinstance(value.label, Ids) else NotImplemented


def per_channel(follower: Follower, node: Node, value: Operand, *_: Any) -> Any:
    """Work on each channel's grid alone: pooling, interpolation, padding of the grid."""
    if not isinstance(value.label, Ids):
        return NotImplemented
    made = node.meta.get("tensor_meta") or node.meta.get("val")
    several = isinstance(made, list | tuple) and not hasattr(made, "shape")
    labels, rank = value.label.labels, value.label.labels.ndim
    if rank < 3:
        return NotImplemented
    grid = rank - 1 if rank == 3 else rank - 2  # [n, c, length]
    flat = labels.flatten(rank - grid) if rank > 3 else labels
    follower.sets.merge_along(flat, flat.ndim - 1, _FOREIGN)
    line = flat.narrow(flat.ndim - 1, 0, 1).reshape(*labels.shape[: rank - grid], *[1] * grid)
    if several:
        assert isinstance(made, list | tuple)
        first = made[0]
        return [Ids(line.expand(tuple(first.shape))), None]
    return Ids(line.expand(shape_of(node)))


def pad(follower: Follower, node: Node, value: Operand, amounts: list[int], *_: Any) -> Any:
    """Pad; along an axis of channels the added places are no channel's, so that these stay."""
    if not isinstance(value.label, Ids):
        return NotImplemented
    labels = value.label.labels
    for number in range(len(amounts) // 2):
        axis = labels.ndim - 1 - number
        if amounts[2 * number] or amounts[2 * number + 1]:
            if follower.sets.varies(labels, axis):
                follower.sets.freeze(labels, "they are padded by a fixed number")
            labels = labels.narrow(axis, 0, 1).expand(
                [shape_of(node)[axis] if place == axis else size for place, size in enumerate(labels.shape)]
            )
    return Ids(labels)


def glu(follower: Follower, node: Node, value: Operand, axis: int = -1) -> Any:
    """Gate one half by the other."""
    if not isinstance(value.label, Ids):
        return NotImplemented
    one, other = torch.chunk(value.label.labels, 2, dim=axis)
    follower.sets.union(one, other, _FOREIGN)
    return Ids(one)


def batch_norm(follower: Follower, node: Node, value: Operand, *arguments: Any) -> Any:
    """Normalize each channel by numbers of its own."""
    labels = value.ids(follower)
    weights = [each for each in arguments[:4] if isinstance(each, Operand)]
    _per_channel_weights(follower, labels, weights, "its normalization's weights are computed")
    return [Ids(labels), None, None]


def _per_channel_weights(follower: Follower, labels: torch.Tensor, weights: Any, why: str) -> None:
    line = column(follower, labels, 1)
    for operand in weights:
        if isinstance(operand.label, Weight) and len(follower.shape(operand.label.name)) == 1:
            count = follower.shape(operand.label.name)[0]
            places = operand.label.places.flatten()
            first = torch.full((count,), NONE)
            first[places.flip(0)] = line.flip(0)
            follower.sets.union(first[places], line, why)
            follower.attach(operand.label.name, 0, first)
        else:
            follower.sets.freeze(line, why)


def group_norm(follower: Follower, node: Node, value: Operand, *arguments: Any) -> Any:
    """Normalize groups of channels; a group goes as a whole."""
    labels, count = value.ids(follower), arguments[-2]
    line = column(follower, labels, 1)
    follower.sets.merge_along(line.view(count, -1), 1, "its group is normalized together")
    weights = [each for each in arguments[:2] if isinstance(each, Operand)]
    _per_channel_weights(follower, labels, weights, "its normalization's weights are computed")
    if not weights:
        follower.sets.freeze(line, "GroupNorm without weights counts its groups itself")
    return [Ids(labels), None, None]


def layer_norm(follower: Follower, node: Node, value: Operand, shape: list[int], *weights: Any) -> Any:
    """Normalize over the last axes; channels along them are mixed."""
    labels = value.ids(follower)
    for axis in range(labels.ndim - len(shape), labels.ndim):
        if follower.sets.varies(labels, axis):
            follower.sets.freeze(labels, "LayerNorm mixes them")
    for each in operands_in(weights):
        if isinstance(each.label, Weight | Derived):
            follower.nail(each.label, "LayerNorm mixes its channels")
    return [Ids(labels), None, None]


def column(follower: Follower, labels: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the channel of each position of an axis, [n], merging those that share one."""
    lines = labels.movedim(axis, 0)
    flat = lines.reshape(lines.shape[0], -1) if lines.ndim > 1 else lines.unsqueeze(1)
    follower.sets.merge_along(flat, 1, _FOREIGN)
    return flat[:, 0]


def convolution(
    follower: Follower, node: Node, value: Operand, weight: Operand, bias: Operand | None, *rest: Any
) -> Label:
    """Consume the input's channels and make new ones; groups of channels lose the same positions each."""
    transposed, groups = rest[3], rest[5]
    line = column(follower, value.ids(follower), 1)
    if not (isinstance(weight.label, Weight) and follower.unmoved(weight.label)):
        return _opaque(follower, weight, line)
    name, sets = weight.label.name, follower.sets
    count = shape_of(node)[1]
    inside, outside = line.numel() // groups, count // groups
    if inside == 1 and groups > 1:
        made = line.repeat_interleave(outside)
        follower.attach(name, 0, line if transposed else made)
    else:
        made = sets.fresh(count)
        if groups > 1:
            sets.merge_along(line.view(groups, inside), 0, "one group of channels would shrink without the others")
            sets.merge_along(made.view(groups, outside), 0, "one group of channels would shrink without the others")
        whole = line if transposed else line.view(groups, inside)[0]
        follower.attach(name, 0 if transposed else 1, whole, sink=True)
        follower.attach(name, 1 if transposed else 0, made.view(groups, outside)[0] if transposed else made)
    _add_bias(follower, bias, made)
    return Ids(along(made, 1, len(shape_of(node))).expand(shape_of(node)))


def _add_bias(follower: Follower, bias: Operand | None, made: torch.Tensor) -> None:
    if bias is None:
        return
    if isinstance(bias.label, Weight) and follower.unmoved(bias.label) and bias.label.places.ndim == 1:
        follower.attach(bias.label.name, 0, made)
    else:
        follower.sets.freeze(made, "the bias is computed")


def _opaque(follower: Follower, weight: Operand, line: torch.Tensor) -> Label:
    label = weight.label
    names = label.names if isinstance(label, Derived) else (label.name,) if isinstance(label, Weight) else ()
    why = f"the weight that takes them is computed from {', '.join(names)}" if names else "no layer's weight takes them"
    follower.sets.freeze(line, why)
    if isinstance(label, Weight | Derived):
        follower.nail(label, why)
    return None


def addmm(follower: Follower, node: Node, bias: Operand, value: Operand, weight: Operand, *_: Any) -> Any:
    """Multiply and add a bias."""
    return _product(follower, node, value, weight, bias)


def mm(follower: Follower, node: Node, value: Operand, weight: Operand) -> Any:
    """Multiply."""
    return _product(follower, node, value, weight, None)


def _product(follower: Follower, node: Node, value: Operand, weight: Operand, bias: Operand | None) -> Any:
    if isinstance(value.label, Weight | Derived) or isinstance(weight.label, Ids):
        return NotImplemented
    labels, sets = value.ids(follower), follower.sets
    if sets.varies(labels, 0):
        if not sets.varies(labels, 1) and isinstance(weight.label, Weight):  # channels are rows here: they pass
            follower.nail(weight.label, "it works across channels from different places")
            if bias is not None and isinstance(bias.label, Weight | Derived):
                follower.nail(bias.label, "it works across channels from different places")
            return Ids(labels.narrow(1, 0, 1).expand(shape_of(node)))
        return NotImplemented
    line = column(follower, labels, 1)
    if not isinstance(weight.label, Weight) or len(follower.shape(weight.label.name)) != 2:
        return _opaque(follower, weight, line)
    name, places = weight.label.name, weight.label.places
    flipped = follower.unmoved(Weight(name=name, places=places.t()))
    if not flipped and not follower.unmoved(weight.label):
        return _opaque(follower, weight, line)
    made = sets.fresh(places.shape[1])
    follower.attach(name, 1 if flipped else 0, line, sink=True)
    follower.attach(name, 0 if flipped else 1, made)
    _add_bias(follower, bias, made)
    return Ids(made[None].expand(shape_of(node)))


def embedding(follower: Follower, node: Node, table: Operand, *_: Any) -> Any:
    """Look rows up: columns of the table are channels."""
    if not (isinstance(table.label, Weight) and follower.unmoved(table.label)):
        return NotImplemented
    shape = shape_of(node)
    made = follower.sets.fresh(shape[-1])
    follower.attach(table.label.name, 1, made)
    return Ids(along(made, -1, len(shape)).expand(shape))


_POINTWISE = {"hardswish", "log_sigmoid", "fill", "bernoulli"}  # and those that carry the tag
_PER_CHANNEL = ("max_pool", "avg_pool", "adaptive_", "_adaptive_", "upsample_", "reflection_pad", "replication_pad")
RULES: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(("mean", "sum", "amax", "amin", "var", "std", "logsumexp", "linalg_vector_norm", "norm"), reduce),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax", "cumsum", "logcumsumexp"), normalize_along),
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"), batch_norm),
    "_native_batch_norm_legit_no_training": batch_norm,
    "native_group_norm": group_norm,
    "native_layer_norm": layer_norm,
    "constant_pad_nd": pad,
    "glu": glu,
    "log_sigmoid_forward": lambda follower, node, value, *rest: [value.label, None],
    "convolution": convolution,
    "mm": mm,
    "addmm": addmm,
    "embedding": embedding,
    "prelu": prelu,
    "_prelu_kernel": prelu,
}


def rule_of(name: str, target: Any) -> Callable[..., Any] | None:
    """Return the rule of an operator that computes, by name, family or tag."""
    if name in RULES:
        return RULES[name]
    if name.startswith(_PER_CHANNEL) and "backward" not in name:
        return per_channel
    packet = getattr(target, "overloadpacket", None)
    tagged = packet is not None and any(
        torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads()
    )
    return pointwise if tagged or name in _POINTWISE else None
