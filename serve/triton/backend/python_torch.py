"""PyTorch inside the Python backend: a program that `torch.export` saved, on the CPU or on a GPU.

Copied beside model.py into each placed version and run inside the server's stub process.

The package says which input and output is which (``seatrial.json`` in it). One that holds pickled objects is refused:
unpickling runs code. Tensors on a GPU are taken where they lie; outputs come to the host unless `outputs = "device"`.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .python_session import Array, Opening, Session, Unusable, plain, shape

NAMES = "seatrial.json"


class Torch(Session):
    """One exported program, loaded."""

    # A guard of the program raises AssertionError, an index out of range IndexError.
    refusals = (ValueError, RuntimeError, MemoryError, AssertionError, IndexError, TypeError)

    def __init__(self, opening: Opening) -> None:
        """Load the package.

        Raises:
            Unusable: torch or the GPU is missing here, or the package is refused.
        """
        super().__init__()
        try:
            import torch
            import torch.utils.dlpack
        except ImportError as error:
            raise Unusable(
                f"the server's Python cannot import torch ({plain(error)}); install it there: pip install torch"
            ) from error
        self._torch = torch
        self._device = torch.device("cpu")
        if opening.device is not None:
            if not torch.cuda.is_available():
                built = torch.version.cuda or "no CUDA"
                raise Unusable(
                    f"torch {torch.__version__} (built with {built}) finds no GPU here; install its CUDA wheel and the "
                    "NVIDIA driver on the server, or use instances of kind cpu"
                )
            self._device = torch.device("cuda", int(opening.device))
        torch.set_num_threads(opening.threads)
        try:
            _check_pickles(opening.path)
            extra = {NAMES: ""}
            program = torch.export.load(opening.path, extra_files=extra)
            ends = json.loads(extra[NAMES])
            self.inputs, self.outputs = list(ends["inputs"]), list(ends["outputs"])
            self._module = program.module().to(self._device)
        except Unusable:
            raise
        except Exception as error:  # the loader raises whatever a damaged package leads it to
            raise Unusable(f"{opening.file} cannot be loaded by torch: {plain(error)}") from error
        self._types = {name: np.dtype(kind) for name, kind in ends["types"].items()}
        self.scalars = {name for name in self.inputs if not ends["ranks"][name]}
        self.stays = opening.options.get("outputs", "host") == "device"
        self._writes = bool(program.graph_signature.user_inputs_to_mutate)

    def on_device(self, tensor: Any) -> Any:
        """Return a tensor that offers DLPack as one of torch's, where it lies; no byte is copied."""
        return self._torch.utils.dlpack.from_dlpack(tensor)

    def infer(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        """Run once; outputs are host arrays, or tensors on the device where they are to stay there."""
        given = [self._tensor(name, feed[name]) for name in self.inputs]
        with self._torch.inference_mode():
            results = self._module(*given)
        found = dict(zip(self.outputs, results, strict=True))
        if self.stays:
            return [found[name].detach() for name in names]
        return [found[name].detach().cpu().numpy() for name in names]

    def caused_by_input(self, error: Exception) -> bool:
        """Return whether a guard of the program or an index refused the inputs."""
        return isinstance(error, AssertionError | IndexError | TypeError) or str(error).startswith("Expected input")

    def joined(self, name: str, parts: Sequence[Any]) -> Any:
        """Return one tensor of several; those that lie on the device are joined there."""
        if len(parts) > 1 and all(isinstance(part, self._torch.Tensor) for part in parts):
            return self._torch.cat(list(parts))
        return super().joined(name, [_on_host(part) if len(parts) > 1 else part for part in parts])

    def _tensor(self, name: str, given: Any) -> Any:
        if not isinstance(given, np.ndarray):
            return given.to(self._device)
        if given.dtype != self._types[name]:
            raise TypeError(f"input {name} is {given.dtype}{list(shape(given))}, not {self._types[name]}")
        held: Array = given if given.flags.writeable and not self._writes else given.copy()
        return self._torch.from_numpy(held).to(self._device)


def _on_host(tensor: Any) -> Any:
    return tensor if isinstance(tensor, np.ndarray) else tensor.cpu().numpy()


def _check_pickles(path: str) -> None:
    """Refuse a package whose weights or constants are pickled objects."""
    with zipfile.ZipFile(path) as package:
        for name in package.namelist():
            if not name.endswith("_config.json"):
                continue
            held = json.loads(package.read(name)).get("config", {})
            if pickled := sorted(key for key, each in held.items() if each.get("use_pickle")):
                raise Unusable(f"the package holds pickled objects, which would run code: {', '.join(pickled[:5])}")
            objects = sorted(
                key for key, each in held.items() if not each.get("path_name", "").startswith(("weight", "tensor"))
            )
            if objects:
                raise Unusable(f"the package holds objects that are no tensors: {', '.join(objects[:5])}")
