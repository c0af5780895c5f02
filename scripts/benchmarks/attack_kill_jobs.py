"""The verbs that write, as jobs for the kill attack: their words, the state they need, and exit codes that are right.

`READING` names the others; a test holds that every verb of the command is in one of both.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seatrial.optimize.errors import MachineError

ROOT = Path(__file__).resolve().parents[2]
NOISY = (0, 3, 4)  # a verdict on a busy machine: could not tell, or not to be believed

MODEL = """
import numpy as np
import torch

def make():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4)).eval()

def samples(split, count=None, seed=7):
    number = {"train": 1, "calibration": 2, "evaluation": 3, "golden": 4}[split]
    random = np.random.default_rng([seed, number])
    rows = count or 64
    return {"x": random.normal(size=(rows, 8)).astype(np.float32)}, random.integers(0, 4, rows).astype(np.int64)
"""
RECIPE = """
schema = 1
name = "NAME"
[source]
factory = "model.py:make"
outputs = ["logits"]
[data]
loader = "model.py:samples"
train = 32
calibration = 32
evaluation = 64
[[stages]]
kind = "export"
[[stages]]
kind = "quantize"
"""
SEARCH = """
[search]
objectives = ["quality", "size"]
[search.stages.quantize.per_channel]
choices = [true, false]
"""
BUDGET = """
recipe = "small.toml"
alpha_pass = 0.05
alpha_fail = 0.01
price = "aws-c7i-large"
[design]
pairs = 4
rate = 30.0
seconds = 0.4
saturation_seconds = 0.2
seed = 1
warmup_requests = 2
[load]
lag = 2.0
client_cpu = 1.0
arrival_p = 0.0
offered = 0.1
dropped = 100
[[limits]]
metric = "errors"
at_most = 0.0
"""
MONITOR = """
schema = 1
model = "small"
[features.a]
kind = "number"
[features.b]
kind = "number"
[estimate]
label = "label"
probabilities = { yes = "p" }
[outcomes]
request = "request"
"""
DEPLOYMENT = """
schema = 1
name = "small"
backend = "python"
max_batch_size = 8
threads = 1
[instances]
count = 1
kind = "cpu"
"""
EDGE = """
schema = 1
name = "small"
port = 0
[server]
http = "127.0.0.1:HTTP"
grpc = "127.0.0.1:GRPC"
[[models]]
name = "small"
timeout_ms = 2000
"""
PLAN = """
schema = 1
load = 60.0
warmup = 1.0
drain = 1.0
interval = 0.5
block = 1.0
[shadow]
mirror = 0.0
[margins]
mean = 0.9
p95 = 0.9
p99 = 0.9
errors = 0.5
refused = 0.5
[[steps]]
share = 1.0
requests = 200
needs = "requests"
dwell = 120.0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A verb to kill: its command line with ``{home}`` and ``{url}`` to fill in, and the exit codes that are right.

    `lane` is where it runs: "fresh" in a copy of the seed, "served" beside a server and an edge, "up" before either.
    `again` are codes that are right too where the killed one had done its work: it is up already, it is there already.
    `share` is how often it is chosen; `undo` is run before it, where it must have something to do.
    """

    text: str
    lane: str = "fresh"
    codes: tuple[int, ...] = (0,)
    again: tuple[int, ...] = ()
    share: float = 1.0
    undo: tuple[str, ...] = ()
    name: str = ""

    @property
    def verb(self) -> str:
        """The verb as the help names it, and what sets this job apart."""
        return self.name or self.text.split()[0]


GATED = "--budget budget.toml --deployment small.deploy.toml"
UP = "up --repository models --http-port 0 --grpc-port 0 --metrics-port 0"
EDGE_UP, EDGE_DOWN = "edge up edge.toml", "edge down"
STABLE = "routes set small --stable 1"
REQUESTS = "--plan monitor.toml --traffic traffic.csv"
CLIMB = "--largest 2 --rounds 1 --trials 1 --pairs 1 --seconds 1 --verify-seconds 1"
JOBS: tuple[Job, ...] = (
    Job(text="init model.py:make --into made --input x=8", again=(2,), share=2),
    Job(text="build other.toml", share=1),
    Job(text="search searched.toml --trials 3", share=0.3),
    Job(text="reproduce small", share=0.3),
    Job(text="parity small.fp32 small --recipe small.toml --html parity.html", codes=(0, 1), share=0.3),
    Job(text="coverage small", share=0.3),
    Job(text="measure small --seconds 0.5", codes=NOISY, share=0.7),
    Job(text="quality small --recipe small.toml --html quality.html", share=0.5),
    Job(text=f"gate small.fp32 small {GATED}", share=0.5),
    Job(text=f"aa small {GATED} --resample 0", codes=NOISY, share=0.1),
    Job(text=f"drill small --slow 0.2 {GATED} --resample 0", codes=(*NOISY, 1), share=0.1),
    Job(text="report {home}/runs/passed --junit junit.xml --pytest-benchmark bench.json", share=3),
    Job(text="baseline record {home}/runs/passed", name="baseline record", share=3),
    Job(text="trend --add {home}/runs/passed", name="trend --add", share=3),
    Job(text="register small --name again --run {home}/runs/passed", share=5),
    Job(text="place small.deploy.toml --artifact small.fp32 --repository models", share=4),
    Job(text="render small.deploy.toml --out manifests --repository models --cluster cluster.toml", share=4),
    Job(text=f"tune small.deploy.toml --rate 5 --slo p99<=5000ms {CLIMB} --write", codes=(0, 1, 3, 4), share=0.1),
    Job(text=f"ship small.toml {GATED} --repository models", codes=NOISY, share=0.1),
    Job(text="learn monitor.toml traffic.csv", share=1),
    Job(text="watch monitor.toml traffic.csv", share=1),
    Job(text="rules monitor.toml --out rules", share=3),
    Job(text="changes add small moved --at 2026-03-02T10:00 --kind pipeline", name="changes add", share=3),
    Job(text="daily small --out day.md", share=3),
    Job(text="outcomes add small outcomes.csv", name="outcomes add", share=2),
    Job(text="outcomes judge monitor.toml traffic.csv", codes=(3,), name="outcomes judge", share=1),
    Job(text=f"outcomes queue small --number 5 {REQUESTS} --to cases.csv", name="outcomes queue", share=1),
    Job(text=f"outcomes export small --to train.csv {REQUESTS}", name="outcomes export", share=1),
    Job(text=UP, lane="up", undo=("down",), again=(4,), share=6),
    Job(text="down", lane="up", undo=("down", UP), share=4),
    Job(text="load {url} --rate 20 --seconds 1", lane="served", codes=NOISY, share=4),
    Job(
        text="load {url} --rate 20 --seconds 1 --protocol shm",
        lane="served",
        codes=NOISY,
        name="load --protocol shm",
        share=4,
    ),
    Job(
        text="capacity {url} --slo p99<=500ms --max-rate 20 --seconds 20 --probe-seconds 4",
        lane="served",
        codes=(*NOISY, 1),
        share=0.1,
    ),
    Job(text="switch small 1 2", lane="served", undo=("switch small 1",), share=5),
    Job(
        text=f"{STABLE} --candidate 2 --share 0.2",
        lane="served",
        undo=(EDGE_DOWN, EDGE_UP, STABLE, "switch small 1 2"),
        name="routes set",
        share=5,
    ),
    Job(text=EDGE_UP, lane="served", undo=(EDGE_DOWN,), again=(4,), name="edge up", share=5),
    Job(text=EDGE_DOWN, lane="served", undo=(EDGE_DOWN, EDGE_UP), name="edge down", share=4),
    Job(
        text="rollout start small --candidate 2 --plan plan.toml",
        lane="served",
        name="rollout start",
        undo=(EDGE_DOWN, EDGE_UP, STABLE, "switch small 1"),
        share=2,
    ),
)
READING: Mapping[str, str] = {
    "plan": "does no work",
    "show": "reads the store",
    "history": "reads the store",
    "verify": "reads the store",
    "ledger": "reads records",
    "lint": "reads a repository",
    "audit": "reads files or a server",
    "shadow report": "compares what an edge captured; a page where it is asked for",
    "supervise": "writes through restart and heal: the kill drill of scripts/benchmark-serve",
    "baseline show": "reads records",
    "estimate": "reads what learn kept",
    "outcomes show": "reads records",
    "baseline compare": "reads records",
    "edge check": "starts nothing",
    "edge quarantine": "one change of routes, as routes set makes it",
    "edge status": "reads",
    "edge watch": "writes through revive: the kill drill of scripts/benchmark-serve",
    "routes show": "reads",
    "record": "killed by the row capture of scripts/benchmark-monitor; a segment by rename",
    "case": "reads; a review by rename where it is asked for",
    "approve": "killed at random moments by scripts/benchmark-release",
    "list": "reads",
    "rehearse": "a record by rename; a fault that is left goes by supervise and edge watch",
    "diff": "reads",
    "signed": "reads",
    "export": "a new folder by one rename",
    "gc": "killed at each removal by tests/serve/release/test_inventory.py",
    "push": "killed at each upload by tests/serve/release/test_exchange.py; the manifest is written last",
    "pull": "killed at each download by tests/serve/release/test_exchange.py; the release is written last",
    "catalogue": "reads; one file by rename where it is asked for",
    "retire": "killed at each step by tests/serve/verbs/test_retiring.py",
    "review": "one line in a journal",
    "trail verify": "reads; writes one line that the head holds, as every entry does",
    "trail served": "reads the trail",
    "trail list": "reads the trail",
    "trail export": "copies into a new folder",
    "rollout run": "goes on with what rollout start wrote, and is run after each of its kills",
    "changes list": "reads",
    "rollout status": "reads",
    "rollout explain": "reads",
    **{
        f"rollout {verb}": "one line in a journal"
        for verb in ("pause", "resume", "abort", "promote", "rollback", "lift")
    },
}


def command(words: Sequence[str]) -> list[str]:
    """Return the words as a command of this checkout."""
    return [sys.executable, "-m", "seatrial.serve.cli", *words]


def surroundings(folder: Path) -> dict[str, str]:
    """Return the environment of a job: a home and a TMPDIR of its own."""
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    own = {"SEATRIAL_HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT)}
    return os.environ | own | {"PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}


def done(words: Sequence[str], folder: Path, *, seconds: float = 900.0) -> tuple[int, str]:
    """Run a verb to its end; exit code and what it said.

    Raises:
        MachineError: it did not end in time.
    """
    try:
        run = subprocess.run(
            command(words),
            cwd=folder / "ws",
            env=surroundings(folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"{' '.join(words)} did not end within {seconds:g} s", where=str(folder)) from error
    return run.returncode, run.stdout + run.stderr


def seed(folder: Path) -> None:
    """Make the state from which jobs start: built, gated, registered, placed.

    Raises:
        MachineError: a step of it failed.
    """
    work = folder / "ws"
    work.mkdir(parents=True)
    (work / "model.py").write_text(MODEL)
    (work / "small.toml").write_text(RECIPE.replace("NAME", "small"))
    (work / "other.py").write_text(MODEL.replace("manual_seed(0)", "manual_seed(1)"))
    (work / "other.toml").write_text(RECIPE.replace("NAME", "other").replace("model.py", "other.py"))
    (work / "searched.toml").write_text(RECIPE.replace("NAME", "searched") + SEARCH)
    (work / "budget.toml").write_text(BUDGET)
    (work / "small.deploy.toml").write_text(DEPLOYMENT)
    (work / "plan.toml").write_text(PLAN)
    (work / "monitor.toml").write_text(MONITOR)
    rows = np.random.default_rng(1).normal(size=(60 * 120, 2))
    times = np.arange(len(rows)) * 30.0 + 1.7e9
    lines = (
        f"{time},{one},{other},r{number},{1 / (1 + np.exp(-one))},{'yes' if one + other > 0 else 'no'}"
        for number, (time, (one, other)) in enumerate(zip(times, rows, strict=True))
    )
    (work / "traffic.csv").write_text("\n".join(["time,a,b,request,p,label", *lines]))
    (work / "outcomes.csv").write_text("\n".join(["request,value", *(f"r{number},yes" for number in range(100, 300))]))
    right = (f"r{at},{'yes' if rows[at].sum() > 0 else 'no'},random" for at in range(100))
    (work / "first.csv").write_text("\n".join(["request,value,chosen_by", *right]))
    cluster = (ROOT / "serve" / "clusters" / "example.toml").read_text()
    (work / "cluster.toml").write_text(cluster.replace("schema = 1", 'schema = 1\nimage = "registry.test/triton"', 1))
    gate = ("gate", "small.fp32", "small", "--budget", "budget.toml", "--deployment", "small.deploy.toml")
    for words in (
        ("build", "small.toml"),
        (*gate, "--out", str(folder / "home" / "runs" / "passed")),
        ("register", "small", "--run", str(folder / "home" / "runs" / "passed")),
        ("place", "small.deploy.toml", "--repository", "models"),
        ("learn", "monitor.toml", "traffic.csv"),
        ("outcomes", "add", "small", "first.csv"),
    ):
        code, said = done(words, folder)
        if code:
            raise MachineError(f"the seed cannot be made: {' '.join(words)} ended with {code}: {said[-300:]}")
