"""An engine that this machine lacks is an error with the missing part in every verb that takes one, and no figure."""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from seatrial.optimize.environment import environment, home
from seatrial.optimize.record import as_json
from seatrial.optimize.sessions.engine import RanOn
from seatrial.serve.cli import app
from tests.support.built import TINY
from tests.support.linear import linear
from tests.support.linear_recipe import linear_recipe

LACKING = {
    "onnxruntime-cuda": ("libcudnn.so.9", "no NVIDIA driver", "seatrial[cuda]"),
    "onnxruntime-tensorrt": ("libnvinfer.so.10", "no NVIDIA driver", "seatrial[cuda,tensorrt-provider]"),
    "openvino": ("OpenVINO is not installed", "seatrial[openvino]"),
    "openvino-bf16": ("OpenVINO is not installed", "seatrial[openvino]"),
}
BUDGET = '[design]\nrate = 100.0\nseconds = 10.0\n[[limits]]\nmetric = "p50"\nmax_regression = 0.05\n'
QUANTIZE = '[[stages]]\nkind = "quantize"\n'
SEARCH = QUANTIZE + '[search.stages.quantize.ranges]\nchoices = ["minmax", "mse"]\n'
LISTED = QUANTIZE + "[[search.candidates]]\nname = 'a'\n[[search.candidates.stages]]\nkind = 'quantize'\n"
FIGURES = ("figures", "pace", "coverage", "memory", "searches", "steps")
Case = Callable[[Path, str], list[str]]


def recipe(folder: Path, stages: str = "", key: str = "") -> str:
    """Write the linear recipe, with these stages and this engine under its own key; return its path."""
    path = linear_recipe(folder / "recipe", stages)
    if key:
        path.write_text(path.read_text().replace("schema = 1\n", f'schema = 1\nengine = "{key}"\n'))
    return str(path)


def onnx(folder: Path) -> str:
    return str(linear(folder / "model.onnx"))


def budget(folder: Path, engine: str = "") -> str:
    (folder / "budget.toml").write_text((f'engine = "{engine}"\n' if engine else "") + BUDGET)
    return str(folder / "budget.toml")


def deployment(folder: Path) -> str:
    (folder / "deployment.toml").write_text('schema = 1\nname = "linear"\nmax_batch_size = 8\n')
    return str(folder / "deployment.toml")


def pruning(folder: Path, engine: str) -> str:
    """Write the tiny recipe, whose prune stage times in that engine."""
    shutil.copy(TINY.parent / "tiny.py", folder)
    timed = f'target_latency_ratio = 0.6\nengine = "{engine}"'
    (folder / "tiny.toml").write_text(TINY.read_text().replace("ratio = 0.4", timed))
    return str(folder / "tiny.toml")


CASES: dict[str, Case] = {
    "measure": lambda at, engine: ["measure", onnx(at), "--engine", engine, "--seconds", "0.1"],
    "measure by recipe": lambda at, engine: ["measure", onnx(at), "--recipe", recipe(at, key=engine)],
    "build": lambda at, engine: ["build", recipe(at), "--engine", engine],
    "build by recipe": lambda at, engine: ["build", recipe(at, key=engine)],
    "build mixed": lambda at, engine: [
        "build",
        recipe(at, f'[[stages]]\nkind = "mixed"\nmax_quality_drop = 0.1\nengine = "{engine}"\n'),
    ],
    "build prune": lambda at, engine: ["build", pruning(at, engine)],
    "parity": lambda at, engine: ["parity", onnx(at), onnx(at), "--recipe", recipe(at), "--engine", engine],
    "coverage": lambda at, engine: ["coverage", onnx(at), "--engine", engine],
    "quality": lambda at, engine: ["quality", onnx(at), "--recipe", recipe(at), "--engine", engine],
    "quality by recipe": lambda at, engine: ["quality", onnx(at), "--recipe", recipe(at, key=engine)],
    "search": lambda at, engine: ["search", recipe(at, SEARCH), "--trials", "1", "--engine", engine],
    "gate": lambda at, engine: [
        *("gate", onnx(at), onnx(at), "--budget", budget(at)),
        *("--recipe", recipe(at, key=engine)),
    ],
    "gate by option": lambda at, engine: [
        *("gate", onnx(at), onnx(at), "--budget", budget(at), "--recipe", recipe(at), "--engine", engine),
    ],
    "gate by budget": lambda at, engine: [
        *("gate", onnx(at), onnx(at), "--budget", budget(at, engine), "--recipe", recipe(at)),
    ],
    "ship": lambda at, engine: [
        *("ship", recipe(at), "--budget", budget(at), "--deployment", deployment(at), "--engine", engine),
    ],
    "ship by recipe": lambda at, engine: [
        *("ship", recipe(at, key=engine), "--budget", budget(at), "--deployment", deployment(at)),
    ],
    "search of candidates": lambda at, engine: ["search", recipe(at, LISTED), "--engine", engine],
}


def asked(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def no_figure(done: Result) -> bool:
    """Return True if nothing was printed but an error, and nothing was kept of a measurement."""
    runs = [path for path in (home() / "runs").rglob("*") if path.is_file()] if (home() / "runs").exists() else []
    kept = [name for name in FIGURES for _ in (home() / "cache" / name).rglob("*.json")]
    said = json.loads(done.stdout) if done.stdout.strip() else {}
    return not runs and not kept and set(said) <= {"error", "schema"}


@pytest.mark.parametrize("verb", CASES)
@pytest.mark.parametrize("engine", LACKING)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_engine_that_is_missing_here_is_an_error_and_no_figure(tmp_path: Path, engine: str, verb: str) -> None:
    if engine.startswith("openvino") and find_spec("openvino") is not None:
        pytest.skip("OpenVINO is installed")
    if engine.startswith("onnxruntime") and environment().gpus:
        pytest.skip("this machine has an NVIDIA GPU")
    done = asked(*CASES[verb](tmp_path, engine), "--json")
    assert done.exit_code == 4, done.output
    said = " ".join(done.output.split())
    for part in LACKING[engine]:
        assert part in said or (part.startswith(("libc", "seatrial[cuda]")) and torch.version.cuda)  # which brings them
    assert "Traceback" not in said
    assert no_figure(done)


@pytest.mark.parametrize("verb", ["measure", "build", "parity", "coverage", "quality", "search"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--engine", "onnxruntim"), "did you mean 'onnxruntime'?"),
        (("--engine", "torch"), "torch"),
        (("--device", "gpu"), "unknown device 'gpu'"),
        (("--device", "cuda"), "engine onnxruntime-cpu runs on cpu, not on cuda:0"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_engine_or_device_that_cannot_be_meant_is_refused(
    tmp_path: Path, verb: str, options: tuple[str, str], said: str
) -> None:
    words = [word for word in CASES[verb](tmp_path, "ENGINE") if word not in ("--engine", "ENGINE")]
    done = asked(*words, *options)
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())
    assert no_figure(asked(*words, *options, "--json"))


@pytest.mark.parametrize("verb", ["measure", "quality"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_engine_is_not_asked_of_a_server(tmp_path: Path, verb: str) -> None:
    more = ("--recipe", recipe(tmp_path)) if verb == "quality" else ()
    done = asked(verb, "http://127.0.0.1:9/v2/models/m", *more, "--engine", "openvino", "--json")
    assert done.exit_code == 2, done.output
    assert "a served model, which runs in its server's" in done.output
    assert no_figure(done)


@pytest.mark.skipif(bool(environment().gpus), reason="this machine has an NVIDIA GPU")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_gate_for_a_gpu_is_refused_before_a_server_starts(tmp_path: Path) -> None:
    deployment = tmp_path / "deployment.toml"
    deployment.write_text(
        'schema = 1\nname = "linear"\nbackend = "native"\ntriton = "2.51"\nmax_batch_size = 8\n'
        '[instances]\ncount = 1\nkind = "gpu"\ngpus = [0]\n[engine]\nkind = "onnx-cuda"\n'
    )
    words = ("gate", onnx(tmp_path), onnx(tmp_path), "--budget", budget(tmp_path), "--recipe", recipe(tmp_path))
    done = asked(*words, "--deployment", str(deployment), "--json")
    assert done.exit_code == 4, done.output
    assert "no NVIDIA driver" in done.output
    assert no_figure(done)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
def test_figures_say_the_engine_the_provider_and_the_device_that_they_were_taken_on(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    here = RanOn(engine="onnxruntime-cpu", provider="CPUExecutionProvider", device="cpu")
    built = json.loads(asked("build", path, "--json").stdout)
    assert [step["ran_on"] for step in built["steps"]] == [as_json(here)] * len(built["steps"])
    compared = json.loads(asked("parity", onnx(tmp_path), onnx(tmp_path), "--recipe", path, "--json").stdout)
    assert compared["ran_on"] == {"reference": as_json(here), "candidate": as_json(here)}
    counted = json.loads(asked("coverage", onnx(tmp_path), "--json").stdout)
    assert (counted["engine"], counted["device"]) == ("ONNX Runtime's CPUExecutionProvider", "cpu")
    looked = json.loads(asked("quality", onnx(tmp_path), "--recipe", path, "--json").stdout)
    assert looked["candidate run in"] == str(here) == "onnxruntime-cpu (CPUExecutionProvider) on cpu"
    measured = json.loads(asked("measure", onnx(tmp_path), "--seconds", "0.05", "--json").stdout)
    assert {"provider": "CPUExecutionProvider", "device": "cpu"}.items() <= measured["about"]["engine"].items()
    assert measured["about"]["engine"]["name"] == "onnxruntime-cpu"
