from pathlib import Path

import pytest

from optimize.errors import SeatrialError
from optimize.report import Notes, read_notes


def test_notes_may_hold_either_part(tmp_path: Path) -> None:
    (tmp_path / "n.json").write_text('{"coverage": {"Conv": 1}}')
    assert read_notes(tmp_path / "n.json") == Notes(coverage={"Conv": 1.0})
    (tmp_path / "n.json").write_text("{}")
    assert read_notes(tmp_path / "n.json") == Notes()


@pytest.mark.parametrize("text", ["", "[]", '{"coverage": 3}', '{"coverage": {"Conv": "much"}}', '{"colour": {}}'])
def test_other_notes_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "n.json").write_text(text)
    with pytest.raises(SeatrialError) as caught:
        read_notes(tmp_path / "n.json")
    assert caught.value.exit_code == 2
    assert caught.value.next_step


def test_notes_that_are_not_there_are_missed(tmp_path: Path) -> None:
    with pytest.raises(SeatrialError, match="no such file"):
        read_notes(tmp_path / "gone.json")
