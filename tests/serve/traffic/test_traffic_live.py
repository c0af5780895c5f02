"""The live world's parts that need no server: what of a log is new, and a store without the artifact."""

import json
from pathlib import Path

from seatrial.optimize.store import Store
from seatrial.serve.traffic.envoy import access_log
from seatrial.serve.traffic.live import Following
from seatrial.serve.triton.proof.replaying import reference
from seatrial.serve.triton.repository.placement import Placement


def line(start: float) -> str:
    facts = {"start": str(start), "us": 1000, "status": 200, "model": "m", "version": "1", "role": "live"}
    return json.dumps(facts) + "\n"


def test_a_new_rollout_follows_the_log_from_its_end_and_a_resumed_one_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    assert access_log.end(log) == access_log.LogPosition()
    log.write_text(line(1.0))
    fresh, resumed = Following(log, access_log.end(log)), Following(log, access_log.LogPosition())
    with log.open("a") as stream:
        stream.write(line(2.0))
    assert [each.at for each in fresh()] == [2.0]
    assert [each.at for each in resumed()] == [1.0, 2.0]
    assert list(fresh()) == []


def test_a_version_whose_artifact_is_not_in_the_store_has_no_reference(tmp_path: Path) -> None:
    placement = Placement(name="m", version=1, digest="sha256:" + "0" * 64, backend="python", path=tmp_path)
    assert reference(placement, Store(tmp_path / "store")) is None
