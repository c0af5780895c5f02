"""Networks of the sections: a small convolution net in torch and in ONNX, ResNet-50 and MiniLM by shape."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from scripts.gpu_sections.place import Place


class Small(torch.nn.Module):
    """One convolution, a mean, a linear layer; `image` is [n, 3, 16, 16], the answer [n, 10]."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv, self.head = torch.nn.Conv2d(3, width, 3, padding=1), torch.nn.Linear(width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits."""
        result: torch.Tensor = self.head(torch.relu(self.conv(image)).mean((2, 3)))
        return result


def small(width: int = 8) -> Small:
    """The small net with fixed weights."""
    torch.manual_seed(0)
    return Small(width).eval()


def small_onnx(net: Small, path: Path) -> None:
    """Write the same net with the same weights as ONNX, opset 17."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = {name: tensor.detach().numpy() for name, tensor in net.state_dict().items()}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "conv.weight", "conv.bias"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("GlobalAveragePool", ["b"], ["c"]),
            helper.make_node("Flatten", ["c"], ["d"]),
            helper.make_node("Gemm", ["d", "head.weight", "head.bias"], ["logits"], transB=1),
        ],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def image_net(place: Place) -> tuple[str, torch.nn.Module, Any]:
    """Name, module and a maker of inputs by batch: ResNet-50's shape, or the small net on the CPU."""
    if place.small:
        return "small net", small(), lambda batch: (torch.randn(batch, 3, 16, 16),)
    from scripts.models.resnet50 import SIDE, resnet50

    return "ResNet-50", resnet50(), lambda batch: (torch.randn(batch, 3, SIDE, SIDE),)


def text_net(place: Place) -> tuple[str, torch.nn.Module, Any]:
    """The same for MiniLM-L6's shape with random weights, on 64 tokens; one narrow layer on the CPU."""
    from scripts.models.bert import VOCABULARY, SentenceEncoder

    torch.manual_seed(0)
    width, heads, layers = (32, 2, 1) if place.small else (384, 12, 6)
    length = place.size(64, 8)

    def inputs(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randint(1000, VOCABULARY, (batch, length)), torch.ones(batch, length, dtype=torch.int64)

    return "MiniLM-L6", SentenceEncoder(width=width, heads=heads, layers=layers).eval(), inputs


def distance(found: Any, reference: Any) -> float:
    """Largest absolute difference over the reference's standard deviation."""
    one, other = np.asarray(found, np.float64), np.asarray(reference, np.float64)
    return float(np.abs(one - other).max() / max(float(other.std()), 1e-30))
