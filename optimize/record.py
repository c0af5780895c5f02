"""Stored records: what a frozen dataclass declares of its JSON form, and the one codec that writes and reads it.

A record names its schema, how errors call it and what to do about a damaged one. Fields are written under their own
names, or under those that `keys` gives; `computed` properties are written beside them and passed over on reading.
Reading is strict (`reading.decode`): each field of its own type, none missing, none unknown.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from enum import Enum
from functools import cache
from math import isfinite
from pathlib import Path, PurePath
from types import MappingProxyType, UnionType
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

from .errors import IntegrityError
from .reading import RESTORE, damage, decode, parse_json, read_bytes, without

_NONE: Mapping[str, str] = MappingProxyType({})


class Record:
    """Base of a frozen dataclass that is written as JSON, and of one that is read back.

    `Verdict(Record, schema=1, what="the verdict", computed=("exit_code",))` declares the form: `keys` are stored names
    by field, `was` names of earlier versions and their fields, `older` the schemas that `adapt` turns into this one.
    Computed constants of the class are checked on reading.
    `sparse` fields are left out where they stand at their default; `beside` are those that another file holds.
    """

    __slots__ = ()
    record_schema: ClassVar[int | None] = None
    record_older: ClassVar[tuple[int, ...]] = ()
    record_what: ClassVar[str] = "the record"
    record_next_step: ClassVar[str] = RESTORE
    record_computed: ClassVar[tuple[str, ...]] = ()
    record_sparse: ClassVar[tuple[str, ...]] = ()
    record_beside: ClassVar[tuple[str, ...]] = ()
    record_keys: ClassVar[Mapping[str, str]] = _NONE
    record_was: ClassVar[Mapping[str, str]] = _NONE

    def __init_subclass__(
        cls,
        *,
        schema: int | None = None,
        older: tuple[int, ...] | None = None,
        what: str | None = None,
        next_step: str | None = None,
        **names: tuple[str, ...] | Mapping[str, str],
    ) -> None:
        """Keep what the class statement declares; a dataclass with slots is made twice, the second time without."""
        super().__init_subclass__()
        declared = {"schema": schema, "older": older, "what": what, "next_step": next_step}
        if unknown := names.keys() - {"computed", "sparse", "beside", "keys", "was"}:
            raise TypeError(f"{cls.__name__} declares {min(unknown)!r}, which no record has")
        for name, value in (declared | names).items():
            if value is not None:
                setattr(cls, f"record_{name}", value)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values: schema, computed properties, fields."""
        schema = {} if self.record_schema is None else {"schema": self.record_schema}
        left_out = {*self.record_beside, *(name for name in self.record_sparse if self._at_default(name))}
        names = (*self.record_computed, *(name for name in _names(self) if name not in left_out))
        return schema | {self.record_keys.get(name, name): as_json(getattr(self, name)) for name in names}

    @classmethod
    def from_json(cls, value: Any, *, where: str = "", next_step: str = "", **beside: Any) -> Self:
        """Read what `to_json` wrote, of an earlier version too; `beside` are the fields that another file holds.

        Raises:
            IntegrityError: another schema, or a field that is missing, unknown, of another type or out of bounds.
        """
        step = next_step or cls.record_next_step
        with damage(where, step):
            _check_schema(cls, value, where)
            try:
                owner: Any = cls
                kind = _stored(owner) if cls.record_beside else owner
                found: Any = decode(kind, stored_fields(cls, value), where=where, next_step=step)
                if kind is not cls:
                    found = cls(**{each.name: getattr(found, each.name) for each in fields(kind)}, **beside)
                found.check()
            except (IntegrityError, ValueError, TypeError) as error:
                why = error.what if isinstance(error, IntegrityError) else error
                raise IntegrityError(f"{cls.record_what} cannot be read: {why}", where=where, next_step=step) from error
        made: Self = found
        return made

    @classmethod
    def parse(cls, data: bytes, *, where: str = "", next_step: str = "", **beside: Any) -> Self:
        """Read what a file of it holds; raises as `from_json`, and IntegrityError where that is no JSON."""
        step = next_step or cls.record_next_step
        return cls.from_json(parse_json(data, where=where, next_step=step), where=where, next_step=step, **beside)

    @classmethod
    def read(cls, path: Path, *, next_step: str = "", **beside: Any) -> Self:
        """Return the record in a file.

        Raises:
            FileNotFoundError: there is none.
            IntegrityError: as `from_json`, or no plain file with JSON stands there.
            MachineError: the system refused.
        """
        step = next_step or cls.record_next_step
        return cls.parse(read_bytes(path, next_step=step), where=str(path), next_step=step, **beside)

    @classmethod
    def find(cls, path: Path, *, next_step: str = "") -> Self | None:
        """Return the record in a file, None where there is none; raises as `read`."""
        try:
            return cls.read(path, next_step=next_step)
        except FileNotFoundError:
            return None

    def write(self, path: Path, *, indent: int | None = None) -> None:
        """Stage, fsync and rename the record's JSON: canonical, or with an indent for people."""
        from .plain import write_atomically

        value = self.to_json()
        readable = json.dumps(value, sort_keys=True, indent=indent, allow_nan=False).encode()
        write_atomically(path, canonical(value) if indent is None else readable)

    def _at_default(self, name: str) -> bool:
        spot = type(self).__dataclass_fields__[name]  # type: ignore[attr-defined]
        made = spot.default_factory() if spot.default is MISSING else spot.default
        return bool(getattr(self, name) == made)

    @classmethod
    def adapt(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Return a stored object of an earlier form in today's form; overridden by records that have one."""
        return value

    def check(self) -> None:
        """Raise ValueError or TypeError where the values, each of its type, cannot have been written together."""


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes, so that they can be digested."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def as_json(value: Any) -> Any:
    """Return a value as JSON has it: what has a `to_json` by that, dataclasses as objects, arrays and tuples as lists.

    Fields that a dataclass does not take (``init=False``) are left out: they are no part of what it says.
    """
    if hasattr(value, "to_json"):
        return value.to_json()
    if hasattr(value, "__dataclass_fields__"):
        return fields_as_json(value)
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [as_json(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "tolist"):  # an array or number of numpy, which is not imported here
        return value.tolist()
    return str(value) if isinstance(value, PurePath) else value


def fields_as_json(value: Any) -> dict[str, Any]:
    """Return a dataclass as an object of its fields; for a `to_json` of its own, which `as_json` would call again."""
    return {name: as_json(getattr(value, name)) for name in _names(value)}


def finite(value: Any) -> Any:
    """Return a JSON value with None in the place of each number that is not finite, which JSON cannot represent."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def stored_fields(type_: Any, value: Any) -> Any:
    """Return a stored value with the keys that the dataclasses of `type_` have, down to the records inside it."""
    if isinstance(value, list):
        inner = [each for each in get_args(type_) if each is not Ellipsis]
        return [stored_fields(inner[0], each) for each in value] if len(inner) == 1 else value
    if not isinstance(value, dict):
        return value
    owner = get_origin(type_) or type_
    if owner in (Union, UnionType):
        some = [each for each in get_args(type_) if each is not type(None)]
        return stored_fields(some[0], value) if len(some) == 1 else value
    if not isinstance(owner, type):
        return value
    if issubclass(owner, Record):
        value = _renamed(owner, value)
    if hasattr(owner, "__dataclass_fields__"):
        hints = _hints(owner)
        return {key: stored_fields(hints.get(key, Any), item) for key, item in value.items()}
    if issubclass(owner, Mapping) and len(get_args(type_)) == 2:
        return {key: stored_fields(get_args(type_)[1], item) for key, item in value.items()}
    return value


def _renamed(owner: type[Record], value: dict[str, Any]) -> dict[str, Any]:
    own: Mapping[str, Any] = getattr(owner, "__dataclass_fields__", {})
    if "schema" in value and "schema" not in own:
        _check_schema(owner, value)
    passed = {*owner.record_computed, *(() if "schema" in own or owner.record_schema is None else ("schema",))}
    names = {**owner.record_was, **{key: name for name, key in owner.record_keys.items()}}
    return {names.get(key, key): item for key, item in owner.adapt(value).items() if key not in passed}


def _check_schema(cls: type[Record], value: Any, where: str = "") -> None:
    if not isinstance(value, dict):
        raise IntegrityError(f"{cls.record_what} is not a JSON object", where=where, next_step=cls.record_next_step)
    found = value.get("schema")
    if cls.record_schema is not None and (
        type(found) is not int or found not in (cls.record_schema, *cls.record_older)
    ):
        raise IntegrityError(
            f"{cls.record_what} has schema {repr(found)[:40]}, this version reads {cls.record_schema}",
            where=where,
            next_step=f"use the version of seatrial that wrote it, or {cls.record_next_step}",
        )
    for name in cls.record_computed:  # a constant says which kind of record a file holds
        constant, stored = getattr(cls, name), value.get(cls.record_keys.get(name, name))
        if isinstance(constant, str) and stored != constant:
            what = f"{cls.record_what} has {name} {repr(stored)[:40]}, expected {constant!r}"
            raise IntegrityError(what, where=where, next_step=cls.record_next_step)


@cache
def _stored(cls: Any) -> Any:
    """Return the dataclass of what a record's own file holds of it."""
    return without(cls, cls.record_beside)


@cache
def _hints(owner: type[Any]) -> dict[str, Any]:
    return get_type_hints(owner)


def _names(value: Any) -> list[str]:
    return [spot.name for spot in fields(value) if spot.init]
