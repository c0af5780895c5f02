"""QAT refuses modules whose 2:4 pattern its training would lose."""

import pytest
import torch

from seatrial.optimize.errors import StageError
from seatrial.optimize.pruning import on_pattern
from seatrial.optimize.stages.qat import check_dense


def net() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(4, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)
    )


def test_dense_weights_are_taken() -> None:
    check_dense(net())


def test_weights_of_zeros_are_no_pattern() -> None:
    module = net()
    layer = module[2]
    assert isinstance(layer, torch.nn.Linear)
    torch.nn.init.zeros_(layer.weight)
    check_dense(module)


@pytest.mark.parametrize("keep", [(), ("0",), ("2", "3")])
def test_a_pattern_that_training_would_lose_is_refused_by_its_layers(keep: tuple[str, ...]) -> None:
    module = net()
    layers = on_pattern.eligible(module, keep)
    with on_pattern.masked(layers):
        pass
    with pytest.raises(StageError, match=f"{len(layers)} layers keep the 2:4 pattern") as caught:
        check_dense(module)
    assert all(name in caught.value.what for name in layers)
