"""The deployment's [cache], and when Triton's own response cache would be safe."""

from dataclasses import replace
from pathlib import Path

import pytest

from seatrial.optimize.artifact import Artifact, File, TensorSpec
from seatrial.optimize.config import load
from seatrial.optimize.errors import ConfigError
from seatrial.serve.caching import Cache, response_cache_risks
from seatrial.serve.deployment import Deployment
from seatrial.serve.triton.compiler.config import parse, render
from tests.support.made_by import MADE_BY

ARTIFACT = Artifact(
    name="net",
    format="onnx",
    files=(File(path="model.onnx", digest="sha256:" + "0" * 64, size=1),),
    inputs=(TensorSpec(name="x", dtype="float32", shape=("n", 3)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 2)),),
    requires={},
    made_by=MADE_BY,
)
DEPLOYMENT = Deployment(schema=1, name="net", max_batch_size=8)


def parameters(deployment: Deployment) -> dict[str, str]:
    config = parse(render(deployment, ARTIFACT, versions=(1,)))
    return {name: value.string_value for name, value in config.parameters.items()}


def test_the_table_reaches_the_model(tmp_path: Path) -> None:
    path = tmp_path / "net.toml"
    path.write_text('schema = 1\nname = "net"\nmax_batch_size = 8\n[cache]\nmegabytes = 2\nttl_seconds = 1.5\n')
    deployment = load(path, Deployment)
    assert deployment.cache == Cache(megabytes=2, ttl_seconds=1.5)
    assert parameters(deployment).items() >= {"cache_bytes": "2097152", "cache_ttl_seconds": "1.5"}.items()


def test_without_the_table_nothing_of_it_is_written() -> None:
    assert not [name for name in parameters(DEPLOYMENT) if "cache" in name]


@pytest.mark.parametrize("bad", [{"megabytes": 0}, {"ttl_seconds": 0.0}, {"ttl_seconds": float("nan")}])
def test_bounds_that_bound_nothing_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Cache(**bad)  # type: ignore[arg-type]


def test_tritons_cache_is_safe_only_where_bytes_say_everything() -> None:
    assert response_cache_risks(ARTIFACT, batching=True) == ()
    words = replace(ARTIFACT, inputs=(TensorSpec(name="x", dtype="int64", shape=("n", "length")),))
    (risk,) = response_cache_risks(words, batching=True)
    assert "input x has a variable shape" in risk
    assert response_cache_risks(ARTIFACT, batching=False) == ()  # the bytes give the one free axis
    (risk,) = response_cache_risks(words, batching=False)
    assert "variable shape" in risk
    pair = replace(words, inputs=(*words.inputs, TensorSpec(name="w", dtype="int64", shape=("n", 4))))
    assert response_cache_risks(pair, batching=True) == ()  # the bytes of w give the batch
    assert len(response_cache_risks(pair, batching=False)) == 1
    two = replace(ARTIFACT, outputs=(*ARTIFACT.outputs, TensorSpec(name="z", dtype="float32", shape=("n",))))
    (risk,) = response_cache_risks(two, batching=True)
    assert "different outputs of y, z" in risk
    assert len(response_cache_risks(ARTIFACT, batching=True, stateful=True)) == 1
