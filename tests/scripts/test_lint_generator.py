"""The generator of the lint benchmark is repeatable and reaches every mutation; lint reads whatever it makes."""

from pathlib import Path

import pytest

from scripts.benchmarks import lint_mutations as configs
from scripts.benchmarks import lint_mutations_files as files
from scripts.benchmarks import lint_mutations_pipelines as pipelines
from scripts.benchmarks.lint import Compared, doubtful, expected, unit
from scripts.benchmarks.lint_server import Outcome, Verdict

SEEDS = range(2500)


def test_a_seed_gives_the_same_configuration_again(tmp_path: Path) -> None:
    for seed in range(40):
        first, again = unit(seed), unit(seed)
        assert {name: each.written() for name, each in first.models.items()} == {
            name: each.written() for name, each in again.models.items()
        }
        first.write(tmp_path / str(seed))
        assert isinstance(expected(first, tmp_path / str(seed)), tuple)


@pytest.mark.slow
def test_every_mutation_is_reached_and_some_stay_as_the_grammar_made_them() -> None:
    kinds = {unit(seed).kind for seed in SEEDS}
    assert kinds == {"valid", *configs.mutations(), *files.mutations(), *pipelines.mutations()}


def test_a_lost_server_casts_doubt_on_what_lint_passed_before() -> None:
    def one(outcome: Outcome, *errors: str) -> Compared:
        return Compared(kind="", seed=0, expected=errors, verdict=Verdict(outcome=outcome))

    loaded, refused = one("loaded"), one("refused", "rule")
    assert doubtful([loaded, loaded, refused]) == set()
    assert doubtful([loaded, loaded, refused, one("ended the server", "rule")]) == {1}
    assert doubtful([loaded, one("hangs"), refused]) == {1}
    assert doubtful([one("loaded", "rule")]) == set()  # nothing to try again: the server was there
