"""The one protocol of all engines, and the door that picks the engine for an artifact."""

from collections.abc import Mapping
from typing import Protocol

from ..artifact import Artifact
from ..environment import environment
from ..errors import ContractError
from ..samples import Array
from ..store import Store
from ..targets import check


class Session(Protocol):
    """A model that is open: `run` maps input arrays to output arrays by name, first axis the batch."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Infer once. Raises StageError where the engine refuses the inputs."""
        ...


def open_session(artifact: Artifact, store: Store, *, threads: int = 1) -> Session:
    """Open an artifact on this machine with the engine of its format.

    Raises:
        ContractError: this machine breaks the artifact's hardware contract, or the artifact is only a plan.
        MachineError: TensorRT is not installed here.
        IntegrityError: the stored bytes were changed.
    """
    if artifact.planned:
        raise ContractError(
            "this is the plan of a TensorRT engine, not an engine",
            where=artifact.short,
            next_step="build the same recipe where TensorRT is installed, or run plan.json's trtexec line there",
        )
    check(artifact.requires, environment(), artifact.short)
    if artifact.format == "torch":
        from .on_torch import TorchSession, open_module

        return TorchSession(open_module(artifact, store), artifact.inputs, artifact.outputs, threads=threads)
    if artifact.format == "onnx":
        from .on_ort import OrtSession

        return OrtSession(store.path(artifact, "model.onnx"), threads=threads)
    from .on_tensorrt import EngineSession

    return EngineSession(lambda name: store.path(artifact, name), artifact.inputs, artifact.outputs)
