"""How many processes a version must have: by its instances, and only where it has processes at all."""

from typing import Any

import pytest

from seatrial.serve.triton.running.stubs import expected, stubs


@pytest.mark.parametrize(
    ("groups", "count"),
    [
        ([{"count": 1, "kind": "KIND_CPU", "gpus": []}], 1),
        ([{"count": 2}, {"count": 1}], 3),
        ([{"count": 2, "kind": "KIND_GPU", "gpus": [0, 1]}], 4),
    ],
)
def test_each_instance_is_a_process_on_each_of_its_gpus(groups: list[dict[str, Any]], count: int) -> None:
    assert expected({"backend": "python", "instance_group": groups}) == count
    assert expected({"backend": "onnxruntime", "instance_group": groups}) == 0


def test_a_process_that_is_gone_has_none() -> None:
    assert stubs(2**22 + 1) == ()
