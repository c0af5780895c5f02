import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seatrial.bench.verdict import EvaluationSet, Judged, Verdict
from seatrial.optimize.artifact import Artifact, Provenance
from seatrial.optimize.errors import ConfigError, IntegrityError, MachineError, MissingError
from seatrial.serve.errors import RegistryError
from seatrial.serve.release.registry import Registry


def artifact(name: str) -> Artifact:
    made = Provenance(
        stage="export", parent=None, config={}, recipe="", samples=None, seed=0, environment={}, at="2026"
    )
    return Artifact(name=name, format="onnx", files=(), inputs=(), outputs=(), requires={}, made_by=made)


def verdict(judged: Artifact, outcome: Any = "PASS") -> Verdict:
    return Verdict(
        outcome=outcome,
        findings=(),
        reasons=("because",),
        base=Judged(name="base", digest="sha256:a"),
        candidate=Judged(name="candidate", digest=judged.digest),
        pairs=6,
        confidence=0.9,
        budget="sha256:b",
        samples=EvaluationSet(count=0, digest=""),
        at="2026",
    )


ONE, TWO = artifact("one"), artifact("two")


def test_versions_count_up_and_the_same_artifact_keeps_its_number(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    assert registry.register("net", ONE, verdict(ONE), run=tmp_path).version == 1
    assert registry.register("net", TWO, verdict(TWO), run=tmp_path).version == 2
    assert registry.register("net", ONE, verdict(ONE), run=tmp_path).version == 1
    assert registry.get("net").digest == TWO.digest
    assert registry.get("net@1").digest == ONE.digest
    assert [release.label for release in registry.releases("net")] == ["net@1", "net@2"]


@pytest.mark.parametrize(("outcome", "code"), [("FAIL", 1), ("INCONCLUSIVE", 3), ("INVALID", 4)])
def test_only_a_pass_is_registered(tmp_path: Path, outcome: str, code: int) -> None:
    with pytest.raises(RegistryError, match=outcome) as caught:
        Registry(tmp_path).register("net", ONE, verdict(ONE, outcome), run=tmp_path)
    assert caught.value.exit_code == code
    assert Registry(tmp_path).releases("net") == ()


def test_a_verdict_about_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="not to one@"):
        Registry(tmp_path).register("net", ONE, verdict(TWO), run=tmp_path)


def test_records_are_read_only_and_a_change_breaks_the_chain(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    for each in (ONE, TWO, artifact("three")):
        registry.register("net", each, verdict(each), run=tmp_path)
    record = tmp_path / "net" / "1.json"
    assert record.stat().st_mode & 0o222 == 0
    record.chmod(0o644)
    record.write_text(record.read_text().replace("because", "just because"))
    with pytest.raises(IntegrityError, match="the record of net@1 differs from the registered one"):
        registry.get("net")
    shutil.rmtree(tmp_path / ".copies")  # as an earlier version kept it
    with pytest.raises(IntegrityError, match="before version 2"):
        registry.get("net")


def test_a_missing_release_says_what_there_is(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.register("net", ONE, verdict(ONE), run=tmp_path)
    with pytest.raises(MissingError, match="there is no release 'other'") as missing:
        registry.get("other")
    assert missing.value.next_step == "register one first; known: net"
    with pytest.raises(MissingError):
        registry.get("net@9")


def test_an_unwritable_registry_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="SEATRIAL_HOME"):
        Registry(tmp_path / "file" / "releases").register("net", ONE, verdict(ONE), run=tmp_path)


def test_a_release_is_a_value(tmp_path: Path) -> None:
    release = Registry(tmp_path).register("net", ONE, verdict(ONE), run=tmp_path)
    assert replace(release) == Registry(tmp_path).get("net@1")


@pytest.mark.parametrize("name", ["../../x", "a/b", "/etc/x", "", ".", "-x", "x\n", "x" * 128, "\x1b[31m"])
def test_no_release_name_leaves_the_registry(name: str, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "deep" / "releases")
    with pytest.raises(ConfigError, match="invalid release name"):
        registry.register(name, ONE, verdict(ONE), run=tmp_path)
    with pytest.raises(ConfigError, match="invalid release name"):
        registry.get(f"{name}@1")
    assert not list(tmp_path.iterdir())
