"""docs/serving.md, run: every command of its sh blocks in order, on two tiny models, with ports that are free."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from seatrial.optimize.store import Store
from seatrial.serve.processes import free_ports
from seatrial.serve.traffic.envoy import on_envoy
from seatrial.serve.triton.running import on_pytriton
from tests.support.built import ROOT
from tests.support.graphs import pictures

pytestmark = pytest.mark.nightly

PAGE = (ROOT / "docs" / "serving.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
MAY_NOT_TELL = (0, 3, 4)  # a load of a few seconds, beside other tests
LEFT_RUNNING = " &"


@pytest.fixture(autouse=True)
def nothing_stays_up() -> Iterator[None]:
    yield
    for name in on_envoy.names():
        on_envoy.down(name)
    on_pytriton.down()


@pytest.fixture
def started() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """What the page leaves running, by command; nothing outlives the test."""
    processes: dict[str, subprocess.Popen[str]] = {}
    yield processes
    for process in processes.values():
        process.terminate()
        process.wait(10)


def test_every_command_of_the_page_works(tmp_path: Path, home: Path, started: dict[str, subprocess.Popen[str]]) -> None:
    """The models bear the names that the demo's build gives to its own; what is left running ends with 0."""
    store, ports = Store(home / "store"), free_ports(4)
    for tag, scale in (("scenes-int8.fp32", 1.0), ("scenes-int8", 2.0)):
        store.tag(pictures(store, tmp_path / tag, scale), tag)
    moved = dict(zip(("8000", "8001", "8002", "8080"), map(str, ports), strict=True))
    for folder in ("deployments", "edges"):
        shutil.copytree(ROOT / "serve" / folder, tmp_path / "serve" / folder)
    edge = tmp_path / "serve" / "edges" / "scenes.toml"
    edge.write_text(elsewhere(edge.read_text(), moved))
    up = "up" + "".join(
        f" --{kind}-port {port}" for kind, port in zip(("http", "grpc", "metrics"), ports, strict=False)
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for command in COMMANDS:
        here = elsewhere(command, moved).replace(".venv/bin/seatrial", f"exec {sys.executable} -m seatrial.serve.cli")
        here = here.replace("serve.cli up", f"serve.cli {up}")
        if here.endswith(LEFT_RUNNING):
            started[command] = subprocess.Popen(
                here.removesuffix(LEFT_RUNNING), shell=True, cwd=tmp_path, env=environment, text=True
            )
            continue
        done = subprocess.run(here, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        allowed = MAY_NOT_TELL if " load " in command else (0,)
        assert done.returncode in allowed, f"{command}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
    assert {command: process.wait(20) for command, process in started.items()} == dict.fromkeys(started, 0)
    assert len(started) == 2


def elsewhere(text: str, moved: dict[str, str]) -> str:
    """The same text with its ports replaced."""
    return re.sub(r"\b(8000|8001|8002|8080)\b", lambda found: moved[found[0]], text)


def test_the_way_that_the_readme_shows_is_run_here() -> None:
    section = (ROOT / "README.md").read_text().partition("## Into live traffic")[2].partition("\n## ")[0]
    shown = re.findall(r"^```\n(.*?)^```", section, re.DOTALL | re.MULTILINE)[0].splitlines()
    assert len(shown) > 5
    assert set(shown) <= set(COMMANDS)
