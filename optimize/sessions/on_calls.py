"""Calls of modules that others wrote: how a forward takes its inputs, and its result as tensors by name.

Inputs go by keyword, by position, or as one mapping; a result may be a tensor, a sequence, a mapping or an object, one
inside the other. Nothing here converts to arrays or looks at numbers.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal
from weakref import WeakSet

import torch

Style = Literal["keyword", "position", "mapping"]
_BY_MAPPING: WeakSet[torch.nn.Module] = WeakSet()  # modules of one parameter that took a mapping and no tensor
_BY_POSITION: WeakSet[torch.nn.Module] = WeakSet()  # those that took a tensor


def style_of(module: torch.nn.Module, names: list[str]) -> Style:
    """Return how the module's forward takes inputs of these names, as far as its signature tells.

    By keyword where it knows every name, or takes any beside those that it must have; as a mapping where it takes one
    thing and there are several inputs, or says so. The signature is seen through decorators.
    """
    known = inspect.signature(module.forward).parameters
    if all(name in known and known[name].kind is not known[name].VAR_KEYWORD for name in names):
        return "keyword"
    kinds = {each.kind for each in known.values()}
    single = [each for each in known.values() if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    needed = [each.name for each in single if each.default is each.empty]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        if inspect.Parameter.VAR_KEYWORD in kinds and set(needed) <= set(names):
            return "keyword"
        if len(needed) == 1 and (module in _BY_MAPPING or (len(names) > 1 and len(single) == 1) or _maps(single[0])):
            return "mapping"
    return "position"


def _maps(parameter: inspect.Parameter) -> bool:
    text = str(parameter.annotation).lower()
    return "dict" in text or "mapping" in text


def invoke(module: torch.nn.Module, forward: Callable[..., Any], tensors: Mapping[str, torch.Tensor]) -> Any:
    """Call `forward` (the module, or its own forward) with the inputs as it takes them.

    A forward of one parameter that fails on a tensor is tried with a mapping; which of the two it takes is remembered.
    """
    style = style_of(module, list(tensors))
    if style == "keyword":
        return forward(**tensors)
    if style == "mapping":
        return forward(dict(tensors))
    undecided = len(tensors) == 1 and len(inspect.signature(module.forward).parameters) == 1
    if not undecided or module in _BY_POSITION:
        return forward(*tensors.values())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a tensor that is indexed by a text
            result = forward(*tensors.values())
        _BY_POSITION.add(module)
    except Exception:
        try:
            result = forward(dict(tensors))
        except Exception:  # noqa: BLE001  it takes no mapping either: the first error is the true one
            result = None
        if result is None:
            raise
        _BY_MAPPING.add(module)
    return result


def leaves(result: Any) -> dict[str, torch.Tensor]:
    """Return all tensors of a result by name, keys and positions along the way joined by ``_``.

    A lone tensor is ``output``, those of a sequence are ``output_0`` and on, in order, whatever they lie in.
    """
    if isinstance(result, torch.Tensor):
        return {"output": result}
    if isinstance(result, tuple | list) and not hasattr(result, "_fields"):
        return {f"output_{number}": tensor for number, (_, tensor) in enumerate(_walk(result, ""))}
    return dict(_walk(result, ""))


def _walk(value: Any, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
        return
    for name, part in _parts(value):
        yield from _walk(part, f"{path}_{name}" if path else name)


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(str(name), part) for name, part in value.items()]
    if hasattr(value, "_fields"):
        return [(name, getattr(value, name)) for name in value._fields]
    if isinstance(value, tuple | list):
        return [(str(number), part) for number, part in enumerate(value)]
    return list(vars(value).items()) if hasattr(value, "__dict__") and not isinstance(value, torch.nn.Module) else []


def named(result: Any, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Return a result's tensors under the outputs' names: by key or attribute where it has them, else in order.

    Raises:
        ValueError: the result does not hold what the names promise.
    """
    found = leaves(result)
    if all(name in found for name in names):
        return {name: found[name] for name in names}
    if isinstance(result, torch.Tensor | tuple | list) and not any(name in found for name in names):
        if len(found) >= len(names):
            return dict(zip(names, found.values(), strict=False))
        raise ValueError(f"it returns {len(found)} tensors ({_listed(found)}), but the recipe names {list(names)}")
    missing = [name for name in names if name not in found]
    raise ValueError(f"it returns {_listed(found) or f'a {type(result).__name__} without tensors'}, not {missing}")


def _listed(found: Mapping[str, torch.Tensor]) -> str:
    return ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in found.items())


def unservable(name: str, tensor: torch.Tensor) -> str:
    """Return why a tensor can be no output of a served model, or nothing where it can."""
    if tensor.is_complex():
        return f"output {name!r} is complex ({tensor.dtype}); return torch.view_as_real of it, or its magnitude"
    if tensor.dtype is torch.bfloat16:
        return f"output {name!r} is bfloat16; return it as float32 (.float())"
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return f"output {name!r} is not a plain dense tensor ({tensor.layout}, {tensor.dtype})"
    return ""
