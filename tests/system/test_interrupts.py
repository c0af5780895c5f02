"""Verbs that are ended from outside: no orphan, nothing half-made, one line, and a code that says how."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from scripts.benchmarks.attack_kill_checks import leftovers, strays
from seatrial.bench.load import shared_memory
from seatrial.bench.targets import Endpoint, endpoint_of
from seatrial.serve.processes import wait
from seatrial.serve.sweeping import sweep
from seatrial.serve.triton.server import Server
from tests.support.built import ROOT, Built

pytestmark = pytest.mark.system
DEPLOYMENT = 'schema = 1\nname = "tiny"\nmax_batch_size = 4\n'


@contextmanager
def begun(command: list[str], folder: Path, home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process with that home and a TMPDIR of its own, killed after the block if it has not ended."""
    (folder / "tmp").mkdir(exist_ok=True)
    own = {"SEATRIAL_HOME": str(home), "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | own,
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def names(tree: psutil.Process) -> list[str]:
    """Names of all processes below one; those that end meanwhile are left out."""
    found = []
    for each in tree.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found.append(each.name())
    return found


def ended(process: "subprocess.Popen[bytes]") -> tuple[int, list[str]]:
    said = process.communicate(timeout=60)[0].decode()
    return process.returncode, said.splitlines()


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_while_modules_are_imported_is_one_line(tmp_path: Path, home: Path, number: str, code: int) -> None:
    script = f"""
        import os, signal, sys
        class Finder:
            def find_spec(self, name, *rest):
                if name == "typer":
                    os.kill(os.getpid(), signal.{number})
        sys.meta_path.insert(0, Finder())
        from seatrial.serve.command import main
        sys.exit(main())
    """
    with begun(["-c", textwrap.dedent(script), "ledger", "none"], tmp_path, home) as process:
        assert ended(process) == (code, ["interrupted: stopped; nothing is half-written"])


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_in_the_middle_of_a_verb_is_one_line_whatever_it_was_doing(
    tmp_path: Path, home: Path, number: str, code: int
) -> None:
    """An ``exec`` of text that a KeyboardInterrupt left makes ``python -m`` end by SIGINT, if it may."""
    script = f"""
        import os, signal, sys
        from seatrial.bench.records import accepted
        def entries(*_):
            exec("os.kill(os.getpid(), signal.{number}); input()")
        accepted.entries = entries
        from seatrial.serve.command import main
        sys.exit(main())
    """
    (tmp_path / "probe.py").write_text(textwrap.dedent(script))
    with begun(["-m", "probe", "ledger", "none"], tmp_path, home) as process:
        assert ended(process) == (code, ["interrupted: stopped; nothing is half-written"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_place_that_is_ended_during_its_proof_leaves_no_orphan(
    tiny: Built, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "deployment.toml").write_text(DEPLOYMENT)
    words = ["place", "deployment.toml", "--artifact", "tiny", "--repository", "models"]
    with begun(["-m", "seatrial.serve.cli", *words], tmp_path, tiny.home) as process:
        tree = psutil.Process(process.pid)
        assert wait(lambda: any("stub" in name for name in names(tree)), 60.0)
        process.send_signal(number)
        code, said = ended(process)
    assert wait(lambda: not strays(tiny.home), 15.0), strays(tiny.home)
    if number == signal.SIGTERM:
        assert (code, said[-1]) == (143, "interrupted: stopped; nothing is half-written")
    else:
        assert leftovers(tiny.home, tmp_path, tmp_path / "tmp")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SEATRIAL_HOME", str(tiny.home))
            sweep()
    assert not leftovers(tiny.home, tmp_path, tmp_path / "tmp")
    assert not (tmp_path / "models").exists()


@pytest.fixture
def endpoint(echo_server: Server) -> Endpoint:
    return endpoint_of(f"http://{echo_server.url}", "echo")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_load_over_shared_memory_that_is_ended_leaves_no_region_for_the_next(
    endpoint: Endpoint, tmp_path: Path, home: Path, number: signal.Signals
) -> None:
    words = ["load", f"http://{endpoint.url}/v2/models/echo", "--rate", "20", "--seconds", "60", "--protocol", "shm"]
    with begun(["-m", "seatrial.serve.cli", *words], tmp_path, home) as process:
        assert wait(lambda: any(home.glob("runs/*/.load-*/go.json")), 60.0)
        held = shared_memory.registrations(endpoint)
        assert len(held) == 2
        assert shared_memory.sweep(endpoint) == ()  # another load that starts meanwhile takes nothing away
        process.send_signal(number)
        code, _ = ended(process)
    assert code == (143 if number == signal.SIGTERM else -9)
    assert wait(lambda: not strays(home), 15.0), strays(home)
    if number == signal.SIGKILL:
        assert set(shared_memory.sweep(endpoint)) == set(held)
    assert shared_memory.registrations(endpoint) == ()
    assert not [name for name in held if Path("/dev/shm", name).exists()]
