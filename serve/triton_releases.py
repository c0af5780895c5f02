"""Triton releases by name, and the configuration fields that a release does not know: it refuses the whole file.

The two named here were read, not remembered: 2.51 from the protocol that lies inside its server (nvidia-pytriton
0.7.0), 2.73 from its own client. A release between counts as the older of its neighbours, so a field is never promised
too soon.
"""

RELEASES = ("2.51", "2.73")
DEFAULT = "2.51"

# Message and field -> the first release of those above that knows it; every field that is not here is known to all.
SINCE = {
    ("ModelConfig", "model_metrics"): "2.73",
    ("ModelEnsembling", "max_inflight_requests"): "2.73",
}

# precision_mode of the TensorRT provider -> the first release above whose ONNX Runtime backend takes it. Read in the
# backend's branches: r26.01 (2.65) refuses BF16, r26.02 (2.66) takes it.
PRECISIONS_SINCE = {"FP32": "2.51", "FP16": "2.51", "INT8": "2.51", "BF16": "2.73"}


def knows(release: str, since: str) -> bool:
    """Return True if that release has what came with `since`, one of those above."""
    return RELEASES.index(since) <= RELEASES.index(known(release) or RELEASES[0])


def known(release: str) -> str | None:
    """The release above that a server's version counts as; None where it is older than all, or no version."""
    found = _numbers(release)
    fits = [each for each in RELEASES if found is not None and (_numbers(each) or ()) <= found]
    return fits[-1] if fits else None


def _numbers(text: str) -> tuple[int, ...] | None:
    parts = text.split(".")
    return tuple(int(part) for part in parts) if len(parts) >= 2 and all(p.isdecimal() for p in parts) else None
