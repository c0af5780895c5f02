"""Format the values of this floor for a terminal and as JSON; decides nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..artifact import Artifact
from ..building.built import Build, Planned, Step
from ..building.figures import StepMetrics, unmeasured
from ..building.reproduce import Link
from ..graphs.coverage import Coverage
from ..record import as_json
from ..search.explore import Found
from ..timing.pace import LatencyRatio


def _table(*, left: Sequence[str], right: Sequence[str] = (), last: Sequence[str] = ()) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in (*left, *right, *last):
        table.add_column(name, justify="right" if name in right else "left", no_wrap=name not in ("notes", "reason"))
    return table


def build_table(build: Build, rows: Sequence[StepMetrics]) -> Table:
    """Return a table of a build's steps with quality, size, latency ratio, and memory where it was measured."""
    weighed = any(row.memory is not None for row in rows)
    table = _table(
        left=("step", "format", "digest"),
        right=("quality", "size", *(("memory",) if weighed else ()), "time / parent's", "vs fp32", "made in"),
        last=("gain",),
    )
    for step, row in zip(build.all, rows, strict=True):
        table.add_row(
            step.label,
            step.artifact.format,
            step.artifact.digest.removeprefix("sha256:")[:12],
            _quality(step, row),
            size_text(row.size),
            *((size_text(row.memory.bytes) if row.memory else "",) if weighed else ()),
            pace_text(row.parent),
            "" if row.reference is None else f"{1 / row.reference.ratio:.1f}x",
            "cached" if step.cached else f"{step.seconds:.1f} s",
            gain_text(step, row),
        )
    return table


def _quality(step: Step, row: StepMetrics) -> str:
    if row.quality is not None:
        return f"{row.quality:.4f}"
    return "planned" if step.artifact.planned else "not here"


def unmeasured_lines(build: Build) -> list[str]:
    """One sentence for every step that this machine cannot measure."""
    found = [(step.label, unmeasured(step.artifact)) for step in build.all]
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
            before = size_text(sizes.get(step.artifact.made_by.parent or "", 0))
            fate = "left out" if step.dropped else 'kept; on_no_gain = "drop" leaves it out'
            said = {"slower": "is slower", "no gain": "brings no gain"}.get(
                row.gain or "", "is worse in a resource that counts"
            )
            lines.append(
                f"{step.label} {said}: {pace_text(row.parent)} of its parent's time, "
                f"{before} to {size_text(row.size)}; {fate}"
            )
    lines += [
        f'{each.label} was left out: {each.why}; on_disagreement = "fail" ends the build there'
        for each in build.refused
    ]
    return lines


def pace_text(pace: LatencyRatio | None) -> str:
    """``0.12 [0.11, 0.13]``: the ratio with its 95 % interval."""
    return "" if pace is None else f"{pace.ratio:.2f} [{pace.low:.2f}, {pace.high:.2f}]"


def memory_line(rows: Sequence[StepMetrics]) -> str:
    """Explain the memory column and its uncertainty in one line."""
    found = [row.memory for row in rows if row.memory is not None]
    if not found:
        return "memory: not measured; this system has no memory high-water mark that can be reset"
    one, noise = found[-1], max(each.high - each.low for each in found)
    return (
        f"memory: the peak that opening and running batch {one.batch} adds, one thread; "
        f"median of {one.processes} fresh processes, at most {size_text(noise)} apart"
    )


def size_text(count: int) -> str:
    """Format bytes for display, in powers of 1024."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


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
    table = _table(left=("step", "takes", "makes", "state", "digest"))
    for step in planned:
        digest = step.artifact.digest.removeprefix("sha256:")[:12] if step.artifact else ""
        state = "left out" if step.refused else "cached" if step.artifact else "to do"
        table.add_row(step.label, step.takes, step.makes, state, digest)
    return table


def history_table(chain: Sequence[Artifact]) -> Table:
    """The chain of parents, newest first."""
    table = _table(left=("digest", "stage", "format"), right=("size",), last=("made at", "notes"))
    for artifact in chain:
        notes = ", ".join(f"{key} {short(value)}" for key, value in artifact.made_by.notes.items())
        table.add_row(
            artifact.digest.removeprefix("sha256:")[:12],
            artifact.made_by.stage,
            artifact.format,
            size_text(artifact.size),
            artifact.made_by.at,
            notes,
        )
    return table


def links_table(links: Sequence[Link]) -> Table:
    """A chain as recorded and as made again, the source first."""
    table = _table(left=("stage", "recorded", "made again", ""), last=("notes",))
    for link in links:
        short = [digest.removeprefix("sha256:")[:12] for digest in (link.recorded, link.rebuilt)]
        table.add_row(link.stage, *short, "equal" if link.equal else "differs", "; ".join(link.causes))
    return table


def front_table(found: Found) -> Table:
    """Return a table of the Pareto front: chosen values, measurements, and recipe file."""
    addresses = list(found.candidates[0].chosen) if found.candidates else []
    table = _table(left=("trial",), right=(*addresses, *found.objectives), last=("digest", "recipe"))
    for point in found.front:
        figures = [
            size_text(int(value or 0)) if name in ("size", "memory") else f"{value:.4f}"
            for name, value in ((name, point.values[name]) for name in found.objectives)
        ]
        values = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in point.chosen.values()]
        digest = point.digest.removeprefix("sha256:")[:12]
        table.add_row(str(point.number), *values, *figures, digest, found.files[point.number].name)
    return table


def short(value: Any) -> Any:
    """A note for one line of a table; what is a table or a list itself is only counted."""
    return len(value) if isinstance(value, Mapping | list | tuple) else value


def precision_table(found: Coverage) -> Table:
    """Layers and share of multiply-accumulates per precision."""
    table = _table(left=("precision",), right=("layers", "MACs", "share"))
    for precision, share in found.shares.items():
        layers = [layer for layer in found.layers if layer.precision == precision]
        table.add_row(precision, str(len(layers)), str(sum(layer.macs for layer in layers)), f"{share:.1%}")
    return table


def islands_table(found: Coverage) -> Table:
    """Return a table of operations that were quantized but run in float, costliest first."""
    table = _table(left=("island", "operator", "runs in"), right=("share",), last=("reason",))
    for island in sorted(found.islands, key=lambda island: -island.layer.macs):
        layer = island.layer
        table.add_row(layer.name, layer.kind, layer.precision, f"{layer.macs / found.macs:.1%}", island.reason)
    return table


def coverage_json(found: Coverage) -> dict[str, Any]:
    """Everything that coverage found, for machines."""
    return {**as_json(found)} | {"macs": found.macs, "shares": found.shares}
