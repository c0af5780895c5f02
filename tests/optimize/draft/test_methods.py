"""Drafted stages and candidates: what suits the operators, and what this machine can run."""

from pathlib import Path

import pytest

from seatrial.optimize.draft import draft as drafting
from seatrial.optimize.draft import engines
from seatrial.optimize.draft.methods import PARITY, Family, Source, candidates, family, stages
from seatrial.optimize.errors import ContractError
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.sessions.engine import Engine
from tests.support.linear import linear

OPENVINO = ("openvino", "openvino-bf16")
CNN = {"Conv": 20, "Gemm": 1}
BERT = {"MatMul": 28, "Attention": 4}
LSTM = {"LSTM": 1, "MatMul": 1}


@pytest.mark.parametrize(
    ("operators", "method"),
    [
        (CNN, "static"),
        (BERT, "dynamic"),
        (LSTM, "dynamic"),
        ({"Conv": 7, "LSTM": 2}, "static"),
        ({"Gemm": 3}, "static"),
    ],
)
def test_the_first_method_suits_the_operators(operators: dict[str, int], method: str) -> None:
    (stage,) = stages(family(operators), "onnx", operators)
    assert stage.get("method", "static") == method
    assert stage["parity"] == PARITY


@pytest.mark.parametrize(
    ("kind", "operators", "found", "names"),
    [
        ("cnn", CNN, (), ["int8-static", "int8-dynamic"]),
        ("transformer", BERT, (), ["int8-static", "int8-dynamic", "int8-weights"]),
        ("mlp", {"LSTM": 1}, (), ["int8-dynamic"]),
        ("mlp", {"Softmax": 1}, (), []),
        ("mlp", {"Softmax": 1}, OPENVINO, ["float-openvino", "float-openvino-bf16"]),
        (
            "cnn",
            CNN,
            OPENVINO,
            [
                *("int8-static", "int8-dynamic", "float-openvino", "int8-static-openvino"),
                *("float-openvino-bf16", "int8-static-openvino-bf16"),
            ],
        ),
        (
            "transformer",
            BERT,
            ("openvino", "onnxruntime-cuda", "onnxruntime-tensorrt"),
            [
                *("int8-static", "int8-dynamic", "int8-weights"),
                *("float-openvino", "int8-static-openvino", "int8-weights-openvino"),
                *("float-onnxruntime-cuda", "fp16-onnxruntime-cuda"),
                *("float-onnxruntime-tensorrt", "fp16-onnxruntime-tensorrt", "int8-static-onnxruntime-tensorrt"),
            ],
        ),
    ],
)
def test_candidates_are_the_methods_and_engines_that_can_run(
    kind: Family, operators: dict[str, int], found: tuple[str, ...], names: list[str]
) -> None:
    made = candidates(kind, "onnx", operators, found)
    assert [each.name for each in made] == names
    assert all(each.engine in ("", *found) for each in made)
    assert all(each.why for each in made)


@pytest.mark.parametrize("source", ["factory", "onnx"])
def test_a_module_is_exported_first_and_may_stay_in_torch(source: Source) -> None:
    made = candidates("cnn", source, CNN, ())
    exported = [each for each in made if each.stages[0]["kind"] == "export"]
    assert [each.name for each in exported] == (["int8-static", "int8-dynamic"] if source == "factory" else [])
    assert [each.name for each in made if each not in exported][-1:] == (
        ["torch"] if source == "factory" else ["int8-dynamic"]
    )


class Here(Engine):
    name = "openvino"
    formats = ("onnx",)


class Rounding(Engine):
    name = "openvino-bf16"
    formats = ("onnx",)
    rounds = True


class Absent(Here):
    name = "onnxruntime-cuda"

    def available(self) -> str | None:
        return "no NVIDIA driver"


class Known:
    """A registry of the engines above, of another format's, and of a package's that cannot be loaded."""

    names = ("onnxruntime-cpu", "openvino", "openvino-bf16", "onnxruntime-cuda", "torch", "broken")

    def get(self, name: str) -> Engine:
        from seatrial.optimize.sessions.on_ort import OrtCpu
        from seatrial.optimize.sessions.on_torch import Torch

        if name == "broken":
            raise ContractError("broken")
        made = {each.name: each for each in (Here, Rounding, Absent)} | {"onnxruntime-cpu": OrtCpu, "torch": Torch}
        return made[name]()


@pytest.mark.parametrize(
    ("flags", "names"),
    [("avx2 avx512_bf16", OPENVINO), ("avx2 amx_tile amx_bf16", OPENVINO), ("avx2 amx_int8", ("openvino",))],
)
def test_engines_are_those_that_open_here_and_bfloat16_wants_its_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, names: tuple[str, ...]
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
    monkeypatch.setattr(engines, "_CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(engines, "ENGINES", Known())
    assert engines.others() == names


def test_a_machine_that_does_not_describe_its_processor_has_no_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_CPU_INFO", tmp_path / "gone")
    monkeypatch.setattr(engines, "ENGINES", Known())
    assert engines.others() == ("openvino",)


def test_the_drafted_recipe_lists_the_candidates_and_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafting, "others", lambda: OPENVINO)
    path, _, _ = drafting.draft(str(linear(tmp_path / "net.onnx")), tmp_path / "mine")
    recipe = load_recipe(path)
    assert recipe.search is not None
    assert (recipe.search.snr, recipe.search.batch, recipe.search.objectives) == (18.0, 8, ("snr", "latency"))
    drafted = candidates("mlp", "onnx", {"MatMul": 1}, OPENVINO)
    assert [each.name for each in recipe.search.candidates] == [each.name for each in drafted]
    assert [each.engine for each in recipe.search.candidates] == [each.engine for each in drafted]
    assert recipe.on_no_gain == "drop"
    for each in drafted:
        assert f'# {each.why}\n[[search.candidates]]\nname = "{each.name}"' in path.read_text()


def test_a_model_with_nothing_to_try_gets_no_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafting, "others", lambda: ())
    monkeypatch.setattr(drafting, "candidates", lambda *given: ())
    path, _, _ = drafting.draft(str(linear(tmp_path / "net.onnx")), tmp_path / "mine")
    assert load_recipe(path).search is None
