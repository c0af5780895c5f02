"""Several ONNX models of one interface as one graph that gives the mean of their outputs. Chooses nothing."""

from collections.abc import Sequence

import onnx
from onnx import compose, helper, inliner

from ..quantization.on_opset import raised


def joined(models: Sequence[onnx.ModelProto]) -> onnx.ModelProto:
    """Return one graph: the inputs of the first model, every model behind them, and the mean of each output.

    Opsets and the IR are raised to the greatest among the models.

    Raises:
        StageError: a model cannot be raised to the opset of the others.
    """
    if len(models) == 1:
        return models[0]
    target = max(_opset(model) for model in models)
    prefixed = []
    for number, model in enumerate(models):
        whole = inliner.inline_local_functions(model) if model.functions else model
        prefixed.append(compose.add_prefix(raised(whole, target), f"member_{number}/", rename_inputs=False))
    first = models[0].graph
    graph = helper.make_graph(
        [node for each in prefixed for node in each.graph.node],
        "ensemble",
        list(first.input),
        list(first.output),
        [tensor for each in prefixed for tensor in each.graph.initializer],
        sparse_initializer=[tensor for each in prefixed for tensor in each.graph.sparse_initializer],
    )
    for output in first.output:
        parts = [f"member_{number}/{output.name}" for number in range(len(models))]
        graph.node.append(helper.make_node("Mean", parts, [output.name], name=f"mean of {output.name}"))
    versions: dict[str, int] = {}
    for model in prefixed:
        for each in model.opset_import:
            versions[each.domain] = max(versions.get(each.domain, 0), each.version)
    opsets = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=max(model.ir_version for model in models))


def _opset(model: onnx.ModelProto) -> int:
    return next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 1)
