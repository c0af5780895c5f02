"""The extras: which wheels an engine's advice brings, and which two cannot stand in one environment."""

import re
import tomllib
from collections.abc import Mapping

from packaging.requirements import Requirement
from packaging.version import Version

from seatrial.optimize.sessions.engine import ENGINES
from tests.house.test_floors import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def extra(name: str) -> Mapping[str, Requirement]:
    found = (Requirement(text) for text in PROJECT["optional-dependencies"][name])
    return {each.name: each for each in found}


def test_the_advice_of_every_engine_names_extras_that_are_there() -> None:
    for name in ENGINES.built_in:
        for listed in re.findall(r"seatrial\[([\w,-]+)\]", ENGINES.get(name).install):
            assert set(listed.split(",")) <= set(PROJECT["optional-dependencies"]), name


def test_cuda_brings_the_libraries_with_the_wheel_that_is_installed_anyway() -> None:
    base = {each.name: each for each in map(Requirement, PROJECT["dependencies"])}["onnxruntime-gpu"]
    for name in ("cuda", "tensorrt-provider"):
        found = extra(name)["onnxruntime-gpu"]
        assert found.extras == {"cuda", "cudnn"}
        assert found.specifier == base.specifier
    everything = [
        *PROJECT["dependencies"],
        *(text for texts in PROJECT["optional-dependencies"].values() for text in texts),
    ]
    assert "onnxruntime" not in {Requirement(text).name for text in everything}  # it overwrites onnxruntime-gpu


def test_the_two_versions_of_tensorrt_are_refused_together() -> None:
    own, provider = extra("tensorrt")["tensorrt-cu13"].specifier, extra("tensorrt-provider")["tensorrt-cu13"].specifier
    versions = [Version(text) for text in ("10.15", "10.16.1.11", "10.99", "11.0", "11.4.0.106", "12.0")]
    assert [str(version) for version in versions if version in own] == ["11.0", "11.4.0.106"]
    assert [str(version) for version in versions if version in provider] == ["10.16.1.11", "10.99"]
    assert not [version for version in versions if version in own and version in provider]
