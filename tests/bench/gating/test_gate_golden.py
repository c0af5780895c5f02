"""A gate's folder as an earlier version wrote it: it opens, judges the same, and is written again byte by byte."""

import json
import shutil
from pathlib import Path

from seatrial.bench.budget import Budget
from seatrial.bench.gating import pairs
from seatrial.bench.gating.gate import read_verdict, rejudge

GOLDEN = Path(__file__).parent.parent.parent / "golden/runs/gate"


def test_a_stored_run_is_judged_as_it_was(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "gate")
    stored = json.loads((GOLDEN / "verdict.json").read_text())
    assert stored["outcome"] == "INCONCLUSIVE"
    assert read_verdict(tmp_path / "gate").to_json() == stored
    assert rejudge(tmp_path / "gate").to_json() == stored
    assert (tmp_path / "gate/verdict.json").read_bytes() == (GOLDEN / "verdict.json").read_bytes()


def test_a_stored_run_is_written_as_it_was(tmp_path: Path) -> None:
    run = pairs.read_run(GOLDEN)
    pairs.write_header(tmp_path, run.header)
    for record in run.records:
        pairs.write_record(tmp_path, record)
    for path in (GOLDEN / "run.json", *GOLDEN.glob("slot-*.json")):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert len(list(tmp_path.glob("slot-*.json"))) == len(run.records) == 8


def test_a_stored_budget_keeps_its_digest() -> None:
    stored = json.loads((GOLDEN / "run.json").read_text())["budget"]
    digest = "sha256:4ea25a3ef889ee49dc257d63856ce2835b587460e69676a2463e54da88666fa1"
    assert Budget.from_json(stored).digest == json.loads((GOLDEN / "verdict.json").read_text())["budget"] == digest
