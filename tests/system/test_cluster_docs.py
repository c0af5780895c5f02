"""docs/kubernetes.md and docs/security.md, run: every command that they show, in order, in a checkout of its own."""

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
from seatrial.serve.triton.running import on_pytriton
from tests.support.built import ROOT
from tests.support.graphs import pictures

pytestmark = pytest.mark.nightly


def commands(page: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture(autouse=True)
def nothing_stays_up() -> Iterator[None]:
    yield
    on_pytriton.down()


def test_every_command_of_both_pages_works(tmp_path: Path, home: Path) -> None:
    """Two small models bear the names that the demo's build gives to its own; the server takes ports that are free."""
    store, ports = Store(home / "store"), free_ports(3)
    for tag, scale in (("scenes-int8.fp32", 1.0), ("scenes-int8", 2.0)):
        store.tag(pictures(store, tmp_path / tag, scale), tag)
    (tmp_path / "serve").symlink_to(ROOT / "serve")
    up = f"up --http-port {ports[0]} --grpc-port {ports[1]} --metrics-port {ports[2]}"
    for command in dict.fromkeys([*commands("kubernetes.md"), *commands("security.md")]):  # each once
        if command.startswith("kubectl") and not shutil.which("kubectl"):
            continue
        here = command.replace(".venv/bin/seatrial", f"{sys.executable} -m seatrial.serve.cli")
        here = here.replace("serve.cli up", f"serve.cli {up}").replace("127.0.0.1:8000", f"127.0.0.1:{ports[0]}")
        done = subprocess.run(
            here, shell=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
