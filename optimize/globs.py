"""Globs that name nodes: matching, and an error with similar names for globs that match nothing."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

from .errors import ConfigError

_MOST = 6


def fits(glob: str, name: str) -> bool:
    """Return whether the glob means the name; a name with brackets means itself too."""
    return glob == name or fnmatchcase(name, glob)


def fits_any(globs: Iterable[str], names: Iterable[str]) -> bool:
    """Return whether one of the globs means one of the names."""
    names = tuple(names)
    return any(fits(glob, name) for glob in globs for name in names)


def near(text: str, names: Collection[str]) -> list[str]:
    """Names that come near the text, else some of them."""
    plain = text.strip("*?")
    found = get_close_matches(text, names, n=_MOST, cutoff=0.5)
    found += [name for name in names if plain and plain.lower() in name.lower()]
    return list(dict.fromkeys(found))[:_MOST] or sorted(names)[:_MOST]


def check(
    globs: Iterable[str], names: Collection[str], *, field: str, where: str, operators: Collection[str] = ()
) -> None:
    """Refuse a glob that fits none of the names.

    Raises:
        ConfigError: with near names, and with the operators of the graph and the `field` that takes them.
    """
    for glob in globs:
        if any(fits(glob, name) for name in names):
            continue
        step = f"names that come near: {', '.join(near(glob, names)) or 'none, no node has a name'}"
        if operators:
            step += f"; or give operators to {field}_operators: {', '.join(sorted(operators))}"
        raise ConfigError(f"{field} {glob!r} fits no node of the graph", where=where, next_step=step)


def check_operators(wanted: Iterable[str], there: Collection[str], *, field: str, where: str) -> None:
    """Refuse an operator that the graph does not have.

    Raises:
        ConfigError: with the operators that it has.
    """
    for operator in wanted:
        if operator not in there:
            raise ConfigError(
                f"{field}: the graph has no operator {operator!r}",
                where=where,
                next_step=f"it has {', '.join(sorted(there))}",
            )
