"""Pages: renders a template into one HTML file that needs no network. Computes no figure.

A template lies in its own room's `templates` and extends `page.html.j2` of this one; `parts.html.j2` holds what several
pages show.
"""

from pathlib import Path
from typing import Any

from ..errors import MachineError
from ..store import write_atomically
from ..templating import environment

_OWN = Path(__file__).with_name("templates")


def write_page(path: Path, template: str | Path, **values: Any) -> None:
    """Write the page of a template of this room, or of another room's file; the plot library goes in once.

    Raises:
        MachineError: the file cannot be written.
    """
    from . import on_plotly

    file = _OWN / template
    page = environment(file.parent, _OWN).get_template(file.name).render(**values, library=on_plotly.library())
    try:
        write_atomically(path, page.encode())
    except OSError as error:
        raise MachineError(f"cannot write: {error.strerror or error}", where=str(path)) from error
