"""The Python backend in the raw Triton against four other servers: same model, same client, windows in turns.

Each peer is installed once, into an environment of its own under SEATRIAL_HOME, with pip's configured index. One that
does not install or start says so in the row and leaves the bar unmet.
"""

import os
import random
import signal
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from scripts.benchmarks import closed_loop
from scripts.benchmarks.peer_servers import PEERS, Peer, binary
from scripts.benchmarks.python_site import MODEL, Setup, cpu_of_all, site
from scripts.benchmarks.rows import Row, Rows, main
from scripts.benchmarks.serving_models import ITEMS, samples
from seatrial.optimize.environment import home
from seatrial.optimize.errors import SeatrialError
from seatrial.serve.processes import free_ports, is_taken
from seatrial.serve.triton.running.wheel import libpython

CONNECTIONS, SECONDS, WARM_UP, ROUNDS, START_SECONDS = 32, 2.0, 1.0, 8, 60.0
BATCH, WAIT_US = 32, 2000  # for Triton; the peers' programs say the same
Taken = tuple[float, float]  # requests a second, microseconds of the server's processor time a request


def tiny(folder: Path) -> Row:
    """A model that costs nearly nothing: the servers are what is measured."""
    return _against("tiny", folder, 0)


def memory(folder: Path) -> Row:
    """A model that reads 52 MB for each run: the best batching wins."""
    return _against("memory", folder, 1)


def _against(model: str, folder: Path, which: int) -> Row:
    environments, troubles = home() / "benchmarks" / "peers", dict[str, str]()
    windows: dict[str, list[Taken]] = {"Triton": []}
    setup = Setup(model=model, max_batch=BATCH, delay_us=WAIT_US)
    with site(folder, {MODEL: setup}, alone=False) as served, ExitStack() as stack:
        inputs, file = samples(model, 64), folder / f"made-{model}" / "model.onnx"
        address, pid = served.server.url, served.server.pid
        loads = {"Triton": (address, [binary(address, each) for each in inputs], pid)}
        for peer in PEERS:
            try:
                python = _installed(peer, environments)
                address, pid = stack.enter_context(_running(peer, python, file, ITEMS[model], folder / peer.name))
                requests = [peer.request(address, each) for each in inputs]
                _await(address, requests)
                loads[peer.name] = address, requests, pid
                windows[peer.name] = []
            except SeatrialError as error:
                troubles[peer.name] = error.what
        shuffled = random.Random(1)
        for _ in range(ROUNDS):
            for name in shuffled.sample(list(loads), len(loads)):
                address, requests, pid = loads[name]
                before = cpu_of_all(pid)
                try:
                    found = closed_loop.run(
                        address, requests, connections=CONNECTIONS, seconds=SECONDS, warm_up=WARM_UP
                    )
                except SeatrialError as error:
                    troubles[name] = error.what
                    del loads[name]
                    continue
                replies = found.replies * (found.seconds + WARM_UP) / found.seconds
                windows[name].append((found.rate, 1e6 * (cpu_of_all(pid) - before) / replies))
    return _row(model, windows, troubles, which)


def _row(model: str, windows: dict[str, list[Taken]], troubles: dict[str, str], which: int) -> Row:
    ours = windows.pop("Triton")
    if not ours:
        raise SeatrialError(f"Triton itself did not answer: {troubles.get('Triton', 'no window')}")
    said, met = [], True
    for peer in PEERS:
        bar, theirs = peer.bars[which], windows.get(peer.name, [])
        if peer.name in troubles or not theirs:
            said.append(f"{peer.name} not measured: {troubles.get(peer.name, 'no window')}")
            met = False
            continue
        ratios = sorted(one / other for (one, _), (other, _) in zip(ours, theirs, strict=True))
        middle = statistics.median(ratios)
        met = met and middle >= bar
        said.append(f"{middle:.1f}x {peer.name} [{ratios[0]:.1f}, {ratios[-1]:.1f}] ({_typical(theirs)})")
    return Row(
        name=f"peers-{model}",
        claim=f"requests a second at concurrency {CONNECTIONS} against other servers, {model} model, same client, "
        f"batches of up to {BATCH} that wait {WAIT_US / 1000:g} ms, everything on the same cores, all servers up, "
        f"{ROUNDS} shuffled rounds",
        value=f"Triton {_typical(ours)}: {'; '.join(said)}",
        bar=", ".join(f">= {peer.bars[which]}x {peer.name}" for peer in PEERS),
        met=met,
    )


def _typical(windows: list[Taken]) -> str:
    rate, cost = (statistics.median(values) for values in zip(*windows, strict=True))
    return f"{rate:.0f}/s at {cost:.0f} us of processor time"


def _installed(peer: Peer, environments: Path) -> Path:
    """The Python of the peer's environment, made and filled on first use.

    Raises:
        SeatrialError: pip could not install it.
    """
    if not peer.installs:
        return Path(sys.executable)
    root = environments / peer.installs[0].replace("==", "-")
    python = root / "bin" / "python"
    if (root / "complete").is_file():
        return python
    print(f"installing {peer.installs[0]} into {root}", file=sys.stderr, flush=True)
    venv.create(root, with_pip=True, clear=True)
    command = ["nice", str(python), "-m", "pip", "install", "--quiet", "--no-input", *peer.installs]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise SeatrialError(f"does not install: {(lines or ['pip failed'])[-1]}")
    (root / "complete").touch()
    return python


@contextmanager
def _running(peer: Peer, python: Path, model: Path, item: tuple[int, ...], folder: Path) -> Iterator[tuple[str, int]]:
    """The peer's server for the length of a block, with everything that it started; address and process."""
    folder.mkdir()
    port = _free_pair()
    said = {"PYTHON": str(python), "BIN": str(python.parent), "MODEL": str(model), "ITEM": ",".join(map(str, item))}
    said |= {"PORT1": str(port + 1), "PORT": str(port)}
    for name, text in peer.files.items():
        (folder / name).write_text(_filled(text, {k: said[k] for k in ("MODEL", "PORT1", "PORT")}))
    environ = os.environ | {"PEER_ONNX": str(model), "OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "true"}
    if not peer.installs:  # PyTriton's model process must find the library of this very Python
        environ |= {"LD_LIBRARY_PATH": str(libpython().parent)}
    environ |= {"PATH": f"{python.parent}:{os.environ['PATH']}", "BENTOML_HOME": str(folder / "bentoml")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [_filled(part, said) for part in peer.command],
            cwd=folder,
            env=environ,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield f"127.0.0.1:{port}", process.pid
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)  # its own session: whatever it started goes with it
            except ProcessLookupError:
                break
            try:
                process.wait(8)
            except subprocess.TimeoutExpired:
                continue
        process.wait(8)


def _filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def _free_pair() -> int:
    """A free port whose successor is free as well, for the side that speaks gRPC."""
    while is_taken((port := free_ports(1)[0]) + 1):
        pass
    return port


def _await(address: str, requests: list[bytes]) -> None:
    """Until the server answers a request.

    Raises:
        SeatrialError: it does not within a minute.
    """
    deadline, said = time.monotonic() + START_SECONDS, "nothing"
    while time.monotonic() < deadline:
        try:
            closed_loop.run(address, requests[:1], connections=1, seconds=0.3, warm_up=0.0)
        except SeatrialError as error:
            said = error.what
            time.sleep(0.5)
        else:
            return
    raise SeatrialError(f"does not start: {said}")


ROWS: Rows = {"peers-tiny": tiny, "peers-memory": memory}

if __name__ == "__main__":
    sys.exit(main("Hold the Python backend in the raw Triton against PyTriton, MLServer, LitServe and BentoML.", ROWS))
