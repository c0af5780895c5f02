"""From a verb's options to an arrival schedule: which law, and what it needs. Sends nothing."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from optimize.errors import ConfigError

from ..schedule import Schedule


class Law(StrEnum):
    """Arrival laws that a verb offers."""

    POISSON = "poisson"
    CONSTANT = "constant"
    GAMMA = "gamma"
    RAMP = "ramp"
    REPLAY = "replay"


Rate = Annotated[float | None, typer.Option(help="Mean arrivals per second; default: 50, or a recording's own.")]
Seconds = Annotated[float | None, typer.Option(help="How long to send; default: 10, or the whole recording.")]
Laws = Annotated[Law, typer.Option(help="How arrivals are spread over time.")]
Burstiness = Annotated[
    float | None, typer.Option(help="gamma: shape of the gaps; 1 is Poisson, 0.25 comes in bursts, 4 is evener.")
]
ToRate = Annotated[float | None, typer.Option(help="ramp: the rate reached at the end; --rate is where it begins.")]
Recorded = Annotated[
    Path | None, typer.Option("--replay", help="replay: arrivals in seconds (CSV or npz); --rate scales its time.")
]


def schedule_of(
    law: Law,
    *,
    rate: float | None,
    seconds: float | None,
    seed: int,
    burstiness: float | None = None,
    to_rate: float | None = None,
    recorded: Path | None = None,
    default_rate: float = 50.0,
    default_seconds: float = 10.0,
) -> Schedule:
    """The schedule that these options ask for; a recording without `rate` and `seconds` is played as it was.

    Raises:
        ConfigError: an option that the law needs is missing, one that it does not know is given, or as the law itself.
        MissingError: no such recording.
    """
    from .. import recording, schedule

    needs = {
        Law.GAMMA: ("--burstiness", burstiness),
        Law.RAMP: ("--to-rate", to_rate),
        Law.REPLAY: ("--replay", recorded),
    }
    for owner, (option, value) in needs.items():
        if (value is not None) != (owner is law):
            said = f"--law {law} needs {option}" if owner is law else f"{option} goes with --law {owner}, not {law}"
            raise ConfigError(said, where=option, next_step=f"see --help; --law is one of {', '.join(Law)}")
    if recorded is not None:
        return recording.read(recorded).schedule(seconds=seconds, rate=rate)
    rate, seconds = rate or default_rate, seconds or default_seconds
    if law is Law.CONSTANT:
        return schedule.constant(rate, seconds)
    if burstiness is not None:
        return schedule.gamma(rate, seconds, seed, burstiness)
    if to_rate is not None:
        return schedule.ramp([(0.0, rate), (seconds, to_rate)], seed)
    return schedule.poisson(rate, seconds, seed)
