"""Pages that follow the tree: what stands between their markers is drawn anew, and names of code find their modules.

A block stands between ``<!-- drawn: NAME -->`` and ``<!-- end -->``. A reference is a path and a name in backticks,
``path.py:name``: where that file no longer defines the name, the module that does takes its place; where none or
several may, the page is refused. A path alone, ``path.py``, follows its file in the same way.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import errors, experimental, picture
from .errors import cell
from .tree import Module, Tree, read_tree

ROOT = Path(__file__).parents[2]
PAGES = ("docs/architecture.md", "CONTRIBUTING.md")
_BLOCK = re.compile(r"(<!-- drawn: (?P<name>[a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_FILE = re.compile(r"`(?P<path>[\w.-]+(?:/[\w.-]+)+\.py)`")
_REFERENCE = re.compile(r"`(?P<path>[\w./-]+\.py):(?P<name>\w+)`")


class PageError(Exception):
    """A page names a block or a piece of code that is not there."""


def rooms(tree: Tree) -> str:
    """Return a section for each floor: its picture, its rooms and its loose modules with what they say they do."""
    parts = []
    for floor in reversed(tree.floors):
        parts += [f"### {floor}/", tree.modules[floor].headline, picture.rooms(tree, floor)]
        if circles := picture.circles(tree.room_edges(floor)):
            parts.append(f"Rooms that import each other: {'; '.join(map(', '.join, circles))}.")
        parts.append(_table("room", floor, tree.packages(floor)))
        if loose := tree.inside(floor):
            table = _table("module", floor, loose)
            parts.append(f"<details><summary>Modules of {floor}/ in no room</summary>\n\n{table}\n\n</details>")
    return "\n\n".join(parts)


BLOCKS: Mapping[str, Callable[[Tree], str]] = {
    "floors": picture.floors,
    "rooms": rooms,
    "errors": errors.table,
    "experimental": experimental.table,
}


def redrawn(text: str, tree: Tree, root: Path) -> str:
    """Return a page's text as the tree wants it.

    Raises:
        PageError: an unknown block, a name that no module or several modules define, or a file that is not there.
    """

    def block(match: re.Match[str]) -> str:
        if match["name"] not in BLOCKS:
            raise PageError(f"no block is called {match['name']}; there are {', '.join(BLOCKS)}")
        return f"{match[1]}\n{BLOCKS[match['name']](tree)}\n\n{match[3]}"

    text = _BLOCK.sub(block, text)
    text = _FILE.sub(lambda match: f"`{_moved(match['path'], root)}`", text)
    return _REFERENCE.sub(lambda match: f"`{_home(match['path'], match['name'], tree)}:{match['name']}`", text)


def stale(root: Path, pages: Sequence[str] = PAGES) -> dict[str, str]:
    """Return the pages that are out of date, each with the text that it should have.

    Raises:
        PageError: as `redrawn`, with the page's name.
    """
    tree, found = read_tree(root), {}
    for page in pages:
        text = (root / page).read_text()
        try:
            wanted = redrawn(text, tree, root)
        except PageError as error:
            raise PageError(f"{page}: {error}") from error
        if wanted != text:
            found[page] = wanted
    return found


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Write the pages anew, or with ``--check`` only say which are out of date; 1 where one is or cannot be drawn."""
    parser = argparse.ArgumentParser(prog="scripts/architecture", description="Draw floors and rooms into the pages.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is out of date")
    check = parser.parse_args(arguments).check
    try:
        found = stale(root)
    except PageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for page, text in found.items():
        if check:
            print(f"{page} is out of date. Next: scripts/architecture", file=sys.stderr)
        else:
            (root / page).write_text(text)
            print(f"{page} drawn anew")
    return int(check and bool(found))


def _table(what: str, floor: str, modules: Sequence[Module]) -> str:
    rows = (f"| `{'/'.join(each.parts[1:])}` | {cell(each.headline)} |" for each in modules)
    return "\n".join((f"| {what} of {floor}/ | its job |", "|---|---|", *rows))


def _moved(path: str, root: Path) -> str:
    """Return a path that exists: the one given, else the only file of its name in the same folder of the root."""
    top = root / Path(path).parts[0]
    if (root / path).exists() or not top.is_dir():
        return path
    found = sorted(top.rglob(Path(path).name))
    if len(found) != 1:
        raise PageError(f"{path} is not there; {len(found)} files below {top.name} have its name")
    return found[0].relative_to(root).as_posix()


def _home(path: str, name: str, tree: Tree) -> str:
    """Return the path of the module that defines a name: the one given, else the likeliest of the others.

    A module of the same floor is likelier than others, then a file of the same name, then a class or function. A name
    that changed floors is only found where it is a class: functions of different floors are often called alike.
    """
    if any(name in module.defines for module in tree.modules.values() if module.path == path):
        return path
    found = tree.defining(name)
    old, ranked = Path(path), dict[tuple[bool, bool, bool], list[str]]()
    for module in found:
        near, made = Path(module.path).parts[0] == old.parts[0], name in module.makes
        if near or name in module.classes:
            ranked.setdefault((near, Path(module.path).name == old.name, made), []).append(module.path)
    best = ranked[max(ranked)] if ranked else []
    if len(best) != 1:
        raise PageError(f"{path} defines no {name}; {', '.join(module.path for module in found) or 'no module'} does")
    return best[0]


if __name__ == "__main__":
    sys.exit(main())
