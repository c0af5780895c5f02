"""The shadow comparison on a real Envoy before a real Triton: HTTP and gRPC, errors planted, candidates that hang."""

import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from scripts.benchmarks.shadowed import NAME, Client, Edge, edge, hanging, versions
from serve.traffic import shadow
from serve.traffic.agreement import Agreement, AgreementLimits
from serve.traffic.capture import ShadowLimits, chosen
from serve.traffic.on_capture import Collector
from serve.triton.process import wait
from serve.triton.server import Server

pytestmark = pytest.mark.system
LIMITS = {"*": AgreementLimits(top1_at_least=0.9, cosine_at_least=0.9, max_error_at_most=1e-5)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("shadowed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        with versions(folder) as running:
            yield running


def over_http(running: Edge, ids: list[str]) -> None:
    client = Client(running.port)
    random = np.random.default_rng(0)
    for number, each in enumerate(ids):
        headers = {"x-seatrial-shadow": "forged"} | ({"accept-encoding": "gzip"} if number % 2 else {})
        client.ask(each, random.random(4).tolist(), headers)
    client.close()


def over_grpc(running: Edge, ids: list[str]) -> None:
    from tritonclient.grpc import InferenceServerClient, InferInput

    random = np.random.default_rng(0)
    with InferenceServerClient(f"127.0.0.1:{running.port}") as client:
        for each in ids:
            tensor = InferInput("x", [1, 4], "FP32")
            tensor.set_data_from_numpy(random.random((1, 4), np.float32))
            client.infer(NAME, [tensor], headers={"x-request-id": each})


def collected(running: Edge, count: int, **versions_: int) -> tuple[shadow.Shadow, list[shadow.Recorded]]:
    """What the collector finds, once `count` answers of each arm have come or ten seconds are over."""
    found, joined = [], shadow.Shadow(**versions_)
    collector = Collector(running.folder, running.reopen)

    def complete() -> bool:
        running.reopen()  # a flush: the proxy writes every ten seconds else
        time.sleep(0.1)
        for each in collector.poll():
            found.append(each)
            joined.add(each, 0.0)
        return len(found) >= 2 * count

    wait(complete, 10.0)
    assert collector.unreadable == 0
    return joined, found


def verdict(joined: shadow.Shadow) -> Agreement:
    joined.close()
    return joined.agreement(LIMITS)


@pytest.mark.parametrize("send", [over_http, over_grpc])
def test_every_chosen_request_is_compared_and_an_identical_candidate_passes(
    send: Callable[[Edge, list[str]], None], server: Server, tmp_path: Path
) -> None:
    ids = [f"{send.__name__}-{number}" for number in range(600)]
    due = {each for each in ids if chosen(each, 0.3, "trial")}
    with edge(tmp_path, server, share=0.3) as running:
        send(running, ids)
        joined, found = collected(running, len(due), stable=1, candidate=2)
        assert {each.request for each in joined.found} == due
        assert stat.S_IMODE((running.folder / "stable.log").stat().st_mode) == 0o600
    agreed = verdict(joined)
    assert (agreed.outcome, agreed.compared, agreed.sampled) == ("PASS", len(due), len(due)), agreed.reasons
    assert "forged" not in {each.id for each in found}
    assert len(found) == 2 * len(due)


def test_planted_errors_are_found(server: Server, tmp_path: Path) -> None:
    for candidate, said in ((3, "max error"), (4, "NaN")):
        folder = tmp_path / str(candidate)
        folder.mkdir()
        ids = [f"planted-{number}" for number in range(400)]
        with edge(folder, server, share=1.0, candidate=candidate) as running:
            over_http(running, ids)
            joined, _ = collected(running, len(ids), stable=1, candidate=candidate)
        agreed = verdict(joined)
        assert agreed.outcome == "FAIL"
        assert said in agreed.reasons[0]
        assert agreed.worst
        wrong = sum(each.same == 0.0 or bool(each.broken) for each in joined.found)
        assert 0 < wrong < 40 if candidate == 3 else wrong == 400


def test_a_candidate_that_hangs_is_cut_off_by_its_own_breaker_and_nobody_waits(server: Server, tmp_path: Path) -> None:
    ids = [f"hang-{number}" for number in range(200)]
    limits = ShadowLimits(requests=2, pending=1, seconds=0.5)
    with hanging() as port, edge(tmp_path, server, share=1.0, hangs=port, limits=limits) as running:
        over_http(running, ids)  # raises where the primary is not answered with 200
        joined, found = collected(running, len(ids))
    agreed = verdict(joined)
    assert agreed.outcome == "INCONCLUSIVE"
    # one client, one request at a time: had a live answer waited for its mirror, none could have been refused
    assert agreed.unmatched[shadow.BREAKER] > agreed.unmatched[shadow.LATE] > 0
    assert set(agreed.unmatched) == {shadow.BREAKER, shadow.LATE}
    assert sum(agreed.unmatched.values()) == agreed.sampled == len(ids)
    assert all(each.well for each in found if each.arm == "stable")


def test_an_answer_above_the_cap_is_left_out_and_counted(server: Server, tmp_path: Path) -> None:
    with edge(tmp_path, server, share=1.0, most_bytes=50) as running:
        over_http(running, ["a", "b", "a"])
        joined, found = collected(running, 3)
    joined.close()
    assert dict(joined.unmatched) == {shadow.TOO_LARGE: 2}
    assert dict(joined.aside) == {shadow.REPEATED: 1}
    assert not any(each.body for each in found)
