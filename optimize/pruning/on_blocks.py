"""Blocks: whole layers of a stack that change their input least, and the record that survives their removal."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..errors import StageError
from ..sessions.on_torch import KEPT, call, drop_blocks
from .on_layers import Tensors, kept_by, watched
from .on_proof import prove

_PROVEN = 2  # samples of the proof


def find_stacks(module: torch.nn.Module) -> dict[str, int]:
    """Name and length of every outermost ModuleList or Sequential of two or more blocks of one class."""
    stacks: dict[str, int] = {}
    for name, layer in module.named_modules():
        blocks = list(layer.children())
        if not isinstance(layer, torch.nn.ModuleList | torch.nn.Sequential) or len(blocks) < 2:
            continue
        inside = any(name.startswith(f"{outer}.") for outer in stacks if outer)
        if not inside and len({type(block) for block in blocks}) == 1 and list(blocks[0].children()):
            stacks[name] = len(blocks)
    return stacks


def effects(module: torch.nn.Module, tensors: Tensors, stacks: Mapping[str, int]) -> dict[tuple[str, int], float]:
    """Return the effect of every block: 1 - mean cosine of its input and output over samples.

    Blocks whose output has another shape than their input cannot be left out and are not in the result.
    """
    layers = dict(module.named_modules())
    blocks = {
        f"{stack}.{index}" if stack else str(index): (stack, index)
        for stack in stacks
        for index in range(stacks[stack])
    }
    found: dict[tuple[str, int], float] = {}

    def note(name: str, layer: torch.nn.Module, given: tuple[Any, ...], result: Any) -> None:
        made = result[0] if isinstance(result, tuple) and result else result
        came = next((value for value in given if isinstance(value, torch.Tensor)), None)
        if isinstance(made, torch.Tensor) and came is not None and came.shape == made.shape:
            cosine = torch.nn.functional.cosine_similarity(came.flatten(1), made.flatten(1)).mean()
            found[blocks[name]] = 1 - float(cosine)

    with watched({name: layers[name] for name in blocks}, note), torch.no_grad():
        call(module.eval(), tensors)
    return found


def least(found: Mapping[tuple[str, int], float], stacks: Mapping[str, int], share: float) -> dict[str, list[int]]:
    """Select the blocks to keep by stack when that share of all is removed: at least one goes, one per stack stays."""
    count = max(1, round(share * sum(stacks.values())))
    stays = {stack: list(range(length)) for stack, length in stacks.items()}
    for stack, index in sorted(found, key=lambda block: (found[block], block)):
        if count and len(stays[stack]) > 1:
            stays[stack].remove(index)
            count -= 1
    return {stack: kept for stack, kept in stays.items() if len(kept) < stacks[stack]}


def prune_blocks(
    module: torch.nn.Module, tensors: Tensors, outputs: tuple[str, ...], share: float, keep: Sequence[str]
) -> dict[str, list[int]]:
    """Drop blocks in place; returns what stays of each stack that became shorter.

    Raises:
        StageError: there is nothing that can be dropped, or the model without it is not the one that passes by it.
    """
    stacks = {name: length for name, length in find_stacks(module).items() if not kept_by(name, keep)}
    found = {
        block: effect
        for block, effect in effects(module, tensors, stacks).items()
        if not kept_by(f"{block[0]}.{block[1]}", keep)
    }
    stays = least(found, stacks, share)
    if not stays:
        raise StageError(
            "no block can be dropped: no ModuleList or Sequential of equal blocks that keep their input's shape",
            next_step="remove layers from this stage",
        )

    few = {name: tensor[:_PROVEN] for name, tensor in tensors.items()}

    def drop(smaller: torch.nn.Module) -> None:
        for name, kept in stays.items():
            drop_blocks(smaller, name, kept)

    prove(module, lambda whole: _pass_by(whole, stays), drop, few, outputs, ", ".join(stays) or "the model")
    drop(module)
    return stays


def _pass_by(module: torch.nn.Module, stays: Mapping[str, Sequence[int]]) -> None:
    """Let the blocks that go return what they are given."""

    def hook(layer: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any], result: Any) -> Any:
        came = next(value for value in (*given, *named.values()) if isinstance(value, torch.Tensor))
        return (came, *result[1:]) if isinstance(result, tuple) else came

    for stack, kept in stays.items():
        for index, block in enumerate(module.get_submodule(stack).children()):
            if index not in kept:
                block.register_forward_hook(hook, with_kwargs=True)


def without(sizes: Mapping[str, Mapping[str, Any]], stays: Mapping[str, Sequence[int]]) -> dict[str, dict[str, Any]]:
    """An architecture's recorded sizes after blocks went: names move up, and stacks remember what is left of all.

    A stack's ``kept`` counts blocks as the factory makes them, so a second removal uses the numbers of the first one.
    """
    record: dict[str, dict[str, Any]] = {}
    for name, changed in sizes.items():
        if (moved := _moved(name, stays)) is not None:
            record[moved] = dict(changed)
    for stack, left in stays.items():
        before = sizes.get(stack, {}).get(KEPT)
        record.setdefault(stack, {})[KEPT] = [before[index] for index in left] if before else list(left)
    return record


def _moved(name: str, stays: Mapping[str, Sequence[int]]) -> str | None:
    for stack, left in stays.items():
        prefix = f"{stack}." if stack else ""
        index, _, rest = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and index.isdigit():
            if int(index) not in left:
                return None
            return f"{prefix}{list(left).index(int(index))}" + (f".{rest}" if rest else "")
    return name
