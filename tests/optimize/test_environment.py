"""What a record says of where it was made."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seatrial.optimize.environment import LIBRARIES, Environment, GpuSettings, environment
from seatrial.optimize.environment import _commit as commit

GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "recipe.toml").write_text("schema = 1\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"], ["tag", "-am", "tagged", "v1"]):
        subprocess.run([*GIT, *command], cwd=folder, check=True)
    return folder


def test_the_commit_is_that_of_the_repository_it_was_called_in(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = subprocess.run([*GIT, "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True)
    monkeypatch.chdir(repository)
    assert commit() == head.stdout[:12]
    (repository / "recipe.toml").write_text("schema = 2\n")
    assert commit() == head.stdout[:12] + "-dirty"


def test_outside_of_a_repository_there_is_none(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert commit() == ""


TOOL = """#!/bin/sh
case "$*" in
*driver_version*) echo "GPU-1, NVIDIA H200, 580.1"; echo "GPU-2, NVIDIA H200, 580.1" ;;
*compute_cap*) echo "GPU-1, NVIDIA H200, 9.0, Disabled, 700.00"; echo "GPU-2, NVIDIA H200, 9.0, [N/A], [N/A]" ;;
--version) echo "NVIDIA-SMI version  : 580.1"; echo "CUDA Version         : 13.0" ;;
esac
"""


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver's tool that lists two GPUs; the description is made anew."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(TOOL)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")


def test_a_gpu_is_described_with_what_its_speed_depends_on(card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    found = environment.__wrapped__()
    first, second = found.gpu_settings
    assert first == GpuSettings(
        uuid="GPU-1", name="NVIDIA H200", compute_capability="9.0", mig="Disabled", power_limit=700.0
    )
    assert (second.mig, second.power_limit) == ("", None)
    assert (found.cuda, found.tf32) == ("13.0", "0")
    assert found.gpu_kinds == ("NVIDIA H200, 580.1",) * 2
    assert Environment.from_json(json.loads(json.dumps(found.to_json()))) == found


def alone(uuid: str, **settings: Any) -> Environment:
    """A machine with one GPU."""
    options: dict[str, Any] = {"compute_capability": "8.9", "power_limit": 72.0} | settings
    card = GpuSettings(uuid=uuid, name="NVIDIA L4", **options)
    return replace(environment(), gpus=(f"{uuid}, NVIDIA L4, 580.1",), gpu_settings=(card,), cuda="13.0")


def test_two_equal_gpus_share_a_figure_and_other_settings_do_not() -> None:
    one = alone("GPU-1")
    assert one.fingerprint == alone("GPU-2").fingerprint
    others = [alone("GPU-2", power_limit=60.0), alone("GPU-2", mig="Enabled"), alone("GPU-2", compute_capability="9.0")]
    others += [replace(one, cuda="12.9"), replace(one, tf32="0"), replace(one, gpus=("GPU-1, NVIDIA L4, 570.2",))]
    others += [replace(one, gpus=one.gpus * 2, gpu_settings=one.gpu_settings * 2)]
    others += [replace(one, libraries=one.libraries | {"nvidia-cudnn-cu13": "9.1"})]
    assert len({each.fingerprint for each in (one, *others)}) == len(others) + 1


def test_every_distribution_of_tensorrt_and_cudnn_is_recorded() -> None:
    names = {"tensorrt", "tensorrt-cu12", "tensorrt-cu13", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "onnxruntime"}
    assert names <= set(LIBRARIES)
