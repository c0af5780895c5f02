"""The one rule for names that become paths or labels."""

import pytest

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.names import LONGEST, checked, is_name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../../x", "/etc/passwd", "a/b", "a\\b", "a..b", ".hidden", "-rf", "_x", "--help", " a", "a "),
        *(
            "a b",
            "a\n",
            "a\x00b",
            "\x1b[2J",
            "é",
            "a\u202eb",
            "a\u200bb",
            "\ud800",
            "x" * (LONGEST + 1),
            "a:b",
            "[red]",
        ),
    ],
)
def test_a_name_that_could_leave_its_folder_or_forge_a_line_is_refused(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(ConfigError, match="invalid tag") as caught:
        checked(name, "tag", where="here")
    assert caught.value.exit_code == 2
    assert caught.value.what.isprintable()
    assert len(caught.value.what) < 200


@pytest.mark.parametrize("name", ["a", "scenes-int8.fp32", "A_1", "9", "x" * LONGEST])
def test_an_ordinary_name_is_taken_as_it_is(name: str) -> None:
    assert checked(name) == name
