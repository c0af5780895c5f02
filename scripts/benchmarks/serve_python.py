"""The Python backend against what it could be: ONNX Runtime alone, a plain model.py, and itself without the cache.

All rates come from windows taken in turns in one run, and only their ratios count.
"""

import statistics
import sys
from pathlib import Path

from scripts.benchmarks import batch_loop
from scripts.benchmarks.python_rivals import NOTHING, PLAIN, TIMED
from scripts.benchmarks.python_site import Setup, Window, ratios, site, spent, times
from scripts.benchmarks.rows import Row, Rows, main
from seatrial.serve.caching import Cache

CONNECTIONS = 32
FILL_US = 2000  # long enough for every client to have answered; a full batch does not wait
COMPUTE_BAR, TINY_BAR, REPEATS_BAR, UNIQUE_BAR = 0.90, 1.2, 1.2, 0.98


def compute(folder: Path, pairs: int = 6, seconds: float = 8.0) -> Row:
    """A model that is all computing: what the server around it takes away."""
    with site(folder, {"ours": Setup(model="compute", max_batch=CONNECTIONS)}) as served:
        requests = served.requests("ours", "compute")
        model = folder / "made-compute" / "model.onnx"
        windows, alone = [], []
        for _ in range(pairs):
            core = served.cores[0]
            alone.append(batch_loop.run(model, "compute", batch=CONNECTIONS, seconds=seconds / 2, core=core))
            windows.append(served.window("ours", requests, seconds=seconds, connections=CONNECTIONS))
    shares = sorted(window.rate / rate for window, (rate, _) in zip(windows, alone, strict=True))
    share = statistics.median(shares)
    own = statistics.median(microseconds for _, microseconds in alone)
    rate = statistics.median(rate for rate, _ in alone)
    return Row(
        name="python-compute",
        claim="Python backend at concurrency 32 against a raw ONNX Runtime batch loop, compute-bound model, one "
        f"thread, server on one core and client on the other ({pairs} interleaved pairs)",
        value=f"{share:.2f} [{shares[0]:.2f}, {shares[-1]:.2f}] of {rate:.0f} samples/s; processor time a request: "
        f"{times(windows)}, of it {own:.0f} us in a raw batch",
        bar=f">= {COMPUTE_BAR}",
        met=share >= COMPUTE_BAR,
    )


def tiny(folder: Path, rounds: int = 8, seconds: float = 2.0) -> Row:
    """A model that costs nearly nothing: what model.py adds to the path, and how much of the path it could spare."""
    codes = {"plain": PLAIN, "ours": None, "nothing": NOTHING, "timed": TIMED}
    setups = {name: Setup(model="tiny", code=code) for name, code in codes.items()}
    setups["filled"] = Setup(model="tiny", max_batch=CONNECTIONS, delay_us=FILL_US)
    found: dict[str, list[Window]] = {name: [] for name in setups}
    with site(folder, setups) as served:
        requests = {name: served.requests(name, "tiny") for name in setups}
        for number in range(rounds):
            for name in list(setups)[:: 1 if number % 2 else -1]:
                if name != "timed" or number < 3:
                    found[name].append(served.window(name, requests[name], seconds=seconds))
    total, running = spent(folder, "timed")
    path = statistics.median(window.server_us + window.stub_us for window in found["plain"])
    most = path / (path - (total - running))
    gain, nothing, filled = (ratios(found[name], found["plain"]) for name in ("ours", "nothing", "filled"))
    reason = (
        f"; a plain model.py spends {total - running:.1f} us of a request's {path:.0f} us outside the model's run, so "
        f"one of no cost at all would reach {most:.2f}x; one that neither reads nor runs anything reaches "
        f"{nothing[0]:.2f}x; ours with batches of {CONNECTIONS} and {FILL_US / 1000:.0f} ms to fill one reaches "
        f"{filled[0]:.2f}x"
    )
    return Row(
        name="python-tiny",
        claim="Python backend against a plain model.py in the same Triton, tiny model, concurrency 32 "
        f"({rounds} interleaved rounds)",
        value=f"{gain[0]:.2f}x [{gain[1]:.2f}, {gain[2]:.2f}]; processor time a request: {times(found['ours'])} "
        f"(plain: {times(found['plain'])}){reason}",
        bar=f">= {TINY_BAR}x, or measured: no model.py could",
        met=gain[0] >= TINY_BAR or most < TINY_BAR,
    )


def cache(folder: Path, rounds: int = 6, seconds: float = 2.0) -> Row:
    """The cache where everything repeats, and where nothing does: 4096 requests in turn outnumber what 1 MB holds."""
    small = Cache(megabytes=1, ttl_seconds=3600.0)
    setups = {
        "repeats_bare": Setup(model="memory"),
        "repeats": Setup(model="memory", cache=small),
        "unique_bare": Setup(model="tiny"),
        "unique": Setup(model="tiny", cache=small),
    }
    found: dict[str, list[Window]] = {name: [] for name in setups}
    with site(folder, setups) as served:
        requests = {
            name: served.requests(name, setup.model, 64 if name.startswith("repeats") else 4096)
            for name, setup in setups.items()
        }
        for number in range(rounds):
            for name in list(setups)[:: 1 if number % 2 else -1]:
                found[name].append(served.window(name, requests[name], seconds=seconds))
        rests = "the cache rests" in served.server.log.read_text()
    repeats = ratios(found["repeats"], found["repeats_bare"])
    unique = ratios(found["unique"], found["unique_bare"])
    return Row(
        name="cache",
        claim="the Python backend with its cache against without: a memory-bound model where every request repeats, "
        f"and a tiny one where none does ({rounds} interleaved rounds)",
        value=f"repeats {repeats[0]:.2f}x [{repeats[1]:.2f}, {repeats[2]:.2f}]; none {unique[0]:.2f}x "
        f"[{unique[1]:.2f}, {unique[2]:.2f}], {'switched off by itself' if rests else 'never switched off'}; processor "
        f"time a request where none repeats: {times(found['unique'])} (without: {times(found['unique_bare'])})",
        bar=f">= {REPEATS_BAR}x and >= {UNIQUE_BAR}x",
        met=repeats[0] >= REPEATS_BAR and unique[0] >= UNIQUE_BAR,
    )


ROWS: Rows = {"python-compute": compute, "python-tiny": tiny, "cache": cache}

if __name__ == "__main__":
    sys.exit(main("Hold the Python backend against ONNX Runtime alone, a plain model.py, and no cache.", ROWS))
