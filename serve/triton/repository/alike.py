"""The check that an artifact can be served beside the versions that a model has: all share one configuration."""

from pathlib import Path
from typing import Any

from ...errors import PlacementError
from ..compiler.config import parse, read_text

_FIELDS = ("input", "output", "backend", "platform")


def check_alike(config: Path, text: str, name: str) -> None:
    """Refuse a configuration that would serve other tensors, another backend or another kind of file.

    Raises:
        PlacementError: names the field that differs.
    """
    old, new = parse(read_text(config)), parse(text)
    batching = (old.max_batch_size > 0) == (new.max_batch_size > 0)
    pairs = {field: (getattr(old, field), getattr(new, field)) for field in _FIELDS}
    pairs["kind of file"] = (_suffix(old), _suffix(new))
    for field, (before, after) in pairs.items():
        if before != after or not batching:
            raise PlacementError(
                f"the artifact's {field} differs from that of the served versions of {name}, and all versions "
                "share one configuration",
                where=str(config),
                next_step="give the deployment another name; clients must adapt to the change anyway",
            )


def _suffix(config: Any) -> str:
    """Return the suffix of the file that our model.py opens; empty where a native backend finds its own."""
    named = "model_file" in config.parameters
    return config.parameters["model_file"].string_value.rpartition(".")[2] if named else ""
