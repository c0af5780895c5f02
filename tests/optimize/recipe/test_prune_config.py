"""What a prune stage may be told, and which combinations mean nothing."""

from typing import Any

import pytest

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.recipe.configs import PruneConfig


@pytest.mark.parametrize(
    "legal",
    [
        {"ratio": 0.5},
        {"target_latency_ratio": 0.5, "latency_batch": 8},
        {"heads": 0.5},
        {"heads": 0.5, "ffn": 0.25, "layers": 0.25},
        {"layers": 0.25},
        {"target_latency_ratio": 0.5, "layers": 0.25},
        {"sparsity": "2:4"},
        {"ratio": 0.5, "importance": "bn", "scope": "global", "steps": 3},
    ],
)
def test_what_means_something_is_taken(legal: dict[str, Any]) -> None:
    assert PruneConfig(kind="prune", **legal)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({}, "the prune stage removes nothing"),
        ({"ratio": 0.5, "target_latency_ratio": 0.5}, "ratio cannot be combined with target_latency_ratio"),
        ({"ratio": 0.5, "heads": 0.5}, "ratio cannot be combined with heads"),
        ({"target_latency_ratio": 0.5, "ffn": 0.5}, "target_latency_ratio cannot be combined with ffn"),
        ({"sparsity": "2:4", "ratio": 0.5}, "sparsity cannot be combined with ratio"),
        ({"sparsity": "2:4", "layers": 0.5}, "sparsity cannot be combined with layers"),
        ({"sparsity": "2:4", "steps": 2}, "allows only one step"),
        ({"sparsity": "2:4", "importance": "taylor"}, "allows only one step"),
        ({"ratio": 0.5, "latency_batch": 8}, "latency_batch needs target_latency_ratio"),
        ({"heads": 0.5, "importance": "bn"}, "bn does not apply to heads"),
    ],
)
def test_what_means_nothing_is_refused(given: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        PruneConfig(kind="prune", **given)
    assert caught.value.next_step
