"""Run one model of a case outside seatrial: LOADER OUTPUTS (onnx FILE | torch FILE:FACTORY ARGUMENTS) INTO.npz."""

import importlib.util
import json
import sys
from typing import Any

import numpy as np


def _named(text: str) -> Any:
    path, _, name = text.rpartition(":")
    spec = importlib.util.spec_from_file_location("of_the_case", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, ".")
    spec.loader.exec_module(module)
    return getattr(module, name)


def _called(module: Any, tensors: dict[str, Any]) -> Any:
    """Call it by position, by keyword, or with the whole mapping: whichever its forward takes."""
    try:
        return module(*tensors.values())
    except (TypeError, KeyError, IndexError, ValueError):
        pass
    try:
        return module(**tensors)
    except TypeError:
        return module(tensors)


def main() -> None:
    """Run it on 64 samples of a seed that no build uses."""
    loader, outputs, kind, model, *more, into = sys.argv[1:]
    inputs = _named(loader)("evaluation", 64, 4711)[0]
    if kind == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_outputs()]
        inputs = {each.name: inputs[each.name] for each in session.get_inputs()}
        if more == ["zeros"]:
            inputs = {name: np.zeros_like(value) for name, value in inputs.items()}
        answers = dict(zip(names, session.run(None, inputs), strict=True))
    else:
        import torch

        made = _named(model)(**json.loads(more[0])).eval()
        tensors = {name: torch.from_numpy(value.copy()) for name, value in inputs.items()}
        with torch.no_grad():
            given = _called(made, tensors)
        given = list(given.values()) if isinstance(given, dict) else given
        given = list(given) if isinstance(given, tuple | list) else [given]
        answers = {name: each.numpy() for name, each in zip(json.loads(outputs), given, strict=False)}
    np.savez(into, **answers)


if __name__ == "__main__":
    main()
