"""List of the parts that have not met their target yet, under one label: experimental.

Data, and a hook through which a command reports their use; changes no behaviour. docs/architecture.md is drawn from
this list, and tests with the mark ``experimental`` name its entries. An entry is removed once
`settled_by` has been done.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

LABEL = "(experimental)"
"""Suffix in the help of the verbs and options concerned."""
PAGE = "docs/architecture.md"
"""Page that lists the parts, in the section Experimental."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experimental:
    """A part without its last proof: its scope, what has not been met, and what would settle it.

    `helps` are the verbs (``render``) and options (``rollout start --world``) whose help bears `LABEL`.
    """

    name: str
    scope: str
    unmet: str
    settled_by: str
    helps: tuple[str, ...]

    @property
    def notice(self) -> str:
        """The line that a command prints when it uses this part."""
        return f"{self.name}: {self.unmet} See {PAGE}, section Experimental."


KUBERNETES = Experimental(
    name="Kubernetes",
    scope=(
        "manifests of `seatrial render` on a real cluster; rollouts with "
        "`--world seatrial.serve.kubernetes.world:cluster`"
    ),
    unmet="No manifest has been applied to a real cluster, and no rollout has run on one.",
    settled_by=(
        "Rendered manifests applied to a cluster with a Gateway implementation; one rollout there that is promoted, "
        "and one that is rolled back."
    ),
    helps=("render", "rollout start --world", "rollout run --world"),
)
TENSORRT = Experimental(
    name="TensorRT",
    scope=(
        "stage `compile`, build plans and their execution, engines as sessions, the reader of the engine inspector, "
        'engine kind `"tensorrt"`'
    ),
    unmet="No engine has been built or run with a real TensorRT.",
    settled_by=(
        "The tests in `tests/gpu/test_tensorrt.py` passed with TensorRT 10.16 and 11, and an engine served by Triton "
        "that returns its golden outputs."
    ),
    helps=("build", "coverage"),
)
GPU = Experimental(
    name="GPU",
    scope=(
        "CUDA and TensorRT execution providers of ONNX Runtime (engines `onnxruntime-cuda`, `onnxruntime-tensorrt`), "
        'torch, torch-compile and torch-cuda-graph on a GPU, instances of `kind = "gpu"`, training with '
        '`device = "cuda"`, readings of NVML'
    ),
    unmet="Nothing has been run or measured on a GPU.",
    settled_by=(
        'The tests in `tests/gpu` passed on an NVIDIA GPU, and a deployment with `kind = "gpu"` proven, placed and '
        "measured there."
    ),
    helps=(
        *("build", "place", "measure"),
        *(f"{verb} --device" for verb in ("build", "coverage", "measure", "parity", "quality", "search")),
    ),
)
ALL = (KUBERNETES, TENSORRT, GPU)

_listeners: list[Callable[[Experimental], None]] = []


def used(part: Experimental) -> None:
    """Report that a part is in use to the command that runs; outside a command nothing happens."""
    if _listeners:
        _listeners[-1](part)


@contextmanager
def reported(report: Callable[[Experimental], None]) -> Iterator[None]:
    """Call `report` inside, once for each part that is used."""
    seen: set[str] = set()

    def once(part: Experimental) -> None:
        if part.name not in seen:
            seen.add(part.name)
            report(part)

    _listeners.append(once)
    try:
        yield
    finally:
        _listeners.remove(once)
