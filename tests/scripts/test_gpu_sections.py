"""scripts/gpu without a GPU: a whole record and exit 4; each section's code on the CPU; the page follows the record."""

import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from scripts.gpu_sections import ceilings, energy, latency, main, memory, page, suite
from scripts.gpu_sections.child import finite
from scripts.gpu_sections.place import MissingPartError, Place, Times
from scripts.gpu_sections.record import Run, at_least, at_most, read, verdict
from scripts.gpu_sections.sections import SECTIONS, Section
from seatrial.bench.processes import alive
from seatrial.optimize.environment import environment

ROOT = Path(__file__).parents[2]
CPU = Place(device="cpu", seconds=300.0)
HERE = [section for section in SECTIONS if section.name not in ("tests", "environment")]
SECTION = {"status": "done", "seconds": 1.0, "reason": "", "rows": [], "notes": []}


def claimed(*met: bool | None) -> dict[str, Any]:
    return SECTION | {"claims": [{"claim": "c", "bar": "b", "value": "v", "met": each, "why": ""} for each in met]}


@pytest.mark.skipif(bool(environment().gpus), reason="this machine has a GPU")
@pytest.mark.slow
def test_without_a_gpu_the_record_is_whole_and_the_exit_code_is_4(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert main.main(["--out", str(out)]) == 4
    record = json.loads(out.read_text())
    assert record["finished"]
    assert record["exit_code"] == 4
    assert record["reasons"]
    assert record["environment"]["libraries"]["torch"]
    assert list(record["sections"]) == [section.name for section in SECTIONS]
    assert {each["status"] for name, each in record["sections"].items() if name != "environment"} == {"not run"}
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(ValueError, match="not made on a GPU"):
        read(out)


def test_a_run_needs_nothing_but_the_standard_library() -> None:
    parts = ", ".join(
        f"scripts.gpu_sections.{name}" for name in ("main", "page", "record", "child", "machine", "suite")
    )
    done = subprocess.run([sys.executable, "-S", "-c", f"import {parts}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_list_names_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--list"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()] == [section.name for section in SECTIONS]
    assert all(Path(ROOT, *section.path.split(".")).with_suffix(".py").is_file() for section in SECTIONS)


@pytest.mark.parametrize("words", [[], ["--out", "x", "--minutes", "0"], ["--out", "x", "--only", "nothing"]])
def test_a_wrong_command_line_ends_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(words)
    assert caught.value.code == 2


def test_a_record_that_cannot_be_written_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--out", str(tmp_path / "none" / "gpu.json")]) == 2
    assert "Next: name a file" in capsys.readouterr().out


@pytest.mark.parametrize("section", HERE, ids=lambda section: section.name)
@pytest.mark.slow
def test_each_section_runs_on_the_processor(section: Section) -> None:
    found = import_module(section.path).run(CPU)
    assert found.rows
    assert found.claims
    json.dumps([dict(row) for row in found.rows], allow_nan=False)
    measured = [row for row in found.rows if "unavailable" not in row]
    assert measured, found.rows


@pytest.mark.slow
def test_a_section_in_its_own_process_counts_for_nothing_on_the_processor(tmp_path: Path) -> None:
    out = tmp_path / "cpu.json"
    assert main.main(["--on-cpu", "--only", "energy", "--out", str(out)]) == 3
    record = json.loads(out.read_text())
    assert record["device"] == "cpu"
    assert [claim["why"] for claim in record["sections"]["energy"]["claims"]] == ["rehearsed on the CPU"]
    with pytest.raises(ValueError, match="not made on a GPU"):
        read(out)


def test_a_rehearsal_never_meets_a_bar() -> None:
    run = Run(device="cpu", at="", arguments=[])
    run.add("a", "done", 1.0, {"claims": [{"claim": "c", "bar": "b", "value": "1", "met": True, "why": ""}]})
    assert run.sections["a"]["claims"][0]["met"] is None
    assert verdict("cpu", [claimed(True)]) == 3


@pytest.mark.parametrize(
    ("sections", "code"),
    [
        ([claimed(True), claimed(True, True)], 0),
        ([claimed(True), claimed()], 0),
        ([claimed(True, None), claimed(False)], 1),
        ([claimed(True), claimed(None)], 3),
        ([claimed(True), claimed() | {"status": "timeout"}], 3),
        ([claimed()], 3),
    ],
)
def test_missed_comes_before_unknown_and_unknown_before_met(sections: list[dict[str, Any]], code: int) -> None:
    assert verdict("gpu", sections) == code


@pytest.mark.parametrize(("name", "seconds", "status"), [("energy", 0.01, "timeout"), ("nonsense", 60.0, "failed")])
def test_a_section_that_hangs_or_breaks_ends_with_its_reason(name: str, seconds: float, status: str) -> None:
    run = Run(device="cpu", at="", arguments=[])
    main._one(run, Section(name=name, module="energy", seconds=seconds, about=""), seconds)
    found = run.sections[name]
    assert found["status"] == status
    assert found["reason"]
    assert found["claims"] == []


def test_a_figure_that_is_no_number_loses_no_others() -> None:
    value = {"rows": ({"error": float("nan"), "seconds": 1.5},), "claims": [], "n": float("-inf")}
    assert finite(value) == {"rows": [{"error": "nan", "seconds": 1.5}], "claims": [], "n": "-inf"}


def test_a_run_that_is_ended_ends_its_section_and_leaves_a_record(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "scripts.gpu_sections.main", "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        until = time.monotonic() + 60
        children: list[int] = []
        while not children and time.monotonic() < until:
            time.sleep(0.05)
            told = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            children = [int(each) for each in told.split()]
        process.terminate()
        assert process.wait(30) == 128 + 15
    finally:
        process.kill()
        process.communicate()
    assert children
    until = time.monotonic() + 30
    while any(alive((child,)) for child in children) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(alive((child,)) for child in children)
    assert not json.loads(out.read_text())["finished"]


def test_sections_beyond_the_time_are_not_started(tmp_path: Path) -> None:
    run = Run(device="gpu", at="", arguments=[])
    assert main._walk(run, list(SECTIONS[1:3]), tmp_path / "out.json", until=0.0) == 3
    assert {each["reason"] for each in run.sections.values()} == {"out of time (--minutes)"}


def test_what_a_section_needs_and_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, needs in {"engines": "seatrial.optimize.sessions.engine", "suite": "pytest"}.items():
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, needs, None)
            with pytest.raises(MissingPartError, match=needs):
                import_module(f"scripts.gpu_sections.{module}").run(CPU)


def test_bars_are_the_paper_s_shares_and_unknown_for_another_card() -> None:
    met = ceilings.claims("NVIDIA H200", 4.3e12, 769e12)
    assert [claim.met for claim in met] == [True, True]
    assert [claim.met for claim in ceilings.claims("NVIDIA H200", 4.0e12, 700e12)] == [False, False]
    assert [claim.met for claim in ceilings.claims("NVIDIA H200", 4.3e12, None)] == [True, None]
    assert [claim.met for claim in ceilings.claims("NVIDIA H2000", 9e12, 9e15)] == [None, None]


def test_latency_is_judged_by_the_bars_and_unknown_where_a_figure_is_missing() -> None:
    seconds = {
        ("ResNet-50", "eager fp32", 128): 0.3,
        ("ResNet-50", "graph bf16", 128): 0.11,
        ("ResNet-50", "compile bf16", 128): 0.09,
        ("ResNet-50", "eager bf16", 1): 0.005,
        ("ResNet-50", "graph bf16", 1): 0.003,
        ("MiniLM-L6", "eager fp32", 32): 0.002,
    }
    times = {key: Times(device=each, wall=each, runs=5) for key, each in seconds.items()}
    found = latency.claims({"apart": 0.02}, times, 0.001)
    assert [claim.met for claim in found] == [False, True, False, True]
    assert [claim.met for claim in latency.claims({"apart": 0.002}, {}, None)] == [True, None, None, None]
    assert latency.copies(1 << 20, 50 << 20) == latency.MOST_COPIES
    assert latency.copies(20 << 20, 50 << 20) == 8


def test_memory_and_energy_are_judged_by_the_worst_and_the_integral() -> None:
    assert memory.judged([{"apart": 0.001}, {"apart": 0.03}]).met is False
    assert memory.judged([{"apart": 0.001}, {"apart": 0.02}]).met is True
    looks = [(0.0, 100.0), (1.0, 100.0), (3.0, 200.0)]
    assert energy.integral(looks) == 400.0
    assert [energy.judged(counted, 400.0).met for counted in (410.0, 300.0, 0.0, None)] == [True, False, None, None]
    assert [claim.met for claim in (at_least("", 1.0, 1.0), at_most("", 1.1, 1.0), at_most("", None, 1.0))] == [
        True,
        False,
        None,
    ]


@pytest.mark.parametrize(
    ("cases", "met"),
    [
        (["", ""], True),
        (["", '<skipped message="one GPU"/>'], True),
        (["", '<failure message="no"/>'], False),
        (['<error message="no"/>'], False),
        (['<skipped message="no GPU"/>'], None),
    ],
)
def test_tests_that_were_all_skipped_prove_nothing(cases: list[str], met: bool | None) -> None:
    text = "".join(f'<testcase classname="a" name="b{n}" time="0.1">{each}</testcase>' for n, each in enumerate(cases))
    found = suite.judged(ElementTree.fromstring(f"<testsuites><testsuite>{text}</testsuite></testsuites>"))
    assert found.claims[0].met is met
    assert len(found.rows) == len(cases)


RECORD: dict[str, Any] = {
    "schema": 1,
    "kind": "gpu",
    "device": "gpu",
    "at": "2026-12-02T10:00:00+00:00",
    "environment": {
        "python": "3.12.3",
        "commit": "abc",
        "gpus": [
            {"name": "NVIDIA H200", "driver_version": "580.1", "compute_cap": "9.0", "enforced.power.limit": "700.00"}
        ],
        "torch": {"version": "2.11.0+cu130", "cuda": "13.0", "cudnn": 91000},
    },
    "reasons": [],
    "sections": {
        "ceilings": claimed(True),
        "latency": claimed(None)
        | {
            "rows": [
                {"what": "A/A", "apart": 0.1},
                {"what": "N", "way": "w", "batch": 1, "device_seconds": 0.001, "wall_seconds": 0.002},
            ]
        },
        "memory": claimed() | {"status": "timeout", "reason": "longer | than"},
    },
    "finished": True,
    "exit_code": 3,
}


def test_the_section_is_written_from_the_record() -> None:
    text = page.section(RECORD, "gpu-1.json")
    assert text.startswith("## On a GPU\n\n`scripts/gpu`, 2026-12-02, NVIDIA H200, driver 580.1")
    assert "| ceilings | c | v | b | met |" in text
    assert "| memory | | timeout: longer / than | | could not tell |" in text
    assert "| N | w | 1 | 1.000 ms | 2.000 ms |" in text
    assert "Some could not be told." in text


def test_only_the_section_of_the_page_is_replaced() -> None:
    before = "# Figures\n\n## On a GPU\n\nold\n\n## Last\n\nkept\n"
    assert page.put(before, "## On a GPU\n\nnew\n") == "# Figures\n\n## On a GPU\n\nnew\n\n## Last\n\nkept\n"
    assert page.put("# Figures\n", "## On a GPU\n\nnew\n") == "# Figures\n\n## On a GPU\n\nnew\n"


def test_a_record_that_shows_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrongs: list[dict[str, Any]] = [
        {"device": "cpu"},
        {"kind": "other"},
        {"schema": 2},
        {"environment": {"gpus": []}},
        {"sections": None},
    ]
    for number, wrong in enumerate(wrongs):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(RECORD | wrong))
        assert page.main(["--from", str(file)]) == 2
        assert "Next: make one with scripts/gpu" in capsys.readouterr().err
    assert page.main(["--from", str(tmp_path / "gone.json")]) == 2


def test_the_page_says_what_the_newest_record_says_or_that_nothing_ran() -> None:
    file = page.newest(page.RECORDS)
    expected = page.section(read(file), file.name) if file else f"{page.HEAD}\n{page.NOTHING}"
    assert page.PAGE.read_text() == page.put(page.PAGE.read_text(), expected), "run scripts/benchmark-gpu --markdown"
    assert expected in page.PAGE.read_text()
