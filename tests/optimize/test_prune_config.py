"""What a prune stage may be told, and which combinations mean nothing."""

from typing import Any

import pytest

from optimize.errors import ConfigError
from optimize.stages.configs import PruneConfig


@pytest.mark.parametrize(
    "legal",
    [
        {"ratio": 0.5},
        {"latency": 0.5, "latency_batch": 8},
        {"heads": 0.5},
        {"heads": 0.5, "ffn": 0.25, "layers": 0.25},
        {"layers": 0.25},
        {"latency": 0.5, "layers": 0.25},
        {"pattern": "2:4"},
        {"ratio": 0.5, "importance": "bn", "scope": "global", "steps": 3},
    ],
)
def test_what_means_something_is_taken(legal: dict[str, Any]) -> None:
    assert PruneConfig(kind="prune", **legal)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({}, "nothing of what to remove"),
        ({"ratio": 0.5, "latency": 0.5}, "ratio does not go together with latency"),
        ({"ratio": 0.5, "heads": 0.5}, "ratio does not go together with heads"),
        ({"latency": 0.5, "ffn": 0.5}, "latency does not go together with ffn"),
        ({"pattern": "2:4", "ratio": 0.5}, "pattern does not go together with ratio"),
        ({"pattern": "2:4", "layers": 0.5}, "pattern does not go together with layers"),
        ({"pattern": "2:4", "steps": 2}, "chosen once"),
        ({"pattern": "2:4", "importance": "taylor"}, "chosen once"),
        ({"ratio": 0.5, "latency_batch": 8}, "latency_batch without a latency"),
        ({"heads": 0.5, "importance": "bn"}, "bn knows no heads"),
    ],
)
def test_what_means_nothing_is_refused(given: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        PruneConfig(kind="prune", **given)
    assert caught.value.next_step
