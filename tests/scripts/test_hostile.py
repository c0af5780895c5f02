"""The grammar of hostile requests, how responses are read, and what is judged a breach. Nothing is sent."""

import json
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from scripts.benchmarks.attack_edge import cut, p99, spread
from scripts.benchmarks.hostile import Hostile, Target, grammar, made
from scripts.benchmarks.hostile_bodies import BODIES
from scripts.benchmarks.hostile_grpc import field, varint
from scripts.benchmarks.hostile_verdict import breaches, kind, unlogged
from scripts.benchmarks.hostile_wire import Outcome, Response, responses_of
from seatrial.bench.load import http2

TARGET = Target()
SERVED = Response(status=200, label="1", model="target", said="1", said_model="target", id="a", size=90)
ROUTED = frozenset("12")


def test_the_same_seed_makes_the_same_requests_and_another_seed_others() -> None:
    first, again, other = (list(made(seed, 160, TARGET)) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_every_family_and_every_maker_takes_part() -> None:
    families = grammar()
    count = len(families) * max(map(len, families.values()))
    found = list(made(7, count, TARGET))
    assert set(Counter(each.family for each in found)) == set(families)
    assert len({(each.family, each.kind) for each in found}) >= 60


def test_every_maker_makes_something_bounded_that_survives_json() -> None:
    for name, makers in grammar().items():
        for maker in makers:
            assert maker.__doc__, maker
            attack = maker(Random(name + maker.__name__), replace(TARGET, user="u1"))
            assert Hostile.from_json(json.loads(json.dumps(attack.to_json()))) == attack
            assert attack.program
            assert attack.seconds <= 5.0
            assert attack.size <= 64 << 20


def test_only_some_families_can_be_made() -> None:
    assert {each.family for each in made(3, 20, TARGET, families=("grpc",))} == {"grpc"}


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**63])
def test_a_padded_varint_says_the_same(value: int) -> None:
    def read(content: bytes) -> int:
        assert all(byte & 128 for byte in content[:-1])
        assert not content[-1] & 128
        return sum((byte & 127) << 7 * at for at, byte in enumerate(content))

    assert read(varint(value)) == read(varint(value, length=10)) == value
    assert len(varint(value, length=10)) == 10


def test_the_fields_are_those_of_the_protocol() -> None:
    service_pb2 = pytest.importorskip("tritonclient.grpc.service_pb2")
    from scripts.benchmarks.hostile_grpc import message

    read = service_pb2.ModelInferRequest.FromString(message(TARGET, version="3") + field(200, b"unknown"))
    assert (read.model_name, read.model_version, read.inputs[0].name) == ("target", "3", "x")
    assert list(read.inputs[0].shape) == [1, 4]
    swallowed = message(TARGET, version="3") + varint(26) + varint(11) + field(1, b"target") + field(2, b"1")
    read = service_pb2.ModelInferRequest.FromString(swallowed)
    assert (read.model_version, len(read.id)) == ("3", 11)  # the appended version became the id


def test_header_blocks_are_read_back() -> None:
    pairs = [(b":status", b"200"), (b"x-long", b"v" * 300), (b"", b""), (b"x-\xff", b"\x00")]
    assert list(http2.fields(http2.block(pairs))) == pairs
    # RFC 7541, C.4.1 and C.6.1: Huffman codes and the static table
    request = bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff")
    assert dict(http2.fields(request))[b":authority"] == b"www.example.com"
    response = bytes.fromhex("488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff")
    assert dict(http2.fields(response)) == {
        b":status": b"302",
        b"cache-control": b"private",
        b"date": b"Mon, 21 Oct 2013 20:13:21 GMT",
    }


def test_frames_are_split_as_they_were_joined() -> None:
    content = http2.frame(http2.PING, b"8 bytes.") + http2.data(b"d" * 40_000, stream=3) + b"\x00\x00"
    frames, rest = http2.split(content)
    assert [each.kind for each in frames] == [http2.PING, *[http2.DATA] * 3]
    assert (b"".join(each.payload for each in frames[1:]), rest) == (b"d" * 40_000, b"\x00\x00")


def test_responses_are_read_from_http() -> None:
    attack = Hostile(family="f", kind="k")
    body = b'{"model_name":"target","model_version":"2","outputs":[]}'
    head = b"HTTP/1.1 200 OK\r\nx-model-version: 2\r\nx-request-id: r\r\n"
    whole = head + b"content-length: %d\r\n\r\n" % len(body) + body
    chunked = head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    refused = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n"
    found = list(responses_of(attack, whole + chunked + refused + whole[:-1]))
    assert [(each.status, each.said, each.label) for each in found] == [(200, "2", "2"), (200, "2", "2"), (401, "", "")]


def test_responses_are_read_from_streams() -> None:
    attack = Hostile(family="f", kind="k", protocol="h2")
    message = field(1, b"target") + field(2, b"3")
    content = http2.frame(http2.SETTINGS) + http2.headers(
        [(b":status", b"200"), (b"content-type", b"application/grpc"), (b"x-model-version", b"1")]
    )
    content += http2.data(b"\x00" + len(message).to_bytes(4, "big") + message, end=False)
    content += http2.headers([(b"grpc-status", b"0")], end=True)
    (found,) = responses_of(attack, content)
    assert (found.grpc, found.said_model, found.said, found.label, found.served) == (0, "target", "3", "1", True)


def outcome(*responses: Response, ended: str = "answered") -> Outcome:
    return Outcome.from_json(
        {"number": 0, "began": 0.0, "seconds": 1.0, "ended": ended, "received": 1}
        | {"responses": [{name: getattr(each, name) for name in Response.__slots__} for each in responses]}
    )


@pytest.mark.parametrize(
    ("most", "ended", "response", "expected"),
    [
        ("served", "answered", SERVED, ""),
        ("refused", "answered", SERVED, "had to be refused"),
        ("served", "answered", replace(SERVED, said="3"), "the header says 1"),
        ("served", "answered", replace(SERVED, said="3", label="3"), "routed are 1, 2"),
        ("served", "answered", replace(SERVED, said_model="secret"), "model secret answered"),
        ("served", "answered", replace(SERVED, status=401, said=""), "names version 1"),
        ("served", "answered", replace(SERVED, status=401, said="", label=""), ""),
        ("served", "silent", None, "no response and no close"),
        ("served", "closed", None, ""),
    ],
)
def test_what_must_never_happen_is_seen(most: str, ended: str, response: Response | None, expected: str) -> None:
    attack = Hostile(family="f", kind="k", most="refused" if most == "refused" else "served")
    found = breaches(attack, outcome(*[response] if response else [], ended=ended), TARGET, ROUTED)
    assert bool(found) == bool(expected)
    assert expected in " ".join(found)


def test_an_unfinished_request_may_be_left_waiting() -> None:
    assert not breaches(Hostile(family="f", kind="k", ends=False), outcome(ended="silent"), TARGET, ROUTED)


def test_what_the_log_does_not_name_is_seen() -> None:
    assert not unlogged(outcome(SERVED), {"a": "1"})
    assert unlogged(outcome(SERVED), {"a": "2"})
    assert unlogged(outcome(SERVED), {})
    assert unlogged(outcome(replace(SERVED, id="")), {"": "1"})


def test_the_worst_response_names_the_outcome() -> None:
    refused = replace(SERVED, status=400)
    failed = replace(SERVED, status=200, grpc=14)
    kinds = [outcome(SERVED, refused), outcome(refused, failed), outcome(refused), outcome(ended="silent")]
    assert [kind(each) for each in kinds] == ["served", "failed", "refused", "silent"]
    assert kind(outcome(ended="reset")) == "closed"


def test_attacks_fall_into_their_windows() -> None:
    windows = cut(60.0)
    assert len(windows) == 6
    attacks = list(made(2, 40, TARGET))
    dues = spread(windows[1::2], attacks)
    assert all(any(begin <= due <= end for begin, end in windows[1::2]) for due in dues)
    assert not any(any(begin < due < end for begin, end in windows[::2]) for due in dues)


def test_the_tail_is_the_tail() -> None:
    assert p99([float(value) for value in range(1000)]) == 990.0
    assert p99([]) == 0.0


def test_the_list_of_bodies_holds_one_good_one() -> None:
    assert json.loads(BODIES["ok"])["inputs"][0]["shape"] == [1, 4]
    assert len(BODIES) == 49
