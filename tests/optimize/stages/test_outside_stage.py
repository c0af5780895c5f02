"""Stages that are not seatrial's: a function in the user's file, and an entry point of another package."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from seatrial.optimize.building.build import build, plan
from seatrial.optimize.building.reproduce import reproduce
from seatrial.optimize.errors import ConfigError, MissingError, SeatrialError, SourceError
from seatrial.optimize.recipe.recipe import Recipe, load_recipe
from seatrial.optimize.store import Store
from tests.support.installed import answer, command, install
from tests.support.linear_recipe import linear_recipe

STAGE = '''
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import onnx

from seatrial.optimize.recipe.configs import EXACT, StageConfig, Tolerance
from seatrial.optimize.stages.stage import Made, stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp(StageConfig):
    """`text` is written into the file's metadata."""

    takes: ClassVar[str] = "onnx"
    makes: ClassVar[str] = "onnx"
    text: str
    times: int = 1
    parity: Mapping[str, Tolerance] = field(default_factory=lambda: EXACT)


@stage(Stamp)
def my_stage(config, source, context):
    model = onnx.load(str(context.store.path(source, "model.onnx")))
    model.metadata_props.add(key="stamp", value=config.text * config.times)
    onnx.save_model(model, str(context.folder / "model.onnx"))
    return Made(format="onnx", files=("model.onnx",), inputs=source.inputs, outputs=source.outputs)
'''
STAGES = """
[[stages]]
kind = "{kind}"
text = "sea"
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """A folder with a linear model, a loader and a stage; returns the path of a recipe with that kind of stage."""
    folder = tmp_path / "mine"

    def recipe(kind: str) -> Path:
        path = linear_recipe(folder, STAGES.replace("{kind}", kind))
        (folder / "model.py").write_text(STAGE)
        return path

    return recipe


def stamp(recipe: Recipe, store: Store) -> str:
    """The text that the built file carries."""
    path = store.path(build(recipe, store).artifact, "model.onnx")
    return str(next(prop.value for prop in onnx.load(str(path)).metadata_props if prop.key == "stamp"))


def known(recipe: Recipe, store: Store) -> list[bool]:
    """Which planned steps are there already."""
    return [step.artifact is not None for step in plan(recipe, store)]


def test_a_stage_of_the_users_file_is_built_once_and_again_after_an_edit(
    tmp_path: Path, written: Callable[[str], Path]
) -> None:
    path, store = written("model.py:my_stage"), Store(tmp_path / "home" / "store")
    recipe = load_recipe(path)
    assert known(recipe, store) == [False, False]
    made = build(recipe, store)
    assert [step.cached for step in made.steps] == [False]
    assert [step.label for step in made.steps] == ["model.py:my_stage"]
    assert made.steps[0].agreements != ()
    assert known(recipe, store) == [True, True]
    assert not build(load_recipe(path), store).worked
    assert stamp(recipe, store) == "sea"
    assert reproduce(made.artifact, store).outcome == "equal"

    file = path.parent / "model.py"
    file.write_text(file.read_text().replace("value=config.text", "value='edited ' + config.text"))
    assert known(load_recipe(path), store) == [True, False]
    assert stamp(load_recipe(path), store) == "edited sea"
    found = reproduce(made.artifact, store)
    assert found.outcome == "differs"
    assert "code" in found.reason


@pytest.mark.parametrize(
    ("old", "new", "error", "what"),
    [
        ('text = "sea"', 'text = "sea"\ntime = 2', ConfigError, "unknown key 'stages.0.time'"),
        ('text = "sea"', "", ConfigError, "missing key 'stages.0.text'"),
        ('text = "sea"', "text = 7", ConfigError, "'stages.0.text'"),
        ("model.py:", "gone.py:", MissingError, "no such file: gone.py"),
        (":my_stage", ":Stamp", ConfigError, "is no stage: it is the class Stamp"),
        (":my_stage", ":their_stage", SourceError, "no callable 'their_stage'"),
        ("model.py:my_stage", "stampp", ConfigError, "unknown kind 'stampp' at 'stages.0'"),
    ],
)
def test_its_keys_are_read_as_strictly_as_any_stages(
    written: Callable[[str], Path], old: str, new: str, error: type[SeatrialError], what: str
) -> None:
    path = written("model.py:my_stage")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(error) as caught:
        load_recipe(path)
    assert what in caught.value.what
    assert "recipe.toml" in caught.value.where
    if "unknown key" in what:
        assert "did you mean 'times'? legal keys: kind, text, times, parity" in caught.value.next_step


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("    model = onnx", "    raise KeyError('x')\n    model = onnx", "the stage raised KeyError"),
        ("return Made(", "return dict(", "the stage returned a dict"),
        ('Made(format="onnx"', 'Made(format="torch"', "returned 'torch'"),
        ('files=("model.onnx",)', 'files=("other.onnx",)', "named the file 'other.onnx' and did not write it"),
    ],
)
def test_what_its_code_does_wrong_is_an_error_that_names_it(
    tmp_path: Path, written: Callable[[str], Path], old: str, new: str, what: str
) -> None:
    path = written("model.py:my_stage")
    file = path.parent / "model.py"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(SourceError) as caught:
        build(load_recipe(path), Store(tmp_path / "home" / "store"))
    assert what in caught.value.what
    assert "model.py:my_stage" in caught.value.where


@pytest.mark.slow
def test_an_entry_point_is_a_kind_in_every_verb(tmp_path: Path, written: Callable[[str], Path]) -> None:
    site, path = install(tmp_path / "site"), str(written("stamp"))
    assert answer("plan", path, path=site)["steps"][1]["digest"] is None
    command("build", path, path=site)
    assert answer("plan", path, path=site)["steps"][1]["digest"]
    assert '"stamp"' in command("show", "linear", "--json", path=site).stdout
    command("verify", path=site)
    command("reproduce", "linear", path=site)
    words = site / "seatrial_outside" / "words.py"
    words.write_text(words.read_text().replace("stamped {text}", "changed {text}"))
    assert answer("plan", path, path=site)["steps"][1]["digest"] is None
    command("reproduce", "linear", path=site, expect=1)
    done = command("plan", path, expect=2)
    assert "unknown kind 'stamp' at 'stages.0'" in done.stderr


@pytest.mark.slow
def test_a_package_that_is_broken_or_clashes_is_an_error_that_names_it(
    tmp_path: Path, written: Callable[[str], Path]
) -> None:
    site, path = install(tmp_path / "site"), str(written("stamp"))
    stamping = site / "seatrial_outside" / "stamping.py"
    kept = stamping.read_text()
    stamping.write_text(kept + "\nraise RuntimeError('out of order')\n")
    done = command("plan", path, path=site, expect=2)
    assert "stage 'stamp' cannot be imported: RuntimeError: out of order" in done.stderr
    assert "seatrial-outside 2.1" in done.stderr
    stamping.write_text(kept + "\nstamp = StampConfig\n")
    done = command("plan", path, path=site, expect=2)
    assert "stage 'stamp' has the wrong form: it is the class StampConfig" in done.stderr
    assert "seatrial-outside 2.1" in done.stderr


def test_loading_a_recipe_imports_no_heavy_library() -> None:
    code = (
        "import sys; from pathlib import Path; import seatrial; seatrial.load_recipe(Path(sys.argv[1]));"
        "print([name for name in ('torch', 'onnx', 'onnxruntime', 'scipy') if name in sys.modules])"
    )
    path = Path(__file__).parents[2] / "support" / "tiny.toml"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
