"""Features: drop columns of tabular inputs that quality does not need, and make the first product smaller by them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from ..artifact import Artifact
from ..errors import ConfigError, ParityError, StageError
from ..parity.agreement import measure
from ..parity.measures import is_float
from ..pruning import on_columns
from ..quality import Score, scores
from ..recipe.configs import FeaturesConfig, Tolerance
from ..samples import Array, Samples
from ..sessions.on_ort import OrtSession
from .halves import bound, halves, rows_of, too_few
from .stage import Context, Made

FILE = "model.onnx"
_CONFIDENCE = 0.95
_ALIKE = Tolerance(relative_error=1e-3, spread_error=1e-2)  # sums over fewer columns are rounded in another order
_EQUAL = Tolerance(agreement=0.97)  # decisions that were close may fall otherwise
Column = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """The parent open on one half of the samples: what altering columns costs there."""

    session: OrtSession
    score: Score
    samples: Samples
    before: Array

    @classmethod
    def of(cls, session: OrtSession, score: Score, samples: Samples) -> "_Trial":
        """Score the parent once."""
        return cls(session=session, score=score, samples=samples, before=scores(session, samples, score))

    def permuted(self, column: Column, repeats: int, seed: int) -> Array:
        """Return what each sample's score lost, [n], where the column holds the values of other samples."""
        random, (name, number) = np.random.default_rng([seed, column[1]]), column
        lost = np.zeros(len(self.before))
        for _ in range(repeats):
            array = self.samples.inputs[name].copy()
            array[:, number] = array[random.permutation(len(array)), number]
            lost += self.before - scores(self.session, altered(self.samples, {name: array}), self.score)
        return lost / repeats

    def filled(self, columns: tuple[Column, ...], constants: Mapping[str, Array]) -> Array:
        """Return what each sample's score lost, [n], where these columns are constant."""
        inputs = filled(self.samples.inputs, columns, constants)
        return self.before - scores(self.session, altered(self.samples, inputs), self.score)


def run(config: FeaturesConfig, parent: Artifact, context: Context) -> Made:
    """Make ``model.onnx`` that reads fewer columns; which ones, and their importance, are in the notes.

    Raises:
        ConfigError: no input is tabular, a column enters what has no weights (trees), or a name or number is wrong.
        StageError: every column matters, or there are too few samples.
        ParityError: together the columns cost more than the margin on the half that confirms.
    """
    path = context.store.path(parent, FILE)
    model = onnx.load(str(path))
    tables = _tables(config, model)
    samples, score = context.samples("calibration"), context.score
    if score is None:
        raise StageError("this stage needs the recipe's metric", next_step="build it from a recipe")
    if why := too_few(len(samples)):
        raise StageError(why, next_step="raise data.calibration")
    if not parent.batches:
        raise StageError("the model takes no batches of rows", next_step="remove this stage")
    session = OrtSession(path, threads=context.environment.cores)
    one, other = (_Trial.of(session, score, rows_of(samples, rows)) for rows in halves(len(samples), context.seed))
    constants = {name: constant(one.samples.inputs[name]) for name in tables}
    importance, chosen = _chosen(config, one, tables, constants, context)
    confirmed = []
    for place, column in enumerate(chosen):
        context.progress(0.5 + 0.4 * place / max(1, len(chosen)), f"confirming {column[0]} {column[1]}")
        if bound(other.permuted(column, config.repeats, context.seed), config.confidence).low <= 0:
            confirmed.append(column)
    if not confirmed:
        raise StageError(
            f"every one of {sum(tables.values())} columns matters, none can be dropped",
            next_step="remove this stage, or raise max_quality_drop or confidence",
        )
    kept = {name: np.array([(name, at) not in confirmed for at in range(count)]) for name, count in tables.items()}
    made = on_columns.without(model, kept, constants)
    (context.folder / FILE).write_bytes(made.SerializeToString(deterministic=True))
    smaller = OrtSession(context.folder / FILE, threads=context.environment.cores)
    _same(session, smaller, samples.take(64), tuple(confirmed), constants)
    lost = bound(other.before - scores(smaller, other.samples, score), _CONFIDENCE)
    if lost.high > config.max_quality_drop:
        raise ParityError(
            f"without {len(confirmed)} columns quality drops by {lost.mean:.4f}, at most {lost.high:.4f} with "
            f"{_CONFIDENCE:.0%} confidence, on {len(other.samples)} samples; max_quality_drop is "
            f"{config.max_quality_drop:g}",
            next_step="use more calibration samples, or raise max_quality_drop",
        )
    notes = {
        "dropped": {name: np.flatnonzero(~mask).tolist() for name, mask in kept.items()},
        "kept": {name: np.flatnonzero(mask).tolist() for name, mask in kept.items()},
        "importance": {f"{name} {at}": round(value, 6) for (name, at), value in importance.items()},
        "drop": round(lost.mean, 6),
        "drop_at_most": round(lost.high, 6),
        "confirmed_on": len(other.samples),
        "parameters_before": _parameters(model),
        "parameters": _parameters(made),
    }
    return Made(format="onnx", files=(FILE,), inputs=parent.inputs, outputs=parent.outputs, notes=notes)


def _tables(config: FeaturesConfig, model: onnx.ModelProto) -> dict[str, int]:
    """Return the columns of each input that the stage may look at, checked.

    Raises:
        ConfigError: see `run`.
    """
    found = on_columns.tabular(model)
    names = ", ".join(f"{value.name}" for value in model.graph.input)
    if unknown := [name for name in config.inputs if name not in found]:
        raise ConfigError(
            f"input {unknown[0]!r} is no table [n, columns] of this model; its inputs are {names}",
            where="features.inputs",
            next_step=f"name some of: {', '.join(found)}" if found else "remove this stage",
        )
    if not found:
        raise ConfigError(
            f"no input is a table [n, columns]; the model reads {names}",
            where="features",
            next_step="remove this stage",
        )
    asked = {name: found[name] for name in config.inputs or found}
    if (wrong := [at for at in config.keep if at >= max(asked.values())]) and config.keep:
        raise ConfigError(
            f"there is no column {wrong[0]}",
            where="features.keep",
            next_step=f"columns are numbered from 0 to {max(asked.values()) - 1}",
        )
    try:
        on_columns.check(model, asked)
        return asked
    except ConfigError as error:
        error.where = error.where or "features"
        if config.inputs or len(asked) == 1:
            raise
        first = error
    if alone := {name: count for name, count in asked.items() if _followed(model, name, count)}:
        return alone
    raise first


def _followed(model: onnx.ModelProto, name: str, count: int) -> bool:
    try:
        on_columns.check(model, {name: count})
    except ConfigError:
        return False
    return True


def _chosen(
    config: FeaturesConfig, half: _Trial, tables: Mapping[str, int], constants: Mapping[str, Array], context: Context
) -> tuple[dict[Column, float], tuple[Column, ...]]:
    """Return the importance of every column, and those that may go together by this half, least important first."""
    importance: dict[Column, float] = {}
    free: list[Column] = []
    every = [(name, at) for name, count in tables.items() for at in range(count)]
    for place, column in enumerate(every):
        context.progress(0.5 * place / len(every), f"permuting {column[0]} {column[1]}")
        lost = bound(half.permuted(column, config.repeats, context.seed), config.confidence)
        importance[column] = lost.mean
        if lost.low <= 0 and column[1] not in config.keep:
            free.append(column)
    free.sort(key=lambda column: (importance[column], every.index(column)))
    for name, count in tables.items():  # an input keeps one column at least
        mine = [column for column in free if column[0] == name]
        if len(mine) == count:
            free.remove(mine[-1])
    while free and float(half.filled(tuple(free), constants).mean()) > config.max_quality_drop:
        free.pop()
    return importance, tuple(free)


def constant(array: Array) -> Array:
    """Return what stands for each column, [columns]: its mean, of whole numbers its median."""
    if array.dtype.kind == "f":
        return np.asarray(array.mean(axis=0, dtype=np.float64)).astype(array.dtype)
    return np.asarray(np.sort(array, axis=0)[len(array) // 2])


def filled(
    inputs: Mapping[str, Array], columns: tuple[Column, ...], constants: Mapping[str, Array]
) -> dict[str, Array]:
    """Return copies of the inputs in which these columns hold their constants."""
    copies = {name: inputs[name].copy() for name in {name for name, _ in columns}}
    for name, number in columns:
        copies[name][:, number] = constants[name][number]
    return copies


def altered(samples: Samples, inputs: Mapping[str, Array]) -> Samples:
    """Return the samples with some inputs replaced."""
    return replace(samples, inputs={**samples.inputs, **inputs})


def _same(
    session: OrtSession,
    smaller: OrtSession,
    samples: Samples,
    columns: tuple[Column, ...],
    constants: Mapping[str, Array],
) -> None:
    """Check that the smaller graph computes what the parent does where the columns are constant.

    Raises:
        StageError: it does not.
    """
    expected = session.run({**samples.inputs, **filled(samples.inputs, columns, constants)})
    found = smaller.run(samples.inputs)
    for name, array in expected.items():
        broken = measure(name, array, found[name], _ALIKE if is_float(array) else _EQUAL).broken
        if broken:
            raise StageError(
                f"without the columns output {name!r} is another one than with constants in their place: {broken[0]}",
                next_step="remove this stage and report the model",
            )


def _parameters(model: onnx.ModelProto) -> int:
    """Return the number of constants in the graph's weights, without column numbers."""
    counts: list[Any] = [
        tensor.dims for tensor in model.graph.initializer if tensor.data_type != onnx.TensorProto.INT64
    ]
    return int(sum(np.prod(dims) for dims in counts))
