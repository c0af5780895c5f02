"""torch.compile: a module as one graph that Inductor compiles for the device, C++ on the CPU and Triton on a GPU.

A graph break would run a part eagerly and be timed as compiled, and so would a shape beyond the limit of compilations;
both are errors here. Compilation happens at the first run of a kind of shape and takes seconds to minutes.
"""

import os
import shutil
import sysconfig
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import torch

from ..artifact import Format
from ..errors import StageError
from ..samples import Array
from .device import Device, device_of
from .engine import Engine, Missing, ModelFiles, Opened
from .on_torch import TorchSession, module_of, torch_missing

COMPILATIONS = 64  # of one module; a sweep over batch sizes and lengths needs more than Dynamo's own 8
_HEADER = "Python.h"
BROKEN, LIMIT = torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit


class CompiledSession(TorchSession):
    """A module whose forward is compiled whole."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Infer once; compiles where the shapes are of a new kind.

        Raises:
            StageError: the module is not one graph, or was compiled for too many shapes.
        """
        try:
            return super().run(inputs)
        except LIMIT as error:
            raise _refused(error) from error
        except StageError as error:
            if isinstance(error.__cause__, BROKEN):
                raise _refused(error.__cause__) from error
            raise


class TorchCompile(Engine):
    """PyTorch, compiled whole by Inductor."""

    name: ClassVar[str] = "torch-compile"
    formats: ClassVar[tuple[Format, ...]] = ("torch",)
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")

    def missing(self, device: Device) -> Missing | None:
        """Return what Inductor lacks: a C++ compiler and Python's headers for the CPU, Triton for a GPU."""
        if (lacking := torch_missing(device)) is not None:
            return lacking
        if device.kind == "cpu":
            return _without_compiler()
        if find_spec("triton") is None:
            said = "torch.compile needs Triton for a GPU, which is not installed"
            return Missing(what=said, next_step="pip install triton")
        return None

    def open(self, model: ModelFiles, *, device: str, threads: int) -> Opened:
        """Rebuild the module and wrap it; the first run compiles."""
        place, module = device_of(device), module_of(model)
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILATIONS)
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        compiled = torch.compile(module, fullgraph=True)
        session = CompiledSession(module, model.inputs, model.outputs, threads=threads, device=place, forward=compiled)
        return Opened(session=session, provider="inductor", device=str(session.device))


def _without_compiler() -> Missing | None:
    """Return what is missing to build C++ against Python, as Inductor does."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    if not any(shutil.which(name) for name in names):
        return Missing(
            what=f"torch.compile needs a C++ compiler, and none of {', '.join(names)} is here",
            next_step="apt-get install g++, or set CXX",
        )
    folder = Path(sysconfig.get_path("include"))
    if not (folder / _HEADER).exists():
        return Missing(
            what=f"torch.compile needs Python's headers, and {folder / _HEADER} is not there",
            next_step="apt-get install python3-dev",
        )
    return None


def _refused(error: BaseException) -> StageError:
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return StageError(
        f"torch.compile cannot run the module as one compiled graph: {said}",
        where="engine torch-compile",
        next_step="use engine torch, or change the module where the message points",
    )
