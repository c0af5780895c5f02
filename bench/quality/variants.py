"""Scores on altered inputs: what checks that ask variants have in common. Pure."""

import numpy as np

from ..checks import Check
from .evidence import CLEAN, Evidence
from .quantities import Array, Scores


def spoiled(check: Check, evidence: Evidence, *, loss: bool = False) -> Scores:
    """Per sample, the mean score over the check's variants of its inputs; with `loss`, how far below the clean score.

    Raises:
        ConfigError: a variant was not asked.
    """
    first, second = (by_variant(check, evidence, arm) for arm in (0, 1))
    if second is None:
        raise ValueError("the candidate has no answers")
    base, candidate = None if first is None else first.mean(axis=0), second.mean(axis=0)
    if loss:
        rows = _rows(check, evidence)
        clean_base, clean = evidence.scores()
        base = None if base is None or clean_base is None else clean_base[rows] - base
        candidate = clean[rows] - candidate
    return Scores(name=check.label, base=base, candidate=candidate, higher_is_better=check.higher_is_better)


def by_variant(check: Check, evidence: Evidence, arm: int) -> Array | None:
    """One arm's scores, float [variants, n], over the samples that every variant of the check was asked on."""
    rows, found = _rows(check, evidence), []
    for name in check.variants:
        scores = evidence.scores(name)[arm]
        if scores is None:
            return None
        found.append(scores[np.isin(evidence.rows[name], rows)])
    return np.asarray(np.stack(found))


def _rows(check: Check, evidence: Evidence) -> Array:
    """Indices, [rows], of the samples that every variant was asked on, in order."""
    for name in check.variants:
        evidence.scores(name)
    rows = evidence.rows[CLEAN]
    for name in check.variants:
        rows = np.intersect1d(rows, evidence.rows[name])
    return rows
