"""The search around a plan: trial by trial against the best so far, until nothing better is credible.

Decides what to measure next and when to stop; what measures a setting and what proposes one is handed in, so the loop
is the same in a test. Every trial is in the record before the next begins: a search that was killed goes on from there.

The stopping rule. A setting is worth a trial while the model says that it may, with 95 % confidence in how far the
model has erred so far, sustain 2 % more than the best. The search ends when none is, when the last three trials took
nothing and their pairs together exclude (at 95 %) 5 % more than the best, or when its trials are spent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any, Protocol

from .setting import Setting
from .trial import Pair, Standing, Trial, credible, most_together, standing, undecided

WORTH = log(1.02)
PATIENCE, LITTLE = 3, log(1.05)

Measure = Callable[[Setting], float]
"""Serves a setting afresh, loads it briefly, and returns the sustained rate (requests per second)."""
Keep = Callable[[Trial], None]


class Proposer(Protocol):
    """Proposes what to try next among settings that are worth it."""

    def ask(self, worth: Sequence[Setting]) -> Setting:
        """One of these."""

    def tell(self, setting: Setting, gain: float) -> None:
        """Report a setting's sustained rate: the log of its ratio to the start's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """Result of a search: its state, the reason to stop, and the start's sustained rate (requests per second)."""

    start: Setting
    state: Standing
    stopped: str

    @property
    def best(self) -> Setting:
        """The setting to serve with."""
        return self.state.best

    @property
    def gain(self) -> float:
        """Return its sustained rate relative to the start, as a ratio; 1 if the start stays."""
        return exp(self.state.level)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "start": self.start.to_json(),
            "best": self.best.to_json(),
            "gain": self.gain,
            "pair_sd": self.state.pair_sd,
            "model_sd": self.state.model_sd,
            "stopped": self.stopped,
            "trials": [judged.to_json() for judged in self.state.judged],
        }


def tune(
    start: Setting,
    predicted: Mapping[Setting, float],
    measure: Measure,
    proposer: Proposer,
    *,
    trials: int,
    pairs: int = 2,
    done: Sequence[Trial] = (),
    keep: Keep,
) -> Tuned:
    """Search among the settings of `predicted` (what the model says each sustains, requests per second).

    `trials` bounds how many settings are measured, the start's own first trial included; each is measured beside the
    best in at most so many `pairs`, fewer where it falls behind or is credibly better sooner. `done` are trials of an
    earlier run that goes on; each new one goes to `keep` at once.
    """
    made = list(done)
    told = 0
    while True:
        state = standing(start, made)
        for judged in state.judged[told:]:
            proposer.tell(judged.trial.setting, judged.level)
        told = len(made)
        gains = _gains(predicted, state)
        worth = [s for s, gain in gains.items() if s not in state.tried and credible(state, gain) > WORTH]
        if stopped := _stop(state, made, worth, trials):
            return Tuned(start=start, state=state, stopped=stopped)
        setting = proposer.ask(worth) if made else start
        found = _pairs(setting, state, measure, pairs)
        trial = Trial(
            number=len(made), setting=setting, against=state.best, predicted=gains.get(setting, 0.0), pairs=found
        )
        keep(trial)
        made.append(trial)


def _gains(predicted: Mapping[Setting, float], state: Standing) -> dict[Setting, float]:
    """Predicted log gains over the best; a setting that the model rules out altogether has none."""
    base = predicted.get(state.best) or max(predicted.values())
    return {setting: log(rate / base) for setting, rate in predicted.items() if rate > 0}


def _stop(state: Standing, made: Sequence[Trial], worth: Sequence[Setting], trials: int) -> str:
    if len(made) >= trials:
        return f"all {trials} trials were used"
    if made and not worth:
        return "no untried setting is credibly better"
    last = [judged.trial for judged in state.judged[-PATIENCE:] if not judged.trial.itself and not judged.better]
    if len(last) == PATIENCE and most_together(state, last) < LITTLE:
        return f"the last {PATIENCE} trials together exclude a gain of more than 5 % over the best"
    return ""


def _pairs(setting: Setting, state: Standing, measure: Measure, most: int) -> tuple[Pair, ...]:
    """Both in turning order, candidate first, best first, and so on, as long as another pair may change anything."""
    found: list[Pair] = []
    while len(found) < most and (setting == state.best or undecided(state, found)):
        swapped = bool(len(found) % 2)
        first, second = (state.best, setting) if swapped else (setting, state.best)
        one = measure(first)
        other = measure(second)
        candidate, against = (other, one) if swapped else (one, other)
        found.append(Pair(candidate=candidate, best=against, swapped=swapped))
    return tuple(found)
