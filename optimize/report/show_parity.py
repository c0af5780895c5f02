"""Format a comparison: table and sentences for a terminal, and the report page; decides nothing."""

from collections.abc import Sequence
from math import inf
from pathlib import Path

from rich.table import Table

from ..building.comparison import Comparison
from ..parity.agreement import Agreement
from ..parity.divergence import Divergence
from ..parity.sweep import Point
from ..tables import table
from .pages import write_page

Row = dict[str, str]
_ARMS = ("reference", "candidate")


def parity_table(found: Comparison) -> Table:
    """Measures of agreement per output, batch size and length."""
    head = ("output", "at", "of spread", "relative", "SNR, dB", "cosine", "same argmax", "flips", "contract")
    names = ("output", "at", "spread", "error", "snr", "cosine", "agreement", "flips")
    cells = ((*(row[name] for name in names), row["broken"] or row["kept"]) for row in rows(found))
    return table(head, cells, left=("output", "at", "contract"), wrap=("contract",), look="ruled")


def rows(found: Comparison) -> list[Row]:
    """Every agreement as text, with whose sizes its point has."""
    sources = {str(point): point.source for point in found.points}
    return [
        {
            "output": row.output,
            "at": (at := str(Point(batch=row.batch, lengths=row.lengths))),
            "source": sources.get(at, ""),
            "kind": row.kind,
            "spread": "" if row.spread_error is None else f"{row.spread_error:.2e}",
            "error": f"{row.relative_error:.2e}",
            "snr": decibels(row.snr),
            "cosine": f"{row.cosine:.5f}",
            "agreement": f"{row.agreement:.4f} (≥ {row.least:.2f})" if row.decisions else "",
            "flips": str(row.flips),
            "top": f"{row.top:.3f}",
            "broken": "; ".join(row.broken),
            "kept": _kept(row),
        }
        for row in found.agreements
    ]


def engines_of(found: Comparison) -> str:
    """Return what the reference and the candidate ran on, once where that is the same."""
    return ", ".join(dict.fromkeys(map(str, found.ran_on)))


def _kept(row: Agreement) -> str:
    """Return the remarks on an output within its contract, and on aspects that the samples do not show."""
    notes = ["kept"]
    if row.blind:
        notes.append("its contract would also pass a constant output")
    if not row.varies and row.spread_error is not None:
        notes.append("the samples do not vary this output")
    return "; ".join(notes)


def decibels(value: float) -> str:
    """Return ``41.2``, or a word for no noise at all."""
    return "no noise" if value == inf else "none" if value == -inf else f"{value:.1f}"


def verdict(found: Comparison) -> str:
    """One sentence: kept, or broken where and by how much."""
    names = f"{found.candidate.short} and {found.reference.short}"
    if not found.broken:
        return f"{names} agree within tolerance at {len(found.points) - len(found.left_out)} points"
    first = found.broken[0]
    at = Point(batch=first.batch, lengths=first.lengths)
    return f"{names} differ beyond tolerance: output {first.output!r} at {at}: {'; '.join(first.broken)}"


def lines(found: Divergence) -> list[str]:
    """Describe the first disagreement of two graphs in sentences."""
    looked = f"{len(found.probes)} of {found.pairs} common tensors were read"
    if found.kind == "engine":
        return [f"run without fusion both graphs agree ({looked}); the difference comes from the engine's fusions"]
    error = (
        f"relative error {found.error_out:.2e}, its inputs {found.error_in:.2e}, rounding explains {found.limit:.2e}"
    )
    if found.error_out == inf:
        error = (
            f"NaN or infinity where the reference reaches {found.peak:.3g}; its inputs differ by {found.error_in:.2e}"
        )
    where = f"{found.node} ({found.operator}), tensor {found.tensor}"
    about = [f"the reference computes the value in {found.original}"]
    about += [f"between its inputs and it stand {', '.join(found.between)}"] if found.between else []
    said = (
        "first bad node"
        if found.kind == "node"
        else "no single node exceeds its rounding error; the greatest contribution"
    )
    return [f"{said}: {where}: {error}", f"{'; '.join(about)}; {looked}"]


def left_out(points: Sequence[Point]) -> str:
    """Points that the reference refuses."""
    return "; ".join(map(str, points))


def write_html(path: Path, found: Comparison) -> None:
    """Write the page of a comparison.

    Raises:
        MachineError: the file cannot be written.
    """
    from . import on_plotly

    parted = found.divergence
    worst = max(found.agreements, key=lambda row: row.relative_error)
    environment = found.candidate.made_by.environment
    write_page(
        path,
        "parity.html.j2",
        title=f"parity of {found.candidate.name} with {found.reference.name}",
        headline=[
            ("verdict", "beyond tolerance" if found.broken else "within tolerance"),
            ("greatest relative error", f"{worst.relative_error:.2e}"),
            ("least SNR, dB", decibels(min(row.snr for row in found.agreements))),
            ("flips at the last batch", str(next(row for row in reversed(found.agreements) if not row.lengths).flips)),
        ],
        verdict=verdict(found),
        basis=found.basis,
        lines=lines(parted) if parted is not None else [],
        walk=on_plotly.walk([(p.place, p.tensor, p.error, p.limit) for p in parted.probes]) if parted else "",
        rows=rows(found),
        left_out=left_out(found.left_out),
        facts=[
            ("reference", found.reference.digest),
            ("candidate", found.candidate.digest),
            *((f"{name} run in", str(ran_on)) for name, ran_on in zip(_ARMS, found.ran_on, strict=False)),
            ("made on", f"{environment.get('cpu', 'unknown')}, {environment.get('cores', '?')} cores"),
        ],
    )
