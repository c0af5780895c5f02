"""Cached tensors: what was written is read, and a changed byte or another kind of file counts as absent."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.optimize.stages.sealed import sealed, unsealed
from tests.support.damages import FILES

TENSORS = {"a": torch.arange(6, dtype=torch.float32).reshape(2, 3), "b": torch.tensor(3, dtype=torch.bfloat16)}


def test_what_was_sealed_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(sealed(TENSORS, "header"))
    found = unsealed(tmp_path / "x")
    assert found is not None
    assert found[1] == "header"
    assert all(torch.equal(found[0][name], tensor) for name, tensor in TENSORS.items())


@pytest.mark.timeout(20)
@pytest.mark.parametrize("harm", [harm for harm in FILES if harm not in ("unreadable", "4 TiB")])
def test_a_damaged_file_counts_as_absent(tmp_path: Path, harm: str) -> None:
    (tmp_path / "x").write_bytes(sealed(TENSORS, "header"))
    FILES[harm](tmp_path / "x")
    assert unsealed(tmp_path / "x") is None


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
@pytest.mark.slow
def test_a_changed_byte_is_never_a_changed_tensor(place: int, change: int) -> None:
    import tempfile

    data = bytearray(sealed(TENSORS, "header"))
    data[place % len(data)] ^= change
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(bytes(data))
        if (found := unsealed(path)) is not None:
            assert all(torch.equal(found[0][name], tensor) for name, tensor in TENSORS.items())
