"""Rules of scheduling in a configuration: batch sizes, delays, queues, priorities."""

from collections.abc import Iterator
from typing import Any

from ...deployment import Broken
from . import sequences
from .sequences import preferred_sizes


def broken_rules(config: Any) -> Iterator[Broken]:
    """Every rule that the scheduling breaks."""
    if config.max_batch_size < 0:
        yield Broken(
            field="max_batch_size",
            rule=f"must not be negative, got {config.max_batch_size}; Triton refuses the model",
            fix="use 0 or more",
        )
    if config.HasField("dynamic_batching"):
        yield from preferred_sizes("dynamic_batching", config.dynamic_batching, config.max_batch_size)
        yield from _dynamic(config.dynamic_batching, config.max_batch_size)
        yield from _queues(config.dynamic_batching)
    if config.HasField("sequence_batching"):
        yield from sequences.broken_rules(config)


def _dynamic(batching: Any, limit: int) -> Iterator[Broken]:
    queued = batching.HasField("default_queue_policy") or batching.priority_levels
    if limit == 0 and (not queued or batching.max_queue_delay_microseconds):
        yield Broken(
            field="dynamic_batching",
            rule="no effect: with max_batch_size 0 nothing is batched, and Triton does not warn",
            fix="set max_batch_size, or remove dynamic_batching",
            severity="warning",
        )
    if batching.preserve_ordering:
        if batching.priority_levels > 1:
            yield Broken(
                field="dynamic_batching.preserve_ordering",
                rule="Triton refuses it together with more than one priority level",
                fix="remove one of the two",
            )
        late = [policy for _, policy in _policies(batching) if _delays(policy)]
        if late:
            yield Broken(
                field="dynamic_batching.preserve_ordering",
                rule="Triton refuses it together with timeout_action DELAY",
                fix="write REJECT, or remove preserve_ordering",
            )
    levels, default = batching.priority_levels, batching.default_priority_level
    if levels and not 1 <= default <= levels:
        yield Broken(
            field="dynamic_batching.default_priority_level",
            rule=f"must be between 1 and priority_levels = {levels}, got {default}; Triton refuses the model",
            fix="name the level of requests without a priority",
        )
    if not levels and (default or batching.priority_queue_policy):
        yield Broken(
            field="dynamic_batching.priority_levels",
            rule="with 0 levels the default level and the policies of levels have no effect",
            fix="write the number of levels",
            severity="warning",
        )
    for level in batching.priority_queue_policy if levels else ():
        if not 1 <= level <= levels:
            yield Broken(
                field="dynamic_batching.priority_queue_policy",
                rule=(f"level must be between 1 and priority_levels = {levels}, got {level}; Triton refuses the model"),
                fix="remove it, or raise priority_levels",
            )


def _policies(batching: Any) -> Iterator[tuple[str, Any]]:
    if batching.HasField("default_queue_policy"):
        yield "dynamic_batching.default_queue_policy", batching.default_queue_policy
    for level in sorted(batching.priority_queue_policy):
        yield f"dynamic_batching.priority_queue_policy.{level}", batching.priority_queue_policy[level]


def _delays(policy: Any) -> bool:
    from tritonclient.grpc import model_config_pb2 as pb

    return bool(policy.timeout_action == pb.ModelQueuePolicy.DELAY and policy.default_timeout_microseconds)


def _queues(batching: Any) -> Iterator[Broken]:
    for field, policy in _policies(batching):
        timeout = policy.default_timeout_microseconds
        if policy.allow_timeout_override and timeout == 0:
            yield Broken(
                field=f"{field}.allow_timeout_override",
                rule=(
                    "no effect with a default timeout of 0: only a timeout shorter than the default counts, so "
                    "the clients' own are ignored"
                ),
                fix="set default_timeout_microseconds",
                severity="warning",
            )
        if timeout and batching.max_queue_delay_microseconds >= timeout and not _delays(policy):
            yield Broken(
                field=f"{field}.default_timeout_microseconds",
                rule=(
                    f"must be above max_queue_delay_microseconds = {batching.max_queue_delay_microseconds}, got "
                    f"{timeout}: a single request would expire while it waits for others"
                ),
                fix="lower the delay or raise the timeout",
                effect="loads",
            )
