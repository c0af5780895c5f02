"""What compile can be told, the plan that follows, and the builder's and session's calls held against real names."""

import itertools
import json
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.artifact import Artifact, File, TensorSpec, digest_file
from seatrial.optimize.environment import Environment, GpuSettings, environment
from seatrial.optimize.errors import ConfigError, ContractError, IntegrityError, MachineError, StageError
from seatrial.optimize.recipe.configs import CompileConfig, Shapes
from seatrial.optimize.recipe.targets import broken
from seatrial.optimize.sessions.on_tensorrt import EngineSession, within
from seatrial.optimize.sessions.on_tensorrt_builder import at_hand, carry_out
from seatrial.optimize.stages.compile import _requires
from seatrial.optimize.tensorrt.plan import ENGINE, LAYERS, MODEL, PLAN, TIMING, EnginePlan, plan_engine, trtexec
from tests.support.made_by import MADE_BY
from tests.support.recorder import VERSIONS, Recorder

pytestmark = pytest.mark.experimental("TensorRT")

SIGNAL = TensorSpec(name="signal", dtype="float32", shape=("batch", 1, 64))
TOKENS = TensorSpec(name="tokens", dtype="int64", shape=("batch", "length"))
FLAGS = ("version_compatible", "refit", "strip_plan", "weight_streaming", "sparse_weights", "tf32", "timing_cache")
LEVELS = ("none", "ampere+", "same-compute-capability")


def config(**more: Any) -> CompileConfig:
    return CompileConfig(kind="compile", **({"batch": (1, 8, 32)} | more))


def every_option() -> list[CompileConfig]:
    """Each combination of switches and compatibility levels that the configuration accepts."""
    made = []
    for values in itertools.product(LEVELS, *[(False, True)] * len(FLAGS)):
        options = dict(zip(("hardware_compatible", *FLAGS), values, strict=True))
        if not (options["strip_plan"] and options["weight_streaming"]):
            made.append(config(**options, workspace_mib=512 if options["refit"] else None))
    return made


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"batch": (8, 1, 32)}, "min <= opt <= max"),
        ({"batch": (0, 1, 2)}, "1 <= min"),
        ({"dynamic": {"length": (1, 9, 4)}}, "length"),
        ({"profiles": ({"signal": Shapes(min=(1,), opt=(1,), max=(1,))},)}, "already give every range"),
        ({"builder_level": 6}, "between 0 and 5"),
        ({"strip_plan": True, "weight_streaming": True}, "no weights to stream"),
    ],
)
def test_what_cannot_be_is_refused(told: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(**told)


def test_ranges_become_one_profile_and_fixed_inputs_none() -> None:
    plan = plan_engine(config(dynamic={"length": (1, 64, 128)}), [SIGNAL, TOKENS], "sha256:0")
    assert plan.profiles == (
        {
            "signal": Shapes(min=(1, 1, 64), opt=(8, 1, 64), max=(32, 1, 64)),
            "tokens": Shapes(min=(1, 1), opt=(8, 64), max=(32, 128)),
        },
    )
    assert plan_engine(config(), [replace(SIGNAL, shape=(4, 1, 64))], "").profiles == ()


@pytest.mark.parametrize(("told", "said"), [({}, "dynamic.length"), ({"batch": None}, "batch =")])
def test_a_dynamic_axis_without_a_range_is_named_with_the_key_to_write(told: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match="has no range") as caught:
        plan_engine(config(**told), [TOKENS], "")
    assert said in caught.value.next_step


@given(st.sampled_from(every_option()))
def test_a_plan_survives_its_document(told: CompileConfig) -> None:
    plan = plan_engine(told, [SIGNAL], "sha256:0")
    assert EnginePlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_plan_of_another_schema_or_shape_is_refused() -> None:
    document = plan_engine(config(), [SIGNAL], "sha256:0").to_json()
    for wrong in (document | {"schema": 2}, document | {"profiles": 3}, document | {"more": 1}):
        with pytest.raises(IntegrityError):
            EnginePlan.from_json(wrong)


def test_the_command_lines_say_the_same_and_hold_no_precision() -> None:
    told = config(workspace_mib=256, refit=True, sparse_weights=True, tf32=False, hardware_compatible="ampere+")
    plan = plan_engine(told, [SIGNAL], "")
    old, new = trtexec(plan, "10.16"), trtexec(plan, "11")
    assert [word for word in old if word not in new] == ["--stronglyTyped"]
    assert shlex.join(new) == (
        "trtexec --onnx=model.onnx --saveEngine=model.plan --skipInference --minShapes=signal:1x1x64 "
        "--optShapes=signal:8x1x64 --maxShapes=signal:32x1x64 --memPoolSize=workspace:256M "
        "--builderOptimizationLevel=3 --hardwareCompatibilityLevel=ampere+ --refit --sparsity=enable --noTF32 "
        "--timingCacheFile=timing.cache --profilingVerbosity=detailed --exportLayerInfo=layers.json"
    )


def test_several_profiles_are_numbered_on_the_command_line() -> None:
    single = {"signal": Shapes(min=(1, 1, 64), opt=(1, 1, 64), max=(1, 1, 64))}
    many = {"signal": Shapes(min=(2, 1, 64), opt=(32, 1, 64), max=(64, 1, 64))}
    line = trtexec(plan_engine(config(batch=None, profiles=(single, many)), [SIGNAL], ""), "11")
    assert [word for word in line if "rofile=" in word] == ["--profile=0", "--profile=1"]


def carried(tmp_path: Path, told: CompileConfig, trt: Recorder) -> EnginePlan:
    (tmp_path / MODEL).write_bytes(b"a graph")
    plan = plan_engine(told, [SIGNAL], digest_file(tmp_path / MODEL))
    done = carry_out(plan, tmp_path / MODEL, tmp_path, trt=trt)
    assert done.version == trt.version
    assert all((tmp_path / name).is_file() for name in done.files)
    (tmp_path / PLAN).write_text(json.dumps(plan.to_json()))
    return plan


@pytest.mark.parametrize("version", VERSIONS)
def test_every_option_uses_only_names_that_the_version_has(version: str, tmp_path: Path) -> None:
    options = every_option()
    assert len(options) == 288
    model = tmp_path / MODEL
    model.write_bytes(b"a graph")
    digest = digest_file(model)
    for told in options:
        trt = Recorder(version)
        plan = plan_engine(told, [SIGNAL], digest)
        carry_out(plan, model, tmp_path, trt=trt)
        flags = {member.name for (member,) in trt.made("IBuilderConfig.set_flag")}
        assert flags == {f"BuilderFlag.{name}" for name in plan.set}
        assert trt.made("Builder.create_network") == [(2,)]  # STRONGLY_TYPED is given where the version has it
        assert len(trt.made("IOptimizationProfile.set_shape")) == 1
        assert bool(trt.made("IBuilderConfig.set_memory_pool_limit")) == (told.workspace_mib is not None)
        assert bool(trt.made("IBuilderConfig.get_timing_cache")) == told.timing_cache
        assert trt.made("Runtime.engine_host_code_allowed") == [(told.version_compatible,)]


def test_the_stand_in_refuses_what_a_version_does_not_have() -> None:
    assert VERSIONS == ("10.16.1.11", "11.4.0.106")
    old, new = (Recorder(version) for version in VERSIONS)
    assert hasattr(old.BuilderFlag, "FP16")
    assert not hasattr(new.BuilderFlag, "FP16")
    with pytest.raises(AttributeError):
        new.Builder(new.Logger()).platform_has_fast_fp16  # noqa: B018
    with pytest.raises(TypeError):
        new.Builder()
    with pytest.raises(AttributeError):
        new.Runtime(new.Logger()).num_DLA_cores = 1


def test_the_timing_cache_of_an_earlier_build_is_started_from(tmp_path: Path) -> None:
    carried(tmp_path, config(), first := Recorder(VERSIONS[0]))
    carried(tmp_path, config(), again := Recorder(VERSIONS[0]))
    assert first.made("IBuilderConfig.create_timing_cache") == [(b"",)]
    assert again.made("IBuilderConfig.create_timing_cache") == [((tmp_path / TIMING).read_bytes(),)]
    assert json.loads((tmp_path / LAYERS).read_text()) == {"Layers": []}


def test_a_plan_is_for_one_file_and_refusals_are_told(tmp_path: Path) -> None:
    (tmp_path / MODEL).write_bytes(b"a graph")
    plan = plan_engine(config(), [SIGNAL], "sha256:other")
    with pytest.raises(IntegrityError, match="the plan is for"):
        carry_out(plan, tmp_path / MODEL, tmp_path, trt=Recorder(VERSIONS[1]))
    right = replace(plan, model=digest_file(tmp_path / MODEL))
    with pytest.raises(MachineError, match="no builder flag FP16"):
        carry_out(replace(right, set=("FP16",)), tmp_path / MODEL, tmp_path, trt=Recorder(VERSIONS[1]))
    answers: dict[str, Any] = {"OnnxParser.parse_from_file": False, "OnnxParser.num_errors": 1}
    answers |= {"ParserError.node_name": "first", "ParserError.desc": "no such operator"}
    with pytest.raises(StageError, match="refused the graph: first: no such operator"):
        carried(tmp_path, config(), Recorder(VERSIONS[1], answers))
    with pytest.raises(StageError, match="made no engine"):
        carried(tmp_path, config(), Recorder(VERSIONS[1], {"Builder.build_serialized_network": None}))
    with pytest.raises(ContractError, match="another version or GPU"):
        carried(tmp_path, config(), Recorder(VERSIONS[1], {"Runtime.deserialize_cuda_engine": None}))


@pytest.mark.skipif(at_hand(), reason="TensorRT is installed here")
def test_without_tensorrt_carrying_out_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / MODEL).write_bytes(b"a graph")
    plan = plan_engine(config(), [SIGNAL], digest_file(tmp_path / MODEL))
    with pytest.raises(MachineError, match="cannot be loaded"):
        carry_out(plan, tmp_path / MODEL, tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("told", [config(), config(strip_plan=True), config(weight_streaming=True)])
def test_a_session_asks_for_names_that_the_version_has_and_picks_the_profile(
    version: str, told: CompileConfig, tmp_path: Path
) -> None:
    ranges = [((1, 1, 64), (1, 1, 64), (1, 1, 64)), ((2, 1, 64), (8, 1, 64), (32, 1, 64))]
    trt = Recorder(
        version,
        {
            "ICudaEngine.num_optimization_profiles": 2,
            "ICudaEngine.get_tensor_profile_shape": lambda name, number: ranges[number],
            "IExecutionContext.get_tensor_shape": (8, 4),
        },
    )
    carried(tmp_path, told, trt)
    logits = TensorSpec(name="logits", dtype="float32", shape=("batch", 4))
    session = EngineSession(lambda name: tmp_path / name, (SIGNAL,), (logits,), device="cpu", trt=trt)
    answer = session.run({"signal": np.zeros((8, 1, 64), np.float32)})
    assert answer["logits"].shape == (8, 4)
    assert trt.made("IExecutionContext.set_input_shape") == [("signal", (8, 1, 64))]
    assert trt.made("IExecutionContext.set_optimization_profile_async") == [(1, 0)]
    assert trt.made("IExecutionContext.execute_async_v3") == [(0,)]
    assert bool(trt.made("OnnxParserRefitter.refit_from_file")) == told.strip_plan
    assert bool(trt.made("ICudaEngine.weight_streaming_budget_v2")) == told.weight_streaming
    with pytest.raises(StageError, match="no optimization profile covers"):
        session.run({"signal": np.zeros((64, 1, 64), np.float32)})
    assert (tmp_path / ENGINE).is_file()


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)), max_size=4))
def test_a_shape_is_within_exactly_where_every_axis_is(axes: list[tuple[int, int, int]]) -> None:
    low, shape, high = (tuple(axis[part] for axis in axes) for part in range(3))
    assert within(shape, low, high) == all(a <= b <= c for a, b, c in axes)
    assert not within((*shape, 1), low, high)


def test_an_engine_demands_the_version_and_the_gpu_that_built_it() -> None:
    here = replace(environment(), libraries={"tensorrt-cu13": "11.4.0.106"}, gpus=("GPU-1, NVIDIA L4, 580",))
    assert not broken({"tensorrt": "==11.4.0.106", "gpu_any": ["NVIDIA L4"]}, here)
    assert not broken({"tensorrt": ">=10.16,<12"}, here)
    assert "needs TensorRT ==10.16" in broken({"tensorrt": "==10.16.1.11"}, here)
    assert "built for NVIDIA A10" in broken({"tensorrt": ">=10", "gpu_any": ["NVIDIA A10"]}, here)
    assert "has none" in broken({"tensorrt": ">=10"}, replace(here, libraries={}))


def machine(name: str, capability: str) -> Environment:
    settings = GpuSettings(uuid="GPU-1", name=name, compute_capability=capability)
    return replace(
        environment(),
        libraries={"tensorrt-cu12": "10.16.1.11"},
        gpus=(f"GPU-1, {name}, 580",),
        gpu_settings=(settings,) if capability else (),
    )


@pytest.mark.parametrize(
    ("requires", "here", "said"),
    [
        ({"gpu_any": ["NVIDIA A10"]}, machine("NVIDIA A10", "8.6"), ""),
        (
            {"gpu_any": ["NVIDIA A10"]},
            machine("NVIDIA A100", "8.0"),
            "built for NVIDIA A10, this machine has NVIDIA A100",
        ),
        (
            {"gpu_any": ["NVIDIA A10"]},
            machine("NVIDIA A10G", "8.6"),
            "built for NVIDIA A10, this machine has NVIDIA A10G",
        ),
        ({"gpu_any": ["NVIDIA A10"], "compute_capability_any": ["8.6"]}, machine("NVIDIA A10", ""), ""),
        (
            {"gpu_any": ["NVIDIA A10"], "compute_capability_any": ["8.6"]},
            machine("NVIDIA A10", "8.9"),
            "capability 8.6",
        ),
        ({"compute_capability_any": ["8.6"]}, machine("NVIDIA A40", "8.6"), ""),
        ({"compute_capability_any": ["8.6"]}, machine("NVIDIA A40", ""), "unknown"),
        ({"compute_capability_least": "8.0"}, machine("NVIDIA B200", "10.0"), ""),
        ({"compute_capability_least": "8.0"}, machine("NVIDIA T4", "7.5"), "8.0 or higher"),
        ({"compute_capability_least": "8.0"}, replace(machine("", ""), gpus=()), "no GPU"),
    ],
)
def test_an_engine_is_for_one_gpu_by_its_whole_name_and_compute_capability(
    requires: dict[str, Any], here: Environment, said: str
) -> None:
    found = broken({"tensorrt": "==10.16.1.11", **requires}, here)
    assert said in found
    assert bool(found) == bool(said)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("none", {"gpu_any": ["NVIDIA L4"], "compute_capability_any": ["8.9"]}),
        ("same-compute-capability", {"compute_capability_any": ["8.9"]}),
        ("ampere+", {"compute_capability_least": "8.0"}),
    ],
)
def test_an_engine_names_the_gpus_that_its_compatibility_level_allows(level: Any, expected: dict[str, Any]) -> None:
    plan = plan_engine(config(hardware_compatible=level), [SIGNAL], "")
    found = _requires(plan, "11.4.0.106", SimpleNamespace(environment=machine("NVIDIA L4", "8.9")))  # type: ignore[arg-type]
    assert found == {"tensorrt": "==11.4.0.106", **expected}


def test_an_artifact_without_an_engine_file_is_planned() -> None:
    def of(kind: Any, *names: str) -> Artifact:
        files = tuple(File(path=name, digest="sha256:0", size=1) for name in names)
        return Artifact(name="n", format=kind, files=files, inputs=(), outputs=(), requires={}, made_by=MADE_BY)

    assert of("tensorrt", MODEL, PLAN).planned
    assert not of("tensorrt", MODEL, PLAN, ENGINE).planned
    assert not of("onnx", MODEL).planned


def test_the_levels_tested_are_all_there_are() -> None:
    hints = CompileConfig.__dataclass_fields__["hardware_compatible"].type
    assert set(get_args(hints)) == set(LEVELS)
