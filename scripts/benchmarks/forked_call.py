"""One call of the command in a forked child: its exit code, what it printed, and whether it hung. Imports once."""

import importlib
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HEAVY = (
    *(
        "seatrial.serve.cli",
        "seatrial.bench.gating.gate",
        "seatrial.bench.gating.forecast",
        "seatrial.bench.report",
        "seatrial.bench.report.kinds",
        "seatrial.bench.on_plotly",
    ),
    *(
        "seatrial.serve.traffic.rollout.records",
        "seatrial.serve.triton.proof.placed",
        "scipy.stats",
        "plotly.graph_objects",
        "onnx",
    ),
)
UNCAUGHT = 97  # an exception left the command


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Result of one call; `hung` where it was killed after its time limit."""

    code: int
    output: str
    hung: bool

    @property
    def traced(self) -> bool:
        """Return whether a traceback was seen, or the command said that it met a fault of its own."""
        return self.code in (UNCAUGHT, 70) or "Traceback (most recent call last)" in self.output


def preload() -> None:
    """Import what the verbs import, so that a fork pays for none of it."""
    for name in HEAVY:
        importlib.import_module(name)


def call(arguments: Sequence[str], *, cwd: Path, environment: Mapping[str, str], seconds: float = 60.0) -> Done:
    """Run the command with these arguments in a child of its own session."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(arguments, reader, writer, cwd, environment)
    os.close(writer)
    output, until, hung = b"", time.monotonic() + seconds, False
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            hung = True
            os.killpg(pid, signal.SIGKILL)
            break
        if not (block := os.read(reader, 1 << 16)):
            break
        output += block
    os.close(reader)
    _, status = os.waitpid(pid, 0)
    return Done(code=os.waitstatus_to_exitcode(status), output=output.decode(errors="replace"), hung=hung)


def _child(arguments: Sequence[str], reader: int, writer: int, cwd: Path, environment: Mapping[str, str]) -> None:
    code = 99
    try:
        os.close(reader)
        os.setsid()
        for number in (1, 2):
            os.dup2(writer, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(cwd)
        os.environ.update(environment)
        from seatrial.serve.cli import app

        try:
            app(args=list(arguments), standalone_mode=True)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        if sys.exc_info()[0] is not None:  # it left the command, which is what is looked for
            os.write(2, traceback.format_exc().encode(errors="replace"))
            code = UNCAUGHT
        os._exit(code)
