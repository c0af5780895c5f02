"""Hostile callers before a real Envoy and Triton: none chooses its version, stops a server or takes others' room."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from scripts.benchmarks.teller import Http, telling, upstream
from seatrial.serve.processes import start_ticks, wait
from seatrial.serve.traffic.edge import Edge, Keys, Limits, Model
from seatrial.serve.traffic.edge import Server as Upstream
from seatrial.serve.traffic.envoy import on_envoy
from seatrial.serve.traffic.envoy.metering import EdgeMeter
from seatrial.serve.traffic.envoy.proxy import Proxy
from seatrial.serve.traffic.envoy.watching import Watcher
from seatrial.serve.traffic.routes import Routes
from seatrial.serve.triton.running.crashes import crashed_since
from seatrial.serve.triton.server import Server

pytestmark = pytest.mark.system

INFER = "/v2/models/teller/infer"
PINNED = (Routes(model="teller", stable=2),)
GOOD = json.dumps(
    {"inputs": [{"name": "x", "datatype": "INT32", "shape": [2], "data": [0, 0]}]}, separators=(",", ":")
).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        with telling(folder) as triton:
            yield triton


def edge(server: Server, **changes: object) -> Edge:
    models = (Model(name="teller", timeout_ms=3000), Model(name="small"))
    fields: dict[str, object] = {"schema": 1, "port": 0, "server": upstream(server), "models": models} | changes
    return Edge(**fields)  # type: ignore[arg-type]


@contextmanager
def keyed(server: Server, tmp_path: Path, limits: Limits) -> Iterator[Proxy]:
    keys = tmp_path / "keys"
    keys.write_text("alice key-of-alice\nbob key-of-bob\n")
    keys.chmod(0o600)
    with on_envoy.serving(edge(server, auth=Keys(kind="keys", file=keys), limits=limits), PINNED) as proxy:
        yield proxy


def post(proxy: Proxy, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(proxy.url, timeout=10)
    try:
        connection.request("POST", INFER, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found += bytes([number % 128 | 128])
        number //= 128
    return found + bytes([number])


def field(number: int, content: bytes, length: int | None = None) -> bytes:
    return varint(number * 8 + 2) + varint(len(content) if length is None else length) + content


def message(model: bytes = b"teller", version: bytes = b"1") -> bytes:
    from tritonclient.grpc import service_pb2

    tensor = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="INT32", shape=[2])
    tensor.contents.int_contents.extend([0, 0])
    inputs = service_pb2.ModelInferRequest(inputs=[tensor]).SerializeToString()
    return field(1, model) + field(2, version) + bytes(inputs)


def called(proxy: Proxy, raw: bytes, method: str = "ModelInfer") -> tuple[int, bytes, dict[str, str]]:
    """gRPC status, answer and metadata of one call whose message is these bytes."""
    import grpc

    with grpc.insecure_channel(proxy.url, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}", request_serializer=bytes, response_deserializer=bytes
        )
        try:
            answer, about = call.with_call(raw, timeout=10)
            return 0, answer, dict(about.initial_metadata())
        except grpc.RpcError as error:
            return error.code().value[0], b"", dict(error.initial_metadata() or ())


SWALLOWED = 8 + 3 + 100  # bytes beyond the end that a hostile field claims
OPEN = [
    message() + field(3, b"", len(field(1, b"teller") + field(2, b"2"))),  # the id takes what the edge appends
    message() + field(200, b"", len(field(1, b"teller") + field(2, b"2"))),  # so does a field nobody knows
    field(1, b"teller") + message(b"small") + field(200, b"", 11),  # the other model, by the last name
    message(version=b"9") + field(200, b"", SWALLOWED),
    message() + field(7, b"1234", 5),
    message() + varint(200 * 8 + 2),  # a tag and no length
    message() + varint(200 * 8 + 3),  # a group begins
    message() + varint(200 * 8 + 4),
    message() + varint(200 * 8 + 6),
    message() + varint(200 * 8) + b"\xff\xff",  # a number without an end
    message() + varint(200 * 8 + 1) + b"1234567",
    message() + varint(200 * 8 + 5) + b"123",
    message() + b"\x00",
    message() + b"\x8a\x80\x80\x80\x80\x00",  # a tag of six bytes
    message() + varint(200 * 8 + 2) + b"\x80\x80\x80\x80\x80\x00",
]


def test_no_grpc_message_leaves_a_field_open_that_would_swallow_the_pin(server: Server) -> None:
    from tritonclient.grpc import service_pb2

    with on_envoy.serving(edge(server), PINNED) as proxy:
        for method in ("ModelInfer", "ModelReady", "ModelMetadata"):
            statuses = [called(proxy, raw, method)[0] for raw in OPEN]
            assert set(statuses) <= {3, 5}, (method, statuses)
        harmless = [
            message(),
            message() + field(3, b"id"),
            message() + field(200, b"unknown"),
            message() + varint(200 * 8) + b"\x05",
            message() + varint(200 * 8 + 1) + b"12345678" + varint(200 * 8 + 5) + b"1234",
            message(b"small", b"7") + field(1, b"teller"),
            b"\x8a\x00" + varint(6) + b"teller" + message()[8:],  # a tag in two bytes
        ]
        for raw in harmless:
            status, answer, about = called(proxy, raw)
            assert status == 0, raw
            said = service_pb2.ModelInferResponse.FromString(answer)
            assert (said.model_name, said.model_version, about["x-model-version"]) == ("teller", "2", "2")
        assert called(proxy, message(b"other"))[0] == 12
        for raw in (b"", field(1, b"../x"), field(1, b"a" * 300)):
            assert called(proxy, raw)[0] in (3, 5)
        for method in ("ModelStreamInfer", "RepositoryIndex", "ModelConfig", "SystemSharedMemoryStatus", "LogSettings"):
            assert called(proxy, message(), method)[0] == 12


def tensors(data: bytes = b"[0,0]", **changes: bytes) -> bytes:
    parts = {"name": b'"x"', "datatype": b'"INT32"', "shape": b"[2]", "data": data} | changes
    inside = b",".join(b'"' + name.encode() + b'":' + value for name, value in parts.items() if value)
    return b'{"inputs":[{' + inside + b"}]}"


MALFORMED = [
    b"", b"null", b"[]", b"hello", b"\xff\xfe\x00", b"{}", b'{"inputs":{}}', b'{"inputs":[]}', b'{"inputs":[null]}',
    tensors(name=b"3"), tensors(name=b'""'), tensors(datatype=b'"NOPE"'), tensors(datatype=b""), tensors(shape=b"[-1]"),
    tensors(shape=b"[1.5]"), tensors(shape=b'"x"'), tensors(shape=b"[9999999999999999]"), tensors(shape=b""),
    tensors(shape=b"[4611686018427387904,4611686018427387904]"), tensors(parameters=b"[]"),
    tensors(parameters=b'{"a":{"b":1}}'), GOOD + b"x", GOOD[:-1], GOOD.replace(b"0,0", b"0,,0"),
    GOOD.replace(b"0,0", b"0,0,"), GOOD.replace(b"0,0", b"00,0"), GOOD.replace(b"0,0", b"0.,0"),
    GOOD.replace(b'"x"', b'"x\ny"'), GOOD.replace(b'"x"', b'"\\ud8"'), GOOD.replace(b"{", b'{"id":5,', 1),
    GOOD.replace(b"{", b'{"parameters":3,', 1), GOOD.replace(b"{", b'{"outputs":[{}],', 1), b"\xef\xbb\xbf" + GOOD,
    tensors(b"[0]"), tensors(b"[0,0,0]"), tensors(b"0"), tensors(b'["a",0]'), tensors(b"[0.5,0]"), tensors(b"[null,0]"),
    b'{"inputs":[{"name":"x","datatype":"INT32","shape":[1099511627776],"data":[]}]}',
    tensors(b"", shape=b"[2147483648]"), tensors(b"[0,0]", name=b'"x","name":"y"'),
    tensors(b"", shape=b"[1099511627776]", parameters=b'{"binary_data_size":8}'),
    GOOD.replace(b'"shape"', b'"sh\\u0061pe":[9],"shape"'), GOOD.replace(b'"shape"', b'"shape":[2],"shape"'),
    GOOD.replace(b"{", b'{"inp\\u0075ts":[],', 1),
    GOOD.replace(b"{", b'{"inputs":[{"name":"x","datatype":"INT8","shape":[0]}],', 1),
    tensors(b"{}"), tensors(b"[Na,0]"), tensors(b"[0,1]", datatype=b'"BYTES"'), tensors(b"[-1,0]", datatype=b'"UINT8"'),
]  # fmt: skip


def deep(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + b"0" + closing * depth


DEEP = [
    *(tensors(deep(depth)) for depth in (65, 500, 40_000, 200_000)),
    *(deep(depth) for depth in (40_000, 100_000)),
    tensors(deep(40_000, b'{"a":', b"}")),
    tensors(deep(20_000, b'[{"a":', b"}]")),
    b'{"x":' + deep(40_000) + b"," + GOOD[1:],
    b"[" * 100_000,
    b'{"a":' * 100_000,
    tensors(parameters=b'{"a":' + deep(40_000) + b"}"),
]


def test_malformed_and_deeply_nested_json_is_refused_before_any_server_reads_it(server: Server) -> None:
    with on_envoy.serving(edge(server), PINNED) as proxy:
        for body in [*MALFORMED, *DEEP]:
            status, headers, content = post(proxy, body)
            assert status == 400, (body[:80], status, content[:200])
            assert "x-model-version" not in headers
            assert json.loads(content)["error"].startswith("refused by the edge: "), "as Triton's own errors are"
        for body in DEEP:
            binary = {"inference-header-content-length": str(len(body))}
            assert post(proxy, body + b"1234", binary)[0] == 400
        lies = ("-1", "x", "1e3", "99999999", "99999999999999999999", "1, 2", "")
        assert {post(proxy, GOOD, {"inference-header-content-length": lie})[0] for lie in lies} == {400}
        sound = [GOOD, b" \n" + GOOD + b"\t", tensors(b"[[[[[0]],[[0]]]]]")]
        sound += [
            GOOD.replace(
                b"{",
                b'{"id":"\\u00e9\\"","parameters":{"a":1,"b":"x","c":true},"other":[-0.5e-3,{"a":null},NaN,-Infinity,Inf],',
                1,
            )
        ]
        assert [post(proxy, body)[0] for body in sound] == [200] * len(sound)
        half = tensors(b"", parameters=b'{"binary_data_size":8}')
        assert post(proxy, half + bytes(8), {"inference-header-content-length": str(len(half))})[0] == 200
        http = Http(proxy.url)
        assert http.ask().version == 2
        http.close()
    assert start_ticks(server.pid) == server.started, "the server that was there before"


def test_headers_that_a_server_would_reset_or_that_order_envoy_about_stop_at_the_edge(server: Server) -> None:
    with on_envoy.serving(edge(server, limits=Limits(ejection_failures=1)), PINNED) as proxy:
        for size in (7_500, 20_000, 70_000):
            with suppress(ConnectionError):
                status, headers, _ = post(proxy, GOOD, {"x-pad": "a" * size})
                assert (status, "x-model-version" in headers) == (431, False)
        assert post(proxy, GOOD, {"x-pad": "a" * 6_000})[0] == 200, "what is let through, Triton takes"
        assert post(proxy, GOOD, {"content-encoding": "gzip"})[0] == 415
        assert post(proxy, GOOD, {"triton_grpc_error": "true"})[0] == 400
        foreign = {"x-envoy-retry-on": "5xx,reset", "x-envoy-upstream-rq-timeout-ms": "1", "x-edge-model": "small"}
        assert post(proxy, GOOD, foreign | {"x-edge-slot": "999999", "x-envoy-max-retries": "50"})[0] == 200
        assert {post(proxy, GOOD)[0] for _ in range(20)} == {200}, "and nobody was left out for it"


def test_what_no_version_answered_carries_no_version(server: Server, tmp_path: Path) -> None:
    with keyed(server, tmp_path, Limits(body_bytes=4096)) as proxy:
        alice = {"x-api-key": "key-of-alice"}
        found = [post(proxy, GOOD), post(proxy, GOOD + b" " * 8192, alice), post(proxy, b"{}", alice)]
        assert [status for status, _, _ in found] == [401, 413, 400]
        assert not any("x-model-version" in headers or "x-model" in headers for _, headers, _ in found)
        assert post(proxy, GOOD, alice)[1]["x-model-version"] == "2"


def unfinished(proxy: Proxy, key: str, announced: int, sent: int) -> socket.socket:
    """A connection on which a body was begun and is not ended."""
    connection = socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
    head = f"POST {INFER} HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\ncontent-length: {announced}\r\n\r\n"
    try:
        connection.sendall(head.encode() + b" " * sent)
    except OSError:
        connection.close()
        raise
    return connection


def ended(connection: socket.socket, within: float) -> bool:
    """Whether the other side closes the connection within so many seconds; ours is closed in any case."""
    with connection, suppress(TimeoutError):
        connection.settimeout(within)
        while connection.recv(4096):
            continue
        return True
    return False


def test_slow_bodies_of_one_client_leave_room_for_others_and_end(server: Server, tmp_path: Path) -> None:
    with keyed(server, tmp_path, Limits(receive_seconds=3, client_requests=16, connections=128)) as proxy:
        slow = [unfinished(proxy, "key-of-alice", 1000, 1) for _ in range(80)]
        assert post(proxy, GOOD, {"x-api-key": "key-of-bob"})[0] == 200
        refused = [post(proxy, GOOD, {"x-api-key": "key-of-alice"})[0] for _ in range(3)]
        assert refused == [429] * 3
        assert all(ended(each, 12.0) for each in slow), "a body has its time, which is 15 s by default"
        assert wait(lambda: post(proxy, GOOD, {"x-api-key": "key-of-alice"})[0] == 200, 12.0)
        silent = socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
        assert ended(silent, 12.0), "a connection that says nothing does not stay"


def test_unfinished_bodies_of_one_client_do_not_fill_the_memory(server: Server, tmp_path: Path) -> None:
    with keyed(server, tmp_path, Limits(body_bytes=16 << 20, receive_seconds=20)) as proxy:
        envoy = psutil.Process(proxy.pid)
        before = envoy.memory_info().rss
        large = []
        for _ in range(40):
            with suppress(ConnectionError, TimeoutError):
                large.append(unfinished(proxy, "key-of-alice", 16 << 20, 15 << 20))
        time.sleep(0.5)
        grown = envoy.memory_info().rss - before
        assert grown < 10 * (16 << 20), f"{grown >> 20} MiB of 600; buffers that were freed stay with the allocator"
        assert post(proxy, GOOD, {"x-api-key": "key-of-bob"})[0] == 200
        for each in large:
            each.close()


def test_a_body_that_killed_a_server_is_refused_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scripts.benchmarks import teller

    monkeypatch.setattr(
        teller, "MODEL", teller.MODEL.replace("os._exit(1)", "os.kill(os.getppid(), 11); time.sleep(2)")
    )
    deadly, other = (GOOD.replace(b"0,0", f"0,{failure}".encode()) for failure in (32, 31))
    with telling(tmp_path) as first, on_envoy.serving(edge(first), PINNED) as proxy:
        watcher = Watcher(proxy, meter=EdgeMeter(), crashed=crashed_since)
        assert post(proxy, other)[0] == 200
        assert post(proxy, deadly)[0] == 503
        assert not wait(lambda: start_ticks(first.pid) == first.started, 0.0)
        assert wait(lambda: any("are now refused" in said for said in watcher.look()), 30.0)
        status, headers, _ = post(proxy, deadly)
        assert (status, headers["x-refused"], "x-model-version" in headers) == (422, "quarantine", False)
        assert post(proxy, other)[0] == 503, "another body is not refused; there is only no server"
        assert isinstance(edge(first).server, Upstream)


def frame(kind: int, flags: int, content: bytes) -> bytes:
    """One frame of HTTP/2, on stream 1 unless it is one of the connection."""
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + (kind != 4).to_bytes(4, "big") + content


def raw_call(proxy: Proxy, metadata: dict[str, bytes]) -> None:
    """One gRPC call over HTTP/2 whose headers no library has looked at; waits for whatever comes back."""
    named = {":method": b"POST", ":path": b"/inference.GRPCInferenceService/ModelInfer", ":scheme": b"http"}
    named |= {":authority": b"a", "te": b"trailers", "content-type": b"application/grpc"} | metadata
    words = [(name.encode(), value) for name, value in named.items()]
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in words
    )  # literals that enter no table
    raw = message()
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as stream:
        data = frame(0, 1, b"\x00" + len(raw).to_bytes(4, "big") + raw)
        stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, b"") + frame(1, 4, block) + data)
        ended(stream, 0.3)


def test_no_metadata_of_one_grpc_caller_resets_the_connection_that_others_share(server: Server) -> None:
    import grpc

    hostile = [("grpc-timeout", b"abc"), ("grpc-timeout", b"-1S"), ("x-pad-bin", b"!!no base64!!"), ("te", b"x")]
    hostile += [("grpc-encoding", b"snappy"), ("grpc-timeout", b"1S, 2S"), ("grpc-accept-encoding", b"\xff")]
    hostile += [(":authority", b"\xc3\xa9"), ("content-type", b"application/grpc+\xc3\xa9"), ("x-pad", b"a" * 120)]
    with on_envoy.serving(edge(server), PINNED) as proxy:
        with grpc.insecure_channel(proxy.url, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            call = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer", request_serializer=bytes, response_deserializer=bytes
            )
            for name, value in hostile:
                raw_call(proxy, {name: value})
                for _ in range(5):
                    call(message(), timeout=10)
        asked = [json.loads(line) for line in proxy.places.access_log.read_text().splitlines()]
        assert not [line for line in asked if line["flags"] not in ("-", "DC", "DPE")], "and none was reset on the way"
