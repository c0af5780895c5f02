"""The rooms of a floor: imports between them run one way, down a declared order, and the house is not too high.

A room is a package. The flat modules of a floor are its ground, below every room, except those that `ORDER` names; its
entries are the top, above every room. Inside a room the packages and modules beside each other are compared too. Every
import counts, also one inside a function; only those for annotations do not count between modules of one package, and
neither do those of a module that is run as a script.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from tests.house.test_floors import ROOT, parsed

HIGHEST = 11
GROUND, TOP = "ground", "top"
# From the ground up; rooms of one line do not import each other.
ORDER: Mapping[str, tuple[tuple[str, ...], ...]] = {
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
        (TOP,),
    ),
    "bench": (
        (GROUND,),
        ("load",),
        ("measuring", "quality", "capacity"),
        ("gating",),
        ("records",),
        ("report",),
        (TOP,),
    ),
    "serve": (
        (GROUND,),
        ("deployment", "release"),
        ("triton",),
        ("traffic", "plan", "security"),
        ("kubernetes", "monitor"),
        ("rehearsal",),
        (TOP,),
    ),
}
ENTRIES: Mapping[str, frozenset[str]] = {
    "optimize": frozenset(("verbs",)),
    "bench": frozenset(("verbs", "on_pytest")),
    "serve": frozenset(("cli", "command", "verbs", "ship", "sweeping")),
}
Edge = tuple[str, str]
Edges = dict[Edge, list[str]]


def imports(path: Path, root: Path = ROOT) -> Iterator[tuple[str, int, bool]]:
    """Dotted names that a file imports, with line and whether for annotations only; a script's own do not count."""
    parts = path.relative_to(root).with_suffix("").parts
    yield from _imports(parsed(path), parts, annotations=False)


def _imports(node: ast.AST, parts: tuple[str, ...], *, annotations: bool) -> Iterator[tuple[str, int, bool]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name.removeprefix("seatrial."), node.lineno, annotations) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        package = [*parts[: -node.level], *filter(None, [node.module])] if node.level else [node.module or ""]
        base = ".".join(package).removeprefix("seatrial.")
        yield from ((f"{base}.{alias.name}", node.lineno, annotations) for alias in node.names)
    elif isinstance(node, ast.If) and "__main__" in ast.unparse(node.test):
        return
    elif not isinstance(node, ast.expr):
        typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.iter_child_nodes(node):
            yield from _imports(child, parts, annotations=annotations or typing)


def module_of(name: str, root: Path = ROOT) -> tuple[str, ...] | None:
    """The module that a dotted name lies in, its package as ``__init__``; None where it is none of ours."""
    parts = name.split(".")
    while parts:
        path = root.joinpath(*parts)
        if path.is_dir():
            return (*parts, "__init__")
        if path.with_suffix(".py").is_file():
            return tuple(parts)
        parts.pop()
    return None


@cache
def edges_of(floor: str, root: Path = ROOT) -> dict[tuple[str, ...], Edges]:
    """By package, who of those that lie in it imports whom, each with the places where that is done."""
    found: dict[tuple[str, ...], Edges] = defaultdict(lambda: defaultdict(list))
    for path in sorted((root / floor).rglob("*.py")):
        source = path.relative_to(root).with_suffix("").parts
        for name, line, annotations in imports(path, root):
            target = module_of(name, root)
            if target is None or target[0] != floor or target == source:
                continue
            depth = next(i for i, (one, other) in enumerate(zip(source, target, strict=False)) if one != other)
            if annotations and len(source) == len(target) == depth + 1:
                continue
            found[source[:depth]][source[depth], target[depth]].append(f"{path.relative_to(root)}:{line} {name}")
    return found


def circle(edges: Mapping[Edge, object]) -> list[str]:
    """The members of one circle, in the order of its imports; empty where there is none."""
    left = {member for edge in edges for member in edge}
    while free := {each for each in left if not any(a == each and b in left for a, b in edges)}:
        left -= free
    if not left:
        return []
    path = [min(left)]
    while len(set(path)) == len(path):
        path.append(min(b for a, b in edges if a == path[-1] and b in left))
    return path[path.index(path[-1]) :]


def named(floor: str) -> set[str]:
    """The rooms of the declared order, without ground and top."""
    return {room for line in ORDER[floor] for room in line} - {GROUND, TOP}


def room(floor: str, member: str, root: Path = ROOT) -> str:
    """The room that a package or module of the floor belongs to."""
    if member in ENTRIES[floor]:
        return TOP
    return GROUND if member not in named(floor) and (root / floor / f"{member}.py").is_file() else member


def upward(floor: str, root: Path = ROOT) -> list[str]:
    """Imports that do not point down the declared order; those within ground and within top are free."""
    level = {name: number for number, line in enumerate(ORDER[floor]) for name in line}
    found = []
    for (importer, imported), places in edges_of(floor, root)[floor,].items():
        upper, lower = room(floor, importer, root), room(floor, imported, root)
        if level[upper] <= level[lower] and not (upper == lower and upper in (GROUND, TOP)):
            found.append(f"{importer} -> {imported}: {places}")
    return found


@pytest.mark.parametrize("floor", ORDER)
def test_no_circle_at_any_depth(floor: str) -> None:
    for package, every in edges_of(floor).items():
        found = circle(every)
        places = [every[edge][0] for edge in pairwise(found)]
        assert not found, f"a circle in {'.'.join(package)}: {' -> '.join(found)}; {places}"


@pytest.mark.parametrize("floor", ORDER)
def test_imports_between_rooms_point_down(floor: str) -> None:
    found = upward(floor)
    assert not found, "imports that point up, or between rooms of one line:\n" + "\n".join(found)


@pytest.mark.parametrize("floor", ORDER)
def test_every_room_has_its_place_in_the_order(floor: str) -> None:
    there = {path.name for path in (ROOT / floor).iterdir() if path.is_dir() and any(path.glob("*.py"))}
    modules = {name for name in named(floor) if (ROOT / floor / f"{name}.py").is_file()}
    assert there - ENTRIES[floor] == named(floor) - modules
    assert all((ROOT / floor / name).is_dir() or (ROOT / floor / f"{name}.py").is_file() for name in ENTRIES[floor])


@pytest.mark.parametrize("floor", ORDER)
def test_the_house_is_not_too_high(floor: str) -> None:
    assert len(ORDER[floor]) <= HIGHEST


@pytest.mark.parametrize(
    ("edges", "members"),
    [
        ("", ""),
        ("ab bc ac", ""),
        ("ab ba", "aba"),
        ("xa ab bc ca cy", "abca"),
    ],
)
def test_a_circle_is_found(edges: str, members: str) -> None:
    assert circle({(each[0], each[1]): [] for each in edges.split()}) == list(members)


def test_imports_are_read_wherever_they_stand() -> None:
    text = "\n".join(
        [
            "from ..load import run",
            "if TYPE_CHECKING:",
            "    from .pairs import Arm",
            "def late():",
            "    import seatrial.bench.stats",
            'if __name__ == "__main__":',
            "    from .top import main",
        ]
    )
    found = list(_imports(ast.parse(text), ("bench", "gating", "judge"), annotations=False))
    assert found == [
        ("bench.load.run", 1, False),
        ("bench.gating.pairs.Arm", 3, True),
        ("bench.stats", 5, False),
    ]


def test_a_planted_arrow_up_and_a_planted_circle_are_found(tmp_path: Path) -> None:
    files = {
        "optimize/__init__.py": "",
        "optimize/store.py": "from . import terminal\n",
        "optimize/terminal.py": "",
        "optimize/graphs/__init__.py": "",
        "optimize/graphs/one.py": "from .. import store\n\n\ndef late() -> None:\n    from ..stages.two import name\n",
        "optimize/stages/__init__.py": "",
        "optimize/stages/two.py": "import seatrial.optimize.graphs.one\nname = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert upward("optimize", tmp_path) == [
        "graphs -> stages: ['optimize/graphs/one.py:5 optimize.stages.two.name']",
        "store -> terminal: ['optimize/store.py:1 optimize.terminal']",
    ]
    assert set(circle(edges_of("optimize", tmp_path)["optimize",])) == {"graphs", "stages"}
