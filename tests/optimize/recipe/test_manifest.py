"""The manifest of the data: each file with its digest, one root that any change moves, and what DVC tracks."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.artifact import digest_file
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.recipe.manifest import Column, columns_of, data_files, merkle_root
from seatrial.optimize.samples import Samples


@given(st.lists(st.text(min_size=1, max_size=5), max_size=9, unique=True), st.data())
def test_any_change_and_any_order_moves_the_root(digests: list[str], data: st.DataObject) -> None:
    root = merkle_root(digests)
    assert merkle_root([*digests, "one more"]) != root
    if digests:
        at = data.draw(st.integers(0, len(digests) - 1))
        assert merkle_root([*digests[:at], digests[at] + "x", *digests[at + 1 :]]) != root
        assert merkle_root(digests[:at] + digests[at + 1 :]) != root
    if len(digests) > 1:
        assert merkle_root(digests[::-1]) != root


def test_two_leaves_are_no_one_leaf_of_both() -> None:
    assert merkle_root(["ab"]) != merkle_root(["a", "b"])


def digests(folder: Path, name: str) -> dict[str, str]:
    return {name: digest_file(folder / name)}


def test_files_have_their_digests_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.npy").write_bytes(b"abc")
    (found,) = data_files(tmp_path, digests(tmp_path, "sub/a.npy"))
    assert (found.path, found.digest, found.size) == (
        "sub/a.npy",
        f"sha256:{hashlib.sha256(b'abc').hexdigest()}",
        3,
    )


def dvc(folder: Path, md5: str, name: str = "a.npy") -> None:
    (folder / "a.npy.dvc").write_text(f"outs:\n- md5: {md5}\n  size: 3\n  hash: md5\n  path: {name}\n")


def test_what_dvc_tracks_is_named_and_must_be_what_lies_here(tmp_path: Path) -> None:
    md5 = hashlib.md5(b"abc").hexdigest()
    dvc(tmp_path, md5)
    found = data_files(tmp_path, digests(tmp_path, "a.npy.dvc"))
    assert [(each.path, each.digest) for each in found][1:] == [("a.npy", f"md5:{md5}")]
    (tmp_path / "a.npy").write_bytes(b"abc")
    assert data_files(tmp_path, digests(tmp_path, "a.npy.dvc")) == found
    (tmp_path / "a.npy").write_bytes(b"abd")
    with pytest.raises(ConfigError, match="not the file that DVC tracks"):
        data_files(tmp_path, digests(tmp_path, "a.npy.dvc"))
    dvc(tmp_path, f"{md5}.dir", "folder")
    assert data_files(tmp_path, digests(tmp_path, "a.npy.dvc"))[1].path == "folder"


@pytest.mark.parametrize("text", ["", "[", "outs: 1", "outs: [{path: a}]", "a: &a [*a]", "\0"])
def test_what_is_no_dvc_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.dvc").write_text(text)
    with pytest.raises(ConfigError, match="not a file of DVC"):
        data_files(tmp_path, digests(tmp_path, "a.dvc"))


def test_the_schema_is_that_of_one_sample() -> None:
    samples = Samples(
        split="golden",
        inputs={"x": np.zeros((4, 3, 2), np.float32)},
        labels=np.zeros(4, np.int64),
        columns={"group": np.zeros(4, np.int8)},
    )
    assert columns_of(samples) == (
        Column(name="x", dtype="float32", shape=(3, 2)),
        Column(name="labels", dtype="int64", shape=()),
        Column(name="group", dtype="int8", shape=()),
    )
