"""Pages: renders a template of this floor into one HTML file that needs no network. Computes no figure."""

from pathlib import Path
from typing import Any

from .errors import MachineError
from .store import write_atomically


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write the page; the plot library goes in once.

    Raises:
        MachineError: the file cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from . import on_plotly

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = templates.get_template(template).render(**values, library=on_plotly.library())
    try:
        write_atomically(path, page.encode())
    except OSError as error:
        raise MachineError(f"cannot write: {error.strerror or error}", where=str(path)) from error
