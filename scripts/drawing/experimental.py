"""The table of experimental parts, from the list in the code."""

from seatrial.optimize.experimental import ALL

from .errors import cell
from .tree import Tree


def table(tree: Tree) -> str:
    """Return a row for each experimental part; the tree has no say in it."""
    rows = (f"| {each.name} | {cell(each.scope)} | {cell(each.unmet)} | {cell(each.settled_by)} |" for each in ALL)
    return "\n".join(("| part | scope | not met yet | settled by |", "|---|---|---|---|", *rows))
