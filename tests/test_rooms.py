"""The rooms of a floor: imports point down within it too, no room stands on itself, and the house is not too high.

A room is a folder of the floor, or a module beside them that `TIERS` names; the other modules are one room, the ground.
`TIERS` says which room stands on which, from the ground up: a room imports rooms of lower tiers alone. An import within
a function counts as one at the top of a file. Another floor is held as soon as its tiers are here.
"""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.test_floors import ROOT

HIGHEST = 11
GROUND = "ground"
Tiers = tuple[tuple[str, ...], ...]
TIERS: Mapping[str, Tiers] = {
    "optimize": (
        (GROUND,),
        ("recipe", "graphs"),
        ("tensorrt",),
        ("sessions",),
        ("intake", "timing", "quality", "quantization", "pruning"),
        ("parity",),
        ("stages",),
        ("building", "draft"),
        ("search", "terminal"),
        ("report",),
        ("verbs",),
    ),
}
Module = tuple[str, ...]


def modules(root: Path, floor: str) -> dict[Module, Path]:
    """The floor's modules by name (a package's is the folder's), without the floor's own."""
    found = {}
    for path in sorted((root / floor).rglob("*.py")):
        name = path.relative_to(root / floor).with_suffix("").parts
        found[name[:-1] if name[-1] == "__init__" else name] = path
    found.pop((), None)
    return found


def imported(name: Module, path: Path, floor: str, known: Mapping[Module, Path], *, late: bool) -> Iterator[Module]:
    """Modules of the floor that a module imports; within functions too where `late`."""
    package = (floor, *(name if path.name == "__init__.py" else name[:-1]))
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        for child in ast.iter_child_nodes(node):
            if late or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                waiting.append(child)
        names: list[Module] = []
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split("."))[1:] for alias in node.names if alias.name.startswith("seatrial.")]
        elif isinstance(node, ast.ImportFrom):
            said = tuple(node.module.split(".")) if node.module else ()
            if not node.level and said[:1] != ("seatrial",):
                continue
            base = (*package[: len(package) - node.level + 1], *said) if node.level else said[1:]
            names = [(*base, alias.name) for alias in node.names]
        for full in names:
            found = next((inner for inner in (full[1:], full[1:-1]) if inner in known), None)
            if full[:1] == (floor,) and found is not None:
                yield found


def rooms(known: Mapping[Module, Path], tiers: Tiers) -> dict[Module, str]:
    """The room of every module."""
    named = {name for tier in tiers for name in tier}
    folders = {module[0] for module, path in known.items() if len(module) > 1 or path.name == "__init__.py"}
    return {module: module[0] if module[0] in named | folders else GROUND for module in known}


def arrows(root: Path, floor: str, tiers: Tiers) -> dict[tuple[str, str], list[str]]:
    """Which room imports which, and where."""
    found: dict[tuple[str, str], list[str]] = {}
    known = modules(root, floor)
    room = rooms(known, tiers)
    for name, path in known.items():
        for other in imported(name, path, floor, known, late=True):
            ends = (room[name], room[other])
            if ends[0] != ends[1]:
                found.setdefault(ends, []).append(f"{'.'.join(name)} imports {'.'.join(other)}")
    return found


def breaches(root: Path, floor: str, tiers: Tiers) -> list[str]:
    """Arrows that do not point down, and rooms that have no tier or no module."""
    level = {name: number for number, tier in enumerate(tiers) for name in tier}
    there = set(rooms(modules(root, floor), tiers).values())
    found = [f"{name} has no tier" for name in sorted(there - level.keys())]
    found += [f"{name} is no room" for name in sorted(level.keys() - there)]
    for (upper, lower), where in sorted(arrows(root, floor, tiers).items()):
        if level.get(upper, 0) <= level.get(lower, 0):
            found += [f"{upper} stands on {lower}: {each}" for each in where]
    return found


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Names that stand on each other in turn; none in a sound house."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("floor", TIERS)
def test_imports_point_down_between_rooms(floor: str) -> None:
    assert breaches(ROOT, floor, TIERS[floor]) == []


@pytest.mark.parametrize("floor", TIERS)
def test_no_room_stands_on_itself(floor: str) -> None:
    graph: dict[str, set[str]] = {}
    for upper, lower in arrows(ROOT, floor, TIERS[floor]):
        graph.setdefault(upper, set()).add(lower)
    assert circle(graph) == []


@pytest.mark.parametrize("floor", TIERS)
def test_no_module_imports_itself_in_a_circle(floor: str) -> None:
    known = modules(ROOT, floor)
    graph = {
        ".".join(name): {".".join(other) for other in imported(name, path, floor, known, late=False)}
        for name, path in known.items()
        if path.name != "__init__.py"
    }
    assert circle(graph) == []


@pytest.mark.parametrize("floor", TIERS)
def test_the_house_is_not_too_high(floor: str) -> None:
    assert len(TIERS[floor]) <= HIGHEST


def test_a_planted_arrow_up_and_a_planted_circle_are_found(tmp_path: Path) -> None:
    files = {
        "optimize/__init__.py": "",
        "optimize/base.py": "",
        "optimize/low/__init__.py": "",
        "optimize/low/one.py": "from .. import base\n\n\ndef late() -> None:\n    from ..high.two import name\n",
        "optimize/high/__init__.py": "",
        "optimize/high/two.py": "import seatrial.optimize.low.one\nfrom seatrial.optimize.low import one\nname = one\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    tiers = ((GROUND,), ("low",), ("high",))
    assert breaches(tmp_path, "optimize", tiers) == ["low stands on high: low.one imports high.two"]
    found = breaches(tmp_path, "optimize", ((GROUND,), ("low", "attic")))
    assert found[:2] == ["high has no tier", "attic is no room"]
    graph: dict[str, set[str]] = {}
    for upper, lower in arrows(tmp_path, "optimize", tiers):
        graph.setdefault(upper, set()).add(lower)
    assert set(circle(graph)) == {"low", "high"}
