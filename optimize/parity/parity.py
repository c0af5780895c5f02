"""Parity: numeric agreement of an artifact with its parent, as a contract with per-output tolerances.

It compares outputs and says by how much they differ; whether that is good enough for the task is quality's question.
NaN, infinities and their finite stand-ins are compared by position. A contract that cannot fail on an output, or that
passes one constant row for every sample by its limits on direction and decisions alone, is refused.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..artifact import TensorSpec
from ..errors import ConfigError, ParityError, StageError
from ..recipe.configs import Tolerance
from ..samples import Array, Samples
from ..sessions.session import Session
from .agreement import Agreement, futile, measure
from .measures import Spread, cosines, spread_of
from .sweep import BATCH, Point, at, batches

__all__ = ["Agreement", "answers", "compare", "cosines", "enforce", "measure", "measured", "refuse_futile"]

CONTRACT = 2  # version of the judgement; agreements of an earlier version are judged again


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
        ConfigError: the contract names an output that the model does not have, or cannot fail on one that it passes.
        StageError: a session refuses the samples as they are.
    """
    rows = measured(reference, candidate, samples, contract, inputs=inputs, points=points or batches(samples, batch))
    refuse_futile(rows)
    return rows


def measured(
    reference: Session,
    candidate: Session,
    samples: Samples,
    contract: Mapping[str, Tolerance],
    *,
    inputs: Sequence[TensorSpec] = (),
    points: Sequence[Point],
    tell: Callable[[Point], None] = lambda point: None,
) -> tuple[Agreement, ...]:
    """Compare as `compare` does, but leave a contract that cannot fail to the caller."""
    widest = max((point.batch for point in points if not point.lengths), default=min(BATCH, len(samples)))
    whole = {name: spread_of(array) for name, array in answers(reference, samples, widest).items()}
    found: list[Agreement] = []
    for point in points:
        tell(point)
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
        found += _at_point(point, candidate, some, expected, contract, whole)
    return tuple(found)


def refuse_futile(rows: Sequence[Agreement]) -> None:
    """Refuse a contract that passes an output without having been able to fail.

    Raises:
        ConfigError: naming the output, its kind and the limits.
    """
    for name in dict.fromkeys(row.output for row in rows):
        if why := futile([row for row in rows if row.output == name]):
            raise ConfigError(
                f"the parity contract cannot fail on output {name!r}: {why}",
                where="parity",
                next_step="set spread_error = 0.2 for it, or remove parity to use the default contract",
            )


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
            next_step="find the cause, or set a wider tolerance under parity in this stage",
        )


def answers(session: Session, samples: Samples, size: int) -> dict[str, Array]:
    """Return all outputs by name, [n, ...], with the samples run in batches of `size`."""
    parts = [session.run(batch.copied()) for batch in samples.batches(size)]
    try:
        return {name: np.concatenate([np.atleast_1d(part[name]) for part in parts]) for name in parts[0]}
    except ValueError as error:
        shapes = {name: sorted({part[name].shape[1:] for part in parts}) for name in parts[0]}
        several = ", ".join(f"{name} {found}" for name, found in shapes.items() if len(found) > 1)
        raise StageError(
            f"an output's shape depends on the values of the inputs, so that rows cannot be compared: {several}",
            next_step="name outputs of one shape; cut the graph before the operator that selects rows",
        ) from error


def _at_point(
    point: Point,
    candidate: Session,
    samples: Samples,
    expected: Mapping[str, Array],
    contract: Mapping[str, Tolerance],
    whole: Mapping[str, Spread],
) -> Iterator[Agreement]:
    """Yield the agreement of each output at one batch and length; `expected` are the reference's, [samples, ...]."""
    refused, got = "", {}
    try:
        got = answers(candidate, samples, point.batch)
    except StageError as error:
        if not point.lengths:
            raise
        refused = f"the candidate cannot run it, the reference can: {error.what}"
    for name, reference in expected.items():
        tolerance = contract.get(name, contract.get("*", Tolerance()))
        row = measure(name, reference, got.get(name), tolerance, whole.get(name))
        broken = (refused,) if refused else row.broken
        yield replace(row, batch=point.batch, lengths=dict(point.lengths), broken=broken)
