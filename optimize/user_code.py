"""The user's own code: factories, loaders and metrics named in a recipe, found, called and digested.

A reference is ``file.py:name`` (relative to the recipe) or ``package.module:name``. A reference to a file makes that
file part of what is built: its bytes go into cache keys, and for factories into the artifact itself.
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from .artifact import digest_bytes, digest_file
from .errors import ConfigError, MissingError, SourceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A callable of the user's by name; `file` is set when it stands in a file, `module` when it is importable."""

    text: str
    name: str
    file: Path | None
    module: str | None

    @classmethod
    def parse(cls, text: str, base: Path) -> "Reference":
        """Read ``file.py:name`` or ``module:name``.

        Raises:
            ConfigError: neither form.
            MissingError: the file is not there.
        """
        place, colon, name = text.rpartition(":")
        if not colon or not place or not name.isidentifier():
            raise ConfigError(f"invalid reference {text!r}", next_step="write file.py:name or package.module:name")
        if not place.endswith(".py"):
            return cls(text=text, name=name, file=None, module=place)
        file = (base / place).resolve()
        if not file.is_file():
            raise MissingError(
                f"no such file: {place}", where=f"{text!r}, looked for in {base}", next_step="check the path"
            )
        return cls(text=text, name=name, file=file, module=None)

    @property
    def digest(self) -> str:
        """Digest of the code: the file's bytes, or name and version of the distribution that holds the module."""
        if self.file is not None:
            return digest_file(self.file)
        package = (self.module or "").partition(".")[0]
        names = metadata.packages_distributions().get(package, [])
        versions = sorted(f"{name}=={metadata.version(name)}" for name in names)
        if not versions and (spec := importlib.util.find_spec(package)) is not None and spec.origin:
            versions = [digest_file(Path(spec.origin))]
        return digest_bytes(f"{self.module}:{self.name}|{versions}".encode())

    def load(self) -> Callable[..., Any]:
        """Import the callable.

        Raises:
            SourceError: the import raised, or there is no such callable.
        """
        try:
            module = _module_of_file(self.file) if self.file else importlib.import_module(self.module or "")
        except Exception as error:  # the user's code may raise anything
            raise SourceError(
                f"importing it raised {type(error).__name__}: {error}", where=self.text, next_step="fix that code"
            ) from error
        found = getattr(module, self.name, None)
        if not callable(found):
            names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
            raise SourceError(
                f"the module has no callable {self.name!r}",
                where=self.text,
                next_step=f"correct the name; the module has: {', '.join(names[:12]) or 'none'}",
            )
        return cast("Callable[..., Any]", found)

    def call(self, *arguments: Any, **named: Any) -> Any:
        """Load and call it; whatever it raises becomes a `SourceError` that names it."""
        function = self.load()
        try:
            return function(*arguments, **named)
        except Exception as error:  # the user's code may raise anything
            line = _line_in(error, self.file)
            raise SourceError(
                f"{self.name}() raised {type(error).__name__}: {error}",
                where=f"{self.text}{line}",
                next_step="fix that code; nothing was stored",
            ) from error


def _module_of_file(file: Path) -> ModuleType:
    """The module of a file, imported once per content under a name of its own, its folder importable meanwhile."""
    name = f"seatrial_user_{file.stem}_{hashlib.sha256(file.read_bytes() + str(file).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    loader = SourceFileLoader(name, str(file))  # by hand: a source kept in the store has no .py in its name
    module = importlib.util.module_from_spec(ModuleSpec(name, loader, origin=str(file)))
    module.__file__ = str(file)
    sys.modules[name] = module
    sys.path.insert(0, str(file.parent))
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(file.parent))
    return module


def _line_in(error: BaseException, file: Path | None) -> str:
    """``, line N`` of the last frame inside the user's file."""
    line, trace = "", error.__traceback__
    while trace is not None:
        if file is not None and Path(trace.tb_frame.f_code.co_filename) == file:
            line = f", line {trace.tb_lineno}"
        trace = trace.tb_next
    return line
