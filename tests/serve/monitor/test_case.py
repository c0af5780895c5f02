"""Single cases: replayed on the artifact that answered, explained, contested; another artifact and gaps are refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seatrial.optimize.artifact import Artifact, File, TensorSpec
from seatrial.optimize.store import Store
from seatrial.serve.monitor.captured.on_vault import Vault
from seatrial.serve.monitor.captured.policy import Capture, Kept
from seatrial.serve.monitor.captured.replay import compared
from seatrial.serve.monitor.captured.rows import Captured, rows
from tests.support.commands import within
from tests.support.linear import linear
from tests.support.made_by import MADE_BY

FIELDS = {f"f{at}": Kept(keep="allow", tensor="x", index=at) for at in range(8)}
CAPTURE = Capture(fields={**FIELDS, "y": Kept(keep="allow", side="output")})


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    linear(tmp_path / "model.onnx")
    made = Artifact(
        name="linear",
        format="onnx",
        files=(File.of(tmp_path / "model.onnx"),),
        inputs=(TensorSpec(name="x", dtype="float32", shape=("n", 8)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 4)),),
        requires={},
        made_by=MADE_BY,
    )
    return Store(tmp_path / "home" / "store").put(made, tmp_path)


def weights() -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)


def record(home: Path, digest: str, capture: Capture = CAPTURE, *, wrong: float = 0.0) -> None:
    """Thirty requests of two samples, answered by the weights."""
    vault, random, found = Vault(model="linear", home=home / "watch" / "linear"), np.random.default_rng(0), []
    secret = vault.secret(make=True)
    for number in range(30):
        x = random.normal(size=(2, 8)).astype(np.float32)
        one = Captured(request=f"r{number}", at=1e9 + number, version=1, digest=digest, status=200, inputs={"x": x})
        found += rows(replace(one, outputs={"y": x @ weights() + np.float32(wrong)}), capture, secret.hashing)
    failed = Captured(request="lost", at=1e9, version=None, digest=digest, status=503, reason="failed: timeout")
    vault.seal([*found, *rows(failed, capture, secret.hashing)], capture, secret)


@pytest.mark.slow
def test_the_artifact_that_answered_answers_the_same_again(tmp_path: Path, artifact: Artifact) -> None:
    home = tmp_path / "home"
    record(home, artifact.digest)
    for number in range(30):
        done = within("case", "linear", f"r{number}", "--json", home=home)
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        assert told["equal"]
        assert told["outputs"][0]["error"] < 1e-5
        assert {each["field"] for each in told["effects"]} == set(FIELDS)


def test_effects_and_counterfactuals_are_those_of_the_weights(tmp_path: Path, artifact: Artifact) -> None:
    home = tmp_path / "home"
    record(home, artifact.digest)
    flips = 0
    for number in range(5):
        told = json.loads(within("case", "linear", f"r{number}", "--json", home=home).stdout)
        x = np.random.default_rng(0).normal(size=(30, 2, 8)).astype(np.float32)[number][0]
        top = int((x @ weights()).argmax())
        for each in told["effects"]:
            at = int(each["field"][1:])
            assert each["value"] == pytest.approx(float(x[at]))
            assert each["effect"] == pytest.approx((x[at] - each["usual"]) * weights()[at, top], abs=1e-3)
            if each["flips_at"] is not None:
                flips += 1
                changed = x.copy()
                changed[at] = each["flips_at"]
                assert int((changed @ weights()).argmax()) != top
                changed[at] += 0.01 * (x[at] - each["usual"])
                assert int((changed @ weights()).argmax()) == top
    assert flips


def test_another_answer_than_the_captured_one_is_told(tmp_path: Path, artifact: Artifact) -> None:
    record(tmp_path / "home", artifact.digest, wrong=0.01)
    done = within("case", "linear", "r3", home=tmp_path / "home")
    assert done.exit_code == 1
    assert "different" in done.output


@pytest.mark.parametrize(
    ("digest", "arguments", "why"),
    [
        ("", ("r1",), "not known which artifact answered"),
        ("sha256:" + "1" * 64, ("r1",), "not in the store any more"),
        ("mine", ("r1", "--digest", "sha256:" + "2" * 64), "another artifact answered"),
        ("mine", ("r99",), "not among the captured ones"),
        ("mine", ("../x",), "no id of a request"),
        ("mine", ("lost",), "no content of this request: failed: timeout"),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    tmp_path: Path, artifact: Artifact, digest: str, arguments: tuple[str, ...], why: str
) -> None:
    record(tmp_path / "home", artifact.digest if digest == "mine" else digest)
    done = within("case", "linear", *arguments, home=tmp_path / "home")
    assert done.exit_code == 2
    assert why in " ".join(done.output.split())


@pytest.mark.parametrize("keep", ["drop", "hash", "mask"])
def test_a_request_whose_policy_did_not_keep_an_input_is_refused(tmp_path: Path, artifact: Artifact, keep: str) -> None:
    fields = {**CAPTURE.fields, "f3": Kept(keep=keep, tensor="x", index=3)}  # type: ignore[arg-type]
    record(tmp_path / "home", artifact.digest, Capture(fields=fields))
    done = within("case", "linear", "r1", home=tmp_path / "home")
    assert done.exit_code == 2
    assert "the policy does not keep f3 of 'x' as they are" in " ".join(done.output.split())


def test_a_contest_opens_a_review_that_is_listed(tmp_path: Path, artifact: Artifact) -> None:
    home = tmp_path / "home"
    record(home, artifact.digest)
    for text in ("the income is wrong", "again"):
        assert within("case", "linear", "r1", "--contest", text, home=home).exit_code == 0
    told = json.loads(within("case", "linear", "--list", "--json", home=home).stdout)
    assert [(each["request"], each["contest"], each["state"]) for each in told] == [
        ("r1", "the income is wrong", "open"),
        ("r1", "again", "open"),
    ]
    assert told[0]["replay"]["equal"]
    assert within("case", "linear", "r1", "--contest", " ", home=home).exit_code == 2


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_replay_is_held_against_the_answer_s_own_size(scale: float) -> None:
    answer = np.array([[1.0, 2.0], [np.nan, -np.inf]], np.float32) * np.float32(scale)
    (same,) = compared({"y": answer}, {"y": answer.copy()}, coarse=False)
    assert same.error <= same.tolerance
    for at, factor in (((0, 0), 1.3), ((0, 1), 0.0)):
        other = answer.copy()
        other[at] *= np.float32(factor)
        (found,) = compared({"y": answer}, {"y": other}, coarse=True)
        assert found.error > found.tolerance
    moved = answer[::-1].copy()
    assert compared({"y": answer}, {"y": moved}, coarse=True)[0].error == float("inf")
