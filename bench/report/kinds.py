"""Kinds of stored runs and their reports. Recognises runs by the header that each writes first."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from seatrial.optimize.artifact import canonical
from seatrial.optimize.errors import ConfigError, IntegrityError, MissingError, SeatrialError
from seatrial.optimize.reading import RESTORE, damage, read_json

from . import capacity_run, gate_run, load_run, measured_run
from .run_report import RunReport

KINDS: Mapping[str, Callable[[Path], RunReport]] = {
    "gate": gate_run.told,
    "open loop": load_run.told,
    "closed loop": load_run.told_saturation,
    "measure": measured_run.told,
    "capacity run": capacity_run.told,
}
"""Readers by the ``kind`` in a run's header. A result with ``to_json`` is reported by ``told.recomputed(kind, folder,
result)``.
"""


def tell(folder: Path) -> RunReport:
    """Compute a run's results again from its raw values, offline.

    Raises:
        MissingError: no run there.
        ConfigError: a kind that this version cannot tell.
        IntegrityError: a run that cannot be read.
    """
    kind = kind_of(folder)
    if kind not in KINDS:
        raise ConfigError(
            f"runs of kind {kind!r} cannot be reported",
            where=str(folder),
            next_step=f"known kinds: {', '.join(KINDS)}; a newer version of seatrial may know it",
        )
    with damage(folder):
        told = KINDS[kind](folder)
        canonical(dict(told.document))
    return _guarded(told, folder)


def _guarded(told: RunReport, folder: Path) -> RunReport:
    """The same report, each of its forms an `IntegrityError` where the run's values allow none."""

    def guard(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any) -> Any:
            with damage(folder):
                return make(*arguments)

        return made

    forms = ("show", "markdown", "junit", "html", "pytest_benchmark", "measured")
    made: dict[str, Any] = {name: guard(form) for name in forms if (form := getattr(told, name)) is not None}
    return replace(told, **made)


def kind_of(folder: Path) -> str:
    """The kind that the folder's header names; a header without one that knows two arms is a gate's.

    Raises:
        MissingError: no header there.
        IntegrityError: a header that cannot be read.
    """
    for value in _headers(folder):
        if "kind" in value:
            return str(value["kind"])
        if "base" in value and "candidate" in value and "budget" in value:
            return "gate"
    if folder.is_dir():
        raise MissingError(
            (
                "there is no run: the folder holds no results, for example because the run was ended before "
                "its first one"
            ),
            where=str(folder),
            next_step="run it again, or name a folder that seatrial gate, load or measure wrote",
        )
    raise MissingError(
        "there is no run in this folder",
        where=str(folder),
        next_step="name a folder that seatrial gate, load or measure wrote",
    )


def _headers(folder: Path) -> Iterator[dict[str, Any]]:
    """``run.json`` first, then every other record of the folder that carries a schema."""
    first = folder / "run.json"
    if not first.is_file() and os.path.lexists(first):
        raise IntegrityError("not a regular file", where=str(first), next_step=RESTORE)
    others = sorted(path for path in folder.glob("*.json") if path != first and not path.name.startswith("slot-"))
    for path in ([first] if first.is_file() else []) + others:
        try:
            value = read_json(path)
        except (SeatrialError, FileNotFoundError):
            if path == first:
                raise
            continue
        if isinstance(value, dict) and "schema" in value:
            yield value
