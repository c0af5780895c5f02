"""Checkpoints of a training: one safetensors file, staged and renamed, never a pickle; and an orderly stop on Ctrl-C.

The file holds model, optimizer and random numbers as tensors, schedule and step as JSON in its header. The order of
batches is no part of it: it follows from seed and step.
"""

import json
import shutil
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from .. import interrupts
from ..store import write_atomically
from .sealed import sealed, unsealed

FILE = "training.safetensors"
_SCHEMA = 1
_STALE_SECONDS = 30 * 24 * 3600.0  # an abandoned checkpoint

Schedule = torch.optim.lr_scheduler.LRScheduler


def write_checkpoint(
    folder: Path,
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    *,
    step: int,
    mean: float,
    random: Sequence[torch.Tensor],
) -> None:
    """Keep where a training stands after `step` steps; `random` is the generator state of every worker.

    A kill at any moment leaves the former checkpoint or this one.
    """
    if not folder.exists():
        _sweep(folder.parent)
    state = optimizer.state_dict()
    tensors = {f"model/{name}": tensor for name, tensor in module.state_dict().items()}
    tensors |= {f"random/{rank}": tensor for rank, tensor in enumerate(random)}
    rest: dict[str, dict[str, Any]] = {}
    for number, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer/{number}/{name}"] = value
            else:
                rest.setdefault(str(number), {})[name] = value
    header = {
        "schema": _SCHEMA,
        "step": step,
        "mean": mean,
        "groups": state["param_groups"],
        "rest": rest,
        "schedule": schedule.state_dict(),
    }
    flat = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomically(folder / FILE, sealed(flat, json.dumps(header)))


def read_checkpoint(
    folder: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer, schedule: Schedule
) -> tuple[int, float, list[torch.Tensor]] | None:
    """Put a training back where it stood: step, mean loss and generator states; None where there is none to go on from.

    A file that is damaged, or of a model of another form, counts as none: the training starts anew.
    """
    if (found := unsealed(folder / FILE)) is None:
        return None
    tensors, text = found
    header = json.loads(text)
    model = {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}
    own = module.state_dict()
    fits = own.keys() == model.keys() and all(own[name].shape == value.shape for name, value in model.items())
    if header.get("schema") != _SCHEMA or not fits:
        return None
    state: dict[int, dict[str, Any]] = {int(number): dict(values) for number, values in header["rest"].items()}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, number, key = name.split("/", 2)
            state.setdefault(int(number), {})[key] = value
    groups = [{key: _tuples(value) for key, value in group.items()} for group in header["groups"]]
    for group, known in zip(groups, optimizer.state_dict()["param_groups"], strict=True):
        group["params"] = known["params"]
    module.load_state_dict(model)
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    schedule.load_state_dict(header["schedule"])
    ranks = sorted((name for name in tensors if name.startswith("random/")), key=lambda name: int(name[7:]))
    return int(header["step"]), float(header["mean"]), [tensors[name] for name in ranks]


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _sweep(root: Path) -> None:
    """Remove checkpoints that were left long ago."""
    for folder in root.glob("*") if root.is_dir() else ():
        if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


class Stop:
    """Ctrl-C (or SIGTERM, SIGHUP) held back until the step under way is done; ``asked`` says that it came.

    A second one breaks off at once. Outside of the main thread, where signals cannot be caught, nothing is held back.
    """

    def __init__(self) -> None:
        self.asked = False
        self._number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in interrupts.SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.asked:  # raise now, if the block did not raise because its last step was done
            interrupts.pass_on(self._number, raised=kind is not None)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked, self._number = True, number
