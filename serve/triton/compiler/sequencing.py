"""Sequence batching between an artifact and a configuration: which tensors Triton fills itself, and how.

Checks and writes the `sequence_batching` part only; clients never see the tensors that stand here.
"""

from collections.abc import Iterator
from typing import Any

from seatrial.optimize.artifact import Artifact, TensorSpec

from ...deployment import Broken, Deployment, Sequence
from ...deployment.sequences import FLAG_TYPES, ID_TYPES, ControlInput
from .rules import DATA_TYPES, item_shape

_KINDS = {
    "start": "CONTROL_SEQUENCE_START",
    "end": "CONTROL_SEQUENCE_END",
    "ready": "CONTROL_SEQUENCE_READY",
    "id": "CONTROL_SEQUENCE_CORRID",
}
_FLAGS = {"bool": "bool_false_true", "int32": "int32_false_true", "float32": "fp32_false_true"}


def broken_rules(artifact: Artifact, sequence: Sequence) -> Iterator[Broken]:
    """Every rule that this artifact breaks as a model of sequences."""
    inputs = {spec.name: spec for spec in artifact.inputs}
    outputs = {spec.name: spec for spec in artifact.outputs}
    for control in sequence.controls:
        legal = ID_TYPES if control.control == "id" else FLAG_TYPES
        spec = inputs.get(control.name)
        if spec is None or spec.dtype not in legal:
            yield Broken(
                field="sequence.controls",
                rule=f"{control.control} needs an input {control.name!r} of one of {', '.join(legal)}, "
                + (f"{artifact.short} has none" if spec is None else f"it is {spec.dtype}"),
                fix=f"inputs are {', '.join(inputs)}",
            )
    for state in sequence.states:
        one, other = inputs.get(state.input), outputs.get(state.output)
        if one is None or other is None:
            yield Broken(
                field="sequence.states",
                rule=f"{artifact.short} has no input {state.input!r} or no output {state.output!r}",
                fix=f"inputs are {', '.join(inputs)}, outputs {', '.join(outputs)}",
            )
        elif one.dtype != other.dtype or one.shape[1:] != other.shape[1:]:
            yield Broken(
                field="sequence.states",
                rule=(
                    f"{state.output} has {other.dtype}{list(other.shape)} but becomes {state.input}, which has "
                    f"{one.dtype}{list(one.shape)}"
                ),
                fix="export the state with one type and shape on both sides",
            )
        elif any(isinstance(size, str) for size in one.shape[1:]):
            yield Broken(
                field="sequence.states",
                rule=f"the initial state of {state.input} needs a size, but its shape is {list(one.shape)}",
                fix="export the state with fixed sizes",
            )


def client_tensors(deployment: Deployment, artifact: Artifact) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs that clients see: all but controls and states."""
    sequence = deployment.sequence
    if sequence is None:
        return artifact.inputs, artifact.outputs
    filled = {each.name for each in sequence.controls} | {each.input for each in sequence.states}
    kept = {each.output for each in sequence.states}
    return (
        tuple(spec for spec in artifact.inputs if spec.name not in filled),
        tuple(spec for spec in artifact.outputs if spec.name not in kept),
    )


def fill(config: Any, sequence: Sequence, artifact: Artifact, *, batching: bool) -> None:
    """Write the sequence batching."""
    inputs = {spec.name: spec for spec in artifact.inputs}
    part = config.sequence_batching
    part.max_sequence_idle_microseconds = sequence.idle_ms * 1000
    if sequence.strategy == "direct":
        part.direct.SetInParent()
        part.direct.max_queue_delay_microseconds = sequence.max_queue_delay_us
        part.direct.minimum_slot_utilization = sequence.minimum_slot_utilization
    else:
        part.oldest.max_candidate_sequences = sequence.max_candidates
        part.oldest.max_queue_delay_microseconds = sequence.max_queue_delay_us
        part.oldest.preferred_batch_size.extend(sorted(sequence.preferred_sizes))
        part.oldest.preserve_ordering = sequence.preserve_ordering
    for control in sequence.controls:
        _control(part, control, inputs[control.name].dtype)
    for state in sequence.states:
        spec = inputs[state.input]
        dims = [int(size) for size in item_shape(spec, batching=batching)] or [1]
        kind = DATA_TYPES[spec.dtype]
        added = part.state.add(input_name=state.input, output_name=state.output, data_type=kind, dims=dims)
        initial = added.initial_state.add(name=f"{state.input} at the start", data_type=kind, dims=dims)
        if state.initial == "zero":
            initial.zero_data = True
        else:
            initial.data_file = state.initial


def _control(part: Any, control: ControlInput, dtype: str) -> None:
    added = part.control_input.add(name=control.name).control.add(kind=_KINDS[control.control])
    if control.control == "id":
        added.data_type = DATA_TYPES[dtype]
    else:
        getattr(added, _FLAGS[dtype]).extend((False, True) if dtype == "bool" else (0, 1))
