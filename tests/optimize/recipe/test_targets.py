from dataclasses import replace

import pytest

from seatrial.optimize.environment import environment
from seatrial.optimize.errors import ConfigError, ContractError
from seatrial.optimize.recipe.targets import TARGETS, broken, check, resolve

VNNI = replace(environment(), architecture="x86_64", cpu_flags=("avx512_vnni", "avx512f", "avx2"))
OLD = replace(VNNI, cpu_flags=("avx2",))
ARM = replace(VNNI, architecture="aarch64", cpu_flags=("asimddp",))


@pytest.mark.parametrize(("machine", "target"), [(VNNI, "x86-vnni"), (OLD, "x86"), (ARM, "arm64")])
def test_auto_takes_the_best_contract_that_the_machine_keeps(machine: object, target: str) -> None:
    assert resolve("auto", machine) == target  # type: ignore[arg-type]


def test_without_vnni_the_weights_keep_seven_bits() -> None:
    assert TARGETS["x86"].reduce_range
    assert not TARGETS["x86-vnni"].reduce_range


def test_a_machine_that_breaks_the_contract_is_refused_with_the_reason() -> None:
    requires = TARGETS["x86-vnni"].requires()
    check(requires, VNNI, "net")
    with pytest.raises(ContractError, match="avx512_vnni"):
        check(requires, OLD, "net")
    assert "aarch64" in broken(requires, ARM)


def test_unknown_targets_and_processors() -> None:
    with pytest.raises(ConfigError, match="x86-vnni"):
        resolve("gpu", VNNI)
    with pytest.raises(ConfigError, match="no int8 target"):
        resolve("auto", replace(VNNI, cpu_flags=()))


@pytest.mark.parametrize("target", ["cuda", "tensorrt"])
def test_gpu_targets_name_their_need_and_are_never_picked_by_themselves(target: str) -> None:
    requires = TARGETS[target].requires()
    without, with_one = replace(VNNI, gpus=()), replace(VNNI, gpus=("GPU-0, H100, 580",))
    assert "NVIDIA GPU" in broken(requires, without)
    assert not broken(requires, with_one)
    assert resolve("auto", with_one) == "x86-vnni"


def test_tensorrt_gets_symmetric_integers_and_no_quantized_bias() -> None:
    contract = TARGETS["tensorrt"]
    assert contract.activation_symmetric
    assert contract.activations == "int8"
    assert not contract.quantize_bias
    assert not contract.also_allowed


@pytest.mark.parametrize("target", ["x86-vnni", "x86"])
def test_on_x86_products_keep_float_outputs(target: str) -> None:
    assert TARGETS[target].activations == "uint8"
    assert {"MatMul", "Gemm"} <= set(TARGETS[target].float_outputs)


@pytest.mark.parametrize("engine", ["", "onnxruntime", "onnxruntime-cpu", "torch"])
def test_bfloat16_opens_nowhere_without_kernels_and_the_reason_names_engines(engine: str) -> None:
    requires = {"kernels": "bfloat16"}
    with pytest.raises(ContractError, match="its bfloat16 operators have kernels in openvino, ") as caught:
        check(requires, environment(), "net", engine)
    assert "--engine openvino" in caught.value.next_step


@pytest.mark.parametrize("engine", ["openvino", "openvino-bf16", "onnxruntime-cuda"])
def test_bfloat16_opens_where_kernels_are(engine: str) -> None:
    check({"kernels": "bfloat16"}, environment(), "net", engine)


def test_kernels_of_a_later_version_are_refused_with_a_reason() -> None:
    assert "no engine of this version" in broken({"kernels": "float3"}, environment(), "openvino")
