"""The files of an edge that Envoy follows: written each at once, and the routes that they hold. Starts nothing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from seatrial.optimize.store import write_atomically

from .clusters import Document
from .config import KINDS, Places
from .routes import RouteTable
from .routes import read as ways_in


def write(places: Places, files: Mapping[str, Document], kinds: Sequence[str] = KINDS) -> None:
    """Write those files, each at once: Envoy sees the old one or the new one."""
    for kind in kinds:
        write_atomically(places.file(kind), json.dumps(files[kind]).encode())


def on_disk(folder: Path) -> RouteTable:
    """The routes in the files that an Envoy would start from; none where there are no files."""
    path = Places(folder=folder, sockets=folder).file("rds")
    try:
        return ways_in(json.loads(path.read_text())["resources"][0])
    except FileNotFoundError:
        return RouteTable()
