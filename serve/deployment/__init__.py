"""The deployment: how one model is to be served, as an engineer writes it down.

Only says and checks itself; what the file means to Triton is `serve.triton.compiler`'s business. Every rule here is one
that Triton would break silently or refuse without a reason ("failed to poll from model repository"), so it is checked
before a server sees it. The one document yields both backends: the python backend (an engine in our model.py, runs
where only the python backend is installed) and the native backends of a full Triton.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.config import renamed

from ..caching import Cache as Cache
from ..triton_releases import DEFAULT
from .broken import Broken as Broken
from .engines import KINDS
from .engines import Engine as Engine
from .engines import OnnxCpu as OnnxCpu
from .engines import OnnxCuda as OnnxCuda
from .engines import OnnxTensorrt as OnnxTensorrt
from .engines import TensorrtPlan as TensorrtPlan
from .python_engines import OpenVino as OpenVino
from .python_engines import Torch as Torch
from .rules import BACKENDS as BACKENDS
from .rules import SCHEMA as SCHEMA
from .rules import broken_rules as broken_rules
from .scheduling import Batching as Batching
from .scheduling import Bucket as Bucket
from .scheduling import Instances as Instances
from .scheduling import LevelQueue as LevelQueue
from .scheduling import Priorities as Priorities
from .scheduling import Queue as Queue
from .scheduling import Resource as Resource
from .scheduling import ResponseCache as ResponseCache
from .scheduling import Warmup as Warmup
from .sequences import ControlInput as ControlInput
from .sequences import Sequence as Sequence
from .sequences import State as State

Backend = Literal["python", "native"]
LARGEST_BATCH = 32  # where nothing says how large batches may be


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Deployment of one model.

    `name` is the model's name in Triton, `release` its name in the registry (default: the same). `triton` is the
    release that is to read the configuration. `threads` are the engine's threads inside one operator, for each
    instance. `max_batch_size` 0 means that the model does not batch: its tensors' first axis is its own. `engine` says
    what executes the model (None: in the Python backend the engine that the artifact was measured in, else ONNX
    Runtime; in the native one ONNX Runtime or TensorRT with its own defaults). Versions are always served by number:
    nothing goes live by being copied into a folder.

    Raises:
        ConfigRuleError: a field breaks a rule; names field, rule and fix.
    """

    schema: int
    name: str
    release: str = ""
    backend: Annotated[Backend, renamed("backend", old="flavour")] = "python"
    triton: str = DEFAULT
    max_batch_size: int
    threads: int = 1
    batching: Batching = field(default_factory=Batching)
    queue: Queue | None = None
    priorities: Priorities | None = None
    sequence: Sequence | None = None
    instances: Instances = field(default_factory=Instances)
    warmup: Warmup = field(default_factory=Warmup)
    response_cache: ResponseCache | None = None
    cache: Cache | None = None
    engine: Engine | None = None

    def __post_init__(self) -> None:
        if not self.release:
            object.__setattr__(self, "release", self.name)
        for broken in broken_rules(self):
            raise broken.error()

    def with_backend(self, backend: Backend | None) -> "Deployment":
        """The same deployment in the other backend, without an engine that it lacks; None leaves it as it is."""
        if backend is None or backend == self.backend:
            return self
        kept = self.engine is not None and self.engine.kind in KINDS[backend]
        return replace(self, backend=backend, engine=self.engine if kept else None)


def default_deployment(artifact: Artifact, name: str) -> Deployment:
    """Serve an artifact as it is: by the Python backend, in batches where it takes any number of samples."""
    return Deployment(schema=SCHEMA, name=name, max_batch_size=LARGEST_BATCH if artifact.batches else 0)
