"""Damaged records: stored JSON of runs, baselines, trends, ledgers, rollouts and releases, each read by its verbs.

The records are made by the product itself: a tiny model is built, measured, gated, loaded, registered and rolled out.
Then one file at a time is damaged (`damage`) and read; afterwards it is put back. A traceback, a hang, or exit code 1
where no verdict failed is a miss.
"""

import argparse
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from seatrial.optimize.artifact import digest_bytes
from seatrial.optimize.errors import MachineError

from .damage import damaged, replaced, restore
from .forked_call import Done, call, preload
from .rows import Row, main

ROOT = Path(__file__).resolve().parents[2]
REPLACED = 0.12  # of the mutations put something else in the file's place
PROGRESS = 10  # mutations between two lines of progress
BUDGET = """\
recipe = "tiny.toml"
[design]
pairs = 4
rate = 80.0
seconds = 1.5
saturation_seconds = 0.5
[load]
lag = 0.2
client_cpu = 1.0
arrival_p = 0.0
offered = 0.3
[[limits]]
metric = "quality"
max_drop = 0.5
[[limits]]
metric = "p50"
max_regression = 9.0
[[limits]]
metric = "file_size"
max_regression = 9.0
[[limits]]
metric = "errors"
at_most = 0.5
[ledger]
name = "tiny"
at_most = { p50 = 9.0 }
"""
DEPLOYMENT = 'schema = 1\nname = "tiny"\nrelease = "tiny"\nbackend = "python"\nmax_batch_size = 32\n'
PLAN = """\
schema = 1
memory = 1073741824
warmup = 1.0
[[steps]]
share = 0.2
requests = 200
needs = "requests"
[[steps]]
share = 0.5
requests = 400
needs = "requests"
"""
WORLD = """\
import sys
sys.path.insert(0, {root!r})
from tests.support.rollout_world import Candidate, Simulated
def good(rollout):
    return Simulated(rate=20, now=rollout.started, begun=rollout.started).world()
def greedy(rollout):
    return Simulated(now=rollout.started, begun=rollout.started, candidate=Candidate(memory=1 << 40)).world()
"""
VERDICTS = (
    "FAIL",
    "ROLLBACK",
    "decisions repeated from the log",
    '"agree"',
    "errors",
    "failed",
    "differs",
    "INCONCLUSIVE",
)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Files of one kind of record, and the verbs that read them; `{home}` and the like stand in both."""

    files: tuple[str, ...]
    verbs: tuple[tuple[str, ...], ...]


REPORTS = (
    ("report", "{run}"),
    ("report", "{run}", "--json"),
    ("report", "{run}", "--markdown", "--junit", "{work}/x.xml"),
)
KEPT = (("baseline", "record", "{run}", "--name", "again"), ("baseline", "compare", "{run}"))


def _run(name: str, *more: tuple[str, ...], files: str = "**/*.json") -> Kind:
    verbs = (*REPORTS, *more)
    filled = tuple(tuple(word.replace("{run}", "{work}/" + name) for word in verb) for verb in verbs)
    return Kind(files=(f"{{work}}/{name}/{files}",), verbs=filled)


KINDS: Mapping[str, Kind] = {
    "gate": _run("gate", *KEPT, ("trend", "--add", "{run}"), ("register", "tiny", "--run", "{run}"), files="*.json"),
    "measure": _run("measure", *KEPT),
    "load": _run("load"),
    "capacity": _run("capacity"),
    "baselines": Kind(
        files=("{home}/baselines/*/*.jsonl",),
        verbs=(
            ("baseline", "show"),
            ("baseline", "show", "--json"),
            ("baseline", "show", "--limits", "0.1"),
            ("baseline", "compare", "{work}/gate"),
        ),
    ),
    "trends": Kind(
        files=("{home}/history/*/*.jsonl",),
        verbs=(("trend",), ("trend", "tiny", "--html", "{work}/t.html"), ("trend", "tiny", "--json")),
    ),
    "ledgers": Kind(files=("{home}/ledger/*.jsonl",), verbs=(("ledger", "tiny", "--budget", "{work}/budget.toml"),)),
    "rollouts": Kind(
        files=("{home}/rollouts/*/*.json", "{home}/rollouts/*/current", "{home}/rollouts/*/*/*.json*"),
        verbs=(
            *(("rollout", verb, "m", *more) for verb in ("status", "explain", "pause") for more in ((), ("--json",))),
            ("rollout", "explain", "m", "--every"),
            ("rollout", "lift", "m", "sha256:bad"),
        ),
    ),
    "releases": Kind(
        files=("{home}/releases/*/*.json",),
        verbs=(("place", "{work}/tiny-served.toml", "--elsewhere"), ("register", "tiny", "--run", "{work}/gate")),
    ),
}


@dataclass
class Site:
    """Locations of the records: a home, and a folder of runs."""

    work: Path

    @property
    def home(self) -> Path:
        """Its SEATRIAL_HOME."""
        return self.work / "home"

    def call(self, *arguments: str, seconds: float = 60.0) -> Done:
        """The command in this home."""
        environment = {"SEATRIAL_HOME": str(self.home), "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
        return call(arguments, cwd=self.work, environment=environment, seconds=seconds)

    def must(self, *arguments: str, codes: tuple[int, ...] = (0,), again: bool = False) -> Done:
        """A step of the preparation, once unless `again`; raises MachineError where it ends with another code."""
        mark = self.work / f".done-{digest_bytes(' '.join(_lasting(arguments)).encode())[7:19]}"
        if mark.exists() and not again:
            return Done(code=0, output="", hung=False)
        print(f"preparing: seatrial {' '.join(arguments)}", file=sys.stderr, flush=True)
        done = self.call(*arguments, seconds=900.0)
        if done.code not in codes:
            raise MachineError(f"seatrial {' '.join(arguments)} ended with {done.code}", where=done.output[-600:])
        mark.touch()
        return done


def _lasting(arguments: Sequence[str]) -> list[str]:
    """The arguments without a port that another server will not have."""
    return [word for word in arguments if not word.startswith("http://")]


def prepare(work: Path) -> Site:
    """Make one record of every kind with the product itself, unless the folder holds them already."""
    site = Site(work)
    if (work / "ready").exists():
        return site
    for name in ("tiny.toml", "tiny.py"):
        shutil.copy(ROOT / "tests" / "support" / name, work)
    for name, text in {"budget": BUDGET, "tiny-served": DEPLOYMENT, "plan": PLAN}.items():
        (work / f"{name}.toml").write_text(text)
    (work / "world.py").write_text(WORLD.format(root=str(ROOT)))
    site.must("build", "tiny.toml")
    site.must("measure", "tiny", "--recipe", "tiny.toml", "--seconds", "1", "--out", "measure")
    gate = ("gate", "tiny.fp32", "tiny", "--budget", "budget.toml", "--deployment", "tiny-served.toml", "--out", "gate")
    site.must(*gate)
    for step in (("baseline", "record", "gate"), ("trend", "--add", "gate"), ("register", "tiny", "--run", "gate")):
        site.must(*step)
    _copied(site)
    site.must("place", "tiny-served.toml", "--repository", "models")
    ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    up = site.must("up", "--repository", "models", *ports, "--json", again=True)
    url = f"http://127.0.0.1:{json.loads(up.output)['http_port']}/v2/models/tiny"
    try:
        site.must("load", url, "--rate", "50", "--seconds", "3", "--out", "load", codes=(0, 4))
        quick = ("--seconds", "20", "--out", "capacity")
        site.must("capacity", url, "--slo", "p99<=50ms", *quick, codes=(0, 1, 3, 4))
    finally:
        site.must("down", again=True)
    start = ("rollout", "start", "m", "--stable", "1", "--candidate", "2", "--plan", "plan.toml")
    site.must(*start, "--digest", "sha256:bad", "--world", "world.py:greedy", codes=(1,))
    site.must(*start, "--digest", "sha256:good", "--world", "world.py:good")
    (work / "ready").touch()
    return site


def _copied(site: Site) -> None:
    """More gates for the history and losses for the ledger: a dozen lines as twelve gates would have left them."""
    (path,) = site.home.glob("history/*/tiny.jsonl")
    ledger = site.home / "ledger" / "tiny.jsonl"
    if ledger.exists():
        return
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    more = [
        line | {"at": f"2026-01-{day:02d}T10:00:00+00:00", "run": f"{day}"} for day in range(1, 13) for line in lines
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in more))
    entry = {"schema": 1, "metric": "p50", "loss": 0.01, "lower": 0.005, "upper": 0.02, "base": "b", "candidate": "c"}
    ledger.parent.mkdir(exist_ok=True)
    ledger.write_text("".join(json.dumps(entry | {"at": f"2026-11-{day:02d}T10:00:00+00:00"}) + "\n" for day in (1, 2)))


@dataclass
class Tally:
    """Counts of outcomes of the calls, with an example of each miss."""

    mutations: int = 0
    calls: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    misses: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, done: Done, about: str, undamaged: int) -> None:
        """Count one call; `undamaged` is its exit code where nothing is damaged, which is no miss."""
        self.calls += 1
        self.codes[done.code] += 1
        failed = done.code == 1 != undamaged and not any(word in done.output for word in VERDICTS)
        raw = "\x1b" in done.output
        wrong = {"hang": done.hung, "traceback": done.traced, "exit 1": failed, "killed": done.code < 0, "escape": raw}
        for name in (name for name, seen in wrong.items() if seen and not (done.hung and name == "killed")):
            self.misses[name] += 1
            self.examples.append(f"{name}: {about}: {done.output.strip()[-1500:]}")


def attack(kind: str, site: Site, number: int, seed: int) -> Tally:
    """Damage files of one kind `number` times, and read each time with a verb or two of its own."""
    random, tally = Random(f"{seed}-{kind}"), Tally()
    names = {"home": str(site.home), "work": str(site.work)}
    patterns = [pattern.format(**names) for pattern in KINDS[kind].files]
    files = sorted({path for pattern in patterns for path in Path("/").glob(pattern.lstrip("/")) if path.is_file()})
    if not files:
        raise MachineError(f"no records of kind {kind}", where=str(site.work))
    verbs = {verb: tuple(word.format(**names) for word in verb) for verb in KINDS[kind].verbs}
    before = {each: each.read_bytes() for each in files}
    usual = {verb: site.call(*words).code for verb, words in verbs.items()}
    for each, data in before.items():
        restore(each, data)
    for made in range(number):
        if made % PROGRESS == 0:
            print(f"{kind}: {made} of {number} mutations", file=sys.stderr, flush=True)
        path = random.choice(files)
        before = {each: each.read_bytes() for each in files}
        if random.random() < REPLACED:
            what = replaced(path, random)
        else:
            what, data = damaged(before[path], random)
            path.write_bytes(data)
        tally.mutations += 1
        for verb in random.sample(KINDS[kind].verbs, min(2, len(KINDS[kind].verbs))):
            done = site.call(*verbs[verb])
            tally.add(done, f"{what} in {path.relative_to(site.work)}, {' '.join(verb)}", usual[verb])
        for each, data in before.items():
            restore(each, data)
    return tally


def row(kind: str, number: int, seed: int, keep: Path, _: Path) -> Row:
    """One kind's row; examples of misses go to stderr."""
    tally = attack(kind, prepare(keep), number, seed)
    for example in tally.examples[:12]:
        print(example, file=sys.stderr)
    misses = ", ".join(f"{count} x {name}" for name, count in tally.misses.items()) or "none"
    codes = ", ".join(f"{code}: {count}" for code, count in sorted(tally.codes.items()))
    return Row(
        name=kind,
        claim=f"damaged records of {kind}",
        value=f"{tally.mutations} mutations, {tally.calls} calls, exit codes {codes}; misses: {misses}",
        bar="no traceback, no hang, exit 1 only where a verdict failed",
        met=not tally.misses,
    )


def start() -> int:
    """Read the parameters of the attack, then the rows' own."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--number", type=int, default=1000, help="mutations over all kinds")
    parser.add_argument("--keep", type=Path, default=Path(f"/tmp/seatrial-records-{os.getpid()}"))
    given, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    given.keep.mkdir(parents=True, exist_ok=True)
    preload()
    each = -(-given.number // len(KINDS))
    rows: dict[str, Callable[[Path], Row]] = {
        kind: partial(row, kind, each, given.seed, given.keep.absolute()) for kind in KINDS
    }
    return main("Damages stored records and reads them.", rows)


if __name__ == "__main__":
    sys.exit(start())
