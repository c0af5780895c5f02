"""Which engine serves an arm of a gate: the option, the budget, the deployment, the recipe, in that order."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from seatrial.bench.budget import Budget, load_budget
from seatrial.bench.verbs import gate as gating
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.recipe.text import to_toml
from seatrial.optimize.store import Store
from seatrial.serve.cli import app
from seatrial.serve.deployment import Deployment, OnnxCpu, OpenVino, Torch
from seatrial.serve.errors import ConfigRuleError
from seatrial.serve.triton import engines
from seatrial.serve.triton.running.host import host
from seatrial.serve.verbs import hosting as hosting_room
from tests.support.kinds import SCENES
from tests.support.linear import linear
from tests.support.linear_recipe import linear_recipe

BUDGET = '[design]\nrate = 100.0\nseconds = 10.0\n[[limits]]\nmetric = "p50"\nmax_regression = 0.05\n'
BF16 = OpenVino(kind="openvino", precision="bf16")
PLAIN = Deployment(schema=1, name="m", max_batch_size=8)


@pytest.mark.parametrize(
    ("name", "served"),
    [
        ("openvino", OpenVino(kind="openvino")),
        ("openvino-bf16", BF16),
        ("onnxruntime-cpu", OnnxCpu(kind="onnx-cpu")),
        ("onnxruntime", OnnxCpu(kind="onnx-cpu")),
        ("torch-export", None),  # it does not open ONNX files: the artifact stays as it is deployed
    ],
)
def test_an_engine_by_the_name_of_recipes_is_a_servers(name: str, served: Any) -> None:
    assert engines.deployed_in(PLAIN, SCENES, name).engine == served
    assert engines.deployed_in(PLAIN, SCENES, name).instances == PLAIN.instances


def test_cuda_wants_instances_on_the_gpu_and_other_engines_have_no_server() -> None:
    made = engines.deployed_in(PLAIN, SCENES, "onnxruntime-cuda")
    assert (made.instances.kind, getattr(made.engine, "kind", "")) == ("gpu", "onnx-cuda")
    with pytest.raises(ConfigError, match="no server runs engine 'torch-compile'") as caught:
        engines.deployed_in(PLAIN, SCENES, "torch-compile")
    assert "openvino-bf16" in caught.value.next_step
    native = Deployment(schema=1, name="m", max_batch_size=8, backend="native")
    with pytest.raises(ConfigRuleError, match='backend = "native" has no engine openvino'):
        engines.deployed_in(native, SCENES, "openvino")


@pytest.mark.parametrize(
    ("deployment", "name", "found"),
    [
        (None, "openvino", "openvino"),
        (PLAIN, "openvino-bf16", "openvino-bf16"),
        (PLAIN, "torch-compile", ""),
        (PLAIN, "", ""),
        (Deployment(schema=1, name="m", max_batch_size=8, engine=Torch(kind="torch")), "openvino", ""),
        (Deployment(schema=1, name="m", max_batch_size=8, backend="native"), "openvino", ""),
    ],
)
def test_a_recipes_engine_serves_where_the_deployment_leaves_it_open(
    deployment: Deployment | None, name: str, found: str
) -> None:
    assert engines.of_recipe(name, deployment) == found


def test_a_host_refuses_an_engine_without_a_server_before_it_is_asked_for_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no server runs engine"):
        host(Store(tmp_path / "store"), None, scratch=tmp_path, engine="tensorrt")


@pytest.mark.parametrize(
    ("words", "budget", "recipe", "candidate", "base"),
    [
        ((), "", "", "", ""),
        ((), "", "onnxruntime-cpu", "onnxruntime-cpu", ""),
        ((), 'engine = "onnxruntime"\n', "onnxruntime-cpu", "onnxruntime", ""),
        ((), 'base_engine = "onnxruntime"\n', "", "", "onnxruntime"),
        (("--engine", "onnxruntime-cpu"), 'engine = "onnxruntime"\n', "", "onnxruntime-cpu", ""),
        (("--base-engine", "onnxruntime-cpu"), 'base_engine = "onnxruntime"\n', "", "", "onnxruntime-cpu"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_gate_takes_the_option_then_the_budget_then_the_recipe(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    budget: str,
    recipe: str,
    candidate: str,
    base: str,
) -> None:
    asked: list[str] = []

    def hosted(store: Store, deployment: object, *, scratch: Path, slow: float, engine: str) -> str:
        asked.append(engine)
        return f"host {len(asked)}"

    kept: list[Any] = []

    def ran(*given: Any) -> None:
        kept.extend(given)
        raise ConfigError("enough")

    monkeypatch.setattr(hosting_room, "host", hosted)
    monkeypatch.setattr(gating, "_run", ran)
    path = linear_recipe(tmp_path / "recipe")
    if recipe:
        path.write_text(path.read_text().replace("schema = 1\n", f'schema = 1\nengine = "{recipe}"\n'))
    (tmp_path / "budget.toml").write_text(budget + BUDGET)
    model = str(linear(tmp_path / "model.onnx"))
    told = ["gate", model, model, "--budget", str(tmp_path / "budget.toml"), "--recipe", str(path), *words]
    done = CliRunner().invoke(app, told)
    assert "enough" in done.output, done.output
    assert asked == [base, candidate]
    assert kept[4] == ("host 2", "host 1", 32)
    assert isinstance(kept[2], Budget)
    assert (kept[2].engine, kept[2].base_engine) == (candidate if words or budget else "", base)


def test_a_budget_without_engines_has_the_digest_that_it_had(tmp_path: Path) -> None:
    (tmp_path / "budget.toml").write_text(BUDGET)
    assert not {"engine", "base_engine"} & set(load_budget(tmp_path / "budget.toml").to_json())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ship_hands_the_engine_to_build_and_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def shipped(recipe: Any, budget: Any, deployment: Any, **more: Any) -> None:
        seen.extend((recipe, budget))
        raise ConfigError("enough")

    monkeypatch.setattr("seatrial.serve.ship.ship", shipped)
    path = linear_recipe(tmp_path / "recipe")
    (tmp_path / "budget.toml").write_text(BUDGET)
    (tmp_path / "deployment.toml").write_text('schema = 1\nname = "linear"\nmax_batch_size = 8\n')
    files = ("--budget", str(tmp_path / "budget.toml"), "--deployment", str(tmp_path / "deployment.toml"))
    CliRunner().invoke(app, ["ship", str(path), *files, "--engine", "openvino"])
    recipe, budget = seen
    assert (recipe.engine, budget.engine) == ("openvino", "openvino")
    assert recipe.digest == load_recipe(path).measured_in("openvino").digest


def test_place_and_tune_serve_in_the_engine_of_the_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(linear_recipe(tmp_path / "made")).measured_in("openvino")
    store = Store(tmp_path / "store")
    assert engines.deployed_as_built(PLAIN, SCENES, store) == PLAIN  # its recipe is not in the store
    assert engines.deployed_as_built(PLAIN, SCENES, store, recipe).engine == OpenVino(kind="openvino")
    own = replace(PLAIN, engine=OnnxCpu(kind="onnx-cpu"))
    assert engines.deployed_as_built(own, SCENES, store, recipe) == own
    native = Deployment(schema=1, name="m", max_batch_size=8, backend="native")
    assert engines.deployed_as_built(native, SCENES, store, recipe) == native


def test_the_recipe_that_made_an_artifact_names_its_engine(tmp_path: Path) -> None:
    recipe = load_recipe(linear_recipe(tmp_path / "made")).measured_in("openvino-bf16")
    store = Store(tmp_path / "store")
    store.remember("recipes", recipe.digest, {"text": to_toml(recipe), "path": str(recipe.path)})
    made = replace(SCENES, made_by=replace(SCENES.made_by, recipe=recipe.digest))
    assert engines.deployed_as_built(PLAIN, made, store).engine == BF16


@pytest.mark.parametrize("verb", ["aa", "drill"])
@pytest.mark.parametrize(("option", "wanted"), [((), "openvino-bf16"), (("--engine", "openvino"), "openvino")])
def test_aa_and_drill_serve_in_the_engine_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, option: tuple[str, ...], wanted: str
) -> None:
    asked: list[tuple[str, str]] = []

    def hosting(deployment: Any, scratch: Path, slow: float, engine: str = "", otherwise: str = "") -> Any:
        asked.append((engine, otherwise))
        raise ConfigError("far enough", next_step="none")

    (tmp_path / "budget.toml").write_text(f'engine = "openvino-bf16"\n{BUDGET}')
    monkeypatch.setattr("seatrial.bench.verbs.trials.check_engines", lambda recipe: None)
    monkeypatch.setattr(hosting_room, "hosting", hosting)
    words = [verb, str(linear(tmp_path / "m.onnx")), "--budget", str(tmp_path / "budget.toml")]
    words += [
        "--recipe",
        str(linear_recipe(tmp_path / "made")),
        *option,
        *(("--slow", "0.1") if verb == "drill" else ()),
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2, done.output
    assert asked == [(wanted, "")]
