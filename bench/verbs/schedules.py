"""From a verb's options to an arrival schedule: which law, and what it needs. Sends nothing."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from seatrial.optimize.errors import ConfigError

from .. import recording, schedule
from ..schedule import Schedule


class Law(StrEnum):
    """Arrival laws that a verb offers."""

    POISSON = "poisson"
    CONSTANT = "constant"
    GAMMA = "gamma"
    RAMP = "ramp"
    REPLAY = "replay"


Rate = Annotated[float | None, typer.Option(help="Mean arrivals per second; default: 50, or a recording's own.")]
Seconds = Annotated[float | None, typer.Option(help="Seconds of load; default: 10, or the whole recording.")]
Laws = Annotated[
    Law | None,
    typer.Option(help="Distribution of arrivals over time; default: poisson, or the law of another option."),
]
Burstiness = Annotated[
    float | None, typer.Option(help="gamma: shape of the gaps; 1 is Poisson, 0.25 bursty, 4 more regular.")
]
ToRate = Annotated[float | None, typer.Option(help="ramp: the final rate; --rate is the initial one.")]
Spread = Annotated[
    float | None,
    typer.Option(help="replay: distribute each arrival over this many seconds, 1 for a log of whole seconds."),
]
Recorded = Annotated[
    Path | None,
    typer.Option("--replay", help="replay: file of arrivals in seconds (CSV or npz); --rate scales its time."),
]


def schedule_of(
    law: Law | None,
    *,
    rate: float | None,
    seconds: float | None,
    seed: int,
    burstiness: float | None = None,
    to_rate: float | None = None,
    recorded: Path | None = None,
    spread: float | None = None,
    default_rate: float = 50.0,
    default_seconds: float = 10.0,
) -> Schedule:
    """Return the schedule for these options; a recording without `rate` and `seconds` is replayed unchanged.

    Without a law it is the one that needs a given option, else Poisson.

    Raises:
        ConfigError: an option is missing or does not belong to the law, or the law itself refuses its values.
        MissingError: the recording does not exist.
    """
    needs = {
        Law.GAMMA: ("--burstiness", burstiness),
        Law.RAMP: ("--to-rate", to_rate),
        Law.REPLAY: ("--replay", recorded),
    }
    if spread is not None and recorded is None:
        raise ConfigError("--spread needs --replay", where="--spread", next_step="see --help")
    law = law or next((owner for owner, (_, value) in needs.items() if value is not None), Law.POISSON)
    for owner, (option, value) in needs.items():
        if (value is not None) != (owner is law):
            said = (
                f"--law {law} needs {option}"
                if owner is law
                else f"{option} belongs to --law {owner}, but --law is {law}"
            )
            raise ConfigError(said, where=option, next_step=f"see --help; --law is one of {', '.join(Law)}")
    if recorded is not None:
        return recording.read(recorded).schedule(seconds=seconds, rate=rate, spread=spread or 0.0, seed=seed)
    rate, seconds = rate or default_rate, seconds or default_seconds
    if law is Law.CONSTANT:
        return schedule.constant(rate, seconds)
    if burstiness is not None:
        return schedule.gamma(rate, seconds, seed, burstiness)
    if to_rate is not None:
        return schedule.ramp([(0.0, rate), (seconds, to_rate)], seed)
    return schedule.poisson(rate, seconds, seed)
