"""Templates: the one environment in which jinja renders HTML pages and drafted files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .units import format_change, format_milliseconds, format_value, short_digest
from .visible import visible

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(*folders: Path, html: bool = True) -> "Environment":
    """Return what renders the templates of these folders.

    In HTML all text is escaped, with control and invisible characters shown; other text goes in as it is.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(folders),
        autoescape=html,
        finalize=_shown if html else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not html,
    )
    made.filters |= {
        "value": format_value,
        "change": format_change,
        "milliseconds": format_milliseconds,
        "digest": short_digest,
    }
    return made


def _shown(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
