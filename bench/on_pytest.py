"""A pytest plugin: budgets beside pytest-benchmark's fixture become tests, judged over several runs of both versions.

    @pytest.mark.budget("p50", max_regression=0.05)
    def test_resize(benchmark): benchmark(resize, image)

Run both versions in turns (base, candidate, candidate, base, ...), each into its own file with ``--benchmark-json``;
then ``pytest --budget-base 'base-*.json' --budget-candidate 'candidate-*.json'`` runs no benchmark but turns every
budget into a test: PASS passes, FAIL fails, INCONCLUSIVE is skipped with its reason, INVALID is an error. The judgement
is `gating.rounds`; without these options the plugin changes nothing. pytest loads it by itself where seatrial is
installed (entry point ``pytest11``).
"""

from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .gating.rounds import Rule
    from .verdict import Finding

_FINDINGS = pytest.StashKey[list["Finding"]]()
_MARK = 'budget("p50" | "p99" | "mean" | "min", max_regression=0.05 | at_most=SECONDS): the limit for this benchmark'


class Judged(pytest.Item):
    """One budget of one benchmark, as a test whose outcome is known."""

    def __init__(self, *, finding: "Finding", blocks: bool, **rest: Any) -> None:
        super().__init__(**rest)
        self.finding = finding
        self.blocks = blocks

    def setup(self) -> None:
        """An INVALID finding is an error of the test's setting, not a failure of what is tested."""
        if self.finding.outcome == "INVALID":
            pytest.fail(f"INVALID: {self.finding.reason}", pytrace=False)

    def runtest(self) -> None:
        """Pass, fail or skip as the finding says."""
        if self.finding.outcome == "INCONCLUSIVE" and not self.blocks:
            pytest.skip(f"INCONCLUSIVE: {self.finding.reason}")
        if self.finding.outcome != "PASS":
            pytest.fail(f"{self.finding.outcome}: {self.finding.reason}", pytrace=False)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return the location of the benchmark."""
        return self.path, None, self.name


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options that switch judging on."""
    group = parser.getgroup("seatrial", "budgets for benchmarks (seatrial)")
    for arm in ("base", "candidate"):
        group.addoption(
            f"--budget-{arm}",
            action="append",
            metavar="FILES",
            help=f"files of --benchmark-json from runs of the {arm}, one run each; a pattern, or given several times",
        )
    group.addoption(
        "--budget-inconclusive",
        choices=("skip", "fail"),
        default="skip",
        help="result of a budget that the runs could not settle",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, for --strict-markers."""
    config.addinivalue_line("markers", _MARK)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Replace the tests by judged budgets if files are given."""
    given = [config.getoption(f"--budget-{arm}") for arm in ("base", "candidate")]
    if not any(given):
        return
    if not all(given):
        raise pytest.UsageError("--budget-base and --budget-candidate belong together")
    from seatrial.optimize.errors import SeatrialError

    from .gating.rounds import decide, judge_rounds, read_session

    try:
        base, candidate = ([read_session(path) for path in _files(patterns)] for patterns in given)
        marked = [(item, rule) for item in items for rule in _rules(item)]
        found = decide([judge_rounds(item.nodeid, rule, base, candidate) for item, rule in marked])
    except SeatrialError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[_FINDINGS] = found
    blocks = config.getoption("--budget-inconclusive") == "fail"
    judged: list[pytest.Item] = [
        Judged.from_parent(
            item.parent or session, name=f"{item.name}[{finding.rule} {rule.statistic}]", finding=finding, blocks=blocks
        )
        for (item, rule), finding in zip(marked, found, strict=True)
    ]
    config.hook.pytest_deselected(items=[item for item in items if not any(item is each for each, _ in marked)])
    items[:] = judged


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Every budget in a line, the ones that passed too: by how much is worth knowing."""
    found = config.stash.get(_FINDINGS, [])
    if not found:
        return
    terminalreporter.section("budgets")
    for finding in sorted(found, key=lambda each: each.outcome):
        terminalreporter.line(f"{finding.outcome:<13} {finding.reason}")


def _rules(item: pytest.Item) -> Iterator["Rule"]:
    from seatrial.optimize.errors import ConfigError

    from .gating.rounds import Rule

    for mark in item.iter_markers("budget"):
        if len(mark.args) != 1 or not mark.kwargs:
            raise ConfigError("the budget has no statistic or no limit", where=item.nodeid, next_step=f"write {_MARK}")
        for rule, margin in mark.kwargs.items():
            yield Rule(statistic=str(mark.args[0]), rule=rule, margin=float(margin))


def _files(patterns: Sequence[str]) -> list[Path]:
    found = [Path(name) for pattern in patterns for name in (sorted(glob(pattern)) or [pattern])]
    return list(dict.fromkeys(found))
