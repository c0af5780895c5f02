"""The deployment: how one model is to be served, as an engineer writes it down.

Only says and checks itself; what the file means to Triton is `serve.triton.config`'s business. Every rule here is one
that Triton would break silently or refuse without a reason ("failed to poll from model repository"), so it is checked
before a server sees it. The one document yields both flavours: the python backend (ONNX Runtime in our model.py, runs
where only the python backend is installed) and the native backends of a full Triton.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from .caching import Cache
from .errors import ConfigRuleError

Flavour = Literal["python", "native"]
FLAVOURS: tuple[Flavour, ...] = ("python", "native")
SCHEMA = 1

# A Triton model's name is its directory's name, and stands in URLs and metric labels.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_INT32 = 2**31 - 1
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """One broken rule: the field as the file spells it, what is wrong, how to mend it."""

    field: str
    rule: str
    mend: str

    def error(self) -> ConfigRuleError:
        """The rule as an error to raise."""
        return ConfigRuleError(f"{self.field}: {self.rule}", where=self.field, next_step=self.mend)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """Dynamic batching. Delay 0 (microseconds) sends what has queued up while the model was busy, and no less soon."""

    max_queue_delay_us: int = 0
    preferred_sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Bounds on waiting: requests in the queue, and how long (milliseconds) one may wait before a 503.

    They have a price in Triton 2.51: under any such policy its batcher no longer prepares the next batch while one
    runs, misses wake-ups, and now and then lets a request wait for half a second in an empty server (measured in
    docs/benchmarks.md). So there is none unless a deployment asks for it; bound what comes in before the server.
    """

    max_size: int = 256
    timeout_ms: int = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """Copies of the model: per machine on the CPU, per GPU on GPUs (`gpus` empty means every visible one)."""

    count: int = 1
    kind: Literal["cpu", "gpu"] = "cpu"
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmup:
    """Batch sizes to run once before the model counts as ready; `shapes` fixes inputs whose own axes are symbolic.

    A shape is written without the batch axis: ``shapes = { images = [3, 480, 640] }``.
    """

    batch_sizes: tuple[int, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """How one model is served.

    `name` is the model's name in Triton, `release` its name in the registry (default: the same). `threads` are ONNX
    Runtime's threads inside one operator, for each instance. `max_batch_size` 0 means that the model does not batch:
    its tensors' first axis is its own.

    Raises:
        ConfigRuleError: a field breaks a rule; names field, rule and mend.
    """

    schema: int
    name: str
    release: str = ""
    flavour: Flavour = "python"
    max_batch_size: int
    threads: int = 1
    batching: Batching = Batching()
    queue: Queue | None = None
    instances: Instances = Instances()
    warmup: Warmup = Warmup()
    cache: Cache | None = None

    def __post_init__(self) -> None:
        if not self.release:
            object.__setattr__(self, "release", self.name)
        for broken in broken_rules(self):
            raise broken.error()

    def flavoured(self, flavour: Flavour | None) -> "Deployment":
        """The same deployment in the other flavour; None leaves it as it is."""
        return self if flavour is None or flavour == self.flavour else replace(self, flavour=flavour)


def broken_rules(deployment: Deployment) -> Iterator[Broken]:
    """Every rule that the deployment breaks by itself, whatever the artifact."""
    yield from _identity(deployment)
    yield from _batching(deployment)
    yield from _queue(deployment)
    yield from _instances(deployment)
    yield from _warmup(deployment)


def _identity(deployment: Deployment) -> Iterator[Broken]:
    if deployment.schema != SCHEMA:
        yield Broken(
            field="schema",
            rule=f"this version reads schema {SCHEMA}, not {deployment.schema}",
            mend=f"write schema = {SCHEMA} and the fields that go with it",
        )
    for key in ("name", "release"):
        value = getattr(deployment, key)
        if not _NAME.fullmatch(value):
            yield Broken(
                field=key,
                rule=f"{value!r} is no legal name",
                mend="use letters, digits, '_', '-' and '.', starting with a letter or digit, at most 128",
            )
    if deployment.flavour not in FLAVOURS:
        yield Broken(field="flavour", rule=f"{deployment.flavour!r} is none", mend=f"use one of {', '.join(FLAVOURS)}")
    if not 1 <= deployment.threads <= 1024:
        yield Broken(
            field="threads",
            rule=f"{deployment.threads} is not from 1 to 1024 (0 would mean every core for every instance)",
            mend="give each instance its share of the cores; 1 is right for small models",
        )


def _batching(deployment: Deployment) -> Iterator[Broken]:
    limit, batching = deployment.max_batch_size, deployment.batching
    if not 0 <= limit <= _INT32:
        yield Broken(
            field="max_batch_size",
            rule=f"{limit} is not from 0 to {_INT32}",
            mend="use the largest batch you measured, or 0 for a model that does not batch",
        )
    for size in batching.preferred_sizes:
        if not 1 <= size <= limit:
            yield Broken(
                field="batching.preferred_sizes",
                rule=f"{size} is not from 1 to max_batch_size = {limit}; Triton refuses the model",
                mend="drop it or raise max_batch_size",
            )
    if len(set(batching.preferred_sizes)) != len(batching.preferred_sizes):
        yield Broken(field="batching.preferred_sizes", rule="a size stands twice", mend="write each size once")
    delay = batching.max_queue_delay_us
    if delay < 0:
        yield Broken(field="batching.max_queue_delay_us", rule=f"{delay} is negative", mend="use 0 or more")
    if delay > 0 and batching.preferred_sizes:
        yield Broken(
            field="batching.preferred_sizes",
            rule="with any max_queue_delay_us and a backlog Triton ignores preferred sizes",
            mend="set max_batch_size to the size you want and leave preferred_sizes empty, or set the delay to 0",
        )
    if delay > 0 and limit == 0:
        yield Broken(
            field="batching.max_queue_delay_us",
            rule="max_batch_size 0 never batches, so a delay would only add latency",
            mend="set the delay to 0, or max_batch_size above 0",
        )
    if deployment.queue is not None and delay >= max(1, deployment.queue.timeout_ms) * 1000:
        yield Broken(
            field="batching.max_queue_delay_us",
            rule=f"{delay} us is not below queue.timeout_ms = {deployment.queue.timeout_ms}: requests would expire",
            mend="lower the delay or raise the timeout",
        )


def _queue(deployment: Deployment) -> Iterator[Broken]:
    queue = deployment.queue
    if queue is None:
        return
    if not 1 <= queue.max_size <= _INT32:
        yield Broken(
            field="queue.max_size",
            rule=f"{queue.max_size} is not from 1 to {_INT32}; 0 would be a queue without end",
            mend="bound it by what can be served within the timeout",
        )
    if not 1 <= queue.timeout_ms <= _DAY_MS:
        yield Broken(
            field="queue.timeout_ms",
            rule=f"{queue.timeout_ms} is not from 1 to {_DAY_MS}; with 0 Triton drops the clients' own timeouts too",
            mend="write the longest wait that still helps the caller",
        )


def _instances(deployment: Deployment) -> Iterator[Broken]:
    instances = deployment.instances
    if not 1 <= instances.count <= _INT32:
        yield Broken(field="instances.count", rule=f"{instances.count} is below 1 or absurd", mend="use 1 or more")
    if instances.kind not in ("cpu", "gpu"):
        yield Broken(field="instances.kind", rule=f"{instances.kind!r} is no kind", mend="use cpu or gpu")
    if instances.gpus and instances.kind == "cpu":
        yield Broken(
            field="instances.gpus",
            rule="an instance on the CPU may not list GPUs; Triton refuses the model",
            mend='drop the list or write kind = "gpu"',
        )
    if len(set(instances.gpus)) != len(instances.gpus) or any(not 0 <= gpu <= _INT32 for gpu in instances.gpus):
        yield Broken(field="instances.gpus", rule="not distinct device numbers from 0", mend="list each GPU once")


def _warmup(deployment: Deployment) -> Iterator[Broken]:
    sizes, limit = deployment.warmup.batch_sizes, deployment.max_batch_size
    for size in sizes:
        if not 1 <= size <= max(limit, 1):
            yield Broken(
                field="warmup.batch_sizes",
                rule=f"{size} is not from 1 to {max(limit, 1)} (0 would be skipped silently)",
                mend="keep to max_batch_size; a model that does not batch warms up with 1",
            )
    if len(set(sizes)) != len(sizes):
        yield Broken(field="warmup.batch_sizes", rule="a size stands twice", mend="write each size once")
    for name, shape in deployment.warmup.shapes.items():
        if any(not 1 <= size <= _INT32 for size in shape):
            yield Broken(field=f"warmup.shapes.{name}", rule=f"{list(shape)} is not concrete", mend="use sizes from 1")
