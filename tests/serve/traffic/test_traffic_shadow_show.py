"""What a shadow comparison looks like: the table, the page, the verb and its exit codes."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from seatrial.bench.load.messages import tensor_bytes
from seatrial.serve.cli import app
from seatrial.serve.traffic.shadow import show
from seatrial.serve.traffic.shadow.agreement import AgreementLimits, agreement
from seatrial.serve.traffic.shadow.differing import Differing, differing


def line(request: str, version: int, y: Any) -> str:
    """A line of a capture's log, as the proxy writes it."""
    raw = tensor_bytes(y)
    output = {"name": "y", "datatype": "FP32", "shape": list(y.shape), "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"model_name": "net", "model_version": str(version), "outputs": [output]}).encode()
    return json.dumps(
        {
            "id": request,
            "at": "1.5",
            "status": 200,
            "flags": "-",
            "header_length": str(len(head)),
            "kept": "whole",
            "body": base64.b64encode(head + raw).decode(),
        }
    )


def capture(folder: Path, count: int, *, wrong: int = 0, lost: int = 0) -> Path:
    """A capture's folder: the last answers of the candidate wrong, and some never there."""
    right, other = np.array([[0.2, 0.8]], np.float32), np.array([[0.7, 0.3]], np.float32)
    folder.mkdir()
    (folder / "stable.log").write_text("".join(line(f"r{n}", 1, right) + "\n" for n in range(count + lost)))
    answers = [other if n >= count - wrong else right for n in range(count)]
    (folder / "candidate.log").write_text("".join(line(f"r{n}", 2, y) + "\n" for n, y in enumerate(answers)))
    return folder


@pytest.mark.parametrize(
    ("count", "wrong", "lost", "code"), [(900, 0, 0, 0), (300, 40, 0, 1), (50, 0, 0, 3), (900, 0, 400, 3)]
)
@pytest.mark.slow
def test_the_verb_joins_judges_and_leaves_with_the_verdict(
    tmp_path: Path, count: int, wrong: int, lost: int, code: int
) -> None:
    folder = capture(tmp_path / "capture", count, wrong=wrong, lost=lost)
    page = tmp_path / "page.html"
    told = CliRunner().invoke(app, ["shadow", "report", str(folder), "--html", str(page), "--json"])
    assert told.exit_code == code, told.output
    value = json.loads(told.stdout)
    assert (value["compared"], value["sampled"]) == (count, count + lost)
    assert value["schema"] == 1
    assert value["outcome"] in page.read_text()
    for person in (folder, folder / "stable.log"):
        shown = CliRunner().invoke(app, ["shadow", "report", str(person)])
        assert shown.exit_code == code
        assert value["outcome"] in shown.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["gone"],
        ["CAPTURE", "--top1", "1"],
        ["CAPTURE", "--alpha", "0"],
        ["CAPTURE", "--compared", "2"],
        ["CAPTURE", "--limits", "gone.toml"],
    ],
)
def test_wrong_usage_is_exit_code_2(tmp_path: Path, arguments: list[str]) -> None:
    folder = capture(tmp_path / "capture", 3)
    given = [str(folder) if each == "CAPTURE" else each for each in arguments]
    assert CliRunner().invoke(app, ["shadow", "report", *given]).exit_code == 2


def test_each_output_may_have_limits_of_its_own(tmp_path: Path) -> None:
    folder, file = capture(tmp_path / "capture", 300, wrong=40), tmp_path / "limits.toml"
    for table, code in (("[outputs.y]\ntop1_at_least = 0.5", 0), ("[outputs.z]\ntop1_at_least = 0.5", 1)):
        file.write_text(f"schema = 1\n{table}\n")
        told = CliRunner().invoke(app, ["shadow", "report", str(folder), "--limits", str(file)])
        assert told.exit_code == code, told.output
    for wrong in (
        "schema = 2\n[outputs.y]\n",
        "schema = 1\n[outputs.y]\ntop2_at_least = 1\n",
        "schema = 1\n[outputs]\n",
    ):
        file.write_text(wrong)
        assert CliRunner().invoke(app, ["shadow", "report", str(folder), "--limits", str(file)]).exit_code == 2


def test_other_versions_are_set_aside(tmp_path: Path) -> None:
    folder = capture(tmp_path / "capture", 900)
    told = CliRunner().invoke(app, ["shadow", "report", str(folder), "--candidate", "3", "--json"])
    assert told.exit_code == 3
    assert sum(json.loads(told.stdout)["aside"].values()) == 900


def test_everything_that_may_be_there_is_shown(tmp_path: Path) -> None:
    right, wrong = np.array([[0.2, 0.8], [0.9, 0.1]]), np.array([[0.2, 0.8], [0.4, 0.6]])
    found: list[Differing] = []
    for number in range(40):
        answer = {"y": wrong if number % 4 == 0 else right, "label": np.array([number % 4, 1])}
        found += differing({"y": right, "label": np.array([1, 1])}, answer, request=f"r<{number}>", at=float(number))
    found += differing({"y": right}, {"y": right * np.nan}, request="broken")
    limits = {"*": AgreementLimits(cosine_at_least=0.5, drift_at_most=0.5)}
    verdict = agreement(found, limits, unmatched={"late": 3}, aside={"twice": 2})
    console = Console(width=140, record=True, file=(tmp_path / "table").open("w"))
    show.print_agreement(verdict, console)
    text = console.export_text()
    for said in ("FAIL", "NaN", "top-1", "cosine", "confidence drift", "max error", "because late", "because twice"):
        assert said in text
    show.write_html(tmp_path / "page.html", verdict, found, title="T")
    page = (tmp_path / "page.html").read_text()
    assert "r&lt;0&gt;" in page
    assert "class 1 (0.6) instead of 0 (0.9) in row 1" in page
    show.write_html(tmp_path / "empty.html", agreement([], {}), [], title="nothing")
    assert "no request was compared yet" in (tmp_path / "empty.html").read_text()
