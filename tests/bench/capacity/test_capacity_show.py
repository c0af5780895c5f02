"""What people see of a capacity: each outcome says what it is, and the page needs no network."""

from dataclasses import replace
from pathlib import Path

import pytest

from seatrial.bench import cost
from seatrial.bench.capacity.probe import Probe
from seatrial.bench.capacity.result import EXIT_CODES, Below, Capacity, Header, conclude
from seatrial.bench.capacity.search import Plan
from seatrial.bench.capacity.show import headline, rows, table, write_html
from seatrial.bench.capacity.slo import Slo
from seatrial.bench.load_limits import LoadLimits

PRICE = cost.Price(name="p", machine="two cores", usd_hour=3.60, source="list", checked_at="2026-11")


def probe(rate: float, over: int, **changes: object) -> Probe:
    blocks = tuple((100, over // 20 + (index < over % 20)) for index in range(20))
    made = Probe(
        number=0,
        phase="bisect",
        rate=rate,
        seconds=10.0,
        counted=2000,
        effective=1000.0,
        blocks=blocks,
        state="steady",
        reasons=(),
        faults=(),
        p50=0.004,
        tail=0.018,
        tail_upper=0.021,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def concluded(*probes: Probe, stopped: str = "") -> Capacity:
    header = Header(
        target="127.0.0.1:8000/v2/models/m/versions/1",
        model="<m>",
        slo=Slo(quantile=0.99, seconds=0.02),
        batch=8,
        seed=1,
        saturation=420.0,
        plan=Plan(),
        limits=LoadLimits(),
        environment={"cpu": "EPYC", "cores": 2},
        cores={"client": (0, 1), "server": (1,)},
        at="2026-11-24T10:00:00+00:00",
    )
    return conclude(header, probes, stopped)


FOUND = (
    probe(100, 0),
    probe(200, 8),
    probe(220, 60),
    probe(400, 1900, state="overload", reasons=("the backlog grows by 30 requests per second",)),
    probe(140, 1, phase="profile"),
)
SPOILED = probe(200, 0, faults=("client cpu: 90 % of a core",))


@pytest.mark.parametrize(
    ("probes", "outcome", "said"),
    [
        (FOUND, "found", "requests/s, 95 % interval"),
        ((probe(100, 0), probe(200, 0)), "at least", "at least 200 requests/s"),
        ((probe(100, 2000), probe(50, 1900)), "none", "no offered rate meets"),
        ((probe(100, 15, effective=50.0),), "unsettled", "do not show where the objective is exceeded"),
        ((SPOILED, SPOILED), "invalid", "the load generator broke its own rules"),
        ((probe(100, 0), SPOILED), "invalid", "the load generator broke its own rules"),
    ],
)
@pytest.mark.slow
def test_every_outcome_says_what_it_is(probes: tuple[Probe, ...], outcome: str, said: str, tmp_path: Path) -> None:
    found = concluded(*probes, stopped="why it ended" if outcome != "found" else "")
    assert found.outcome == outcome
    assert found.exit_code == EXIT_CODES[found.outcome]
    assert said in headline(found)
    assert table(found).row_count == len(rows(found))
    write_html(tmp_path / "report.html", found)
    page = (tmp_path / "report.html").read_text()
    assert "&lt;m&gt;" in page
    assert ("why it ended" in page) == (outcome != "found")


def test_the_figures_are_the_result_s_own(tmp_path: Path) -> None:
    found = concluded(*FOUND)
    assert found.rate is not None
    assert found.interval is not None
    assert 200 <= found.rate <= 220
    assert found.interval[0] <= found.rate <= found.interval[1]
    assert found.cliff == 400
    assert found.below == (Below(share=140 / found.rate, rate=140, p50=0.004, tail=0.018, tail_upper=0.021),)
    bounds = (8 * found.interval[0], 8 * found.interval[1])
    bill = cost.bill(PRICE, 8 * found.rate, interval=bounds, traffic=5000, seconds=found.load_seconds)
    shown = {what: (value, about) for what, value, about in rows(found, bill)}
    assert shown["cliff"][0] == "400/s"
    assert shown["inferences"] == (f"{8 * found.rate:.4g}/s", "8 samples per request")
    assert shown["per million"][0] == f"${1000 / (8 * found.rate):.3g}"
    assert shown["fleet"][0] == f"${5 * 3.60 * 730:,.0f}/month"  # 1.6 to 1.76 thousand each, 30 % kept free
    assert shown["this search"][0] == "$0.05"
    write_html(tmp_path / "report.html", found, bill)
    page = (tmp_path / "report.html").read_text()
    assert "/month" in page
    assert "src=" not in page.split("</script>")[-1]
    assert 'href="http' not in page.split("</script>")[-1]


def test_what_weakens_the_result_is_told() -> None:
    notes = concluded(*FOUND[:2], probe(220, 25), *FOUND[3:], SPOILED).notes
    assert any("1 of 6 probes were invalid" in note for note in notes)
    assert any("share cores 1" in note for note in notes)
    assert any("not decided at 99 %" in note and "220" in note for note in notes)
    falling = concluded(probe(100, 0), probe(200, 300), probe(250, 8), probe(400, 1900))
    assert any("does not rise with the rate" in note for note in falling.notes)
