"""Strict reader of TOML into frozen dataclasses: an unknown key is an error that names file, line and key.

Files are read strictly (no text where a number belongs). It does not interpret values: a dataclass checks its own
fields in ``__post_init__`` and raises `ConfigError`, which leaves here with the file's name on it.
"""

import json
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AliasChoices, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticKnownError, core_schema

from .adapters import bare, options, strict_adapter
from .errors import ConfigError, MissingError, SeatrialError
from .reading import read_bytes

T = TypeVar("T")
Location = Sequence[int | str]
_MOST_BYTES = 16 << 20
_SHOWN = 200  # characters of a wrong value that an error quotes
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


@dataclass(frozen=True, slots=True, kw_only=True)
class ByKind:
    """Annotation of a value whose key ``kind`` says of which dataclass it is: ``Annotated[Base, ByKind(...)]``.

    `of` returns the dataclass of a kind, or None where it is unknown; it also takes the folder that relative paths
    start from. `known` returns the kinds for an error. The set is open, unlike that of a union.
    """

    of: Callable[[str, Path], type[Any] | None]
    known: Callable[[], Sequence[str]]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Validate by the dataclass that the value names (pydantic calls this)."""
        return core_schema.with_info_plain_validator_function(self._read)

    def chosen(self, value: Any, base: Path) -> type[Any] | None:
        """Return the dataclass of a value, or None where it names none that is known."""
        kind = value.get("kind") if isinstance(value, Mapping) else None
        return self.of(kind, base) if isinstance(kind, str) else None

    def _read(self, value: Any, info: core_schema.ValidationInfo) -> Any:
        context = info.context or {}
        owner: Any = self.chosen(value, context.get("base", Path()))
        if owner is not None:
            return _adapter(owner).validate_json(json.dumps(value), strict=True, context=context)
        if not isinstance(value, Mapping):
            raise PydanticKnownError("dict_type")
        named = {"discriminator": "'kind'"}
        if "kind" not in value:
            raise PydanticKnownError("union_tag_not_found", named)
        expected = ", ".join(map(repr, self.known()))
        raise PydanticKnownError("union_tag_invalid", named | {"tag": str(value["kind"]), "expected_tags": expected})


def load(path: Path, type_: type[T]) -> T:
    """Read a TOML file into the dataclass `type_`.

    Raises:
        MissingError: no such file.
        ConfigError: not TOML, an unknown or missing key, a value of the wrong type or one the dataclass refuses.
    """
    return parse(read_text(path), type_, path)


def parse(text: str, type_: type[T], path: Path) -> T:
    """`load` for text that is already at hand; `path` only names it in errors."""
    data = loads(text, path)
    try:
        context = {"base": path.parent}
        return strict_adapter(type_).validate_json(json.dumps(data, default=str), strict=True, context=context)
    except ValidationError as error:
        raise _explained(error, type_, text, path) from error
    except SeatrialError as error:
        error.where = f"{path}: {error.where}" if error.where else str(path)
        raise


def renamed(new: str, *, old: str) -> Any:
    """Return the annotation of a field that files may still give by its old name."""
    return Field(validation_alias=AliasChoices(new, old))


def current_name(type_: Any, key: str) -> str:
    """Return the present name of a dataclass's field, given that or an old one (`renamed`); other keys unchanged."""
    for name, hint in typing.get_type_hints(type_, include_extras=True).items():
        for each in getattr(hint, "__metadata__", ()):
            alias = each.validation_alias if isinstance(each, FieldInfo) else None
            if isinstance(alias, AliasChoices) and key in alias.choices:
                return name
    return key


def loads(text: str, path: Path) -> dict[str, Any]:
    """Return the tables of a TOML text whose numbers are all finite; `path` only names it in errors.

    Raises:
        ConfigError: not TOML, nested too deeply, or a number that is not finite.
    """
    try:
        data = tomllib.loads(text)
        json.dumps(data, default=str, allow_nan=False)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not a TOML file: {error}", where=str(path), next_step="fix the syntax there") from error
    except RecursionError as error:
        raise ConfigError("nested too deeply", where=str(path), next_step="nest tables less deeply") from error
    except ValueError as error:
        raise ConfigError(
            f"a number is not finite, or has too many digits: {error}",
            where=str(path),
            next_step="write an ordinary number",
        ) from error
    return data


def read_text(path: Path) -> str:
    """The file's text, or a `MissingError` / `ConfigError` that names it."""
    try:
        return read_bytes(path, most=_MOST_BYTES).decode()
    except FileNotFoundError as error:
        # Compare stems only: a shared ending would make unrelated names similar.
        near = get_close_matches(path.stem, _stems(path), n=1)
        hint = f"did you mean {path.with_name(near[0] + path.suffix)}?" if near else "check the path"
        raise MissingError("no such file", where=str(path), next_step=hint) from error
    except (OSError, UnicodeDecodeError, SeatrialError) as error:
        said = error.what if isinstance(error, SeatrialError) else str(error)
        raise ConfigError(f"cannot be read: {said}", where=str(path), next_step="give a readable TOML file") from error


def _stems(path: Path) -> list[str]:
    try:
        return [other.stem for other in path.parent.glob("*.toml")]
    except (OSError, ValueError):  # a path that no file can have
        return []


@cache
def _adapter(owner: Any) -> TypeAdapter[Any]:
    return strict_adapter(owner)


def _explained(error: ValidationError, type_: type[Any], text: str, path: Path) -> ConfigError:
    """Convert the first validation error to a ConfigError; the others are counted."""
    data = loads(text, path)
    complaints = sorted(error.errors(include_url=False), key=lambda complaint: complaint["type"] not in _UNKNOWN)
    first = complaints[0]
    location, kind = first["loc"], first["type"]
    steps = list(_steps(type_, location, data, path.parent))
    toml_location = [part for part, _ in steps]
    names = [str(part) for part in toml_location]
    line = _line(text, toml_location)
    where = f"{path}:{line}" if line else str(path)
    key = ".".join(names) or "the file"
    legal = _legal_keys([holder for _, holder in steps], location)
    if kind in _UNKNOWN:
        near = get_close_matches(names[-1], legal, n=1)
        what = f"unknown key {key!r}"
        hint = (f"did you mean {near[0]!r}? " if near else "") + f"legal keys: {', '.join(legal)}"
    elif kind in ("missing", "missing_argument"):
        what, hint = f"missing key {key!r}", f"add it; legal keys: {', '.join(legal)}"
    elif kind == "union_tag_invalid":
        context = first.get("ctx", {})
        what = f"unknown kind {context.get('tag')!r} at {key!r}"
        hint = f"legal kinds: {context.get('expected_tags')}"
    else:
        what, hint = (
            f"{key!r}: {first['msg'][0].lower()}{first['msg'][1:]}, got {_short(first['input'])}",
            "correct the value there",
        )
    if len(complaints) > 1:
        hint += f" ({len(complaints) - 1} more complaint{'s' if len(complaints) > 2 else ''} behind this one)"
    return ConfigError(what, where=where, next_step=hint)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _steps(type_: Any, location: Location, data: Any, base: Path) -> Iterator[tuple[int | str, Any]]:
    """Follow pydantic's location through the types: each part with the type that holds it; union tags have no type."""
    current = type_
    for part in location:
        for by_kind in (each for each in getattr(current, "__metadata__", ()) if isinstance(each, ByKind)):
            current = by_kind.chosen(data, base) or current
        owners = [option for option in options(current) if is_dataclass(option)]
        tagged = [owner for owner in owners if part in _kinds(owner)] if len(owners) > 1 else []
        if tagged:
            current = tagged[0]
            continue
        yield part, current
        data = _inside(data, part)
        if isinstance(part, int):
            current = next(iter(typing.get_args(bare(current))), Any)
        elif owners:
            current = typing.get_type_hints(owners[0], include_extras=True).get(part, Any)
        else:
            current = next(iter(typing.get_args(bare(current))[1:]), Any)


def _inside(data: Any, part: int | str) -> Any:
    try:
        return data[part]
    except (KeyError, IndexError, TypeError):
        return None


def _legal_keys(holders: Sequence[Any], location: Location) -> list[str]:
    owners = [option for option in options(holders[-1]) if is_dataclass(option)] if holders else []
    tags = [part for part in location if isinstance(part, str)]
    if len(owners) > 1:
        owners = [owner for owner in owners if _kinds(owner) & set(tags)] or owners
    return [field.name for owner in owners[:1] for field in fields(owner) if field.init]


def _kinds(owner: Any) -> set[Any]:
    """The values of a dataclass's ``kind: Literal[...]`` field."""
    hint = typing.get_type_hints(owner).get("kind")
    return set(typing.get_args(hint)) if typing.get_origin(hint) is typing.Literal else set()


def _line(text: str, location: Location) -> int | None:
    """The line on which the key at that location stands, as far as a look at headers and keys can tell."""
    tables: dict[tuple[int | str, ...], int] = {}
    current: tuple[int | str, ...] = ()
    best = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line.startswith("[["):
            name: tuple[int | str, ...] = tuple(line.strip("[] ").split("."))
            tables[name] = tables.get(name, -1) + 1
            current = (*name, tables[name])
        elif line.startswith("["):
            name = tuple(line.split("]")[0].strip("[ ").split("."))
            index = tables.get(name[:1])
            current = (name[0], index, *name[1:]) if index is not None and len(name) > 1 else name
        elif "=" in line and not line.startswith("#"):
            key = (*current, *line.split("=")[0].strip().strip('"').split("."))
            if key == tuple(location)[: len(key)]:
                return number
        if current and current == tuple(location)[: len(current)]:
            best = best or number
    return best


def table(value: Mapping[str, Any]) -> dict[str, Any]:
    """A nested mapping as plain dicts, ready for JSON."""
    return {key: table(item) if isinstance(item, Mapping) else item for key, item in value.items()}
