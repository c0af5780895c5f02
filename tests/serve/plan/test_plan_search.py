"""The search: what one climb says, how trials are judged, when it stops, and that a killed one goes on."""

from collections.abc import Sequence
from math import log

import numpy as np
import pytest

from seatrial.bench.capacity.slo import Slo
from seatrial.serve.plan.on_optuna import OptunaProposer
from seatrial.serve.plan.ramp import RateRamp, held
from seatrial.serve.plan.setting import Layout, Setting
from seatrial.serve.plan.trial import Pair, Trial, credible, standing, undecided
from seatrial.serve.plan.tune import Tuned, tune

SLO = Slo(quantile=0.99, seconds=0.05)
CLIMB = RateRamp(low=200, high=1800, seconds=8)


def setting(batch: int, delay: int = 0, instances: int = 1) -> Setting:
    return Setting(max_batch=batch, delay_us=delay, layout=Layout(instances=instances, threads=1))


GRID = tuple(
    setting(batch, delay, instances) for batch in (4, 8, 16, 32) for delay in (0, 3000) for instances in (1, 2)
)
START = setting(16)


@pytest.mark.parametrize("truth", [500.0, 900.0, 1400.0])
def test_a_climb_finds_where_answers_begin_to_come_late(truth: float) -> None:
    for seed in range(5):
        schedule = CLIMB.schedule(seed)
        rates = CLIMB.low + (CLIMB.high - CLIMB.low) * schedule.offsets / CLIMB.seconds
        chance = np.random.default_rng(seed).random(len(rates))
        found = held(schedule.offsets, (rates > truth) | (chance < 0.002), CLIMB, SLO)
        assert found.rate == pytest.approx(truth, rel=0.06)
        assert not found.ended


def test_one_stall_far_below_the_limit_decides_nothing_and_the_ends_are_told() -> None:
    offsets = CLIMB.schedule(1).offsets
    none = np.zeros(len(offsets), bool)
    stall = none.copy()
    stall[100:130] = True
    assert held(offsets, stall, CLIMB, SLO) == held(offsets, none, CLIMB, SLO)
    assert held(offsets, none, CLIMB, SLO).ended
    assert held(offsets, ~none, CLIMB, SLO).rate == CLIMB.low


def trial(number: int, gains: Sequence[float], against: Setting = START, candidate: Setting = GRID[0]) -> Trial:
    pairs = tuple(Pair(candidate=1000 * float(np.exp(gain)), best=1000.0, swapped=False) for gain in gains)
    return Trial(number=number, setting=candidate, against=against, predicted=0.0, pairs=pairs)


def test_only_a_gain_beyond_the_noise_of_pairs_is_taken() -> None:
    noisy = [trial(0, [0.2, -0.2], candidate=START), trial(1, [0.1, 0.0])]
    assert standing(START, noisy).best == START
    clear = [trial(0, [0.01, -0.01], candidate=START), trial(1, [0.3, 0.31])]
    state = standing(START, clear)
    assert state.best == GRID[0]
    assert state.level == pytest.approx(0.305)
    assert state.judged[1].low > 0
    assert state.tried == {START, GRID[0]}


def test_a_model_that_erred_leaves_more_credible() -> None:
    good = standing(START, [trial(number, [0.0, 0.0]) for number in range(6)])
    bad = standing(START, [trial(number, [0.4 * (-1) ** number] * 2) for number in range(6)])
    assert credible(good, -0.2) < 0 < credible(bad, -0.2)


def test_a_trial_survives_its_line() -> None:
    made = trial(3, [0.1, -0.1])
    assert Trial.from_json(made.to_json()) == made


class World:
    """Settings with a true rate each; measuring adds noise and is counted."""

    def __init__(self, truth: dict[Setting, float], noise: float = 0.01, seed: int = 1) -> None:
        self.truth, self.noise, self.random = truth, noise, np.random.default_rng(seed)
        self.asked: list[Setting] = []
        self.kept: list[Trial] = []

    def measure(self, setting: Setting) -> float:
        self.asked.append(setting)
        return self.truth[setting] * float(np.exp(self.random.normal(0, self.noise)))

    def search(self, predicted: dict[Setting, float], trials: int = 6, done: Sequence[Trial] = ()) -> Tuned:
        return tune(
            START,
            predicted,
            self.measure,
            OptunaProposer(START, predicted),
            trials=trials,
            done=done,
            keep=self.kept.append,
        )


def rates(best: Setting) -> dict[Setting, float]:
    """The best bears a third more than any other; larger batches bear more than smaller."""
    return {each: 400 + 10 * each.max_batch + (300 if each == best else 0) for each in GRID}


def test_a_plan_that_is_best_stands_and_the_search_stops_early() -> None:
    sure = {each: 1000.0 if each == START else 100.0 for each in GRID}
    world = World(sure)
    found = world.search(sure, trials=20)
    assert found.best == START
    assert "credibly better" in found.stopped
    assert len(found.state.judged) < 6


def test_a_better_setting_that_the_model_half_sees_is_found_within_six_trials() -> None:
    best = setting(32, 0, 2)
    predicted = rates(best) | {best: 760.0}  # the model sees some of it
    found = World(rates(best)).search(predicted)
    assert found.best == best
    assert found.gain > 1.2
    assert len(found.state.judged) <= 6


def test_three_trials_without_a_gain_end_the_search() -> None:
    level = dict.fromkeys(GRID, 500.0)
    found = World(level, noise=0.001).search(level, trials=20)
    assert found.best == START
    assert "together exclude" in found.stopped
    assert 4 <= len(found.state.judged) < 12


def test_a_search_that_was_cut_short_goes_on_and_measures_nothing_twice() -> None:
    level = dict.fromkeys(GRID, 500.0)
    first = World(level, noise=0.1)
    first.search(level, trials=3)
    again = World(level, noise=0.1, seed=2)
    found = again.search(level, trials=5, done=first.kept)
    assert len(first.asked) == sum(2 * len(each.pairs) for each in first.kept)
    assert len(again.asked) == sum(2 * len(each.pairs) for each in again.kept)
    assert len(first.kept) == 3
    assert len(again.kept) == 2
    assert [each.trial for each in found.state.judged] == first.kept + again.kept
    assert len({each.trial.setting for each in found.state.judged}) == 5


def test_pairs_go_on_while_a_setting_is_ahead_and_not_yet_credibly_so() -> None:
    state = standing(START, [trial(0, [0.05, -0.05, 0.05, -0.05], candidate=START)])
    ahead, behind, clear = (trial(1, [gain]).pairs for gain in (0.02, -0.02, 0.5))
    assert undecided(state, ())
    assert undecided(state, ahead)
    assert not undecided(state, behind)
    assert not undecided(state, clear)


@pytest.mark.parametrize("pairs", [1, 4])
def test_a_level_field_is_left_seldom(pairs: int) -> None:
    """Of 40 searches among equals a start that stands is left in few, and nothing was lost by it."""
    level = dict.fromkeys(GRID, 500.0)
    left = 0
    for seed in range(40):
        world = World(level, noise=0.06, seed=seed)
        proposer = First()
        found = tune(START, level, world.measure, proposer, trials=6, pairs=pairs, keep=world.kept.append)
        left += found.best != START
    assert left <= 16  # five trials at 5 % each, one-sided, and looks in between: 12 expected at most


class First:
    """Proposes in order."""

    def ask(self, worth: Sequence[Setting]) -> Setting:
        return worth[0]

    def tell(self, setting: Setting, gain: float) -> None:
        pass


@pytest.mark.slow
def test_only_what_is_worth_it_is_proposed() -> None:
    proposer = OptunaProposer(START, {each: 100.0 + each.max_batch for each in GRID})
    worth = [setting(4), setting(8, 3000, 2)]
    for _ in range(5):
        chosen = proposer.ask(worth)
        assert chosen in worth
        proposer.tell(chosen, log(0.5))
