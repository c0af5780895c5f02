"""The suite: what a budget's checks need to be asked of a model, asked share by share, and kept raw.

Both arms of a pair are asked the same samples and the same spoiled inputs, so every comparison is paired. Knows no
server: it is handed a callable that answers. Judges nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from seatrial.optimize.artifact import digest_bytes
from seatrial.optimize.errors import ConfigError, SeatrialError
from seatrial.optimize.samples import Samples

from ..checks import Check
from . import served
from .corruption import Range
from .evidence import CLEAN, Asked, Packed, Share, packed
from .quantities import Array
from .segments import derived

Ask = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Returns the outputs by name for inputs of any number of samples; the first axis is the sample."""

MOST = 1 << 25  # bytes of outputs that one share may keep; wider ones are not kept, and checks on them INVALID


def attacks(checks: Sequence[Check]) -> list[Check]:
    """The checks whose inputs are made from the recipe's source."""
    return [check for check in checks if check.needs_source]


def spread(n: int, count: int) -> Array:
    """Indices, [min(n, count)], of `count` of n samples, evenly spread over them; all where there are fewer."""
    return np.unique(np.linspace(0, n - 1, min(n, count)).astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Checks over an evaluation set with labels; `crafted` holds the attacked inputs (`quality.adversarial`)."""

    checks: tuple[Check, ...]
    samples: Samples
    metric: served.Metric
    crafted: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)

    def ready(self) -> None:
        """Check before anything is served that every check can be asked.

        Raises:
            ConfigError: no labels, no such column, a corruption that fits no input, or an attack without its inputs.
        """
        if self.checks and self.samples.labels is None:
            raise ConfigError("the checks need labels", where=self.samples.split, next_step="return them in the loader")
        for attack in attacks(self.checks):
            if missing := [name for name in attack.variants if name not in self.crafted]:
                raise ConfigError(
                    f"there are no attacked inputs {missing[0]!r}",
                    where=attack.label,
                    next_step="use the gate verb, since an attack needs the recipe's source, or drop the check",
                )
        for check in self.checks:
            check.ready(self.samples)
        for name in self._variants:
            self._inputs(name, self._rows(name)[:1])

    def measure(self, ask: Ask, answers: Mapping[str, Array], start: int, stop: int) -> Share:
        """One share's raw values; `answers` are those to samples `start` to `stop` as they are.

        Without checks these are labels, columns and scores alone: what tells the worst class and segment.

        Raises:
            SourceError: the metric raised.
            AnswerError: the model does not answer spoiled inputs, or with NaN; says with which.
        """
        share = self.samples.take(start, stop)
        labels = np.asarray(share.labels)
        kept = {name: array for name, array in answers.items() if array.dtype.kind in "iuf"}
        if not self.checks or sum(array.nbytes for array in kept.values()) > MOST:
            kept = {}
        scores = {CLEAN: served.scores(self.metric, answers, labels)}
        rows, digests = {CLEAN: np.arange(len(labels))}, {}
        for name in self._variants:
            chosen = self._rows(name)
            chosen = chosen[(chosen >= start) & (chosen < stop)]
            rows[name] = chosen - start
            if not chosen.size:
                scores[name] = np.empty(0)
                continue
            inputs = self._inputs(name, chosen)
            digests[name] = digest_bytes(b"".join(_bytes(inputs[key]) for key in sorted(inputs)))
            try:
                scores[name] = served.scores(self.metric, ask(inputs), labels[rows[name]])
            except SeatrialError as error:
                error.where = f"inputs of {name}: {error.where}"
                raise
        asked = Asked(
            start=start,
            labels=packed(_plain(labels)),
            columns=_packed(share.columns),
            derived=_packed(derived(share.inputs, labels)),
            rows=_packed(rows),
            digests=digests,
        )
        return Share(asked=asked, outputs=_packed(kept), scores=_packed(scores))

    @cached_property
    def _variants(self) -> dict[str, tuple[Check, int]]:
        """Every variant of the inputs with a check that wants it and how many samples it is asked on."""
        found: dict[str, tuple[Check, int]] = {}
        for check in self.checks:
            for name in check.variants:
                found[name] = (check, max(check.asked, found[name][1] if name in found else 0))
        return found

    @cached_property
    def _ranges(self) -> dict[str, Range]:
        return {name: Range.of(array) for name, array in self.samples.inputs.items()}

    def _rows(self, variant: str) -> Array:
        """Indices, [rows], of the samples that a variant is made of."""
        return spread(len(self.samples), self._variants[variant][1])

    def _inputs(self, variant: str, chosen: Array) -> Mapping[str, Array]:
        """The altered inputs, [chosen, ...], of the samples at the indices `chosen`."""
        check, _ = self._variants[variant]
        if check.needs_source:
            at = np.searchsorted(self._rows(variant), chosen)
            return {name: array[at] for name, array in self.crafted[variant].items()}
        clean = {name: array[chosen] for name, array in self.samples.inputs.items()}
        altered: Mapping[str, Array] = check.altered(variant, clean, self._ranges, int(chosen[0]))
        return altered


def _plain(labels: Array) -> Array:
    """Labels, [n], that can be kept: of arbitrary objects, their text."""
    return labels if labels.dtype.kind != "O" else np.array([str(each) for each in labels.ravel().tolist()], np.str_)


def _packed(arrays: Mapping[str, Array]) -> dict[str, Packed]:
    """Return arrays of any shape as they are stored, by name."""
    return {name: packed(array) for name, array in arrays.items()}


def _bytes(array: Array) -> bytes:
    """Return the bytes of an array of any shape, for a digest."""
    if array.dtype.kind == "O":
        return b"\0".join(each if isinstance(each, bytes) else str(each).encode() for each in array.ravel().tolist())
    return np.ascontiguousarray(array).tobytes()


def shares(suite: Suite, ask: Ask, parts: int) -> Iterator[Share]:
    """The whole evaluation set in `parts` shares, as a gate's pairs would ask it, one after the other."""
    n = len(suite.samples)
    for part in range(parts):
        start, stop = part * n // parts, (part + 1) * n // parts
        if stop > start:
            yield suite.measure(ask, ask(suite.samples.take(start, stop).inputs), start, stop)
