"""A run beside a plan: distances between batch sizes, misses, spoiled loads, and settings that cannot be planned."""

import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from seatrial.bench.capacity.slo import Slo
from seatrial.bench.load.run import CENSORED, LoadRun
from seatrial.bench.measurement import Unavailable
from seatrial.bench.schedule import poisson
from seatrial.bench.targets import Endpoint
from seatrial.optimize.errors import ConfigError, SeatrialError
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Deployment, Instances
from seatrial.serve.errors import ModelLoadError
from seatrial.serve.plan import show
from seatrial.serve.plan.choose import BatchPlan, Model, planned
from seatrial.serve.plan.observe import Bench
from seatrial.serve.plan.run import Climbing, TuneRequest, climb_for
from seatrial.serve.plan.setting import Setting
from seatrial.serve.plan.trial import Pair, Trial, standing
from seatrial.serve.plan.tune import Tuned
from seatrial.serve.plan.verify import caveats, compared, distance, shares
from tests.serve.plan.test_plan_choice import SINGLE, SLO, curve
from tests.support.graphs import pictures
from tests.support.usage import executed


@pytest.fixture(scope="module")
def plan() -> BatchPlan:
    setting = Setting(max_batch=8, delay_us=0, layout=SINGLE)
    return planned(Model.of(curve(), SLO), setting, 200.0, sustains=900.0)


def load(latency: float, late: int = 0, dropped: int = 0) -> LoadRun:
    """Ten seconds at 200/s: so many late, and so many that were never sent."""
    schedule = poisson(200, 10, seed=1)
    intended = schedule.offsets
    count = len(intended)
    waited = np.full(count, latency)
    waited[:late] = 0.2
    sent, done, status = intended + 1e-5, intended + waited, np.full(count, 200, np.int16)
    sent[count - dropped :] = np.nan
    status[count - dropped :] = CENSORED
    return LoadRun(
        intended=intended,
        sent=sent,
        done=done,
        status=status,
        schedule=schedule,
        batch=1,
        client_cpu=0.1,
        elapsed=10.0,
        start=0.0,
        target="t",
    )


def test_a_run_within_the_objective_is_met_and_one_with_too_many_late_is_not(plan: BatchPlan) -> None:
    good = compared(plan, load(0.006), {1: 0.8, 2: 0.2})
    assert good.met
    assert good.exit_code == 0
    assert good.over == 0
    bad = compared(plan, load(0.006, late=60), {1: 0.8, 2: 0.2})
    assert not bad.met
    assert bad.exit_code == 1
    assert any("outside" in caveat for caveat in caveats(plan, bad))


def test_what_was_never_sent_counts_as_missed_and_spoils_the_run(plan: BatchPlan) -> None:
    found = compared(plan, load(0.006, dropped=100), {1: 1.0})
    assert found.over == pytest.approx(100 / len(load(0.0)))
    assert found.breaches
    assert found.exit_code == 4


def test_executed_sizes_beyond_the_plan_are_missed(plan: BatchPlan) -> None:
    found = compared(plan, load(0.006), {1: 0.5, 16: 0.5})
    assert found.missed == pytest.approx(0.5)
    assert found.apart > 0.25
    assert any("differed from the predicted size" in caveat for caveat in caveats(plan, found))


def test_tables_hold_the_figures_and_json_no_nan(plan: BatchPlan) -> None:
    found = compared(plan, load(0.006), {1: 0.5, 2: 0.25, 3: 0.25})
    pair = Pair(candidate=900.0, best=1000.0, swapped=False)
    trial = Trial(number=0, setting=plan.setting, against=plan.setting, predicted=0.0, pairs=(pair,))
    tuned = Tuned(start=plan.setting, state=standing(plan.setting, [trial]), stopped="enough")
    console = Console(record=True, width=160, file=io.StringIO())
    console.print(show.plan_table(plan, found))
    console.print(show.trials_table(tuned))
    text = console.export_text()
    for said in ("p99 <= 30 ms", "6.0 ms", "1: 50%, 2: 25%, 3: 25%", "[1, 1, 8]", "900/s", "itself", "enough"):
        assert said in text
    json.dumps([found.to_json(), tuned.to_json()], allow_nan=False)


sizes = st.dictionaries(st.integers(1, 64), st.integers(1, 1000), min_size=1, max_size=9)


@given(one=sizes, other=sizes)
def test_distance_is_one_of_distributions(one: dict[int, int], other: dict[int, int]) -> None:
    a, b = (shares(executed(each)) for each in (one, other))
    assert math.isclose(sum(a.values()), 1)
    assert distance(a, a) == 0
    assert 0 <= distance(a, b) <= 1 + 1e-9
    assert math.isclose(distance(a, b), distance(b, a))
    assert shares(Unavailable(unavailable="no")) == {}


@pytest.mark.parametrize(
    ("deployment", "said"),
    [
        (Deployment(schema=1, name="m", max_batch_size=0), "no batch size to plan"),
        (Deployment(schema=1, name="m", max_batch_size=4, instances=Instances(kind="gpu")), "only CPU layouts"),
    ],
)
def test_what_has_nothing_to_plan_is_refused(tmp_path: Path, deployment: Deployment, said: str) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(ConfigError, match=said):
        Bench(
            artifact=pictures(store, tmp_path / "pictures"),
            deployment=deployment,
            store=store,
            inputs=lambda endpoint: {},
            scratch=tmp_path,
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": 0.0},
        {"rate": math.inf},
        {"largest": 0},
        {"trials": -1},
        {"pairs": 0},
        {"rounds": 0},
        {"climb_seconds": 0.1},
        {"verify_seconds": 0.5},
    ],
)
def test_a_run_is_asked_something_that_can_be_done(wrong: dict[str, float]) -> None:
    values = {"rate": 10.0, "slo": Slo(quantile=0.99, seconds=0.03), "largest": 8} | wrong
    with pytest.raises(SeatrialError) as caught:
        TuneRequest(**values)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2


class Refusing(Bench):
    """A server that refuses every setting, as one without memory left does."""

    @contextmanager
    def serving(self, setting: Setting) -> Iterator[Endpoint]:
        raise ModelLoadError("out of memory")
        yield


def test_a_setting_that_the_server_refuses_sustains_nothing_and_ends_no_search(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    bench = Refusing(
        artifact=pictures(store, tmp_path / "pictures"),
        deployment=Deployment(schema=1, name="m", max_batch_size=4),
        store=store,
        inputs=lambda endpoint: {},
        scratch=tmp_path,
    )
    told: list[str] = []
    climb = climb_for(1000, 5)
    climbing = Climbing(bench=bench, slo=SLO, climb=climb, folder=tmp_path, told=told.append)
    assert climbing(Setting(max_batch=4, delay_us=0, layout=SINGLE)) == climb.low < 1000 < climb.high
    assert "out of memory" in told[0]
    assert climb_for(1e9, 5).high <= 10_000  # what a client can offer
