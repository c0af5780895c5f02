"""Training: distillation and QAT on the processor and on the device from the same start, and NCCL with one worker."""

import copy
import tempfile
import time
from functools import partial
from typing import Any

from scripts.gpu_sections.ceilings import precision
from scripts.gpu_sections.place import MissingPartError, Place, refused, torch_here
from scripts.gpu_sections.record import Claim, Found, at_most

LIMIT = 1e-3  # largest difference of a weight after three epochs in fp32


def run(place: Place) -> Found:
    """Each training twice, then one collective operation."""
    torch = torch_here()
    rows: list[dict[str, Any]] = []
    claims: list[Claim] = []
    for name, make in {"distill": _student, "qat": _quantized}.items():
        found, why = refused(partial(_both, torch, place, make))
        rows.append({"what": name} | (found or {"unavailable": why}))
        claims.append(
            at_most(f"{name}: largest difference of a weight, CPU against GPU", (found or {}).get("apart"), LIMIT, why)
        )
    group, why = refused(lambda: _group(torch, place))
    rows.append({"what": "collectives"} | (group or {"unavailable": why}))
    met = None if group is None else bool(group["sum"] == 1.0)
    claims.append(
        Claim(
            claim="NCCL with one worker",
            bar="the sum of one",
            value=str((group or {}).get("sum", "")),
            met=met,
            why=why,
        )
    )
    return Found(rows=tuple(rows), claims=tuple(claims))


def _both(torch: Any, place: Place, make: Any) -> dict[str, Any]:
    try:
        from seatrial.optimize.recipe.configs import Training
        from seatrial.optimize.stages.training import fit
    except ImportError as error:
        raise MissingPartError(str(error)) from error
    module, samples, answers = make(torch)
    ended, seconds = [], []
    for device in ("cpu", place.device):
        trained = copy.deepcopy(module)
        training = Training(epochs=3, batch_size=17, device="cuda" if device == "cuda" else "cpu")
        began = time.monotonic()
        with precision(torch, "ieee"):
            fit(trained, samples, answers, training, output="logits", seed=3, progress=lambda share, text: None)
        seconds.append(time.monotonic() - began)
        ended.append({name: value.detach().cpu().double() for name, value in trained.named_parameters()})
    apart = max(float((ended[0][name] - ended[1][name]).abs().max()) for name in ended[0])
    moved = max(
        float((ended[0][name] - value.detach().cpu().double()).abs().max()) for name, value in module.named_parameters()
    )
    return {"apart": apart, "moved": moved, "cpu_seconds": seconds[0], "device_seconds": seconds[1]}


def _student(torch: Any) -> tuple[Any, Any, Any]:
    import numpy as np

    from scripts.gpu_sections.nets import small
    from seatrial.optimize.samples import Samples

    images = np.random.default_rng(0).standard_normal((96, 3, 16, 16), np.float32)
    teacher = small(16)
    with torch.no_grad():
        answers = teacher(torch.from_numpy(images))
    return small(8), Samples(split="train", inputs={"image": images}, labels=None), answers


def _quantized(torch: Any) -> tuple[Any, Any, Any]:
    from seatrial.optimize.recipe.targets import TARGETS
    from seatrial.optimize.stages.qat import calibrate, prepare

    module, samples, answers = _student(torch)
    prepared = prepare(module, samples, TARGETS["x86-vnni"], ())
    calibrate(prepared, samples)
    return prepared, samples, answers


def _group(torch: Any, place: Place) -> dict[str, Any]:
    """A process group of one worker, and the sum of a one over it."""
    backend = "gloo" if place.small else "nccl"
    with tempfile.TemporaryDirectory(prefix="seatrial-gpu-group-") as folder:
        torch.distributed.init_process_group(backend, init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            one = torch.ones(1, device=place.device)
            torch.distributed.all_reduce(one)
            torch.distributed.barrier()
            return {"backend": torch.distributed.get_backend(), "sum": float(one.cpu())}
        finally:
            torch.distributed.destroy_process_group()
