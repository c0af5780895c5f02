"""The batch plan: of all settings the one that bears most within the objective, and what it is expected to do.

Pure; from the curve and the queue model alone, seconds at most. Says how far it can be trusted, and refuses where no
setting meets the objective.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from seatrial.bench.capacity.slo import Slo
from seatrial.optimize.record import Record

from ..errors import ObjectiveError
from .curve import Curve, Service
from .profile import BatchProfile, profile_of
from .queueing import Prediction, most, predict
from .setting import Layout, Setting, settings

_QUICK = 6_000  # arrivals while candidates are compared
_ALIKE = 0.98  # of the best: settings that bear so much differ by less than the curve is sure of
_CLOSE = 1.1  # of the least tail: quick simulations of one setting differ by as much
_RESOLUTION = 1.01  # ratio of rates at which the search for the greatest one ends; chosen, below the curve's own error
_BUSY, _UNSURE = 0.85, 0.1  # utilization and the curve's relative error from which a prediction is called weak; chosen
_FEW = 200  # latencies beyond which the curve's own noise says something of a tail


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan(Record, schema=1, computed=("met",), keys={"tail": "tail_s", "overhead": "request_overhead_s"}):
    """A setting for a rate within an objective.

    `tail` is how far the predicted percentile (seconds) may be trusted: its range over the curve 1.96 standard errors
    faster and slower, and over every round of the curve alone. `sustains` is the largest rate that the model says stays
    within the objective. `met` tells whether even the slowest of these curves is within it, `notes` what weakens the
    prediction. `considered` is how many settings were compared.
    """

    setting: Setting
    rate: float
    slo: Slo
    prediction: Prediction
    tail: tuple[float, float]
    sustains: float
    profile: BatchProfile
    overhead: float | None
    considered: int
    notes: tuple[str, ...]

    @property
    def met(self) -> bool:
        """Return whether the objective holds even if the curve errs to the slow side."""
        return self.tail[1] <= self.slo.seconds

    def to_json(self) -> dict[str, Any]:
        """JSON values with a schema number."""
        return Record.to_json(self) | {"slo": str(self.slo), "profile": list(self.profile.range)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The queue model of one curve under one objective: what any setting of its layouts does at any rate."""

    curve: Curve
    slo: Slo
    services: dict[Layout, Service]

    @classmethod
    def of(cls, curve: Curve, slo: Slo) -> "Model":
        """From a curve; every layout's service is drawn once."""
        return cls(curve=curve, slo=slo, services={layout: curve.service(layout) for layout in curve.layouts})

    def settings(self) -> tuple[Setting, ...]:
        """Every setting that the curve can say something about."""
        return tuple(settings(self.curve.layouts, self.curve.largest, self.slo.seconds))

    def predict(self, setting: Setting, rate: float, *, arrivals: int = _QUICK) -> Prediction:
        """Predict a setting at a rate."""
        return self._predict(self.services[setting.layout], setting, rate, arrivals)

    def tails(self, setting: Setting, rate: float, *, arrivals: int = 20_000) -> tuple[float, float]:
        """The percentile (seconds) by the curves that may as well be true: least and greatest."""
        service = self.services[setting.layout]
        reach = 1.96 * service.error
        some = (service, service.scaled(1 / (1 + reach)), service.scaled(1 + reach), *self.curve.rounds(setting.layout))
        found = [self._predict(each, setting, rate, arrivals).tail for each in some]
        return min(found), max(found)

    def _predict(self, service: Service, setting: Setting, rate: float, arrivals: int) -> Prediction:
        slo = self.slo
        return predict(service, setting, rate, quantile=slo.quantile, bound=slo.seconds, arrivals=arrivals)

    def keeps(self, setting: Setting, rate: float) -> bool:
        """Return whether the objective holds at that rate."""
        return self.predict(setting, rate).over <= self.slo.budget

    def limit(self, setting: Setting) -> float:
        """The rate that no queue lets the setting pass, whatever the objective."""
        return most(self.services[setting.layout], setting)

    def sustains(self, setting: Setting, least: float = 0.0) -> float:
        """The largest rate within the objective, 0 where there is none; `least` is one that is known to be."""
        high = self.limit(setting)
        low = least or high / 1000
        if not least and not self.keeps(setting, low):
            return 0.0
        while high / low > _RESOLUTION:
            middle = (low * high) ** 0.5
            low, high = (middle, high) if self.keeps(setting, middle) else (low, middle)
        return low

    def bearing(self, some: Iterable[Setting], least: float) -> dict[Setting, float]:
        """Return the sustained rates of the settings that sustain `least`; the others cost one simulation each."""
        able = (each for each in some if self.limit(each) > least and self.keeps(each, least))
        return {setting: self.sustains(setting, least) for setting in able}

    def best(self, some: Iterable[Setting], least: float = 0.0) -> tuple[Setting | None, float]:
        """The setting that sustains most, more than `least`, and how much; each is asked only what it must be."""
        found, reached = None, least
        for setting in sorted(some, key=self.limit, reverse=True):
            if self.limit(setting) <= reached * _RESOLUTION:
                break
            if reached and not self.keeps(setting, reached * _RESOLUTION):
                continue
            rate = self.sustains(setting, reached * _RESOLUTION)
            if rate > reached:
                found, reached = setting, rate
        return found, reached


def choose(model: Model, rate: float, some: Sequence[Setting] = ()) -> BatchPlan:
    """The plan for a rate, among these settings or all that the curve allows.

    Settings that meet the objective at the rate are compared by the largest rate that they sustain: room for what the
    curve and the forecast of traffic got wrong. Of those alike the ones whose tail at the rate is close to the least
    are left, and of these the one with fewest instances and threads, then the one that waits least is taken: a delay
    whose gain cannot be told from luck is a delay all the same.

    Raises:
        ObjectiveError: none meets the objective at this rate; says which rate would, and with what.
    """
    candidates = tuple(some) or model.settings()
    able = [setting for setting in candidates if model.limit(setting) > rate and model.keeps(setting, rate)]
    if not able:
        raise _refused(model, rate, candidates)
    best, reached = model.best(able, rate)
    reached = max(reached, rate)
    near = [each for each in able if model.keeps(each, max(_ALIKE * reached, rate))]
    alike = [each for each in near if each == best or model.sustains(each, rate) >= _ALIKE * reached] or able
    tails = {each: model.predict(each, rate).tail for each in alike}
    least = [each for each in alike if tails[each] <= _CLOSE * min(tails.values())]
    chosen = min(least, key=lambda each: (each.layout.instances * each.layout.threads, each.delay_us, each.max_batch))
    return planned(model, chosen, rate, considered=len(candidates), sustains=model.sustains(chosen, rate))


def planned(model: Model, setting: Setting, rate: float, *, considered: int = 1, sustains: float) -> BatchPlan:
    """The plan that takes this setting at this rate, good or not."""
    service = model.services[setting.layout]
    prediction = model.predict(setting, rate, arrivals=20_000)
    low, high = model.tails(setting, rate)
    return BatchPlan(
        setting=setting,
        rate=rate,
        slo=model.slo,
        prediction=prediction,
        tail=(low, high),
        sustains=sustains,
        profile=profile_of(prediction.sizes, setting.max_batch),
        overhead=service.overhead,
        considered=considered,
        notes=tuple(_notes(service, prediction, high, model.slo)),
    )


def _notes(service: Service, prediction: Prediction, slow: float, slo: Slo) -> Iterable[str]:
    if slow > slo.seconds:
        yield f"within the curve's error the tail may reach {1e3 * slow:.1f} ms, beyond the objective"
    if service.error > _UNSURE:
        yield (f"the curve differs between rounds (standard error {service.error:.0%}); measure on a quieter machine")
    if prediction.utilisation > _BUSY:
        yield (
            f"instances would be busy {prediction.utilisation:.0%} of the time, so a little more traffic "
            "adds much latency"
        )
    if beyond := sum(share for size, share in prediction.sizes.items() if size > service.sizes[-1]):
        yield f"{beyond:.0%} of the batches would be larger than any measured one"
    if len(service.jitter) < _FEW:
        yield f"the tail rests on {len(service.jitter)} measured latencies"


def _refused(model: Model, rate: float, candidates: Sequence[Setting]) -> ObjectiveError:
    setting, reached = model.best(candidates)
    if setting is None:
        quickest = min(service.of(1) + service.path for service in model.services.values())
        return ObjectiveError(
            f"no setting meets {model.slo} at any rate",
            where=f"a single request takes {1e3 * quickest:.1f} ms in the median",
            next_step="make the model faster, or relax the objective",
        )
    return ObjectiveError(
        f"no setting meets {model.slo} at {rate:g} requests per second",
        where=f"{len(candidates)} settings on {model.curve.cores} cores",
        next_step=f"offer at most {reached:.3g} requests per second to one server ({setting}), or relax the objective",
    )
