from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.artifact import Artifact, File, Provenance, TensorSpec, canonical, digest_bytes, digest_file
from seatrial.optimize.errors import ConfigError, IntegrityError

PROVENANCE = Provenance(
    stage="export",
    parent=None,
    config={},
    recipe="sha256:0",
    samples=None,
    seed=7,
    environment={"cpu": "x"},
    at="2026-01-01",
)
ARTIFACT = Artifact(
    name="net",
    format="onnx",
    files=(File(path="model.onnx", digest=digest_bytes(b"abc"), size=3),),
    inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 3)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 2)),),
    requires={"cpu_flags_any": ["avx2"]},
    made_by=PROVENANCE,
)


def test_json_round_trip_keeps_the_digest() -> None:
    again = Artifact.from_json(ARTIFACT.to_json())
    assert again == ARTIFACT
    assert again.digest == ARTIFACT.digest


def test_the_digest_is_of_the_content_not_of_the_making() -> None:
    later = replace(ARTIFACT, made_by=replace(PROVENANCE, at="2027-01-01", environment={"cpu": "y"}))
    assert later.digest == ARTIFACT.digest
    assert replace(ARTIFACT, requires={}).digest != ARTIFACT.digest


@given(st.dictionaries(st.text(), st.integers()))
def test_canonical_does_not_depend_on_order(value: dict[str, int]) -> None:
    assert canonical(value) == canonical(dict(reversed(value.items())))


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", ""])
def test_a_file_may_not_leave_the_artifact(path: str) -> None:
    with pytest.raises(ConfigError):
        File(path=path, digest="sha256:0", size=0)


def test_another_schema_is_refused() -> None:
    with pytest.raises(IntegrityError, match="schema"):
        Artifact.from_json(ARTIFACT.to_json() | {"schema": 99})


def test_file_and_bytes_digest_alike(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc" * 1_000_000)
    assert digest_file(path) == digest_bytes(b"abc" * 1_000_000)
