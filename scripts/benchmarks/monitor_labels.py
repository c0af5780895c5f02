"""Concept drift on outcomes, on traffic whose truth is known: 200 labels an hour, a tenth of the answers wrong."""

import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median

import numpy as np

from scripts.benchmarks.monitor_streams import HOUR, MONDAY
from scripts.benchmarks.rows import Row
from seatrial.serve.monitor.answering import reference_of
from seatrial.serve.monitor.answers_at_hand import AtHand
from seatrial.serve.monitor.concept import Drifting
from seatrial.serve.monitor.diagnosis import Cause
from seatrial.serve.monitor.judging import Judgement, judge_answers
from seatrial.serve.monitor.plan import Feature, Plan
from seatrial.serve.monitor.plan_answers import Answers, Outcomes
from seatrial.serve.monitor.quantities import Columns
from seatrial.serve.monitor.sketch import learn_sketch

PLAN = Plan(
    schema=1,
    model="labels",
    features={f"x{at}": Feature(kind="number") for at in range(4)} | {"region": Feature(kind="category")},
    estimate=Answers(label="label", probabilities={"1": "p"}),
    outcomes=Outcomes(request="request", groups=("region",)),
)
_WEEK = 168  # hours
_HOURLY = 200  # labels


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Traffic whose answers are wrong in a tenth of the cases, with `season` up to 2.5 points more in half of each day.

    From hour `begin` on a quarter is wrong in one segment: a region, or with `tail` a tenth of the values of ``x2``.
    """

    seed: int
    season: bool = False
    tail: bool = False
    begin: int = 1 << 40

    @cached_property
    def at_hand(self) -> AtHand:
        """What `learn` keeps of 20,000 labelled rows of four weeks."""
        columns, _ = self.drawn(-4 * _WEEK, 0, 20_000)
        return AtHand(plan=PLAN, sketch=learn_sketch(PLAN, columns), reference=reference_of(PLAN, columns))

    def drawn(self, first: int, last: int, rows: int) -> tuple[Columns, np.ndarray[tuple[int], np.dtype[np.float64]]]:
        """Draw that many rows, evenly from hour `first` to before `last`, with their times."""
        draw = np.random.default_rng([self.seed, 23, first + 10_000])
        hours = first + np.sort(draw.random(rows)) * (last - first)
        inputs = draw.normal(size=(rows, 4))
        region = draw.integers(0, 10, rows)
        chance = 1 / (1 + np.exp(-5.0 * (inputs[:, 0] + 0.3 * inputs[:, 1])))
        truth = draw.random(rows) < chance
        turned = np.zeros(rows)
        if self.season:  # on top, and not explained by any input
            turned = np.maximum(0.025 * np.sin(2 * np.pi * hours / 24), 0)
        segment = inputs[:, 2] > 1.2816 if self.tail else region == 3
        turned = np.where(segment & (hours >= self.begin), 0.1875, turned)
        truth ^= draw.random(rows) < turned
        columns = {f"x{at}": inputs[:, at] for at in range(4)} | {
            "region": np.array([f"r{each}" for each in region], dtype=object),
            "p": chance,
            "label": truth.astype(np.float64),
        }
        return columns, MONDAY + hours * HOUR

    def alarms(self, first: int, last: int) -> list[tuple[int, str]]:
        """Judge from hour `first` to before `last`; return the hour of each alarm and the segment named first."""
        found = list[tuple[int, str]]()

        def explain(drifts: tuple[Drifting, ...], end: float) -> Cause:
            found.append((round((end - MONDAY) / HOUR) - 1, str(drifts[0].segment)))
            return Cause(kind="concept", advice="retrain", features=(), reasons=())

        kept = Judgement(said="", segments=())
        for start in range(first, last, _WEEK):
            end = min(start + _WEEK, last)
            columns, moments = self.drawn(start, end, (end - start) * _HOURLY)
            rows = self.at_hand.rows(columns, moments, columns["label"].tolist())
            kept = judge_answers(PLAN, self.at_hand.expected, kept, rows, explain)
        return found


def concept(_: Path, *, seed: int, repeats: int, months: int) -> Row:
    """Delay and name of a drifting segment, and alarms in quiet months, half of them with a season of the errors."""
    false = list[str]()
    for number in range(months):
        quiet = Labels(seed=seed + 1000 + number, season=number % 2 == 1)
        false += [f"{name} in month {number}" for _, name in quiet.alarms(0, 730)]
        _say(f"quiet month {number + 1} of {months}: {len(false)} alarms")
    delays, named, early = list[int](), 0, 0
    for number in range(repeats):
        labels = Labels(seed=seed + number, tail=number % 2 == 1)
        wanted = "x2 above" if labels.tail else "region = r3"
        begin = 72 + 5 * number
        found = replace(labels, begin=begin).alarms(0, begin + _WEEK)
        after = [each for each in found if each[0] >= begin]
        early += len(found) - len(after)
        delays.append(after[0][0] - begin + 1 if after else 999)
        named += bool(after) and after[0][1].startswith(wanted)
        _say(f"drift {number + 1}: {found[:2]} from {begin}")
    alarms = len(false) + early
    return Row(
        name="concept",
        claim=f"one segment's error 10 to 25 % at {_HOURLY} random labels an hour, {repeats} streams (a group, a tail "
        f"of a feature): hours after the labels; alarms in {months} quiet months; seed {seed}",
        value=f"median {median(delays):g} h, worst {max(delays)} h; named {named} of {repeats}; {alarms} false alarms",
        bar="16 h at most, segment named, 1 false alarm in 12 months at most",
        met=max(delays) <= 16 and named == repeats and alarms <= max(1, months // 12),
    )


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
