"""The rendered routes and policies, in force in a real Envoy before a real Triton: what a caller can no longer do.

Envoy Gateway itself is not run: `tests.support.gateway` translates its policies as its source does.
"""

import gzip
import http.client
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from scripts.benchmarks.teller import Grpc, telling
from seatrial.serve.kubernetes.cluster import Cluster, Limits
from seatrial.serve.kubernetes.cluster import Gateway as Settings
from seatrial.serve.kubernetes.gateway_log import Addresses, parse
from seatrial.serve.traffic.routes import Routes
from seatrial.serve.triton.server import Server
from tests.support.gateway import Gateway, standing

pytestmark = [pytest.mark.experimental("Kubernetes"), pytest.mark.system]

CLUSTER = Cluster(
    schema=1,
    hostname="127.0.0.1",
    grpc_hostname="localhost",
    gateway=Settings(implementation="envoy-gateway"),
    limits=Limits(body="64Ki", receive_seconds=2, requests=8, pending=8),
)
INFER = "/v2/models/teller/infer"
HONEST = json.dumps({"inputs": [{"name": "x", "datatype": "INT32", "shape": [2], "data": [0, 0]}]}).encode()


@dataclass(frozen=True, kw_only=True)
class Site:
    """The server and the proxy before it."""

    server: Server
    gateway: Gateway


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("gateway")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        with telling(folder, ("teller",)) as server:
            servers = {"teller-v3:8000": server.url, "teller-v3:8001": server.grpc_url}
            with standing(Routes(model="teller", stable=3), CLUSTER, servers, folder) as gateway:
                yield Site(server=server, gateway=gateway)


def ask(site: Site, body: bytes, path: str = INFER, method: str = "POST", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(site.gateway.url, timeout=10)
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    connection.request(method, path, body, {"content-type": "application/json", **named})
    reply = connection.getresponse()
    try:
        return reply.status, reply.read()
    finally:
        connection.close()


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return b'{"inputs":[{"name":"x","data":' + opening.encode() * depth + b"0" + closing.encode() * depth + b"}]}"


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (400, nested(40_000 // 2), {}),
        (400, nested(20_000, '{"a":', "}")[:60_000], {}),
        (400, nested(65), {}),
        (400, b'["\\"", ' + b"[" * 70, {}),
        (400, HONEST[:-1] + b',"deep":' + b"[" * 100, {}),  # before whatever else is wrong with it
        (415, gzip.compress(nested(40_000)), {"content_encoding": "gzip"}),
        (415, b"x", {"content_encoding": "deflate"}),
        (400, HONEST, {"Inference_Header_Content_Length": "9" * 20}),
        (400, HONEST, {"Inference_Header_Content_Length": "-1"}),
        (400, HONEST, {"Inference_Header_Content_Length": "0x10"}),
        (400, HONEST, {"Inference_Header_Content_Length": str(len(HONEST) + 1)}),
        (431, HONEST, {"x_large": "a" * 6000}),
        (431, HONEST, {f"x-many-{index}": "a" * 100 for index in range(70)}),
        (413, b" " * (65 << 10), {}),
        (400, HONEST.replace(b"[2]", b"[1099511627776]"), {}),
        (400, HONEST.replace(b"[2]", b"[ 65536 ,\n65536, 65536]"), {}),
        (400, HONEST.replace(b'"shape": [2]', b'"shape":\t[1e30]'), {}),
        (400, HONEST.replace(b'"shape": [2]', b'"sh\\u0061pe": [1099511627776]'), {}),
        (400, HONEST.replace(b'"shape": [2]', b'"\\u0053HAPE": [2]'), {}),
        (400, HONEST[:-1] + b',"id":"\\\\\\u0041"}', {}),
    ],
)
def test_what_ends_or_resets_a_server_is_refused_before_it(
    site: Site, status: int, body: bytes, headers: dict[str, str]
) -> None:
    assert ask(site, body, **headers)[0] == status
    assert ask(site, HONEST)[0] == 200
    os.kill(site.server.pid, 0)


def test_honest_requests_pass_however_they_are_written(site: Site) -> None:
    told = json.dumps('\\u0041 \\\\u0041 \u00e9 "shape": [99999999999]').encode()
    assert ask(site, HONEST[:-1] + b',"id":' + told + b"}")[0] == 200
    quoted = json.dumps({"id": '[[{"' * 50 + "\\", "inputs": json.loads(HONEST)["inputs"]}).encode()
    binary = (b"\0" * 8, json.dumps({"inputs": [{"name": "x", "datatype": "INT32", "shape": [2],
              "parameters": {"binary_data_size": 8}}]}).encode())  # fmt: skip
    assert ask(site, HONEST)[0] == 200
    assert ask(site, quoted)[0] == 200
    status, content = ask(site, binary[1] + binary[0], Inference_Header_Content_Length=str(len(binary[1])))
    assert (status, json.loads(content)["model_version"]) == (200, "3")
    assert ask(site, HONEST, x_large="a" * 4000)[0] == 200
    grpc = Grpc(site.gateway.url.replace("127.0.0.1", "localhost"))
    assert grpc.ask().version == 3
    grpc.close()


@pytest.mark.parametrize(
    "body",
    [
        b"hello",
        b"{}",
        b"[]",
        b"",
        b'{"inputs":{}}',
        HONEST + b"x",
        HONEST.replace(b'"x"', b"3"),
        HONEST.replace(b"[2]", b'"x"'),
        HONEST.replace(b"[2]", b"[-1]"),
        HONEST.replace(b"[0, 0]", b"[0]"),
        HONEST.replace(b"[0, 0]", b'["a", "b"]'),
        HONEST[:-1] + b',"parameters":{"timeout":-1}}',
        HONEST[:-1] + b',"parameters":[]}',
        HONEST[:-1] + b',"outputs":[{"name":"y","parameters":{"classification":-1}}]}',
    ],
)
def test_json_that_triton_cannot_read_is_the_caller_s_mistake(site: Site, body: bytes) -> None:
    assert ask(site, body)[0] == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/models/teller/versions/1/infer"),
        ("POST", "/v2/models/teller//versions/1/infer"),
        ("POST", "/v2/models/teller/x/../versions/1/infer"),
        ("POST", "/v2/models/teller%2Fversions%2F1/infer"),
        ("POST", "/v2/models/small/infer"),
        ("POST", "/v2/models/teller/generate"),
        ("POST", "/v2/repository/models/teller/unload"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("GET", "/v2/models/teller/versions/1"),
        ("GET", "/metrics"),
    ],
)
def test_no_path_leads_to_another_version_or_call(site: Site, method: str, path: str) -> None:
    assert ask(site, HONEST, path, method)[0] in (400, 404)


def test_streams_and_the_metadata_that_ends_a_server_do_not_pass(site: Site) -> None:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    with grpc.insecure_channel(site.gateway.url.replace("127.0.0.1", "localhost")) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelInferRequest(model_name="teller")
        with pytest.raises(grpc.RpcError) as refused:
            list(stub.ModelStreamInfer(iter([request]), timeout=10))
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises(grpc.RpcError):
            stub.ModelReady(
                service_pb2.ModelReadyRequest(name="teller"), metadata=[("triton_grpc_error", "true")], timeout=10
            )
    os.kill(site.server.pid, 0)


def test_a_body_that_does_not_arrive_is_not_waited_for(site: Site) -> None:
    connection = http.client.HTTPConnection(site.gateway.url, timeout=10)
    begun = time.monotonic()
    connection.putrequest("POST", INFER)
    connection.putheader("content-length", "1000")
    connection.endheaders(b"{")
    assert connection.getresponse().status == 408
    assert time.monotonic() - begun < CLUSTER.limits.receive_seconds + 3
    connection.close()


def test_failures_take_the_version_from_nobody_and_refusals_are_no_evidence(site: Site) -> None:
    fails = HONEST.replace(b"[0, 0]", b"[0, 1]")
    for _ in range(20):
        assert ask(site, fails)[0] >= 500
    assert ask(site, HONEST)[0] == 200  # five in a row would have ejected the only endpoint
    assert ask(site, nested(100))[0] == 400
    time.sleep(1.5)  # the log is flushed
    addresses = Addresses({"127.0.0.1": [(0.0, 3)]})
    lines = site.gateway.log.read_text().splitlines()
    ours = [each for each in lines if json.loads(each)["path"] == INFER]
    seen = [each for line in ours if (each := parse(line, "teller", addresses)) is not None]
    assert {each.status for each in seen} >= {200, 503}
    assert not {each.status for each in seen} & {400, 408, 413, 415, 431}
    assert sum(each.failed for each in seen) == 20
