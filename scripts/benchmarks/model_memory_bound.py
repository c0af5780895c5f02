"""A model whose weights do not fit into the caches: a batch of many costs little more than one, so batching matters."""

from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, np.dtype[Any]]
INPUTS = 256


def net(width: int = 2048) -> torch.nn.Module:
    """Four wide linear layers, untrained, 52 MB of weights: `x` is [n, 256], the answer [n, 10]."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = [torch.nn.Linear(INPUTS, width), torch.nn.ReLU()]
    for _ in range(3):
        layers += [torch.nn.Linear(width, width), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, 10)).eval()


def samples(split: str, count: int | None = None, seed: int = 7) -> tuple[dict[str, Array], Array]:
    """Noise, and labels by a coin: what is compared here is speed."""
    random = np.random.default_rng([seed, len(split)])
    rows = count or 64
    return {"x": random.standard_normal((rows, INPUTS), np.float32)}, random.integers(0, 10, rows)
