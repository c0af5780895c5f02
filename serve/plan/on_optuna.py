"""Optuna as the proposer of a search: TPE that begins with what the queue model says. Judges and measures nothing."""

from collections.abc import Mapping, Sequence
from math import log

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from .setting import Layout, Setting

optuna.logging.set_verbosity(optuna.logging.ERROR)
_ASKS = 24  # before the model's own favourite is taken


class OptunaProposer:
    """Asks a multivariate TPE for a setting that is worth a trial.

    The model's predictions are its first observations, so that it begins where the model would and learns where the
    model errs: a measured setting counts `_WEIGHT` times. An answer that is not worth a trial is told off and asked
    anew; after `_ASKS` of them the best predicted one is taken.
    """

    _WEIGHT = 3

    def __init__(self, start: Setting, predicted: Mapping[Setting, float], seed: int = 1) -> None:
        self._start, self._predicted = start, dict(predicted)
        some = {start, *predicted}
        self._batches = sorted({each.max_batch for each in some})
        self._delays = sorted({each.delay_us for each in some})
        self._layouts = sorted({each.layout for each in some})
        self._space = {
            "batch": IntDistribution(0, len(self._batches) - 1),
            "delay": IntDistribution(0, len(self._delays) - 1),
            "layout": CategoricalDistribution(list(range(len(self._layouts)))),
        }
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=0, n_ei_candidates=48)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        base = predicted.get(start) or max(predicted.values(), default=1.0)
        for setting, rate in predicted.items():
            if rate > 0:
                self._add(setting, log(rate / base))

    def ask(self, worth: Sequence[Setting]) -> Setting:
        """A setting of these: TPE's, or after many answers outside the best predicted one."""
        able = set(worth)
        for _ in range(_ASKS):
            trial = self._study.ask(self._space)
            setting = self._setting(trial.params)
            self._study.tell(trial, state=TrialState.FAIL)  # its result is reported as a separate observation
            if setting in able:
                return setting
        return max(worth, key=lambda each: (self._predicted.get(each, 0.0), -each.delay_us, each))

    def tell(self, setting: Setting, gain: float) -> None:
        """Report its sustained rate relative to the start (log ratio)."""
        for _ in range(self._WEIGHT):
            self._add(setting, gain)

    def _add(self, setting: Setting, value: float) -> None:
        params = {
            "batch": self._batches.index(setting.max_batch),
            "delay": self._delays.index(setting.delay_us),
            "layout": self._layouts.index(setting.layout),
        }
        self._study.add_trial(create_trial(params=params, distributions=dict(self._space), value=value))

    def _setting(self, params: Mapping[str, int]) -> Setting:
        layout: Layout = self._layouts[params["layout"]]
        return Setting(max_batch=self._batches[params["batch"]], delay_us=self._delays[params["delay"]], layout=layout)
