from pathlib import Path
from typing import Any

import pytest

from seatrial.optimize.config import parse
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.recipe.configs import MixedConfig, Override, QuantizeConfig


def config(**fields: Any) -> QuantizeConfig:
    return QuantizeConfig(kind="quantize", **fields)


@pytest.mark.parametrize(
    ("fields", "uses"),
    [
        ({}, ("calibration",)),
        ({"method": "dynamic"}, ()),
        ({"method": "dynamic", "smooth": 0.5}, ("calibration",)),
        ({"method": "weight-only", "bits": 4}, ()),
    ],
)
def test_only_what_needs_samples_depends_on_them(fields: dict[str, Any], uses: tuple[str, ...]) -> None:
    assert config(**fields).uses == uses


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"bits": 4}, "bits does not apply to method 'static'"),
        ({"method": "dynamic", "ranges": "mse"}, "ranges"),
        ({"method": "dynamic", "bias_correction": True}, "bias_correction"),
        ({"method": "dynamic", "products": "weighted"}, "products does not apply to method 'dynamic'"),
        ({"method": "weight-only", "smooth": 0.5, "per_channel": False}, "smooth, per_channel do not apply"),
        ({"storage": "channels"}, "storage does not apply to method 'static'"),
        ({"method": "weight-only", "storage": "channels", "bits": 4}, 'apply only to storage "blocks"'),
        ({"ranges": "mse", "percentile": 99.0}, "percentile does not apply to ranges 'mse'"),
        ({"method": "dynamic", "target": "tensorrt"}, "no kernels for method 'dynamic'"),
        ({"method": "weight-only", "target": "tensorrt"}, "no kernels for method 'weight-only'"),
        ({"method": "dynamic", "target": "cuda"}, "no kernels for method 'dynamic'"),
    ],
)
def test_what_a_method_or_target_cannot_do_is_refused(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**fields)
    assert what in caught.value.what
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({}, "matches every node"),
        ({"match": "*", "activations": "float"}, "matches every node"),
        ({"match": "head*"}, "changes nothing"),
        ({"match": "head*", "activations": "float", "weights": "int8"}, "mixes float and integers"),
        ({"match": "head*", "activations": "uint8", "weights": "float"}, "mixes float and integers"),
        ({"match": "head*", "weights": "float", "per_channel": True}, "mixes float and integers"),
        ({"operator": "Conv", "weights": "int4"}, "matrix products"),
    ],
)
def test_overrides_that_mean_nothing_are_refused(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        Override(**fields)


@pytest.mark.parametrize(
    ("fields", "override", "what"),
    [
        ({"target": "tensorrt"}, {"activations": "uint8"}, "no kernels for uint8"),
        ({"target": "tensorrt"}, {"weights": "int4"}, "4-bit weights"),
        ({"target": "x86-vnni"}, {"activations": "int8"}, "no kernels for int8"),
        ({"method": "dynamic"}, {"activations": "int8"}, "quantized at run time are uint8"),
        ({"method": "dynamic"}, {"weights": "int4"}, "8-bit weights"),
        ({"method": "dynamic"}, {"per_channel": False}, "one granularity"),
        ({"method": "weight-only"}, {"activations": "uint8"}, "leaves activations in float"),
        ({"method": "weight-only"}, {"per_channel": True}, "one granularity"),
    ],
)
def test_overrides_that_no_kernel_runs_are_refused(fields: dict[str, Any], override: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        config(**fields, overrides=(Override(operator="MatMul", **override),))
    assert caught.value.where == "overrides"


def test_an_override_fits_by_name_and_operator() -> None:
    one = Override(match="*/head/*", operator="Conv", activations="float")
    assert one.fits("net/head/0", "Conv")
    assert not one.fits("net/head/0", "Gemm")
    assert not one.fits("net/body/0", "Conv")
    assert Override(operator="Conv", per_channel=False).fits("anything", "Conv")
    assert one.keeps_float
    assert not Override(operator="Conv", per_channel=False).keeps_float


def test_a_recipe_says_all_of_it(tmp_path: Path) -> None:
    text = """
    kind = "quantize"
    target = "x86"
    ranges = "mse"
    smooth = 0.5
    bias_correction = true
    [[overrides]]
    match = "*/head/*"
    activations = "float"
    [[overrides]]
    operator = "Gemm"
    weights = "int4"
    per_channel = true
    """
    read = parse(text, QuantizeConfig, tmp_path / "stage.toml")
    assert read.overrides[1] == Override(operator="Gemm", weights="int4", per_channel=True)
    with pytest.raises(ConfigError, match="mixes float") as caught:
        parse(text.replace('"int4"', '"float"'), QuantizeConfig, tmp_path / "stage.toml")
    assert "stage.toml" in caught.value.where
    with pytest.raises(ConfigError, match="unknown key"):
        parse(text.replace("per_channel", "channelwise"), QuantizeConfig, tmp_path / "stage.toml")


def test_mixed_ranks_by_noise_only_where_there_is_any_to_tell() -> None:
    assert MixedConfig(kind="mixed", max_quality_drop=0.01, rank="noise").quantize.method == "static"
    with pytest.raises(ConfigError, match="slower than float in ONNX Runtime"):
        MixedConfig(kind="mixed", max_quality_drop=0.01, keep="int8-weights")
    with pytest.raises(ConfigError, match="writes no Q/DQ"):
        MixedConfig(kind="mixed", max_quality_drop=0.01, rank="noise", quantize=config(method="dynamic"))
