"""PyTorch: rebuilds a module from a state dict and an architecture record (never a pickle), and runs it.

The architecture record names the factory and its arguments, and the attributes in which the module differs from what
the factory makes: pruning leaves its channel counts there. Weights are safetensors.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ..artifact import Artifact, TensorSpec
from ..errors import IntegrityError, SourceError, StageError
from ..samples import Array
from ..store import Store
from ..user_code import Reference

WEIGHTS = "weights.safetensors"
ARCHITECTURE = "architecture.json"
SOURCE = "source.py"
KEPT = "kept"  # in a stack's sizes: which of the factory's blocks are left
_SIZES = (
    *("in_channels", "out_channels", "groups", "num_features", "in_features", "out_features", "normalized_shape"),
    *("num_channels", "num_parameters", "num_embeddings", "embedding_dim"),
    *("num_heads", "num_attention_heads", "num_key_value_heads", "n_heads", "n_head", "heads", "nhead"),
    *("all_head_size", "attn_dim", "inner_dim", "embed_dim", "hidden_size", "d_model", "dim"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How to build the empty module: `factory` is ``source.py:name`` (kept in the artifact) or ``module:name``.

    `sizes` maps module names to the attributes that differ from what the factory makes.
    """

    factory: str
    arguments: Mapping[str, Any]
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        sizes = {name: dict(changed) for name, changed in self.sizes.items()}
        return {"schema": 1, "factory": self.factory, "arguments": dict(self.arguments), "sizes": sizes}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Architecture":
        """Read what `to_json` wrote."""
        if value.get("schema") != 1:
            raise IntegrityError("an architecture record of another schema", next_step="build the artifact again")
        return cls(factory=value["factory"], arguments=value["arguments"], sizes=value["sizes"])


class TorchSession:
    """A module in evaluation mode behind the session protocol."""

    def __init__(
        self,
        module: torch.nn.Module,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        threads: int = 1,
    ) -> None:
        self._module = module.eval()
        self._names = tuple(spec.name for spec in inputs)
        self._outputs = tuple(spec.name for spec in outputs)
        self._threads = threads

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Infer once on the named arrays, with this session's number of threads."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                tensors = {name: torch.from_numpy(inputs[name]) for name in self._names}
                values = outputs_of(call(self._module, tensors), self._outputs)
            return {name: value.numpy() for name, value in values.items()}
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            shapes = {name: array.shape for name, array in inputs.items()}
            raise StageError(f"the module refused the inputs: {error}", where=f"shapes {shapes}") from error
        finally:
            torch.set_num_threads(before)


def call(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Call a module by keyword where its forward knows every name, by position (in the samples' order) otherwise."""
    return module(**tensors) if by_keyword(module, tensors) else module(*tensors.values())


def by_keyword(module: torch.nn.Module, tensors: Mapping[str, Any]) -> bool:
    """Whether the module's forward has a parameter for every input name."""
    known = inspect.signature(module.forward).parameters  # sees through decorators, as Hugging Face's forwards wear
    return all(name in known for name in tensors)


def outputs_of(result: Any, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """A module's result under the outputs' names: a tensor, a sequence by position, else by key or attribute.

    Raises:
        ValueError: the result does not hold what the names promise.
    """
    if isinstance(result, torch.Tensor):
        result = (result,)
    if isinstance(result, Mapping):
        if missing := [name for name in names if name not in result]:
            raise ValueError(f"it returns {list(result)}, not {missing}")
        return {name: result[name] for name in names}
    if not isinstance(result, tuple | list) and all(hasattr(result, name) for name in names):
        return {name: getattr(result, name) for name in names}
    if not isinstance(result, tuple | list) or len(result) < len(names):
        raise ValueError(f"it returns {type(result).__name__}, the recipe names the outputs {list(names)}")
    return dict(zip(names, result, strict=False))


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
            next_step="give the safetensors file of exactly this module's state dict",
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
    record = Architecture.from_json(json.loads(store.path(artifact, ARCHITECTURE).read_text()))
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
    """The sizes of every layer, by module name."""
    found = {}
    for name, layer in module.named_modules():
        sizes = {key: getattr(layer, key) for key in _SIZES if isinstance(getattr(layer, key, None), int | tuple)}
        if sizes:
            found[name] = {key: list(size) if isinstance(size, tuple) else size for key, size in sizes.items()}
    return found


def resized(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What differs between two `sizes_of`: the record that `resize` applies."""
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
    for name, changed in sizes.items():
        layer = layers[name]
        for key, size in changed.items():
            if key != KEPT:
                setattr(layer, key, tuple(size) if isinstance(size, list) else size)
        for parameter, shape in _shapes(layer).items():
            old = getattr(layer, parameter, None)
            if old is not None and tuple(old.shape) != shape:
                empty = torch.empty(shape, dtype=old.dtype)
                new = torch.nn.Parameter(empty) if isinstance(old, torch.nn.Parameter) else empty
                setattr(layer, parameter, new)


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
