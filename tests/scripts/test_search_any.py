"""Rows over models that nobody tuned: what meets each bar, what misses it, and which tools may count as best."""

from dataclasses import replace
from typing import Any

import pytest

from scripts.benchmarks import optimization
from scripts.benchmarks.search_any import NAME, Walk, Way, _best, _draft, _fp32, _mean, _tools
from scripts.benchmarks.strangers import MODELS
from seatrial.optimize.timing.pace import LatencyRatio


def ratio(value: float, width: float = 0.01) -> LatencyRatio:
    return LatencyRatio(
        ratio=value, low=value - width, high=value + width, seconds=1.0, reference_seconds=1.0, batch=8, pairs=36
    )


def way(name: str, value: float, snr: float = 40.0) -> Way:
    session: Any = None
    return Way(name=name, session=session, time=ratio(value), snr=snr)


def walk(model: str, ours: float = 0.3, over_best: float = 1.0, draft: float = 1.0, snr: float = 40.0) -> Walk:
    return Walk(
        model=model,
        ours=way("search (a)", ours, snr),
        drafted=way("draft (dynamic)", ours, snr),
        others=(),
        failed={},
        over_best=ratio(over_best),
        best="NNCF",
        draft_over_best=ratio(draft),
        best_by_hand="fp32",
    )


EVERY = [walk(name) for name in MODELS]


def test_every_bar_is_met_by_what_meets_it() -> None:
    assert all(row(EVERY).met for row in (_mean, _tools, _fp32, _draft))


@pytest.mark.parametrize(
    ("row", "worse"),
    [
        (_mean, {"ours": 3.0}),
        (_mean, {"snr": 17.0}),
        (_tools, {"over_best": 1.05}),
        (_fp32, {"ours": 1.05}),
        (_fp32, {"snr": 17.0}),
        (_draft, {"draft": 1.07}),
        (_draft, {"snr": 17.0}),
    ],
)
def test_one_model_that_misses_misses_the_bar(row: Any, worse: dict[str, float]) -> None:
    spoiled = [walk(MODELS[0], **({"ours": 0.39} | worse)), *(walk(name, ours=0.39) for name in MODELS[1:])]
    assert not row(spoiled).met


def test_a_part_of_the_models_does_not_meet_the_bar_of_all() -> None:
    assert not _mean(EVERY[:3]).met
    assert "3 of 12 models" in _mean(EVERY[:3]).claim


def test_a_tool_below_the_floor_is_not_the_best() -> None:
    assert _best([way("fp32", 1.0), way("lossy", 0.2, snr=17.9), way("kept", 0.6, snr=18.0)]).name == "kept"


def test_the_name_of_the_row_means_all_rows_over_the_models_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run(description: str, rows: Any, **more: Any) -> int:
        seen.update(rows=list(rows), words=optimization.sys.argv[1:])  # type: ignore[attr-defined]
        return 0

    monkeypatch.setattr(optimization, "run_rows", run)
    monkeypatch.setattr("sys.argv", ["x", "--only", NAME, "--models", "bert,vit"])
    assert optimization.main() == 0
    names = [word for word in seen["words"] if word != "--only"]
    assert names == [NAME, f"{NAME}-tools", f"{NAME}-fp32", f"{NAME}-draft"]
    assert set(names) <= set(seen["rows"])
    monkeypatch.setattr("sys.argv", ["x", "--models", "bert,nosuch"])
    with pytest.raises(SystemExit):
        optimization.main()


def test_failures_of_tools_are_shown_with_their_reason() -> None:
    assert "NNCF: ValueError no" in str(replace(walk("bert"), failed={"NNCF": "ValueError no"}))
