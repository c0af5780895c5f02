"""The rules that a deployment breaks by itself, whatever the artifact; each names its field and its fix.

Pure: reads one value. The rules between a deployment and an artifact stand in `serve.triton.compiler.rules`.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from seatrial.optimize.names import LONGEST, fault

from ..triton_releases import RELEASES, known
from . import engines, python_engines, sequences
from .broken import Broken, outside, repeated
from .scheduling import Queue

if TYPE_CHECKING:
    from . import Deployment

BACKENDS = ("python", "native")
SCHEMA = 1

# A Triton model's name is its directory's name, and stands in URLs and metric labels.
_INT32 = 2**31 - 1
_DAY_MS = 86_400_000


def broken_rules(deployment: "Deployment") -> Iterator[Broken]:
    """Every rule that the deployment breaks by itself."""
    yield from _identity(deployment)
    yield from _batching(deployment)
    if deployment.queue is not None:
        yield from _queue("queue", deployment.queue)
    yield from _priorities(deployment)
    yield from _instances(deployment)
    yield from _resources(deployment)
    yield from _warmup(deployment)
    yield from _sequence(deployment)
    if deployment.response_cache is not None:
        yield from outside(
            "response_cache.size_bytes", deployment.response_cache.size_bytes, 1 << 20, 1 << 40, "give bytes"
        )
    if deployment.cache is not None and deployment.backend != "python":
        yield Broken(
            field="cache",
            rule='the cache of answers lives in model.py, which only backend = "python" has',
            fix="remove the table, or write [response_cache] for Triton's own cache",
        )
    if deployment.engine is not None:
        yield from engines.broken_rules(deployment.engine, deployment.instances.kind, deployment.backend)
        yield from python_engines.broken_rules(deployment)


def identity(schema: int, wanted: int, names: Mapping[str, str]) -> Iterator[Broken]:
    """The rules of a document's schema number and of the names in it."""
    if schema != wanted:
        yield Broken(
            field="schema",
            rule=f"schema must be {wanted}, got {schema}",
            fix=f"write schema = {wanted} and its fields",
        )
    yield from legal_names(names)


def legal_names(names: Mapping[str, str]) -> Iterator[Broken]:
    """The rule of names, which become directories and parts of paths, by field."""
    for key, value in names.items():
        if wrong := fault(value):
            yield Broken(
                field=key,
                rule=f"invalid name {value[:60]!r}: {wrong}",
                fix=(
                    f"use letters, digits, '_', '-' and '.', starting with a letter or digit, at most {LONGEST} "
                    "characters"
                ),
            )


def release(triton: str) -> Iterator[Broken]:
    """The rule of the Triton release that is to read the configuration."""
    if known(triton) is None:
        yield Broken(
            field="triton",
            rule=f"{triton!r} is not a known release; the oldest known one is {RELEASES[0]}",
            fix=f"name the server's version, {RELEASES[0]} or later",
        )


def _identity(deployment: "Deployment") -> Iterator[Broken]:
    yield from identity(deployment.schema, SCHEMA, {"name": deployment.name, "release": deployment.release})
    yield from release(deployment.triton)
    if deployment.backend not in BACKENDS:
        yield Broken(
            field="backend", rule=f"unknown backend {deployment.backend!r}", fix=f"use one of {', '.join(BACKENDS)}"
        )
    fix = "divide the cores among the instances; 1 is right for small models"
    note = " (0 would give every core to every instance)"
    yield from outside("threads", deployment.threads, 1, 1024, fix, note=note)


def _batching(deployment: "Deployment") -> Iterator[Broken]:
    limit, batching = deployment.max_batch_size, deployment.batching
    fix = "use the largest batch you measured, or 0 for a model without batching"
    yield from outside("max_batch_size", limit, 0, _INT32, fix)
    for size in batching.preferred_sizes:
        fix, note = "remove it, or raise max_batch_size", "; Triton refuses the model"
        field = "batching.preferred_sizes"
        yield from outside(field, size, 1, limit, fix, high_is="max_batch_size", note=note)
    yield from repeated("batching.preferred_sizes", batching.preferred_sizes)
    delay = batching.max_queue_delay_us
    if delay < 0:
        yield Broken(
            field="batching.max_queue_delay_us", rule=f"must not be negative, got {delay}", fix="use 0 or more"
        )
    if delay > 0 and batching.preferred_sizes:
        yield Broken(
            field="batching.preferred_sizes",
            rule="Triton ignores preferred sizes when max_queue_delay_us is set and requests are queued",
            fix="set max_batch_size to the wanted size and leave preferred_sizes empty, or set the delay to 0",
        )
    if delay > 0 and limit == 0:
        yield Broken(
            field="batching.max_queue_delay_us",
            rule="with max_batch_size 0 nothing is batched, so a delay would only add latency",
            fix="set the delay to 0, or max_batch_size above 0",
        )
    if deployment.queue is not None and delay >= max(1, deployment.queue.timeout_ms) * 1000:
        yield Broken(
            field="batching.max_queue_delay_us",
            rule=(
                f"must be below queue.timeout_ms = {deployment.queue.timeout_ms}, got {delay} us: requests would expire"
            ),
            fix="lower the delay or raise the timeout",
        )
    if batching.preserve_ordering and deployment.queue is not None and deployment.queue.action == "delay":
        yield Broken(
            field="queue.action",
            rule=(
                "with preserve_ordering a delayed request would block every later response, so Triton refuses the model"
            ),
            fix='write action = "reject", or remove preserve_ordering',
        )


def _queue(field: str, queue: Queue) -> Iterator[Broken]:
    fix = "limit it to the requests that can be served within the timeout"
    yield from outside(f"{field}.max_size", queue.max_size, 1, _INT32, fix, note="; 0 would be an unbounded queue")
    fix = "give the longest wait that is still useful to the caller"
    note = "; with 0 Triton also ignores the clients' own timeouts"
    yield from outside(f"{field}.timeout_ms", queue.timeout_ms, 1, _DAY_MS, fix, note=note)
    if queue.action not in ("reject", "delay"):
        yield Broken(field=f"{field}.action", rule=f"unknown action {queue.action!r}", fix="use reject or delay")


def _priorities(deployment: "Deployment") -> Iterator[Broken]:
    priorities = deployment.priorities
    if priorities is None:
        return
    yield from outside("priorities.levels", priorities.levels, 1, 1024, "two or three levels are enough")
    fix = "name the level of requests without a priority; level 1 is served first"
    field, note = "priorities.default", "; Triton refuses the model"
    yield from outside(field, priorities.default, 1, priorities.levels, fix, high_is="levels", note=note)
    if priorities.levels > 1 and deployment.batching.preserve_ordering:
        yield Broken(
            field="batching.preserve_ordering",
            rule="priorities reorder requests, so Triton refuses them together with preserve_ordering",
            fix="remove one of the two",
        )
    if deployment.max_batch_size == 0 and deployment.queue is None:
        yield Broken(
            field="priorities",
            rule="a model without batching needs [queue] for priority levels",
            fix="add [queue], or set max_batch_size above 0",
        )
    yield from repeated("priorities.queues.level", [each.level for each in priorities.queues])
    for each in priorities.queues:
        fix = "remove it, or raise levels"
        yield from outside("priorities.queues.level", each.level, 1, priorities.levels, fix, high_is="levels")
        yield from _queue("priorities.queues.queue", each.queue)
        if each.queue.action == "delay" and deployment.batching.preserve_ordering:
            yield Broken(
                field="priorities.queues.queue.action",
                rule="Triton refuses delay together with preserve_ordering",
                fix='write action = "reject"',
            )


def _instances(deployment: "Deployment") -> Iterator[Broken]:
    instances = deployment.instances
    yield from outside("instances.count", instances.count, 1, _INT32, "use 1 or more")
    if instances.kind not in ("cpu", "gpu"):
        yield Broken(field="instances.kind", rule=f"unknown kind {instances.kind!r}", fix="use cpu or gpu")
    if instances.gpus and instances.kind == "cpu":
        yield Broken(
            field="instances.gpus",
            rule="an instance on the CPU must not list GPUs; Triton refuses the model",
            fix='remove the list, or write kind = "gpu"',
        )
    if len(set(instances.gpus)) != len(instances.gpus) or any(not 0 <= gpu <= _INT32 for gpu in instances.gpus):
        yield Broken(
            field="instances.gpus",
            rule=f"must be distinct device numbers from 0, got {list(instances.gpus)}",
            fix="list each GPU once",
        )


def _resources(deployment: "Deployment") -> Iterator[Broken]:
    resources = deployment.instances.resources
    yield from outside(
        "instances.priority", deployment.instances.priority, 0, _INT32, "0 and 1 are the highest priorities"
    )
    yield from repeated(
        "instances.resources.name",
        [each.name for each in resources],
        "name each resource once: it is either global or per device",
    )
    for each in resources:
        if not each.name or any(sign in each.name for sign in ": "):
            yield Broken(
                field="instances.resources.name",
                rule=f"invalid resource name {each.name!r}",
                fix="use letters and digits",
            )
        yield from outside("instances.resources.count", each.count, 1, _INT32, "use 1 or more")
        if each.available is not None and each.available < each.count:
            yield Broken(
                field="instances.resources.available",
                rule=f"{each.available} is less than the {each.count} that one instance needs: it would never run",
                fix="raise it, or omit it",
            )


def _warmup(deployment: "Deployment") -> Iterator[Broken]:
    warmup, limit = deployment.warmup, max(deployment.max_batch_size, 1)
    for size in warmup.batch_sizes:
        fix = "use at most max_batch_size; a model without batching warms up with 1"
        yield from outside("warmup.batch_sizes", size, 1, limit, fix, note=" (Triton skips 0 silently)")
    yield from repeated("warmup.batch_sizes", warmup.batch_sizes)
    yield from outside("warmup.repeat", warmup.repeat, 1, 1000, "two or three runs are enough")
    if warmup.buckets and not warmup.batch_sizes:
        yield Broken(
            field="warmup.buckets",
            rule="buckets have no effect without batch sizes",
            fix="add batch_sizes, or remove the buckets",
        )
    for field, shapes in (
        ("warmup.shapes", warmup.shapes),
        *((f"warmup.buckets.{number}.shapes", bucket.shapes) for number, bucket in enumerate(warmup.buckets)),
    ):
        for name, shape in shapes.items():
            if any(not 1 <= size <= _INT32 for size in shape):
                yield Broken(
                    field=f"{field}.{name}",
                    rule=f"must have sizes of at least 1, got {list(shape)}",
                    fix="use sizes of at least 1",
                )


def _sequence(deployment: "Deployment") -> Iterator[Broken]:
    if deployment.sequence is None:
        return
    yield from sequences.broken_rules(deployment.sequence, deployment.max_batch_size)
    if deployment.backend == "python":
        yield Broken(
            field="backend",
            rule='backend = "python" has no implicit state: its model.py answers each request independently',
            fix='write backend = "native"',
        )
    if deployment.batching != type(deployment.batching)() or deployment.queue is not None or deployment.priorities:
        yield Broken(
            field="sequence",
            rule="sequence scheduling replaces the dynamic batcher, so batching, queue and priorities would be ignored",
            fix="remove them; sequence has its own delay",
        )
    if deployment.response_cache is not None:
        yield Broken(
            field="response_cache",
            rule="Triton refuses the cache for sequences, because answers depend on earlier requests",
            fix="remove one of the two",
        )
    if deployment.warmup.batch_sizes:
        yield Broken(
            field="warmup.batch_sizes",
            rule="warm-up bypasses the sequence batcher, so controls and states would be missing",
            fix="leave it empty, and send one sequence before production traffic",
        )
