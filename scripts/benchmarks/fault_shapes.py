"""Planted faults of shapes: graphs whose declared outputs are of one size, or of another, than what runs give.

Each case is a random chain of operators over [batch, length, features]; its true shapes are known as it is made.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from scripts.benchmarks.faults import Fault
from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.errors import SeatrialError
from seatrial.optimize.intake import on_onnx as intake
from seatrial.optimize.intake.axes import mismatch
from seatrial.optimize.samples import Array, Samples
from seatrial.optimize.sessions.on_ort import OrtSession
from seatrial.serve.triton.proof.golden import compare

_BATCH, _LENGTH = "batch", "length"
_LEAST = 4  # what is cut from a sequence needs so many
_INPUT = "x"


@dataclass(slots=True)
class _Chain:
    """A graph as it grows, and the true shape of its last tensor: sizes, names, or names of what hangs on names."""

    random: np.random.Generator
    features: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    last: str = _INPUT
    shape: list[int | str] = field(default_factory=list)

    def add(self, kind: str, *constants: Array, **attributes: Any) -> None:
        """Append an operator that reads the last tensor and these constants."""
        names = []
        for value in constants:
            names.append(f"c{len(self.constants)}")
            self.constants.append(numpy_helper.from_array(value, names[-1]))
        out = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.last, *names], [out], **attributes))
        self.last = out


def _relu(chain: _Chain) -> None:
    chain.add(str(chain.random.choice(["Relu", "Tanh", "Abs"])))


def _double(chain: _Chain) -> None:
    axis = int(chain.random.integers(1, len(chain.shape)))
    out = f"t{len(chain.nodes)}"
    chain.nodes.append(helper.make_node("Concat", [chain.last, chain.last], [out], axis=axis))
    size = chain.shape[axis]
    chain.last, chain.shape[axis] = out, 2 * size if isinstance(size, int) else f"{size}+{size}"


def _cut(chain: _Chain) -> None:
    axis = int(chain.random.integers(1, len(chain.shape)))
    size, kept = chain.shape[axis], int(chain.random.integers(1, 3))
    kept = min(size, kept) if isinstance(size, int) else kept
    ends = [np.array([value], np.int64) for value in (-kept, 2**31 - 1, axis)]
    chain.add("Slice", *ends)
    chain.shape[axis] = kept


def _turn(chain: _Chain) -> None:
    if len(chain.shape) == 3:
        chain.add("Transpose", perm=[0, 2, 1])
        chain.shape[1:] = chain.shape[:0:-1]


def _halve(chain: _Chain) -> None:
    size = chain.shape[-1]
    if len(chain.shape) == 3 and (size == _LENGTH or (isinstance(size, int) and size > 1)):
        chain.add("MaxPool", kernel_shape=[2], strides=[2])
        chain.shape[-1] = size // 2 if isinstance(size, int) else f"{size}/2"


def _mean(chain: _Chain) -> None:
    if len(chain.shape) == 3:
        chain.add("ReduceMean", axes=[1], keepdims=0)
        del chain.shape[1]


def _project(chain: _Chain) -> None:
    if isinstance(size := chain.shape[-1], int):
        wide = int(chain.random.integers(2, 9))
        chain.add("MatMul", chain.random.normal(size=(size, wide)).astype(np.float32))
        chain.shape[-1] = wide


_STEPS: tuple[Callable[[_Chain], None], ...] = (_relu, _double, _cut, _turn, _halve, _mean, _project)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A graph, the true shape of its output, and samples."""

    model: onnx.ModelProto
    truth: TensorSpec
    samples: dict[str, Array]


def _case(random: np.random.Generator) -> _Case:
    chain = _Chain(random=random, features=int(random.integers(2, 7)))
    chain.shape = [_BATCH, _LENGTH, chain.features]
    for step in random.choice(len(_STEPS), size=int(random.integers(1, 6))):
        _STEPS[step](chain)
    chain.add("Identity")
    given = helper.make_tensor_value_info(_INPUT, TensorProto.FLOAT, [_BATCH, _LENGTH, chain.features])
    made = helper.make_tensor_value_info(chain.last, TensorProto.FLOAT, chain.shape)
    graph = helper.make_graph(chain.nodes, "g", [given], [made], chain.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    length = 2 * int(random.integers(_LEAST, 9))
    samples = {_INPUT: random.normal(size=(6, length, chain.features)).astype(np.float32)}
    truth = TensorSpec(name=chain.last, dtype="float32", shape=tuple(chain.shape))
    return _Case(model=model, truth=truth, samples=samples)


def _planted(random: np.random.Generator) -> tuple[_Case, TensorSpec]:
    """A case whose output is declared wrong along an axis: at the samples' size, or at another fixed one."""
    while True:
        case = _case(random)
        axis = int(random.integers(len(case.truth.shape)))
        shown = _opened(case.model).run({_INPUT: case.samples[_INPUT][:2]})[case.truth.name].shape
        size = case.truth.shape[axis]
        wrong = int(shown[axis]) if isinstance(size, str) else size + int(random.integers(1, 4))
        shape = tuple(wrong if at == axis else dim for at, dim in enumerate(case.truth.shape))
        declared = replace(case.truth, shape=shape)
        value = case.model.graph.output[0].type.tensor_type.shape.dim[axis]
        value.dim_value = wrong
        return case, declared


def _opened(model: onnx.ModelProto) -> OrtSession:
    """Open a graph that is in no file."""
    with tempfile.TemporaryDirectory(prefix="seatrial-shapes-") as folder:
        onnx.save(model, f"{folder}/m.onnx")
        return OrtSession(Path(folder) / "m.onnx")


def _taken(case: _Case) -> intake.Taken | None:
    """Return what the product makes of the file, or None where it refuses it."""
    with tempfile.TemporaryDirectory(prefix="seatrial-shapes-") as folder:
        path = Path(folder) / "given.onnx"
        onnx.save(case.model, str(path))
        try:
            return intake.take_in(path, Path(folder), case.samples)
        except SeatrialError:
            return None


def _fits(case: _Case, spec: TensorSpec, random: np.random.Generator) -> bool:
    """Return whether a declaration holds at fresh sizes, and calls no axis free that is fixed."""
    for _ in range(3):
        rows, length = int(random.integers(1, 8)), int(random.integers(_LEAST, 40))
        given = random.normal(size=(rows, length, case.samples[_INPUT].shape[2])).astype(np.float32)
        shape = _opened(case.model).run({_INPUT: given})[spec.name].shape
        if mismatch(spec, shape, {_BATCH: rows, _LENGTH: length}):
            return False
    free = [isinstance(dim, str) for dim in spec.shape]
    return free == [isinstance(dim, str) for dim in case.truth.shape]


def _found_in_file(random: np.random.Generator) -> bool:
    case, _ = _planted(random)
    taken = _taken(case)
    return taken is None or (bool(taken.changes) and _fits(case, taken.tensors.outputs[0], random))


def _accused_in_file(random: np.random.Generator) -> bool:
    case = _case(random)
    taken = _taken(case)
    return taken is None or bool(taken.changes) or not _fits(case, taken.tensors.outputs[0], random)


def _differences(case: _Case, declared: TensorSpec, random: np.random.Generator) -> bool:
    """Return whether a replay of golden samples speaks, answered as the graph answers."""
    session = _opened(case.model)
    length = case.samples[_INPUT].shape[1] + int(random.integers(1, 9))
    held = np.resize(case.samples[_INPUT], (6, length, case.samples[_INPUT].shape[2]))
    given = TensorSpec(name=_INPUT, dtype="float32", shape=(_BATCH, _LENGTH, held.shape[2]))
    samples = Samples(split="golden", inputs={_INPUT: held}, labels=None)
    found = [
        each
        for batch in (1, 3)
        for _, rows in compare(session.run, session.run, samples, (given,), batch, declared=(declared,))
        for each in rows
    ]
    return any(each.why for each in found)


def _found_by_golden(random: np.random.Generator) -> bool:
    case, declared = _planted(random)
    return _differences(case, declared, random)


def _accused_by_golden(random: np.random.Generator) -> bool:
    case = _case(random)
    return _differences(case, case.truth, random)


FAULTS = (
    Fault(
        name="shapes-declared",
        claim="a file whose outputs are declared of one size, or of another, than runs give is put right or refused",
        planted=_found_in_file,
        sound=_accused_in_file,
    ),
    Fault(
        name="shapes-served",
        claim="golden replies of another shape than the configuration declares are a difference",
        planted=_found_by_golden,
        sound=_accused_by_golden,
    ),
)
