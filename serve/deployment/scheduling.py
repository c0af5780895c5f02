"""Scheduling of a deployment: queues, batching, and instances of a model.

Types only; their rules stand in `rules`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """Dynamic batching. With delay 0 (microseconds), queued requests are dispatched immediately.

    `preserve_ordering` lets every response wait for the one before it.
    """

    max_queue_delay_us: int = 0
    preferred_sizes: tuple[int, ...] = ()
    preserve_ordering: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Bounds on waiting: requests in the queue, and how long (milliseconds) one may wait before a 503.

    They have a price in Triton 2.51: under any such policy its batcher no longer prepares the next batch while one
    runs, misses wake-ups, and now and then lets a request wait for half a second in an empty server (measured in
    docs/benchmarks.md). So there is none unless a deployment asks for it; bound what comes in before the server.

    `action` "delay" serves late requests after all others instead of refusing them. `allow_override` lets a client ask
    for a shorter wait; Triton drops a longer one.
    """

    max_size: int = 256
    timeout_ms: int = 2000
    action: Literal["reject", "delay"] = "reject"
    allow_override: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelQueue:
    """The bounds of one priority level, in place of `queue`."""

    level: int
    queue: Queue


@dataclass(frozen=True, slots=True, kw_only=True)
class Priorities:
    """Strict priorities: level 1 before 2 and so on, up to `levels`; `default` is for requests that name none.

    A level below may starve. A level out of range counts as the default, silently.
    """

    levels: int
    default: int
    queues: tuple[LevelQueue, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """Resource of which an instance holds `count` while it executes; models that share a name take turns.

    `everywhere` shares it across devices instead of one pool for each. `available` is how much there is; None leaves it
    to Triton, which takes the most that any instance asks for.
    """

    name: str
    count: int = 1
    everywhere: bool = False
    available: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """Copies of the model: per machine on the CPU, per GPU on GPUs (`gpus` empty means every visible one).

    `resources` and `priority` are for the rate limiter, which Triton ignores unless it is started for it (see
    `serve.triton.compiler.flags`): an instance of priority 2 gets half the turns of one of priority 1.
    """

    count: int = 1
    kind: Literal["cpu", "gpu"] = "cpu"
    gpus: tuple[int, ...] = ()
    resources: tuple[Resource, ...] = ()
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """One set of concrete input shapes, without the batch axis, that the model is to have seen before it is ready."""

    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmup:
    """Batch sizes to run before the model counts as ready; `shapes` fixes inputs whose own axes are symbolic.

    A shape is written without the batch axis: ``shapes = { images = [3, 480, 640] }``. Warming up bypasses the batcher,
    so every size is run as such, `repeat` times, for `shapes` and for every one of `buckets`.
    """

    batch_sizes: tuple[int, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    buckets: tuple[Bucket, ...] = ()
    repeat: int = 1

    @property
    def every_bucket(self) -> tuple[Mapping[str, tuple[int, ...]], ...]:
        """All sets of shapes to run: `shapes` where it is all there is or says something, then the buckets."""
        first = (self.shapes,) if self.shapes or not self.buckets else ()
        return (*first, *(bucket.shapes for bucket in self.buckets))


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseCache:
    """Triton's own response cache, of `size_bytes` for the whole server; only where its key is safe."""

    size_bytes: int = 64 << 20
