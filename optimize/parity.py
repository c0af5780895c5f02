"""Parity: numeric agreement of an artifact with its parent, as a contract with per-output tolerances.

It compares answers and says by how much they differ; whether that is good enough for the task is quality's question.
NaN or infinity where the parent has numbers is never within tolerance.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from math import inf, isfinite, log10
from typing import Any

import numpy as np

from .artifact import TensorSpec
from .errors import ConfigError, ParityError, StageError
from .samples import Array, Samples
from .sessions.session import Session
from .stages.configs import Tolerance
from .sweep import BATCH, Point, at, batches

_TOP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How one output agrees with the parent's at one batch size: measures, the tolerance, and what was broken.

    `relative_error` is max |difference| / max |reference|; `cosine` the mean over samples; `snr` the reference's energy
    over the difference's, in dB (infinite where nothing differs); `agreement` the share of rows with the same argmax
    over the last axis and `flips` how many have another (of whole numbers: equal values; 1 where there is no axis to
    take it over); `top` the mean share of the greatest values in common, 5 of them or half where there are fewer than
    10; `nonfinite` how many values are NaN or infinite where the parent has numbers.
    """

    output: str
    batch: int
    lengths: Mapping[str, int] = field(default_factory=dict)
    relative_error: float = 0.0
    cosine: float = 1.0
    snr: float = inf
    agreement: float = 1.0
    flips: int = 0
    top: float = 1.0
    nonfinite: int = 0
    tolerance: Tolerance
    broken: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON values; what is infinite becomes None, since JSON has no word for it."""
        value = asdict(self) | {"lengths": dict(self.lengths), "broken": list(self.broken)}
        return {key: None if isinstance(item, float) and not isfinite(item) else item for key, item in value.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Agreement":
        """Read what `to_json` wrote, of an earlier version too."""
        known = {spot.name: value[spot.name] for spot in fields(cls) if spot.name in value}
        if known["relative_error"] is None:
            known["relative_error"] = inf
        if known.get("snr", 0.0) is None:
            known["snr"] = -inf if known["relative_error"] else inf
        tolerance = {spot.name: value["tolerance"].get(spot.name) for spot in fields(Tolerance)}
        return cls(**known | {"tolerance": Tolerance(**tolerance), "broken": tuple(value["broken"])})


def compare(
    reference: Session,
    candidate: Session,
    samples: Samples,
    contract: Mapping[str, Tolerance],
    *,
    batch: int = BATCH,
    inputs: Sequence[TensorSpec] = (),
    points: Sequence[Point] = (),
) -> tuple[Agreement, ...]:
    """Run both sessions on the samples and measure every output, at `points`, or at batch sizes 1, 2 and `batch`.

    `inputs` are needed where points name lengths. A length that the reference itself refuses is left out.

    Raises:
        ConfigError: the contract names an output that the model does not have.
        StageError: a session refuses the samples as they are.
    """
    found: list[Agreement] = []
    for point in points or batches(samples, batch):
        some = at(point, inputs, samples)
        try:
            expected = answers(reference, some, point.batch)
        except StageError:
            if not point.lengths:
                raise
            continue
        if unknown := set(contract) - set(expected) - {"*"}:
            raise ConfigError(
                f"the parity contract names outputs that do not exist: {', '.join(sorted(unknown))}",
                next_step=f"outputs: {', '.join(expected)}, or * for all",
            )
        found += _at_point(point, candidate, some, expected, contract)
    return tuple(found)


def enforce(agreements: Sequence[Agreement], where: str) -> None:
    """Fail on any broken tolerance.

    Raises:
        ParityError: naming output, batch size, measure and limit.
    """
    broken = [agreement for agreement in agreements if agreement.broken]
    if broken:
        first = broken[0]
        point = Point(batch=first.batch, lengths=first.lengths)
        raise ParityError(
            f"output {first.output!r} disagrees with the parent at {point}: {'; '.join(first.broken)}",
            where=where,
            next_step="find the cause, or state a wider tolerance under parity in this stage",
        )


def answers(session: Session, samples: Samples, size: int) -> dict[str, Array]:
    """All outputs by name, the samples run in batches of `size`."""
    parts = [session.run(batch.inputs) for batch in samples.batches(size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _at_point(
    point: Point, candidate: Session, samples: Samples, expected: Mapping[str, Array], contract: Mapping[str, Tolerance]
) -> Iterator[Agreement]:
    refused, got = "", {}
    try:
        got = answers(candidate, samples, point.batch)
    except StageError as error:
        if not point.lengths:
            raise
        refused = f"the candidate refuses it, the reference does not: {error.what}"
    for name, reference in expected.items():
        tolerance = contract.get(name, contract.get("*", Tolerance()))
        measured = measure(name, reference, got.get(name), tolerance)
        broken = (refused,) if refused else measured.broken
        yield replace(measured, batch=point.batch, lengths=dict(point.lengths), broken=broken)


def measure(output: str, expected: Array, got: Array | None, tolerance: Tolerance) -> Agreement:
    """Every measure of one output against the reference's, [n, ...] both, as of one batch."""
    found = Agreement(output=output, batch=len(expected), tolerance=tolerance)
    nothing = replace(found, relative_error=inf, cosine=0.0, snr=-inf, agreement=0.0, top=0.0)
    if got is None or got.shape != expected.shape:
        shape = None if got is None else got.shape
        return replace(nothing, broken=(f"shape {shape} instead of {expected.shape}",))
    one, other = expected.astype(np.float64).reshape(len(expected), -1), got.astype(np.float64).reshape(len(got), -1)
    if nonfinite := int((~np.isfinite(other[np.isfinite(one)])).sum()):
        broken = (f"NaN or infinity where the parent has numbers ({nonfinite} values)",)
        return replace(nothing, nonfinite=nonfinite, broken=broken)
    one, other = np.nan_to_num(one), np.nan_to_num(other)
    agreement, flips, top = _ranking(expected, got)
    found = replace(
        found,
        relative_error=float(np.abs(one - other).max(initial=0.0) / max(np.abs(one).max(initial=0.0), 1e-12)),
        cosine=float(cosines(one, other).mean()),
        snr=signal_to_noise(one, other),
        agreement=agreement,
        flips=flips,
        top=top,
    )
    return replace(found, broken=tuple(_broken(found)))


def _broken(found: Agreement) -> Iterator[str]:
    limits = found.tolerance
    if limits.relative_error is not None and not found.relative_error <= limits.relative_error:
        yield f"relative error {found.relative_error:.2e} > {limits.relative_error:.2e}"
    if limits.cosine is not None and not found.cosine >= limits.cosine:
        yield f"cosine {found.cosine:.5f} < {limits.cosine}"
    if limits.agreement is not None and not found.agreement >= limits.agreement:
        yield f"argmax agreement {found.agreement:.4f} < {limits.agreement}"
    if limits.snr is not None and not found.snr >= limits.snr:
        yield f"SNR {found.snr:.1f} dB < {limits.snr:.1f} dB"


def _ranking(expected: Array, got: Array) -> tuple[float, int, float]:
    """Share of rows with the same argmax, rows with another one, and the mean share of the greatest in common."""
    if expected.dtype.kind in "iub":
        same = expected == got
        return float(same.mean()), int((~same).sum()), float(same.mean())
    if expected.ndim < 2 or not expected.size:
        return 1.0, 0, 1.0
    one, other = (array.reshape(-1, array.shape[-1]) for array in (expected, got))
    same = one.argmax(-1) == other.argmax(-1)
    count = min(_TOP, max(1, one.shape[-1] // 2))
    best = [np.argpartition(-array, count - 1, axis=-1)[:, :count] for array in (one, other)]
    common = (best[0][:, :, None] == best[1][:, None, :]).any(axis=2)
    return float(same.mean()), int((~same).sum()), float(common.mean())


def signal_to_noise(one: Array, other: Array) -> float:
    """Energy of `one` over that of the difference, in dB; infinite where they are equal."""
    noise, signal = float(np.square(one - other).sum()), float(np.square(one).sum())
    return inf if noise == 0 else -inf if signal == 0 else 10 * log10(signal / noise)


def cosines(one: Array, other: Array) -> Array:
    """Cosine per row, [n]; two zero rows agree, a zero row and another do not."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    both_zero = ~(one.any(axis=1) | other.any(axis=1))
    dots = (one * other).sum(axis=1)
    return np.where(both_zero, 1.0, np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0))
