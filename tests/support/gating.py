"""A gate without a server: hosts that hand out stub servers, and a clock that makes up what was measured."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from socket import create_connection
from typing import Any

import numpy as np

from seatrial.bench.budget import Budget, Design, Limit
from seatrial.bench.gating.gate import gate
from seatrial.bench.gating.gate_setup import GateSetup, Generator
from seatrial.bench.load.load_setup import ClientSetup
from seatrial.bench.load.payload import Payload
from seatrial.bench.load.run import LoadRun, Saturation
from seatrial.bench.load.wire import HttpConnection
from seatrial.bench.schedule import Schedule
from seatrial.bench.targets import Endpoint
from seatrial.bench.verdict import Verdict
from seatrial.optimize.artifact import Artifact, File, Provenance, TensorSpec
from seatrial.optimize.errors import SeatrialError
from seatrial.optimize.recipe.metrics import accuracy
from seatrial.optimize.samples import Samples

INPUTS = (TensorSpec(name="x", dtype="float32", shape=("batch", 4)),)
OUTPUTS = (TensorSpec(name="scores", dtype="float32", shape=("batch", 3)),)
Answer = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def artifact(name: str, size: int = 1000) -> Artifact:
    made = Provenance(stage="import", parent=None, config={}, recipe="", samples=None, seed=0, environment={}, at="")
    file = File(path="model.onnx", digest="sha256:" + name[0].encode().hex() * 32, size=size)
    return Artifact(name=name, format="onnx", files=(file,), inputs=INPUTS, outputs=OUTPUTS, requires={}, made_by=made)


BASE, CANDIDATE = artifact("base"), artifact("candidate", 500)


def good(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(x[:, :3])


@contextmanager
def standing() -> Iterator[int]:
    """A process whose memory stands for the server's: the test runner's own grows with whatever other tests did."""
    code = "import time; held = b'x' * 200_000_000; print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process.pid
        process.kill()


class Host:
    """Hands out fresh servers; remembers the order; `refuse` names artifacts whose loading raises."""

    serve: Callable[[Answer], AbstractContextManager[int]]
    pid: int

    def __init__(
        self, answers: Mapping[str, Answer] | None = None, refuse: Mapping[str, SeatrialError] | None = None
    ) -> None:
        self.answers, self.refuse, self.order = answers or {}, refuse or {}, list[str]()

    @contextmanager
    def __call__(self, artifact: Artifact) -> Iterator[Endpoint]:
        self.order.append(artifact.name)
        if artifact.name in self.refuse:
            raise self.refuse[artifact.name]
        with self.serve(self.answers.get(artifact.name, good)) as port:
            yield Endpoint(
                url=f"127.0.0.1:{port}",
                model=artifact.name,
                version="1",
                inputs=INPUTS,
                outputs=OUTPUTS,
                pids=(self.pid,),
            )


Spoil = Callable[[str, LoadRun], LoadRun]


class Clock:
    """Sends a few requests for real, and makes the times up: `service` seconds by model, with a little noise."""

    def __init__(self, service: Mapping[str, float] | None = None, spoil: Spoil = lambda model, run: run) -> None:
        self.service, self.spoil, self.calls = service or {}, spoil, 0

    @property
    def generator(self) -> Generator:
        return Generator(load=self.made_load, saturate=self.made_saturation)

    def time(self, model: str, seed: int) -> float:
        return self.service.get(model, 0.002) * float(np.random.default_rng(seed).lognormal(0, 0.005))

    def made_load(self, endpoint: Endpoint, schedule: Schedule, payload: Payload, **ignored: Any) -> LoadRun:
        self.calls += 1
        random = np.random.default_rng(self.calls)
        connection = HttpConnection(endpoint.address, create_connection)
        connection.open()
        status = np.full(len(schedule), 200, np.int16)
        for index in range(5):
            status[index], _ = connection.exchange(payload.requests[index])
        connection.close()
        sent = schedule.offsets + 1e-5
        times = (
            self.service.get(endpoint.model, 0.002) * random.lognormal(0, 0.005) * random.gamma(50, 1 / 50, len(sent))
        )
        run = LoadRun(
            intended=schedule.offsets,
            sent=sent,
            done=sent + times,
            status=status,
            schedule=schedule,
            batch=payload.batch,
            client_cpu=0.1,
            elapsed=schedule.seconds,
            start=0.0,
            target=endpoint.url,
        )
        return self.spoil(endpoint.model, run)

    def made_saturation(
        self,
        endpoint: Endpoint,
        payload: Payload,
        *,
        seconds: float,
        concurrency: int,
        folder: Path,
        client: ClientSetup,
        **ignored: Any,
    ) -> Saturation:
        each = self.time(endpoint.model, self.calls + 99)
        done = np.arange(each, seconds, each)
        return Saturation(
            sent=done - each,
            done=done,
            status=np.full(len(done), 200, np.int16),
            seconds=seconds,
            concurrency=concurrency,
            batch=payload.batch,
            client_cpu=0.1,
            start=0.0,
            target=endpoint.url,
        )


def top1(outputs: Mapping[str, np.ndarray[Any, Any]], labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return accuracy(outputs["scores"], labels)


def run(budget: Budget, samples: Samples, folder: Path, host: Host, clock: Clock | None = None) -> Verdict:
    return gate(
        BASE,
        CANDIDATE,
        budget,
        GateSetup(host=host, samples=samples, metric=top1, folder=folder, generator=(clock or Clock()).generator),
    )


def some_samples() -> Samples:
    """402 of three classes, a few labelled wrong."""
    random = np.random.default_rng(0)
    x = random.standard_normal((402, 4)).astype(np.float32)
    labels = x[:, :3].argmax(axis=1)
    labels[::10] = 0
    return Samples(split="evaluation", inputs={"x": x}, labels=labels)


def small_budget() -> Budget:
    """Four pairs, all limits wide."""
    return Budget(
        design=Design(pairs=4, reruns=1, rate=300.0, seconds=1.0, quality_batch=16, warmup_requests=3, seed=5),
        limits=(
            Limit(metric="quality", max_drop=0.02),
            Limit(metric="p50", max_regression=0.05),
            Limit(metric="throughput", max_regression=0.05),
            Limit(metric="peak_memory", max_regression=0.3),
            Limit(metric="file_size", max_regression=0.0),
        ),
    )


def wrong_answers(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.roll(good(x), 1, axis=1)


def nan_answers(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    answer = good(x).copy()
    answer[0, 1] = np.nan
    return answer


def refuse_batches(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if len(x) > 1:
        raise RuntimeError("shape [16,4] exceeds the largest batch")
    return good(x)


FAULTS: dict[str, Answer] = {
    "NaN": nan_answers,
    "the metadata promises [": lambda x: np.ascontiguousarray(x[:, :2]),
    "samples": lambda x: good(x)[: max(1, len(x) - 1)],
    "exceeds the largest batch": refuse_batches,
}


def means(samples: Samples, folder: Path, host: Host, clock: Clock) -> GateSetup:
    return GateSetup(host=host, samples=samples, metric=top1, folder=folder, generator=clock.generator)
