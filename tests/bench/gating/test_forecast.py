"""The forecast: the facts' table of pairs, honest sources, and sentences about what cannot be certified."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from seatrial.bench import stats
from seatrial.bench.budget import Budget, Limit
from seatrial.bench.gating import show
from seatrial.bench.gating.forecast import forecast
from seatrial.bench.gating.noise import Noise, Trial
from seatrial.bench.metrics import METRICS
from seatrial.bench.records import archive
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import IntegrityError


def trial(**change: object) -> Trial:
    made = Trial(
        kind="aa",
        model="scenes",
        format="onnx",
        rate=120.0,
        seconds=9.0,
        pairs=6,
        outcomes={"PASS": 2, "INCONCLUSIVE": 1},
        resampled={"PASS": 199, "FAIL": 1},
        ratios={"p50": 1.01},
        noise={"p50": Noise(sd=0.01, df=8, typical=0.002), "peak_memory": Noise(sd=0.001, df=8, typical=1e8)},
        slot_seconds=12.0,
        machine={"cpu": "some", "cores": 2, "gpus": ()},
        runs=("somewhere",),
        at="2026-11-02T10:00:00+00:00",
    )
    return replace(made, **change)  # type: ignore[arg-type]


# PASS at 0, FAIL at twice the margin: from the power table of the design (alpha 1 % and 5 %, simulated there).
@pytest.mark.parametrize(
    ("delta", "sd", "n", "passes", "twice"),
    [
        (0.05, 0.02, 6, 1.00, 0.91),
        (0.05, 0.03, 10, 1.00, 0.96),
        (0.05, 0.05, 10, 0.88, 0.54),
        (0.1, 0.05, 6, 0.98, 0.69),
    ],
)
def test_power_is_what_was_simulated(delta: float, sd: float, n: int, passes: float, twice: float) -> None:
    margin = math.log1p(delta)
    assert stats.pass_power(n, sd, margin, alpha=0.05) == pytest.approx(passes, abs=0.02)
    effect = math.log1p(2 * delta)
    assert stats.fail_power(n, sd, margin, alpha=0.01, effect=effect) == pytest.approx(twice, abs=0.02)
    kept = stats.KEPT if n >= stats.MIN_SIGNED_RANK else 1.0
    assert stats.pass_power(n, sd, margin, alpha=0.05, effect=margin) == pytest.approx(0.05 * kept, abs=1e-6)


@settings(deadline=None)
@given(st.floats(0.001, 0.2), st.sampled_from([0.01, 0.02, 0.05, 0.1]), st.sampled_from([0.05, 0.015]))
def test_pairs_needed_is_the_first_number_with_that_power(sd: float, delta: float, alpha: float) -> None:
    margin = math.log1p(delta)
    found = stats.pairs_needed(sd, margin, alpha=alpha)
    if found is None:
        assert stats.pass_power(400, sd, margin, alpha=alpha) < 0.9 + 1e-9
        return
    assert stats.pass_power(found, sd, margin, alpha=alpha) >= 0.9 - 1e-9
    if found > 4:
        assert stats.pass_power(found - 2, sd, margin, alpha=alpha) < 0.9 + 1e-9


def test_the_upper_bound_of_a_spread_covers_it_four_times_out_of_five() -> None:
    sd, df = stats.pooled_sd([(0.02, 4), (0.02, 8)])
    assert sd == pytest.approx(0.02)
    assert df == 12
    upper = stats.upper_sd(sd, df)
    assert reference.chi2.sf(df * sd**2 / upper**2, df) == pytest.approx(0.8)


def test_without_an_archive_the_assumption_is_stated(budget: Budget) -> None:
    found = forecast(budget, [], "scenes", "onnx")
    assert "assumed" in found.source
    assert {each.metric for each in found.limits} == {"p50", "p99", "throughput", "peak_memory", "cost"}
    assert all(each.assumed and each.sd == METRICS.get(each.metric).assumed_noise for each in found.limits)
    lines = show.forecast_lines(found)
    assert lines[0].startswith("forecast: about ")
    assert "(6 pairs)" in lines[0]


def test_an_archive_of_the_same_model_counts_before_others(budget: Budget) -> None:
    other = trial(model="other", noise={"p50": Noise(sd=0.5, df=4, typical=0.002)})
    found = forecast(budget, [other, trial()], "scenes", "onnx")
    p50 = found.limits[0]
    assert (p50.metric, p50.assumed) == ("p50", False)
    assert 0.01 < p50.sd < 0.02
    assert p50.pairs_needed == 4
    assert p50.passes > 0.99
    assert found.seconds == (2 * 6 * 12.0,)
    noisy = forecast(budget, [other], "scenes", "onnx")
    assert "other onnx models" in noisy.source
    assert any("cannot certify p50 to 5.0%" in warning for warning in noisy.warnings)
    assert forecast(budget, [other], "scenes", "torch").limits[0].assumed


def test_a_floor_widens_the_margin_where_the_typical_value_is_known(budget: Budget) -> None:
    memory = next(each for each in forecast(budget, [trial()], "scenes", "onnx").limits if each.metric == "peak_memory")
    assert memory.margin == pytest.approx((16 << 20) / 1e8)


def test_looks_are_forecast_with_their_times(budget: Budget) -> None:
    looking = replace(budget, design=replace(budget.design, pairs=20, looks=(6, 12, 20)))
    found = forecast(looking, [trial()], "scenes", "onnx")
    assert found.seconds == (144.0, 288.0, 480.0)
    assert "2.4 min (6 pairs) or 4.8 min (12 pairs) or 8.0 min (20 pairs)" in show.forecast_lines(found)[0]


def test_more_noise_never_helps(budget: Budget) -> None:
    one = replace(budget, limits=(Limit(metric="p50", max_regression=0.05),))
    found = [
        forecast(one, [trial(noise={"p50": Noise(sd=sd, df=8, typical=0.002)})], "scenes", "onnx").limits[0]
        for sd in (0.005, 0.02, 0.08)
    ]
    assert [each.certifiable for each in found] == sorted(each.certifiable for each in found)
    assert [each.blocks for each in found] == sorted((each.blocks for each in found), reverse=True)


def test_the_archive_is_kept_by_machine_class(tmp_path: Path) -> None:
    here = environment()
    assert archive.trials(tmp_path, here) == []
    archive.append(tmp_path, here, trial())
    archive.append(tmp_path, here, trial(kind="drill", injected=0.2))
    assert archive.trials(tmp_path, here) == [trial(), trial(kind="drill", injected=0.2)]
    assert archive.trials(tmp_path, replace(here, cpu="another")) == []
    path = archive.path_of(tmp_path, here)
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 9'))
    with pytest.raises(IntegrityError, match="schema"):
        archive.trials(tmp_path, here)
