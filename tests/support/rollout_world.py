"""A simulated world for rollouts: router, fleet, traffic and a clock that runs as fast as one asks.

It stands in for Envoy and Triton where their faults cannot be made at will, and where days have to pass in seconds. It
refuses what the real ones would suffer from: routes to a version that is not served, unloading one that is routed. Kept
in a file, it outlives a controller that is killed; `python -m tests.support.rollout_world` is such a controller.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from seatrial.serve.errors import ModelLoadError, RouterError, ServerError
from seatrial.serve.fleet import Health
from seatrial.serve.traffic.rollout.controller import RolloutPorts, run
from seatrial.serve.traffic.rollout.evidence import Judgement
from seatrial.serve.traffic.rollout.machine import Rollout
from seatrial.serve.traffic.rollout.plan import Plan, Shadow, Step
from seatrial.serve.traffic.rollout.records import Records
from seatrial.serve.traffic.routes import Routes
from seatrial.serve.traffic.seen import Seen

STABLE, CANDIDATE = 1, 2
QUICK = Plan(
    schema=1,
    steps=(
        Step(share=0.05, requests=20, needs="requests", dwell=600),
        Step(share=0.5, requests=60, needs="requests", dwell=600),
        Step(share=1.0, requests=60, needs="requests", dwell=600),
    ),
    shadow=Shadow(mirror=0.5, dwell=600),
    warmup=2.0,
    drain=3.0,
    load=60.0,
)


class Killed(BaseException):
    """The controller was killed here; nothing of it may catch this."""


@dataclass
class Candidate:
    """How the candidate behaves; the stable version's median is 20 ms."""

    slower: float = 1.0
    errors: float = 0.0
    refused: float = 0.0
    loads: bool = True
    breaks_at: float = float("inf")  # seconds after the start, when it stops answering
    restarted_at: float = float("inf")
    memory: int = 1 << 28
    golden: Judgement = field(default_factory=lambda: Judgement(outcome="PASS", reasons=("golden replies agree",)))
    agreement: Judgement = field(default_factory=lambda: Judgement(outcome="PASS", reasons=("answers agree",)))


@dataclass
class Simulated:
    """The world. `kill_at` counts the acts (applying, serving) after which, or before which, the controller dies."""

    rate: float = 20.0
    candidate: Candidate = field(default_factory=Candidate)
    now: float = 1_000_000.0
    loaded: set[int] = field(default_factory=lambda: {STABLE})
    routes: Routes | None = None
    refuses_routes_until: float = 0.0
    down: tuple[float, float] = (0.0, 0.0)  # from and until when the whole server is gone
    silent: bool = False  # no traffic at all
    file: Path | None = None
    kill_at: int = 0
    really: bool = False
    acts: int = 0
    history: list[tuple[str, Any]] = field(default_factory=list)
    begun: float = 1_000_000.0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(7)
        self.told = self.now
        if self.file is not None and self.file.exists():
            kept = json.loads(self.file.read_text())
            self.now, self.loaded = kept["now"], set(kept["loaded"])
            self.routes = Routes(**kept["routes"]) if kept["routes"] else None
            self.told = self.now

    def world(self) -> RolloutPorts:
        return RolloutPorts(
            router=self,
            fleet=self,
            seen=self.seen,
            golden=lambda: self.candidate.golden,
            agreement=lambda: self.candidate.agreement,
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._keep()

    # the router
    def apply(self, routes: Routes) -> None:
        if self.now < self.refuses_routes_until:
            raise RouterError("the proxy refused the routes", where=routes.model)
        assert set(routes.versions) <= self.loaded, f"routes to what is not served: {routes}, {self.loaded}"
        self._act("routes", routes)
        self.routes = routes
        self._keep()
        self._act("routed", routes)

    def current(self, model: str) -> Routes | None:
        return self.routes

    # the fleet
    def serve(self, model: str, versions: tuple[int, ...]) -> None:
        self._up()
        routed = set(self.routes.versions) if self.routes is not None else set()
        assert routed <= set(versions), f"unloading what is routed: {routed} of {versions}"
        self._act("serve", versions)
        if CANDIDATE in versions and not self.candidate.loads:
            self.loaded |= set(versions) - {CANDIDATE}
            self._keep()
            raise ModelLoadError("failed to poll: no model file", where=model)
        self.loaded = set(versions)
        self._keep()
        self._act("served", versions)

    def health(self, model: str, version: int) -> Health:
        self._up()
        restarts = 0
        if version == CANDIDATE:
            age = self.now - self.begun
            restarts = int(age >= self.candidate.restarted_at)
            if age >= self.candidate.breaks_at:
                return Health(ok=False, reason="answers NaN")
        if version not in self.loaded:
            return Health(ok=False, reason="not loaded")
        return Health(ok=True, restarts=restarts, memory=self.candidate.memory)

    # the traffic
    def seen(self) -> Iterator[Seen]:
        start, self.told = self.told, self.now
        if self.silent or self.routes is None:
            return
        for index in range(round((self.now - start) * self.rate)):
            at = start + index / self.rate
            candidate = self.routes.candidate is not None and self.random.random() < self.routes.share
            version = self.routes.candidate if candidate else self.routes.stable
            new = version == CANDIDATE
            seconds = 0.02 * float(np.exp(self.random.normal(0, 0.5))) * (self.candidate.slower if new else 1.0)
            failing, refusing = (self.candidate.errors, self.candidate.refused) if new else (0.0, 0.0)
            status = 503 if self.random.random() < failing else 400 if self.random.random() < refusing else 200
            yield Seen(
                at=at,
                model="m",
                version=version or STABLE,
                role="live",
                seconds=seconds,
                status=status,
                request_id=f"{at}",
            )

    def _up(self) -> None:
        if self.down[0] <= self.now < self.down[1]:
            raise ServerError("the server does not answer")

    def _act(self, name: str, value: Any) -> None:
        self.history.append((name, value))
        self.acts += 1
        if self.acts == self.kill_at:
            if self.really:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Killed

    def _keep(self) -> None:
        if self.file is not None:
            kept = {
                "now": self.now,
                "loaded": sorted(self.loaded),
                "routes": asdict(self.routes) if self.routes is not None else None,
            }
            staged = self.file.with_suffix(".new")
            staged.write_text(json.dumps(kept))
            staged.replace(self.file)


def begin(home: Path, *, plan: Plan = QUICK, **changes: Any) -> Records:
    """A rollout of version 2 beside version 1, not yet moved."""
    records = Records(home, "m")
    rollout = Rollout(
        model="m", stable=STABLE, candidate=CANDIDATE, digest="sha256:new", plan=plan, started=1_000_000.0
    )
    records.start(replace(rollout, **changes))
    return records


if __name__ == "__main__":
    home_, kill, slower = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    simulated = Simulated(file=home_ / "world.json", kill_at=kill, really=True, candidate=Candidate(slower=slower))
    print(run(Records(home_, "m"), simulated.world()).phase)
