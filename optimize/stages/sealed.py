"""Safetensors files that carry a digest over their content: a cache in which a changed byte counts as absent."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..artifact import canonical
from ..plain import is_plain

_DIGEST = "digest"


def sealed(tensors: Mapping[str, torch.Tensor], header: str = "") -> bytes:
    """The tensors and a header text as one safetensors file."""
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return save(plain, {"header": header, _DIGEST: _digest(plain, header)})


def unsealed(path: Path) -> tuple[dict[str, torch.Tensor], str] | None:
    """Return what `sealed` made, or None where it is not there, is no plain file, or is not what was written."""
    if not is_plain(path):
        return None
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except (OSError, SafetensorError, ValueError, KeyError):
        return None
    header = notes.get("header", "")
    return (tensors, header) if notes.get(_DIGEST) == _digest(tensors, header) else None


def _digest(tensors: Mapping[str, torch.Tensor], header: str) -> str:
    state = hashlib.sha256(canonical(header))
    for name, tensor in sorted(tensors.items()):
        state.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()
