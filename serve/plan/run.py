"""One planning run from end to end, kept in a folder: curve, plan, search, verification.

Joins the rooms beside it and owns the folder; decides nothing. Layout: ``tune.json`` (what was asked), ``curve.json``,
``trials.jsonl`` (one line per trial, appended when it is done), ``slots/NNN`` (raw climbs), ``verify`` (raw load),
``result.json``. A run that was cut short goes on where it stopped, if it is asked the same again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from seatrial.bench.capacity.slo import Slo
from seatrial.bench.load import on_locust
from seatrial.bench.load.run import LoadRun
from seatrial.bench.records import journal
from seatrial.optimize.artifact import canonical, digest_bytes
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import ConfigError, IntegrityError
from seatrial.optimize.reading import read_object
from seatrial.optimize.record import as_json
from seatrial.optimize.store import write_atomically

from ..errors import ModelLoadError
from .choose import BatchPlan, Model, choose, planned
from .curve import Curve
from .observe import ROUNDS, Bench, observe
from .ramp import RateRamp, sustained
from .setting import Layout, Setting, layouts
from .trial import SCHEMA, Trial
from .tune import Proposer, Tuned, tune
from .verify import Verified, verify

Progress = Callable[[str, float, str], None]
"""Called with the step, its completed fraction, and the current activity."""

_CLIMB_LOW, _CLIMB_HIGH = 0.4, 1.6  # of what the model says that the plan sustains
_CLIMB_MOST = 8000.0
MOST_RATE = 5000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRequest:
    """Request of a run: the rate, the objective, the largest batch to consider, and the amount of measurement.

    `rounds` is how often the curve visits every layout. `trials` 0 stops at the plan. `climb_seconds` is the length of
    one climb, `verify_seconds` that of the steady load at the end (0: none).
    """

    rate: float
    slo: Slo
    largest: int
    rounds: int = ROUNDS
    trials: int = 6
    pairs: int = 4
    climb_seconds: float = 5.0
    verify_seconds: float = 10.0
    seed: int = 1

    def __post_init__(self) -> None:
        if not (isfinite(self.rate) and 0 < self.rate <= MOST_RATE):
            raise ConfigError(
                f"the rate must be above 0, got {self.rate:g}",
                where="--rate",
                next_step=f"use at most {MOST_RATE:g} requests per second",
            )
        if not 1 <= self.largest <= 1024:
            raise ConfigError(
                f"the largest batch must be between 1 and 1024, got {self.largest}",
                where="--largest",
                next_step="use 1 to 1024",
            )
        if not 1 <= self.rounds <= 20:
            raise ConfigError(
                f"--rounds must be between 1 and 20, got {self.rounds}", where="--rounds", next_step="use 1 to 20"
            )
        if not 0 <= self.trials <= 100 or not 1 <= self.pairs <= 20:
            raise ConfigError(
                f"trials must be between 0 and 100 and pairs between 1 and 20, got {self.trials} and {self.pairs}",
                where="--trials, --pairs",
                next_step="use 0 to 100 trials of 1 to 20 pairs",
            )
        if not (1 <= self.climb_seconds <= 60 and (self.verify_seconds == 0 or 1 <= self.verify_seconds <= 600)):
            raise ConfigError(
                (
                    "the load times must be 1 to 60 s per trial and 0 to 600 s to verify, got "
                    f"{self.climb_seconds:g} s and {self.verify_seconds:g} s"
                ),
                where="--seconds, --verify-seconds",
                next_step="use 1 to 60 s per trial, and 0 or 1 to 600 s to verify",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Result of a run: the plan, the optional search around it, the plan of the winner, its verification."""

    folder: Path
    curve: Curve
    plan: BatchPlan
    tuned: Tuned | None
    final: BatchPlan
    verified: Verified | None

    @property
    def sizes(self) -> Mapping[int, float]:
        """Batch sizes as shares of all batches: executed ones, or predicted where nothing was executed."""
        return (self.verified.sizes if self.verified else {}) or self.final.prediction.sizes

    @property
    def exit_code(self) -> int:
        """0 the objective held under load, 1 it did not, 4 the load was spoiled.

        Where nothing was verified 0 if the model is sure of it, else 3.
        """
        return self.verified.exit_code if self.verified else 0 if self.final.met else 3

    def to_json(self) -> dict[str, Any]:
        """JSON values with a schema number."""
        return {
            "schema": SCHEMA,
            "kind": "batch plan",
            "plan": as_json(self.plan),
            "tuned": as_json(self.tuned),
            "final": as_json(self.final),
            "verified": as_json(self.verified),
            "exit_code": self.exit_code,
            "run": str(self.folder),
        }


@dataclass(slots=True, kw_only=True)
class Climbing:
    """Measures what a setting sustains: a fresh server, one climb, the raw run kept in a folder of its own.

    Every climb has other arrivals; the two of a pair have the same.
    """

    bench: Bench
    slo: Slo
    climb: RateRamp
    folder: Path
    seed: int = 1
    made: int = 0
    told: Callable[[str], None] = field(default=lambda text: None)

    def __call__(self, setting: Setting) -> float:
        """Requests per second up to which the objective held; the climb's lowest where the server refuses to load."""
        number, self.made = self.made, self.made + 1
        try:
            rate = sustained(self._load(setting, number), self.climb, self.slo).rate
        except ModelLoadError as error:
            rate = self.climb.low
            self.told(f"{setting}: refused, {error.what}")
        else:
            self.told(f"{setting}: {rate:.0f}/s")
        return rate

    def _load(self, setting: Setting, number: int) -> LoadRun:
        with self.bench.serving(setting) as endpoint:
            return on_locust.load(
                endpoint,
                self.climb.schedule(self.seed + number // 2),
                self.bench.payload(endpoint),
                folder=self.folder / f"{number:03d}",
                client=on_locust.ClientSetup(cores=self.bench.client_cores),
                loop=on_locust.OpenLoopSetup(drain=2.0),
            )


def climb_for(sustains: float, seconds: float) -> RateRamp:
    """The climb that finds a rate which the model expects here: from well below it to well above.

    Never above what one load process can offer.
    """
    high = min(_CLIMB_HIGH * sustains, _CLIMB_MOST)
    return RateRamp(low=_CLIMB_LOW / _CLIMB_HIGH * high, high=high, seconds=seconds)


def run(
    bench: Bench,
    asked: TuneRequest,
    *,
    folder: Path,
    proposing: Callable[[Setting, dict[Setting, float]], Proposer],
    some: Sequence[Layout] = (),
    progress: Progress | None = None,
) -> Planned:
    """Measure the curve, plan, search around the plan, and verify the winner at the rate.

    Raises:
        ObjectiveError: no setting meets the objective at the rate, by the model.
        ConfigError: the folder holds a run that was asked something else.
        SeatrialError: whatever placing, starting or loading raises.
    """
    tell = progress or (lambda step, share, text: None)
    _claim(folder, bench, asked)
    curve = _curve(bench, asked, folder, some, lambda share, text: tell("curve", share, text))
    model = Model.of(curve, asked.slo)
    tell("plan", 0.1, "simulating")
    plan = choose(model, asked.rate)
    tell("plan", 1.0, str(plan.setting))
    tuned, final = None, plan
    if asked.trials:
        tuned = _search(bench, asked, folder, model, plan, proposing, tell)
        if tuned.best != plan.setting:
            final = planned(model, tuned.best, asked.rate, sustains=model.sustains(tuned.best))
    verified = None
    if asked.verify_seconds:
        tell("verify", 0.1, f"{asked.rate:g} requests per second")
        verified = verify(bench, final, folder=folder / "verify", seconds=asked.verify_seconds, seed=asked.seed)
        tell("verify", 1.0, "done")
    found = Planned(folder=folder, curve=curve, plan=plan, tuned=tuned, final=final, verified=verified)
    _write(folder / "result.json", found.to_json())
    return found


def _search(
    bench: Bench,
    asked: TuneRequest,
    folder: Path,
    model: Model,
    plan: BatchPlan,
    proposing: Callable[[Setting, dict[Setting, float]], Proposer],
    tell: Progress,
) -> Tuned:
    tell("trials", 0.0, "simulating the sustained rate of every setting")
    predicted = model.bearing(model.settings(), plan.sustains / 2) | {plan.setting: plan.sustains}
    done = journal.records(folder / "trials.jsonl", SCHEMA, Trial.from_json)
    slots = 2 * asked.pairs * asked.trials
    climbing = Climbing(
        bench=bench,
        slo=asked.slo,
        climb=climb_for(plan.sustains, asked.climb_seconds),
        folder=folder / "slots",
        seed=asked.seed,
        made=2 * sum(len(trial.pairs) for trial in done),
    )
    climbing.told = lambda text: tell("trials", climbing.made / slots, text)
    return tune(
        plan.setting,
        predicted,
        climbing,
        proposing(plan.setting, predicted),
        trials=asked.trials,
        pairs=asked.pairs,
        done=done,
        keep=lambda trial: journal.append(folder / "trials.jsonl", trial.to_json()),
    )


def _curve(
    bench: Bench, asked: TuneRequest, folder: Path, some: Sequence[Layout], progress: Callable[[float, str], None]
) -> Curve:
    path = folder / "curve.json"
    if (known := Curve.find(path, next_step="remove the file, then run again")) is not None:
        return known
    cores = environment().cores
    curve = observe(bench, tuple(some) or layouts(cores), largest=asked.largest, rounds=asked.rounds, progress=progress)
    _write(path, curve.to_json())
    return curve


def _claim(folder: Path, bench: Bench, asked: TuneRequest) -> None:
    """Note what the run is asked, or make sure that the folder was asked the same."""
    beside = Setting(max_batch=asked.largest, delay_us=0, layout=Layout(instances=1, threads=1))
    said = {
        "schema": SCHEMA,
        "kind": "tune",
        "artifact": bench.artifact.digest,
        "deployment": digest_bytes(canonical(as_json(beside.applied(bench.deployment)))),
        "asked": as_json(asked) | {"trials": 0, "verify_seconds": 0},
    }
    path = folder / "tune.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, said)
        return
    try:
        known = read_object(path)
    except IntegrityError:
        known = {}
    if differing := sorted(key for key in said if known.get(key) != said[key]):
        raise ConfigError(
            f"the run in that folder had other settings: {', '.join(differing)}",
            where=str(folder),
            next_step="name another folder, or repeat the settings (only --trials and --verify-seconds may differ)",
        )


def _write(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=1, allow_nan=False).encode() + b"\n")
