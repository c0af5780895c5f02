"""Shadow, measured: the primary does not wait, all due requests are compared, a small error is found."""

import os
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np

from scripts.benchmarks.rows import Row, Rows
from scripts.benchmarks.rows import main as run_rows
from scripts.benchmarks.shadowed import Client, edge, hanging, versions
from seatrial.serve.processes import wait
from seatrial.serve.traffic.edge import Limits
from seatrial.serve.traffic.envoy.on_capture import Collector, look, read
from seatrial.serve.traffic.envoy.proxy import Proxy
from seatrial.serve.traffic.envoy.routes import is_copied
from seatrial.serve.traffic.shadow.agreement import ANY, Agreement, AgreementLimits
from seatrial.serve.traffic.shadow.joining import Shadow
from seatrial.serve.triton.server import Server

SHARE = 0.2
RATE = 200.0  # requests a second, one client
HANG_MS = 1000  # after which a mirror is late
BLOCKS, BLOCK = 60, 80  # of each arm, and requests in each
PLANTED = 0.01
LIMIT = 0.998  # of the same class; what is planted is five times what this allows
MOST = 4000  # compared requests, after which the planted error counts as missed


def shadow(folder: Path) -> Row:
    """A candidate that hangs beside no mirror at all, in turns; then an identical and a faulty one, compared."""
    with patch.dict(os.environ, SEATRIAL_HOME=str(folder / "home")), versions(folder) as server:
        bare, mirrored, hung = _hanging(server)
        same, due = _identical(server)
        faulty, found_after, share = _planted(server)
    added = (np.median(mirrored) - np.median(bare)) * 1e3
    tail = (np.quantile(mirrored, 0.99) - np.quantile(bare, 0.99)) * 1e3
    refused = ", ".join(f"{count} {reason}" for reason, count in hung.unmatched.items())
    return Row(
        name="shadow",
        claim=f"mirror at {SHARE:.0%} with a candidate that hangs, {RATE:.0f} requests/s, {BLOCKS} blocks of {BLOCK} "
        "an arm in turns with an edge that mirrors nothing; then real Triton answers compared",
        value=f"added p50 {added:+.3f} ms, p99 {tail:+.3f} ms (of {np.median(bare) * 1e3:.2f} and "
        f"{np.quantile(bare, 0.99) * 1e3:.2f}); of {hung.sampled} hung mirrors {refused}; identical candidate: "
        f"{same.compared} of {due} due compared, {same.outcome}; {share:.1%} of answers wrong: {faulty.outcome} after "
        f"{found_after} compared requests (limit {1 - LIMIT:.1%})",
        bar="added p50 <= 0.5 ms; every request that is due compared or counted; PASS; FAIL",
        met=bool(added <= 0.5)
        and sum(hung.unmatched.values()) == hung.sampled > 0
        and (same.compared, same.outcome) == (due, "PASS")
        and faulty.outcome == "FAIL",
    )


def _hanging(server: Server) -> tuple[list[float], list[float], Agreement]:
    """Latencies without and with the mirror, block by block (ABBA), and what became of the mirrors."""
    with (
        hanging() as port,
        edge(server, share=0.0) as one,
        edge(server, share=SHARE, hangs=port, limits=Limits(shadow_requests=8), timeout_ms=HANG_MS) as other,
    ):
        arms = {"bare": Client(one.port), "mirrored": Client(other.port)}
        took: dict[str, list[float]] = {"bare": [], "mirrored": []}
        for block in range(BLOCKS + 1):
            for arm in ("bare", "mirrored") if block % 2 else ("mirrored", "bare"):
                times = _block(arms[arm])
                took[arm] += times if block else []  # the first one warms up
        for client in arms.values():
            client.close()
        time.sleep(1.5 * HANG_MS / 1000)
        _flush(other)
        joined, _ = read(other.places.capture)
    return took["bare"], took["mirrored"], joined.agreement({})


def _block(client: Client) -> list[float]:
    """One block at the rate; late requests are not caught up."""
    times = []
    for _ in range(BLOCK):
        began = time.perf_counter()
        times.append(client.ask((0.1, 0.2, 0.3, 0.4))[1])
        time.sleep(max(0.0, 1 / RATE - (time.perf_counter() - began)))
    return times


def _identical(server: Server) -> tuple[Agreement, int]:
    """The verdict on version 2, and how many requests should have been compared."""
    random = np.random.default_rng(1)
    with edge(server, share=SHARE) as running:
        client = Client(running.port)
        ids = [client.ask(random.random(4).tolist())[0] for _ in range(6000)]
        client.close()
        _flush(running)
        joined, _ = read(running.places.capture, stable=1, candidate=2)
    return joined.agreement({}), sum(is_copied(each, SHARE) for each in ids)


def _planted(server: Server) -> tuple[Agreement, int, float]:
    """Version 3 looked at as its answers come: the verdict, after how many, and the share that was wrong."""
    random, limits = np.random.default_rng(2), {ANY: AgreementLimits(top1_at_least=LIMIT)}
    joined = Shadow(stable=1, candidate=3)
    with edge(server, share=1.0, candidate=3) as running:
        client = Client(running.port)
        collector = Collector(running.places.capture, running.admin.reopen_logs)
        found = joined.agreement(limits)
        while found.outcome != "FAIL" and found.compared < MOST:
            for _ in range(50):
                client.ask(random.random(4).tolist())
            _flush(running)
            found = look(collector, joined, limits)
        client.close()
    wrong = sum(each.same != 1.0 for each in joined.found)
    return found, found.compared, wrong / max(found.compared, 1)


def _flush(running: Proxy) -> None:
    """Have the proxy write what it holds, and wait until it has."""
    running.admin.reopen_logs()
    sizes: list[int] = []

    def settled() -> bool:
        time.sleep(0.1)
        sizes.append(sum(path.stat().st_size for path in running.places.capture.iterdir()))
        return len(sizes) > 1 and sizes[-1] == sizes[-2]

    wait(settled, 5.0)


ROWS: Rows = {"shadow": shadow}


def main() -> int:
    """Run the rows that the command line names."""
    return run_rows("Measure the claims of the shadow comparison.", ROWS)


if __name__ == "__main__":
    raise SystemExit(main())
