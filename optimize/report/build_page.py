"""The report of a build: one page that needs no network, with what every step did to quality, latency and size.

Shows the results of build, figures and search, and computes no figure of its own. Missing measurements are left out.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..building.built import Build
from ..building.figures import StepMetrics, worth
from ..graphs.coverage import Coverage
from ..units import format_value, short_digest
from .pages import write_page
from .show import engine_lines, gain_lines, gain_text, island_rows, notes_text, pace_text


def write_html(
    path: Path,
    build: Build,
    rows: tuple[StepMetrics, ...],
    *,
    search: Mapping[str, Any] | None = None,
    coverages: Mapping[str, Coverage] | None = None,
) -> None:
    """Write the page; `search` is what `explore.Found.to_json` gave, `coverages` what `coverage_cache` found, by step.

    Raises:
        MachineError: the file cannot be written.
    """
    from . import on_plotly

    coverages = coverages or {}
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
        sensitivities=_sensitivities(build),
        kept=_kept_in_float(build),
        coverage=on_plotly.shares({label: each.shares for label, each in coverages.items()}) if coverages else "",
        islands=_islands(coverages),
        run_by=sorted({each.where for each in coverages.values()}),
        facts=_facts(build, rows),
    )


def _headline(last: StepMetrics, first: StepMetrics) -> list[tuple[str, str]]:
    found = []
    if last.quality is not None:  # of an artifact that is only planned nothing was measured
        speed = "1.0 ×" if last.reference is None else f"{1 / last.reference.ratio:.1f} ×"
        found += [("speed against fp32", speed), ("quality", f"{last.quality:.4f}")]
        found += [("against the source", f"{last.quality - (first.quality or 0.0):+.4f}")]
    return [
        *found,
        ("size", format_value(last.size, "B")),
        ("of the source's size", f"{last.size / first.size:.0%}"),
    ]


def _panels(rows: Sequence[StepMetrics]) -> list[tuple[str, Sequence[float | None], str, bool]]:
    latency = [row.reference.ratio if row.reference is not None else None for row in rows]
    latency = [1.0 if row.label == "reference" else ratio for row, ratio in zip(rows, latency, strict=True)]
    panels: list[tuple[str, Sequence[float | None], str, bool]] = [
        ("quality", [row.quality for row in rows], ".4f", True),
        ("size, KiB", [row.size / 1024 for row in rows], ".1f", False),
    ]
    memory = [row.memory.bytes / (1 << 20) if row.memory is not None else None for row in rows]
    if any(value is not None for value in memory):
        panels.append(("memory, MiB", memory, ".1f", False))
    if any(value is not None for value in latency):
        panels.insert(1, ("latency / fp32's", latency, ".2f", False))
    return panels


def _stages(build: Build, rows: Sequence[StepMetrics]) -> list[dict[str, Any]]:
    return [
        {
            "label": step.label,
            "dropped": step.dropped,
            "format": step.artifact.format,
            "quality": row.quality,
            "size": format_value(row.size, "B"),
            "pace": pace_text(row.parent),
            "speed": None if row.reference is None else f"{1 / row.reference.ratio:.2f} ×",
            "gain": gain_text(step, row),
            "digest": short_digest(step.artifact.digest),
            "at": step.artifact.made_by.at,
            "seed": step.artifact.made_by.seed,
            "samples": short_digest(step.artifact.made_by.samples),
            "notes": notes_text(step.artifact),
        }
        for step, row in zip(build.all, rows, strict=True)
    ]


def _sensitivities(build: Build) -> list[tuple[str, str]]:
    """Of every step that measured its layers: its label, and a plot of what each layer alone gives back in float."""
    from . import on_plotly

    found = []
    for step in build.all:
        notes = step.artifact.made_by.notes
        if measured := notes.get("sensitivities"):
            kept = set(notes.get("kept_in_float", {}))
            found.append((step.label, on_plotly.bars(list(measured.items()), "quality regained in float", kept)))
    return found


def _kept_in_float(build: Build) -> list[tuple[str, str, str]]:
    """Step, layer and reason of everything that a step could have made smaller and did not."""
    return [
        (step.label, layer, str(reason))
        for step in build.all
        for key in ("kept_in_float", "in_fp32")
        for layer, reason in dict(step.artifact.made_by.notes.get(key) or {}).items()
    ]


def _islands(coverages: Mapping[str, Coverage]) -> list[dict[str, str]]:
    """List operations that were quantized but run in float, and those that could not be counted, step by step."""
    rows = [{"step": label} | row for label, found in coverages.items() for row in island_rows(found)]
    unknown = {"kind": "", "precision": "", "share": "", "reason": "its cost is unknown; not counted"}
    return rows + [
        {"step": label, "layer": name} | unknown for label, found in coverages.items() for name in found.unseen
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


def _facts(build: Build, rows: Sequence[StepMetrics]) -> list[tuple[str, str]]:
    here = build.artifact.made_by.environment
    batch = next((row.parent.batch for row in rows if row.parent is not None), None)
    return [
        ("artifact", build.artifact.digest),
        ("recipe", build.recipe.digest),
        ("measured on", f"{rows[0].samples} samples; one thread, batch {batch}, interleaved pairs, 95 % intervals"),
        *(
            (line.partition(": measured in ")[0] + " measured in", line.partition(": measured in ")[2])
            for line in engine_lines(rows)
        ),
        ("made on", f"{here.get('cpu', 'unknown')}, {here.get('cores', '?')} cores"),
        ("libraries", ", ".join(f"{name} {version}" for name, version in here.get("libraries", {}).items())),
        ("commit", str(here.get("commit") or "unknown")),
    ]
