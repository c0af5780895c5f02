"""PyTorch: rebuilds a module from a state dict and an architecture record (never a pickle), and runs it.

The architecture record names the factory and its arguments, and the attributes in which the module differs from what
the factory makes: pruning leaves its channel counts there. Weights are safetensors.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file

from ..artifact import Artifact, Format, TensorSpec
from ..errors import SourceError, StageError
from ..record import Record
from ..samples import Array
from ..store import Store
from ..user_code import Reference
from .cuda import driver_missing
from .device import HOST, Device, device_of
from .engine import Engine, Missing, ModelFiles, Opened
from .on_calls import invoke, named, style_of, unservable

WEIGHTS = "weights.safetensors"
ARCHITECTURE = "architecture.json"
SOURCE = "source.py"
KEPT = "kept"  # in a stack's sizes: which of the factory's blocks are left
TENSORS = "tensors"  # in a layer's sizes: shapes of its own parameters and buffers
_SIZES = (
    *("in_channels", "out_channels", "groups", "num_features", "in_features", "out_features", "normalized_shape"),
    *("num_channels", "num_groups", "num_parameters", "num_embeddings", "embedding_dim"),
    *("num_heads", "num_attention_heads", "num_key_value_heads", "n_heads", "n_head", "heads", "nhead"),
    *("all_head_size", "attn_dim", "inner_dim", "embed_dim", "hidden_size", "d_model", "dim"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture(Record, schema=1, what="the architecture record", next_step="build the artifact again"):
    """Recipe of the empty module: `factory` is ``source.py:name`` (kept in the artifact) or ``module:name``.

    `sizes` maps module names to the attributes that differ from what the factory makes.
    """

    factory: str
    arguments: Mapping[str, Any]
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class TorchSession:
    """A module in evaluation mode behind the session protocol, on the device that its tensors are moved to.

    `forward` is called in the module's place where it is given: the same module compiled.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        threads: int = 1,
        device: Device = HOST,
        forward: Callable[..., Any] | None = None,
    ) -> None:
        self._module = module.eval()
        self._forward = self._module if forward is None else forward
        self._device = torch.device(str(device))
        if device.kind != "cpu":  # on the CPU a module stays as it was given, also its training copy
            self._module.to(self._device)
        self._names = tuple(spec.name for spec in inputs)
        self._outputs = tuple(spec.name for spec in outputs)
        self._threads = threads

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Infer once on the named arrays, with this session's number of threads."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        shapes = {name: array.shape for name, array in inputs.items()}
        try:
            with torch.inference_mode():
                tensors = {name: torch.from_numpy(inputs[name]).to(self._device) for name in self._names}
                result = call(self._module, tensors, self._forward)
        except (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise StageError(f"the module refused the inputs: {error}", where=f"shapes {shapes}") from error
        finally:
            torch.set_num_threads(before)
        return self._arrays(result, shapes)

    def _arrays(self, result: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
        try:
            values = outputs_of(result, self._outputs)
        except ValueError as error:
            raise StageError(
                f"the module does not return the named outputs: {error}", where=f"shapes {shapes}"
            ) from error
        for name, value in values.items():
            if why := unservable(name, value):
                raise StageError(f"the module's result cannot be served: {why}", where=f"shapes {shapes}")
        return {name: value.detach().cpu().numpy().copy() for name, value in values.items()}  # of an input or a buffer

    @property
    def device(self) -> Device:
        """The device of the module's tensors, as they lie; that of its inputs where it has none."""
        return placed(self._module, device_of(str(self._device)))


class Torch(Engine):
    """PyTorch, operator by operator."""

    name: ClassVar[str] = "torch"
    formats: ClassVar[tuple[Format, ...]] = ("torch",)
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")

    def missing(self, device: Device) -> Missing | None:
        """Return what torch lacks to run on that device."""
        return torch_missing(device)

    def open(self, model: ModelFiles, *, device: str, threads: int) -> Opened:
        """Rebuild the module, fill it and move it to the device."""
        place = device_of(device)
        session = TorchSession(module_of(model), model.inputs, model.outputs, threads=threads, device=place)
        return Opened(session=session, provider="torch", device=str(session.device))


def placed(module: torch.nn.Module, device: Device) -> Device:
    """Return the device of all tensors of a module, the CPU where they lie apart; `device` where it has none."""
    found = {str(tensor.device) for tensor in (*module.parameters(), *module.buffers())} or {str(device)}
    return device_of(found.pop() if len(found) == 1 else "cpu")


def torch_missing(device: Device) -> Missing | None:
    """Return what torch lacks to run on a device: a build for CUDA, the driver, the device itself; None where nothing.

    A build for the CPU cannot use a GPU, whatever else is installed.
    """
    if device.kind == "cpu":
        return None
    lacking = driver_missing(device)
    if torch.version.cuda is None:
        build = f"torch {torch.__version__} is built for the CPU alone"
        return Missing(
            what=build if lacking is None else f"{build}; {lacking.what}",
            next_step="install a torch that is built for CUDA (https://pytorch.org/get-started/locally)",
        )
    if lacking is None and not torch.cuda.is_available():
        return Missing(
            what=f"torch {torch.__version__} cannot use the GPU: its CUDA {torch.version.cuda} does not fit the driver",
            next_step="update the driver, or install a torch for its CUDA version",
        )
    return lacking


def module_of(model: ModelFiles) -> torch.nn.Module:
    """Rebuild the module of a torch artifact's files, weights in, evaluation mode."""
    record = Architecture.read(model.file(ARCHITECTURE))
    return rebuild(record, model.file(SOURCE) if SOURCE in model.names else None, model.file(WEIGHTS))


def call(
    module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], forward: Callable[..., Any] | None = None
) -> Any:
    """Call a module as its forward takes its inputs: by keyword, by position (in the samples' order) or as a mapping.

    The module gets copies, since its forward may write into what it is given. `forward` is called in its place where
    given.
    """
    act = module if forward is None else forward
    return invoke(module, act, {name: tensor.clone() for name, tensor in tensors.items()})


def by_keyword(module: torch.nn.Module, tensors: Mapping[str, Any]) -> bool:
    """Return whether the module's forward takes every input by its name."""
    return style_of(module, list(tensors)) == "keyword"


def outputs_of(result: Any, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """A module's result under the outputs' names: by key or attribute where it has them, else in order.

    Raises:
        ValueError: the result does not hold what the names promise.
    """
    return named(result, names)


def build_module(factory: Reference, arguments: Mapping[str, Any]) -> torch.nn.Module:
    """The user's factory, called.

    Raises:
        SourceError: it raised, or returned something that is not a ``torch.nn.Module``.
    """
    module = factory.call(**arguments)
    if not isinstance(module, torch.nn.Module):
        raise SourceError(
            f"the factory returned a {type(module).__name__}", where=factory.text, next_step="return a torch.nn.Module"
        )
    return module


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Fill a module from a safetensors file, every key, exactly.

    Raises:
        SourceError: the file cannot be read or its keys and shapes are not the module's.
    """
    try:
        module.load_state_dict(load_file(path), strict=True)
    except Exception as error:  # safetensors raises its own type, load_state_dict RuntimeError
        lines = str(error).strip().splitlines()
        raise SourceError(
            f"the weights do not fit the module: {' '.join(line.strip() for line in lines[:3])}",
            where=str(path),
            next_step="give the safetensors file of this module's state dict",
        ) from error


def save_module(module: torch.nn.Module, architecture: Architecture, source: Path | None, folder: Path) -> list[str]:
    """Write a module as its artifact's files into `folder`; returns their names."""
    state = {name: tensor.detach().contiguous().clone() for name, tensor in module.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    (folder / ARCHITECTURE).write_text(json.dumps(architecture.to_json(), indent=1, sort_keys=True))
    if source is None:
        return [WEIGHTS, ARCHITECTURE]
    (folder / SOURCE).write_bytes(source.read_bytes())
    return [WEIGHTS, ARCHITECTURE, SOURCE]


def read_architecture(artifact: Artifact, store: Store) -> tuple[Architecture, Path | None]:
    """The architecture record of a torch artifact, and its source file where it keeps one."""
    record = Architecture.read(store.path(artifact, ARCHITECTURE))
    source = store.path(artifact, SOURCE) if any(file.path == SOURCE for file in artifact.files) else None
    return record, source


def open_module(artifact: Artifact, store: Store) -> torch.nn.Module:
    """Rebuild a torch artifact's module, weights in, evaluation mode."""
    record, source = read_architecture(artifact, store)
    return rebuild(record, source, store.path(artifact, WEIGHTS))


def rebuild(record: Architecture, source: Path | None, weights: Path) -> torch.nn.Module:
    """Build what an architecture record says and fill it, evaluation mode."""
    place, _, name = record.factory.rpartition(":")
    reference = Reference(text=record.factory, name=name, file=source, module=None if source else place)
    module = build_module(reference, record.arguments)
    resize(module, record.sizes)
    load_weights(module, weights)
    return module.eval()


def sizes_of(module: torch.nn.Module) -> dict[str, dict[str, Any]]:
    """The sizes of every layer and the shapes of its own tensors, by module name."""
    found: dict[str, dict[str, Any]] = {}
    for name, layer in module.named_modules():
        sizes = {key: getattr(layer, key) for key in _SIZES if isinstance(getattr(layer, key, None), int | tuple)}
        shapes = {key: list(tensor.shape) for key, tensor in _own(layer).items()}
        found[name] = {key: list(size) if isinstance(size, tuple) else size for key, size in sizes.items()}
        if shapes:
            found[name][TENSORS] = shapes
    return found


def _own(layer: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers that the layer itself holds."""
    held = {**layer._parameters, **layer._buffers}
    return {name: tensor for name, tensor in held.items() if tensor is not None}


def resized(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the difference of two `sizes_of`: the record that `resize` applies."""
    return {
        name: changed
        for name, sizes in after.items()
        if (changed := {key: size for key, size in sizes.items() if before[name].get(key) != size})
    }


def resize(module: torch.nn.Module, sizes: Mapping[str, Mapping[str, Any]]) -> None:
    """Give layers other sizes: blocks are dropped, attributes set, parameters replaced by empty ones of that shape."""
    for name, changed in sizes.items():
        if KEPT in changed:
            drop_blocks(module, name, changed[KEPT])
    layers = dict(module.named_modules())
    emptied: dict[tuple[int, tuple[int, ...]], torch.Tensor] = {}  # a tensor that two layers share stays shared
    kept: list[torch.Tensor] = []  # alive, so that no other tensor gets its id
    for name, changed in sizes.items():
        layer = layers[name]
        for key, size in changed.items():
            if key not in (KEPT, TENSORS):
                setattr(layer, key, tuple(size) if isinstance(size, list) else size)
        shapes = _shapes(layer) | {key: tuple(shape) for key, shape in changed.get(TENSORS, {}).items()}
        for attribute, old in _own(layer).items():
            shape = shapes.get(attribute, tuple(old.shape))
            if tuple(old.shape) != shape:
                new = emptied.setdefault((id(old), shape), _empty(old, shape))
                setattr(layer, attribute, new)
                kept.append(old)


def _empty(old: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    empty = torch.empty(shape, dtype=old.dtype)
    return torch.nn.Parameter(empty, requires_grad=old.requires_grad) if isinstance(old, torch.nn.Parameter) else empty


def drop_blocks(module: torch.nn.Module, name: str, kept: Sequence[int]) -> None:
    """Leave only these blocks of a ModuleList or Sequential; they are numbered anew."""
    stack: Any = module.get_submodule(name)
    blocks = list(stack)
    for index in sorted(set(range(len(blocks))) - set(kept), reverse=True):
        del stack[index]


def _shapes(layer: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Parameter and buffer shapes that a layer's sizes imply."""
    size: Any = layer
    if isinstance(layer, torch.nn.modules.conv._ConvTransposeNd):
        return {
            "weight": (size.in_channels, size.out_channels // size.groups, *size.kernel_size),
            "bias": (size.out_channels,),
        }
    if isinstance(layer, torch.nn.modules.conv._ConvNd):
        return {
            "weight": (size.out_channels, size.in_channels // size.groups, *size.kernel_size),
            "bias": (size.out_channels,),
        }
    if isinstance(layer, torch.nn.modules.batchnorm._NormBase):
        return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (size.num_features,))
    if isinstance(layer, torch.nn.Linear):
        return {"weight": (size.out_features, size.in_features), "bias": (size.out_features,)}
    if isinstance(layer, torch.nn.GroupNorm):
        return dict.fromkeys(("weight", "bias"), (size.num_channels,))
    if isinstance(layer, torch.nn.PReLU):
        return {"weight": (size.num_parameters,)}
    if isinstance(layer, torch.nn.Embedding):
        return {"weight": (size.num_embeddings, size.embedding_dim)}
    if isinstance(layer, torch.nn.LayerNorm):
        return dict.fromkeys(("weight", "bias"), tuple(size.normalized_shape))
    return {}
