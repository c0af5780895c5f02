"""Drift between disk and server: only what the disk says counts, and the versions are somebody else's business."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.serve.triton.supervision.drift import drift

VALUES = st.recursive(
    st.integers() | st.booleans() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(config=st.dictionaries(st.text(max_size=3), VALUES, max_size=4))
@pytest.mark.slow
def test_a_configuration_does_not_differ_from_itself_whatever_the_server_adds(config: dict[str, Any]) -> None:
    assert drift(config, config | {"added by the server": 1}) == ()


def test_numbers_as_text_and_the_version_policy_are_no_drift() -> None:
    disk = {"dynamic_batching": {"max_queue_delay_microseconds": "5"}, "version_policy": {"latest": {}}}
    served = {"dynamic_batching": {"max_queue_delay_microseconds": 5, "preserve_ordering": False}}
    assert drift(disk, served) == ()


def test_each_differing_field_is_named() -> None:
    disk = {"max_batch_size": 8, "instance_group": [{"count": 2}], "dynamic_batching": {}, "parameters": {"a": 1}}
    served = {"max_batch_size": 4, "instance_group": [{"count": 1, "name": "m_0"}]}
    assert drift(disk, served) == ("max_batch_size", "instance_group[0].count", "parameters")
