"""Lint against the real server: the same generated configurations read by the one and loaded by the other.

A third of them come straight from the grammar, the others with one mutation. Every disagreement is printed to
standard error with its seed.
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from secrets import randbits

from scripts.benchmarks import lint_mutations as configs
from scripts.benchmarks import lint_mutations_files as files
from scripts.benchmarks import lint_mutations_pipelines as pipelines
from scripts.benchmarks.lint_grammar import python_model
from scripts.benchmarks.lint_pipelines import ensemble
from scripts.benchmarks.lint_server import PATIENCE, Verdict, judge
from scripts.benchmarks.lint_unit import Unit
from scripts.benchmarks.rows import Row, Rows
from scripts.benchmarks.rows import main as run_rows
from seatrial.serve.triton.lint import lint
from seatrial.serve.triton.running import wheel

_AGREED = 0.995
_ALONE = 0.6
_VALID = 0.33
_RARELY = 0.1
_TOGETHER = 40
_SERVERS = 4
_SETTLE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One configuration: what lint expects of the server, and what the server did."""

    kind: str
    seed: int
    expected: tuple[str, ...]
    verdict: Verdict

    @property
    def agrees(self) -> bool:
        """Return whether lint has an error exactly where the server does not load it."""
        return (self.verdict.outcome == "loaded") == (not self.expected)


def unit(seed: int) -> Unit:
    """The configuration of a seed."""
    rng = Random(seed)
    name = f"m{seed}"
    draw = rng.random()
    alone = draw < _ALONE
    found = Unit(target=name, models={name: python_model(rng, name)}) if alone else ensemble(rng, name)
    if rng.random() < _VALID:
        return found
    of_models, of_pipelines = {**configs.mutations(), **files.mutations()}, pipelines.mutations()
    while True:
        kind = rng.choice(sorted(of_models if alone else of_pipelines))
        if kind in files.HANGING and rng.random() > _RARELY:
            continue
        if of_models[kind](rng, found.models[name]) if alone else of_pipelines[kind](rng, found):
            found.kind = kind
            return found


def expected(found: Unit, folder: Path) -> tuple[str, ...]:
    """Return what lint says of the target and the models that it needs: the errors of those that are not to load."""
    names = found.closure()
    return tuple(
        f"{each.file} {each.field}: {each.rule}"
        for each in lint(folder, release="2.51")
        if each.severity == "error" and each.effect != "loads" and each.file.split("/")[0] in names
    )


def compare(seeds: Sequence[int], folder: Path) -> list[Compared]:
    """Write, lint and load the configurations of these seeds, many in one server."""
    units = [unit(seed) for seed in seeds]
    places = [folder / f"r{seed}" for seed in seeds]
    for found, place in zip(units, places, strict=True):
        found.write(place)
    said = [expected(found, place) for found, place in zip(units, places, strict=True)]
    targets = [(place, found.target) for found, place in zip(units, places, strict=True)]
    verdicts = judge(targets, folder / "together")
    compared = [
        Compared(kind=found.kind, seed=seed, expected=errors, verdict=verdict)
        for found, seed, errors, verdict in zip(units, seeds, said, verdicts, strict=True)
    ]
    for number in sorted(doubtful(compared)):
        alone = folder / f"alone{number}"
        verdict = judge([targets[number]], alone, patience=4 * PATIENCE, settle=_SETTLE)[0]
        compared[number] = replace(compared[number], verdict=verdict)
    return compared


def doubtful(compared: Sequence[Compared]) -> set[int]:
    """Those to load again in a server of their own: another model, or a busy machine, may have been the reason.

    A server may end a moment after the model that ends it, so the ones before count as well where lint passed them.
    """
    found = set[int]()
    for number, one in enumerate(compared):
        if not one.agrees and one.verdict.outcome != "loaded":
            found.add(number)
        if one.verdict.outcome == "ended the server":
            found |= {before for before in range(max(0, number - 2), number) if not compared[before].expected}
    return found


def _report(found: Sequence[Compared], done: int, count: int) -> None:
    """Print the disagreements of a group as soon as it is done, and how far the whole is."""
    for one in found:
        if not one.agrees:
            text = f"{one.seed} {one.kind}: {one.verdict.outcome}: {one.verdict.reason[-300:]} | lint: {one.expected}"
            print(text.replace("\n", " "), file=sys.stderr)
    print(f"{done} of {count}", file=sys.stderr, flush=True)


def _agreement(folder: Path, count: int, seed: int) -> Row:
    seed = seed or randbits(31)
    rng = Random(seed)
    seeds = [rng.getrandbits(40) for _ in range(count)]
    groups = [seeds[start : start + _TOGETHER] for start in range(0, count, _TOGETHER)]
    wheel.libpython()  # sysconfig fills itself at the first call, and two threads at once read it half full
    with ThreadPoolExecutor(_SERVERS) as pool:
        jobs = [pool.submit(compare, group, folder / f"g{number}") for number, group in enumerate(groups)]
        compared: list[Compared] = []
        for job in as_completed(jobs):
            compared += job.result()
            _report(job.result(), len(compared), count)
    agreed = sum(one.agrees for one in compared)
    loaded = sum(one.verdict.outcome == "loaded" for one in compared)
    lost = [one for one in compared if one.verdict.outcome == "ended the server"]
    passed = sum(not one.expected for one in lost)
    return Row(
        name="agreement",
        claim="lint finds an error exactly where the real server does not load a configuration",
        value=f"{agreed} of {count} agree ({agreed / count:.2%}); {loaded} load, {len(lost)} end the server, "
        f"of which lint passed {passed}; {len({one.kind for one in compared})} kinds, seed {seed}",
        bar=f"at least {_AGREED:.1%} agree, no configuration that ends the server passed",
        met=agreed >= _AGREED * count and not passed,
    )


def rows(count: int, seed: int) -> Rows:
    """The one row of this benchmark."""
    return {"agreement": partial(_agreement, count=count, seed=seed)}


def main() -> int:
    """Run the rows that the command line names."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--count", type=int, default=2000, help="configurations")
    parser.add_argument("--seed", type=int, default=0, help="0 draws a fresh one")
    own, sys.argv[1:] = parser.parse_known_args()
    return run_rows("Compare lint with the real server.", rows(own.count, own.seed), parents=(parser,))


if __name__ == "__main__":
    raise SystemExit(main())
