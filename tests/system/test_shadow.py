"""The shadow comparison on a real Envoy before a real Triton: HTTP and gRPC, errors planted, candidates that hang."""

import stat
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from scripts.benchmarks.shadowed import NAME, Client, edge, hanging, versions
from seatrial.serve.processes import wait
from seatrial.serve.traffic.edge import Capturing, Limits
from seatrial.serve.traffic.envoy.on_capture import Collector
from seatrial.serve.traffic.envoy.proxy import Proxy
from seatrial.serve.traffic.envoy.routes import is_copied
from seatrial.serve.traffic.shadow import joining
from seatrial.serve.traffic.shadow.agreement import Agreement, AgreementLimits
from seatrial.serve.triton.server import Server

pytestmark = pytest.mark.system
LIMITS = {"*": AgreementLimits(top1_at_least=0.9, cosine_at_least=0.9, max_error_at_most=1e-5)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("shadowed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        with versions(folder) as running:
            yield running


def over_http(running: Proxy, count: int) -> list[str]:
    """The ids that the edge gave the requests, in their order; a client's own are not believed."""
    client, random = Client(running.port), np.random.default_rng(0)
    ids = []
    for number in range(count):
        headers = {"x-request-id": "0000-forged"} | ({"accept-encoding": "gzip"} if number % 2 else {})
        ids.append(client.ask(random.random(4).tolist(), headers)[0])
    client.close()
    return ids


def over_grpc(running: Proxy, count: int) -> list[str]:
    """The same; gRPC's metadata come with the answer."""
    import grpc
    from tritonclient.grpc import InferInput, service_pb2, service_pb2_grpc

    random, ids = np.random.default_rng(0), []
    with grpc.insecure_channel(running.url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for _ in range(count):
            tensor = InferInput("x", [1, 4], "FP32")
            tensor.set_data_from_numpy(random.random((1, 4), np.float32))
            request = service_pb2.ModelInferRequest(model_name=NAME, inputs=[tensor._get_tensor()])
            request.raw_input_contents.append(tensor._get_content())
            _, call = stub.ModelInfer.with_call(request)
            ids.append(dict(call.initial_metadata())["x-request-id"])
    return ids


def collected(running: Proxy, count: int, **versions_: int) -> tuple[joining.Shadow, list[joining.Recorded]]:
    """What the collector finds, once `count` answers of each arm have come or ten seconds are over."""
    found, joined = [], joining.Shadow(**versions_)
    collector = Collector(running.places.capture, running.admin.reopen_logs)

    def complete() -> bool:
        running.admin.reopen_logs()  # a flush: the proxy writes every ten seconds else
        time.sleep(0.1)
        for each in collector.poll():
            found.append(each)
            joined.add(each, 0.0)
        return len(found) >= 2 * count

    wait(complete, 10.0)
    assert collector.unreadable == 0
    return joined, found


def verdict(joined: joining.Shadow) -> Agreement:
    joined.close()
    return joined.agreement(LIMITS)


@pytest.mark.parametrize("send", [over_http, over_grpc])
def test_every_copied_request_is_compared_and_an_identical_candidate_passes(
    send: Callable[[Proxy, int], list[str]], server: Server
) -> None:
    with edge(server, share=0.3) as running:
        ids = send(running, 600)
        due = {each for each in ids if is_copied(each, 0.3)}
        joined, found = collected(running, len(due), stable=1, candidate=2)
        assert stat.S_IMODE((running.places.capture / "stable.log").stat().st_mode) == 0o600
    assert len(set(ids)) == 600
    assert {each.request for each in joined.found} == due
    agreed = verdict(joined)
    assert (agreed.outcome, agreed.compared, agreed.sampled) == ("PASS", len(due), len(due)), agreed.reasons
    assert len(found) == 2 * len(due)


def test_planted_errors_are_found(server: Server) -> None:
    for candidate, said in ((3, "max error"), (4, "NaN")):
        with edge(server, share=1.0, candidate=candidate) as running:
            ids = over_http(running, 400)
            joined, _ = collected(running, len(ids), stable=1, candidate=candidate)
        agreed = verdict(joined)
        assert agreed.outcome == "FAIL"
        assert said in agreed.reasons[0]
        assert agreed.worst
        wrong = sum(each.same == 0.0 or bool(each.broken) for each in joined.found)
        assert 0 < wrong < 40 if candidate == 3 else wrong == 400


def test_a_candidate_that_hangs_is_cut_off_by_its_own_breaker_and_nobody_waits(server: Server) -> None:
    limits = Limits(shadow_requests=2)
    with hanging() as port, edge(server, share=1.0, hangs=port, limits=limits, timeout_ms=500) as running:
        ids = over_http(running, 200)  # raises where the primary is not answered with 200
        joined, found = collected(running, len(ids))
    agreed = verdict(joined)
    assert agreed.outcome == "INCONCLUSIVE"
    # one client, one request at a time: had a live answer waited for its mirror, none could have been refused
    assert agreed.unmatched[joining.BREAKER] > agreed.unmatched[joining.LATE] > 0
    assert set(agreed.unmatched) == {joining.BREAKER, joining.LATE}
    assert sum(agreed.unmatched.values()) == agreed.sampled == len(ids)
    assert all(each.well for each in found if each.arm == "stable")


def test_an_answer_above_the_cap_is_left_out_and_counted(server: Server) -> None:
    with edge(server, share=1.0, capture=Capturing(most_bytes=50)) as running:
        over_http(running, 3)
        joined, found = collected(running, 3)
    joined.close()
    assert dict(joined.unmatched) == {joining.TOO_LARGE: 3}
    assert not any(each.body for each in found)
