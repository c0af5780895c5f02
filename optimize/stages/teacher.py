"""The teacher: run once per sample, its outputs and hidden states cached in memory and under the store's cache.

What is kept lies in one safetensors file per quantity, keyed by teacher, samples and quantity, so that a resumed build
or another recipe reuses it. The folder is bounded: the files that were unused longest go first. A file that cannot be
read counts as absent. Nothing here depends on the use of the outputs.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from ..artifact import Artifact, canonical, digest_bytes
from ..samples import Samples
from ..sessions.on_torch import open_module
from ..store import Store, write_atomically
from .layers import observe
from .objective import ANSWERS, Tensors, Term, read_layer
from .sealed import sealed, unsealed

Progress = Callable[[float, str], None]
CACHE_BYTES = 2 * 2**30  # of all files of all teachers together
_BATCH = 256
_asked: dict[str, torch.Tensor] = {}  # the last teacher's, for the next stage of the same build


class Targets:
    """Teacher values for each training sample; those that are not stored are computed for the requested rows."""

    def __init__(
        self,
        kept: Tensors,
        samples: Samples,
        output: str,
        live: Sequence[Term] = (),
        teacher: torch.nn.Module | None = None,
    ) -> None:
        self._kept = kept
        self._inputs = {name: torch.from_numpy(array) for name, array in samples.inputs.items()}
        self._output = output
        self._live = tuple(live)
        self._teacher = teacher

    @property
    def answers(self) -> torch.Tensor:
        """The teacher's output for every sample, [n, ...]."""
        return self._kept[ANSWERS]

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of what was computed once."""
        return tuple(self._kept)

    def rows(self, chosen: torch.Tensor, device: str = "cpu") -> dict[str, torch.Tensor]:
        """Return all target values by name, [m, ...], for the samples with the indices `chosen` [m]."""
        found = {name: tensor[chosen].to(device) for name, tensor in self._kept.items()}
        if self._teacher is not None and self._live:
            tensors = {name: tensor[chosen].to(device) for name, tensor in self._inputs.items()}
            said = ask(self._teacher.to(device), self._output, self._live, tensors)
            found |= {term.target: said[term.target] for term in self._live}
        return found

    def first(self) -> dict[str, torch.Tensor]:
        """The rows of the first two samples, to learn shapes from."""
        return self.rows(torch.arange(min(2, len(self.answers))))


def teacher_answers(teacher: Artifact, samples: Samples, store: Store, progress: Progress) -> torch.Tensor:
    """The teacher's first output for every sample, [n, ...]."""
    said = _recall_or_ask(teacher, lambda: open_module(teacher, store), samples, store, (), progress, torch.float32)
    return said[ANSWERS]


def teacher_targets(
    teacher: Artifact,
    module: torch.nn.Module,
    samples: Samples,
    store: Store,
    terms: Sequence[Term],
    progress: Progress,
    *,
    limit_bytes: int,
    precision: torch.dtype = torch.float32,
) -> Targets:
    """Answers and whatever the terms compare; inner states are kept, smallest first, while they fit the limit.

    `module` is the teacher, open.
    """
    output = teacher.outputs[0].name
    inner = {term.target: term for term in terms if term.teacher is not None}
    sizes = _row_bytes(module, output, list(inner.values()), samples, precision)
    kept, room = [], limit_bytes
    for name in sorted(inner, key=lambda name: sizes[name]):
        room -= sizes[name] * len(samples)
        if room >= 0:
            kept.append(inner[name])
    live = [term for term in inner.values() if term not in kept]
    found = _recall_or_ask(teacher, lambda: module, samples, store, kept, progress, precision)
    return Targets(found, samples, output, live, module)


def _recall_or_ask(
    teacher: Artifact,
    opened: Callable[[], torch.nn.Module],
    samples: Samples,
    store: Store,
    terms: Sequence[Term],
    progress: Progress,
    precision: torch.dtype,
) -> dict[str, torch.Tensor]:
    """Every wanted quantity, from memory, from disk, and the rest from the teacher in one pass over the samples."""
    folder, digest = store.root.parent / "cache" / "teacher", samples.digest
    keys = {ANSWERS: _key(teacher, digest, ANSWERS, torch.float32)}
    keys |= {term.target: _key(teacher, digest, term.target, precision) for term in terms}
    found: dict[str, torch.Tensor] = {}
    for name, key in keys.items():
        known = _asked[key] if key in _asked else _read(folder / f"{key}.safetensors", len(samples))
        if known is not None:
            found[name] = known
    missing = [term for term in terms if term.target not in found]
    if missing or ANSWERS not in found:
        said = _ask_all(opened(), teacher.outputs[0].name, missing, samples, precision, progress)
        for name, tensor in said.items():
            found[name] = tensor
            _write(folder / f"{keys[name]}.safetensors", tensor)
    _asked.clear()
    _asked.update({keys[name]: tensor for name, tensor in found.items()})
    return found


def _key(teacher: Artifact, samples: str, target: str, precision: torch.dtype) -> str:
    said = {
        "schema": 1,
        "teacher": teacher.digest,
        "samples": samples,
        "target": target,
        "precision": str(precision),
        "torch": torch.__version__,
    }
    return digest_bytes(canonical(said)).removeprefix("sha256:")


def ask(module: torch.nn.Module, output: str, terms: Sequence[Term], tensors: Tensors) -> dict[str, torch.Tensor]:
    """The teacher's output and what the terms compare, for one batch, by target name."""
    layers = [term.teacher for term in terms if term.teacher is not None]
    with torch.no_grad():
        answer, seen = observe(module, tensors, output, layers)
    said = {ANSWERS: answer}
    for term in terms:
        if term.teacher is not None:
            said[term.target] = read_layer(term.kind, module, term.teacher, seen[term.teacher])
    return said


def _ask_all(
    module: torch.nn.Module,
    output: str,
    terms: Sequence[Term],
    samples: Samples,
    precision: torch.dtype,
    progress: Progress,
) -> dict[str, torch.Tensor]:
    said: dict[str, list[torch.Tensor]] = {}
    for number, batch in enumerate(samples.batches(_BATCH)):
        tensors = {name: torch.from_numpy(array) for name, array in batch.inputs.items()}
        for name, tensor in ask(module, output, terms, tensors).items():
            said.setdefault(name, []).append(tensor if name == ANSWERS else tensor.to(precision))
        progress(number * _BATCH / len(samples), "running the teacher")
    return {name: torch.cat(parts) for name, parts in said.items()}


def _row_bytes(
    module: torch.nn.Module, output: str, terms: Sequence[Term], samples: Samples, precision: torch.dtype
) -> Mapping[str, int]:
    if not terms:
        return {}
    tensors = {name: torch.from_numpy(array) for name, array in samples.take(1).inputs.items()}
    return {name: value.numel() * precision.itemsize for name, value in ask(module, output, terms, tensors).items()}


def _read(path: Path, rows: int) -> torch.Tensor | None:
    found = unsealed(path)
    tensor = found[0].get("said") if found is not None else None
    if tensor is None or len(tensor) != rows:
        return None
    with contextlib.suppress(OSError):
        path.touch()  # used now: the last to go
    return tensor


def _write(path: Path, tensor: torch.Tensor) -> None:
    """Keep a quantity where it fits the cache, making room; if the disk refuses, the teacher only runs again."""
    if tensor.nbytes > CACHE_BYTES:
        return
    with contextlib.suppress(OSError):
        write_atomically(path, sealed({"said": tensor}))
        others = sorted(path.parent.glob("*.safetensors"), key=lambda file: -file.stat().st_mtime)
        total = 0
        for file in (path, *(file for file in others if file != path)):
            total += file.stat().st_size
            if total > CACHE_BYTES:
                file.unlink(missing_ok=True)
