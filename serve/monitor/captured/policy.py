"""The policy of a capture: which parts of requests and answers are kept, and how; whatever is not named is dropped."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from seatrial.optimize.errors import ConfigError

TIME = "time"
FACTS: Mapping[str, str] = {  # columns of every row, and their types in DuckDB
    "request": "VARCHAR",  # the edge's id of the request: outcomes join by it
    "row": "BIGINT",  # the sample's place in the request
    TIME: "DOUBLE",  # seconds since 1970
    "version": "BIGINT",
    "digest": "VARCHAR",  # of the artifact that answered, where it was known
    "status": "BIGINT",
    "grpc_status": "VARCHAR",
    "reason": "VARCHAR",  # why there is no content, or why the request failed
    "seconds": "DOUBLE",
    "shapes": "VARCHAR",  # of the whole tensors, JSON
    "worker": "VARCHAR",
    "sequence": "BIGINT",
}
Side = Literal["input", "output"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How one field is kept: ``allow`` as it is, ``hash`` a keyed hash, ``mask`` whether it was there, or ``drop``.

    The field is the tensor of that name, or the element `index` of each sample of `tensor`.
    """

    keep: Literal["allow", "hash", "mask", "drop"] = "drop"
    tensor: str = ""
    side: Side = "input"
    index: Annotated[int | None, Field(ge=0)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """What is kept of a model's sampled requests. Times in seconds.

    With `batched`, the first axis of every tensor is the sample, and a request becomes a row for each; otherwise it is
    one row. A segment is closed after `segment_rows` rows or `segment_seconds`, whichever comes first, and deleted
    once it is older than `retention`.
    """

    fields: Mapping[str, Kept]
    batched: bool = True
    segment_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    segment_seconds: Positive = 300.0
    retention: Positive = 30 * 86_400.0

    def __post_init__(self) -> None:
        for name in self.fields:
            if name in FACTS or not name:
                raise ConfigError(
                    f"{name!r} is a column of every captured row",
                    where="capture.fields",
                    next_step=f"call the field otherwise, and name its tensor: tensor = {name!r}",
                )

    @property
    def policy(self) -> dict[str, Any]:
        """Return what decides about content, as JSON values; the tensor of each field is spelled out."""
        fields = {name: asdict(kept) | {"tensor": kept.tensor or name} for name, kept in sorted(self.fields.items())}
        return {"batched": self.batched, "fields": fields}

    @property
    def digest(self) -> str:
        """Return the SHA-256 of `policy`."""
        return digest_of(self.policy)


def digest_of(policy: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a policy as JSON values."""
    return f"sha256:{hashlib.sha256(json.dumps(policy, sort_keys=True).encode()).hexdigest()}"
