"""Options of ONNX Runtime's TensorRT provider: caches of engines and timings, and a range for every dynamic input."""

from pathlib import Path

import pytest

from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.recipe.configs import Shapes
from seatrial.optimize.sessions.device import device_of
from seatrial.optimize.sessions.on_ort_tensorrt import caches, complete, options
from tests.support.linear import linear

FREE = TensorSpec(name="x", dtype="float32", shape=("n", 8))
LONG = TensorSpec(name="ids", dtype="int64", shape=("n", "length"))
FIXED = TensorSpec(name="scale", dtype="float32", shape=(1,))


def test_every_dynamic_input_has_a_range_and_a_fixed_one_none() -> None:
    found = complete((FREE, LONG, FIXED), {})
    assert found == {
        "x": Shapes(min=(1, 8), opt=(32, 8), max=(128, 8)),
        "ids": Shapes(min=(1, 1), opt=(32, 128), max=(128, 512)),
    }
    assert complete((FIXED,), {}) == {}


def test_a_profile_that_leaves_out_an_input_is_refused() -> None:
    given = {"x": Shapes(min=(1, 8), opt=(2, 8), max=(4, 8))}
    assert complete((FREE,), given) == given
    with pytest.raises(ConfigError, match="the profile and the model differ in ids"):
        complete((FREE, LONG), given)


def test_the_options_spell_the_profile_out_and_name_both_caches(tmp_path: Path) -> None:
    found = options(device_of("cuda:1"), complete((FREE, LONG), {}), tmp_path)
    assert found["device_id"] == "1"
    assert found["trt_profile_min_shapes"] == "x:1x8,ids:1x1"
    assert found["trt_profile_opt_shapes"] == "x:32x8,ids:32x128"
    assert found["trt_profile_max_shapes"] == "x:128x8,ids:128x512"
    assert (found["trt_engine_cache_enable"], found["trt_timing_cache_enable"]) == ("1", "1")
    assert found["trt_engine_cache_path"] != found["trt_timing_cache_path"]
    assert not [name for name in options(device_of("cuda"), {}, tmp_path) if "profile" in name]


def test_a_cache_belongs_to_one_file_and_one_profile(tmp_path: Path) -> None:
    one, other = linear(tmp_path / "one.onnx", seed=1), linear(tmp_path / "other.onnx", seed=2)
    profile = complete((FREE,), {})
    found = {caches(one, profile), caches(one, {}), caches(other, profile)}
    assert len(found) == 3
    assert caches(one, profile) in found
    assert all((folder / "engines").is_dir() and (folder / "timings").is_dir() for folder in found)
