"""Networks without batch statistics or dropout, for training that must come out the same however it is shared."""

from dataclasses import dataclass
from pathlib import Path

import torch

from seatrial.optimize.artifact import Artifact, File, TensorSpec
from seatrial.optimize.samples import Samples
from seatrial.optimize.sessions.on_torch import Architecture, save_module
from seatrial.optimize.store import Store
from seatrial.optimize.user_code import Reference
from tests.support.made_by import MADE_BY
from tests.support.tiny import samples

HERE = Path(__file__)


class Net(torch.nn.Module):
    """Two 1-d convolutions and a linear head; `signal` is [n, 1, 64], the answer [n, 4] logits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(
            [torch.nn.Conv1d(1, width, 5, padding=2), torch.nn.Conv1d(width, width, 5, padding=2)]
        )
        self.head = torch.nn.Linear(width, 4)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        """Logits."""
        for block in self.blocks:
            signal = torch.relu(block(signal))
        result: torch.Tensor = self.head(signal.mean(dim=2))
        return result


class Attentive(torch.nn.Module):
    """One attention layer over eight pieces of the signal; `held` keeps the probabilities in an attribute."""

    def __init__(self, width: int, heads: int, held: bool = False) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(8, width)
        self.attention: torch.nn.Module = torch.nn.MultiheadAttention(width, heads, batch_first=True)
        if held:
            self.attention = Holding(self.attention)
        self.head = torch.nn.Linear(width, 4)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        """Logits."""
        tokens = self.embed(signal.reshape(-1, 8, 8))
        result: torch.Tensor = self.head(self.attention(tokens, tokens, tokens)[0].mean(dim=1))
        return result


class Holding(torch.nn.Module):
    """An attention layer that keeps its probabilities instead of returning them."""

    def __init__(self, attention: torch.nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.attention_weights = torch.empty(0)

    def forward(self, *tokens: torch.Tensor) -> tuple[torch.Tensor]:
        """The context alone."""
        context, self.attention_weights = self.attention(*tokens)
        return (context,)


def net(width: int = 16) -> Net:
    """The convolutional one."""
    return Net(width)


def dropping(width: int = 16) -> torch.nn.Module:
    """The convolutional one with dropout before its head."""
    made = Net(width)
    made.head = torch.nn.Sequential(torch.nn.Dropout(0.3), made.head)  # type: ignore[assignment]
    return made


def attentive(width: int = 16, heads: int = 2, held: bool = False) -> Attentive:
    """The attentive one."""
    return Attentive(width, heads, held)


@dataclass(frozen=True)
class School:
    """A stored teacher with samples to learn from."""

    teacher: Artifact
    store: Store
    samples: Samples


def school(folder: Path, factory: str = "net", rows: int = 96, **arguments: object) -> School:
    """An untrained teacher of this file in a store of its own: its answers are as good to imitate as any."""
    files = folder / "files"
    files.mkdir(parents=True)
    reference = Reference.parse(f"{HERE}:{factory}", HERE.parent)
    torch.manual_seed(1)
    module = reference.call(**arguments)
    names = save_module(module, Architecture(factory=f"source.py:{factory}", arguments=arguments), HERE, files)
    artifact = Artifact(
        name="teacher",
        format="torch",
        files=tuple(File.of(files / name, name) for name in names),
        inputs=(TensorSpec(name="signal", dtype="float32", shape=("batch", 1, 64)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", 4)),),
        requires={},
        made_by=MADE_BY,
    )
    store = Store(folder / "home" / "store")
    inputs, labels = samples("train", rows)
    return School(
        teacher=store.put(artifact, files), store=store, samples=Samples(split="train", inputs=inputs, labels=labels)
    )
