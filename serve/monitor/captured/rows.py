"""Rows of a capture: what the policy keeps of the tensors of one request and its answer. Pure.

Values are kept as text that reads back exactly: integers and floats in their shortest exact form, text as it is, and a
field of several elements as a JSON list.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .policy import TIME, Capture, Kept

Tensors = Mapping[str, NDArray[Any]]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """One request, decoded as far as it could be; `reason` says why a side has no tensors, or why it failed."""

    request: str
    at: float
    version: int | None
    digest: str
    status: int
    grpc_status: str = ""
    seconds: float = 0.0
    reason: str = ""
    worker: str = ""
    sequence: int = 0
    inputs: Tensors = field(default_factory=dict)
    outputs: Tensors = field(default_factory=dict)

    @property
    def shapes(self) -> str:
        """Return type and shape of every tensor, by side."""
        sides = {"input": self.inputs, "output": self.outputs}
        found = {
            side: {name: [str(each.dtype), list(each.shape)] for name, each in tensors.items()}
            for side, tensors in sides.items()
        }
        return json.dumps(found)


def rows(captured: Captured, capture: Capture, key: bytes) -> list[Row]:
    """Return the rows of a request, one for each sample; one without content where nothing could be decoded.

    `key` is the secret of the hashes.
    """
    facts: Row = {
        "request": captured.request,
        TIME: captured.at,
        "version": captured.version,
        "digest": captured.digest,
        "status": captured.status,
        "grpc_status": captured.grpc_status,
        "reason": captured.reason,
        "seconds": captured.seconds,
        "shapes": captured.shapes,
        "worker": captured.worker,
        "sequence": captured.sequence,
    }
    count = samples(captured, batched=capture.batched)
    columns = {
        name: _column(name, kept, captured, count=count, batched=capture.batched, key=key)
        for name, kept in capture.fields.items()
        if kept.keep != "drop"
    }
    return [facts | {"row": at} | {name: values[at] for name, values in columns.items()} for at in range(count)]


def samples(captured: Captured, *, batched: bool) -> int:
    """Return how many rows a request becomes: the common first axis, 1 where there is none."""
    arrays = [*captured.inputs.values(), *captured.outputs.values()]
    firsts = {each.shape[0] if each.ndim else 1 for each in arrays}
    return max(1, firsts.pop()) if batched and len(firsts) == 1 else 1


def _column(name: str, kept: Kept, captured: Captured, *, count: int, batched: bool, key: bytes) -> list[str | None]:
    tensors = captured.inputs if kept.side == "input" else captured.outputs
    array = tensors.get(kept.tensor or name)
    if array is None or array.size == 0:
        return [None] * count
    table = array.reshape(count, -1) if batched and array.ndim and array.shape[0] == count else array.reshape(1, -1)
    if len(table) != count or (kept.index is not None and kept.index >= table.shape[1]):
        return [None] * count
    parts = table if kept.index is None else table[:, kept.index : kept.index + 1]
    return [_kept(text(each), kept, key) for each in parts]


def _kept(value: str, kept: Kept, key: bytes) -> str:
    if kept.keep == "allow":
        return value
    if kept.keep == "hash":
        return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()[:32]
    return "*"


def text(elements: NDArray[Any]) -> str:
    """Return one element as text, several as a JSON list of such texts and numbers."""
    plain = [_plain(each) for each in elements.tolist()]
    if len(plain) == 1:
        return plain[0] if isinstance(plain[0], str) else repr(plain[0])
    return json.dumps(plain)


def _plain(value: Any) -> Any:
    return value.decode("utf-8", errors="backslashreplace") if isinstance(value, bytes) else value


def tensor(column: list[str | None], dtype: str, *, whole: bool) -> NDArray[Any] | None:
    """Return the elements of an allowed column, [rows, elements]; None where one is missing or was not kept.

    `whole`: each text is all of a sample (a JSON list, or one element), else one element.
    """
    found = []
    for each in column:
        if each is None:
            return None
        values = json.loads(each) if whole and each.startswith("[") else [each]
        found.append([_element(value, dtype) for value in values])
    return np.array(found, dtype=np.dtype(dtype))


def _element(value: Any, dtype: str) -> Any:
    kind = np.dtype(dtype).kind
    if kind == "b":
        return value in (True, "True")
    if kind in "iu":
        return int(value)
    return float(value) if kind == "f" else str(value).encode()
