"""`seatrial report`: every kind of run is recognised and computed again offline, the same wherever its folder lies."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as xml

import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from seatrial.bench.gating import pairs
from seatrial.bench.gating.pairs import GateRun
from seatrial.bench.load.folder import keep
from seatrial.bench.load.run import Client, LoadRun, Saturation
from seatrial.bench.report import kinds
from seatrial.bench.report.run_report import RunReport, flat, recomputed
from seatrial.bench.scenarios import SingleStream
from seatrial.bench.schedule import poisson
from seatrial.bench.verbs.report import report
from seatrial.optimize.errors import ConfigError, IntegrityError, MissingError
from tests.support.usage import NO_COUNTS

RunMaker = Callable[..., GateRun]
app = typer.Typer()
app.command()(report)


def kept(run: GateRun, folder: Path) -> Path:
    """The run on disk, as a gate leaves it."""
    pairs.write_header(folder, run.header)
    for record in run.records:
        pairs.write_record(folder, record)
    return folder


def load_run(folder: Path, *, late: float = 0.0, status: int = 200) -> Path:
    schedule = poisson(200.0, 5.0, 3)
    intended = schedule.offsets
    sent = intended + late
    random = np.random.default_rng(0)
    LoadRun(
        intended=intended,
        sent=sent,
        done=sent + random.gamma(20, 1e-4, intended.size),
        status=np.full(intended.size, status, np.int16),
        schedule=schedule,
        batch=1,
        client_cpu=0.1,
        elapsed=5.0,
        start=1.0,
        target="127.0.0.1:8000/v2/models/tiny",
        reasons={503: "too busy"},
    ).save(folder)
    return folder


def told_forms(told: RunReport, folder: Path) -> list[bytes]:
    """Every form of a report, as bytes."""
    told.html(folder / "page.html")
    page = (folder / "page.html").read_bytes()
    return [
        json.dumps(told.document, sort_keys=True).encode(),
        told.markdown().encode(),
        told.junit("skip").encode(),
        page[page.index(b"<main>") :].split(b'<div id="')[0],  # plots name their elements by chance
    ]


@pytest.mark.parametrize("given", [{"latency": 0.6}, {"latency": 1.5}, {"noise": 0.12}])
@pytest.mark.slow
def test_a_gate_is_told_the_same_bit_for_bit_again_and_elsewhere(
    make_run: RunMaker, tmp_path: Path, given: dict[str, float]
) -> None:
    folder = kept(make_run(**given), tmp_path / "run")
    first = kinds.tell(folder)
    verdict, forms = (folder / "verdict.json").read_bytes(), told_forms(first, tmp_path)
    assert told_forms(kinds.tell(folder), tmp_path) == forms
    assert (folder / "verdict.json").read_bytes() == verdict
    moved = tmp_path / "elsewhere" / "moved"
    shutil.copytree(folder, moved)
    (moved / "verdict.json").unlink()
    assert told_forms(kinds.tell(moved), tmp_path) == forms
    assert (moved / "verdict.json").read_bytes() == verdict
    assert first.exit_code == json.loads(verdict)["exit_code"]


@pytest.mark.parametrize(
    ("given", "exit_code", "tag"), [({}, 0, None), ({"late": 0.5}, 4, "error"), ({"status": 503}, 1, "failure")]
)
def test_a_load_run_is_told_from_its_arrays(
    tmp_path: Path, given: dict[str, Any], exit_code: int, tag: str | None
) -> None:
    folder = load_run(tmp_path / "load", **given)
    told = kinds.tell(folder)
    assert (told.kind, told.exit_code) == ("open loop", exit_code)
    case = next(xml.fromstring(told.junit("skip")).iter("testcase"))
    assert [child.tag for child in case] == ([tag] if tag else [])
    told.html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count('class="plotly-graph-div"') == (0 if given.get("status") else 2)
    assert "127.0.0.1:8000" in told.markdown()


def test_a_closed_loop_is_told_too(tmp_path: Path) -> None:
    done = np.arange(1, 101) / 100
    Saturation(
        sent=done - 0.01,
        done=done,
        status=np.full(100, 200, np.int16),
        seconds=1.0,
        concurrency=1,
        batch=4,
        client_cpu=0.1,
        start=0.0,
        target="t",
    ).save(tmp_path)
    told = kinds.tell(tmp_path)
    assert (told.kind, told.exit_code) == ("closed loop", 0)
    assert told.document["samples_per_second"] == 400
    starved = replace(Saturation.read(tmp_path), about=Client(client_wait=0.9))
    starved.save(tmp_path)
    told = kinds.tell(tmp_path)
    assert told.exit_code == 4
    assert "client busy" in told.markdown()


def test_what_the_load_verb_printed_of_scenario_and_server_is_told_again(tmp_path: Path) -> None:
    folder = load_run(tmp_path / "load")
    counted = replace(NO_COUNTS, requests=90, inferences=90, executions=60, batch_sizes={1: 30, 2: 30}, queue=0.09)
    keep(folder, SingleStream(), counted)
    told = kinds.tell(folder)
    assert told.document["server"] == counted.to_json()
    assert told.document["scenario"]["scenario"] == "single-stream"
    assert told.document["scenario"]["tail"]["quantile"] == 0.9
    page = tmp_path / "page.html"
    told.html(page)
    for text in (told.markdown(), page.read_text()):
        assert "executions by batch size 1: 30, 2: 30" in text
        assert "single-stream" in text


@dataclass(frozen=True)
class Answer:
    exit_code: int

    def to_json(self) -> Mapping[str, Any]:
        record = {"metric": "p50", "unit": "s", "value": 0.0021, "interval": (0.002, 0.0022), "raw": [1, 2, 3], "n": 4}
        return {
            "schema": 1,
            "figures": (record,),
            "limit": {"rate": 212.5, "low": 200.0},
            "probes": list(range(20)),
            "said": "<b>|",
        }


def test_any_result_that_knows_its_json_has_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"answer": lambda folder: recomputed("answer", folder, Answer(3))}
    monkeypatch.setattr(kinds, "KINDS", known)
    (tmp_path / "answer.json").write_text('{"schema": 1, "kind": "answer"}')
    told = kinds.tell(tmp_path)
    assert told.exit_code == 3
    assert "skipped" in told.junit("skip")
    assert "<failure" in told.junit("fail")
    assert "| limit.rate | 212.5 |" in told.markdown()
    assert "20 values" in told.markdown()
    assert "| metric | unit | value | interval | n |" in told.markdown()
    assert "| p50 | s | 2.1 ms | 2 ms … 2.2 ms | 4 |" in told.markdown()
    told.html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "limit.rate" in page
    assert "<td>2 ms … 2.2 ms</td>" in page
    assert "<b>|" not in page.split("<main>")[1]
    console = CliRunner().invoke(app, [str(tmp_path)])
    assert console.exit_code == 3
    assert "212.5" in console.output
    assert "2 ms … 2.2 ms" in console.output


def test_a_result_may_bring_its_own_table_and_page(tmp_path: Path) -> None:
    def page(path: Path) -> None:
        path.write_text("my page")

    told = recomputed("answer", tmp_path, Answer(0), table=lambda: "my table", page=page)
    console = Console(record=True)
    told.show(console)
    told.html(tmp_path / "page.html")
    assert console.export_text() == "my table\n"
    assert (tmp_path / "page.html").read_text() == "my page"


def test_nested_documents_are_listed_to_a_depth() -> None:
    assert flat({"a": {"b": {"c": {"d": 1}}}, "e": {}}) == [("a.b.c", "{'d': 1}"), ("e", "{}")]


@pytest.mark.parametrize(
    ("header", "error", "said"),
    [
        (None, MissingError, "there is no run"),
        ("{", IntegrityError, "not readable"),
        ('{"schema": 1}', MissingError, "there is no run"),
        ('{"schema": 1, "kind": "seance"}', ConfigError, "seance"),
        ('{"schema": 7, "kind": "gate"}', IntegrityError, "has schema 7"),
        ('{"schema": 7, "kind": "open loop"}', IntegrityError, "has schema 7"),
    ],
)
def test_what_is_no_run_is_one_clear_error(
    tmp_path: Path, header: str | None, error: type[Exception], said: str
) -> None:
    if header is not None:
        (tmp_path / "run.json").write_text(header)
    with pytest.raises(error, match=said):
        kinds.tell(tmp_path)


@pytest.mark.slow
def test_the_verb_writes_every_form_and_ends_as_the_run_does(make_run: RunMaker, tmp_path: Path) -> None:
    folder = kept(make_run(noise=0.12), tmp_path / "run")
    files = {name: tmp_path / "out" / name for name in ("page.html", "junit.xml", "benchmark.json")}
    options = [
        "--html",
        files["page.html"],
        "--junit",
        files["junit.xml"],
        "--pytest-benchmark",
        files["benchmark.json"],
    ]
    done = CliRunner().invoke(app, [str(folder), *map(str, options), "--inconclusive", "fail"])
    assert done.exit_code == 3, done.output
    assert done.output.startswith("INCONCLUSIVE")
    assert all(path.is_file() for path in files.values())
    assert "<failure" in files["junit.xml"].read_text()
    assert not (folder / "report.html").exists()
    marked = CliRunner().invoke(app, [str(folder), "--markdown"])
    assert (marked.exit_code, marked.output[:15]) == (3, "## INCONCLUSIVE")
    spelt = CliRunner().invoke(app, [str(folder), "--json"])
    assert json.loads(spelt.output)["outcome"] == "INCONCLUSIVE"


def test_a_load_run_has_no_rounds_to_write(tmp_path: Path) -> None:
    folder = load_run(tmp_path / "load")
    done = CliRunner().invoke(app, [str(folder), "--pytest-benchmark", str(tmp_path / "b.json")])
    assert isinstance(done.exception, ConfigError)
    assert not (tmp_path / "b.json").exists()
