"""An ensemble compiles against the models of a repository, is placed under numbers of its own, and refuses by name."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from seatrial.optimize.config import load
from seatrial.optimize.environment import environment
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Deployment, Instances, OnnxTensorrt, TensorrtPlan
from seatrial.serve.deployment.ensemble import Ensemble, Port, Step, is_ensemble
from seatrial.serve.errors import ConfigRuleError, PlacementError, UnprovenError
from seatrial.serve.triton.compiler import config
from seatrial.serve.triton.compiler.ensembles import members, render_ensemble
from seatrial.serve.triton.lint import lint
from seatrial.serve.triton.proof.placed import optimal_batch, prove
from seatrial.serve.triton.repository.placement import placements
from seatrial.serve.triton.repository.placing import place_ensemble
from tests.support.kinds import DEPLOYMENTS, SCENES

PIPELINE = load(DEPLOYMENTS / "scenes-pipeline.toml", Ensemble)
MODEL = """
backend: "python"
max_batch_size: 32
input [ {{ name: "{0}" data_type: {1} dims: [ {2} ] }} ]
output [ {{ name: "{3}" data_type: TYPE_FP32 dims: [ {4} ] }} ]
version_policy {{ specific {{ versions: [ 1 ] }} }}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The three models of the example pipeline."""
    folder = tmp_path / "models"
    for name, *tensors in (
        ("normalise", "pixels", "TYPE_UINT8", "3, 64, 64", "image", "3, 64, 64"),
        ("scenes", "image", "TYPE_FP32", "3, 64, 64", "scores", "10"),
        ("softmax", "scores", "TYPE_FP32", "10", "probabilities", "10"),
    ):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / "model.py").write_text("class TritonPythonModel:\n    pass\n")
        (folder / name / "config.pbtxt").write_text(MODEL.format(*tensors))
    return folder


def test_the_example_pipeline_compiles(repository: Path) -> None:
    made = config.parse(render_ensemble(PIPELINE, *members(PIPELINE, repository), version=2))
    assert (made.platform, made.backend, len(made.instance_group)) == ("ensemble", "", 0)
    assert [(step.model_name, step.model_version) for step in made.ensemble_scheduling.step] == [
        ("normalise", 1),
        ("scenes", 1),
        ("softmax", 1),
    ]
    assert list(made.version_policy.specific.versions) == [2]
    assert dict(made.ensemble_scheduling.step[1].output_map) == {"scores": "scores"}


def test_an_ensemble_is_placed_under_a_number_of_its_own_and_can_go_back(repository: Path) -> None:
    other = replace(PIPELINE, max_batch_size=16)
    numbers = [place_ensemble(each, repository=repository).version for each in (PIPELINE, PIPELINE, other, PIPELINE)]
    assert numbers == [1, 1, 2, 1]
    assert [each.version for each in placements(repository, PIPELINE.name)] == [1, 2]
    assert lint(repository, release="2.51") == ()


def test_a_model_of_that_name_that_is_not_ours_is_left_alone(repository: Path) -> None:
    (repository / PIPELINE.name / "1").mkdir(parents=True)
    with pytest.raises(PlacementError, match="not placed by seatrial"):
        place_ensemble(PIPELINE, repository=repository)


def steps(**changes: Any) -> tuple[Step, ...]:
    """The example's steps, the second of them changed."""
    return (PIPELINE.steps[0], replace(PIPELINE.steps[1], **changes), PIPELINE.steps[2])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"schema": 2}, "schema"),
        ({"name": "a/b"}, "name"),
        ({"triton": "1.0"}, "triton"),
        ({"steps": ()}, "steps"),
        ({"inputs": ()}, "inputs"),
        ({"outputs": (Port(name="a", dtype="float32", shape=()),)}, "outputs.a"),
        ({"outputs": (Port(name="a", dtype="float32", shape=(0,)),)}, "outputs.a"),
        ({"inputs": (*PIPELINE.inputs, *PIPELINE.inputs)}, "inputs"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"steps": steps(version=-1)}, "steps.1.version"),
        ({"steps": steps(model="scenes-pipeline")}, "steps.1.model"),
        ({"steps": steps(inputs={})}, "steps.1"),
        ({"inputs": (Port(name="pixels", dtype="complex64", shape=(3, 64, 64)),)}, "inputs.pixels"),
        ({"max_batch_size": 64}, "max_batch_size"),
        ({"max_in_flight": 4}, "ensemble_scheduling.max_inflight_requests"),
        ({"inputs": (Port(name="pixels", dtype="float32", shape=(3, 64, 64)),)}, "ensemble_scheduling.step"),
        ({"outputs": (Port(name="other", dtype="float32", shape=(10,)),)}, "output.other"),
        ({"steps": steps(model="gone")}, "ensemble_scheduling.step.1.model_name"),
        ({"steps": steps(version=3)}, "ensemble_scheduling.step.1.model_version"),
        ({"steps": steps(inputs={"picture": "image"})}, "ensemble_scheduling.step.1.input_map"),
        ({"steps": steps(inputs={"image": "nothing"})}, "ensemble_scheduling.step.1.input_map"),
        ({"steps": steps(inputs={"image": "scores"})}, "ensemble_scheduling.step"),
    ],
)
def test_each_rule_of_an_ensemble_has_its_own_refusal(repository: Path, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigRuleError) as caught:
        place_ensemble(replace(PIPELINE, **changes), repository=repository)
    assert caught.value.where == field
    assert caught.value.next_step
    assert placements(repository, PIPELINE.name) == ()


def test_backpressure_is_written_for_a_release_that_knows_it(repository: Path) -> None:
    bounded = replace(PIPELINE, max_in_flight=4, triton="2.73")
    text = render_ensemble(bounded, *members(bounded, repository), version=1)
    assert config.parse(text).ensemble_scheduling.max_inflight_requests == 4


def test_a_file_tells_what_it_describes() -> None:
    kinds = {path.name: is_ensemble(path.read_text()) for path in DEPLOYMENTS.glob("*.toml")}
    assert [name for name, answer in kinds.items() if answer] == ["scenes-pipeline.toml"]
    assert not is_ensemble("no = [toml")


def test_the_batch_between_is_what_the_engine_or_the_batcher_aims_at() -> None:
    plain = Deployment(schema=1, name="a", max_batch_size=0)
    engine = load(DEPLOYMENTS / "scenes-engine.toml", Deployment)
    provider = load(DEPLOYMENTS / "scenes-trt-provider.toml", Deployment)
    assert isinstance(engine.engine, TensorrtPlan)
    assert isinstance(provider.engine, OnnxTensorrt)
    assert [optimal_batch(each) for each in (plain, replace(plain, max_batch_size=9), provider, engine)] == [
        1,
        4,
        16,
        32,
    ]


@pytest.mark.skipif(find_spec("pytriton") is None, reason="the Triton wheel is not installed (seatrial[serve])")
def test_what_needs_a_gpu_or_another_backend_is_unproven_here(tmp_path: Path) -> None:
    if environment().gpus:
        pytest.skip("this machine has a GPU")
    store = Store(tmp_path / "store")
    on_gpus = Deployment(schema=1, name="a", max_batch_size=4, instances=Instances(kind="gpu"))
    with pytest.raises(UnprovenError, match="need GPUs"):
        prove(SCENES, on_gpus, store=store)
    with pytest.raises(UnprovenError, match="no backend 'onnxruntime'"):
        prove(SCENES, replace(on_gpus, backend="native"), store=store)
