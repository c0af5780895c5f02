"""Greatest losses of a candidate: its worst class and its worst segment, as information beside any verdict. Pure.

Decides nothing: a check (`fairness` by class, `segments`) makes a limit of it. Worst of many by chance alone is not
called worse: a loss is "shown" where it holds for the worst of all classes that were looked at.
"""

from collections.abc import Sequence

import numpy as np

from seatrial.optimize.errors import SeatrialError

from . import segments
from .evidence import Evidence
from .quantities import Scores

ALPHA = 0.002  # that any loss is called shown where there is none
LEAST = 20  # samples of a class; fewer say next to nothing
_MOST = 1000  # classes; more are no classes


def weakest(evidence: Evidence) -> tuple[str, ...]:
    """Sentences on the worst class and the worst segment; none where there are no classes or no base."""
    found = [_told("class", classes(evidence)), _told("segment", _segments(evidence))]
    return tuple(sentence for sentence in found if sentence)


def classes(evidence: Evidence) -> list[Scores]:
    """Each class's per-sample scores in both arms, of those with enough samples."""
    try:
        labels = evidence.classes()
    except SeatrialError:
        return []
    base, candidate = evidence.scores()
    names, counts = np.unique(labels, return_counts=True)
    if not 1 < len(names) <= _MOST or base is None:
        return []
    return [
        Scores(name=f"class {name}", base=base[labels == name], candidate=candidate[labels == name])
        for name, count in zip(names.tolist(), counts.tolist(), strict=True)
        if count >= LEAST
    ]


def _segments(evidence: Evidence) -> list[Scores]:
    """The segments that a default search finds on one half of the samples, judged on the other."""
    if evidence.base is None:
        return []
    columns = tuple(name for name in evidence.columns or evidence.derived if name != "class")
    if not columns:
        return []
    try:
        return segments.confirmed(segments.SegmentsCheck(max_drop=1.0, columns=columns), evidence, against_base=True)
    except (SeatrialError, ValueError):
        return []


def _told(kind: str, parts: Sequence[Scores]) -> str:
    """The part that lost most, and whether the loss is more than the worst of so many loses by chance."""
    if not parts:
        return ""
    levels = [part.worsening(0.0, ALPHA / len(parts)) for part in parts]
    worst = max(levels, key=lambda each: (each.lower > 0, each.value))
    before = worst.candidate if worst.base is None else worst.base
    if worst.value <= 0:
        return f"worst {kind} of {len(parts)}: none lost quality"
    sure = f"significantly worse, by at least {worst.lower:.4f}" if worst.lower > 0 else "not significant"
    return (
        f"worst {kind} of {len(parts)}: {worst.about}, from {before:.4f} to {worst.candidate:.4f} "
        f"over {worst.n} samples, {sure}"
    )
