"""The rules that a deployment breaks by itself, whatever the artifact; each names its field and its mend.

Pure: reads one value. The rules between a deployment and an artifact stand in `serve.triton.compiler.rules`.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from optimize.names import LONGEST, fault

from . import engines, sequences
from .broken import Broken, outside, repeated
from .releases import RELEASES, known
from .scheduling import Queue

if TYPE_CHECKING:
    from . import Deployment

FLAVOURS = ("python", "native")
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
            "response_cache.size_bytes", deployment.response_cache.size_bytes, 1 << 20, 1 << 40, "write bytes"
        )
    if deployment.cache is not None and deployment.flavour != "python":
        yield Broken(
            field="cache",
            rule="answers are kept inside our model.py, which only the python flavour has",
            mend="drop the table, or for Triton's own cache write [response_cache]",
        )
    if deployment.engine is not None:
        yield from engines.broken_rules(deployment.engine, deployment.instances.kind)


def identity(schema: int, wanted: int, names: Mapping[str, str]) -> Iterator[Broken]:
    """The rules of a document's schema number and of the names in it."""
    if schema != wanted:
        yield Broken(
            field="schema",
            rule=f"this version reads schema {wanted}, not {schema}",
            mend=f"write schema = {wanted} and the fields that go with it",
        )
    yield from legal_names(names)


def legal_names(names: Mapping[str, str]) -> Iterator[Broken]:
    """The rule of names, which become directories and parts of paths, by field."""
    for key, value in names.items():
        if wrong := fault(value):
            yield Broken(
                field=key,
                rule=f"{value[:60]!r} is no legal name: {wrong}",
                mend=f"use letters, digits, '_', '-' and '.', starting with a letter or digit, at most {LONGEST}",
            )


def release(triton: str) -> Iterator[Broken]:
    """The rule of the Triton release that is to read the configuration."""
    if known(triton) is None:
        yield Broken(
            field="triton",
            rule=f"{triton!r} is older than every release whose fields are known here, or no version",
            mend=f"name the server's version, {RELEASES[0]} or later",
        )


def _identity(deployment: "Deployment") -> Iterator[Broken]:
    yield from identity(deployment.schema, SCHEMA, {"name": deployment.name, "release": deployment.release})
    yield from release(deployment.triton)
    if deployment.flavour not in FLAVOURS:
        yield Broken(field="flavour", rule=f"{deployment.flavour!r} is none", mend=f"use one of {', '.join(FLAVOURS)}")
    if not 1 <= deployment.threads <= 1024:
        yield Broken(
            field="threads",
            rule=f"{deployment.threads} is not from 1 to 1024 (0 would mean every core for every instance)",
            mend="give each instance its share of the cores; 1 is right for small models",
        )


def _batching(deployment: "Deployment") -> Iterator[Broken]:
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
    yield from repeated("batching.preferred_sizes", batching.preferred_sizes)
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
    if batching.preserve_ordering and deployment.queue is not None and deployment.queue.action == "delay":
        yield Broken(
            field="queue.action",
            rule="a delayed request would hold up every response after it; Triton refuses it with preserve_ordering",
            mend='write action = "reject", or drop preserve_ordering',
        )


def _queue(field: str, queue: Queue) -> Iterator[Broken]:
    if not 1 <= queue.max_size <= _INT32:
        yield Broken(
            field=f"{field}.max_size",
            rule=f"{queue.max_size} is not from 1 to {_INT32}; 0 would be a queue without end",
            mend="bound it by what can be served within the timeout",
        )
    if not 1 <= queue.timeout_ms <= _DAY_MS:
        yield Broken(
            field=f"{field}.timeout_ms",
            rule=f"{queue.timeout_ms} is not from 1 to {_DAY_MS}; with 0 Triton drops the clients' own timeouts too",
            mend="write the longest wait that still helps the caller",
        )
    if queue.action not in ("reject", "delay"):
        yield Broken(field=f"{field}.action", rule=f"{queue.action!r} is none", mend="use reject or delay")


def _priorities(deployment: "Deployment") -> Iterator[Broken]:
    priorities = deployment.priorities
    if priorities is None:
        return
    yield from outside("priorities.levels", priorities.levels, 1, 1024, "two or three levels are enough")
    if not 1 <= priorities.default <= priorities.levels:
        yield Broken(
            field="priorities.default",
            rule=f"{priorities.default} is not from 1 to levels = {priorities.levels}; Triton refuses the model",
            mend="name the level of requests that ask for none; 1 is served first",
        )
    if priorities.levels > 1 and deployment.batching.preserve_ordering:
        yield Broken(
            field="batching.preserve_ordering",
            rule="priorities overtake, so Triton refuses them together with preserve_ordering",
            mend="drop one of the two",
        )
    if deployment.max_batch_size == 0 and deployment.queue is None:
        yield Broken(
            field="priorities",
            rule="a model that does not batch has no queue with levels unless [queue] asks for one",
            mend="add [queue], or set max_batch_size above 0",
        )
    yield from repeated("priorities.queues.level", [each.level for each in priorities.queues])
    for each in priorities.queues:
        if not 1 <= each.level <= priorities.levels:
            yield Broken(
                field="priorities.queues.level",
                rule=f"{each.level} is not from 1 to levels = {priorities.levels}",
                mend="drop it or raise levels",
            )
        yield from _queue("priorities.queues.queue", each.queue)
        if each.queue.action == "delay" and deployment.batching.preserve_ordering:
            yield Broken(
                field="priorities.queues.queue.action",
                rule="Triton refuses delay with preserve_ordering",
                mend='write action = "reject"',
            )


def _instances(deployment: "Deployment") -> Iterator[Broken]:
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


def _resources(deployment: "Deployment") -> Iterator[Broken]:
    resources = deployment.instances.resources
    yield from outside("instances.priority", deployment.instances.priority, 0, _INT32, "0 and 1 are the first")
    yield from repeated(
        "instances.resources.name",
        [each.name for each in resources],
        "one resource cannot be both everywhere and for each device; name each once",
    )
    for each in resources:
        if not each.name or any(sign in each.name for sign in ": "):
            yield Broken(
                field="instances.resources.name",
                rule=f"{each.name!r} is no name for a flag of the server",
                mend="use letters and digits",
            )
        yield from outside("instances.resources.count", each.count, 1, _INT32, "use 1 or more")
        if each.available is not None and each.available < each.count:
            yield Broken(
                field="instances.resources.available",
                rule=f"{each.available} is less than the {each.count} that one instance needs: it would never run",
                mend="raise it, or leave it out",
            )


def _warmup(deployment: "Deployment") -> Iterator[Broken]:
    warmup, limit = deployment.warmup, max(deployment.max_batch_size, 1)
    for size in warmup.batch_sizes:
        if not 1 <= size <= limit:
            yield Broken(
                field="warmup.batch_sizes",
                rule=f"{size} is not from 1 to {limit} (0 would be skipped silently)",
                mend="keep to max_batch_size; a model that does not batch warms up with 1",
            )
    yield from repeated("warmup.batch_sizes", warmup.batch_sizes)
    yield from outside("warmup.repeat", warmup.repeat, 1, 1000, "two or three runs are enough")
    if warmup.buckets and not warmup.batch_sizes:
        yield Broken(
            field="warmup.buckets", rule="without batch sizes nothing is run", mend="add batch_sizes, or drop them"
        )
    for field, shapes in (
        ("warmup.shapes", warmup.shapes),
        *((f"warmup.buckets.{number}.shapes", bucket.shapes) for number, bucket in enumerate(warmup.buckets)),
    ):
        for name, shape in shapes.items():
            if any(not 1 <= size <= _INT32 for size in shape):
                yield Broken(field=f"{field}.{name}", rule=f"{list(shape)} is not concrete", mend="use sizes from 1")


def _sequence(deployment: "Deployment") -> Iterator[Broken]:
    if deployment.sequence is None:
        return
    yield from sequences.broken_rules(deployment.sequence, deployment.max_batch_size)
    if deployment.flavour == "python":
        yield Broken(
            field="flavour",
            rule="the python backend has no implicit state, and our model.py answers each request by itself",
            mend='write flavour = "native"',
        )
    if deployment.batching != type(deployment.batching)() or deployment.queue is not None or deployment.priorities:
        yield Broken(
            field="sequence",
            rule="a model is scheduled by sequence or by the dynamic batcher, so batching, queue and priorities would "
            "be lost",
            mend="drop them; the sequence has its own delay",
        )
    if deployment.response_cache is not None:
        yield Broken(
            field="response_cache",
            rule="Triton refuses the cache for sequences: the answer depends on the requests before",
            mend="drop one of the two",
        )
    if deployment.warmup.batch_sizes:
        yield Broken(
            field="warmup.batch_sizes",
            rule="warming up bypasses the sequence batcher, so controls and states would be missing",
            mend="leave it empty, and send one sequence before traffic comes",
        )
