"""A list of malformed bodies for the target's model, by name; ``ok`` is well-formed. Pure."""

import json
from collections.abc import Mapping
from typing import Any

_DATA = [0.0] * 4


def _input(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": _DATA, **changes}


def _body(value: Any) -> bytes:
    return json.dumps(value).encode()


def _one(**changes: Any) -> bytes:
    return _body({"inputs": [_input(**changes)]})


def _numbers(text: bytes) -> bytes:
    return b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[' + b",".join([text] * 4) + b"]}]}"


def _asked(**top: Any) -> bytes:
    return _body({**top, "inputs": [_input()]})


_SHM = {"name": "x", "datatype": "FP32", "shape": [1, 4]}
BODIES: Mapping[str, bytes] = {
    "empty object": b"{}",
    "empty": b"",
    "null": b"null",
    "array": b"[]",
    "garbage": b"\xff\xfe\x00",
    "not json": b"hello",
    "inputs {}": _body({"inputs": {}}),
    "inputs []": _body({"inputs": []}),
    "inputs [null]": _body({"inputs": [None]}),
    "name int": _one(name=3),
    "no datatype": _body({"inputs": [{"name": "x", "shape": [1, 4], "data": _DATA}]}),
    "datatype BYTES": _one(datatype="BYTES", data=["a"] * 4),
    "datatype nonsense": _one(datatype="NOPE"),
    "shape negative": _one(shape=[-1, 4]),
    "shape zero": _one(shape=[0, 4], data=[]),
    "shape huge": _one(shape=[2**62, 2**62]),
    "shape overflow": _one(shape=[2**61, 4], data=[]),
    "shape string": _one(shape="x"),
    "shape float": _one(shape=[1.5, 4]),
    "batch 33": _one(shape=[33, 4], data=[0.0] * 33 * 4),
    "little data": _one(data=[0.0]),
    "data strings": _one(data=["x"] * 4),
    "data NaN": _numbers(b"NaN"),
    "data infinite": _numbers(b"1e400"),
    "data nested 500": _one(data=["HERE"]).replace(b'"HERE"', b"[" * 500 + b"0.0" + b"]" * 500),
    "deep 1e4": b"[" * 10**4,
    "deep 1e5": b"[" * 10**5,
    "deep closed 1e5": b"[" * 10**5 + b"]" * 10**5,
    "deep objects": b'{"a":' * 10**5,
    "shared memory": _body(
        {"inputs": [_SHM | {"parameters": {"shared_memory_region": "x", "shared_memory_byte_size": 16}}]}
    ),
    "binary size negative": _body({"inputs": [_SHM | {"parameters": {"binary_data_size": -1}}]}),
    "binary size huge": _body({"inputs": [_SHM | {"parameters": {"binary_data_size": 2**63 - 1}}]}),
    "priority huge": _asked(parameters={"priority": 2**63}),
    "timeout negative": _asked(parameters={"timeout": -1}),
    "sequence": _asked(parameters={"sequence_id": 5, "sequence_start": True}),
    "parameters nested": _asked(parameters={"a": {"b": 1}}),
    "parameters escapes": _asked(parameters={"\x1b[31m": "<script>"}),
    "classification 1e9": _asked(outputs=[{"name": "y", "parameters": {"classification": 10**9}}]),
    "classification -1": _asked(outputs=[{"name": "y", "parameters": {"classification": -1}}]),
    "output unknown": _asked(outputs=[{"name": "nope"}]),
    "output shared memory": _asked(
        outputs=[{"name": "y", "parameters": {"shared_memory_region": "x", "shared_memory_byte_size": 40}}]
    ),
    "inputs 1e4": _body(
        {"inputs": [{"name": f"i{n}", "datatype": "FP32", "shape": [1], "data": [0]} for n in range(10_000)]}
    ),
    "outputs 1e4": _asked(outputs=[{"name": "y"}] * 10_000),
    "id int": _asked(id=5),
    "id long": _asked(id="x" * 10**6),
    "id NUL": _asked(id="a\x00b"),
    "surrogate": b'{"id":"\\ud800","inputs":[]}',
    "inputs twice": _body({"inputs": [_input(), _input()]}),
    "ok": _asked(),
}
