"""Candidates that a recipe lists: read, refused, built, compared with fp32, remembered, and written as recipes."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seatrial.optimize.building.build import build
from seatrial.optimize.errors import ConfigError, FormatChainError, SeatrialError
from seatrial.optimize.parity.signal import MOST
from seatrial.optimize.recipe.recipe import Recipe, load_recipe
from seatrial.optimize.recipe.text import from_json, to_toml
from seatrial.optimize.record import as_json
from seatrial.optimize.search import alternatives, comparing
from seatrial.optimize.search.explore import explore
from seatrial.optimize.search.found import Found
from seatrial.optimize.store import Store
from seatrial.serve.cli import app
from tests.support.linear_recipe import linear_recipe

CANDIDATES = """
[search]
objectives = ["snr", "latency", "size"]
batch = 4

[[search.candidates]]
name = "int8-dynamic"
[[search.candidates.stages]]
kind = "quantize"
method = "dynamic"

[[search.candidates]]
name = "strict"
[[search.candidates.stages]]
kind = "quantize"
parity = { "*" = { relative_error = 1e-9 } }

[[search.candidates]]
name = "same"
stages = []

[[search.candidates]]
name = "openvino"
engine = "openvino"
stages = []
"""
DYNAMIC = '[[search.candidates]]\nname = "a"\n[[search.candidates.stages]]\nkind = "quantize"\nmethod = "dynamic"\n'


def recipe(folder: Path, search: str = CANDIDATES, floors: str = "") -> Recipe:
    path = linear_recipe(folder / "recipe")
    path.write_text(path.read_text() + floors + search)
    return load_recipe(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compared")


@pytest.fixture(scope="module")
def searched(folder: Path) -> Recipe:
    return recipe(folder)


@pytest.fixture(scope="module")
def found(folder: Path, searched: Recipe) -> Found:
    return explore(searched, Store(folder / "here" / "store"))


@pytest.mark.slow
def test_every_candidate_is_kept_with_its_figures_or_its_reason(found: Found) -> None:
    fp32, dynamic, strict, same, openvino = found.candidates
    assert [each.number for each in found.candidates] == [0, 1, 2, 3, 4]
    assert (fp32.chosen["candidate"], fp32.values["latency"], fp32.values["snr"]) == ("fp32", 1.0, MOST)
    assert not dynamic.failure
    assert 25 < (dynamic.values["snr"] or 0) < 60, "one int8 product"
    assert dynamic.interval is not None
    assert dynamic.interval[0] <= (dynamic.values["latency"] or 0) <= dynamic.interval[1]
    assert str(dynamic.ran_on) == "onnxruntime-cpu (CPUExecutionProvider) on cpu"
    assert "disagrees with the parent" in strict.failure
    assert (same.values["latency"], same.digest) == (1.0, fp32.digest)
    if find_spec("openvino") is None:
        assert openvino.failure == "OpenVINO is not installed; pip install 'seatrial[openvino]'"


def test_the_winner_is_written_as_a_recipe_that_has_nothing_left_to_build(
    found: Found, folder: Path, searched: Recipe
) -> None:
    assert found.winner is not None
    assert found.noise is not None
    assert found.noise >= 0.01
    won = load_recipe(found.files[found.winner.number])
    assert won.search is None
    made = build(won, Store(folder / "here" / "store"), tag=False)
    assert not made.worked
    assert made.artifact.digest == found.winner.digest
    assert {each.number for each in found.front} <= set(found.files)
    assert found.to_json()["winner"] == found.winner.number
    assert json.dumps(found.to_json(), allow_nan=False)


def test_a_second_search_measures_nothing_again(
    found: Found, folder: Path, searched: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*given: object, **more: object) -> None:
        raise AssertionError("it was measured again")

    monkeypatch.setattr(comparing, "pace", refused)
    monkeypatch.setattr(comparing.Comparison, "_held", refused)
    again = explore(searched, Store(folder / "here" / "store"))
    assert again.to_json() == found.to_json()


@pytest.mark.parametrize(
    ("search", "floors", "kept"),
    [
        ("[search]\nsnr = 100.0\n", "", False),
        ("[search]\nsnr = 20.0\n", "", True),
        ("", "", True),  # 18 dB where the recipe has no floor
        ("", "[floors]\nmax_quality_drop = -1.0\n", False),
        ("[search]\nsnr = 100.0\n", "[floors]\nmax_quality_drop = 0.5\n", False),
        ("", "[floors]\nmax_quality_drop = 0.5\n", True),
    ],
)
@pytest.mark.slow
def test_a_candidate_below_a_floor_is_kept_apart(tmp_path: Path, search: str, floors: str, *, kept: bool) -> None:
    done = explore(recipe(tmp_path, search + DYNAMIC, floors), Store(tmp_path / "here" / "store"))
    assert (done.candidates[1].violation == 0) == kept
    if not kept:
        assert done.winner == done.candidates[0]
        assert done.front == (done.candidates[0],)


@pytest.mark.slow
def test_without_a_floor_a_model_that_is_lost_does_not_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alternatives, "SNR", 1000.0)
    done = explore(recipe(tmp_path, DYNAMIC), Store(tmp_path / "here" / "store"))
    assert done.candidates[1].violation > 0
    assert done.winner == done.candidates[0]


@pytest.mark.parametrize(
    ("search", "what"),
    [
        (DYNAMIC + DYNAMIC, "candidate 'a' is defined twice"),
        (DYNAMIC.replace('"a"', '"fp32"'), "fp32 always takes part"),
        (DYNAMIC + '[search.stages.quantize.ranges]\nchoices = ["mse"]\n', "cannot be searched together"),
        (
            '[search]\nsnr = 18.0\n[search.stages.quantize.ranges]\nchoices = ["mse"]\n',
            "snr applies to candidates only",
        ),
        ("[search]\nsnr = -1.0\n" + DYNAMIC, "snr must be a positive number"),
        ("[search]\nbatch = 0\n" + DYNAMIC, "batch"),
        (DYNAMIC.replace("dynamic", "magic"), "'search.candidates.0.stages.0.method'"),
        (DYNAMIC.replace("quantize", "nosuch"), "unknown kind 'nosuch'"),
        (DYNAMIC.replace('"a"', '"A b"'), "search.candidates.0.name"),
        ("[search]\n", "nothing to search"),
    ],
)
def test_a_wrong_list_of_candidates_is_refused_when_it_is_read(tmp_path: Path, search: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe(tmp_path, search)
    assert what in caught.value.what
    assert caught.value.next_step


def test_a_candidate_whose_formats_do_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FormatChainError) as caught:
        recipe(tmp_path, DYNAMIC.replace('"quantize"\nmethod = "dynamic"', '"export"'))
    assert "stages.0 of search.candidates 'a'" in caught.value.where


def test_what_is_written_is_read_back_the_same(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    (tmp_path / "recipe" / "again.toml").write_text(to_toml(made))
    assert load_recipe(tmp_path / "recipe" / "again.toml").digest == made.digest
    assert from_json(as_json(made), made.path).digest == made.digest


def test_a_search_of_fields_keeps_the_digest_that_it_had(tmp_path: Path) -> None:
    fields = '[[stages]]\nkind = "quantize"\n[search.stages.quantize.ranges]\nchoices = ["minmax", "mse"]\n'
    path = linear_recipe(tmp_path / "recipe", fields)
    search = load_recipe(path).search
    assert set(as_json(search)) == {"stages", "objectives"}, "studies of earlier versions hold the digest of this"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--trials", "3"), "--trials does not apply"),
        (("--storage", "journal:x"), "--storage does not apply"),
        (("--engine", "nosuch"), "known: onnxruntime-cpu"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_options_that_do_not_apply_are_refused(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(app, ["search", str(recipe(tmp_path).path), *words])
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())


def test_an_engine_that_does_not_exist_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(SeatrialError) as caught:
        explore(
            recipe(tmp_path, DYNAMIC.replace('name = "a"', 'name = "a"\nengine = "openvin"')), Store(tmp_path / "s")
        )
    assert "did you mean 'openvino'?" in caught.value.next_step
    assert not (tmp_path / "s").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_verb_says_what_became_of_each_candidate_and_what_to_do_next(
    found: Found, folder: Path, searched: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEATRIAL_HOME", str(folder / "here"))
    done = CliRunner().invoke(app, ["search", str(searched.path)])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert found.winner is not None
    assert f"{found.winner.chosen['candidate']} wins" in said
    assert f"next: seatrial build {found.files[found.winner.number]}" in said
    for name in ("int8-dynamic", "strict", "disagrees with the parent", "one thread, batch 4"):
        assert name in said


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fields_still_want_a_number_of_trials(tmp_path: Path) -> None:
    fields = '[[stages]]\nkind = "quantize"\n[search.stages.quantize.ranges]\nchoices = ["minmax", "mse"]\n'
    done = CliRunner().invoke(app, ["search", str(linear_recipe(tmp_path / "recipe", fields))])
    assert done.exit_code == 2, done.output
    assert "give --trials" in " ".join(done.output.split())
