"""Text classification on real text that every installation holds: which package does this docstring sentence come from?

The sentences are cut from the docstrings of installed packages, read by parsing their sources (nothing is imported).
A sentence that two packages share is left out, one that a package repeats is kept once, and every source file serves
one split only. Names of the packages are taken out, so that a sentence must be classified by its content.

The text depends on the installed versions: another version of a package gives other sentences, and then figures are
comparable within one installation only. The kept teacher works on any of them.

    python scripts/models/docstrings.py train --out scripts/models/docstrings-teacher.safetensors
    python scripts/models/docstrings.py check
"""

from __future__ import annotations

import argparse
import ast
import re
import time
import zlib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

Integers = NDArray[np.int64]

# All of them are dependencies of this project, or of its dependencies.
PACKAGES = ("numpy", "scipy", "sklearn", "torch", "plotly", "networkx", "sympy", "sqlalchemy", "onnxscript", "optuna")
SEED = 7
LENGTH = 32  # tokens in a sentence; longer ones are cut
BUCKETS = 4096  # token numbers; 0 is padding
WEIGHTS = Path(__file__).with_name("docstrings-teacher.safetensors")

_PER_PACKAGE = 2200  # sentences taken from one package at most
_WORDS = (5, 40)  # fewest and most words of a sentence
_PIECE = 5  # letters in one token; longer words are cut into pieces
_NAMES = frozenset({*PACKAGES, "scikit", "learn", "np", "sp", "plt", "nx", "sa", "pytorch", "onnx", "go", "px"})
_SKIPPED = frozenset({"tests", "test", "testing", "_vendor", "externals"})
_SHARES = {"train": 0.70, "calibration": 0.08, "evaluation": 0.20, "golden": 0.02}
_PEAK_RATE, _BATCH = 3e-3, 128  # of the teacher's training


class Sentence(NamedTuple):
    """One sentence, the number of its package in `PACKAGES`, and the split that its source file serves."""

    text: str
    package: int
    split: str


def sentences_of(source: str) -> Iterator[str]:
    """The prose sentences of all docstrings in a Python source, in the order of the text; none if it does not parse."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                if not _is_prose(paragraph):
                    continue
                for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z`])", " ".join(paragraph.split())):
                    if _WORDS[0] <= len(sentence.split()) <= _WORDS[1] and sentence[-1] in ".!?":
                        yield sentence


def _is_prose(paragraph: str) -> bool:
    """Return True if a paragraph is running text: no example, table, heading or list of parameters."""
    lines = paragraph.strip().splitlines()
    marks = (">>>", "...", "---", "===", "- ", "* ", "|", "+-", ".. ", "#", ":", "@")
    return bool(lines) and not any(line.lstrip().startswith(marks) or re.search(r"\s:\s", line) for line in lines)


def without_names(sentence: str) -> str:
    """The sentence without words that name one of the packages."""
    return re.sub(r"[A-Za-z]+", lambda word: "" if word[0].lower() in _NAMES else word[0], sentence)


def split_of(file: str, seed: int = SEED) -> str:
    """The split that a source file serves, by digest of its path inside the package."""
    place = zlib.crc32(f"{seed}:{file}".encode()) / 2**32
    for split, share in _SHARES.items():
        place -= share
        if place < 0:
            return split
    return "train"


def tokens_of(sentence: str) -> list[int]:
    """Token numbers in 1..4095: words in lower case, cut into pieces of five letters, each hashed; at most 32."""
    found = []
    for word in re.findall(r"[a-z]+|[0-9]+|[^\sa-z0-9]", sentence.lower()):
        for start in range(0, len(word), _PIECE):
            piece = word[start : start + _PIECE] if start == 0 else "#" + word[start : start + _PIECE]
            found.append(1 + zlib.crc32(piece.encode()) % (BUCKETS - 1))
    return found[:LENGTH]


@cache
def corpus(seed: int = SEED) -> tuple[Sentence, ...]:
    """All sentences, in an order drawn from the seed; about five seconds on the first call."""
    found: dict[str, list[Sentence]] = {}
    for package, name in enumerate(PACKAGES):
        for sentence in _of_package(name, package, seed):
            found.setdefault(sentence.text.lower(), []).append(sentence)
    ordered = [same[0] for _, same in sorted(found.items()) if len({sentence.package for sentence in same}) == 1]
    return tuple(ordered[place] for place in np.random.default_rng(seed).permutation(len(ordered)))


def _of_package(name: str, number: int, seed: int) -> list[Sentence]:
    """Sentences of one package, file by file in an order drawn from the seed, until there are enough."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"the package {name} is not installed")
    root = Path(next(iter(spec.submodule_search_locations)))
    names = [path.relative_to(root).as_posix() for path in root.rglob("*.py")]
    names = sorted(path for path in names if not _SKIPPED & set(path.split("/")))
    seen: dict[str, Sentence] = {}
    for place in np.random.default_rng([seed, number]).permutation(len(names)):
        split = split_of(f"{name}/{names[place]}", seed)
        for text in sentences_of((root / names[place]).read_text(encoding="utf-8", errors="replace")):
            seen.setdefault(without_names(text), Sentence(without_names(text), number, split))
        if len(seen) >= _PER_PACKAGE:
            break
    return list(seen.values())[:_PER_PACKAGE]


def texts(split: str, count: int | None = None, seed: int = SEED) -> tuple[list[str], Integers]:
    """Sentences of one split and their packages' numbers; fewer than `count` where there are not as many."""
    if split not in _SHARES:
        raise ValueError(f"unknown split {split!r}: it must be one of {', '.join(_SHARES)}")
    chosen = [sentence for sentence in corpus(seed) if sentence.split == split][:count]
    return [sentence.text for sentence in chosen], np.array([sentence.package for sentence in chosen], np.int64)


def samples(split: str, count: int | None = None, seed: int = SEED) -> tuple[dict[str, Integers], Integers]:
    """One split as {"tokens": int64 [n, 32], zero where the sentence has ended} and int64 labels [n] in 0..9."""
    sentences, labels = texts(split, count, seed)
    tokens = np.zeros((len(sentences), LENGTH), np.int64)
    for row, sentence in enumerate(sentences):
        numbers = tokens_of(sentence)
        tokens[row, : len(numbers)] = numbers
    return {"tokens": tokens}, labels


def teacher() -> nn.Module:
    """The network to be optimized, untrained: 0.62 M parameters, `tokens` [n, 32] to logits [n, 10]."""
    return _network_type()(width=96, depth=2)


def student(width: int = 32, depth: int = 1) -> nn.Module:
    """A small network to distil the teacher into, untrained: 0.15 M parameters at width 32, the teacher's interface."""
    return _network_type()(width=width, depth=depth)


@cache
def _network_type() -> type[nn.Module]:
    """The encoder's class; made on first use, so that the sentences need no PyTorch."""
    from torch import Tensor, nn
    from torch.nn.functional import gelu, scaled_dot_product_attention

    class Layer(nn.Module):
        """Self-attention and a feed-forward network, each behind a normalisation and beside a shortcut."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.heads = 4
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
            self.out = nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.dropout = nn.Dropout(0.1)

        def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
            normal = self.norm1(hidden)
            parts = (layer(normal).unflatten(2, (self.heads, -1)) for layer in (self.query, self.key, self.value))
            query, key, value = (part.transpose(1, 2) for part in parts)
            heads = scaled_dot_product_attention(query, key, value, attn_mask=mask)
            hidden = hidden + self.dropout(self.out(heads.transpose(1, 2).flatten(2)))
            result: Tensor = hidden + self.dropout(self.down(gelu(self.up(self.norm2(hidden)))))
            return result

    class Encoder(nn.Module):
        """Token and position embeddings, `depth` layers, mean over the sentence, a linear head."""

        def __init__(self, width: int, depth: int) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(BUCKETS, width), nn.Embedding(LENGTH, width)
            self.layers = nn.ModuleList(Layer(width) for _ in range(depth))
            self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(0.2)
            self.head = nn.Linear(width, len(PACKAGES))

        def forward(self, tokens: Tensor) -> Tensor:
            present = (tokens != 0).to(self.positions.weight.dtype)
            mask = (present - 1)[:, None, None, :] * 1e4  # added to the scores; a boolean mask exports to NaN guards
            hidden = self.dropout(self.tokens(tokens) + self.positions.weight[: tokens.shape[1]])
            for layer in self.layers:
                hidden = layer(hidden, mask)
            weights = present[:, :, None]
            mean = (self.norm(hidden) * weights).sum(1) / weights.sum(1).clamp(min=1.0)
            logits: Tensor = self.head(self.dropout(mean))
            return logits

    return Encoder


def accuracy(model: nn.Module, tokens: Integers, labels: Integers) -> float:
    """The share in [0, 1] of `tokens` [n, 32] for which the model's greatest logit is that of `labels` [n]."""
    import torch

    model.eval()
    with torch.inference_mode():
        parts = [torch.from_numpy(tokens[start : start + 256]) for start in range(0, len(tokens), 256)]
        predicted = torch.cat([model(part).argmax(1) for part in parts])
    return float(np.mean(predicted.numpy() == labels))


def train(model: nn.Module, epochs: int, seed: int = SEED) -> nn.Module:
    """Train a model on the training split's labels; prints the progress.

    The evaluation accuracy printed after each epoch is only shown: it chooses neither epoch nor setting.
    """
    import torch
    from torch.nn.functional import cross_entropy

    torch.manual_seed(seed)
    inputs, answers = samples("train")
    others, truth = samples("evaluation")
    tokens, labels = torch.from_numpy(inputs["tokens"]), torch.from_numpy(answers)
    steps = -(-len(labels) // _BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_PEAK_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_RATE, total_steps=epochs * steps, pct_start=0.2)
    for epoch in range(epochs):
        start, total = time.perf_counter(), 0.0
        model.train()
        order = torch.randperm(len(labels))
        for first in range(0, len(labels), _BATCH):
            chosen = order[first : first + _BATCH]
            loss = cross_entropy(model(tokens[chosen]), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        score, seconds = accuracy(model, others["tokens"], truth), time.perf_counter() - start
        print(
            f"epoch {epoch + 1}/{epochs}: loss {total / len(labels):.4f}, evaluation {score:.2%}, {seconds:.0f} s",
            flush=True,
        )
    return model


def linear_accuracy() -> float:
    """The evaluation accuracy in [0, 1] of logistic regression on token counts, fitted to the training split."""
    from sklearn.linear_model import LogisticRegression

    def counts(split: str) -> tuple[NDArray[np.float32], Integers]:
        inputs, labels = samples(split)
        rows = np.zeros((len(labels), BUCKETS), np.float32)
        np.add.at(rows, (np.arange(len(labels))[:, None], inputs["tokens"]), 1.0)
        rows[:, 0] = 0
        return rows, labels

    return float(LogisticRegression(max_iter=200).fit(*counts("train")).score(*counts("evaluation")))


def _check() -> None:
    """Print the sizes of the splits, and what the kept teacher and a linear model reach on the evaluation split."""
    from safetensors.torch import load_file

    print(", ".join(f"{split} {len(texts(split)[0])}" for split in _SHARES))
    model = teacher()
    model.load_state_dict(load_file(WEIGHTS))
    inputs, labels = samples("evaluation")
    print(f"teacher: {accuracy(model, inputs['tokens'], labels):.2%} of {len(labels)} evaluation sentences")
    print(f"linear model: {linear_accuracy():.2%}")


def _train(out: Path, epochs: int) -> None:
    """Train the teacher and write its weights to `out`."""
    from safetensors.torch import save_file

    model = train(teacher(), epochs)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, out)
    print(f"wrote {out}: {out.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Read the command line and run the command that it names."""
    parser = argparse.ArgumentParser(description="Docstring sentences: the teacher's training and its check.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("train", help="train the teacher and write its weights")
    command.add_argument("--out", type=Path, default=WEIGHTS, help="safetensors file to write (default: %(default)s)")
    command.add_argument("--epochs", type=int, default=12, help="passes over the sentences (default: %(default)s)")
    commands.add_parser("check", help="print the accuracy of the kept teacher and of a linear model")
    arguments = parser.parse_args()
    if arguments.command == "train":
        _train(arguments.out, arguments.epochs)
    else:
        _check()


if __name__ == "__main__":
    main()
