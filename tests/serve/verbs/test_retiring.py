"""Retirement and the catalogue: nothing in use goes, a kill at any step is gone on from, orphans are named."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from seatrial.optimize.artifact import Artifact, File
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Deployment
from seatrial.serve.release import catalogue, lifecycle, tombstone
from seatrial.serve.release.trail import Entry
from seatrial.serve.release.trail_file import TrailFile
from seatrial.serve.traffic.rollout.machine import Phase, Rollout
from seatrial.serve.traffic.rollout.plan import load_plan
from seatrial.serve.traffic.rollout.records import Records
from seatrial.serve.triton.repository import placing
from seatrial.serve.triton.repository.placement import placements
from seatrial.serve.verbs import retiring
from tests.support import placed
from tests.support.built import ROOT
from tests.support.commands import within

PLAN = load_plan(ROOT / "serve" / "rollouts" / "quick.toml")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two versions of ``python``, of which the second is served, and an ensemble over the first."""
    monkeypatch.setenv("SEATRIAL_HOME", str(tmp_path / "home"))
    placed.put(tmp_path)
    store = Store(tmp_path / "store")
    (tmp_path / "next").mkdir()
    (tmp_path / "next" / "model.onnx").write_bytes(b"other graph")
    (old,) = store.all()
    changed = {name: getattr(old, name) for name in ("name", "format", "inputs", "outputs", "requires", "made_by")}
    new = Artifact(**changed, files=(File.of(tmp_path / "next" / "model.onnx"),))
    store.put(new, tmp_path / "next")
    deployment = Deployment(schema=1, name="python", max_batch_size=8)
    placing.place(new, deployment, store=store, repository=tmp_path / "models", elsewhere=True)
    placing.choose(tmp_path / "models", "python", (2,))
    return tmp_path


def retire(home: Path, version: int, *more: str) -> tuple[int, str]:
    done = within("retire", "python", str(version), "--repository", str(home / "models"), *more)
    return done.exit_code, " ".join(done.output.split())


def trail(home: Path) -> list[Entry]:
    return [*TrailFile(home / "home" / "trail").entries()]


def test_a_version_that_nothing_uses_goes_and_leaves_a_tombstone(home: Path) -> None:
    digest = placements(home / "models", "python")[0].digest
    code, said = retire(home, 1, "--reason", "replaced", "--replacement", "python@2")
    assert (code, "is retired; 1 versions are left" in said) == (0, True)
    assert [each.version for each in placements(home / "models", "python")] == [2]
    buried = tombstone.Tombstone.of(home / "home", "python", 1)
    assert buried is not None
    assert (buried.digest, buried.reason, buried.replacement) == (digest, "replaced", "python@2")
    assert "max_batch_size" in buried.config
    (entry,) = trail(home)
    assert (entry.event, entry.subject, entry.details["left"]) == ("retired", digest, 1)
    assert retire(home, 1)[0] == 0
    assert len(trail(home)) == 1


def test_a_served_version_is_refused_and_nothing_is_written(home: Path) -> None:
    code, said = retire(home, 2)
    assert code == 2
    assert "is in use: config.pbtxt serves it" in said
    assert len(placements(home / "models", "python")) == 2
    assert not (home / "home" / "retired").exists()
    assert trail(home) == []
    assert retire(home, 7)[0] == 2


def test_the_last_version_that_an_ensemble_needs_is_refused(home: Path) -> None:
    assert "the ensemble both needs the model" in retire(home, 2)[1]


def rollout(phase: Phase) -> Callable[[Path], None]:
    def write(home: Path) -> None:
        made = Rollout(model="python", stable=1, candidate=2, digest="sha256:1", plan=PLAN, started=1.0)
        records = Records(home / "home" / "rollouts", "python")
        records.start(made)
        records.save(Rollout(**{name: getattr(made, name) for name in made.__slots__} | {"phase": phase}))

    return write


@pytest.mark.parametrize(
    ("phase", "said", "without_return"),
    [
        (Phase.STEP, "a rollout from 1 to 2 is not over", False),
        (Phase.PROMOTED, "the rollout to 2 would go back to it", True),
        (Phase.ROLLED_BACK, "", True),
    ],
)
def test_what_a_rollout_needs_is_refused(home: Path, phase: Phase, said: str, without_return: bool) -> None:
    rollout(phase)(home)
    code, output = retire(home, 1)
    assert (code == 2, said in output) == (bool(said), True)
    if said:
        assert retire(home, 1, "--without-return")[0] == (0 if without_return else 2)


class Killed(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("step", ["bury", "retiring", "enter"])
@pytest.mark.parametrize("after", [False, True])
def test_a_retirement_killed_at_any_step_is_gone_on_from(
    home: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    from seatrial.serve.release import entering

    module, name = {
        "bury": (tombstone, "bury"),
        "retiring": (placing, "retire"),
        "enter": (entering, "enter"),
    }[step]
    real = getattr(module, name)

    def killed(*words: Any, **options: Any) -> None:
        if after:
            real(*words, **options)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(module, name, killed)
        with pytest.raises(Killed):
            retiring.retire("python", 1, repository=home / "models", reason="first")
    assert retire(home, 1, "--reason", "second")[0] == 0
    assert [each.version for each in placements(home / "models", "python")] == [2]
    assert [each.event for each in trail(home)] == ["retired"]
    buried = tombstone.Tombstone.of(home / "home", "python", 1)
    assert buried is not None
    assert buried.reason == ("second" if step == "bury" and not after else "first")


def shown(home: Path, *more: str) -> tuple[int, Any]:
    done = within("catalogue", "--repository", str(home / "models"), "--json", *more)
    return done.exit_code, json.loads(done.stdout)


def test_the_catalogue_names_state_versions_and_orphans(home: Path) -> None:
    shares = [{"version": 2, "digest": "sha256:2", "share": 1.0}]
    TrailFile(home / "home" / "trail").append("switched", model="python", actor="a", details={"shares": shares})
    TrailFile(home / "home" / "trail").append("switched", model="gone", actor="a", details={"shares": shares})
    code, found = shown(home)
    assert code == 0
    lines = {each["name"]: each for each in found["models"]}
    assert (lines["python"]["state"], lines["python"]["serving"]) == ("monitoring", [[2, 1.0]])
    assert lines["python"]["placed"] == [1, 2]
    (home / "models" / "foreign" / "1").mkdir(parents=True)
    (home / "models" / "foreign" / "config.pbtxt").write_text('name: "foreign"')
    code, found = shown(home, "--orphans")
    said = [f"{each['model']}: {each['what']}" for each in found["orphans"]]
    assert code == 1
    assert any(each.startswith("python: version 2 is served, and its artifact") for each in said)
    assert "foreign: placed without a record of seatrial's" in said
    assert any(each.startswith("gone: by the trail it is served") for each in said)


def test_backstage_gets_an_entity_for_each_model(home: Path) -> None:
    assert shown(home, "--backstage", str(home / "catalog-info.yaml"))[0] == 0
    entities = [*yaml.safe_load_all((home / "catalog-info.yaml").read_text())]
    assert {each["metadata"]["name"] for each in entities} == {"python", "native", "both"}
    assert all(each["kind"] == "Component" and each["spec"]["owner"] for each in entities)


def entries(*acts: tuple[str, dict[str, Any]]) -> Iterator[Entry]:
    for seq, (event, details) in enumerate(acts, start=1):
        yield Entry(seq=seq, at="2026-12-01", event=event, actor="a", model="net", details=details)  # type: ignore[arg-type]


ONE: dict[str, Any] = {"shares": [{"version": 1, "digest": "", "share": 1.0}]}
TWO: dict[str, Any] = {"shares": [*ONE["shares"], {"version": 2, "digest": "", "share": 0.1}]}


@pytest.mark.parametrize(
    ("acts", "state"),
    [
        ([], "proposal"),
        ([("gated", {})], "development"),
        ([("registered", {})], "validation"),
        ([("registered", {}), ("placed", {})], "deployment"),
        ([("registered", {}), ("placed", {}), ("switched", ONE)], "monitoring"),
        ([("placed", {}), ("switched", ONE), ("switched", TWO)], "deployment"),
        ([("placed", {}), ("switched", ONE), ("rollout", {"phase": "started"})], "deployment"),
        ([("placed", {}), ("rollout", {"phase": "started"}), ("rollout", {"phase": "rolled_back"})], "monitoring"),
        ([("placed", {}), ("switched", ONE), ("retired", {"left": 1})], "monitoring"),
        ([("placed", {}), ("switched", ONE), ("retired", {"left": 0})], "retirement"),
        ([("retired", {"left": 0})], "proposal"),
        ([("placed", {}), ("retired", {"left": 0}), ("registered", {})], "validation"),
        ([("placed", {}), ("contested", {})], "deployment"),
    ],
)
def test_the_state_follows_from_the_entries(acts: list[tuple[str, dict[str, Any]]], state: str) -> None:
    assert lifecycle.state_of(entries(*acts)) == state


def test_the_table_leads_from_known_states_to_known_states() -> None:
    assert set(lifecycle.TABLE) == set(lifecycle.STATES)
    for row in lifecycle.TABLE.values():
        assert set(row) <= set(lifecycle.ACTS)
        assert set(row.values()) <= set(lifecycle.STATES)
    reached = {"proposal"} | {state for row in lifecycle.TABLE.values() for state in row.values()}
    assert reached == set(lifecycle.STATES)


def test_a_model_without_an_owner_is_an_orphan() -> None:
    version = catalogue.PlacedVersion(model="net", version=1, digest="sha256:1")
    lines = catalogue.catalogue({}, {}, [version], [])
    assert [each.what for each in catalogue.orphans(lines, {}, [version])][-1] == "it is placed, and has no owner"
