"""A recipe as TOML text: the one place that writes recipes, so that what a program decided is an ordinary file again.

Reading is `config`'s business. The law between the two: what is read back has the digest of what was written.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import config
from .configs import StageConfig
from .kinds import kind_of
from .recipe import Recipe


def to_toml(recipe: Recipe) -> str:
    """The recipe as a TOML document, every value written out, without comments."""
    return document(recipe.content)


def from_json(value: Mapping[str, Any], path: Path) -> Recipe:
    """A recipe from what `as_json` gave, checked as a file at `path` would be.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """
    return config.parse(document(value), Recipe, path).at(path)


def read_stage(value: Mapping[str, Any], base: Path = Path()) -> StageConfig:
    """A stage's configuration from what its artifact's provenance recorded; `base` is the folder of the recipe.

    Raises:
        ConfigError: the record is not a stage that this version knows.
    """
    kind = kind_of(str(value.get("kind")), base)
    return config.parse(document(value), kind.config, Path("the recorded stage"))


def document(value: Mapping[str, Any]) -> str:
    """Nested mappings as a TOML document; None is left out, TOML has no word for it."""
    return "\n".join(_table(value, ())).lstrip("\n") + "\n"


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    plain = {key: value for key, value in table.items() if value is not None and not _is_table(value)}
    nested = {key: value for key, value in table.items() if _is_table(value)}
    yield from (f"{_key(key)} = {value_text(value)}" for key, value in plain.items())
    for key, value in nested.items():
        name = ".".join(map(_key, (*path, key)))
        for each in value if isinstance(value, list) else (value,):
            yield from ("", f"[[{name}]]" if isinstance(value, list) else f"[{name}]")
            yield from _table(each, (*path, key))


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)
    )


def _key(key: str) -> str:
    bare = key and key.isascii() and all(character.isalnum() or character in "_-" for character in key)
    return key if bare else _string(key)


def value_text(value: Any) -> str:
    """One value as TOML, a mapping as an inline table."""
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(value_text(item) for item in value) + "]"
    if isinstance(value, Mapping):
        pairs = (f"{_key(key)} = {value_text(item)}" for key, item in value.items() if item is not None)
        return "{ " + ", ".join(pairs) + " }"
    raise TypeError(f"TOML cannot represent a value of type {type(value).__name__}")


def _string(text: str) -> str:
    """JSON's escapes are TOML's, but for DEL, which TOML wants escaped, and characters that must not be surrogates."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
