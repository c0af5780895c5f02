"""Gate runs made of seeded noise and a small KServe v2 server, so that judge, report and gate need no Triton."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from seatrial.bench.budget import Budget, Design, Limit
from seatrial.bench.gating import pairs
from seatrial.bench.gating.pairs import GateRun, PinnedPrice, RunHeader, SlotRecord
from seatrial.bench.verdict import EvaluationSet, Judged

RunMaker = Callable[..., GateRun]
MIB = 1 << 20


@pytest.fixture
def budget() -> Budget:
    """The limits of the demo, over a design with few requests."""
    return Budget(
        design=Design(rate=120.0, seconds=9.0),
        limits=(
            Limit(metric="quality", max_drop=0.01),
            Limit(metric="p50", max_regression=0.05),
            Limit(metric="p99", max_regression=0.10),
            Limit(metric="throughput", max_regression=0.05),
            Limit(metric="peak_memory", max_regression=0.05, floor=16.0 * MIB),
            Limit(metric="file_size", max_regression=0.0),
            Limit(metric="cost", max_regression=0.05),
            Limit(metric="errors", at_most=0.0),
        ),
    )


@pytest.fixture
def make_run(budget: Budget) -> RunMaker:
    """A run in which the candidate's figures are the base's times a factor, with noise between slots."""

    def make(
        *,
        latency: float = 1.0,
        throughput: float = 1.0,
        memory: float = 1.0,
        size: float = 1.0,
        lost: int = 0,
        noise: float = 0.01,
        change: Mapping[tuple[int, str], Callable[[SlotRecord], SlotRecord]] | None = None,
        count: int = 1200,
        seed: int = 1,
    ) -> GateRun:
        random, records = np.random.default_rng(seed), []
        for slot in pairs.plan(budget.design.pairs, seed):
            candidate = slot.arm == "candidate"
            share = count // budget.design.pairs
            quality = np.ones(share)
            quality[: share // 10] = 0
            if candidate:
                quality[share // 10 : share // 10 + lost // budget.design.pairs] = 0
            slow = random.lognormal(0, noise) * (latency if candidate else 1)
            times = 0.002 * slow * random.gamma(20, 1 / 20, 1080)
            record = SlotRecord(
                slot=slot,
                attempt=0,
                latency=times + 1e-4,
                service=times,
                lag=np.full(1080, 1e-4),
                status=np.full(1080, 200),
                quality=quality,
                quality_start=slot.pair * share,
                throughput=420.0 * random.lognormal(0, noise) * (throughput if candidate else 1),
                peak_memory=float(int(310 * MIB * (memory if candidate else 1) * random.lognormal(0, 0.001))),
                startup=1.4,
                control=0.0004,
            )
            spoil = (change or {}).get((slot.pair, slot.arm))
            records.append(spoil(record) if spoil else record)
        return GateRun(header=header(budget, count, size), records=tuple(records))

    return make


def header(budget: Budget, count: int, size: float) -> RunHeader:
    def artifact(name: str, digit: str, bytes_: int) -> Judged:
        return Judged(name=name, digest="sha256:" + digit * 64, format="onnx", size=bytes_)

    return RunHeader(
        base=artifact("scenes", "a", 44_000_000),
        candidate=artifact("scenes-int8", "b", int(44_000_000 * size)),
        budget=budget,
        samples=EvaluationSet(split="evaluation", count=count, digest="sha256:" + "e" * 64),
        price=PinnedPrice(name="aws-c7i-large", machine="AWS c7i.large", usd_hour=0.08925, source="list"),
        environment={"cpu": "AMD EPYC", "cores": 2, "libraries": {"numpy": "1.26.4"}, "commit": "abc"},
        at="2026-11-02T10:00:00+00:00",
    )


Answer = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


@pytest.fixture
def kserve() -> Callable[[Answer], AbstractContextManager[int]]:
    """A KServe v2 server for as long as a block lasts: takes x, answers scores as the given function says."""
    return server


@contextmanager
def server(answer: Answer) -> Iterator[int]:
    """A KServe v2 server on a free port that knows one model."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            length = int(self.headers["Inference-Header-Content-Length"])
            body = self.rfile.read(int(self.headers["Content-Length"]))
            shape = json.loads(body[:length])["inputs"][0]["shape"]
            try:
                made = answer(np.frombuffer(body[length:], "<f4").reshape(shape))
            except RuntimeError as error:
                self.reply(500, json.dumps({"error": str(error)}).encode(), {})
                return
            output: dict[str, Any] = {"name": "scores", "datatype": "FP32", "shape": list(made.shape)}
            output["parameters"] = {"binary_data_size": made.nbytes}
            head = json.dumps({"outputs": [output]}).encode()
            self.reply(200, head + made.tobytes(), {"Inference-Header-Content-Length": str(len(head))})

        def reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield running.server_address[1]
    finally:
        running.shutdown()
        running.server_close()
