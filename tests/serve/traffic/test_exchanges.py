"""Entries of the access log stream: read as they were written, refused where cut; requests of each wire decoded."""

import base64
import json

import numpy as np
import pytest

from seatrial.bench.errors import AnswerError
from seatrial.optimize.errors import ConfigError
from seatrial.serve.traffic.edge import Recording
from seatrial.serve.traffic.envoy.exchanges import exchanges
from seatrial.serve.traffic.envoy.programs import recording
from seatrial.serve.traffic.envoy.recording import BODIES, FACTS
from seatrial.serve.traffic.shadow import tensors


def varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


def field(number: int, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def entry_of(number: int, name: str, value: bytes) -> bytes:
    return field(number, field(1, name) + field(2, value))


def struct(**values: str) -> bytes:
    return b"".join(entry_of(1, name.replace("_", "-"), field(3, value)) for name, value in values.items())


def message(*, facts: bytes, bodies: bytes = b"", cluster: str = "scenes_v12_grpc", code: int = 200) -> bytes:
    metadata = entry_of(1, "other", struct(x="y")) + entry_of(1, FACTS, facts) + entry_of(1, BODIES, bodies)
    common = field(5, field(1, 1_700_000_000) + field(2, 500_000_000)) + field(15, cluster) + field(17, metadata)
    common += field(23, field(2, 7_000_000)) + varint(40 << 3 | 1) + bytes(8)  # a double, which is passed over
    response = field(1, field(1, code)) + field(4, field(1, "content-type") + field(2, "application/json"))
    response += field(5, field(1, "grpc-status") + field(2, "14")) + field(6, "via_upstream")
    entry = field(1, common) + field(2, 3) + field(4, response)
    return field(1, field(2, "recorder")) + field(2, field(1, entry))


def test_an_entry_is_read_as_it_was_written() -> None:
    facts = struct(id="r1", model="scenes", worker="w", sequence="7", request="whole", answer="too large")
    facts += struct(content_type="application/grpc")
    (found,) = exchanges(message(facts=facts, bodies=struct(request=base64.b64encode(b"\0body").decode())))
    assert (found.id, found.model, found.version, found.worker, found.sequence) == ("r1", "scenes", 12, "w", 7)
    assert (found.at, found.seconds, found.status) == (1_700_000_000.5, 0.007, 200)
    assert (found.grpc_status, found.details) == ("14", "via_upstream")
    assert (found.asked.kept, found.asked.content, found.asked.content_type) == ("whole", b"\0body", "application/grpc")
    assert (found.answered.kept, found.answered.content) == ("too large", b"")
    assert found.answered.content_type == "application/json"


def test_a_request_that_no_server_took_has_no_version_and_others_are_passed_over() -> None:
    (found,) = exchanges(message(facts=struct(id="r"), cluster="", code=503))
    assert (found.version, found.status, found.answered.kept) == (None, 503, "")
    assert exchanges(message(facts=struct(model="m"))) == []


def test_a_message_that_was_cut_is_refused() -> None:
    whole = message(facts=struct(id="r1"))
    for size in range(len(whole) - 40, len(whole)):
        with pytest.raises(ValueError, match=r"truncated|no end"):
            exchanges(whole[:size])


X = np.array([[1.5, -2.0], [0.1, 3.0]], np.float32)
TENSOR = {"name": "x", "datatype": "FP32", "shape": [2, 2]}


def test_requests_of_each_wire_are_decoded() -> None:
    plain = json.dumps({"inputs": [TENSOR | {"data": X.astype(float).tolist()}]}).encode()
    head = json.dumps({"id": "é", "inputs": [TENSOR | {"parameters": {"binary_data_size": 16}}]}).encode()
    assert np.array_equal(tensors.request(plain)["x"], X)
    assert np.array_equal(tensors.request(head + X.tobytes(), header_length=str(len(head)))["x"], X)


@pytest.mark.parametrize("raw", [True, False])
def test_grpc_requests_are_decoded_with_raw_and_with_typed_contents(raw: bool) -> None:
    from tritonclient.grpc import service_pb2

    asked = service_pb2.ModelInferRequest(model_name="m")
    each = asked.inputs.add(name="x", datatype="FP32", shape=[2, 2])
    if raw:
        asked.raw_input_contents.append(X.tobytes())
    else:
        each.contents.fp32_contents.extend(X.reshape(-1).tolist())
    body = asked.SerializeToString()
    framed = b"\0" + len(body).to_bytes(4, "big") + body
    assert np.array_equal(tensors.request(framed, content_type="application/grpc")["x"], X)
    with pytest.raises(AnswerError, match="truncated"):
        tensors.request(framed[:-1], content_type="application/grpc")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"inputs": [{}]}', b'{"inputs": 3}', b"\xff"])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(AnswerError, match="not valid KServe v2"):
        tensors.request(body)


def test_each_worker_spends_its_part_of_the_budget_and_wrong_shares_are_refused() -> None:
    source = recording(Recording(share=0.25), b"12345678", facts="f", bodies="b", workers=4)
    assert f"local MOST, BUDGET, BELOW = {64 << 10}, {64 << 20}, {1 << 30}" in source
    for wrong in ({"share": 0.0}, {"share": 1.5}, {"most_bytes": 100, "bytes_per_minute": 10}):
        with pytest.raises(ConfigError):
            Recording(**wrong)
