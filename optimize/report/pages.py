"""Pages: renders a template of this floor into one HTML file that needs no network. Computes no figure."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MachineError
from ..store import write_atomically
from ..visible import visible

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(*folders: Path) -> "Environment":
    """Return what renders HTML templates: all text escaped, control and invisible characters shown."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return Environment(
        loader=FileSystemLoader(list(folders)),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write the page; the plot library goes in once.

    Raises:
        MachineError: the file cannot be written.
    """
    from . import on_plotly

    page = (
        environment(Path(__file__).with_name("templates"))
        .get_template(template)
        .render(**values, library=on_plotly.library())
    )
    try:
        write_atomically(path, page.encode())
    except OSError as error:
        raise MachineError(f"cannot write: {error.strerror or error}", where=str(path)) from error
