"""Package: a torch module to one file of `torch.export`, which runs in torch without the module's source."""

from collections.abc import Mapping
from typing import Any

import torch

from ..artifact import Artifact
from ..errors import StageError
from ..recipe.configs import PackageConfig
from ..sessions.on_calls import invoke
from ..sessions.on_exported import PACKAGE, save
from ..sessions.on_torch import open_module, outputs_of
from .dims import Bounds, bounded
from .export import example
from .stage import Context, Made


def run(config: PackageConfig, parent: Artifact, context: Context) -> Made:
    """Make ``model.pt2``.

    Raises:
        StageError: the module cannot be traced, or holds what is no tensor.
    """
    module = _ByPosition(open_module(parent, context.store), parent)
    context.progress(0.1, "tracing")
    tensors = tuple(example(parent).values())
    dynamic = context.source.dynamic
    try:
        program = bounded(lambda bounds: _traced(module, parent, tensors, dynamic, bounds))
    except Exception as error:  # torch.export raises types without a common base
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise StageError(
            f"torch.export refused the module: {reason}", where="package", next_step="fix the module's forward"
        ) from error
    save(program, context.folder / PACKAGE, parent.inputs, parent.outputs)
    return Made(
        format="torch-export",
        files=(PACKAGE,),
        inputs=parent.inputs,
        outputs=parent.outputs,
        notes={"nodes": len(program.graph.nodes)},
    )


class _ByPosition(torch.nn.Module):
    """A module that takes the artifact's inputs by position and returns its outputs as a tuple."""

    def __init__(self, module: torch.nn.Module, parent: Artifact) -> None:
        super().__init__()
        self.module = module
        self._inputs = tuple(spec.name for spec in parent.inputs)
        self._outputs = tuple(spec.name for spec in parent.outputs)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Call the module as its own forward takes its inputs."""
        result = invoke(self.module, self.module, dict(zip(self._inputs, tensors, strict=True)))
        return tuple(outputs_of(result, self._outputs).values())


def _traced(
    module: torch.nn.Module,
    parent: Artifact,
    tensors: tuple[torch.Tensor, ...],
    dynamic: Mapping[str, Mapping[str, str]],
    bounds: Bounds,
) -> torch.export.ExportedProgram:
    names = {"batch", *(name for axes in dynamic.values() for name in axes.values())}
    dims: dict[str, Any] = {name: torch.export.Dim(name, **bounds.get(name, {})) for name in sorted(names)}
    shapes = tuple(
        {0: dims["batch"]} | {int(axis): dims[text] for axis, text in dynamic.get(spec.name, {}).items()}
        for spec in parent.inputs
    )
    with torch.no_grad():
        return torch.export.export(module, tensors, dynamic_shapes=(shapes,), strict=False)
