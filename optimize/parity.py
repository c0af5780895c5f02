"""Parity: numeric agreement of an artifact with its parent, as a contract with per-output tolerances.

It compares answers and says by how much they differ; whether that is good enough for the task is quality's question.
NaN or infinity where the parent has numbers is never within tolerance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import ConfigError, ParityError
from .samples import Array, Samples
from .sessions.session import Session
from .stages.configs import Tolerance

SWEEP = (1, 2)  # batch sizes tried besides the whole; a constant that slipped into the graph shows here


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How one output agrees with the parent's at one batch size: measures, the tolerance, and what was broken.

    `relative_error` is max |difference| / max |reference|; `cosine` the mean over samples; `agreement` the share of
    samples with the same argmax over the last axis (1 where an output has no axis to take it over).
    """

    output: str
    batch: int
    relative_error: float
    cosine: float
    agreement: float
    tolerance: Tolerance
    broken: tuple[str, ...]


def compare(
    reference: Session, candidate: Session, samples: Samples, contract: Mapping[str, Tolerance], *, batch: int = 32
) -> tuple[Agreement, ...]:
    """Run both sessions on the samples, at batch sizes 1, 2 and `batch`, and measure every output.

    Raises:
        ConfigError: the contract names an output that the model does not have.
    """
    found: list[Agreement] = []
    for size in dict.fromkeys((*SWEEP, batch)):
        some = samples if size == batch else samples.take(min(len(samples), 4 * size))
        expected, got = _answers(reference, some, size), _answers(candidate, some, size)
        if unknown := set(contract) - set(expected) - {"*"}:
            raise ConfigError(
                f"the parity contract names outputs that do not exist: {', '.join(sorted(unknown))}",
                next_step=f"outputs: {', '.join(expected)}, or * for all",
            )
        found += [_measure(name, size, expected[name], got.get(name), _tolerance(contract, name)) for name in expected]
    return tuple(found)


def enforce(agreements: Sequence[Agreement], where: str) -> None:
    """Fail on any broken tolerance.

    Raises:
        ParityError: naming output, batch size, measure and limit.
    """
    broken = [agreement for agreement in agreements if agreement.broken]
    if broken:
        first = broken[0]
        raise ParityError(
            f"output {first.output!r} disagrees with the parent at batch {first.batch}: {'; '.join(first.broken)}",
            where=where,
            next_step="find the cause, or state a wider tolerance under parity in this stage",
        )


def _answers(session: Session, samples: Samples, size: int) -> dict[str, Array]:
    parts = [session.run(batch.inputs) for batch in samples.batches(size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _tolerance(contract: Mapping[str, Tolerance], output: str) -> Tolerance:
    return contract.get(output, contract.get("*", Tolerance()))


def _measure(output: str, batch: int, expected: Array, got: Array | None, tolerance: Tolerance) -> Agreement:
    def verdict(error: float, cosine: float, agreement: float, broken: Sequence[str]) -> Agreement:
        return Agreement(
            output=output,
            batch=batch,
            relative_error=error,
            cosine=cosine,
            agreement=agreement,
            tolerance=tolerance,
            broken=tuple(broken),
        )

    if got is None or got.shape != expected.shape:
        return verdict(np.inf, 0.0, 0.0, [f"shape {None if got is None else got.shape} instead of {expected.shape}"])
    one, other = expected.astype(np.float64).reshape(len(expected), -1), got.astype(np.float64).reshape(len(got), -1)
    if not np.isfinite(other[np.isfinite(one)]).all():
        return verdict(np.inf, 0.0, 0.0, ["NaN or infinity where the parent has numbers"])
    error = float(np.abs(one - other).max(initial=0.0) / max(np.abs(one).max(initial=0.0), 1e-12))
    cosine = float(cosines(one, other).mean())
    agreement = float((expected.argmax(-1) == got.argmax(-1)).mean()) if expected.ndim > 1 else 1.0
    broken = []
    if tolerance.relative_error is not None and not error <= tolerance.relative_error:
        broken.append(f"relative error {error:.2e} > {tolerance.relative_error:.2e}")
    if tolerance.cosine is not None and not cosine >= tolerance.cosine:
        broken.append(f"cosine {cosine:.5f} < {tolerance.cosine}")
    if tolerance.agreement is not None and not agreement >= tolerance.agreement:
        broken.append(f"argmax agreement {agreement:.4f} < {tolerance.agreement}")
    return verdict(error, cosine, agreement, broken)


def cosines(one: Array, other: Array) -> Array:
    """Cosine per row, [n]; two zero rows agree, a zero row and another do not."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    both_zero = ~(one.any(axis=1) | other.any(axis=1))
    dots = (one * other).sum(axis=1)
    return np.where(both_zero, 1.0, np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0))
