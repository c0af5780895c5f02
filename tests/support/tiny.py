"""A model small enough to build in seconds, and not an image: ten noisy sine shapes to tell apart."""

from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, np.dtype[Any]]
LENGTH = 64


class Net(torch.nn.Module):
    """Two 1-d convolutions and a linear head; `signal` is [n, 1, 64], the answer [n, 4] logits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = torch.nn.Conv1d(1, width, 5, padding=2)
        self.norm = torch.nn.BatchNorm1d(width)
        self.second = torch.nn.Conv1d(width, width, 5, padding=2)
        self.head = torch.nn.Linear(width, 4)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        """Logits."""
        hidden = torch.relu(self.norm(self.first(signal)))
        hidden = torch.relu(self.second(hidden))
        result: torch.Tensor = self.head(hidden.mean(dim=2))
        return result


def teacher(width: int = 64) -> Net:
    """The big one, trained on the spot by the loader's own law: deterministic, a second on one core."""
    torch.manual_seed(0)
    net = Net(width)
    inputs, labels = samples("train", 512, 7)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(inputs["signal"])), torch.from_numpy(labels))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return net.eval()


def student(width: int = 32) -> Net:
    """The small one, untrained."""
    return Net(width)


def samples(split: str, count: int | None = None, seed: int = 7) -> tuple[dict[str, Array], Array]:
    """Sines of four frequencies with random phase and noise."""
    number = {"train": 1, "calibration": 2, "evaluation": 3, "golden": 4}[split]
    random = np.random.default_rng([seed, number])
    rows = count or 512
    labels = random.integers(0, 4, rows)
    time = np.linspace(0, 1, LENGTH, dtype=np.float32)
    waves = np.sin(2 * np.pi * (3 + 4 * labels[:, None]) * time + random.uniform(0, 6.28, (rows, 1)))
    noisy = waves + random.normal(0, 0.5, waves.shape)
    return {"signal": noisy[:, None, :].astype(np.float32)}, labels.astype(np.int64)


def broken(width: int = 8) -> Net:
    """A factory that raises."""
    raise RuntimeError(f"no weights for width {width}")


def wide(width: int = 512) -> Net:
    """The same net far wider and untrained: only heavy."""
    torch.manual_seed(0)
    return Net(width).eval()
