"""Rules of sequence batching: slots, control tensors, implicit states and how they start."""

from collections import Counter
from collections.abc import Iterator
from math import isnan
from typing import Any

from ...deployment import Broken
from .sizes import LARGEST, bytes_of

_FIELD = "sequence_batching"
_SLOTS = 1 << 24
"""Triton reserves a queue for each slot before any request, and crashes when memory is exhausted."""


def broken_rules(config: Any) -> Iterator[Broken]:
    """Every rule that the sequence batching breaks."""
    batching = config.sequence_batching
    if batching.HasField("direct"):
        yield from _direct(batching.direct)
    if batching.HasField("oldest"):
        yield from preferred_sizes(f"{_FIELD}.oldest", batching.oldest, config.max_batch_size)
    yield from _slots(config)
    yield from _controls(batching)
    for number, state in enumerate(batching.state):
        yield from _state(f"{_FIELD}.state.{state.input_name}", state)
        if state.initial_state and state.input_name in [each.input_name for each in _begun(batching.state[:number])]:
            yield Broken(
                field=f"{_FIELD}.state.{state.input_name}",
                rule="the input has two initial states; Triton refuses the model",
                fix="give every state its own input",
            )
    for side in ("input_name", "output_name"):
        for name, count in Counter(getattr(state, side) for state in batching.state).items():
            if count > 1:
                yield Broken(
                    field=f"{_FIELD}.state.{name}",
                    rule=f"listed twice as {side}: Triton ignores one of the two states",
                    fix="give every state its own input and output",
                    effect="loads",
                )


def preferred_sizes(field: str, batching: Any, limit: int) -> Iterator[Broken]:
    """The rules of preferred batch sizes, of the dynamic batcher and of sequences."""
    for size in batching.preferred_batch_size:
        if not 1 <= size <= limit:
            yield Broken(
                field=f"{field}.preferred_batch_size",
                rule=f"must be between 1 and max_batch_size = {limit}, got {size}; Triton refuses the model",
                fix="remove it, or raise max_batch_size",
            )
    if batching.preferred_batch_size and batching.max_queue_delay_microseconds > 0:
        yield Broken(
            field=f"{field}.preferred_batch_size",
            rule="Triton ignores preferred sizes when a delay is set and requests are queued",
            fix="set max_batch_size to the wanted size and remove the preferred ones, or set the delay to 0",
            severity="warning",
        )


def _begun(states: Any) -> Iterator[Any]:
    return (state for state in states if state.initial_state)


def _direct(direct: Any) -> Iterator[Broken]:
    share = direct.minimum_slot_utilization
    if not 0 <= share <= 1:
        yield Broken(
            field=f"{_FIELD}.direct.minimum_slot_utilization",
            rule=f"must be between 0 and 1, got {share}",
            fix="use a value between 0 and 1",
            effect="loads" if isnan(share) else "refused",
        )
    if share == 0 and direct.max_queue_delay_microseconds:
        yield Broken(
            field=f"{_FIELD}.direct.minimum_slot_utilization",
            rule="with 0 the delay has no effect: Triton never waits for further slots",
            fix="write the fraction of slots to wait for, or remove the delay",
            severity="warning",
        )


def _slots(config: Any) -> Iterator[Broken]:
    candidates = config.sequence_batching.oldest.max_candidate_sequences
    field, slots = "max_batch_size", config.max_batch_size
    if candidates > 0:
        field, slots = f"{_FIELD}.oldest.max_candidate_sequences", candidates
    if slots > _SLOTS:
        yield Broken(
            field=field,
            rule=(
                f"{slots} slots for sequences: Triton reserves a queue for each, and crashes with every model "
                "when memory is exhausted"
            ),
            fix="write the number of sequences that may be open at once in one instance",
            effect="ends",
        )


def _controls(batching: Any) -> Iterator[Broken]:
    from tritonclient.grpc import model_config_pb2 as pb

    kinds = [control.kind for each in batching.control_input for control in each.control]
    known = pb.ModelSequenceBatching.Control.Kind
    for kind in sorted({kind for kind in kinds if kinds.count(kind) > 1 and kind in known.values()}):
        yield Broken(
            field=f"{_FIELD}.control_input",
            rule=f"{known.Name(kind)} is listed twice; Triton refuses the model",
            fix="write it once",
        )
    for name, count in Counter(each.name for each in batching.control_input).items():
        if not name or count > 1:
            yield Broken(
                field=f"{_FIELD}.control_input{name and '.'}{name}",
                rule=f"one tensor is used for {count} entries; Triton refuses the model"
                if name
                else "an entry has no name; Triton refuses the model",
                fix="give every control_input its own tensor",
            )
    for each in batching.control_input:
        for control in each.control:
            yield from _control(f"{_FIELD}.control_input.{each.name}", control)


def _control(field: str, control: Any) -> Iterator[Broken]:
    from tritonclient.grpc import model_config_pb2 as pb

    kinds = pb.ModelSequenceBatching.Control
    if control.kind not in kinds.Kind.values():
        yield Broken(
            field=field,
            rule=f"unknown kind of control {control.kind}; Triton leaves the tensor empty",
            fix=f"use {', '.join(kinds.Kind.keys())}",
            severity="warning",
        )
        return
    flags = sorted(
        len(values) for values in (control.int32_false_true, control.fp32_false_true, control.bool_false_true)
    )
    if control.kind == kinds.CONTROL_SEQUENCE_CORRID:
        ids = (pb.TYPE_UINT64, pb.TYPE_INT64, pb.TYPE_UINT32, pb.TYPE_INT32, pb.TYPE_STRING)
        legal = control.data_type in ids and not any(flags)
    else:
        legal = flags == [0, 0, 2]
    if not legal:
        yield Broken(
            field=field,
            rule=(
                "an id needs a data_type of integers or text and no pair of values; every other control "
                "needs exactly one pair"
            ),
            fix="write data_type: TYPE_UINT64, or int32_false_true: [ 0, 1 ]",
        )


def _state(field: str, state: Any) -> Iterator[Broken]:
    if bytes_of(state.data_type, [1 if size == -1 else size for size in state.dims]) > LARGEST:
        yield Broken(
            field=f"{field}.dims",
            rule=f"{list(state.dims)} exceeds any memory: the server crashes, with every other model",
            fix="write the state's real shape",
            effect="ends" if state.initial_state else "loads",
        )
    if not state.initial_state:
        yield Broken(
            field=field,
            rule="no initial_state: a new sequence starts with uninitialised memory",
            fix="write initial_state with zero_data: true",
            severity="warning",
        )
    elif len(state.initial_state) > 1:
        yield Broken(field=field, rule="more than one initial_state; Triton refuses the model", fix="write exactly one")
    else:
        yield from _initial(f"{field}.initial_state", state.initial_state[0], state)


def _initial(field: str, initial: Any, state: Any) -> Iterator[Broken]:
    if not initial.name:
        yield Broken(field=f"{field}.name", rule="not given; Triton refuses the model", fix="give any name")
    if initial.data_type != state.data_type:
        yield Broken(
            field=f"{field}.data_type",
            rule="differs from the state's; Triton refuses the model",
            fix="write the state's data type",
        )
    dims, own = list(initial.dims), list(state.dims)
    fits = len(dims) == len(own) and all(size in (-1, given) for size, given in zip(own, dims, strict=True))
    if not fits or any(size < 0 for size in dims):
        yield Broken(
            field=f"{field}.dims",
            rule=(
                f"{dims} does not fit the state's {own}, or is not concrete; Triton refuses the model, and a "
                "size below -1 ends the whole server"
            ),
            fix="write the state's sizes, with a number for every variable one",
            effect="ends" if any(size < -1 for size in dims) else "refused",
        )
    if initial.WhichOneof("state_data") is None:
        yield Broken(
            field=field, rule="no data is given; Triton refuses the model", fix="write zero_data: true, or data_file"
        )
