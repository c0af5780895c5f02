"""The tree of errors, read from the code: which class leaves with which exit code, and what it says it is."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .tree import Module, Tree

ROOT = "SeatrialError"
VARIES = "its own"  # the code is an argument of each error


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One class of error: its bases, its exit code (empty: its base's), its docstring's first line and its module."""

    name: str
    bases: tuple[str, ...]
    code: str
    headline: str
    path: str


def table(tree: Tree) -> str:
    """Return every class of error as a row of a Markdown table, by exit code, each with its module."""
    kinds = {kind.name: kind for module in tree.modules.values() for kind in _kinds(module)}
    ours = [kind for kind in kinds.values() if ROOT in _lineage(kind.name, kinds) and not kind.name.startswith("_")]
    rows = sorted((_code(kind.name, kinds), kind.path, kind.name, kind.headline) for kind in ours)
    lines = ["| exit code | error | what it means |", "|---|---|---|"]
    lines += (f"| {code} | `{path}:{name}` | {cell(headline)} |" for code, path, name, headline in rows)
    return "\n".join(lines)


def cell(text: str) -> str:
    """Return text that ends no cell of a table."""
    return text.replace("|", "\\|")


def _lineage(name: str, kinds: Mapping[str, Kind]) -> list[str]:
    """Return a class and its bases, nearest first."""
    found = [name]
    for base in kinds[name].bases if name in kinds else ():
        found += _lineage(base, kinds)
    return found


def _code(name: str, kinds: Mapping[str, Kind]) -> str:
    return next((kinds[each].code for each in _lineage(name, kinds) if each in kinds and kinds[each].code), "")


def _kinds(module: Module) -> Iterator[Kind]:
    values = {
        target.id: node.value.value
        for node in module.parsed.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in module.parsed.body:
        if isinstance(node, ast.ClassDef):
            yield Kind(
                name=node.name,
                bases=tuple(base.id for base in node.bases if isinstance(base, ast.Name)),
                code=_own_code(node, values),
                headline=(ast.get_docstring(node) or "").partition("\n")[0],
                path=module.path,
            )


def _own_code(node: ast.ClassDef, values: Mapping[str, object]) -> str:
    for each in node.body:
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "exit_code":
            said = each.value
            return str(said.value if isinstance(said, ast.Constant) else values.get(ast.unparse(said), ""))
        if isinstance(each, ast.FunctionDef) and any(arg.arg == "exit_code" for arg in each.args.kwonlyargs):
            return VARIES
    return ""
