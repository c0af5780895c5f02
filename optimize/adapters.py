"""Pydantic's view of frozen dataclasses: what validates JSON as one of them, and which dataclasses a type reaches.

Types only: which file the JSON came from, and what an error says of it, is `config`'s and `reading`'s business.
"""

import types
import typing
from dataclasses import is_dataclass
from typing import Any, TypeVar

from pydantic import ConfigDict, PydanticUserError, TypeAdapter

T = TypeVar("T")


def strict_adapter(type_: type[T]) -> TypeAdapter[T]:
    """Return what validates JSON as `type_`, refusing keys that its dataclasses do not have."""
    for owner in _dataclasses(type_):
        if "__pydantic_config__" not in vars(owner):
            owner.__pydantic_config__ = ConfigDict(extra="forbid")
    try:
        return TypeAdapter(type_)
    except PydanticUserError as error:  # a mistake in our own dataclass, not in the file
        raise TypeError(f"{type_.__name__} cannot be read from TOML: {error}") from error


def options(type_: Any) -> tuple[Any, ...]:
    """Return the members of a union without None, each as `bare` gives it; another type alone."""
    inner = bare(type_)
    if typing.get_origin(inner) in (typing.Union, types.UnionType):
        return tuple(bare(option) for option in typing.get_args(inner) if option is not type(None))
    return (inner,)


def bare(type_: Any) -> Any:
    """Return a type without its annotations, and without None where that leaves one."""
    while typing.get_origin(type_) is typing.Annotated:
        type_ = typing.get_args(type_)[0]
    if typing.get_origin(type_) in (typing.Union, types.UnionType):
        some = [option for option in typing.get_args(type_) if option is not type(None)]
        if len(some) == 1:
            return bare(some[0])
    return type_


def _dataclasses(type_: Any, seen: set[Any] | None = None) -> set[Any]:
    """Every dataclass that the type reaches."""
    seen = set() if seen is None else seen
    for option in options(type_):
        if is_dataclass(option) and option not in seen:
            seen.add(option)
            for hint in typing.get_type_hints(option, include_extras=True).values():
                _dataclasses(hint, seen)
        for argument in typing.get_args(option):
            _dataclasses(argument, seen)
    return seen
