"""Records: what is written is read back, other forms too; damage is an error that names the field."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.artifact import Artifact, File, Provenance, TensorSpec, canonical
from seatrial.optimize.errors import ConfigError, IntegrityError
from seatrial.optimize.record import Record, as_json, fields_as_json, finite
from seatrial.optimize.samples import Array

GOLDEN = Path(__file__).parents[1] / "golden" / "records"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(Record, computed=("double",), keys={"seconds": "seconds_s"}, was={"mend": "fix"}):
    """A record without a schema, inside of others."""

    seconds: float
    fix: str = ""

    @property
    def double(self) -> float:
        """Twice the seconds."""
        return 2 * self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole(Record, schema=2, older=(1,), what="the whole", next_step="make it again", computed=("size",)):
    """Every shape of field that records have."""

    name: str
    kind: Literal["a", "b"]
    parts: tuple[Part, ...]
    folder: Path
    best: Part | None = None
    named: Mapping[str, Part] = field(default_factory=dict)
    shape: tuple[int | str, ...] = ()
    pair: tuple[float, int] = (0.0, 0)
    counts: Mapping[int, str] = field(default_factory=dict)
    free: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "refused":
            raise ConfigError("refused is no name")

    @property
    def size(self) -> int:
        """Number of parts."""
        return len(self.parts)

    @classmethod
    def adapt(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Schema 1 had one part."""
        if value["schema"] == 1:
            value = {key: item for key, item in value.items() if key != "part"} | {"parts": [value["part"]]}
        return value

    def check(self) -> None:
        """The best is one of the parts."""
        if self.best is not None and self.best not in self.parts:
            raise ValueError("best is none of the parts")


WHOLE = Whole(
    name="w",
    kind="a",
    parts=(Part(seconds=1.5), Part(seconds=2.0, fix="x")),
    folder=Path("/f"),
    best=Part(seconds=1.5),
    named={"one": Part(seconds=3.0)},
    shape=("batch", 3),
    pair=(0.5, 1),
    counts={3: "c"},
    free={"a": [1, {"b": None}]},
)
PARTS = st.builds(Part, seconds=st.floats(allow_nan=False, allow_infinity=False, width=32), fix=st.text())
JSON = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(), lambda one: st.lists(one, max_size=3))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.builds(
        Whole,
        name=TEXTS.filter(lambda text: text != "refused"),
        kind=st.sampled_from(["a", "b"]),
        parts=st.lists(PARTS, max_size=3).map(tuple),
        folder=st.just(Path("/f")),
        best=st.none(),
        named=st.dictionaries(TEXTS, PARTS, max_size=2),
        shape=st.lists(st.integers(0, 9) | TEXTS, max_size=3).map(tuple),
        counts=st.dictionaries(st.integers(0, 99), TEXTS, max_size=2),
        free=st.dictionaries(TEXTS, JSON, max_size=2),
    )
)
@pytest.mark.slow
def test_what_is_written_is_read_back(value: Whole) -> None:
    stored = json.loads(json.dumps(value.to_json()))
    assert stored == value.to_json()  # plain JSON values: no tuples, no paths
    assert Whole.from_json(stored) == value


def test_the_form_is_what_the_class_declares() -> None:
    stored = WHOLE.to_json()
    assert (stored["schema"], stored["size"], stored["folder"], stored["counts"]) == (2, 2, "/f", {"3": "c"})
    assert stored["parts"][1] == {"double": 4.0, "seconds_s": 2.0, "fix": "x"}
    assert Whole.from_json(stored) == WHOLE


def test_earlier_names_and_schemas_are_read() -> None:
    part = {"seconds_s": 1.0, "mend": "do"}
    old = {"schema": 1, "name": "w", "kind": "b", "part": part, "folder": "/f", "best": part, "named": {"a": part}}
    new = Part(seconds=1.0, fix="do")
    expected = Whole(name="w", kind="b", parts=(new,), folder=Path("/f"), best=new, named={"a": new})
    assert Whole.from_json(old) == expected


def damaged() -> list[Any]:
    stored = WHOLE.to_json()
    cases = [pytest.param(stored | {"extra": 1}, "extra", id="extra")]
    for key, value in stored.items():
        if key not in ("schema", "size"):
            wrong = {"x": object.__name__} if not isinstance(value, dict) else 7
            cases.append(pytest.param(stored | {key: wrong}, key, id=f"mistyped {key}"))
    for key in ("name", "kind", "parts", "folder"):
        lacking = {name: value for name, value in stored.items() if name != key}
        cases.append(pytest.param(lacking, key, id=f"dropped {key}"))
    for part, key in (({"seconds_s": "1"}, "seconds"), ({"fix": ""}, "seconds"), ({"seconds_s": 1, "no": 1}, "no")):
        cases.append(pytest.param(stored | {"parts": [part]}, f"parts.0.{key}", id=f"inner {part}"))
    return cases


@pytest.mark.parametrize(("value", "key"), damaged())
def test_damage_is_an_error_that_names_the_field(value: Any, key: str, tmp_path: Path) -> None:
    path = tmp_path / "whole.json"
    path.write_text(json.dumps(value))
    with pytest.raises(IntegrityError) as caught:
        Whole.read(path)
    error = caught.value
    assert (error.exit_code, error.where, error.next_step) == (5, str(path), "make it again")
    assert error.what.startswith(f"the whole cannot be read: {key}")


@pytest.mark.parametrize("schema", [3, 0, "2", True, None, [], 2.0])
def test_another_schema_is_refused(schema: Any) -> None:
    with pytest.raises(IntegrityError, match="this version reads 2"):
        Whole.from_json(WHOLE.to_json() | {"schema": schema})


@pytest.mark.parametrize("value", [None, 3, "x", [], [["schema", 2]]])
def test_what_is_no_object_is_refused(value: Any) -> None:
    with pytest.raises(IntegrityError, match="the whole is not a JSON object"):
        Whole.from_json(value)


def test_rules_of_the_record_itself_are_damage_too() -> None:
    with pytest.raises(IntegrityError, match="the whole cannot be read: refused is no name"):
        Whole.from_json(WHOLE.to_json() | {"name": "refused"})
    with pytest.raises(IntegrityError, match="best is none of the parts"):
        Whole.from_json(WHOLE.to_json() | {"best": {"seconds_s": 9.0}})


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "whole.json"
    assert Whole.find(path) is None
    with pytest.raises(FileNotFoundError):
        Whole.read(path)
    WHOLE.write(path)
    assert Whole.read(path) == Whole.find(path) == WHOLE
    assert path.read_bytes() == canonical(WHOLE.to_json())
    path.write_text("{")
    with pytest.raises(IntegrityError, match="not readable as JSON") as caught:
        Whole.find(path, next_step="start anew")
    assert (caught.value.where, caught.value.next_step) == (str(path), "start anew")


def test_a_record_inside_is_as_strict() -> None:
    assert as_json({1: (Path("a"), WHOLE.parts)}) == {"1": ["a", [part.to_json() for part in WHOLE.parts]]}
    assert as_json(File(path="m", digest="d", size=1)) == {"path": "m", "digest": "d", "size": 1}


def test_pydantic_is_imported_only_to_read() -> None:
    code = (
        "import sys; from seatrial.optimize import record, artifact; "
        "assert 'pydantic' not in sys.modules; "
        "print(artifact.File(path='m', digest='d', size=1)); assert 'pydantic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_an_artifact_of_an_earlier_version_keeps_its_digest() -> None:
    stored = json.loads((GOLDEN / "artifact.json").read_text())
    found = Artifact.from_json(stored["record"])
    assert found.digest == stored["digest"]
    assert canonical(found.to_json()) == canonical(stored["record"])
    assert found == Artifact(
        name="net",
        format="onnx",
        files=(File(path="model.onnx", digest="sha256:" + "a" * 64, size=3),),
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 3)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 2)),),
        requires={"cpu_flags_any": ["avx2"]},
        made_by=Provenance(
            stage="quantize",
            parent="sha256:" + "b" * 64,
            config={"kind": "quantize", "seed": 3},
            recipe="sha256:0",
            samples=None,
            seed=7,
            environment={"cpu": "x", "gpus": []},
            at="2026-01-01",
            notes={"ranges": [0.5, 1]},
        ),
    )


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"name": "a\n"}, "is not a name"),
        ({"format": "caffe"}, "format"),
        ({"files": [{"path": "m", "digest": "sha256:1", "size": 1}]}, "is not a digest"),
        ({"files": [{"path": "m", "digest": "sha256:" + "a" * 64, "size": -1}]}, "negative size"),
        ({"files": [{"path": "m", "digest": "sha256:" + "a" * 64, "size": 1}] * 2}, "listed twice"),
        ({"files": [{"path": "../m", "digest": "sha256:" + "a" * 64, "size": 1}]}, "inside the artifact"),
        ({"inputs": [{"name": "x", "dtype": "float32", "shape": [True]}]}, "inputs.0.shape.0"),
        ({"made_by": {}}, "made_by.stage"),
    ],
)
def test_an_artifact_that_cannot_be_is_refused(change: dict[str, Any], word: str) -> None:
    stored = json.loads((GOLDEN / "artifact.json").read_text())["record"]
    with pytest.raises(IntegrityError, match=word):
        Artifact.from_json(stored | change)


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """A dataclass with a form of its own, which begins with its fields."""

    value: float

    def to_json(self) -> dict[str, Any]:
        """The fields, what is infinite as None, and one more."""
        return {**finite(fields_as_json(self)), "more": True}


def test_a_form_of_its_own_holds_inside_others_too() -> None:
    expected = {"value": None, "more": True}
    assert (
        as_json({"a": (Own(value=float("inf")),)}) == {"a": [expected]} == {"a": [Own(value=float("-inf")).to_json()]}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept(Record, schema=1, what="the kept", computed=("kind",), sparse=("later", "inner"), beside=("values",)):
    """A record of one kind, with fields added later and values in another file."""

    kind: ClassVar[str] = "kept"

    name: str
    values: Array
    later: int | None = None
    inner: tuple[str, ...] = field(default_factory=tuple)

    def check(self) -> None:
        """Check what lies beside the stored fields."""
        if not self.values.size:
            raise ValueError("no values")


def test_sparse_fields_are_left_out_at_their_default_and_others_lie_beside() -> None:
    values = np.arange(3.0)
    assert Kept(name="n", values=values).to_json() == {"schema": 1, "kind": "kept", "name": "n"}
    written = Kept(name="n", values=values, later=0, inner=("x",)).to_json()
    assert written == {"schema": 1, "kind": "kept", "name": "n", "later": 0, "inner": ["x"]}
    again = Kept.from_json(written, values=values)
    assert (again.later, again.inner) == (0, ("x",))
    assert again.values is values
    with pytest.raises(IntegrityError, match="the kept cannot be read: no values"):
        Kept.from_json(written, values=np.empty(0))
    with pytest.raises(IntegrityError, match="values"):
        Kept.from_json(written | {"values": [1.0]}, values=values)


@pytest.mark.parametrize("kind", [None, "other", 3, []])
def test_a_record_of_another_kind_is_refused(kind: object) -> None:
    with pytest.raises(IntegrityError, match=r"the kept has kind .*, expected 'kept'"):
        Kept.from_json({"schema": 1, "kind": kind, "name": "n"}, values=np.arange(3.0))


def test_a_record_inside_another_has_its_own_schema_checked() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Inner(Record, schema=3, what="the inner"):
        name: str

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Outer(Record, schema=1):
        inner: Inner

    written = Outer(inner=Inner(name="n")).to_json()
    assert Outer.from_json(written).inner.name == "n"
    with pytest.raises(IntegrityError, match="the inner has schema 4"):
        Outer.from_json({"schema": 1, "inner": {"schema": 4, "name": "n"}})


def test_a_class_statement_that_declares_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="declares 'sparce'"):

        class Wrong(Record, sparce=("a",)):
            pass


def test_a_record_for_people_is_written_with_an_indent(tmp_path: Path) -> None:
    Part(seconds=1.5).write(tmp_path / "p.json", indent=1)
    assert (tmp_path / "p.json").read_text().startswith('{\n "double": 3.0,\n')
    assert Part.read(tmp_path / "p.json") == Part(seconds=1.5)
