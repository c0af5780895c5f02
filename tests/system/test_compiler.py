"""What lint refuses the real Triton refuses too; compiled kinds load; what is placed by the verb was proven first."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from seatrial.optimize.artifact import Artifact, TensorSpec
from seatrial.optimize.config import load as load_config
from seatrial.optimize.store import Store
from seatrial.serve.cli import app
from seatrial.serve.deployment import Deployment, Instances, LevelQueue, Priorities, Queue, Resource
from seatrial.serve.deployment.ensemble import Ensemble, Port, Step
from seatrial.serve.errors import ModelLoadError, RequestError
from seatrial.serve.triton.compiler import config
from seatrial.serve.triton.compiler.ensembles import members, render_ensemble
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.lint import lint
from seatrial.serve.triton.repository.placement import placements
from seatrial.serve.triton.repository.placing import place
from seatrial.serve.triton.running.on_pytriton import Server, load, serving
from tests.support.graphs import make, pictures, value
from tests.support.kinds import DEPLOYMENTS, EXAMPLES

pytestmark = pytest.mark.system

ECHO = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", array + 1)]) for array in arrays]
"""
GOOD = """
backend: "python"
max_batch_size: 4
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
version_policy { specific { versions: [ 1 ] } }
instance_group [ { kind: KIND_CPU } ]
dynamic_batching { max_queue_delay_microseconds: 100 }
"""
ENSEMBLE = """
platform: "ensemble"
max_batch_size: 4
input [ { name: "a" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "b" data_type: TYPE_FP32 dims: [ 2 ] } ]
ensemble_scheduling { step [ { model_name: "good" model_version: 1
  input_map { key: "x" value: "a" } output_map { key: "y" value: "b" } } ] }
"""
BATCHING = "max_queue_delay_microseconds: 100"
ONE_LEVEL = "priority_levels: 1 default_priority_level: 1"
# Name of the model, what its configuration is, and what is changed in it. All of these are refused before a process of
# the model is started, so the server that the tests share stays as it was.
REFUSED = {
    "preferred": (GOOD, BATCHING, "preferred_batch_size: [ 5 ]"),
    "priority": (GOOD, BATCHING, "priority_levels: 2"),
    "level": (GOOD, BATCHING, f"{ONE_LEVEL} priority_queue_policy {{ key: 2 value {{ }} }}"),
    "ordering": (GOOD, BATCHING, "preserve_ordering: true priority_levels: 2 default_priority_level: 1"),
    "negative": (GOOD, "max_batch_size: 4", "max_batch_size: -1"),
    "unknown": (GOOD, "max_batch_size: 4", "max_batch_sise: 4"),
    "newer": (GOOD, "max_batch_size: 4", "max_batch_size: 4 model_metrics { }"),
    "other": (GOOD, 'backend: "python"', 'backend: "python" name: "another"'),
    "nodims": (GOOD, " dims: [ 2 ] } ]\nversion", " } ]\nversion"),
    "zerodim": (GOOD, "dims: [ 2 ] } ]\noutput", "dims: [ 0 ] } ]\noutput"),
    "notype": (GOOD, "data_type: TYPE_FP32 dims: [ 2 ] } ]\noutput", "dims: [ 2 ] } ]\noutput"),
    "image": (GOOD, "dims: [ 2 ] } ]\noutput", "dims: [ 2 ] format: FORMAT_NCHW } ]\noutput"),
    "gpus": (GOOD, "kind: KIND_CPU", "kind: KIND_CPU gpus: [ 0 ]"),
    "profile": (GOOD, "kind: KIND_CPU", 'kind: KIND_CPU profile: [ "0" ]'),
    "noversion": (GOOD, "versions: [ 1 ]", "versions: [ 7 ]"),
    "emptymap": (ENSEMBLE, 'output_map { key: "y" value: "b" }', 'output_map { key: "y" value: "c" }'),
    "typeclash": (ENSEMBLE, 'name: "a" data_type: TYPE_FP32', 'name: "a" data_type: TYPE_INT32'),
    "instances": (ENSEMBLE, 'platform: "ensemble"', 'platform: "ensemble" instance_group [ { count: 1 } ]'),
}


PIPELINE = """
schema = 1
name = "e"
max_batch_size = 8
inputs = [{ name = "image", dtype = "float32", shape = [3, 8, 8] }, { name = "gain", dtype = "float32", shape = [1] }]
outputs = [{ name = "scores", dtype = "float32", shape = [5] }]
[[steps]]
model = "a"
version = 1
inputs = { image = "image", gain = "gain" }
outputs = { scores = "scores" }
"""


def put(repository: Path, name: str, text: str) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(text)
    (repository / name / "1" / "model.py").write_text(ECHO)


def put_native(repository: Path, name: str, deployment: Deployment, model: Artifact) -> None:
    """The native configuration of an example, with files that no backend will get to read."""
    put(repository, name, config.render(replace(deployment, name=name, backend="native"), model, versions=(1,)))
    for file in model.files:
        (repository / name / "1" / file.path).write_text("some model")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server over every faulty model, the good one, and compiled ones."""
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        repository = folder / "models"
        put(repository, "good", GOOD)
        for name, (text, old, new) in REFUSED.items():
            assert old in text, name
            put(repository, name, text.replace(old, new, 1))
        for name, model in EXAMPLES.items():
            put_native(repository, name.removesuffix(".toml"), load_config(DEPLOYMENTS / name, Deployment), model)
        store = Store(folder / "store")
        place(pictures(store, folder / "pictures"), QUEUED, store=store, repository=repository)
        with serving(repository) as running:
            yield running


QUEUED = Deployment(
    schema=1,
    name="queued",
    max_batch_size=4,
    queue=Queue(),
    priorities=Priorities(levels=2, default=2, queues=(LevelQueue(level=1, queue=Queue(action="delay")),)),
    instances=Instances(priority=1, resources=(Resource(name="slot"),)),
)


@pytest.fixture(scope="module")
def faulty(server: Server) -> set[str]:
    """Models with an error by lint."""
    findings = lint(server.repository, release="2.51")
    return {finding.file.partition("/")[0] for finding in findings if finding.severity == "error"}


def test_lint_finds_whatever_the_server_refuses(server: Server, faulty: set[str]) -> None:
    refused = set()
    with Control(server.url) as control:
        control.load("good")
        for name in REFUSED:
            try:
                control.load(name)
            except ModelLoadError:
                refused.add(name)
    assert refused <= faulty
    assert refused == set(REFUSED)
    assert "good" not in faulty


def test_compiled_kinds_load_and_answer(server: Server, faulty: set[str]) -> None:
    assert "queued" not in faulty
    load(server, ("good", "queued"))
    pipeline = Ensemble(
        schema=1,
        name="twice",
        max_batch_size=4,
        inputs=(Port(name="x", dtype="float32", shape=(2,)),),
        outputs=(Port(name="y", dtype="float32", shape=(2,)),),
        steps=(
            Step(model="good", version=1, inputs={"x": "x"}, outputs={"y": "middle"}),
            Step(model="good", version=1, inputs={"x": "middle"}, outputs={"y": "y"}),
        ),
    )
    put(server.repository, "twice", render_ensemble(pipeline, *members(pipeline, server.repository), version=1))
    load(server, ("twice",))
    with Control(server.url) as control:
        answer = control.infer("twice", 1, {"x": np.zeros((3, 2), np.float32)})
    assert answer["y"].tolist() == [[2.0, 2.0]] * 3


@pytest.mark.parametrize("name", [name.removesuffix(".toml") for name in EXAMPLES])
def test_the_server_reads_every_native_example_and_lacks_only_the_backend(server: Server, name: str) -> None:
    """Refused for its configuration, a model would not get as far as the search for its backend."""
    with Control(server.url) as control, pytest.raises(ModelLoadError, match="unable to find backend library"):
        control.load(name)


def test_the_server_takes_a_compiled_sequence(server: Server) -> None:
    """With a python model in the place of the native one: what is written of sequences is what Triton schedules by."""
    made = config.parse((server.repository / "tracker" / "config.pbtxt").read_text())
    for field in ("platform", "default_model_filename", "optimization", "parameters"):
        made.ClearField(field)
    made.name, made.backend = "stateful", "python"
    put(server.repository, "stateful", config.written(made))
    load(server, ("stateful",))
    with Control(server.url) as control:
        assert control.config("stateful")["sequence_batching"]["direct"]["minimum_slot_utilization"] == 0.5
        with pytest.raises(RequestError, match="correlation ID"):
            control.infer("stateful", 1, {"x": np.zeros((1, 4), np.float32)})


def noise(store: Store, folder: Path) -> Artifact:
    """A model that never answers the same twice."""
    graph = helper.make_graph(
        [
            helper.make_node("RandomNormalLike", ["x"], ["noise"]),
            helper.make_node("Add", ["x", "noise"], ["y"]),
        ],
        "noise",
        [value("x", TensorProto.FLOAT, ["n", 2])],
        [value("y", TensorProto.FLOAT, ["n", 2])],
    )
    tensors = {
        side: (TensorSpec(name=name, dtype="float32", shape=("n", 2)),)
        for side, name in (("inputs", "x"), ("outputs", "y"))
    }
    return make(store, folder, "noise", graph, tensors)


def test_the_verb_places_what_it_proved_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path / "home" / "store")
    steady, moody = pictures(store, tmp_path / "pictures"), noise(store, tmp_path / "noise")
    (tmp_path / "a.toml").write_text('schema = 1\nname = "a"\nmax_batch_size = 8\n[warmup]\nbatch_sizes = [8]\n')

    def placing(artifact: Artifact, *more: str) -> tuple[int, str]:
        arguments = ["place", str(tmp_path / "a.toml"), "--artifact", artifact.digest]
        done = CliRunner().invoke(app, [*arguments, "--repository", str(tmp_path / "models"), *more])
        return done.exit_code, done.output

    code, said = placing(moody)
    assert (code, "answers differ" in " ".join(said.split())) == (1, True)
    assert placements(tmp_path / "models", "a") == ()
    code, said = placing(steady, "--backend", "native")
    assert (code, "cannot be proven here" in " ".join(said.split())) == (3, True)
    assert placements(tmp_path / "models", "a") == ()
    code, said = placing(steady, "--json")
    proof = json.loads(said)["proof"]
    assert (code, proof["passed"], proof["batch_sizes"]) == (0, True, [1, 4, 8])
    assert proof["inputs"].startswith("random, seed 0")
    assert [each.version for each in placements(tmp_path / "models", "a")] == [1]
    assert not list((tmp_path / "home" / "work").glob("proof-*"))
    (tmp_path / "e.toml").write_text(PIPELINE)
    done = CliRunner().invoke(app, ["place", str(tmp_path / "e.toml"), "--repository", str(tmp_path / "models")])
    assert done.exit_code == 0, done.output
    assert re.search(r"proven: \d+ golden requests at batch .* agree", done.output)
    code, said = placing(replace(moody), "--unproven")
    assert (code, "NOT proven" in said) == (2, False)  # another model's tensors under the same name
