"""Stored forms of the records of serve: what an earlier version wrote is read, and is written as it was."""

import json
import shutil
from math import nan
from pathlib import Path
from typing import Any

import pytest

from seatrial.bench.capacity.slo import Slo
from seatrial.optimize.artifact import canonical
from seatrial.optimize.breach import Breach
from seatrial.optimize.errors import IntegrityError
from seatrial.serve.deployment import Broken
from seatrial.serve.plan.choose import BatchPlan
from seatrial.serve.plan.curve import Curve, Executions, Window
from seatrial.serve.plan.profile import BatchProfile
from seatrial.serve.plan.queueing import Prediction
from seatrial.serve.plan.setting import Layout, Setting
from seatrial.serve.plan.trial import Pair, Trial, standing
from seatrial.serve.plan.tune import Tuned
from seatrial.serve.plan.verify import Verified
from seatrial.serve.release.record import Release, read_release, record_bytes
from seatrial.serve.security.finding import Audit
from seatrial.serve.traffic.envoy.proxy import Proxy
from seatrial.serve.traffic.rollout.blocks import Arm, Block, Thresholds
from seatrial.serve.traffic.rollout.machine import Event, Phase
from seatrial.serve.traffic.rollout.records import Records
from seatrial.serve.traffic.shadow.agreement import Agreement, Statistic
from seatrial.serve.triton.repository.journal import Entry, Failure
from seatrial.serve.triton.repository.placement import PlacementRecord, UsedNumbers, stored
from seatrial.serve.triton.server import Server

GOLDEN = Path(__file__).parents[1] / "golden" / "records"
LAYOUT = Layout(instances=2, threads=1)
SETTING = Setting(max_batch=8, delay_us=200, layout=LAYOUT)
OTHER = Setting(max_batch=4, delay_us=0, layout=LAYOUT)
TRIAL = Trial(
    number=1,
    setting=OTHER,
    against=SETTING,
    predicted=0.125,
    pairs=(Pair(candidate=120.0, best=100.0, swapped=True), Pair(candidate=110.0, best=100.5, swapped=False)),
)
WINDOW = Window(
    layout=LAYOUT,
    round=0,
    concurrency=1,
    rows=1,
    seconds=1.5,
    completed=3,
    executions=(Executions(size=1, count=3, seconds=0.5),),
    latencies=(0.125, 0.25),
)
PREDICTION = Prediction(
    rate=50.0,
    quantile=0.99,
    p50=0.5,
    p99=0.75,
    tail=0.75,
    over=0.0,
    utilisation=0.5,
    throughput=50.0,
    sizes={1: 0.25, 8: 0.75},
)
THRESHOLDS = Thresholds(p95=0.5, p99=0.75, requests=500, typical={"a": 1.5})
READ: dict[str, Any] = {
    "curve": Curve(subject="sha256:" + "a" * 64, largest=8, cores=2, windows=(WINDOW,), environment={"cpu": "x"}),
    "trial": TRIAL,
    "server": Server(
        pid=7,
        started=8,
        http_port=1,
        grpc_port=2,
        metrics_port=3,
        repository=Path("/r"),
        log=Path("/l"),
        scratch=Path("/s"),
        shm_prefix="p",
        models=("m",),
        foreign=("f",),
    ),
    "proxy": Proxy(pid=7, started=8, port=1, folder=Path("/f"), sockets=Path("/s")),
    "switch": Entry(
        model="m",
        state="applied",
        before=(1,),
        after=(1, 2),
        at="2026-01-01",
        digests={2: "sha256:" + "a" * 64},
        failures={"sha256:" + "b" * 64: Failure(tries=2, reason="r")},
    ),
    "block": Block(
        until=12.5,
        step=1,
        candidate=Arm(requests=3, answered=2, log_seconds=-1.5, errors=1, groups={"": (1, 2, 3, 4, 5)}),
        baseline=Arm(requests=4, answered=4, matched=3, measured=2),
    ),
}
WRITTEN: dict[str, Any] = {
    "batch-plan": BatchPlan(
        setting=SETTING,
        rate=50.0,
        slo=Slo.parse("p99<=20ms"),
        prediction=PREDICTION,
        tail=(0.01, 0.015),
        sustains=80.0,
        profile=BatchProfile(low=1, opt=4, high=8),
        overhead=None,
        considered=12,
        notes=("n",),
    ),
    "verified": Verified(
        rate=50.0,
        seconds=10.0,
        answered=500,
        p50=0.5,
        p99=nan,
        tail=0.75,
        over=0.0,
        effective=7.5,
        sizes={8: 1.0},
        apart=0.25,
        missed=0.0,
        within=True,
        met=False,
        breaches=("b",),
    ),
    "tuned": Tuned(start=SETTING, state=standing(SETTING, [TRIAL]), stopped="spent"),
    "audit": Audit(
        target="t",
        findings=(Breach(rule="r", severity="high", where="w", found="s", why="y", fix="m"),),
        looked=("l",),
        unseen=("u",),
    ),
    "lint-finding": Broken(severity="error", file="f", field="d", rule="r", fix="m", line=3, effect="ends"),
    "shadow": Agreement(
        outcome="INCONCLUSIVE",
        reasons=("r",),
        sampled=9,
        compared=8,
        unmatched={"late": 1},
        aside={},
        broken=0,
        statistics=(
            Statistic(
                output="y", name="n", requests=8, value=0.5, low=0.25, high=0.75, outcome="INCONCLUSIVE", needed=12
            ),
        ),
        worst=(),
        alpha=0.05,
    ),
}


def form(name: str) -> Any:
    """Return what an earlier version wrote."""
    return json.loads((GOLDEN / f"{name}.json").read_text())


@pytest.mark.parametrize("name", [*READ, *WRITTEN])
def test_a_record_is_written_as_it_was(name: str) -> None:
    written = (READ | WRITTEN)[name].to_json()
    assert written == form(name)  # equal, and plain JSON values
    canonical(written)


@pytest.mark.parametrize("name", READ)
def test_a_record_of_an_earlier_version_is_read(name: str) -> None:
    assert type(READ[name]).from_json(form(name)) == READ[name]


@pytest.mark.parametrize("name", ["curve", "trial", "server", "proxy", "switch", "block", "release"])
def test_damage_names_the_field(name: str) -> None:
    kind, known = (Release if name == "release" else type(READ[name])), form(name)
    optional = {"schema", "kind", "foreign", "models", "at", "digests", "failures", "tails"}
    for key in known.keys() - {"environment", "verdict"}:
        wrong = known | {key: {"x": {}}} if key not in ("schema", "kind") else known | {"extra": 1}
        with pytest.raises(IntegrityError):
            kind.from_json(wrong)
        if key not in optional | {"verdict"}:
            with pytest.raises(IntegrityError, match=key):
                kind.from_json({name: value for name, value in known.items() if name != key})
    if "schema" in known:
        with pytest.raises(IntegrityError, match="schema 99"):
            kind.from_json(known | {"schema": 99})


def test_a_server_of_an_earlier_release_vouches_for_nothing() -> None:
    known = form("server")
    del known["foreign"]
    assert Server.from_json(known).foreign == ()


def test_a_release_of_an_earlier_version_is_read_and_keeps_its_bytes() -> None:
    data = (GOLDEN / "release.json").read_bytes().strip()
    assert record_bytes(read_release(data, "net", 2)) == data


def test_a_rollout_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    home = tmp_path / "rollouts"
    shutil.copytree(GOLDEN.parent / "rollouts", home)
    records = Records(home, "net")
    found, log = records.load(), records.log()
    assert (found.phase, found.candidate, found.plan.block_requests) == (Phase.LOADING, 2, 2)
    assert log.thresholds == THRESHOLDS
    assert log.blocks == (READ["block"],)
    entry = log.entries[0]
    assert (entry.before.phase, entry.after, entry.decision.event) == (Phase.PENDING, found, Event.READY)
    assert entry.observation.golden is not None
    assert records.intents() == [Event.PAUSE]
    assert list(records.blocked().values()) == ["worse"]
    again = Records(tmp_path / "again", "net")
    again.start(entry.before)
    again.learnt(THRESHOLDS)
    again.counted(READ["block"])
    again.decided(entry)
    again.save(found)
    folder = home / "net" / "2-1700000000.000"
    for name in ("log.jsonl", "rollout.json"):
        lines = [(each / name).read_text().splitlines() for each in (folder, tmp_path / "again" / "net" / folder.name)]
        assert [json.loads(line) for line in lines[0]] == [json.loads(line) for line in lines[1]]


@pytest.mark.parametrize("key", ["backend", "flavour"])
def test_a_placement_without_its_files_is_read(tmp_path: Path, key: str) -> None:
    version = tmp_path / "net" / "3"
    version.mkdir(parents=True)
    record = {"schema": 1, "name": "net", "version": 3, "digest": "sha256:" + "a" * 64, key: "native"}
    (version / "placement.json").write_text(json.dumps(record))
    read = stored(PlacementRecord, version / "placement.json")
    assert (read.files, read.backend) == (None, "native")
    (tmp_path / ".seatrial.json").write_text('{"schema":1,"highest":{"net":3}}')
    assert dict(stored(UsedNumbers, tmp_path / ".seatrial.json").highest) == {"net": 3}
