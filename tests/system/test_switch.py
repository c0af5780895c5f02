"""The journaled switch on the real server: nothing half-done survives, and what is broken never serves."""

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scripts.benchmarks.versioned import NAME, put
from seatrial.optimize.errors import IntegrityError, MissingError
from seatrial.serve.errors import ModelLoadError
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.repository import journal
from seatrial.serve.triton.repository.placing import chosen
from seatrial.serve.triton.running.on_pytriton import Server, serving
from seatrial.serve.triton.supervision.fleet import TritonFleet
from seatrial.serve.triton.supervision.switch import STEPS, forgive, recover, switch

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
KILLED = """
    import os, signal, sys
    from pathlib import Path
    from seatrial.serve.triton.control import Control
    from seatrial.serve.triton.supervision.switch import switch
    def die(step):
        if step == sys.argv[3]:
            os.kill(os.getpid(), signal.SIGKILL)
    with Control(sys.argv[1], foreign=None) as control:
        switch(control, Path(sys.argv[2]), "versioned", (2,), at=die)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with version 1; the broken ones lie beside it."""
    folder = tmp_path_factory.mktemp("switch")
    models = folder / "models"
    put(models, 1)
    put(models, 2, execute="self.told = 2")
    put(models, 3, before="raise ValueError('not today')")
    put(models, 4, execute="answer = answer * numpy.nan")
    put(models, 5, execute="answer = numpy.zeros((1, 3), numpy.float32)")
    (put(models, 6) / "model.py").write_text("# half")
    (put(models, 7) / "extra.py").symlink_to("/etc/hostname")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        with serving(models, (NAME,)) as started:
            yield started


@pytest.fixture
def control(server: Server) -> Iterator[Control]:
    with Control.to(server, timeout=30.0) as opened:
        yield opened


def answers(control: Control, version: int) -> float:
    return float(control.infer(NAME, version, {"x": np.zeros((1, 4), np.float32)})["y"][0, 0])


def agreed(control: Control, server: Server) -> tuple[int, ...]:
    """What serves, which the disk must say too, and which must really answer."""
    disk = chosen(server.repository, NAME)
    assert control.ready_versions(NAME) == set(disk)
    for version in disk:
        assert answers(control, version) == version
    return disk


def test_cut_over_and_rollback_touch_nothing_that_serves(server: Server, control: Control) -> None:
    both = switch(control, server.repository, NAME, (1, 2))
    assert (both.before, both.loaded) == ((1,), (2,))
    assert agreed(control, server) == (1, 2)
    answered = control.statistics(NAME, 2).successes
    assert switch(control, server.repository, NAME, (2,)).loaded == ()
    assert agreed(control, server) == (2,)
    until = time.monotonic() + 10.0  # the server counts a request after it was answered; one loaded anew counts from 0
    while control.statistics(NAME, 2).successes <= answered:
        assert time.monotonic() < until, "version 2 was loaded anew"
        time.sleep(0.02)
    assert switch(control, server.repository, NAME, (1,)).loaded == (1,)
    assert agreed(control, server) == (1,)
    entry = journal.read(server.repository, NAME)
    assert entry is not None
    assert (entry.state, entry.before, entry.after) == ("verified", (2,), (1,))


@pytest.mark.parametrize("step", STEPS)
def test_a_switch_killed_at_any_step_is_finished_or_undone(step: str, server: Server, control: Control) -> None:
    switch(control, server.repository, NAME, (1,))
    script = [sys.executable, "-c", textwrap.dedent(KILLED), server.url, str(server.repository), step]
    killed = subprocess.run(script, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert killed.returncode == -9
    outcome = recover(control, server.repository, NAME)
    expected = (1,) if step in ("intent", "loaded", "proven") else (2,)
    assert outcome.serving == agreed(control, server) == expected
    assert recover(control, server.repository, NAME).remedy == "nothing"


@pytest.mark.parametrize(
    ("version", "kind", "reason"),
    [
        (3, ModelLoadError, "not today"),
        (4, ModelLoadError, "NaN"),
        (5, ModelLoadError, r"\[1, 3\], not float32\[1, 1\]"),
        (6, IntegrityError, "was changed since"),
        (7, IntegrityError, "is a link"),
        (8, MissingError, "no version"),
    ],
)
def test_a_broken_version_changes_nothing(
    version: int, kind: type[Exception], reason: str, server: Server, control: Control
) -> None:
    switch(control, server.repository, NAME, (1,))
    with pytest.raises(kind, match=reason):
        switch(control, server.repository, NAME, (1, version))
    assert agreed(control, server) == (1,)


def test_failed_loads_are_capped_until_they_are_forgiven(server: Server, control: Control) -> None:
    forgive(server.repository, NAME)
    for _ in range(2):
        with pytest.raises(ModelLoadError, match="not today"):
            switch(control, server.repository, NAME, (1, 3), tries=2)
    with pytest.raises(ModelLoadError, match=r"failed 2 times.*not today") as refused:
        switch(control, server.repository, NAME, (1, 3), tries=2)
    assert "--retry" in refused.value.next_step
    forgive(server.repository, NAME)
    with pytest.raises(ModelLoadError, match="not today") as tried:
        switch(control, server.repository, NAME, (1, 3), tries=2)
    assert "times" not in tried.value.what
    assert agreed(control, server) == (1,)


def test_a_rollout_sees_health(server: Server) -> None:
    fleet = TritonFleet(lambda: server)
    fleet.serve(NAME, (1, 2))
    health = fleet.health(NAME, 2)
    assert (health.ok, health.reason) == (True, "")
    assert health.memory > 20e6
    fleet.serve(NAME, (1,))
    assert not fleet.health(NAME, 2).ok
    with pytest.raises(ModelLoadError, match="is a link"):
        fleet.serve(NAME, (1, 7))
    assert not TritonFleet(lambda: None).health(NAME, 1).ok
