"""Requests built before the run, read back by hand and against Triton's own client."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.bench.load import inputs as inputs_room
from seatrial.bench.load import messages
from seatrial.bench.load import payload as payload_room
from seatrial.bench.load.payload import Payload
from seatrial.bench.targets import DTYPES, Endpoint
from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.errors import ConfigError, IntegrityError

ROOT = Path(__file__).parents[3]


def endpoint(*inputs: TensorSpec, version: str = "3") -> Endpoint:
    outputs = (TensorSpec(name="y", dtype="float32", shape=("batch", 2)),)
    return Endpoint(url="127.0.0.1:8000", model="a model", version=version, inputs=inputs, outputs=outputs)


def spec(dtype: str = "float32", *shape: int | str, name: str = "x") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape or ("batch", 4))


def parsed(request: bytes) -> tuple[str, dict[str, str], dict[str, Any], bytes]:
    """Request line, headers, JSON part and raw tensors."""
    head, _, body = request.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    headers = dict(field.split(": ", 1) for field in fields)
    assert int(headers["Content-Length"]) == len(body)
    cut = int(headers["Inference-Header-Content-Length"])
    return line, headers, json.loads(body[:cut]), body[cut:]


def test_a_request_is_a_whole_http_message_with_the_version_pinned() -> None:
    samples = np.arange(8, dtype=np.float32).reshape(2, 4)
    payload = Payload.build(endpoint(spec()), {"x": samples})
    line, headers, part, raw = parsed(payload.requests[1])
    assert line == "POST /v2/models/a%20model/versions/3/infer HTTP/1.1"
    assert headers["Host"] == "127.0.0.1:8000"
    [tensor] = part["inputs"]
    assert tensor == {"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}
    assert part["outputs"] == [{"name": "y", "parameters": {"binary_data": True}}]
    assert np.array_equal(np.frombuffer(raw, "<f4"), samples[1])


def test_without_a_version_the_server_chooses() -> None:
    payload = Payload.build(endpoint(spec(), version=""), {"x": np.zeros((1, 4), np.float32)})
    assert payload.requests[0].startswith(b"POST /v2/models/a%20model/infer HTTP/1.1\r\n")


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name != "BF16"])
def test_tensor_bytes_are_those_of_tritons_own_client(datatype: str) -> None:
    httpclient = pytest.importorskip("tritonclient.http")
    random = np.random.default_rng(0)
    dtype = DTYPES[datatype]
    if dtype == "object":
        samples = np.array([[b"", "Grüße", b"\x00\xff", "x" * 300]] * 3, dtype=object)
    else:
        samples = (random.random((3, 4)) * 2).astype(dtype)
    payload = Payload.build(endpoint(spec(dtype, "batch", 4)), {"x": samples}, batch=3, count=1)
    theirs = httpclient.InferInput("x", [3, 4], datatype)
    theirs.set_data_from_numpy(samples, binary_data=True)
    asked = [httpclient.InferRequestedOutput("y", binary_data=True)]
    body, cut = httpclient.InferenceServerClient.generate_request_body([theirs], outputs=asked)
    _, _, part, raw = parsed(payload.requests[0])
    assert raw == body[cut:]
    assert part["inputs"] == json.loads(body[:cut])["inputs"]


@given(samples=st.integers(1, 40), batch=st.integers(1, 12), count=st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_requests_are_distinct_and_walk_through_all_samples(samples: int, batch: int, count: int) -> None:
    array = np.arange(samples, dtype=np.int64)[:, None]
    payload = Payload.build(endpoint(spec("int64", "batch", 1)), {"x": array}, batch=batch, count=count)
    assert 1 <= len(payload.requests) <= count
    assert len(set(payload.requests)) == len(payload.requests)
    shown = np.concatenate([np.frombuffer(parsed(request)[3], "<i8") for request in payload.requests])
    assert np.array_equal(shown, np.arange(len(payload.requests) * batch) % samples)


def test_several_inputs_stay_in_step() -> None:
    one, two = spec("float32", "batch", 2), spec("int32", "batch", name="length")
    inputs = {"length": np.arange(5, dtype=np.int32), "x": np.arange(10, dtype=np.float32).reshape(5, 2)}
    payload = Payload.build(endpoint(one, two), inputs, batch=2)
    _, _, part, raw = parsed(payload.requests[1])
    assert [tensor["name"] for tensor in part["inputs"]] == ["x", "length"]
    assert np.frombuffer(raw[:16], "<f4").tolist() == [4, 5, 6, 7]
    assert np.frombuffer(raw[16:], "<i4").tolist() == [2, 3]


def test_a_model_without_batch_axis_gets_one_sample_per_request() -> None:
    samples = np.arange(8, dtype=np.float32).reshape(2, 4)
    _, _, part, raw = parsed(Payload.build(endpoint(spec("float32", 4)), {"x": samples}).requests[1])
    assert part["inputs"][0]["shape"] == [4]
    assert np.frombuffer(raw, "<f4").tolist() == samples[1].tolist()
    with pytest.raises(ConfigError):
        Payload.build(endpoint(spec("float32", 4)), {"x": samples}, batch=2)


def test_samples_may_be_narrowed_but_not_changed() -> None:
    wide = np.array([[0.5, 1, 2, 3]])
    _, _, _, raw = parsed(Payload.build(endpoint(spec()), {"x": wide}).requests[0])
    assert np.frombuffer(raw, "<f4").tolist() == wide[0].tolist()
    for dtype, samples in (("float16", np.full((1, 4), 1e6)), ("int32", np.full((1, 4), 2**40)), ("int64", wide)):
        with pytest.raises(ConfigError):
            Payload.build(endpoint(spec(dtype, "batch", 4)), {"x": samples})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "no samples"),
        ({"x": np.zeros((2, 5), np.float32)}, "do not fit"),
        ({"x": np.zeros((2, 4, 1), np.float32)}, "do not fit"),
        ({"x": np.zeros((0, 4), np.float32)}, "cannot cut"),
        ({"x": np.zeros((2, 4), np.float32), "z": np.zeros(2)}, "no input"),
        ({"x": np.array([["a", "b", "c", "d"]])}, "samples must be numbers"),
    ],
)
def test_samples_that_do_not_fit_are_refused_by_name(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Payload.build(endpoint(spec()), inputs)


def test_bfloat16_travels_as_rounded_bits() -> None:
    values = np.array([[1.0, -2.5, 3.14159265, np.inf]], np.float32)
    taker = endpoint(spec("bfloat16", "batch", 4))
    _, _, part, raw = parsed(Payload.build(taker, {"x": values}).requests[0])
    assert part["inputs"][0]["datatype"] == "BF16"
    assert raw == bytes.fromhex("803f 20c0 4940 807f")
    assert np.array_equal(messages.from_bfloat16(np.frombuffer(raw, "<u2")), [1.0, -2.5, 3.140625, np.inf])
    assert Payload.build(taker, {"x": np.frombuffer(raw, "<u2").reshape(1, 4)}).requests[0].endswith(raw)
    with pytest.raises(ConfigError, match="JSON cannot carry bfloat16"):
        Payload.build(taker, {"x": values}, protocol="json")
    with pytest.raises(ConfigError, match="int64"):
        Payload.build(taker, {"x": np.zeros((1, 4), np.int64)})


@given(st.lists(st.floats(width=32, allow_nan=True), min_size=1, max_size=20))
@settings(deadline=None, max_examples=50)
def test_bfloat16_is_the_nearest(values: list[float]) -> None:
    given_ = np.array(values, np.float32)
    found = messages.from_bfloat16(messages.bfloat16(given_))
    assert np.array_equal(np.isnan(found), np.isnan(given_))
    finite = np.isfinite(given_) & (np.abs(given_) < 3.38e38) & (np.abs(given_) > 1e-37)
    assert np.all(np.abs(found[finite] - given_[finite]) <= np.abs(given_[finite]) * 2.0**-8)


def test_large_samples_make_fewer_requests_and_too_large_ones_are_refused_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = endpoint(spec("float32", "batch", 1000))
    for room in (payload_room, inputs_room):
        monkeypatch.setattr(room, "MAX_BYTES", 100_000)
        monkeypatch.setattr(room, "DISTINCT_BYTES", 20_000)
    made = inputs_room.distinct_inputs(large, 1, 1)
    assert made["x"].shape == (5, 1000)
    assert len(Payload.build(large, made).requests) == 5
    assert len(Payload.build(large, made, batch=4).requests) == 1
    assert inputs_room.distinct_inputs(large, 2, 1, protocol="json")["x"].shape == (1, 1000)
    with pytest.raises(ConfigError, match="30 requests of 4000 bytes each"):
        Payload.build(large, {"x": np.zeros((30, 1000), np.float32)}, count=30)
    huge = endpoint(spec("float32", "batch", 10**12))
    with pytest.raises(ConfigError, match="requests of 4000000000000 bytes exceed"):
        inputs_room.distinct_inputs(huge, 1, 1)


def test_what_numpy_cannot_say_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be strings or bytes"):
        Payload.build(endpoint(spec("object", "batch", 4)), {"x": np.array([[1, 2, 3, 4]], dtype=object)})


def test_a_payload_survives_the_disk(tmp_path: Path) -> None:
    samples = np.array([[b"a", b"bb", b"", b"ccc"]] * 2, dtype=object)
    samples[1, 0] = b"other"
    payload = Payload.build(endpoint(spec("object", "batch", 4)), {"x": samples})
    payload.save(tmp_path / "payload.npz")
    again = Payload.read(tmp_path / "payload.npz")
    assert again.requests == payload.requests
    assert (again.batch, again.digest, again.protocol) == (payload.batch, payload.digest, "http")
    (tmp_path / "payload.npz").write_bytes(b"")
    with pytest.raises(IntegrityError):
        Payload.read(tmp_path / "payload.npz")


def test_json_says_the_same_as_bytes() -> None:
    samples = np.random.default_rng(0).random((3, 4)).astype(np.float32)
    [request, *_] = Payload.build(endpoint(spec()), {"x": samples}, protocol="json").requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert b"Inference-Header" not in head
    assert f"Content-Length: {len(body)}".encode() in head
    [tensor] = json.loads(body)["inputs"]
    assert (tensor["shape"], tensor["datatype"]) == ([1, 4], "FP32")
    assert np.array_equal(np.array(tensor["data"], np.float32), samples[0])


@pytest.mark.parametrize(
    ("dtype", "samples", "message"),
    [
        ("float16", np.zeros((1, 4), np.float16), "half precision"),
        ("float32", np.full((1, 4), np.inf, np.float32), "NaN or infinity"),
        ("object", np.array([[b"a", b"\xff", b"", b""]], dtype=object), "UTF-8"),
    ],
)
def test_what_json_cannot_say_is_refused(dtype: str, samples: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Payload.build(endpoint(spec(dtype, "batch", 4)), {"x": samples}, protocol="json")


def test_a_grpc_message_is_triton_s_own() -> None:
    pb = pytest.importorskip("tritonclient.grpc.service_pb2")
    samples = np.arange(8, dtype=np.float32).reshape(2, 4)
    payload = Payload.build(endpoint(spec()), {"x": samples}, protocol="grpc")
    message = pb.ModelInferRequest.FromString(payload.requests[1])
    assert (message.model_name, message.model_version) == ("a model", "3")
    assert message.raw_input_contents == [samples[1].astype("<f4").tobytes()]
    assert list(message.inputs[0].shape) == [1, 4]
    assert [output.name for output in message.outputs] == ["y"]


@given(samples=st.integers(1, 20), batch=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_shared_memory_holds_every_tensor_once_and_answers_apart(samples: int, batch: int) -> None:
    array = np.arange(samples * 3, dtype=np.float32).reshape(samples, 3)
    payload = Payload.build(endpoint(spec("float32", "batch", 3)), {"x": array}, batch=batch, protocol="shm")
    source, sink = payload.regions
    plain = Payload.build(endpoint(spec("float32", "batch", 3)), {"x": array}, batch=batch)
    taken = []
    for request, other in zip(payload.requests, plain.requests, strict=True):
        part = json.loads(request.partition(b"\r\n\r\n")[2])
        [given], [asked] = [part[side] for side in ("inputs", "outputs")]
        at, size = given["parameters"].get("shared_memory_offset", 0), given["parameters"]["shared_memory_byte_size"]
        assert given["parameters"]["shared_memory_region"] == source.name
        assert source.data[at : at + size] == parsed(other)[3]
        place = asked["parameters"]
        taken.append((place.get("shared_memory_offset", 0), place["shared_memory_byte_size"]))
        assert (place["shared_memory_region"], taken[-1][1]) == (sink.name, batch * 2 * 4)
    ends = [0, *(at + size for at, size in taken)]
    assert all(at >= end for (at, _), end in zip(taken, ends, strict=False))
    assert ends[-1] <= sink.size


def test_an_answer_of_unknown_size_comes_back_as_bytes() -> None:
    free = Endpoint(
        url="127.0.0.1:8000",
        model="m",
        version="1",
        inputs=(spec(),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", "axis_1")),),
    )
    payload = Payload.build(free, {"x": np.zeros((1, 4), np.float32)}, protocol="shm")
    assert len(payload.regions) == 1
    [asked] = json.loads(payload.requests[0].partition(b"\r\n\r\n")[2])["outputs"]
    assert asked["parameters"] == {"binary_data": True}


def test_no_such_protocol() -> None:
    with pytest.raises(ConfigError, match="smoke"):
        Payload.build(endpoint(spec()), {"x": np.zeros((1, 4), np.float32)}, protocol="smoke")  # type: ignore[arg-type]


def test_importing_the_load_room_brings_in_nothing_heavy() -> None:
    """Locust patches sockets and threads of the whole process that imports it."""
    script = "import sys, seatrial.bench.load.on_locust, seatrial.bench.load.summary; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    heavy = {"locust", "gevent", "torch", "onnxruntime", "tritonclient", "grpc", "scipy", "plotly"}
    assert heavy.isdisjoint(done.stdout.split())
