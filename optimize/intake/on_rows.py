"""Rows: a sample's output must depend on that sample alone, since a server puts any samples side by side."""

from collections.abc import Mapping

import numpy as np

from ..errors import SeatrialError, SourceError
from ..samples import Array
from ..sessions.session import Session

_SAME = 1e-3  # error relative to the output's spread; different kernels for other batch sizes cause far less
_ROWS = 4


def refuse_dependence(session: Session, inputs: Mapping[str, Array], where: str) -> None:
    """Run a few of the samples [n, ...] together and one by one.

    Raises:
        SourceError: a sample's output depends on the others or on chance, or a single sample is refused.
    """
    few = {name: array[:_ROWS].copy() for name, array in inputs.items()}
    rows = len(next(iter(few.values())))
    if rows < 2:
        return
    together, again = session.run(few), session.run(few)
    if differs := [name for name, whole in together.items() if _apart(whole, again[name]) > _SAME]:
        raise SourceError(
            f"output {differs[0]!r} differs between two runs of the same samples: "
            "forward draws random numbers or changes its state",
            where=where,
            next_step="draw no random numbers in evaluation mode, and make the state an input and an output of forward",
        )
    try:
        alone = [session.run({name: array[row : row + 1].copy() for name, array in few.items()}) for row in range(rows)]
    except SeatrialError as error:
        raise SourceError(
            f"the model runs {rows} samples at once but not a single one: {error.what}",
            where=where,
            next_step="let forward accept batches of any size",
        ) from error
    for name, whole in together.items():
        if any(np.shape(each[name])[:1] != (1,) for each in alone) or len(whole) != rows:
            continue  # that it has not one row per sample is another error
        single = np.concatenate([each[name] for each in alone])
        if (apart := _apart(whole, single)) > _SAME:
            raise SourceError(
                f"output {name!r} of a sample depends on the samples beside it: "
                f"alone it differs by {apart:.1%} from a batch of {rows}",
                where=where,
                next_step="remove batch sizes and batch statistics from forward",
            )


def _apart(one: Array, other: Array) -> float:
    """The greatest difference in parts of the spread; infinite where shapes or places of non-finite values differ."""
    if one.shape != other.shape:
        return float("inf")
    if one.dtype.kind in "iub":
        return float(np.not_equal(one, other).mean())
    first, second = one.astype(np.float64), other.astype(np.float64)
    known = np.isfinite(first)
    if not np.array_equal(known, np.isfinite(second)):
        return float("inf")
    if not known.any():
        return 0.0
    spread = max(float(first[known].std()), 1e-3 * float(np.abs(first[known]).max()), 1e-30)
    return float(np.abs(first[known] - second[known]).max()) / spread
