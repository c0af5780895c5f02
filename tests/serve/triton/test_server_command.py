"""The command line of a server that is started here."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from seatrial.serve.triton.running import on_pytriton, wheel


@pytest.mark.experimental("GPU")
@pytest.mark.parametrize(("gpus", "flag"), [((), "false"), (("GPU-1, NVIDIA L4, 580",), "true")])
def test_a_server_reports_gpu_metrics_where_there_is_a_gpu(
    gpus: tuple[str, ...], flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_pytriton, "environment", lambda: SimpleNamespace(gpus=gpus))
    monkeypatch.setattr(wheel, "binary", lambda root: root / "tritonserver")
    monkeypatch.setattr(wheel, "backends", lambda root, home: root / "backends")
    command = on_pytriton._command(tmp_path, tmp_path, (8000, 8001, 8002), "p_")
    assert [each for each in command if "gpu-metrics" in each] == [f"--allow-gpu-metrics={flag}"]
