"""Optuna: keeps a study in any storage that several workers share, and proposes values. Judges no candidate."""

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ..errors import ConfigError, MachineError
from ..reading import decode
from ..recipe.space import Objective, Space, Value
from ..record import as_json
from ..sessions.engine import RanOn
from .search import LARGER_IS_BETTER, Candidate

optuna.logging.set_verbosity(optuna.logging.ERROR)
_SIGNATURE, _TOLD = "seatrial.signature", "seatrial.candidate"
_ATTEMPTS = 10
_ENDED = (TrialState.COMPLETE, TrialState.FAIL)


class OptunaStudy:
    """A study under the search protocol: multi-objective TPE that knows the quality floor and of running trials."""

    def __init__(
        self, name: str, storage: str, objectives: Sequence[Objective], signature: Mapping[str, str], seed: int
    ) -> None:
        self._objectives = tuple(objectives)
        self._asked: dict[int, optuna.Trial] = {}
        larger, smaller = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
        directions = [larger if objective in LARGER_IS_BETTER else smaller for objective in objectives]
        try:
            self._study = _opened(name, storage, directions)
        except Exception as error:  # every backend raises its own library's errors
            line = str(error).strip().partition("\n")[0]
            raise MachineError(
                f"the study cannot be opened: {type(error).__name__}: {line[:200]}",
                where=storage,
                next_step="give --storage an Optuna URL (sqlite:///study.db) or journal:FILE",
            ) from error
        self._check(signature, storage)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", FutureWarning)  # the successor of constraints_func came with Optuna 5
            self._study.sampler = optuna.samplers.TPESampler(
                seed=seed + len(self._study.trials), multivariate=True, constant_liar=True, constraints_func=_violation
            )

    def propose(self, chosen: Mapping[str, Value]) -> None:
        """Let these values be tried first, unless they were."""
        self._study.enqueue_trial(dict(chosen), skip_if_exists=True)

    def ask(self, spaces: Mapping[str, Space]) -> tuple[int, dict[str, Value]]:
        """The next trial's number and values."""
        trial = self._study.ask({address: _distribution(space) for address, space in spaces.items()})
        self._asked[trial.number] = trial
        return trial.number, dict(trial.params)

    def tell(self, candidate: Candidate) -> None:
        """Note what came of it; without every figure it ends as failed, so that no sampler ranks it."""
        told = {
            "values": {name: _number(value) for name, value in candidate.values.items()},
            "violation": candidate.violation,
            "failure": candidate.failure,
            "digest": candidate.digest,
            "ran_on": as_json(candidate.ran_on),
        }
        trial = self._asked.pop(candidate.number)
        trial.set_user_attr(_TOLD, told)
        if candidate.failure:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, [float(candidate.values[name] or 0.0) for name in self._objectives])

    def candidates(self) -> list[Candidate]:
        """Every trial that has ended, oldest first."""
        return [_candidate(trial) for trial in self._study.get_trials(deepcopy=False, states=_ENDED)]

    def _check(self, signature: Mapping[str, str], storage: str) -> None:
        known = self._study.user_attrs.get(_SIGNATURE)
        if known is None:
            self._study.set_user_attr(_SIGNATURE, dict(signature))
        elif differing := [name for name in {**known, **signature} if known.get(name) != signature.get(name)]:
            raise ConfigError(
                f"the study was started with a different {', '.join(differing)}: its figures cannot be compared",
                where=f"{self._study.study_name} in {storage}",
                next_step="use another --storage, or restore the recipe that the study was started with",
            )


def _opened(name: str, storage: str, directions: Sequence[StudyDirection]) -> optuna.Study:
    """The study, made if it is not there; of workers that start together all but one find the tables half made."""
    for attempt in range(_ATTEMPTS):
        try:
            return optuna.create_study(
                study_name=name, storage=_storage(storage), directions=list(directions), load_if_exists=True
            )
        except Exception as error:
            raced = any(word in str(error) for word in ("already exists", "UNIQUE", "locked"))
            if not raced or attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.5)
    raise AssertionError("unreachable")


def _storage(url: str) -> Any:
    if url.startswith("journal:"):
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        return JournalStorage(JournalFileBackend(url.removeprefix("journal:").removeprefix("//")))
    return url


def _distribution(space: Space) -> BaseDistribution:
    if space.low is None or space.high is None:
        return CategoricalDistribution(list(space.choices))
    if space.whole:
        return IntDistribution(int(space.low), int(space.high), log=space.log, step=int(space.step or 1))
    return FloatDistribution(float(space.low), float(space.high), log=space.log, step=space.step)


def _violation(trial: FrozenTrial) -> tuple[float]:
    return (float(trial.user_attrs.get(_TOLD, {}).get("violation", math.inf)),)


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _candidate(trial: FrozenTrial) -> Candidate:
    told = trial.user_attrs.get(_TOLD, {"failure": "the worker ended without a result"})
    ran_on = told.get("ran_on")
    found = None if ran_on is None else decode(RanOn, ran_on, where="")
    return Candidate(number=trial.number, chosen=trial.params, **(told | {"ran_on": found}))
