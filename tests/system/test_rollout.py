"""Rollouts for real: the controller moves a real Envoy and a real Triton under load, and what is worse goes back."""

import json
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from scripts.benchmarks.trial import NAME, PLAN, Asking, up
from seatrial.serve.cli import app
from seatrial.serve.processes import wait
from seatrial.serve.traffic.envoy import on_capture
from seatrial.serve.traffic.envoy.proxy import Proxy
from seatrial.serve.traffic.envoy.router import EnvoyRouter
from seatrial.serve.traffic.rollout.machine import Event, Phase
from seatrial.serve.traffic.rollout.records import Records
from seatrial.serve.traffic.routes import Routes
from seatrial.serve.traffic.shadow.joining import BREAKER, Shadow
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.running import on_pytriton
from seatrial.serve.triton.server import Server
from seatrial.serve.triton.supervision.fleet import TritonFleet

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rollout")
    (folder / "plan.toml").write_text(PLAN)
    (folder / "blind.toml").write_text(PLAN.replace("mirror = 1.0", "mirror = 0.0"))
    (folder / "little.toml").write_text(PLAN.replace("mirror = 1.0", "mirror = 0.1"))
    (folder / "short.toml").write_text(PLAN.replace("dwell = 60.0", "dwell = 4.0"))
    return folder


@pytest.fixture(autouse=True)
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One home for the module, since its server stays up."""
    monkeypatch.setenv("SEATRIAL_HOME", str(folder / "home"))
    return folder / "home"


@pytest.fixture(scope="module")
def trial(folder: Path) -> Iterator[tuple[Server, Proxy]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        with up(folder) as (server, proxy):
            yield server, proxy


def seatrial(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def rollout(candidate: int, plan: Path, proxy: Proxy) -> tuple[int, dict[str, Any], Asking]:
    """Start it by the verb under load, and see that its records tell the same afterwards."""
    with Asking(proxy.url) as asking:
        code, text = seatrial("rollout", "start", NAME, "--candidate", str(candidate), "--plan", str(plan), "--json")
    told: dict[str, Any] = json.loads(text)
    status = json.loads(seatrial("rollout", "status", NAME, "--json")[1])
    assert (status["phase"], status["reason"]) == (told["phase"], told["reason"])
    agreeing, explained = seatrial("rollout", "explain", NAME, "--json")
    assert agreeing == 0
    decisions = json.loads(explained)
    assert decisions["agree"] == decisions["replayed"] > 0
    return code, told, asking


def test_what_cannot_be_judged_is_refused_before_anything_moves(folder: Path) -> None:
    start = ("rollout", "start", NAME, "--plan", str(folder / "plan.toml"))
    code, told = seatrial(*start, "--candidate", "2")
    assert (code, "no server is running" in told) == (4, True)


def test_an_equal_version_is_promoted_without_a_failed_request(folder: Path, trial: tuple[Server, Proxy]) -> None:
    server, proxy = trial
    start = ("rollout", "start", NAME, "--candidate", "2", "--plan")
    blind, told = seatrial(*start, str(folder / "blind.toml"))
    assert (blind, "the candidate's answers cannot be compared" in told) == (2, True)
    missing, told = seatrial(*start[:4], "9", "--plan", str(folder / "plan.toml"))
    assert (missing, "no version 9" in told) == (2, True)
    code, found, asking = rollout(2, folder / "plan.toml", proxy)
    assert (code, found["phase"]) == (0, "promoted"), found
    assert asking.failed == []
    assert {each.version for each in asking.asked} == {"1", "2"}
    assert EnvoyRouter(proxy).current(NAME) == Routes(model=NAME, stable=2)
    with Control(server.url) as control:
        assert control.ready_versions(NAME) == {2}
    kept = sorted(proxy.places.capture.iterdir())
    assert [(path.stat().st_size, stat.S_IMODE(path.stat().st_mode)) for path in kept] == [(0, 0o600)] * 2


def test_a_version_that_cannot_bear_the_mirror_pauses_and_says_why(folder: Path, trial: tuple[Server, Proxy]) -> None:
    _, proxy = trial
    before = EnvoyRouter(proxy).current(NAME)
    records = Records(folder / "home" / "rollouts", NAME)

    def abort() -> str:
        """As ``seatrial rollout abort`` does, once it pauses; the reason of the pause."""
        assert wait(lambda: records.load().phase is Phase.PAUSED, 60.0), records.load().label
        reason = records.load().reason
        records.say(Event.ABORT)
        return reason

    with ThreadPoolExecutor(1) as pool:
        aborting = pool.submit(abort)
        code, found, asking = rollout(4, folder / "short.toml", proxy)
        assert BREAKER in aborting.result()
    assert (code, found["phase"]) == (1, "aborted"), found
    assert asking.failed == []
    assert EnvoyRouter(proxy).current(NAME) == before


@pytest.mark.parametrize(("candidate", "plan"), [(3, "plan.toml"), (4, "little.toml")])
def test_a_worse_version_goes_back_and_does_not_start_again(
    candidate: int, plan: str, folder: Path, trial: tuple[Server, Proxy]
) -> None:
    """Version 3 answers another class, which the mirror shows; 4 is twenty times slower, which traffic shows."""
    server, proxy = trial
    before = EnvoyRouter(proxy).current(NAME)
    assert before is not None
    code, found, asking = rollout(candidate, folder / plan, proxy)
    assert (code, found["phase"]) == (1, "rolled_back"), found
    assert any(word in found["reason"] for word in (["top-1"] if candidate == 3 else ["mean latency", "beyond"]))
    assert asking.failed == []
    if candidate == 3:
        assert {each.version for each in asking.asked} == {str(before.stable)}
    assert EnvoyRouter(proxy).current(NAME) == before
    with Control(server.url) as control:
        assert control.ready_versions(NAME) == {before.stable}
    start = ("rollout", "start", NAME, "--candidate", str(candidate), "--plan", str(folder / plan))
    again, told = seatrial(*start)
    assert (again, "was rolled back" in told) == (2, True)


def test_answers_over_grpc_are_captured_and_compared_too(trial: tuple[Server, Proxy]) -> None:
    from tritonclient.grpc import InferenceServerClient, InferInput

    _, proxy = trial
    router = EnvoyRouter(proxy)
    stable = router.current(NAME)
    assert stable is not None
    candidate = 3 - stable.stable  # of 1 and 2, which answer the same
    fleet = TritonFleet(on_pytriton.status)
    fleet.serve(NAME, (1, 2))
    router.apply(Routes(model=NAME, stable=stable.stable, candidate=candidate, mirror=0.5))
    tensor = InferInput("x", [1, 3], "FP32").set_data_from_numpy(np.array([[0.1, 0.2, 0.7]], np.float32))
    with InferenceServerClient(proxy.url) as client:
        for _ in range(20):
            client.infer(NAME, [tensor])
    router.apply(stable)
    fleet.serve(NAME, (stable.stable,))

    def joined() -> tuple[Shadow, int]:
        return on_capture.read(proxy.places.capture, stable=stable.stable, candidate=candidate)

    assert wait(lambda: len(joined()[0].found) > 0 and not joined()[0].unmatched, 60.0)  # both logs were flushed
    found, unreadable = joined()
    assert unreadable == 0
    assert {each.same for each in found.found} == {1.0}
    assert 0 < len(found.found) < 20
