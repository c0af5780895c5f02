"""Registry: entries by name, those of this project as import strings and those of other packages as entry points.

Nothing is imported before it is asked for by name, so a long list costs nothing. An entry describes itself; its form is
checked here, once, by the registry's own `form`. Callers do not learn where an entry came from.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar

from .errors import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Place of an entry: its name, the import string ``module:attribute``, and the distribution of another package."""

    name: str
    text: str
    distribution: str = ""

    @property
    def module(self) -> str:
        """The module that holds the entry."""
        return self.text.partition(":")[0]

    def __str__(self) -> str:
        return f"{self.text} of {self.distribution}" if self.distribution else self.text


class Registry(Generic[T]):
    """Named entries of one kind: `built_in` maps names to import strings, `group` is the entry-point group of others.

    `form` takes where an entry comes from and the object found there, and returns the entry; it raises ValueError or
    TypeError, with a sentence, where the object is of another form.
    """

    def __init__(self, what: str, group: str, built_in: Mapping[str, str], form: Callable[[Origin, object], T]) -> None:
        self.what = what
        self.group = group
        self.built_in = built_in
        self._form = form
        self._entries: dict[str, T] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """All known names, those of this project first."""
        return (*self.built_in, *sorted(self._outside.keys() - self.built_in.keys()))

    def __contains__(self, name: object) -> bool:
        return name in self.built_in or name in self._outside

    def get(self, name: str, *, where: str = "") -> T:
        """Return the entry of that name, imported now if it was not yet.

        Raises:
            ConfigError: no such name, one that two packages claim, an entry that cannot be imported or is of another
                form; names the distribution.
        """
        if name not in self._entries:
            origin = self.origin(name, where=where)
            self._entries[name] = self._made(origin, self._imported(origin))
        return self._entries[name]

    def origin(self, name: str, *, where: str = "") -> Origin:
        """Return where the entry of that name comes from, without importing it.

        Raises:
            ConfigError: no such name, or one that two packages claim.
        """
        found = self._outside.get(name, ())
        if len(found) + (name in self.built_in) > 1:
            owners = [*(["seatrial"] if name in self.built_in else []), *map(_distribution, found)]
            raise ConfigError(
                f"{self.what} {name!r} is defined more than once: by {' and by '.join(owners)}",
                where=where or self._place(name),
                next_step="uninstall one of them, or rename its entry point",
            )
        if found:
            return Origin(name=name, text=found[0].value.replace(" ", ""), distribution=_distribution(found[0]))
        if name not in self.built_in:
            raise ConfigError(f"unknown {self.what} {name!r}", where=where, next_step=self.advice(name))
        return Origin(name=name, text=self.built_in[name])

    def advice(self, name: str) -> str:
        """Return the next step for a name that is unknown: the nearest one, and all."""
        near = get_close_matches(name, self.names, n=1)
        return (f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(self.names)}"

    def _imported(self, origin: Origin) -> object:
        module, _, attribute = origin.text.partition(":")
        try:
            found: object = importlib.import_module(module)
            for part in filter(None, attribute.split(".")):
                found = getattr(found, part)
        except Exception as error:
            if not origin.distribution:
                raise
            raise ConfigError(
                f"{self.what} {origin.name!r} cannot be imported: {type(error).__name__}: {error}",
                where=f"{origin}, {self._place(origin.name)}",
                next_step=f"fix or uninstall {origin.distribution}",
            ) from error
        return found

    def _made(self, origin: Origin, found: object) -> T:
        try:
            return self._form(origin, found)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{self.what} {origin.name!r} has the wrong form: {error}",
                where=f"{origin}, {self._place(origin.name)}",
                next_step=f"fix {origin.distribution or 'it'}; CONTRIBUTING.md shows a {self.what}",
            ) from error

    def _place(self, name: str) -> str:
        return f"entry point {name!r} in group {self.group!r}"

    @cached_property
    def _outside(self) -> "Mapping[str, tuple[EntryPoint, ...]]":
        from importlib.metadata import entry_points  # slow to import

        found: dict[str, tuple[EntryPoint, ...]] = {}
        for point in entry_points(group=self.group):
            found[point.name] = (*found.get(point.name, ()), point)
        return found


def _distribution(point: "EntryPoint") -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unnamed distribution"


def subclass_of(base: type[T]) -> Callable[[Origin, object], type[T]]:
    """Return a form: the entry is a class derived from `base`."""

    def form(origin: Origin, found: object) -> type[T]:
        if not isinstance(found, type) or not issubclass(found, base):
            raise TypeError(f"it is {described(found)}, not a class derived from {base.__name__}")
        return found

    return form


def instance_of(base: type[T]) -> Callable[[Origin, object], T]:
    """Return a form: the entry is an instance of `base`, or a class derived from it that takes no arguments."""

    def form(origin: Origin, found: object) -> T:
        made = found() if isinstance(found, type) and issubclass(found, base) else found
        if not isinstance(made, base):
            raise TypeError(f"it is {described(found)}, not a class derived from {base.__name__}")
        return made

    return form


def described(found: object) -> str:
    """Return what an object is, for an error about its form."""
    return f"the class {found.__name__}" if isinstance(found, type) else f"of type {type(found).__name__}"
