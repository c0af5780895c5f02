"""Cost of Triton's queue policy: the same model with and without `[queue]`, closed loop, rounds interleaved.

The model is the echo example, so that the path through the server is all there is to measure.
"""

import argparse
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seatrial.bench.load.on_locust import saturate
from seatrial.bench.load.payload import Payload
from seatrial.bench.targets import endpoint_of
from seatrial.optimize.environment import environment, now
from seatrial.serve.triton.running.on_pytriton import serving

ECHO = Path(__file__).parent.parent.parent / "model_repository" / "echo"
POLICY = """dynamic_batching {
  default_queue_policy {
    default_timeout_microseconds: 2000000
    allow_timeout_override: true
    max_queue_size: 256
  }
}"""
CONCURRENCIES = (1, 2, 4, 8)
LATE = 0.3  # seconds; the batcher's wait for a wake-up that it missed is half a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One closed-loop window: requests answered, and how many of them late."""

    requests: int
    late: int


def turn(repository: Path, concurrency: int, seconds: float, folder: Path) -> Turn:
    """A fresh server, a warm client, one window."""
    with serving(repository, ("echo",)) as server:
        endpoint = endpoint_of(server.url, "echo")
        payload = Payload.build(endpoint, {"x": np.ones((8, 4), np.float32)})
        run = saturate(endpoint, payload, seconds=seconds, concurrency=concurrency, folder=folder)
    return Turn(requests=run.completed, late=int(np.count_nonzero(run.done - run.sent > LATE)))


def repositories(folder: Path) -> dict[str, Path]:
    """The example as it is, and with a queue policy."""
    text = (ECHO / "config.pbtxt").read_text()
    texts = {"default": text, "queue": text.replace("dynamic_batching {\n}", POLICY)}
    for name, config in texts.items():
        model = folder / name / "echo"
        (model / "1").mkdir(parents=True)
        (model / "config.pbtxt").write_text(config)
        (model / "1" / "model.py").write_bytes((ECHO / "1" / "model.py").read_bytes())
    if texts["default"] == texts["queue"]:
        raise RuntimeError("the example's configuration changed; fix this script")
    return {name: folder / name for name in texts}


def row(concurrency: int, turns: dict[str, list[Turn]]) -> dict[str, object]:
    """One concurrency as a claim."""
    answered = {name: sum(each.requests for each in rounds) for name, rounds in turns.items()}
    late = {name: sum(each.late for each in rounds) for name, rounds in turns.items()}
    ratios = [one.requests / other.requests for one, other in zip(turns["default"], turns["queue"], strict=True)]
    return {
        "claim": f"{concurrency} clients back to back: the default deployment answers no request later than {LATE:g} s",
        "value": f"{late['default']} of {answered['default']} late, with [queue] {late['queue']} of {answered['queue']}"
        f"; {min(ratios):.1f} to {max(ratios):.1f} times the throughput",
        "bar": "0 late",
        "met": late["default"] == 0,
    }


def main() -> int:
    """Run, print, and exit 0 where every bar was met."""
    parser = argparse.ArgumentParser(description="Measure the cost of a queue policy in the real Triton.")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a window (default: %(default)s)")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="seatrial-queue-") as name:
        folder = Path(name)
        os.environ["SEATRIAL_HOME"] = str(folder / "home")
        places = repositories(folder / "repositories")
        for concurrency in CONCURRENCIES:
            turns: dict[str, list[Turn]] = {each: [] for each in places}
            for number in range(arguments.rounds):
                for each in sorted(places, reverse=bool(number % 2)):
                    turns[each].append(turn(places[each], concurrency, arguments.seconds, folder / "load"))
            rows.append(row(concurrency, turns))
            if not arguments.json:
                if concurrency == CONCURRENCIES[0]:
                    here = environment()
                    print(f"{now()}, {here.cpu}, {here.cores} cores")
                print(f"{'met ' if rows[-1]['met'] else 'MISS'}  {rows[-1]['claim']}: {rows[-1]['value']}", flush=True)
    if arguments.json:
        print(json.dumps({"rows": rows}, indent=1))
    return 0 if all(each["met"] for each in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
