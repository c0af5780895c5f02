"""Answers as input of the checks: both arms over the whole evaluation set, stored share by share.

Arrays travel as base64 of their bytes: exact, and a fraction of a list of numbers. Measures nothing, judges nothing.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from seatrial.optimize.errors import ConfigError, IntegrityError, SourceError
from seatrial.optimize.record import Record
from seatrial.optimize.samples import Samples

from ..measurement import Unavailable
from .quantities import Array

CLEAN = "clean"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedText:
    """An array of text, as a list."""

    text: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedNumbers:
    """An array of numbers: numpy's name of its dtype, its shape, base64 of its little-endian bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: str


Packed = PackedText | PackedNumbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Samples of a share from `start` on, equal in both arms: labels, columns and, by variant, rows and digests."""

    start: int
    labels: Packed
    columns: Mapping[str, Packed]
    derived: Mapping[str, Packed]
    rows: Mapping[str, Packed]
    digests: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share(Record, what="the raw values of the checks"):
    """Raw values of one share of the evaluation set: what was asked, the outputs, the scores by variant."""

    asked: Asked
    outputs: Mapping[str, Packed]
    scores: Mapping[str, Packed]


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


def packed(array: Array) -> Packed:
    """An array of any shape as it is stored; text becomes a list."""
    if array.dtype.kind in "US":
        return PackedText(
            text=tuple(each.decode() if isinstance(each, bytes) else str(each) for each in array.tolist())
        )
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    data = base64.b64encode(plain.tobytes()).decode()
    return PackedNumbers(dtype=plain.dtype.str, shape=plain.shape, data=data)


def unpacked(value: Packed) -> Array:
    """Read what `packed` wrote, in its shape.

    Raises:
        IntegrityError: it is not that.
    """
    if isinstance(value, PackedText):
        return np.array(value.text, dtype=np.str_)
    try:
        raw = np.frombuffer(base64.b64decode(value.data, validate=True), np.dtype(value.dtype))
        return raw.reshape(value.shape)
    except (TypeError, ValueError) as error:
        raise IntegrityError(f"an array cannot be read: {error}", next_step="measure again") from error


def gathered(base: Sequence[Share | Unavailable] | None, candidate: Sequence[Share | Unavailable]) -> Evidence:
    """Join the shares (`suite.Suite.measure`) of both arms, pair by pair.

    Raises:
        IntegrityError: the arms were not asked the same, or a share is missing.
    """
    own = _measured(candidate)
    others = None if base is None else _measured(base)
    for one, other in zip(others or own, own, strict=True):
        if one.asked != other.asked:
            raise IntegrityError("the two arms did not receive the same samples", next_step="run the gate again")
    asked = [share.asked for share in own]
    sizes = [len(unpacked(each.labels)) for each in asked]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    return Evidence(
        labels=_joined([each.labels for each in asked]),
        columns=_columns([each.columns for each in asked]),
        derived=_columns([each.derived for each in asked]),
        rows={
            name: np.concatenate([unpacked(each.rows[name]) + at for each, at in zip(asked, starts, strict=True)])
            for name in own[0].scores
        },
        base=None if others is None else _answers(others),
        candidate=_answers(own),
    )


def _measured(shares: Sequence[Share | Unavailable]) -> list[Share]:
    found = [share for share in shares if isinstance(share, Share)]
    if not found or len(found) < len(shares):
        raise IntegrityError(
            "a part of the evaluation set lacks the values of the checks", next_step="run the gate again"
        )
    return found


def _answers(shares: Sequence[Share]) -> Answers:
    return Answers(
        outputs=_columns([share.outputs for share in shares]), scores=_columns([share.scores for share in shares])
    )


def _columns(parts: Sequence[Mapping[str, Packed]]) -> dict[str, Array]:
    """Return each output of consecutive samples as one array, [samples, ...]."""
    return {name: _joined([part[name] for part in parts]) for name in parts[0]}


def _joined(parts: Sequence[Packed]) -> Array:
    """Return what `packed` wrote of consecutive samples as one array, [samples, ...]."""
    return np.concatenate([unpacked(part) for part in parts])
