"""The bodies of the grammar: JSON of wrong depth, type or number, and binary tensors that do not fit. Pure."""

import json
import struct
from collections.abc import Sequence
from random import Random
from typing import Any

from scripts.benchmarks.hostile import MARK, Hostile, Maker, Target, body, request, tensor

DEPTHS = (50, 65, 200, 500, 1000, 5000, 20_000, 40_000, 100_000, 200_000)


def sent(target: Target, content: bytes, kind: str, **more: Any) -> Hostile:
    """Return one POST of that body."""
    return Hostile(family="json", kind=kind, program=(request(target, content),), **more)


def nested(random: Random, depth: int) -> bytes:
    """Return something nested that deep: arrays, objects or both, closed or not."""
    kind = random.choice(("arrays", "objects", "mixed", "open arrays", "open objects", "keys"))
    if kind == "arrays":
        return b"[" * depth + b"0" + b"]" * depth
    if kind == "objects":
        return b'{"a":' * depth + b"0" + b"}" * depth
    if kind == "mixed":
        return b'[{"a":' * (depth // 2) + b"0" + b"}]" * (depth // 2)
    if kind == "keys":
        return b'{"a":0,"b":' * depth + b"0" + b"}" * depth
    return (b"[" if kind == "open arrays" else b'{"a":') * depth


def deep(random: Random, target: Target) -> Hostile:
    """Nesting at any place of a request, up to 200,000 deep."""
    inner, place = nested(random, random.choice(DEPTHS)), random.choice(_PLACES)
    content = place(target, random, inner)
    return sent(target, content, "deep")


def _with(text: bytes, inner: bytes) -> bytes:
    return text.replace(b'"HERE"', inner, 1)


_PLACES = (
    lambda target, random, inner: inner,
    lambda target, random, inner: b" \n\t" + inner,
    lambda target, random, inner: b'{"inputs":' + inner + b"}",
    lambda target, random, inner: _with(body(target, random, data="HERE"), inner),
    lambda target, random, inner: _with(body(target, random, data=["HERE"]), inner),
    lambda target, random, inner: _with(body(target, random, shape="HERE"), inner),
    lambda target, random, inner: _with(body(target, random, name="HERE"), inner),
    lambda target, random, inner: _with(body(target, random, parameters={"p": "HERE"}), inner),
    lambda target, random, inner: _with(body(target, random, top_parameters={"p": "HERE"}), inner),
    lambda target, random, inner: _with(body(target, random, top_outputs=["HERE"]), inner),
    lambda target, random, inner: _with(body(target, random, top_id="HERE"), inner),
    lambda target, random, inner: _with(body(target, random, top_unknown="HERE"), inner),
    lambda target, random, inner: body(target, random) + inner,
    lambda target, random, inner: b'{"a":"\\"[[[","b":' + inner + b"}",
    lambda target, random, inner: b'{"\\"":"]]]]\\\\","b":' + inner + b"}",
    lambda target, random, inner: b"\xef\xbb\xbf" + inner,
    lambda target, random, inner: json.dumps({"id": inner.decode()}).encode(),
)


def deep_binary(random: Random, target: Target) -> Hostile:
    """Nesting in the JSON part of a request with binary tensors."""
    inner = nested(random, random.choice(DEPTHS))
    raw = struct.pack(f"<{target.width}f", MARK, 0, 0, 0)
    text = _with(body(target, random, data=None, parameters={"binary_data_size": len(raw), "p": "HERE"}), inner)
    text = text.replace(b'"data": null, ', b"")
    headers = [("Inference-Header-Content-Length", str(len(text)))]
    return Hostile(family="json", kind="deep-binary", program=(request(target, text + raw, headers=headers),))


def deep_elsewhere(random: Random, target: Target) -> Hostile:
    """Nesting sent to interfaces that parse JSON too, and in chunks."""
    inner = nested(random, random.choice(DEPTHS))
    path = random.choice(
        (
            f"/v2/models/{target.model}/versions/1/infer",
            f"/v2/models/{target.model}/generate",
            f"/v2/models/{target.model}/ready",
            "/v2/repository/index",
            f"/v2/repository/models/{target.model}/load",
            "/v2/logging",
            "/v2/systemsharedmemory/region/x/register",
        )
    )
    if random.random() < 0.5:
        return Hostile(family="json", kind="deep-elsewhere", program=(request(target, inner, path=path),))
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(part), part) for part in (inner[at : at + 7001] for at in range(0, len(inner), 7001))
    )
    coded = request(target, chunks + b"0\r\n\r\n", path=path, headers=[("Transfer-Encoding", "chunked")], sized=False)
    return Hostile(family="json", kind="deep-chunked", program=(coded,))


def not_json(random: Random, target: Target) -> Hostile:
    """Bodies that are no JSON, or no JSON object."""
    good = body(target, random)
    content = random.choice(
        (
            b"",
            b"{}",
            b"[]",
            b"null",
            b"0",
            b'"text"',
            b"hello",
            b"{",
            b'{"inputs"',
            b"\xff\xfe\x00",
            b"\x00" * 50,
            b"\xef\xbb\xbf" + good,
            good.decode().encode("utf-16"),
            good + b"trailing",
            good + good,
            b"// comment\n" + good,
            good[:-1] + b",}",
            good.replace(b'"', b"'"),
            good[: random.randrange(1, len(good))],
            b" " * 200_000 + good,
            random.randbytes(random.randint(1, 3000)),
            good.replace(b"inputs", b"in\x00puts"),
            good.replace(b"x", b"\xc3\x28", 1),
            b'{"id":"\\ud800","inputs":[]}',
            b'{"id":"\\u12"}',
            b'{"id":"' + b"\\u0000" * 100 + b'","inputs":[]}',
        )
    )
    return sent(target, content, "not-json")


def wrong_types(random: Random, target: Target) -> Hostile:
    """A field of another type than the protocol's, anywhere."""
    wrong: Any = random.choice((None, 3, -1, 1.5, "x", "", [], {}, [None], True, [[]], {"a": 1}, "NaN", 2**70))
    field = random.choice(
        ("name", "datatype", "shape", "data", "parameters", "top_inputs", "top_outputs", "top_id", "top_parameters")
    )
    return sent(target, body(target, random, **{field: wrong}), "type")


def wrong_fields(random: Random, target: Target) -> Hostile:
    """Fields that are missing, unknown or there twice."""
    value = tensor(target, random)
    match random.randrange(5):
        case 0:
            del value[random.choice(sorted(value))]
            return sent(target, json.dumps({"inputs": [value]}).encode(), "missing")
        case 1:
            text = json.dumps(value).encode()
            twice = b'{"inputs":[%s],"inputs":[%s]}' % (text, text)
            return sent(target, twice, "twice")
        case 2:
            other = json.dumps(value).replace('"name": "x"', '"name": "y", "name": "x", "shape": [0, 4]')
            return sent(target, b'{"inputs":[' + other.encode() + b"]}", "twice")
        case 3:
            return sent(target, json.dumps({"inputs": [value, value]}).encode(), "twice")
        case _:
            return sent(
                target, body(target, random, name=random.choice(("", "nope", "x\x00", "X", "\x1b[31m"))), "name"
            )


def wrong_shapes(random: Random, target: Target) -> Hostile:
    """Shapes that are negative, zero, too large or do not fit the data."""
    wide = target.width
    shape: Any = random.choice(
        (
            [-1, wide],
            [0, wide],
            [1, -wide],
            [2**62, 2**62],
            [2**61, wide],
            [2**63, wide],
            [2**64, wide],
            [1, wide + 1],
            [1],
            [],
            [1, wide, 1],
            [1.5, wide],
            ["1", wide],
            [True, wide],
            [1] * 1000 + [wide],
            [17, wide],
            [1_000_000, wide],
            [1, 2**62],
        )
    )
    data: Any = random.choice((None, [], [0.0], [0.0] * wide, [MARK] * (wide * 17)))
    changes: dict[str, Any] = {"shape": shape} | ({} if data is None else {"data": data})
    return sent(target, body(target, random, **changes), "shape")


def wrong_numbers(random: Random, target: Target) -> Hostile:
    """Numbers that are none, or too large, in data and elsewhere."""
    number = random.choice(
        (
            b"NaN",
            b"Infinity",
            b"-Infinity",
            b"1e400",
            b"-1e400",
            b"1e-999",
            b"0x10",
            b"01",
            b"+1",
            b".5",
            b"1.",
            b"9" * 400,
            b"1" + b"0" * 100000,
            b"1e" + b"9" * 1000,
            b"-0",
            b"nan",
            b"true",
            b'"1"',
            b"null",
            b"0." + b"3" * 50000,
        )
    )
    text = body(target, random, data=["HERE"] + [0.0] * (target.width - 1))
    return sent(target, _with(text, number), "number")


def parameters(random: Random, target: Target) -> Hostile:
    """Parameters that steer Triton: shared memory, priorities, timeouts, sequences, classification."""
    top: Any = random.choice(
        (
            {"priority": 2**63},
            {"priority": -1},
            {"priority": "high"},
            {"timeout": -1},
            {"timeout": 1},
            {"timeout": 2**64},
            {"sequence_id": 5, "sequence_start": True},
            {"sequence_id": "a" * 5000, "sequence_end": True},
            {"binary_data_output": True},
            {"a": {"b": 1}},
            {"\x1b[31m": "<script>"},
            {"triton_enable_empty_final_response": True},
            {f"p{number}": number for number in range(3000)},
        )
    )
    own: Any = random.choice(
        (
            {},
            {"shared_memory_region": "x", "shared_memory_byte_size": 16},
            {"shared_memory_region": "../../x", "shared_memory_byte_size": 2**63, "shared_memory_offset": -1},
            {"binary_data_size": random.choice((-1, 0, 1, 15, 17, 2**31, 2**63 - 1, 2**64, 1.5, "16"))},
        )
    )
    changes: dict[str, Any] = {"top_parameters": top} | ({"parameters": own} if own else {})
    return sent(target, body(target, random, **changes), "parameters")


def outputs(random: Random, target: Target) -> Hostile:
    """Outputs that are unknown, many, in shared memory or classified."""
    wanted: Any = random.choice(
        (
            [{"name": "nope"}],
            [{"name": "y"}] * random.choice((2, 1000, 10_000)),
            [{"name": "y", "parameters": {"classification": random.choice((10**9, -1, 0, 2**64, "3"))}}],
            [{"name": "y", "parameters": {"shared_memory_region": "x", "shared_memory_byte_size": 40}}],
            [{"name": "y", "parameters": {"binary_data": True}}],
            [{"name": "y", "parameters": {"binary_data": "yes"}}],
            [{"parameters": {}}],
            [{"name": ""}],
            [{"name": "y" * 100_000}],
        )
    )
    return sent(target, body(target, random, top_outputs=wanted), "outputs")


def large(random: Random, target: Target) -> Hostile:
    """Much of something: inputs, a long id, a large batch that is allowed."""
    match random.randrange(4):
        case 0:
            count = random.choice((1000, 10_000))
            inputs = [{"name": f"i{n}", "datatype": "FP32", "shape": [1], "data": [0]} for n in range(count)]
            return sent(target, json.dumps({"inputs": inputs}).encode(), "inputs")
        case 1:
            return sent(target, body(target, random, top_id="x" * random.choice((1000, 10**6))), "id")
        case 2:
            return sent(target, body(target, random, **tensor(target, random, rows=16)), "batch")
        case _:
            keys = ",".join(f'"k{n}":{n}' for n in range(50_000))
            return sent(target, ("{" + keys + "}").encode(), "keys")


def bulky(random: Random, target: Target) -> Hostile:
    """Megabytes of small members, which cost their reader more than their bytes say."""
    size = random.choice((1 << 20, 1 << 20, 4 << 20, 16 << 20))
    head = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,%d],"data":[' % (size // 2)
    content = random.choice(
        (
            lambda: head + b"0," * (size // 2 - 1) + b"0]}]}",
            lambda: b"{" + b'"":0,' * (size // 5) + b'"inputs":[]}',
            lambda: b'{"a":[' + b"[]," * (size // 3) + b'0],"inputs":[]}',
            lambda: b'{"id":"' + b"\\n" * (size // 2) + b'","inputs":[]}',
            lambda: b"{" + b" " * size + b'"inputs":[]}',
        )
    )()
    return sent(target, content, "bulky")


def binary(random: Random, target: Target) -> Hostile:
    """Binary tensors whose sizes lie: in the JSON part, in the header, or in the content."""
    wide = target.width
    raw = struct.pack(f"<{wide}f", MARK, *([0.0] * (wide - 1)))
    claimed = random.choice((16, 15, 17, 0, 1, -1, 4, 1 << 20, 2**31 - 1, 2**63 - 1, 2**64 - 1))
    content = random.choice((raw, raw[:-1], raw + b"\x00", b"", raw * 100))
    shape: Any = random.choice(([1, wide], [1, wide], [2, wide], [0, wide], [2**62, wide]))
    value = {"name": "x", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": claimed}}
    text = json.dumps({"inputs": [value]}).encode()
    length = str(random.choice((len(text), len(text), len(text) + 3, len(text) - 3, len(text) + len(content))))
    headers = [("Inference-Header-Content-Length", length), ("content-type", "application/octet-stream")]
    return Hostile(family="binary", kind="size", program=(request(target, text + content, headers=headers),))


def binary_strings(random: Random, target: Target) -> Hostile:
    """BYTES elements whose lengths lie."""
    raw = random.choice(
        (
            struct.pack("<I", 4) + b"abcd",
            struct.pack("<I", 5) + b"abcd",
            struct.pack("<I", 2**32 - 1) + b"abcd",
            struct.pack("<I", 0) * 1000,
            b"\x01\x00",
            struct.pack("<I", 4) + b"abcd" + b"\x01",
        )
    )
    count = random.choice((1, 2, 1000, 2**40))
    value = {"name": "s", "datatype": "BYTES", "shape": [1, count], "parameters": {"binary_data_size": len(raw)}}
    text = json.dumps({"inputs": [tensor(target, random), value]}).encode()
    headers = [("Inference-Header-Content-Length", str(len(text)))]
    return Hostile(family="binary", kind="strings", program=(request(target, text + raw, headers=headers),))


def binary_types(random: Random, target: Target) -> Hostile:
    """Binary tensors under other data types and names than the model's."""
    raw = struct.pack("<4f", MARK, 0, 0, 0)
    kind = random.choice(("FP64", "BYTES", "INT8", "BF16", "BOOL", "NOPE", "", "fp32"))
    value = {"name": "x", "datatype": kind, "shape": [1, 4], "parameters": {"binary_data_size": len(raw)}}
    text = json.dumps({"inputs": [value]}).encode()
    headers = [("Inference-Header-Content-Length", str(len(text)))]
    return Hostile(family="binary", kind="type", program=(request(target, text + raw, headers=headers),))


def raw_binary(random: Random, target: Target) -> Hostile:
    """The form without any JSON: a length of 0, and a body of any size."""
    sizes = (0, 1, 15, 16, 17, 64, 100_000)
    content = struct.pack("<f", MARK) + b"\x00" * random.choice(sizes)
    headers = [("Inference-Header-Content-Length", "0"), ("content-type", "application/octet-stream")]
    return Hostile(family="binary", kind="raw", program=(request(target, content, headers=headers),))


FAMILIES: dict[str, Sequence[Maker]] = {
    "json": (
        deep,
        not_json,
        deep_binary,
        wrong_types,
        wrong_fields,
        deep_elsewhere,
        wrong_shapes,
        wrong_numbers,
        parameters,
        outputs,
        large,
        bulky,
    ),
    "binary": (binary, binary_strings, binary_types, raw_binary),
}
