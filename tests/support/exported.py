"""The model of `graphs.pictures` as a program of `torch.export`, with the same weights."""

from pathlib import Path

import numpy as np
import torch

from seatrial.optimize.artifact import Artifact, File, TensorSpec
from seatrial.optimize.sessions.on_exported import PACKAGE, save
from seatrial.optimize.store import Store
from tests.support.made_by import MADE_BY

INPUTS = (
    TensorSpec(name="image", dtype="float32", shape=("n", 3, 8, 8)),
    TensorSpec(name="gain", dtype="float32", shape=("n", 1)),
)
OUTPUTS = (
    TensorSpec(name="scores", dtype="float32", shape=("n", 5)),
    TensorSpec(name="winner", dtype="int64", shape=("n",)),
)


class Pictures(torch.nn.Module):
    """Class scores of an image and a gain, and the winning class."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        weights = np.random.default_rng(3).normal(size=(3 * 8 * 8, 5)).astype(np.float32) * scale
        self.weights = torch.nn.Parameter(torch.from_numpy(weights))

    def forward(self, image: torch.Tensor, gain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both outputs."""
        scores = image.flatten(1) @ self.weights * gain
        return scores, scores.argmax(1)


def program(folder: Path, scale: float = 1.0) -> Path:
    """Write the package, and return its path."""
    folder.mkdir(parents=True)
    batch = torch.export.Dim("batch")
    example = (torch.zeros(2, 3, 8, 8), torch.zeros(2, 1))
    shapes = ({0: batch}, {0: batch})
    made = torch.export.export(Pictures(scale).eval(), example, dynamic_shapes=shapes, strict=False)
    save(made, folder / PACKAGE, INPUTS, OUTPUTS)
    return folder / PACKAGE


def exported(store: Store, folder: Path, scale: float = 1.0) -> Artifact:
    """Put the package into a store as an artifact."""
    made = Artifact(
        name="pictures",
        format="torch-export",
        files=(File.of(program(folder, scale)),),
        inputs=INPUTS,
        outputs=OUTPUTS,
        requires={},
        made_by=MADE_BY,
    )
    return store.put(made, folder)
