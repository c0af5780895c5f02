"""Import closure: the files that a module of this floor runs, found by reading imports and importing nothing.

What a build keeps is keyed by the code that made it. A list of files kept by hand forgets one sooner or later, and then
an edited checkout takes an old artifact for its own; the imports cannot forget. Those within functions count, and so
does a module named by a string alone (``"seatrial.optimize.…"``: what another process runs, an entry of a registry). A
module that is imported by a name made at run time is not seen: the caller then names it as a root. For stages of other
packages and of the user, the digest of their own code and of what it imports of this floor is taken in the same way.
"""

import ast
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_STATEMENT = re.compile(r"^[ \t]*((?:from[ \t]+[\w.]+[ \t]+)?import[ \t]+(?:\([^)]*\)|[^\n]+))", re.MULTILINE)

Dotted = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """One file: the digest of its bytes, and the files that it names."""

    digest: str
    named: frozenset[str]


class SourceTree:
    """The modules in one folder, imported as `package`; each is read at most once, when it is first needed."""

    def __init__(self, root: Path, package: str) -> None:
        self.root = root
        self._package = tuple(package.split("."))
        self._string = re.compile(rf'"({re.escape(package)}\.[\w.]+)(?::\w+)?"')
        self._known: dict[str, _Read] = {}
        self._files: dict[Dotted, str | None] = {}

    def closure(self, *modules: str) -> tuple[str, ...]:
        """Return the files of these modules and of all that they import in this folder, relative to it and sorted.

        Raises:
            ModuleNotFoundError: no such module.
        """
        found: set[str] = set()
        waiting = [self._file(module) for module in modules]
        while waiting:
            if (file := waiting.pop()) not in found:
                found.add(file)
                waiting.extend(self._read(file).named)
        return tuple(sorted(found))

    def digest(self, *modules: str) -> str:
        """Return ``sha256:<64 hex>`` of names and bytes of the closure, wherever the folder lies."""
        state = hashlib.sha256()
        for file in self.closure(*modules):
            state.update(f"{file}\0{self._read(file).digest}\n".encode())
        return "sha256:" + state.hexdigest()

    def named_in(self, file: Path) -> tuple[str, ...]:
        """Return the modules of this folder, dotted, that a file elsewhere imports or names."""
        text = file.read_text() if file.suffix == ".py" else ""
        depth = len(self._package)
        found = set()
        for absolute in (*_imported(text, ()), *self._string.findall(text)):
            dotted = tuple(absolute.split("."))
            if dotted[:depth] == self._package:
                inside = dotted[depth:]
                while inside and self._resolved(inside) is None:
                    inside = inside[:-1]
                found.add(".".join(inside))
        return tuple(sorted(found))

    def _file(self, module: str) -> str:
        if (file := self._resolved(tuple(filter(None, module.split("."))))) is None:
            raise ModuleNotFoundError(f"no module {module!r} in {self.root}")
        return file

    def _resolved(self, dotted: Dotted) -> str | None:
        """Return the file of the module or package of that name in this folder; None where there is none."""
        if dotted not in self._files:
            tried = ["/".join((*dotted, "__init__.py")), *(["/".join(dotted) + ".py"] if dotted else [])]
            self._files[dotted] = next((file for file in tried if os.path.isfile(f"{self.root}/{file}")), None)
        return self._files[dotted]

    def _read(self, file: str) -> _Read:
        if file not in self._known:
            data = (self.root / file).read_bytes()
            named = frozenset(self._named(file, data.decode()))
            self._known[file] = _Read(digest=hashlib.sha256(data).hexdigest(), named=named)
        return self._known[file]

    def _named(self, file: str, text: str) -> Iterator[str]:
        """Yield the files that a file needs: packages around it, what it imports, what another process runs for it."""
        around = tuple(file.split("/")[:-1])
        modules = [around[:depth] for depth in range(len(around) + 1)]
        depth = len(self._package)
        for absolute in (*_imported(text, (*self._package, *around)), *self._string.findall(text)):
            dotted = tuple(absolute.split("."))
            if dotted[:depth] == self._package:
                modules.append(dotted[depth:])
        for module in modules:
            named = module
            while (found := self._resolved(named)) is None and named:
                named = named[:-1]  # a name in a module
            if found is not None:
                yield found


def _imported(text: str, package: Dotted) -> Iterator[str]:
    """Yield what a file of that package imports, names in modules too, as absolute dotted names."""
    for node in _statements(text):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            continue
        base = list(package[: len(package) - node.level + 1]) if node.level else []
        base += [node.module] if node.module else []
        yield from (".".join((*base, alias.name)) for alias in node.names)


def _statements(text: str) -> list[ast.Import | ast.ImportFrom]:
    """Return a file's imports: parsed alone, in a fraction of the time; the whole file where prose looks like one."""
    alone = "\n".join(match.strip() for match in _STATEMENT.findall(text))
    try:
        nodes: list[ast.AST] = list(ast.parse(alone).body)
    except SyntaxError:
        nodes = list(ast.walk(ast.parse(text)))
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


@cache
def own_tree() -> SourceTree:
    """Return this floor's modules, as they are when this process first looks at each."""
    return SourceTree(Path(__file__).parent, __package__)


def digest_of_file(file: Path, *modules: str) -> str:
    """Return the digest of a file elsewhere, of what it imports of this floor, and of these modules of it."""
    own = hashlib.sha256(file.read_bytes()).hexdigest()
    return f"{own}+{own_tree().digest(*own_tree().named_in(file), *modules)}"


def digest_of_package(module: str, *modules: str) -> str:
    """Return the same of an importable module: the closure of its imports within the package that holds it.

    Raises:
        ModuleNotFoundError: no such module, or one without source.
    """
    top, _, inside = module.partition(".")
    found = find_spec(top)
    if found is None or not (found.submodule_search_locations or found.origin):
        raise ModuleNotFoundError(f"no module {top!r} with source")
    if not found.submodule_search_locations:
        return digest_of_file(Path(found.origin or ""), *modules)
    tree = SourceTree(Path(next(iter(found.submodule_search_locations))), top)
    files = tree.closure(inside)
    named = {name for each in files for name in own_tree().named_in(tree.root / each)}
    return f"{tree.digest(inside)}+{own_tree().digest(*sorted(named), *modules)}"
