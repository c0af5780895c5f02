"""Writes a plan's setting into a deployment's file: only the values change, comments and order stay.

Edits lines, then reads the result back through the one door and refuses to write what does not say exactly the
deployment that was meant. Atomic: the file is the old one or the new one.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from seatrial.optimize import config
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.store import write_atomically

from ..deployment import Deployment
from .setting import Setting

_HEADER = re.compile(r"\s*\[\s*([A-Za-z0-9_.\- \"]+?)\s*\]\s*(#.*)?$")


def write(path: Path, setting: Setting) -> Deployment:
    """Put the setting into the deployment's file and return what it says now.

    Raises: as `edit`; then the file is as it was.
    """
    text, meant = edit(path, setting)
    write_atomically(path, text.encode())
    return meant


def edit(path: Path, setting: Setting) -> tuple[str, Deployment]:
    """The file's text with the setting in it, and the deployment that it then is; writes nothing.

    Raises:
        ConfigError: the file is no deployment, or is written in a form in which its values cannot be changed alone.
    """
    text = config.read_text(path)
    meant = setting.applied(config.parse(text, Deployment, path))
    changed = edited(text, _values(meant))
    try:
        said = config.parse(changed, Deployment, path)
    except ConfigError as error:
        raise _stubborn(path) from error
    if said != meant:
        raise _stubborn(path)
    return changed, meant


def edited(text: str, values: Mapping[tuple[str, str], str]) -> str:
    """The text with ``(table, key) = value`` set, each on its own line; a key or table that lacks is added.

    A line's comment stays. Values in inline tables or over several lines are not seen; the caller checks the result.
    """
    lines = text.splitlines()
    for (table, key), value in values.items():
        _set(lines, table, key, value)
    return "\n".join(lines) + "\n"


def _values(deployment: Deployment) -> dict[tuple[str, str], str]:
    """Return the values to write, in the order of the file; an empty list only if a line must be overruled."""
    values = {
        ("", "max_batch_size"): str(deployment.max_batch_size),
        ("", "threads"): str(deployment.threads),
        ("batching", "max_queue_delay_us"): str(deployment.batching.max_queue_delay_us),
        ("batching", "preferred_sizes"): "",
        ("instances", "count"): str(deployment.instances.count),
    }
    if deployment.warmup.batch_sizes:
        values["warmup", "batch_sizes"] = str(list(deployment.warmup.batch_sizes))
    return values


def _set(lines: list[str], table: str, key: str, value: str) -> None:
    begin, end = _span(lines, table)
    if begin is None:
        if value:
            lines += ["", f"[{table}]", f"{key} = {value}"]
        return
    found = re.compile(rf"(\s*{re.escape(key)}\s*=\s*)([^#]*?)(\s*)(#.*)?$")
    for number in range(begin, end):
        if match := found.match(lines[number]):
            if value:
                lines[number] = f"{match[1]}{value}{match[3] if match[4] else ''}{match[4] or ''}"
            else:
                del lines[number]
            return
    if value:
        while end > begin and not lines[end - 1].strip():
            end -= 1
        lines.insert(end, f"{key} = {value}")


def _span(lines: list[str], table: str) -> tuple[int | None, int]:
    """First line of a table's keys and the line after its last; the root begins at 0."""
    begin: int | None = 0 if not table else None
    for number, line in enumerate(lines):
        if header := _HEADER.match(line):
            if begin is not None:
                return begin, number
            if header[1] == table:
                begin = number + 1
    return begin, len(lines)


def _stubborn(path: Path) -> ConfigError:
    return ConfigError(
        "the plan cannot be written into this file without rewriting the whole file",
        where=str(path),
        next_step="write [batching], [instances] and [warmup] as tables with one key per line, then retry",
    )
