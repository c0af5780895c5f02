"""Cohorts: train a module on with its weak segments seen more often; kept where they gain and no other loses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..artifact import Artifact
from ..errors import ConfigError, ParityError, StageError
from ..quality import Score, scores
from ..recipe.configs import CohortsConfig
from ..samples import Array, Samples
from ..sessions.on_torch import TorchSession, open_module, read_architecture, save_module
from .halves import Bound, bound, halves, rows_of, too_few
from .stage import Context, Made
from .training import fit, teacher_answers

_CONFIDENCE = 0.95
_MOST = 64  # segments of a column: beyond that it holds numbers or names, not groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Gain of one segment, with its interval, on `count` samples."""

    segment: str
    count: int
    weak: bool
    before: float
    gain: Bound

    def to_json(self) -> dict[str, Any]:
        """Return the figures for the notes."""
        numbers = {"before": self.before, "gain": self.gain.mean, "low": self.gain.low, "high": self.gain.high}
        return {"samples": self.count, "weak": self.weak} | {name: round(one, 6) for name, one in numbers.items()}


def run(config: CohortsConfig, parent: Artifact, context: Context) -> Made:
    """Make the trained module's files; what every segment gained is in the notes.

    Raises:
        ConfigError: there are no such segments in the samples.
        StageError: there are too few samples.
        ParityError: a weak segment did not gain beyond doubt, or another one may lose more than the margin.
    """
    train, held = context.samples("train"), context.samples("calibration")
    if context.score is None:
        raise StageError("this stage needs the recipe's metric", next_step="build it from a recipe")
    if why := too_few(len(held)):
        raise StageError(why, next_step="raise data.calibration")
    groups, judged = segments(config, train), segments(config, held)
    torch.set_num_threads(context.environment.cores)
    module = open_module(parent, context.store)
    one, other = halves(len(held), context.seed)
    before = _scores(module, parent, held, context.score)
    weak = _weak(config, before[one], judged[one], groups)
    chosen = repeated(groups, weak, config.weight)
    loss = _trained(config, module, context, train, chosen)
    after = _scores(module, parent, rows_of(held, other), context.score)
    found, unjudged = changes(before[other], after, judged[other], weak, config.support)
    if why := refusal(found, weak, config):
        raise ParityError(
            why,
            where=f"cohorts, {len(other)} held-out samples",
            next_step='use more calibration samples or another training; on_disagreement = "drop" leaves the stage out',
        )
    architecture, source = read_architecture(parent, context.store)
    files = save_module(module.eval(), architecture, source, context.folder)
    notes = {
        "weak": list(weak),
        "segments": {change.segment: change.to_json() for change in found},
        "not_judged": list(unjudged),
        "repeated": len(chosen) - len(train),
        "loss": round(loss, 4),
    }
    return Made(format="torch", files=tuple(files), inputs=parent.inputs, outputs=parent.outputs, notes=notes)


def segments(config: CohortsConfig, samples: Samples) -> Array:
    """Return the segment of each sample as text, [n].

    Raises:
        ConfigError: the column is not there, holds too many values, or there are no classes.
    """
    known: Mapping[str, Array] = samples.columns
    if config.column is not None and config.column not in known:
        raise ConfigError(
            f"the {samples.split} samples have no column {config.column!r}",
            where="cohorts.column",
            next_step=f"use {', '.join(known)}" if known else "return columns as the loader's third part, or name none",
        )
    values = samples.labels if config.column is None else known[config.column]
    if values is None or values.ndim != 1 or values.dtype.kind not in "biuU":
        found = "there are none" if values is None else f"they are {values.dtype} {list(values.shape)}"
        raise ConfigError(
            f"the segments must be whole numbers or texts, one for each sample, and {found}",
            where="cohorts.column",
            next_step="name a column that the loader returns as its third part",
        )
    if (count := len(np.unique(values))) > _MOST:
        raise ConfigError(
            f"{config.column or 'the labels'} hold {count} values, more than {_MOST} segments",
            where="cohorts.column",
            next_step="let the loader return a column of groups",
        )
    return values.astype(str)


def _weak(config: CohortsConfig, before: Array, judged: Array, groups: Array) -> tuple[str, ...]:
    """Return the weak segments: those named, or those with the lowest mean score on this half."""
    known = sorted(set(judged.tolist()) & set(groups.tolist()))
    if config.segments:
        named = tuple(str(name) for name in config.segments)
        if lacking := [name for name in named if name not in known]:
            raise ConfigError(
                f"no segment {lacking[0]!r} in both train and calibration samples",
                where="cohorts.segments",
                next_step=f"the segments are {', '.join(known)}",
            )
        return named
    large = [name for name in known if np.count_nonzero(judged == name) >= config.support]
    if len(large) <= config.weakest:
        raise ConfigError(
            f"{len(large)} segments have {config.support} samples in either half, which leaves none to compare with",
            where="cohorts",
            next_step="use more calibration samples, lower support or weakest, or name another column",
        )
    return tuple(sorted(large, key=lambda name: (float(before[judged == name].mean()), name))[: config.weakest])


def repeated(groups: Array, weak: tuple[str, ...], weight: int) -> Array:
    """Return row numbers in which every row of a weak segment stands `weight` times, the others once."""
    rows = np.arange(len(groups))
    return np.concatenate([rows, np.repeat(rows[np.isin(groups, weak)], weight - 1)])


def _trained(config: CohortsConfig, module: torch.nn.Module, context: Context, train: Samples, chosen: Array) -> float:
    """Train in place on the chosen rows; returns the loss."""
    answers = teacher_answers(
        context.origin, train, context.store, lambda share, text: context.progress(0.2 * share, text)
    )
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    return fit(
        module,
        rows_of(train, chosen),
        answers[torch.from_numpy(chosen)],
        config.training,
        output=context.origin.outputs[0].name,
        seed=context.seed,
        progress=lambda share, text: context.progress(0.2 + 0.75 * share, text),
        checkpoint=context.checkpoints,
    )


def _scores(module: torch.nn.Module, parent: Artifact, samples: Samples, score: Score) -> Array:
    session = TorchSession(module, parent.inputs, parent.outputs, threads=torch.get_num_threads())
    return scores(session, samples, score)


def changes(
    before: Array, after: Array, judged: Array, weak: tuple[str, ...], support: int
) -> tuple[tuple[Change, ...], tuple[str, ...]]:
    """Return what each segment gained, and those with too few samples to be judged; scores and segments are [n]."""
    found, few = [], []
    for name in sorted(set(judged.tolist())):
        members = judged == name
        count, is_weak = int(np.count_nonzero(members)), name in weak
        if count < support and not is_weak:
            few.append(name)
            continue
        confidence = 1 - (1 - _CONFIDENCE) / 2 / len(weak) if is_weak else _CONFIDENCE
        gain = bound(after[members] - before[members], confidence)
        found.append(Change(segment=name, count=count, weak=is_weak, before=float(before[members].mean()), gain=gain))
    return tuple(found), tuple(few)


def refusal(found: tuple[Change, ...], weak: tuple[str, ...], config: CohortsConfig) -> str:
    """Return why the trained module is not kept, or an empty string."""
    if missing := [name for name in weak if name not in {change.segment for change in found}]:
        return f"segment {missing[0]!r} has no sample on the half that judges"
    for change in found:
        gain = change.gain
        shown = f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] on {change.count} samples"
        if change.weak and gain.low <= 0:
            return f"weak segment {change.segment!r} changed by {shown}: the interval does not exclude 0"
        if not change.weak and -gain.low > config.max_segment_drop:
            return (
                f"segment {change.segment!r} changed by {shown}: it may lose more than max_segment_drop = "
                f"{config.max_segment_drop:g}"
            )
    return ""
