"""Format the values of this floor for a terminal and as JSON; decides nothing."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from ..artifact import Artifact
from ..building.built import Build, Planned, Step, choice_of
from ..building.figures import StepMetrics, unmeasured
from ..building.reproduce import Link
from ..graphs.coverage import Coverage
from ..recipe.recipe import Recipe
from ..recipe.space import Objective
from ..record import as_json
from ..search.found import Found
from ..search.search import Candidate
from ..tables import table
from ..timing.pace import LatencyRatio
from ..units import format_value, short_digest

Rows = Iterable[Sequence[str]]
_UNITS = {"size": "B", "memory": "B"}  # of objectives; all others are ratios or scores


def _table(rows: Rows, *, left: Sequence[str], right: Sequence[str] = (), last: Sequence[str] = ()) -> Table:
    return table((*left, *right, *last), rows, left=(*left, *last), wrap=("notes", "reason"), look="ruled")


def build_table(build: Build, rows: Sequence[StepMetrics]) -> Table:
    """Return a table of a build's steps with quality, size, latency ratio, and memory where it was measured."""
    weighed = any(row.memory is not None for row in rows)
    cells = (
        (
            step.label,
            step.artifact.format,
            short_digest(step.artifact.digest),
            _quality(step, row),
            format_value(row.size, "B"),
            *((format_value(row.memory.bytes, "B") if row.memory else "",) if weighed else ()),
            pace_text(row.parent),
            "" if row.reference is None else f"{1 / row.reference.ratio:.1f}x",
            "cached" if step.cached else f"{step.seconds:.1f} s",
            gain_text(step, row),
        )
        for step, row in zip(build.all, rows, strict=True)
    )
    return _table(
        cells,
        left=("step", "format", "digest"),
        right=("quality", "size", *(("memory",) if weighed else ()), "time / parent's", "vs fp32", "made in"),
        last=("gain",),
    )


def _quality(step: Step, row: StepMetrics) -> str:
    if row.quality is not None:
        return f"{row.quality:.4f}"
    return "planned" if step.artifact.planned else "not here"


def unmeasured_lines(build: Build) -> list[str]:
    """One sentence for every step that this machine cannot measure."""
    found = [(step.label, unmeasured(step.artifact, choice_of(build.recipe))) for step in build.all]
    return [f"{label} was not measured: {why}" for label, why in found if why]


def gain_text(step: Step, row: StepMetrics) -> str:
    """Return whether the stage pays, slower said first, and what became of one that was left out."""
    said = f"slower, {row.parent.ratio:.2f}x" if row.gain == "slower" and row.parent else row.gain or ""
    return f"{said}, left out" if step.dropped else said


def gain_lines(build: Build, rows: Sequence[StepMetrics]) -> list[str]:
    """One sentence for every stage that is slower or brings no gain: what was measured, and what became of it."""
    sizes = {step.artifact.digest: row.size for step, row in zip(build.all, rows, strict=True)}
    lines = []
    for step, row in zip(build.all, rows, strict=True):
        if row.gain in ("slower", "no gain") or step.dropped:
            before = format_value(sizes.get(step.artifact.made_by.parent or "", 0), "B")
            fate = "left out" if step.dropped else 'kept; on_no_gain = "drop" leaves it out'
            said = {"slower": "is slower", "no gain": "brings no gain"}.get(
                row.gain or "", "is worse in a resource that counts"
            )
            lines.append(
                f"{step.label} {said}: {pace_text(row.parent)} of its parent's time, "
                f"{before} to {format_value(row.size, 'B')}; {fate}"
            )
    lines += [
        f'{each.label} was left out: {each.why}; on_disagreement = "fail" ends the build there'
        for each in build.refused
    ]
    return lines


def pace_text(pace: LatencyRatio | None) -> str:
    """``0.12 [0.11, 0.13]``: the ratio with its 95 % interval."""
    return "" if pace is None else f"{pace.ratio:.2f} [{pace.low:.2f}, {pace.high:.2f}]"


def engine_lines(rows: Sequence[StepMetrics]) -> list[str]:
    """One sentence for every engine, provider and device that figures were taken on, with the steps."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.ran_on is not None:
            found.setdefault(str(row.ran_on), []).append(row.label)
    return [f"{', '.join(labels)}: measured in {ran_on}" for ran_on, labels in found.items()]


def memory_line(rows: Sequence[StepMetrics]) -> str:
    """Explain the memory column and its uncertainty in one line."""
    found = [row.memory for row in rows if row.memory is not None]
    if not found:
        return "memory: not measured; this system has no memory high-water mark that can be reset"
    one, noise = found[-1], max(each.high - each.low for each in found)
    return (
        f"memory: the peak that opening and running batch {one.batch} adds, one thread; "
        f"median of {one.processes} fresh processes, at most {format_value(noise, 'B')} apart"
    )


def build_json(build: Build, rows: Sequence[StepMetrics]) -> dict[str, Any]:
    """The same as `build_table`, complete, for machines."""
    steps = [_step(step, row) for step, row in zip(build.all, rows, strict=True)]
    return {
        "recipe": build.recipe.digest,
        "artifact": build.artifact.digest,
        "worked": build.worked,
        "steps": steps,
        "refused": as_json(build.refused),
    }


def _step(step: Step, row: StepMetrics) -> dict[str, Any]:
    return {**as_json(row)} | {
        "format": step.artifact.format,
        "planned": step.artifact.planned,
        "digest": step.artifact.digest,
        "cached": step.cached,
        "dropped": step.dropped,
        "seconds": step.seconds,
        "agreements": [agreement.to_json() for agreement in step.agreements],
    }


def plan_table(planned: Sequence[Planned]) -> Table:
    """Return a table of the steps that a build would take."""
    rows = (
        (
            step.label,
            step.takes,
            step.makes,
            "left out" if step.refused else "cached" if step.artifact else "to do",
            short_digest(step.artifact.digest if step.artifact else ""),
        )
        for step in planned
    )
    return _table(rows, left=("step", "takes", "makes", "state", "digest"))


def history_table(chain: Sequence[Artifact]) -> Table:
    """The chain of parents, newest first."""
    rows = (
        (
            short_digest(artifact.digest),
            artifact.made_by.stage,
            artifact.format,
            format_value(artifact.size, "B"),
            artifact.made_by.at,
            notes_text(artifact),
        )
        for artifact in chain
    )
    return _table(rows, left=("digest", "stage", "format"), right=("size",), last=("made at", "notes"))


def links_table(links: Sequence[Link]) -> Table:
    """A chain as recorded and as made again, the source first."""
    rows = (
        (
            link.stage,
            *map(short_digest, (link.recorded, link.rebuilt)),
            "equal" if link.equal else "differs",
            "; ".join(link.causes),
        )
        for link in links
    )
    return _table(rows, left=("stage", "recorded", "made again", ""), last=("notes",))


def front_table(found: Found) -> Table:
    """Return a table of the Pareto front: chosen values, measurements, and recipe file."""
    addresses = list(found.candidates[0].chosen) if found.candidates else []
    rows = (
        (
            str(point.number),
            *(f"{value:.4g}" if isinstance(value, float) else str(value) for value in point.chosen.values()),
            *(format_value(point.values[name] or 0, _UNITS.get(name, "")) for name in found.objectives),
            short_digest(point.digest),
            found.files[point.number].name,
        )
        for point in found.front
    )
    return _table(rows, left=("trial",), right=(*addresses, *found.objectives), last=("digest", "recipe"))


def candidates_table(found: Found) -> Table:
    """Return a table of candidates that were compared: time over fp32's, what they keep, and what became of each."""
    rows = (
        (
            str(each.chosen["candidate"]),
            str(each.chosen["engine"]),
            _interval(each),
            _figure(each, "quality"),
            _figure(each, "snr"),
            _figure(each, "size"),
            _fate(each, found),
        )
        for each in sorted(found.candidates, key=_time)
    )
    right = ("time / fp32's", "quality", "snr, dB", "size")
    return _table(rows, left=("candidate", "engine"), right=right, last=("reason",))


def winner_lines(found: Found, recipe: Recipe) -> list[str]:
    """Return sentences about the winner: what it gains on what, the noise that was allowed, and what to do next."""
    first = found.winner
    if first is None or recipe.search is None:
        return []
    ratio = first.values["latency"] or 1.0
    gain = "no candidate is faster within the floors" if first.number == 0 else f"{1 / ratio:.2f} times fp32's speed"
    noise = f"two timings of fp32 differ by at most {found.noise or 0.0:.1%}"
    kept = ", ".join(path.name for number, path in found.files.items() if number != first.number)
    return [
        f"{first.chosen['candidate']} wins: {gain}; measured in {first.ran_on}",
        f"times: one thread, batch {recipe.search.batch}, interleaved pairs, 95 % interval; {noise}",
        *([f"other trade-offs: {kept}"] if kept else []),
        f"next: seatrial build {found.files[first.number]}",
    ]


def _time(each: Candidate) -> float:
    value = each.values.get("latency")
    return float("inf") if value is None else value


def _interval(each: Candidate) -> str:
    if each.failure or each.interval is None:
        return ""
    return f"{_time(each):.2f} [{each.interval[0]:.2f}, {each.interval[1]:.2f}]"


def _figure(each: Candidate, name: Objective) -> str:
    value = each.values.get(name)
    if value is None:
        return ""
    return format_value(value, "B") if name == "size" else f"{value:.1f}" if name == "snr" else f"{value:.4f}"


def _fate(each: Candidate, found: Found) -> str:
    """Return what became of a candidate, in a few words."""
    if each.failure:
        return each.failure
    if each.violation > 0:
        return f"below the floor by {each.violation:.3g}"
    if found.winner is not None and each.number == found.winner.number:
        return "wins"
    return "on the front" if any(each.number == point.number for point in found.front) else ""


def notes_text(artifact: Artifact) -> str:
    """An artifact's notes in one line; what is a table or a list itself is only counted."""
    notes = artifact.made_by.notes.items()
    return ", ".join(f"{key} {len(v) if isinstance(v, Mapping | list | tuple) else v}" for key, v in notes)


def precision_table(found: Coverage) -> Table:
    """Layers and share of multiply-accumulates per precision."""
    layers = {name: [layer for layer in found.layers if layer.precision == name] for name in found.shares}
    rows = (
        (precision, str(len(layers[precision])), str(sum(layer.macs for layer in layers[precision])), f"{share:.1%}")
        for precision, share in found.shares.items()
    )
    return _table(rows, left=("precision",), right=("layers", "MACs", "share"))


def islands_table(found: Coverage) -> Table:
    """Return a table of operations that were quantized but run in float, costliest first."""
    rows = (list(row.values()) for row in island_rows(found))
    return _table(rows, left=("island", "operator", "runs in"), right=("share",), last=("reason",))


def island_rows(found: Coverage) -> list[dict[str, str]]:
    """Operations that were quantized but run in float as text, costliest first."""
    return [
        {
            "layer": island.layer.name,
            "kind": island.layer.kind,
            "precision": island.layer.precision,
            "share": f"{island.layer.macs / found.macs:.1%}",
            "reason": island.reason,
        }
        for island in sorted(found.islands, key=lambda island: -island.layer.macs)
    ]


def coverage_json(found: Coverage) -> dict[str, Any]:
    """Everything that coverage found, for machines."""
    return {**as_json(found)} | {"macs": found.macs, "shares": found.shares}
