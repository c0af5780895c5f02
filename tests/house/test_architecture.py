"""The drawn pages follow the tree, and what draws them reads rooms, imports, errors and names as they are."""

from pathlib import Path

import pytest

from scripts.drawing import page, picture
from scripts.drawing.errors import table
from scripts.drawing.tree import GROUND, TOP, read_tree

ROOT = Path(__file__).parents[2]
FILES = {
    "low/__init__.py": '"""Makes things."""\n',
    "low/errors.py": '"""Errors."""\nclass SeatrialError(Exception):\n    """The root."""\n    exit_code = 2\n',
    "low/store.py": '"""Keeps | things."""\nfrom .errors import SeatrialError\nclass Store:\n    pass\n',
    "low/cutting/__init__.py": '"""Cuts."""\n',
    "low/cutting/saw.py": '"""The saw."""\nfrom ..store import Store\n',
    "low/sewing/__init__.py": '"""Sews.\n\nWith a needle.\n"""\n',
    "low/sewing/needle.py": '"""The needle."""\ndef sew():\n from ..cutting import saw\n from ..store import Store\n',
    "low/cli.py": '"""The command."""\nfrom .sewing import needle\n',
    "high/__init__.py": '"""Places things."""\n',
    "high/place.py": '"""Places."""\nimport seatrial.low.store\n'
    'from seatrial.low.errors import SeatrialError\nclass PlaceError(SeatrialError):\n    """No room."""\n'
    "    exit_code = 1\nclass ShelfError(PlaceError):\n    '''No shelf.'''\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small house of two floors, whose names say nothing of their order."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "seatrial").mkdir()
    for floor in ("low", "high"):
        (tmp_path / "seatrial" / floor).symlink_to(f"../{floor}")
    (tmp_path / "docs").mkdir()
    (tmp_path / "CONTRIBUTING.md").write_text("`low/store.py:Store`\n")
    (tmp_path / "docs" / "architecture.md").write_text("Above\n<!-- drawn: rooms -->\n<!-- end -->\nbelow\n")
    return tmp_path


def test_the_pages_are_up_to_date() -> None:
    assert list(page.stale(ROOT)) == [], "run scripts/architecture"


def test_floors_are_ordered_by_their_imports(root: Path) -> None:
    tree = read_tree(root)
    assert tree.floors == ("low", "high")
    assert tree.floor_edges == {("high", "low")}


def test_rooms_are_packages_and_loose_modules_stand_above_or_below_them(root: Path) -> None:
    tree = read_tree(root)
    assert tree.room(tree.modules["low.store"]) == GROUND
    assert tree.room(tree.modules["low.cli"]) == TOP
    assert tree.room_edges("low") == {
        ("cutting", GROUND),
        ("sewing", GROUND),
        ("sewing", "cutting"),
        (TOP, "sewing"),
    }


def test_the_picture_leaves_out_what_follows(root: Path) -> None:
    drawn = picture.rooms(read_tree(root), "low")
    assert "low_sewing --> low_cutting" in drawn
    assert "low_cutting --> low_ground" in drawn
    assert "low_sewing --> low_ground" not in drawn


def test_circles_are_named_and_dotted() -> None:
    edges = [("a", "b"), ("b", "c"), ("c", "a"), ("b", "a"), ("d", "a"), ("d", "e"), ("a", "e")]
    assert picture.circles(edges) == [("a", "b", "c")]
    assert picture.arrows(edges) == [
        ("a", "<-.->", "b"),
        ("a", "-->", "e"),
        ("b", "-.->", "c"),
        ("c", "-.->", "a"),
        ("d", "-->", "a"),
    ]


def test_a_room_says_the_first_line_of_its_docstring(root: Path) -> None:
    drawn = page.rooms(read_tree(root))
    assert "| `sewing` | Sews. |" in drawn
    assert "| `store` | Keeps \\| things. |" in drawn


def test_errors_have_their_own_code_or_the_one_above(root: Path) -> None:
    assert table(read_tree(root)).splitlines()[2:] == [
        "| 1 | `high/place.py:PlaceError` | No room. |",
        "| 1 | `high/place.py:ShelfError` | No shelf. |",
        "| 2 | `low/errors.py:SeatrialError` | The root. |",
    ]


def test_check_fails_until_the_page_is_drawn(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert page.main(["--check"], root) == 1
    assert "docs/architecture.md is out of date" in capsys.readouterr().err
    assert page.main([], root) == 0
    assert page.main(["--check"], root) == 0
    text = (root / "docs" / "architecture.md").read_text()
    assert text.startswith("Above\n<!-- drawn: rooms -->\n\n### high/")
    assert text.endswith("<!-- end -->\nbelow\n")


def test_a_name_that_moved_is_found_again(root: Path) -> None:
    (root / "low" / "store.py").rename(root / "low" / "shelf.py")
    assert page.stale(root, ["CONTRIBUTING.md"]) == {"CONTRIBUTING.md": "`low/shelf.py:Store`\n"}


def test_of_several_the_file_of_the_same_name_or_the_class_is_meant(root: Path) -> None:
    (root / "low" / "store.py").rename(root / "low" / "cutting" / "store.py")
    (root / "low" / "cli.py").write_text("class Store:\n    pass\n")
    assert page.stale(root, ["CONTRIBUTING.md"]) == {"CONTRIBUTING.md": "`low/cutting/store.py:Store`\n"}
    (root / "low" / "cutting" / "store.py").write_text("")
    (root / "low" / "errors.py").write_text("Store = 1\n")
    assert page.stale(root, ["CONTRIBUTING.md"]) == {"CONTRIBUTING.md": "`low/cli.py:Store`\n"}


def test_another_floor_is_meant_only_by_a_class(root: Path) -> None:
    (root / "low" / "store.py").unlink()
    (root / "high" / "store.py").write_text("def Store():\n    pass\n")
    with pytest.raises(page.PageError, match=r"low/store\.py defines no Store; high/store\.py does"):
        page.stale(root, ["CONTRIBUTING.md"])
    (root / "high" / "shop.py").write_text("class Store:\n    pass\n")
    assert page.stale(root, ["CONTRIBUTING.md"]) == {"CONTRIBUTING.md": "`high/shop.py:Store`\n"}


def test_a_name_that_is_gone_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "low" / "store.py").unlink()
    assert page.main(["--check"], root) == 1
    assert "CONTRIBUTING.md: low/store.py defines no Store" in capsys.readouterr().err


def test_a_file_that_moved_is_found_again(root: Path) -> None:
    text = "`low/store.py` and `low/saw.py`, not `other/saw.py`"
    found = page.redrawn(text, read_tree(root), root)
    assert found == "`low/store.py` and `low/cutting/saw.py`, not `other/saw.py`"
    with pytest.raises(page.PageError, match=r"low/axe\.py is not there"):
        page.redrawn("`low/axe.py`", read_tree(root), root)


def test_an_unknown_block_is_refused(root: Path) -> None:
    with pytest.raises(page.PageError, match="no block is called attic"):
        page.redrawn("<!-- drawn: attic -->\n<!-- end -->", read_tree(root), root)
