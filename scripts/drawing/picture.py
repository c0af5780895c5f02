"""Mermaid pictures of floors and rooms: an arrow means "imports"; arrows that follow from others are left out."""

from collections.abc import Iterable

from .tree import GROUND, TOP, Tree

Edge = tuple[str, str]
_LABELS = {GROUND: "ground modules", TOP: "top modules"}


def floors(tree: Tree) -> str:
    """Return the floors with their rooms, highest first, and which floor imports which."""
    lines = ["flowchart TB"]
    for floor in reversed(tree.floors):
        lines.append(f'    subgraph {floor}["{floor}/"]')
        lines += (f'        {floor}_{room}["{room}"]' for room in rooms_of(tree, floor))
        lines.append("    end")
    order = tree.floors
    for source, target in sorted(tree.floor_edges, key=lambda edge: [-order.index(name) for name in edge]):
        lines.append(f"    {source} --> {target}")
    return _fenced(lines)


def rooms(tree: Tree, floor: str) -> str:
    """Return one floor's rooms and which imports which; rooms that import each other are joined by dotted arrows."""
    edges = tree.room_edges(floor)
    names = [
        name for name in (TOP, *rooms_of(tree, floor), GROUND) if name not in _LABELS or _is_there(tree, floor, name)
    ]
    lines = ["flowchart TB"]
    lines += (
        f'    {floor}_{name}(["{_LABELS[name]}"])' if name in _LABELS else f'    {floor}_{name}["{name}"]'
        for name in names
    )
    lines += (f"    {floor}_{a} {arrow} {floor}_{b}" for a, arrow, b in arrows(edges))
    return _fenced(lines)


def rooms_of(tree: Tree, floor: str) -> list[str]:
    """Return the names of the packages directly in a floor."""
    return [each.parts[-1] for each in tree.packages(floor) if len(each.parts) == 2]


def arrows(edges: Iterable[Edge]) -> list[tuple[str, str, str]]:
    """Return the arrows to draw, by name: those that no longer way implies, dotted between members of one circle."""
    edges = sorted(set(edges))
    reached = _reachable(edges)
    drawn = []
    for a, b in edges:
        if a in reached[b]:  # in one circle
            if (b, a) not in edges:
                drawn.append((a, "-.->", b))
            elif a < b:
                drawn.append((a, "<-.->", b))
        elif not any(
            between in reached[a] and b in reached[between] and a not in reached[between] and between not in reached[b]
            for between in reached
        ):
            drawn.append((a, "-->", b))
    return drawn


def circles(edges: Iterable[Edge]) -> list[tuple[str, ...]]:
    """Return the groups of names that reach each other, each sorted."""
    reached = _reachable(sorted(set(edges)))
    found = {tuple(sorted(b for b in reached[a] if a in reached[b])) for a in reached}
    return sorted(group for group in found if len(group) > 1)


def _reachable(edges: Iterable[Edge]) -> dict[str, set[str]]:
    """Return what each name reaches over one edge or more."""
    reached: dict[str, set[str]] = {}
    for a, b in edges:
        reached.setdefault(a, set()).add(b)
        reached.setdefault(b, set())
    for between in reached:
        for names in reached.values():
            if between in names:
                names |= reached[between]
    return reached


def _is_there(tree: Tree, floor: str, room: str) -> bool:
    return any(tree.room(module) == room for module in tree.inside(floor))


def _fenced(lines: Iterable[str]) -> str:
    return "\n".join(("```mermaid", *lines, "```"))
