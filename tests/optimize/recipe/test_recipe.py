from pathlib import Path

import pytest

from seatrial.optimize.errors import ConfigError, FormatChainError, MissingError, SeatrialError
from seatrial.optimize.recipe.metrics import METRICS
from seatrial.optimize.recipe.recipe import load_recipe

ROOT = Path(__file__).parent.parent.parent.parent
TINY = (ROOT / "tests" / "support" / "tiny.toml").read_text()


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "tiny.py").write_text((ROOT / "tests" / "support" / "tiny.py").read_text())
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "optimize" / "recipes").glob("*.toml")), ids=lambda path: path.name)
def test_every_recipe_of_the_project_loads(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_the_digest_is_of_what_is_said(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, TINY))
    assert load_recipe(write(tmp_path, "# a comment\n" + TINY)).digest == recipe.digest
    assert load_recipe(write(tmp_path, TINY.replace("ratio = 0.4", "ratio = 0.5"))).digest != recipe.digest


@pytest.mark.parametrize(
    ("old", "new", "kind", "what"),
    [
        (
            'kind = "export"',
            'kind = "quantize"',
            FormatChainError,
            "stage 2 (quantize) takes onnx, but stage 1 (prune) gives torch",
        ),
        (
            'kind = "quantize"',
            'kind = "export"',
            FormatChainError,
            "stage 3 (export) takes torch, but stage 2 (export) gives onnx",
        ),
        ("tiny.py:samples", "other.py:samples", MissingError, "no such file: other.py"),
        ("[data]", "[metric]\nname = 'bleu'\n[data]", ConfigError, "unknown metric 'bleu'"),
        ("tiny.py:samples", "tiny.py", ConfigError, "invalid reference"),
        ('name = "tiny"', 'name = "tiny"\npath = "x"', ConfigError, "unknown key 'path'"),
        ('name = "tiny"', 'name = "Tiny model"', ConfigError, "'name'"),
        ("ratio = 0.4", "ratio = 1.4", ConfigError, "'stages.1.ratio'"),
        (
            'factory = "tiny.py:teacher"',
            'onnx = "m.onnx"\nfactory = "tiny.py:teacher"',
            ConfigError,
            "either a factory or",
        ),
        ('outputs = ["logits"]', 'weights = "gone.safetensors"', MissingError, "gone.safetensors"),
    ],
)
def test_a_bad_recipe_is_refused_before_any_work(
    tmp_path: Path, old: str, new: str, kind: type[SeatrialError], what: str
) -> None:
    assert old in TINY
    with pytest.raises(kind) as caught:
        load_recipe(write(tmp_path, TINY.replace(old, new)))
    assert what in caught.value.what
    assert caught.value.where
    assert caught.value.exit_code == 2


def test_a_recipe_may_name_every_metric(tmp_path: Path) -> None:
    for name in METRICS:
        assert load_recipe(write(tmp_path, f'{TINY}\n[metric]\nname = "{name}"\n')).metric.name == name
