"""Sequence batching for models that keep state between the requests of one sequence.

Types and the rules that they break by themselves. The states are Triton's implicit ones: it hands each execution the
state that the one before it gave, so the model itself stays a function.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .broken import Broken, outside, repeated

Control = Literal["start", "end", "ready", "id"]
FLAG_TYPES = ("bool", "int32", "float32")
ID_TYPES = ("int32", "int64", "uint32", "uint64", "object")


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlInput:
    """A model input that Triton fills: is this the sequence's start, its end, is the slot in use, whose is it."""

    name: str
    control: Control


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A state: the model's `output` becomes its `input` at the sequence's next request.

    `initial` "zero" starts a sequence with zeros, any other text is a file in the model's ``initial_state`` folder;
    without either Triton starts with whatever lies in memory.
    """

    input: str
    output: str
    initial: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """Batching of sequences.

    "direct" keeps a sequence in one slot of one instance and runs slots together, waiting up to `max_queue_delay_us`
    until `minimum_slot_utilization` (a share) of them has a request. "oldest" joins the oldest requests of at most
    `max_candidates` sequences by dynamic batching. A sequence without a request for `idle_ms` loses its slot: the next
    request of it is refused.
    """

    strategy: Literal["direct", "oldest"]
    idle_ms: int
    controls: tuple[ControlInput, ...] = ()
    states: tuple[State, ...] = ()
    max_queue_delay_us: int = 0
    minimum_slot_utilization: float = 0.0
    max_candidates: int = 0
    preferred_sizes: tuple[int, ...] = ()
    preserve_ordering: bool = False


def broken_rules(sequence: Sequence, max_batch_size: int) -> Iterator[Broken]:
    """Every rule that the sequence batching breaks by itself."""
    yield from repeated("sequence.controls", [each.control for each in sequence.controls])
    tensors = [each.name for each in sequence.controls] + [each.input for each in sequence.states]
    yield from repeated("sequence", tensors, "give every control and every state its own input")
    yield from repeated("sequence.states", [each.output for each in sequence.states])
    for state in sequence.states:
        if not state.initial:
            yield Broken(
                field="sequence.states.initial",
                rule=f"without an initial state, {state.input} of a new sequence contains uninitialised memory",
                fix='write initial = "zero" or the name of a file',
            )
        elif "/" in state.initial or state.initial.startswith("."):
            yield Broken(
                field="sequence.states.initial",
                rule=f"must be a plain file name, got {state.initial!r}",
                fix="name a file in the model's initial_state folder",
            )
    fix = "give the longest pause between two requests of one sequence"
    note = " (0 would be Triton's default of one second)"
    yield from outside("sequence.idle_ms", sequence.idle_ms, 1, 86_400_000, fix, note=note)
    yield from outside("sequence.max_queue_delay_us", sequence.max_queue_delay_us, 0, 86_400_000_000, "use 0 or more")
    yield from (_direct if sequence.strategy == "direct" else _oldest)(sequence, max_batch_size)


def _direct(sequence: Sequence, max_batch_size: int) -> Iterator[Broken]:
    share = sequence.minimum_slot_utilization
    yield from outside("sequence.minimum_slot_utilization", share, 0, 1, "use 0 to 1")
    if sequence.max_queue_delay_us > 0 and share <= 0:
        yield Broken(
            field="sequence.minimum_slot_utilization",
            rule="with 0 Triton never waits, so max_queue_delay_us has no effect",
            fix="give the fraction of slots to wait for (1.0: all), or set the delay to 0",
        )
    wanted = {"start", "ready"} - {each.control for each in sequence.controls}
    if wanted and max_batch_size > 1:
        yield Broken(
            field="sequence.controls",
            rule=(
                f"strategy direct leaves empty slots in a batch; without {' and '.join(sorted(wanted))} the "
                "model cannot recognise them"
            ),
            fix="export the model with these inputs and name them here, or use strategy = oldest",
        )
    if sequence.max_candidates or sequence.preferred_sizes or sequence.preserve_ordering:
        yield Broken(
            field="sequence.strategy",
            rule="max_candidates, preferred_sizes and preserve_ordering need strategy = oldest",
            fix="remove them, or write strategy = oldest",
        )


def _oldest(sequence: Sequence, max_batch_size: int) -> Iterator[Broken]:
    fix = "give the number of sequences that may be open at once in one instance"
    yield from outside("sequence.max_candidates", sequence.max_candidates, 1, 2**31 - 1, fix)
    if sequence.minimum_slot_utilization:
        yield Broken(
            field="sequence.minimum_slot_utilization", rule="needs strategy = direct", fix="remove it, or use direct"
        )
    for size in sequence.preferred_sizes:
        fix = "remove it, or raise max_batch_size"
        yield from outside("sequence.preferred_sizes", size, 1, max_batch_size, fix, high_is="max_batch_size")
