"""What a recipe may say of distillation, and how it is told what it may not."""

from pathlib import Path

import pytest

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.recipe.configs import Attention, DistillConfig, Features, QatConfig, Relations
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.record import as_json
from tests.support.built import TINY

STUDENT = 'student = "tiny.py:student"'


def written(tmp_path: Path, more: str) -> Path:
    """The tiny recipe with more said in its first stage."""
    (tmp_path / "tiny.py").write_bytes((TINY.parent / "tiny.py").read_bytes())
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.read_text().replace(STUDENT, f"{STUDENT}\n{more}"))
    return path


def test_inner_losses_are_typed(tmp_path: Path) -> None:
    stage = load_recipe(
        written(
            tmp_path,
            'features = [{ student = "second", teacher = "second", weight = 2.0 }]\n'
            'attention = [{ student = "first", teacher = "first" }]\n'
            "relations = [{ weight = 0.5 }]\n"
            'hidden_precision = "float16"',
        )
    ).stages[0]
    assert isinstance(stage, DistillConfig)
    assert stage.features == (Features(student="second", teacher="second", weight=2.0),)
    assert stage.attention == (Attention(student="first", teacher="first"),)
    assert stage.relations == (Relations(weight=0.5),)
    assert as_json(stage)["attention"][0]["maps"] == "activations"


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ('features = [{ student = "a", techer = "b" }]', "unknown key 'stages.0.features.0.techer'"),
        ('attention = [{ student = "a", teacher = "b", maps = "heads" }]', "'stages.0.attention.0.maps'"),
        ('features = [{ student = "a", teacher = "b", weight = -1.0 }]', "'stages.0.features.0.weight'"),
        ('relations = [{ student = "a" }]', "relations need both layers or neither"),
        ("output_weight = 0.0", "this stage has no loss to train on"),
        ("hidden_limit_mb = -1", "'stages.0.hidden_limit_mb'"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, more: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(written(tmp_path, more))
    assert what in caught.value.what
    assert "tiny.toml" in caught.value.where
    assert caught.value.next_step


def test_qat_stands_where_export_would(tmp_path: Path) -> None:
    text = written(tmp_path, "").read_text()
    path = tmp_path / "tiny.toml"
    path.write_text(text.split('[[stages]]\nkind = "export"')[0] + '[[stages]]\nkind = "qat"\nexclude = ["head"]\n')
    stage = load_recipe(path).stages[-1]
    assert isinstance(stage, QatConfig)
    assert (stage.takes, stage.makes, stage.exclude) == ("torch", "onnx", ("head",))
