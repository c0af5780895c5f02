"""Whatever happens to the bytes of index, manifest or record: they read as what was written, or are refused."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.optimize.artifact import Artifact, File, digest_bytes
from seatrial.optimize.errors import IntegrityError
from seatrial.optimize.layout import (
    IndexEntry,
    StoreIndex,
    manifest_bytes,
    read_index,
    read_manifest,
    read_record,
)
from seatrial.optimize.plain import parse_json
from tests.support.made_by import MADE_BY

ARTIFACT = Artifact(
    name="net",
    format="onnx",
    files=(File(path="model.onnx", digest=digest_bytes(b"model"), size=5),),
    inputs=(),
    outputs=(),
    requires={"cpu_flags_any": ["avx2"]},
    made_by=MADE_BY,
)
RECORD, MANIFEST = manifest_bytes(ARTIFACT)
INDEX = (
    StoreIndex()
    .holding(IndexEntry(artifact=ARTIFACT.digest, digest=digest_bytes(MANIFEST), size=len(MANIFEST)))
    .tagged(ARTIFACT.digest, "best")
)
BYTES = INDEX.to_bytes()


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with some of them changed, cut out, doubled, or put elsewhere."""
    found = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(len(found) - 1, 0)))
        end = draw(st.integers(start, min(start + 40, len(found))))
        kind = draw(st.sampled_from(["set", "cut", "double", "insert"]))
        if kind == "set":
            found[start:end] = draw(st.binary(min_size=end - start, max_size=end - start))
        elif kind == "cut":
            del found[start:end]
        elif kind == "double":
            found[start:start] = found[start:end]
        else:
            found[start:start] = draw(st.sampled_from([b"{", b"[", b'"', b"null", b"0", b"../", b"\\u0000", b"1e999"]))
    return bytes(found)


@settings(max_examples=400, deadline=None)
@given(mutated(BYTES))
@pytest.mark.slow
def test_a_mutated_index_reads_as_the_same_or_is_refused(data: bytes) -> None:
    try:
        found = read_index(data)
    except ValueError:
        return
    # Without its seal an index is one of an earlier version; the store refuses it where a second copy lies beside it.
    assert found.entries == INDEX.entries or not found.sealed
    read_index(found.to_bytes())


@settings(max_examples=400, deadline=None)
@given(mutated(MANIFEST))
@pytest.mark.slow
def test_a_mutated_manifest_is_read_or_refused_and_names_no_path(data: bytes) -> None:
    try:
        found = read_manifest(data)
    except ValueError:
        return
    assert all("/" not in digest for digest in (found.config, found.artifact, *(each[1] for each in found.layers)))


@settings(max_examples=400, deadline=None)
@given(mutated(RECORD))
@pytest.mark.slow
def test_a_mutated_record_is_that_artifact_s_or_is_refused(data: bytes) -> None:
    try:
        found = read_record(data, ARTIFACT.digest)
    except (ValueError, IntegrityError):
        return
    assert found.digest == ARTIFACT.digest
    assert found.files == ARTIFACT.files


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(value=JSON, where=st.data())
@pytest.mark.slow
def test_any_json_in_any_place_is_read_or_refused(value: Any, where: st.DataObject) -> None:
    reads = {BYTES: read_index, MANIFEST: read_manifest, RECORD: read_record}
    data = where.draw(st.sampled_from(list(reads)))
    document = json.loads(data)
    inside = document
    while isinstance(inside, dict | list) and inside:
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        key = where.draw(st.sampled_from(keys))
        if where.draw(st.booleans()) or not isinstance(inside[key], dict | list):
            inside[key] = value
            break
        inside = inside[key]
    with contextlib.suppress(ValueError, IntegrityError):
        reads[data](json.dumps(document).encode())


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[" * 200_000, b'{"a":' * 200_000, b"[" * 101 + b"]" * 101, b"NaN", b"1e", b"9" * 5000]
)
def test_what_is_no_json_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(data)


def test_a_tag_moves_and_takes_no_artifact_with_it() -> None:
    other = IndexEntry(artifact=digest_bytes(b"other"), digest=digest_bytes(b"manifest"), size=9)
    moved = INDEX.holding(other).tagged(other.artifact, "best")
    assert moved.tags() == ("best",)
    assert moved.tags(other.artifact) == ("best",)
    assert moved.artifacts == (ARTIFACT.digest, other.artifact)
    assert moved.tagged(other.artifact, "best") is moved
    lonely = StoreIndex(entries=tuple(each for each in INDEX.entries if each.tag is not None)).holding(other)
    assert lonely.tagged(other.artifact, "best").artifacts == (ARTIFACT.digest, other.artifact)


def test_entries_of_other_tools_stay_in_the_index() -> None:
    value = json.loads(BYTES)
    value["manifests"].append({"mediaType": "x", "digest": "sha256:zz", "annotations": {"a": "b"}})
    found = read_index(json.dumps(value).encode())
    assert found.entries == INDEX.entries
    assert json.loads(found.to_bytes())["manifests"][-1] == value["manifests"][-1]
