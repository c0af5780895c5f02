"""Every row about serving, in one command; the rows themselves stand in ``serve_*.py``."""

from . import (
    serve_control,
    serve_edge,
    serve_engines,
    serve_kills,
    serve_peers,
    serve_plan,
    serve_python,
    serve_rollout,
    serve_shadow,
)
from .rows import Rows
from .rows import main as run_rows

ROWS: Rows = {
    **serve_control.ROWS,
    **serve_edge.ROWS,
    **serve_rollout.ROWS,
    **serve_kills.ROWS,
    **serve_shadow.ROWS,
    **serve_python.ROWS,
    **serve_engines.ROWS,
    **serve_peers.ROWS,
    **serve_plan.ROWS,
}


def main() -> int:
    """Run the rows that the command line names."""
    return run_rows("Measure the claims of the serving floor.", ROWS)


if __name__ == "__main__":
    raise SystemExit(main())
