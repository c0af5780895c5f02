"""The probe: one real request to one version, since every health endpoint calls a dead model ready.

Asks and classifies; heals nothing. The golden request is built from what the server says of the model, the way Triton's
own warm-up does it: zeros of the declared shapes, 1 where a dimension is free or as the model's warm-up has it. A probe
with a deadline can be late because the version is broken or because it is busy; the version's own counter of successes
tells these apart, and a busy version must never be restarted for being late. Where Triton's response cache would answer
for a model that is dead, no two golden requests are alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...errors import ModelLoadError, RequestError, ServerError
from ..control import Array, Control

State = Literal["ok", "busy", "late", "broken", "refused", "unknown"]
"""`busy`: late while other requests are answered; `broken`: a dead process or a missing version; `refused`: an error
of the model itself or an answer of the wrong form; `unknown`: a model that a single request cannot test (stateful).
"""

DEADLINE_SECONDS = 2.0
_TYPES = {"FP16": "float16", "FP32": "float32", "FP64": "float64", "BOOL": "bool"} | {
    f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """Result of one golden request; `answer` is set if the version answered at all."""

    state: State
    reason: str = ""
    answer: Mapping[str, Array] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """A request for a version, and the shapes (None is free) and data types that its answers must have."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, tuple[str, tuple[int | None, ...]]]


def probe(url: str, model: str, version: int, *, deadline: float = DEADLINE_SECONDS) -> Probed:
    """Ask that version one golden request; never raises for what the server or the model does.

    A connection of its own, so it may run in any thread.
    """
    before: int | None = None
    try:
        with Control(url, timeout=deadline) as control:
            asked = golden(control.config(model, version))
            if asked is None:
                return Probed(state="unknown", reason="stateful or decoupled: a single request cannot test it")
            before = control.statistics(model, version).successes
            answer = control.infer(model, version, asked.inputs)
    except RequestError as error:
        if error.status == 503 and ("queue" in error.what or "timeout" in error.what):
            return Probed(state="busy", reason=error.what)  # its queue is full, or the request waited too long in it
        gone = "is not healthy" in error.what or error.status in (404, 503)
        return Probed(state="broken" if gone else "refused", reason=error.what)
    except ServerError as error:
        if before is not None and _advanced(url, model, version, before, deadline):
            return Probed(state="busy", reason=f"no answer within {deadline:g} s, but other requests are answered")
        return Probed(state="late", reason=error.what)
    wrong = misfit(asked, answer)
    return Probed(state="refused" if wrong else "ok", reason=wrong, answer=answer)


def prove(url: str, model: str, version: int, *, beside: int | None = None, deadline: float = 30.0) -> None:
    """Check that a newly loaded version answers a golden request, in the right shapes and with finite numbers.

    Numbers that are not finite are forgiven where the version `beside` it, which serves already, has them too.

    Raises:
        ModelLoadError: it does not, and why.
    """
    found = probe(url, model, version, deadline=deadline)
    reason = found.reason if found.state in ("broken", "refused", "late") else ""
    if not reason and found.answer is not None and (bad := not_finite(found.answer)):
        stable = None if beside is None else probe(url, model, beside, deadline=deadline)
        if stable is None or stable.answer is None or not_finite(stable.answer) != bad:
            reason = f"the answer has NaN or infinity in {', '.join(bad)}"
    if reason:
        raise ModelLoadError(
            f"version {version} loaded, but fails its golden request: {reason}",
            where=f"{model} at {url}",
            next_step="fix the model and place it again; read the server's log",
        )


def golden(config: Mapping[str, Any]) -> Golden | None:
    """The golden request of a model by its configuration; None where a single request cannot try it."""
    if "sequence_batching" in config or config.get("model_transaction_policy", {}).get("decoupled"):
        return None
    lead: tuple[int, ...] = (1,) if config.get("max_batch_size", 0) else ()
    warm = warm_shapes(config)
    inputs = {}
    for tensor in config["input"]:
        if tensor.get("optional"):
            continue
        shape = warm.get(tensor["name"]) or tuple(max(int(size), 1) for size in tensor["dims"])
        kind = tensor["data_type"].removeprefix("TYPE_")
        filled = np.full(lead + shape, b"", dtype=np.object_) if kind == "STRING" else None
        inputs[tensor["name"]] = np.zeros(lead + shape, dtype=_TYPES.get(kind, "float32")) if filled is None else filled
    if config.get("response_cache", {}).get("enable"):
        inputs = {name: _unlike(array) for name, array in inputs.items()}
    free: tuple[int | None, ...] = (1,) if lead else ()
    outputs = {
        tensor["name"]: (
            _TYPES.get(tensor["data_type"].removeprefix("TYPE_"), ""),
            free + tuple(None if int(size) < 0 else int(size) for size in tensor["dims"]),
        )
        for tensor in config["output"]
    }
    return Golden(inputs=inputs, outputs=outputs)


def _unlike(array: Array) -> Array:
    """An input of that shape and type which the cache has hardly seen: floats near zero, ids 0 or 1, a random text.

    A model whose inputs are a few integers and nothing else has few such requests; the cache then answers for it.
    """
    random = np.random.default_rng()
    if array.dtype.hasobject:
        return np.full(array.shape, random.bytes(8).hex().encode(), dtype=np.object_)
    floats = np.issubdtype(array.dtype, np.floating)
    drawn = random.random(array.shape) / 1000 if floats else random.integers(0, 2, array.shape)
    return np.asarray(drawn).astype(array.dtype)


def misfit(asked: Golden, answer: Mapping[str, Array]) -> str:
    """Return the fault in an answer's names, data types and shapes; empty if there is none."""
    for name, (kind, shape) in asked.outputs.items():
        got = answer.get(name)
        if got is None:
            return f"output {name} is missing"
        fits = len(got.shape) == len(shape) and all(
            want in (None, is_) for want, is_ in zip(shape, got.shape, strict=True)
        )
        if not fits or (kind and got.dtype != np.dtype(kind)):
            wanted = ["any" if size is None else size for size in shape]
            return f"output {name} is {got.dtype}{list(got.shape)}, not {kind}{wanted}"
    return ""


def not_finite(answer: Mapping[str, Array]) -> tuple[str, ...]:
    """Names of outputs, of any shape, that hold NaN or an infinity."""
    floats = {name: array for name, array in answer.items() if np.issubdtype(array.dtype, np.floating)}
    return tuple(sorted(name for name, array in floats.items() if not np.isfinite(array).all()))


def warm_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes (without the batch axis) that the model's first warm-up sample uses: these are known to work."""
    for sample in config.get("model_warmup", ()):
        return {name: tuple(int(size) for size in each["dims"]) for name, each in sample.get("inputs", {}).items()}
    return {}


def _advanced(url: str, model: str, version: int, before: int, deadline: float) -> bool:
    try:
        with Control(url, timeout=deadline) as control:
            return control.statistics(model, version).successes > before
    except (RequestError, ServerError):
        return False
