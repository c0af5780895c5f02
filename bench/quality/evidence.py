"""Answers as input of the checks: both arms over the whole evaluation set, stored as JSON values.

Arrays travel as base64 of their bytes: exact, and a fraction of a list of numbers. Measures nothing, judges nothing.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from seatrial.optimize.errors import ConfigError, IntegrityError, SourceError
from seatrial.optimize.samples import Samples

from .quantities import Array

CLEAN = "clean"


@dataclass(frozen=True, kw_only=True)
class Answers:
    """One arm's: `outputs` [n, ...] to the samples as they are, `scores` per sample by variant of the inputs."""

    outputs: Mapping[str, Array] = field(default_factory=dict)
    scores: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that the checks judge by.

    `labels` [n] as the loader gives them, `columns` [n] each, from the loader; `derived` [n] each, from class and
    inputs; `rows[variant]` are the samples that were asked in that variant; `base` None where one model stands alone.
    """

    labels: Array
    columns: Mapping[str, Array]
    derived: Mapping[str, Array]
    rows: Mapping[str, Array]
    base: Answers | None
    candidate: Answers

    def outputs(self, name: str | None) -> tuple[Array | None, Array]:
        """Both arms' values of one output, float64 [n, ...]; the first where none is named.

        Raises:
            ConfigError: the models have no such output, or it holds no numbers.
        """
        known = list(self.candidate.outputs)
        if not known:
            raise ConfigError("no outputs were kept: they are not numeric, or too many", next_step="use fewer samples")
        chosen = name or known[0]
        if chosen not in known:
            raise ConfigError(
                f"the check names the unknown output {chosen!r}", next_step=f"kept outputs: {', '.join(known)}"
            )
        base = None if self.base is None else self.base.outputs[chosen].astype(np.float64)
        return base, self.candidate.outputs[chosen].astype(np.float64)

    def scores(self, variant: str = CLEAN) -> tuple[Array | None, Array]:
        """Both arms' scores, [samples], in one variant of the inputs.

        Raises:
            ConfigError: that variant was not asked.
        """
        if variant not in self.candidate.scores:
            raise ConfigError(
                f"{variant!r} was not measured in this run", next_step="run the gate again with this check"
            )
        return None if self.base is None else self.base.scores[variant], self.candidate.scores[variant]

    def classes(self) -> Array:
        """The labels as classes, int [n].

        Raises:
            SourceError: they are not one integer per sample.
        """
        if self.labels.ndim != 1 or self.labels.dtype.kind not in "iub":
            raise SourceError(
                f"this check needs one integer label per sample, got {self.labels.dtype} {list(self.labels.shape)}",
                next_step="return class numbers from the loader, or drop the check",
            )
        return self.labels.astype(np.int64)


def class_labels(samples: Samples) -> bool:
    """Return whether the labels are one class per sample."""
    labels = np.asarray(samples.labels)
    return labels.ndim == 1 and labels.dtype.kind in "iub"


def named_arms(both: tuple[Array | None, Array]) -> dict[str, Array]:
    """Return the values of both arms, [samples, ...], by name, without a base that is not there."""
    return {name: values for name, values in zip(("base", "candidate"), both, strict=True) if values is not None}


def packed(array: Array) -> dict[str, Any]:
    """An array of any shape as JSON values; text becomes a list."""
    if array.dtype.kind in "US":
        return {"text": [each.decode() if isinstance(each, bytes) else str(each) for each in array.tolist()]}
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    data = base64.b64encode(plain.tobytes()).decode()
    return {"dtype": plain.dtype.str, "shape": list(plain.shape), "data": data}


def unpacked(value: Mapping[str, Any]) -> Array:
    """Read what `packed` wrote, in its shape.

    Raises:
        IntegrityError: it is not that.
    """
    try:
        if "text" in value:
            return np.array(value["text"], dtype=np.str_)
        raw = np.frombuffer(base64.b64decode(value["data"], validate=True), np.dtype(value["dtype"]))
        return raw.reshape(value["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"an array cannot be read: {error}", next_step="measure again") from error


def gathered(base: Sequence[Mapping[str, Any]] | None, candidate: Sequence[Mapping[str, Any]]) -> Evidence:
    """Join the shares (`suite.Suite.measure`) of both arms, pair by pair.

    Raises:
        IntegrityError: the arms were not asked the same, or a share is missing.
    """
    if not candidate or any(not share for share in (*candidate, *(base or ()))):
        raise IntegrityError(
            "a part of the evaluation set lacks the values of the checks", next_step="run the gate again"
        )
    for one, other in zip(base or candidate, candidate, strict=True):
        if one["asked"] != other["asked"]:
            raise IntegrityError("the two arms did not receive the same samples", next_step="run the gate again")
    asked = [share["asked"] for share in candidate]
    sizes = [len(unpacked(each["labels"])) for each in asked]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    variants = candidate[0]["scores"]
    return Evidence(
        labels=_joined([each["labels"] for each in asked]),
        columns={name: _joined([each["columns"][name] for each in asked]) for name in asked[0]["columns"]},
        derived={name: _joined([each["derived"][name] for each in asked]) for name in asked[0]["derived"]},
        rows={
            name: np.concatenate([unpacked(each["rows"][name]) + at for each, at in zip(asked, starts, strict=True)])
            for name in variants
        },
        base=None if base is None else _answers(base),
        candidate=_answers(candidate),
    )


def _answers(shares: Sequence[Mapping[str, Any]]) -> Answers:
    return Answers(
        outputs={name: _joined([share["outputs"][name] for share in shares]) for name in shares[0]["outputs"]},
        scores={name: _joined([share["scores"][name] for share in shares]) for name in shares[0]["scores"]},
    )


def _joined(parts: Sequence[Mapping[str, Any]]) -> Array:
    """Return what `packed` wrote of consecutive samples as one array, [samples, ...]."""
    return np.concatenate([unpacked(part) for part in parts])
