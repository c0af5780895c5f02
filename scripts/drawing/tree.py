"""The tree of modules, read as text: what each says, defines and imports. Imports nothing of what it reads."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = "seatrial"
GROUND, TOP = "ground", "top"


@dataclass(frozen=True, kw_only=True)
class Module:
    """One file of a floor: its path from the root, its parsed text, and the dotted names of modules that it imports."""

    path: str
    parsed: ast.Module
    imports: frozenset[str]

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The dotted name in parts: floor, rooms, module; a package has no part of its own for ``__init__``."""
        parts = Path(self.path).with_suffix("").parts
        return parts[:-1] if parts[-1] == "__init__" else parts

    @property
    def is_package(self) -> bool:
        """Return whether the file is a package's ``__init__``."""
        return self.path.endswith("/__init__.py")

    @property
    def headline(self) -> str:
        """The first line of the docstring."""
        return (ast.get_docstring(self.parsed) or "").partition("\n")[0]

    @cached_property
    def classes(self) -> frozenset[str]:
        """Names of the classes at the top level."""
        return frozenset(node.name for node in self.parsed.body if isinstance(node, ast.ClassDef))

    @cached_property
    def makes(self) -> frozenset[str]:
        """Names of the classes and functions at the top level."""
        return frozenset(
            node.name
            for node in self.parsed.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        )

    @cached_property
    def defines(self) -> frozenset[str]:
        """Names of classes, functions and values at the top level."""
        targets = (
            target
            for node in self.parsed.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        )
        values = (each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name))
        return self.makes | frozenset(values)


@dataclass(frozen=True, kw_only=True)
class Tree:
    """All modules of all floors, by dotted name."""

    modules: Mapping[str, Module]

    @cached_property
    def floors(self) -> tuple[str, ...]:
        """The floors, lowest first: the more floors one imports, the higher it stands."""
        names = {module.parts[0] for module in self.modules.values()}
        below = {name: {b for a, b in self.floor_edges if a == name} for name in names}
        return tuple(sorted(names, key=lambda name: (len(below[name]), name)))

    @cached_property
    def floor_edges(self) -> frozenset[tuple[str, str]]:
        """Which floor imports which other one."""
        return frozenset(
            (module.parts[0], self.modules[name].parts[0])
            for module in self.modules.values()
            for name in module.imports
            if module.parts[0] != self.modules[name].parts[0]
        )

    def room_edges(self, floor: str) -> frozenset[tuple[str, str]]:
        """Return which room of a floor imports which other room of it."""
        return frozenset(
            edge
            for module in self.modules.values()
            for name in module.imports
            if module.parts[0] == self.modules[name].parts[0] == floor
            and len(set(edge := (self.room(module), self.room(self.modules[name])))) > 1
        )

    def room(self, module: Module) -> str:
        """Return the first package below the floor that a module is in; for a module in none, `GROUND` or `TOP`."""
        _, *rest = module.parts
        if len(rest) > 1 or (rest and module.is_package):
            return rest[0]
        return TOP if module.path in self._over_rooms else GROUND

    @cached_property
    def _over_rooms(self) -> frozenset[str]:
        """Paths of the modules in no room that import a room, or another such module."""
        loose = {name: each for name, each in self.modules.items() if len(each.parts) == 2 and not each.is_package}
        found: set[str] = set()
        grown = True
        while grown:
            more = {
                name
                for name, module in loose.items()
                for other in module.imports
                if self.modules[other].parts[0] == module.parts[0]
                and (other in found or (other not in loose and len(self.modules[other].parts) > 1))
            }
            grown = not more <= found
            found |= more
        return frozenset(loose[name].path for name in found)

    def inside(self, *parts: str) -> list[Module]:
        """Return the modules directly in a package, without the package itself and without packages, by path."""
        return [
            module for _, module in sorted(self.modules.items()) if module.parts[:-1] == parts and not module.is_package
        ]

    def packages(self, *parts: str) -> list[Module]:
        """Return every package below one, by path."""
        return [
            module
            for _, module in sorted(self.modules.items())
            if module.is_package and module.parts[: len(parts)] == parts and module.parts != parts
        ]

    def defining(self, name: str) -> list[Module]:
        """Return the modules that define a name at their top level."""
        return [module for _, module in sorted(self.modules.items()) if name in module.defines]


def read_tree(root: Path) -> Tree:
    """Read every floor: each folder at the root that the package offers under the same name."""
    floors = sorted(path.name for path in (root / PACKAGE).iterdir() if (root / path.name / "__init__.py").is_file())
    parsed = {
        path.relative_to(root).as_posix(): ast.parse(path.read_text(), filename=str(path))
        for floor in floors
        for path in sorted((root / floor).rglob("*.py"))
    }
    named = {_dotted(path) for path in parsed}
    modules = (
        Module(path=path, parsed=body, imports=frozenset(_imports(path, body, named)) - {_dotted(path)})
        for path, body in parsed.items()
    )
    return Tree(modules={".".join(module.parts): module for module in modules})


def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Yield every statement below a node, in order: all that can import, without walking through expressions."""
    for name in ("body", "handlers", "orelse", "finalbody", "cases"):
        for child in getattr(node, name, ()) if not isinstance(node, ast.expr) else ():
            if isinstance(child, ast.stmt):
                yield child
            yield from statements(child)


def _dotted(path: str) -> str:
    return ".".join(Path(path).with_suffix("").parts).removesuffix(".__init__")


def _imports(path: str, body: ast.Module, named: set[str]) -> Iterator[str]:
    """Yield the modules of ours that a file imports, at its top or inside a function."""
    here = Path(path).with_suffix("").parts
    for node in statements(body):
        if isinstance(node, ast.Import):
            wanted = [alias.name.removeprefix(f"{PACKAGE}.") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join((*here[: -node.level], *filter(None, [node.module]))) if node.level else node.module or ""
            base = base.removeprefix(f"{PACKAGE}.")
            wanted = [f"{base}.{alias.name}" if base else alias.name for alias in node.names]
            wanted = [name if name in named else base for name in wanted]
        else:
            continue
        yield from (name for name in wanted if name in named)
