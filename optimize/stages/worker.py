"""Worker of a shared distillation: ``torchrun ... -m seatrial.optimize.stages.worker JOB``, started by `workers`."""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..errors import SeatrialError
from ..sessions.on_torch import build_module
from .training_job import learn
from .workers import MARK, RESULT, WEIGHTS, read_job


def main(job: Path) -> int:
    """Train with the others; the first worker leaves weights and loss in the job's folder, a failed one its error."""
    task, student = read_job(job)
    on_gpu = task.config.training.device == "cuda"
    if on_gpu and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
    rank = torch.distributed.get_rank()

    def progress(share: float, text: str) -> None:
        if rank == 0:
            print(f"{MARK}{share:.4f}\t{text}", flush=True)

    try:
        torch.manual_seed(task.seed)
        module = build_module(student, task.config.arguments)
        loss = learn(task, module, progress)
    except SeatrialError as error:
        said = {"kind": type(error).__name__, "what": error.what, "where": error.where, "next_step": error.next_step}
        (job / f"error-{rank}.json").write_text(json.dumps(said))
        return 1
    if rank == 0:
        save_file({name: tensor.contiguous().clone() for name, tensor in module.state_dict().items()}, job / WEIGHTS)
        (job / RESULT).write_text(json.dumps({"loss": loss}))
    torch.distributed.barrier()  # all wait until the result is written: a launcher ends all when one exits early
    torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
