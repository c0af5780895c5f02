"""ONNX: looks at a graph for a draft: its inputs and the operators that it is made of. Judges nothing."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from .. import scratch
from ..artifact import TensorSpec
from ..errors import ConfigError, SeatrialError, SourceError
from ..intake import axes
from ..intake import on_onnx as intake
from ..sessions.on_ort import OrtSession
from ..sessions.rows import fixed_rows
from .model import Input, Model

_LENGTHS, _PIXELS = (32, 16, 128, 512, 576, 1024, 16000, 1), (64, 224, 32, 48, 320, 640)
_RATES = ("sr", "rate", "sample_rate", "sampling_rate")
_TRIES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A model in a folder, inputs that it takes, its tensors as runs show them, and the outputs kept where not all."""

    written: intake.Written
    inputs: tuple[Input, ...]
    tensors: axes.Tensors
    kept: tuple[str, ...]


def seen(path: Path, folder: Path, given: Sequence[Input] = ()) -> Seen:
    """Write an ONNX file into `folder` and try it on random samples at several sizes.

    Where the inputs have not all the batch as their first axis, a sample is whole tensors.

    Raises:
        MissingError, SourceError: no such file, not ONNX, or of a kind that cannot be served.
        ConfigError: inputs that the model refuses.
    """
    kept = intake.kept_outputs(intake.read(path))
    written = intake.written(
        path, folder, kept, {each.name: each.sample(np.random.default_rng(0), 2) for each in given}
    )
    session = intake.opened(folder / intake.FILE, path)
    inputs, tensors = _tried(session, written.model, path, given)
    return Seen(written=written, inputs=inputs, tensors=tensors, kept=kept)


def look(path: Path, given: Sequence[Input]) -> Model:
    """Return what a draft must know of an ONNX file; raises as `seen`."""
    with scratch.folder("draft", Path(tempfile.gettempdir())) as folder:
        found = seen(path, folder, given)
    graph = found.written.model.graph
    operators = Counter(node.op_type for node in graph.node)
    weights = _weights(graph)  # a product of two activations is attention, whatever it was exported as
    operators["Attention"] += sum(node.op_type == "MatMul" and not set(node.input) & weights for node in graph.node)
    return Model(
        inputs=found.inputs,
        outputs=tuple(spec.name for spec in found.tensors.outputs),
        operators=operators,
        kept=found.kept,
        batches=found.tensors.batches,
        as_it_is=intake.as_it_is(found.written.model, path),
    )


def _tried(
    session: OrtSession, model: onnx.ModelProto, path: Path, given: Sequence[Input]
) -> tuple[tuple[Input, ...], axes.Tensors]:
    """The first guess that the model takes, and its tensors as runs show them."""
    known = {each.name: each for each in given}
    if unknown := [name for name in known if name not in {spec.name for spec in session.inputs}]:
        raise ConfigError(
            f"the model has no input {unknown[0]!r}",
            where=str(path),
            next_step=f"its inputs are {', '.join(spec.name for spec in session.inputs)}",
        )
    refused: SeatrialError | None = None
    tried: tuple[Input, ...] = ()
    for shapes in islice(_shapes(session.inputs), _TRIES):
        inputs = tuple(
            known.get(spec.name) or _input(spec, shape, model.graph)
            for spec, shape in zip(session.inputs, shapes, strict=True)
        )
        if inputs == tried:
            break
        random = np.random.default_rng(0)
        try:
            samples = {each.name: each.sample(random, 4) for each in inputs}
            return inputs, intake.tried(session, model, samples, str(path))
        except SourceError as error:
            refused, tried = refused or error, tried or inputs
    shown = ", ".join(f"{each.name} {each.dtype} {list(each.shape)}" for each in tried)
    raise ConfigError(
        f"the model refuses the guessed inputs: {refused.what if refused else 'it takes none'}",
        where=f"{path}: {shown}",
        next_step="name each input with its shape per sample: --input NAME=SHAPE[:DTYPE], for instance --input "
        f"{_example(session.inputs)}",
    ) from refused


def _example(specs: Sequence[TensorSpec]) -> str:
    spec = next(iter(specs), None)
    sizes = "x".join(str(dim) if isinstance(dim, int) else "16" for dim in spec.shape[1:]) if spec else ""
    return f"{spec.name if spec else 'x'}={sizes or '1'}:{spec.dtype if spec else 'float32'}"


def _shapes(specs: Sequence[TensorSpec]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Shapes of a sample to try: rows where every input may begin with the batch, then whole tensors."""
    firsts = [spec.shape[0] if spec.shape else None for spec in specs]
    if all(isinstance(first, str) for first in firsts) or fixed_rows(specs) is not None:
        sizes = product(_LENGTHS if not all(map(_is_picture, specs)) else _LENGTHS[:1], _PIXELS)
        rows = (tuple(_filled(spec, spec.shape[1:], *size) for spec in specs) for size in sizes)
        yield from dict.fromkeys(rows)
    yield from dict.fromkeys(tuple(_whole(spec, length) for spec in specs) for length in _LENGTHS)


def _is_picture(spec: TensorSpec) -> bool:
    return len(spec.shape) == 4 and np.dtype(spec.dtype).kind == "f"


def _filled(spec: TensorSpec, dims: Sequence[int | str], length: int, pixels: int) -> tuple[int, ...]:
    size = pixels if _is_picture(spec) else length
    return tuple(dim if isinstance(dim, int) else size for dim in dims)


def _whole(spec: TensorSpec, length: int) -> tuple[int, ...]:
    """A whole tensor of one row: its first free axis is taken for the batch."""
    batch = next((axis for axis, dim in enumerate(spec.shape) if isinstance(dim, str)), None)
    return tuple(1 if axis == batch else size for axis, size in enumerate(_filled(spec, spec.shape, length, length)))


def _input(spec: TensorSpec, shape: tuple[int, ...], graph: Any) -> Input:
    constants = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    whole = np.dtype(spec.dtype).kind in "iub"
    tables = [
        constants[node.input[0]][0]
        for node in graph.node
        if node.op_type == "Gather" and node.input[1] == spec.name and constants.get(node.input[0])
    ]
    return Input(
        name=spec.name,
        dtype=spec.dtype,
        shape=shape,
        below=min(tables, default=2) if whole else None,
        ones="mask" in spec.name,
        fill=16000 if whole and spec.name.lower() in _RATES else None,
    )


def _weights(graph: Any) -> set[str]:
    """Values that are constant: initializers, and what is only reshaped or dequantized from them."""
    found = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" or (node.input and set(node.input) - {""} <= found):
            found.update(node.output)
    return found
