"""A load started by hand through Locust's own command line or web UI: its options, made into one process's parameters.

Checks and limits are those of `seatrial load`; what it lacks is the run folder and the verdict on the run's validity.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from seatrial.optimize.errors import ConfigError

from ..schedule import poisson
from ..targets import endpoint_of
from . import guard
from .inputs import distinct_inputs
from .parameters import closed_loop, load_process, open_loop
from .payload import Payload
from .wire import WIRES


def add_options(parser: Any) -> None:
    """Put a load's options beside Locust's own; ``--host`` is the server."""
    group = parser.add_argument_group("seatrial", "An open- or closed-loop load on a KServe v2 server (--host).")
    group.add_argument("--model", default="", help="the model's name; optional if only one is ready")
    group.add_argument("--protocol", choices=[wire for wire in WIRES if wire != "shm"], default="http")
    group.add_argument("--grpc-url", default="", help="host:port of the server's gRPC endpoint")
    group.add_argument("--rate", type=float, default=50.0, help="mean arrivals per second (Poisson)")
    group.add_argument("--seconds", type=float, default=10.0, help="seconds of load")
    group.add_argument(
        "--concurrency", type=int, default=0, help="run a closed loop with this many connections instead"
    )
    group.add_argument("--batch", type=int, default=1, help="samples per request")
    group.add_argument("--seed", type=int, default=1, help="seed of the arrival times")
    group.add_argument("--i-own-this-target", action="store_true", help="allow a target on another machine")


def prepare(options: Any, host: str | None, folder: Path) -> dict[str, Any]:
    """Write payload, schedule and the word to start into `folder`; the parameters of the load process.

    Raises:
        SeatrialError: no host, a target that is not there or not ours, or a load beyond the caps.
    """
    if not host:
        raise ConfigError("no target was given", next_step="name the server: --host http://127.0.0.1:8000")
    if getattr(options, "worker", False):
        raise ConfigError("manually started workers cannot agree on a start", next_step="use seatrial load --workers N")
    endpoint = endpoint_of(host, options.model or None)
    endpoint = replace(endpoint, grpc_url=options.grpc_url or None)
    if options.concurrency:
        parameters = closed_loop(options.concurrency, options.seconds, warmup=16)
    else:
        schedule = poisson(options.rate, options.seconds, options.seed)
        parameters = open_loop(schedule, in_flight=256, workers=1, warmup=16, drain=10.0, real_time=False)
        schedule.save(folder / "schedule.npz")
    guard.check(
        endpoint,
        options.protocol,
        seconds=options.seconds,
        in_flight=options.concurrency or 256,
        workers=1,
        own=options.i_own_this_target,
    )
    inputs = distinct_inputs(endpoint, options.batch, options.seed, protocol=options.protocol)
    Payload.build(endpoint, inputs, batch=options.batch, protocol=options.protocol).save(folder / "payload.npz")
    (folder / "go.json").write_text(json.dumps({"start": None}))
    return parameters | load_process(endpoint, options.protocol, folder, worker=0, workers=1)
