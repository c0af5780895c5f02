"""Options of ONNX Runtime's TensorRT provider as Triton reads them, and the releases that take each precision."""

from dataclasses import replace
from typing import Any

import pytest

from seatrial.optimize.recipe.configs import Shapes
from seatrial.serve.deployment import Deployment, Instances, OnnxTensorrt
from seatrial.serve.errors import ConfigRuleError
from seatrial.serve.triton.compiler import config
from seatrial.serve.triton_releases import DEFAULT
from tests.support.kinds import SCENES

GPU = Instances(kind="gpu", gpus=(0,))
RANGE = {"image": Shapes(min=(1, 3, 64, 64), opt=(8, 3, 64, 64), max=(32, 3, 64, 64))}
ONE_SHAPE = Shapes(min=(1, 3, 64, 64), opt=(1, 3, 64, 64), max=(1, 3, 64, 64))
PROVIDER = OnnxTensorrt(kind="onnx-tensorrt", cache="/cache", gpu="9.0", tensorrt="10.3", profile=RANGE)
LEGAL = Deployment(schema=1, name="a", max_batch_size=32)


def options_of(**changes: Any) -> dict[str, str]:
    engine = replace(PROVIDER, **changes)
    triton = "2.73" if engine.precision == "bf16" else DEFAULT
    sizes = 1 if engine.cuda_graph else LEGAL.max_batch_size
    told = replace(LEGAL, backend="native", instances=GPU, engine=engine, triton=triton, max_batch_size=sizes)
    made = config.parse(config.render(told, SCENES, versions=(1,)))
    (accelerator,) = made.optimization.execution_accelerators.gpu_execution_accelerator
    return dict(accelerator.parameters)


@pytest.mark.experimental("GPU")
@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"sparsity": True}, {"trt_sparsity_enable": "1"}),
        ({"builder_level": 5}, {"trt_builder_optimization_level": "5"}),
        ({"share_context_memory": True}, {"trt_context_memory_sharing_enable": "1"}),
        ({"cuda_graph": True, "profile": {"image": ONE_SHAPE}}, {"trt_cuda_graph_enable": "1"}),
        ({"precision": "bf16"}, {"precision_mode": "BF16"}),
    ],
)
def test_each_switch_of_the_provider_becomes_its_option(changes: dict[str, Any], options: dict[str, str]) -> None:
    plain, switched = options_of(), options_of(**changes)
    assert {key: value for key, value in switched.items() if plain.get(key) != value}.items() >= options.items()
    assert all(plain.get(key) != value for key, value in options.items())


@pytest.mark.experimental("GPU")
def test_timings_lie_with_the_engines_of_the_same_artifact_gpu_and_version() -> None:
    kept, without = options_of(), options_of(timing_cache=False)
    assert kept["trt_timing_cache_path"] == kept["trt_engine_cache_path"]
    assert without["trt_timing_cache_enable"] == "0"
    assert "trt_timing_cache_path" not in without


@pytest.mark.experimental("GPU")
@pytest.mark.parametrize(("release", "legal"), [("2.51", False), ("2.65", False), ("2.73", True), ("2.80", True)])
def test_bf16_is_refused_for_a_server_whose_backend_refuses_it(release: str, legal: bool) -> None:
    told = replace(LEGAL, backend="native", instances=GPU, engine=replace(PROVIDER, precision="bf16"), triton=release)
    if legal:
        assert "BF16" in config.render(told, SCENES, versions=(1,))
    else:
        with pytest.raises(ConfigRuleError, match="refuses precision 'BF16'") as caught:
            config.render(told, SCENES, versions=(1,))
        assert "newer server" in caught.value.next_step
