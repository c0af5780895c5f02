"""Claims of the monitor about answers: estimated accuracy, cause from labels, concept drift. Fresh seeds."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np

from scripts.benchmarks.monitor_tasks import PLAN, SCENARIOS, Task
from scripts.benchmarks.rows import Row
from seatrial.serve.monitor.attribution import attributed
from seatrial.serve.monitor.estimate import estimated
from seatrial.serve.monitor.on_sklearn import AccuracyEstimator
from seatrial.serve.monitor.on_sklearn_causes import CauseFinder, Correctness
from seatrial.serve.monitor.segments import members, segments_of

UNCHANGED = ("none", "covariate 1", "covariate 2", "covariate 3", "label 0.75")
"""Scenarios in which the answer to the same input stays the same."""


def estimate(_: Path, *, seed: int, windows: int, references: int) -> Row:
    """Coverage and width of the estimated accuracy, `windows` of 1,000 rows of each scenario."""
    hits, halves, errors = Counter[str](), dict[str, list[float]](), dict[str, list[float]]()
    for number in range(references):
        task = Task(seed=seed + number)
        known = task.labelled(task.reference.columns, task.reference.columns["label"].astype(np.int64))
        estimator = AccuracyEstimator(known, seed=seed + number)
        for name in UNCHANGED:
            for _each in range(windows // references):
                window = task.labelled(*task.window(1000, name))
                found = estimated(
                    estimator.hypotheses(window.features, window.predicted, window.confidence), labels=task.rows
                )
                real = float(window.correct.mean())
                hits[name] += found.low <= real <= found.high
                halves.setdefault(name, []).append((found.high - found.low) / 2)
                errors.setdefault(name, []).append(abs(found.value - real))
        _say(f"reference {number + 1} of {references}: {dict(hits)}")
    count = windows // references * references
    coverage = sum(hits.values()) / (count * len(UNCHANGED))
    width = max(halves["none"])
    parts = ", ".join(
        f"{name}: {hits[name] / count:.3f} (half-width {np.mean(halves[name]) * 100:.1f} pp, "
        f"error {np.mean(errors[name]) * 100:.1f})"
        for name in UNCHANGED
    )
    return Row(
        name="estimate",
        claim=f"the interval of the estimated accuracy covers what was realised, {count} windows of 1,000 rows of each "
        f"scenario without concept drift, {references} models and references, seed {seed}",
        value=f"{coverage:.3f}; {parts}; widest half where nothing drifts {width * 100:.2f} pp",
        bar="0.93; half-width at most 3.5 pp where nothing drifts",
        met=coverage >= 0.93 and width <= 0.035,
    )


def cause(_: Path, *, seed: int, windows: int, references: int) -> Row:
    """The kind of shift that 500 random labels of a window of 1,000 rows point at."""
    right, wrong = Counter[str](), Counter[tuple[str, str]]()
    for number in range(references):
        task = Task(seed=seed + number)
        known = task.labelled(task.reference.columns, task.reference.columns["label"].astype(np.int64))
        segments = segments_of(PLAN, task.reference.columns)
        model = Correctness(known, seed=seed + number)
        finder = CauseFinder(known, segments, members(segments, task.reference.columns), model, seed=seed + number)
        for name, scenario in SCENARIOS.items():
            for _each in range(max(1, windows // references)):
                columns, truth = task.window(1000, name)
                window = task.labelled(columns, truth)
                first, rest = slice(0, 500), slice(500, None)
                masks = members(segments, columns)[:, first]
                found = attributed(finder.signs(window.at(first), masks, window.features[rest]))
                if found.shift == scenario.truth:
                    right[name] += 1
                else:
                    wrong[name, found.shift] += 1
        _say(f"reference {number + 1} of {references}: {dict(right)}, wrong {dict(wrong)}")
    count = max(1, windows // references) * references
    share = sum(right.values()) / (count * len(SCENARIOS))
    parts = ", ".join(f"{name} {right[name]}" for name in SCENARIOS)
    return Row(
        name="cause",
        claim=f"cause from 500 labels (none, covariate, label, concept), {count} windows of each scenario, "
        f"{references} models and references, seed {seed}",
        value=f"{share:.1%}; of {count} each: {parts}",
        bar="90 %",
        met=share >= 0.9,
    )


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
