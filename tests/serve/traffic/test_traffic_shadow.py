"""Joining two streams by request id: every record is compared, counted by reason, or still waited for."""

import base64
import gzip
import json
import stat
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.bench.errors import AnswerError
from seatrial.bench.load.messages import tensor_bytes
from seatrial.optimize.errors import ConfigError
from seatrial.serve.traffic.envoy import on_capture
from seatrial.serve.traffic.envoy.capture import FILES
from seatrial.serve.traffic.shadow import joining
from seatrial.serve.traffic.shadow.joining import Arm, Recorded, Shadow
from seatrial.serve.traffic.shadow.tensors import answer

Y = np.array([[0.1, 0.9]], np.float32)


def http_body(version: int, y: Any = Y) -> tuple[bytes, str]:
    """A binary KServe v2 reply and its header length."""
    raw = tensor_bytes(y)
    output = {"name": "y", "datatype": "FP32", "shape": list(y.shape), "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"model_name": "net", "model_version": str(version), "outputs": [output]}).encode()
    return head + raw, str(len(head))


def line(request: str, arm: Arm, *, at: float = 1.0, y: Any = Y, **changes: Any) -> bytes:
    """A line as the proxy writes it."""
    body, length = http_body(1 if arm == "stable" else 2, y)
    value = {
        "id": request,
        "at": f"{at:.6f}",
        "seconds": 1500,
        "status": 200,
        "grpc_status": None,
        "flags": "-",
        "content_type": "application/octet-stream",
        "header_length": length,
        "kept": "whole",
        "body": base64.b64encode(body).decode(),
    }
    return json.dumps(value | changes).encode() + b"\n"


def record(request: str, arm: Arm, **changes: Any) -> Recorded:
    return Recorded.parse(line(request, arm, **changes), arm)


def grpc_body(*, packed: bool = False) -> bytes:
    from tritonclient.grpc import service_pb2

    reply = service_pb2.ModelInferResponse(model_name="net", model_version="3")
    reply.outputs.add(name="y", datatype="FP32", shape=[1, 2])
    reply.raw_output_contents.append(tensor_bytes(Y))
    message = reply.SerializeToString()
    message = gzip.compress(message) if packed else message
    return bytes([packed]) + len(message).to_bytes(4, "big") + message


def test_every_wire_gives_the_same_tensors() -> None:
    body, length = http_body(3)
    text = json.dumps(
        {
            "model_name": "net",
            "model_version": "3",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": Y.ravel().tolist()}],
        }
    ).encode()
    for got in (
        answer(body, header_length=length),
        answer(gzip.compress(body), header_length=length, content_encoding="gzip"),
        answer(text, content_type="application/json"),
        answer(grpc_body(), content_type="application/grpc"),
        answer(grpc_body(packed=True), content_type="application/grpc+proto", grpc_encoding="gzip"),
    ):
        assert (got.model, got.version) == ("net", 3)
        np.testing.assert_array_equal(got.outputs["y"], Y)
        assert got.outputs["y"].dtype == np.float32


@settings(max_examples=60)
@given(st.binary(max_size=80), st.sampled_from(["application/grpc", "application/json"]), st.sampled_from(["", "gzip"]))
def test_no_bytes_break_the_reader(body: bytes, kind: str, encoding: str) -> None:
    with pytest.raises(AnswerError):
        answer(body, content_type=kind, content_encoding=encoding)
    with pytest.raises(AnswerError):
        answer(grpc_body()[:-3], content_type="application/grpc")


def test_a_pair_is_compared_whichever_comes_first() -> None:
    for arms in (("stable", "candidate"), ("candidate", "stable")):
        joined = Shadow(stable=1, candidate=2)
        assert joined.add(record("a", arms[0]), 0.0) == ()
        (found,) = joined.add(record("a", arms[1]), 1.0)
        assert (found.request, found.same) == ("a", 1.0)
        assert not joined.unmatched
        assert not joined.aside


@pytest.mark.parametrize(
    ("stable", "candidate", "unmatched", "aside"),
    [
        ({}, {"status": 503, "flags": "UO", "kept": None, "body": ""}, joining.BREAKER, ""),
        ({}, {"status": 504, "flags": "UT", "kept": None, "body": ""}, joining.LATE, ""),
        ({}, {"status": 200, "grpc_status": 14, "flags": "UO"}, joining.BREAKER, ""),
        ({}, {"status": 200, "grpc_status": 13}, joining.FAILED, ""),
        ({}, {"status": 500}, joining.FAILED, ""),
        ({}, {"status": 503, "flags": "UF,URX"}, joining.UNREACHABLE, ""),
        ({}, {"status": 503, "flags": "UF"}, joining.UNREACHABLE, ""),
        ({}, {"status": 400}, joining.REFUSED, ""),
        ({"kept": "too large", "body": None}, {}, joining.TOO_LARGE, ""),
        ({}, {"kept": "over budget", "body": None}, joining.OVER_BUDGET, ""),
        ({}, {"kept": None, "body": None}, joining.CUT, ""),
        ({}, {"body": base64.b64encode(b"{}").decode()}, joining.UNREADABLE, ""),
        ({"status": 400}, {"status": 400}, "", joining.NOT_WELL),
        ({"body": base64.b64encode(http_body(2)[0]).decode()}, {}, "", joining.OWN),
        ({}, {"body": base64.b64encode(http_body(3)[0]).decode()}, "", joining.OTHER),
    ],
)
def test_what_cannot_be_compared_is_counted_by_reason(
    stable: dict[str, Any], candidate: dict[str, Any], unmatched: str, aside: str
) -> None:
    joined = Shadow(stable=1, candidate=2)
    joined.add(record("a", "stable", **stable), 0.0)
    assert joined.add(record("a", "candidate", **candidate), 0.0) == ()
    assert dict(joined.unmatched) == ({unmatched: 1} if unmatched else {})
    assert dict(joined.aside) == ({aside: 1} if aside else {})


def test_whose_counterpart_never_comes_is_counted_after_a_while_and_not_before() -> None:
    joined = Shadow(wait=5.0)
    joined.add(record("a", "stable"), 0.0)
    joined.add(record("b", "candidate"), 1.0)
    joined.expire(4.0)
    assert (joined.waiting, joined.unmatched.total()) == (2, 0)
    joined.expire(5.5)
    assert dict(joined.unmatched) == {joining.MISSING: 1}
    joined.close()
    assert dict(joined.unmatched) == {joining.MISSING: 1, joining.UNSEEN: 1}


EVENTS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["stable", "candidate"])), max_size=40)
RECORDS = {(each, arm): record(each, arm) for each in "abcdefgh" for arm in FILES}


@given(EVENTS, st.integers(1, 6))
@pytest.mark.slow
def test_no_stable_record_is_lost(events: list[tuple[str, Arm]], most: int) -> None:
    joined = Shadow(most_waiting=most)
    for number, each in enumerate(events):
        joined.add(RECORDS[each], float(number))
        assert joined.waiting <= most + 1
    joined.close()
    counted = len(joined.found) + joined.unmatched.total() - joined.unmatched[joining.UNSEEN] + joined.aside.total()
    assert counted == sum(arm == "stable" for _, arm in events)


@given(EVENTS)
@pytest.mark.slow
def test_ids_that_come_once_are_compared_in_whatever_order(events: list[tuple[str, Arm]]) -> None:
    once = list(dict.fromkeys(events))
    joined = Shadow()
    for each in once:
        joined.add(RECORDS[each], 0.0)
    joined.close()
    both = {each for each, arm in once if arm == "stable"} & {each for each, arm in once if arm == "candidate"}
    assert {each.request for each in joined.found} == both


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"id": "a"}', '{"id": "a", "at": "now"}', '{"id":"a","at":1,"body":"?"}']
)
def test_a_line_that_is_none_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Recorded.parse(text, "stable")


def test_files_are_private_read_while_they_grow_rotated_and_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "capture"
    on_capture.make_private(folder)
    files = [folder / FILES["stable"], folder / FILES["candidate"]]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600, 0o600]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    reopened: list[float] = []
    collector = on_capture.Collector(folder, lambda: reopened.append(time.time()), most_bytes=3000)
    one = line("a", "stable")
    files[0].write_bytes(one + one[:20])
    assert [each.id for each in collector.poll()] == ["a"]
    with files[0].open("ab") as file:
        file.write(one[20:] + b"no line\n" + line("b", "stable") * 6)
    assert [each.id for each in collector.poll()] == ["a", *"bbbbbb"]
    assert (collector.unreadable, len(reopened)) == (1, 1)
    old = [path for path in folder.glob("*.log.*") if path.stat().st_size]
    assert len(old) == 1
    with old[0].open("ab") as file:  # the proxy flushes what it still held
        file.write(line("late", "stable"))
    assert [each.id for each in collector.poll()] == ["late"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600, 0o600]
    monkeypatch.setattr(on_capture, "_SETTLED", -1.0)
    assert list(collector.poll()) == []
    assert list(folder.glob("*.log.*")) == []
    collector.forget_all()
    assert list(folder.iterdir()) == []


def test_a_folder_is_read_to_its_end_rotated_files_first(tmp_path: Path) -> None:
    (tmp_path / "stable.log.17").write_bytes(line("a", "stable", at=1.0) + b"{\n")
    (tmp_path / "stable.log").write_bytes(line("b", "stable", at=2.0) + line("c", "stable", at=3.0))
    (tmp_path / "candidate.log").write_bytes(line("b", "candidate", at=2.0) + line("a", "candidate", at=2.1))
    found, unreadable = on_capture.read(tmp_path)
    assert {each.request for each in found.found} == {"a", "b"}
    assert (dict(found.unmatched), unreadable) == ({joining.MISSING: 1}, 1)
    with pytest.raises(ConfigError, match="no capture"):
        on_capture.read(tmp_path / "gone")
