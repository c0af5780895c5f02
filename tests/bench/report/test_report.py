"""The report in its three forms: says what the verdict says, escapes what users name, asks the network for nothing."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from seatrial.bench import report
from seatrial.bench.budget import Budget
from seatrial.bench.gating.judge import judge
from seatrial.bench.gating.pairs import GateRun, SlotRecord
from seatrial.bench.load.summary import LoadSummary
from seatrial.bench.measuring.usage import Memory, MemorySeries
from seatrial.bench.on_plotly import latency_cdf, log_ticks, thinned_tail
from seatrial.bench.report import StageRow, print_verdict, rows, to_markdown, write_html
from seatrial.bench.report.junit import to_junit
from seatrial.bench.verdict import Verdict
from tests.support.usage import NO_COUNTS

RunMaker = Callable[..., GateRun]
STAGES = [
    StageRow(
        name="export", format="onnx", quality=0.91, size_bytes=44_000_000, speedup=1.0, digest="sha256:" + "c" * 64
    ),
    StageRow(
        name="quantize",
        format="onnx",
        quality=0.905,
        size_bytes=11_400_000,
        speedup=2.6,
        latency_ratio=0.385,
        interval=(0.37, 0.4),
        digest="sha256:" + "d" * 64,
        cached=True,
    ),
    StageRow(name="unmeasured", format="torch", size_bytes=1, digest="sha256:" + "f" * 64),
]
LOAD = LoadSummary(
    target="127.0.0.1:8000/v2/models/scenes",
    schedule="sha256:00",
    seconds=30.0,
    scheduled=3600,
    scheduled_rate=120.0,
    answered=3599,
    achieved_rate=119.9,
    p50=0.0015,
    p95=0.0022,
    p99=None,
    longest=0.01,
    service_p50=0.0014,
    lag_p50=0.0001,
    lag_p99=0.0004,
    client_cpu=0.1,
    failures=(),
    valid=False,
    breaches=("dropped: 1 arrival",),
    notes=("too few for p99",),
)


def script_free(page: str) -> str:
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def accounted(run: GateRun) -> GateRun:
    """The run as newer versions record it: the server's own account, executed batches, memory over time."""

    def richer(record: SlotRecord) -> SlotRecord:
        whole = float(record.service.sum())
        parts = {"queue": 0.1, "compute_input": 0.02, "compute_infer": 0.6, "compute_output": 0.03}
        sums: dict[str, Any] = {name: share * whole for name, share in parts.items()}
        server = replace(NO_COUNTS, requests=record.service.size, batch_sizes={1: 900, 4: 40}, **sums)
        held = (10**8, 2 * 10**8, 2 * 10**8)
        series = MemorySeries(at=(1.0, 2.0, 3.0), resident=held, anonymous=held, file=(0, 0, 0), pss=held)
        return replace(record, server=server, memory=Memory(peak=held[1], last=held[2], series=series))

    return replace(run, records=tuple(richer(record) for record in run.records))


@pytest.fixture
def judged(make_run: RunMaker, budget: Budget) -> tuple[GateRun, Verdict]:
    run = make_run(latency=0.6, throughput=1.4, size=0.27, lost=6)
    return run, judge(run, budget)


def test_the_page_shows_verdict_findings_stages_and_load(tmp_path: Path, judged: tuple[GateRun, Verdict]) -> None:
    run, verdict = judged
    path = tmp_path / "report.html"
    write_html(path, title="scenes", verdict=verdict, run=run, stages=STAGES, load=LOAD)
    page = path.read_text()
    text = script_free(page)
    assert text.index('class="outcome">PASS') < text.index("<table>")
    for row in rows(verdict):
        assert f"{row.metric}</td>" in text
        assert row.candidate in text
    for expected in (
        "2.60 ×",
        "(cached)",
        "-61.5%",
        "dropped: 1 arrival",
        "too few for p99",
        run.header.base.digest,
    ):
        assert expected in text
    assert page.count("plotly.js v") == 1  # one copy of the library
    assert page.count('class="plotly-graph-div"') == 4  # pairs, latency, waterfall, control


def test_what_the_server_and_the_probe_recorded_is_drawn(tmp_path: Path, make_run: RunMaker, budget: Budget) -> None:
    run = accounted(make_run(latency=0.6))
    write_html(tmp_path / "report.html", title="scenes", verdict=judge(run, budget), run=run)
    page = (tmp_path / "report.html").read_text()
    assert page.count('class="plotly-graph-div"') == 6  # and batch sizes and memory
    text = script_free(page)
    for part in ("client lag", "network", "queue", "copies", "compute"):
        assert f'<td class="l">{part}</td>' in text
    assert "Executed batches" in text
    assert "Memory over time" in text


def test_the_page_asks_the_network_for_nothing(tmp_path: Path, judged: tuple[GateRun, Verdict]) -> None:
    run, verdict = judged
    write_html(tmp_path / "report.html", title="scenes", verdict=verdict, run=run, stages=STAGES, load=LOAD)
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"<(script|img|iframe|link)[^>]*\b(src|href)\s*=", script_free(page))
    assert not re.search(r"<script[^>]*\bsrc\s*=", page)
    assert not re.search(r"@import|url\(", script_free(page))


def test_names_are_escaped_in_every_form(tmp_path: Path, judged: tuple[GateRun, Verdict]) -> None:
    run, verdict = judged
    evil = "<script>alert(1)</script>|[bold]x"
    named = replace(verdict, candidate=replace(verdict.candidate, name=evil), reasons=(evil,))
    write_html(tmp_path / "report.html", title=evil, verdict=named, run=run)
    assert "alert(1)</script>" not in (tmp_path / "report.html").read_text()
    console = Console(record=True, width=200)
    print_verdict(named, console)
    assert "[bold]x" in console.export_text()


def test_no_name_breaks_out_of_a_summary_or_hides_in_it(tmp_path: Path, judged: tuple[GateRun, Verdict]) -> None:
    run, verdict = judged
    evil = "a\\|b`c` [x](http://evil) *b*\n# head\x1b[2J\u202eback @all <img src=x>"
    finding = replace(verdict.findings[0], metric=evil, reason=evil)
    named = replace(verdict, candidate=replace(verdict.candidate, name=evil), findings=(finding,), scope=evil, at=evil)
    marked = to_markdown(named, run)
    assert "a\\\\\\|b\\`c\\` \\[x\\](http://evil)" in marked
    for text in (marked, to_junit(named, run)):
        assert not any(each in text for each in ("\x1b", "\u202e", "<img"))
    assert "@all" not in marked
    assert not any(line.startswith("# head") for line in marked.splitlines())
    assert "\\x1b[2J" in to_junit(named, run)
    write_html(tmp_path / "page.html", title=evil, verdict=named, run=run)
    page = script_free((tmp_path / "page.html").read_text())
    assert not any(each in page for each in ("\x1b", "\u202e", "<img"))


@pytest.mark.parametrize("keep", [0, 1, 5])
def test_a_run_that_broke_off_still_gets_its_page(
    tmp_path: Path, make_run: RunMaker, budget: Budget, keep: int
) -> None:
    whole = make_run()
    run = replace(whole, records=whole.records[:keep])
    write_html(tmp_path / "report.html", title="broken off", verdict=judge(run, budget), run=run)
    text = script_free((tmp_path / "report.html").read_text())
    assert "INVALID" in text
    assert "pairs were measured" in text


@pytest.mark.parametrize(
    ("given", "outcome"),
    [({"latency": 0.6}, "PASS"), ({"latency": 1.5}, "FAIL"), ({"noise": 0.12}, "INCONCLUSIVE")],
)
def test_terminal_and_markdown_say_the_outcome_first(
    make_run: RunMaker, budget: Budget, given: dict[str, float], outcome: str
) -> None:
    verdict = judge(make_run(**given), budget)
    console = Console(record=True, width=200)
    print_verdict(verdict, console)
    printed, marked = console.export_text(), to_markdown(verdict)
    assert printed.startswith(outcome)
    assert marked.startswith(f"## {outcome}")
    for finding in verdict.findings:
        assert finding.metric in printed
        assert f"| {finding.metric} |" in marked
    if outcome != "PASS":
        assert all(reason in marked for reason in verdict.summary)
    widths = {line.count("|") - line.count("\\|") for line in marked.splitlines() if line.startswith("|")}
    assert widths == {8}


def test_the_interval_is_called_what_it_is(make_run: RunMaker, budget: Budget) -> None:
    assert "90 % interval" in to_markdown(judge(make_run(), budget))
    assert "98 % interval" in to_markdown(judge(make_run(), replace(budget, alpha_pass=0.01)))


def test_the_drawn_tail_keeps_the_largest_value() -> None:
    values = np.random.default_rng(0).lognormal(0, 1, 20_000)
    x, depth = thinned_tail(values)
    assert x.size < 500
    assert x[-1] == values.max()
    assert np.all(np.diff(depth) > 0)
    assert "<script src" not in latency_cdf(values, values[:1])


@pytest.mark.parametrize(("low", "high"), [(0.8, 9.0), (1.0, 900.0), (0.01, 9000.0)])
def test_ticks_are_round_and_few(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 3 <= len(ticks) <= 12
    assert all(low <= tick <= high for tick in ticks)


@pytest.mark.slow
def test_importing_the_report_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    heavy = ("plotly", "jinja2", "rich", "scipy", "torch", "locust", "tritonclient", "onnxruntime")
    rooms = "seatrial.bench.report, seatrial.bench.gating.gate"
    code = f"import sys, {rooms}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
    assert report.MEANINGS.keys() == report.STYLES.keys()
