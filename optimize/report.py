"""The report of a build: one page that needs no network, with what every step did to quality, latency and size.

Shows what build, figures and search found, and computes no figure of its own. What nobody measured is not on the page.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .build import Build
from .errors import ConfigError, MissingError
from .figures import Figures, worth
from .pages import write_page
from .show import gain_lines, gain_text, pace_text, size_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What other rooms measured and hand in: sensitivity by layer (error), coverage by operator (share of MACs)."""

    sensitivities: Mapping[str, float] = field(default_factory=dict)
    coverage: Mapping[str, float] = field(default_factory=dict)


def read_notes(path: Path) -> Notes:
    """Read ``{"sensitivities": {layer: number}, "coverage": {operator: number}}``, either may be left out.

    Raises:
        MissingError, ConfigError: no such file, or another form.
    """
    try:
        value = json.loads(path.read_text())
        notes = Notes(**{key: {str(name): float(each) for name, each in rows.items()} for key, rows in value.items()})
    except FileNotFoundError as error:
        raise MissingError("no such file", where=str(path), next_step="check the path") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"not a file of notes: {error}",
            where=str(path),
            next_step='give JSON: {"sensitivities": {layer: number}, "coverage": {operator: number}}',
        ) from error
    return notes


def write_html(
    path: Path,
    build: Build,
    rows: tuple[Figures, ...],
    *,
    search: Mapping[str, Any] | None = None,
    notes: Notes | None = None,
) -> None:
    """Write the page; `search` is what `explore.Found.to_json` gave, `notes` what other rooms measured.

    Raises:
        MachineError: the file cannot be written.
    """
    from . import on_plotly

    notes = notes or Notes()
    last, first = worth(build, rows), rows[0]
    write_page(
        path,
        "build.html.j2",
        title=f"build of {build.recipe.name}",
        headline=_headline(last, first),
        lines=gain_lines(build, rows),
        waterfall=on_plotly.waterfall([row.label for row in rows], _panels(rows)),
        stages=_stages(build, rows),
        agreements=[(step.label, agreement) for step in build.all for agreement in step.agreements],
        pareto=_pareto(search) if search else "",
        sensitivities=on_plotly.bars(list(notes.sensitivities.items()), "error") if notes.sensitivities else "",
        coverage=on_plotly.bars(list(notes.coverage.items()), "share of MACs") if notes.coverage else "",
        facts=_facts(build, rows),
    )


def _headline(last: Figures, first: Figures) -> list[tuple[str, str]]:
    found = []
    if last.quality is not None:  # of an artifact that is only planned nothing was measured
        speed = "1.0 ×" if last.reference is None else f"{1 / last.reference.ratio:.1f} ×"
        found += [("speed against fp32", speed), ("quality", f"{last.quality:.4f}")]
        found += [("against the source", f"{last.quality - (first.quality or 0.0):+.4f}")]
    return [
        *found,
        ("size", size_text(last.size)),
        ("of the source's size", f"{last.size / first.size:.0%}"),
    ]


def _panels(rows: Sequence[Figures]) -> list[tuple[str, Sequence[float | None], str, bool]]:
    latency = [row.reference.ratio if row.reference is not None else None for row in rows]
    latency = [1.0 if row.label == "reference" else ratio for row, ratio in zip(rows, latency, strict=True)]
    panels: list[tuple[str, Sequence[float | None], str, bool]] = [
        ("quality", [row.quality for row in rows], ".4f", True),
        ("size, KiB", [row.size / 1024 for row in rows], ".1f", False),
    ]
    if any(value is not None for value in latency):
        panels.insert(1, ("latency / fp32's", latency, ".2f", False))
    return panels


def _stages(build: Build, rows: Sequence[Figures]) -> list[dict[str, Any]]:
    return [
        {
            "label": step.label,
            "dropped": step.dropped,
            "format": step.artifact.format,
            "quality": row.quality,
            "size": size_text(row.size),
            "pace": pace_text(row.parent),
            "speed": None if row.reference is None else f"{1 / row.reference.ratio:.2f} ×",
            "gain": gain_text(step, row),
            "digest": step.artifact.digest.removeprefix("sha256:")[:12],
            "at": step.artifact.made_by.at,
            "seed": step.artifact.made_by.seed,
            "samples": (step.artifact.made_by.samples or "").removeprefix("sha256:")[:12],
            "notes": ", ".join(f"{key} {value}" for key, value in step.artifact.made_by.notes.items()),
        }
        for step, row in zip(build.all, rows, strict=True)
    ]


def _pareto(search: Mapping[str, Any]) -> str:
    """Quality (or the first objective) over the next one, of every candidate that has both figures."""
    from . import on_plotly

    names = tuple(search["objectives"])
    if len(names) < 2:
        return ""
    vertical, horizontal = names[:2]
    points = {
        each["number"]: (
            each["values"][horizontal],
            each["values"][vertical],
            ", ".join(f"{key} = {value}" for key, value in each["chosen"].items()),
        )
        for each in search["candidates"]
        if not each["failure"] and not each["violation"]
    }
    front = [points[number] for number in search["front"] if number in points]
    return on_plotly.pareto((horizontal, vertical), list(points.values()), front)


def _facts(build: Build, rows: Sequence[Figures]) -> list[tuple[str, str]]:
    here = build.artifact.made_by.environment
    batch = next((row.parent.batch for row in rows if row.parent is not None), None)
    return [
        ("artifact", build.artifact.digest),
        ("recipe", build.recipe.digest),
        ("measured on", f"{rows[0].samples} samples; one thread, batch {batch}, interleaved pairs, 95 % intervals"),
        ("made on", f"{here.get('cpu', 'unknown')}, {here.get('cores', '?')} cores"),
        ("libraries", ", ".join(f"{name} {version}" for name, version in here.get("libraries", {}).items())),
        ("commit", str(here.get("commit") or "unknown")),
    ]
