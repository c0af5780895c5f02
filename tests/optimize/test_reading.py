"""Stored JSON read back: whatever stands in a record's place is one error that names it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from seatrial.optimize.errors import ConfigError, IntegrityError
from seatrial.optimize.reading import DEEPEST, damage, decode, parse_json, read_json, read_object, read_text

BROKEN = [
    *(b"", b"{", b'{"a": 1', b"\xff\xfe", b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}', b'{"a": "\\ud800"}'),
    *(b"9" * 5000, b"[" * 200_000, b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1)),
]


@pytest.mark.parametrize("data", BROKEN, ids=range(len(BROKEN)))
def test_bytes_that_are_no_record_are_an_error_with_place_and_step(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        read_json(path)
    assert caught.value.where == str(path)
    assert caught.value.next_step


@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "device"])
def test_what_is_no_regular_file_is_refused_without_waiting(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case _:
            path.symlink_to("/dev/zero")
    with pytest.raises(IntegrityError, match="regular file"):
        read_text(path)


def test_a_missing_file_is_missing_and_another_schema_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / "gone", tmp_path / "gone" / "deeper", tmp_path / "nul\x00"):
        with pytest.raises(FileNotFoundError):
            read_json(path)
    (tmp_path / "x").write_text('{"schema": 2}')
    with pytest.raises(IntegrityError, match="has schema 2, this version reads"):
        read_object(tmp_path / "x", schema=1)


@dataclass(frozen=True, kw_only=True)
class Thing:
    name: str
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ConfigError("no values")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"name": "x"}', "values: field required"),
        ('{"name": 5, "values": [1]}', "name: input should be"),
        ('{"name": "x", "values": [1, "2"]}', "values.1"),
        ('{"name": "x", "values": [1], "more": 1}', "more: unexpected"),
        ('{"name": "x", "values": []}', "no values"),
        ("[]", "the record"),
    ],
)
def test_a_record_of_other_types_names_the_field(text: str, said: str) -> None:
    with pytest.raises(IntegrityError, match=said) as caught:
        decode(Thing, parse_json(text.encode(), where="x"), where="there")
    assert caught.value.where == "there"
    assert decode(Thing, {"name": "x", "values": [1, 2.5]}, where="") == Thing(name="x", values=(1, 2.5))


def test_code_that_meets_another_shape_is_damage_and_nothing_else_is() -> None:
    nothing: dict[str, int] = {}
    some: list[int] = []
    wrongs: list[Callable[[], object]] = [
        lambda: nothing["x"],
        lambda: None.x,  # type: ignore[attr-defined]
        lambda: 1 / len(some),
        lambda: int("x"),
        lambda: some[3],
    ]
    for wrong in wrongs:
        with pytest.raises(IntegrityError) as caught, damage("there", "do this"):
            wrong()
        assert (caught.value.where, caught.value.next_step) == ("there", "do this")
    with pytest.raises(KeyboardInterrupt), damage("there"):
        raise KeyboardInterrupt
