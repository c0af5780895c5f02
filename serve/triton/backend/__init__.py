"""Code that serves an artifact on Triton's python backend; it lies beside the artifact in each version.

What runs inside the server's stub process imports nothing of ours but its neighbours here.
"""

from pathlib import Path

_ENGINES = ("python_onnxruntime.py", "python_openvino.py", "python_torch.py")
_BESIDE = ("python_session.py", *_ENGINES, "python_cache.py", "python_remembering.py")
_HERE = Path(__file__).parent
PLACED_CODE = {"model.py": _HERE / "python_model.py"} | {name: _HERE / name for name in _BESIDE}
"""The code files of a version: their names there, and the source of each."""
