"""Rules of scheduling in a configuration: batch sizes, delays, queues, priorities, sequences."""

from collections.abc import Iterator
from typing import Any

from ...deployment import Broken


def broken_rules(config: Any) -> Iterator[Broken]:
    """Every rule that the scheduling breaks."""
    if config.max_batch_size < 0:
        yield Broken(field="max_batch_size", rule=f"{config.max_batch_size} is negative; refused", mend="use 0 or more")
    if config.HasField("dynamic_batching"):
        yield from _sizes("dynamic_batching", config.dynamic_batching, config.max_batch_size)
        yield from _dynamic(config.dynamic_batching, config.max_batch_size)
        yield from _queues(config.dynamic_batching)
    if config.HasField("sequence_batching"):
        yield from _sequence(config.sequence_batching, config.max_batch_size)


def _sizes(field: str, batching: Any, limit: int) -> Iterator[Broken]:
    for size in batching.preferred_batch_size:
        if not 1 <= size <= limit:
            yield Broken(
                field=f"{field}.preferred_batch_size",
                rule=f"{size} is not from 1 to max_batch_size = {limit}; Triton refuses the model",
                mend="drop it or raise max_batch_size",
            )
    if batching.preferred_batch_size and batching.max_queue_delay_microseconds > 0:
        yield Broken(
            field=f"{field}.preferred_batch_size",
            rule="with any delay and a backlog Triton ignores preferred sizes",
            mend="set max_batch_size to the size you want and drop the preferred ones, or set the delay to 0",
            severity="warning",
        )


def _dynamic(batching: Any, limit: int) -> Iterator[Broken]:
    queued = batching.HasField("default_queue_policy") or batching.priority_levels
    if limit == 0 and (not queued or batching.max_queue_delay_microseconds):
        yield Broken(
            field="dynamic_batching",
            rule="with max_batch_size 0 nothing is ever batched, and Triton says nothing",
            mend="set max_batch_size, or drop dynamic_batching",
            severity="warning",
        )
    if batching.preserve_ordering:
        if batching.priority_levels > 1:
            yield Broken(
                field="dynamic_batching.preserve_ordering",
                rule="refused together with more than one priority level",
                mend="drop one of the two",
            )
        late = [policy for _, policy in _policies(batching) if _delays(policy)]
        if late:
            yield Broken(
                field="dynamic_batching.preserve_ordering",
                rule="refused together with timeout_action DELAY",
                mend="write REJECT, or drop preserve_ordering",
            )
    levels, default = batching.priority_levels, batching.default_priority_level
    if levels and not 1 <= default <= levels:
        yield Broken(
            field="dynamic_batching.default_priority_level",
            rule=f"{default} is not from 1 to priority_levels = {levels}; Triton refuses the model",
            mend="name the level of requests that ask for none",
        )
    if not levels and (default or batching.priority_queue_policy):
        yield Broken(
            field="dynamic_batching.priority_levels",
            rule="0, so the default level and the policies of levels do nothing",
            mend="write how many levels there are",
            severity="warning",
        )
    for level in batching.priority_queue_policy if levels else ():
        if not 1 <= level <= levels:
            yield Broken(
                field="dynamic_batching.priority_queue_policy",
                rule=f"level {level} is not from 1 to priority_levels = {levels}; Triton refuses the model",
                mend="drop it or raise priority_levels",
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
                rule="does nothing with a default timeout of 0: only a shorter timeout than the default counts, so the "
                "clients' own are dropped",
                mend="set default_timeout_microseconds",
                severity="warning",
            )
        if policy.max_queue_size < 0:
            yield Broken(field=f"{field}.max_queue_size", rule="negative", mend="use 0 for no bound, or a bound")
        if timeout and batching.max_queue_delay_microseconds >= timeout and not _delays(policy):
            yield Broken(
                field=f"{field}.default_timeout_microseconds",
                rule=f"{timeout} is not above max_queue_delay_microseconds = {batching.max_queue_delay_microseconds}: "
                "a request alone would expire while it waits for others",
                mend="lower the delay or raise the timeout",
            )


def _sequence(batching: Any, limit: int) -> Iterator[Broken]:
    from tritonclient.grpc import model_config_pb2 as pb

    field = "sequence_batching"
    if batching.HasField("direct"):
        share = batching.direct.minimum_slot_utilization
        if not 0 <= share <= 1:
            yield Broken(field=f"{field}.direct.minimum_slot_utilization", rule=f"{share} is no share", mend="use 0..1")
        if share == 0 and batching.direct.max_queue_delay_microseconds:
            yield Broken(
                field=f"{field}.direct.minimum_slot_utilization",
                rule="0, so the delay does nothing: Triton never waits for further slots",
                mend="write the share of slots to wait for, or drop the delay",
                severity="warning",
            )
    if batching.HasField("oldest"):
        yield from _sizes(f"{field}.oldest", batching.oldest, limit)
    kinds = [control.kind for each in batching.control_input for control in each.control]
    for kind in sorted({kind for kind in kinds if kinds.count(kind) > 1}):
        name = pb.ModelSequenceBatching.Control.Kind.Name(kind)
        yield Broken(field=f"{field}.control_input", rule=f"{name} stands twice; refused", mend="write it once")
    ids = (pb.TYPE_UINT64, pb.TYPE_INT64, pb.TYPE_UINT32, pb.TYPE_INT32, pb.TYPE_STRING)
    for each in batching.control_input:
        for control in each.control:
            flags = (control.int32_false_true, control.fp32_false_true, control.bool_false_true)
            is_id = control.kind == pb.ModelSequenceBatching.Control.CONTROL_SEQUENCE_CORRID
            legal = control.data_type in ids if is_id else sorted(len(values) for values in flags) == [0, 0, 2]
            if not legal:
                yield Broken(
                    field=f"{field}.control_input.{each.name}",
                    rule="an id needs a data_type of integers or text, another control exactly one pair of values",
                    mend="write data_type: TYPE_UINT64, or int32_false_true: [ 0, 1 ]",
                )
    for state in batching.state:
        if not state.initial_state:
            yield Broken(
                field=f"{field}.state.{state.input_name}",
                rule="no initial_state: a new sequence starts with whatever lies in memory",
                mend="write initial_state with zero_data: true",
                severity="warning",
            )
