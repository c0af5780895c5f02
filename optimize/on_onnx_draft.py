"""ONNX: looks at a graph for a draft: its inputs and the operators that it is made of. Judges nothing."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from .draft import Input, Model
from .errors import ConfigError, MissingError, SeatrialError, SourceError

_LENGTH, _PIXELS = 32, 64  # what a symbolic axis gets: of a sequence, of a picture


def look(path: Path, given: Sequence[Input]) -> Model:
    """What a draft must know of an ONNX file, tried by running two random samples.

    Raises:
        MissingError, SourceError: no such file, or not ONNX.
        ConfigError: an input whose first axis is no batch, or inputs that the model refuses.
    """
    if not path.is_file():
        raise MissingError("no such file", where=str(path), next_step="check the path")
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:  # protobuf's errors share no base with onnx's
        raise SourceError("not an ONNX file", where=str(path), next_step="give a model that onnx can read") from error
    constants = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    known = {each.name: each for each in given}
    values = [value for value in graph.input if value.name not in constants]
    inputs = tuple(known.get(value.name) or _input(value, graph, constants) for value in values)
    _try(path, inputs)
    operators = Counter(node.op_type for node in graph.node)
    weights = _weights(graph, constants)  # a product of two activations is attention, whatever it was exported as
    operators["Attention"] += sum(node.op_type == "MatMul" and not set(node.input) & weights for node in graph.node)
    return Model(inputs=inputs, outputs=tuple(value.name for value in graph.output), operators=operators)


def _input(value: Any, graph: Any, constants: dict[str, list[int]]) -> Input:
    dims = [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]
    if not dims or dims[0] is not None:
        raise ConfigError(
            f"the first axis of input {value.name!r} is {dims[0] if dims else 'missing'}, not a batch of any size",
            next_step="export the model with a dynamic batch axis",
        )
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
    whole = np.dtype(dtype).kind in "iub"
    size = _PIXELS if len(dims) == 4 and not whole else _LENGTH
    tables = [
        constants[node.input[0]][0]
        for node in graph.node
        if node.op_type == "Gather" and node.input[1] == value.name and node.input[0] in constants
    ]
    return Input(
        name=value.name,
        dtype=dtype,
        shape=tuple(size if dim is None else dim for dim in dims[1:]),
        below=min(tables, default=2) if whole else None,
        ones="mask" in value.name,
    )


def _weights(graph: Any, constants: dict[str, list[int]]) -> set[str]:
    """Values that are constant: initializers, and what is only reshaped or dequantized from them."""
    found = set(constants)
    for node in graph.node:
        if node.op_type == "Constant" or (node.input and set(node.input) - {""} <= found):
            found.update(node.output)
    return found


def _try(path: Path, inputs: Sequence[Input]) -> None:
    from .sessions.on_ort import OrtSession

    random = np.random.default_rng(0)
    try:
        OrtSession(path).run({each.name: each.sample(random, 2) for each in inputs})
    except SeatrialError as error:
        raise ConfigError(
            f"the model refuses the guessed inputs: {error.what}",
            where=f"{path}: " + ", ".join(f"{each.name} {each.dtype} {list(each.shape)}" for each in inputs),
            next_step="say what it takes: --input NAME=SHAPE[:DTYPE]",
        ) from error
