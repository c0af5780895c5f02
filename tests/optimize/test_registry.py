"""The registry: lazily imported entries, and errors that name the distribution."""

import sys
from pathlib import Path

import pytest

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.registry import Registry, instance_of, subclass_of

GROUP = "seatrial.tests"


class Shape:
    """The form of the entries below."""


def installed(folder: Path, name: str, module: str, points: str) -> None:
    """A distribution of one module as an installer leaves it."""
    (folder / f"{name.replace('-', '_')}_code.py").write_text(module)
    info = folder / f"{name}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{points}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def registry(**built_in: str) -> Registry[Shape]:
    return Registry("shape", GROUP, built_in, instance_of(Shape))


def test_an_entry_is_imported_when_it_is_asked_for_and_only_then(site: Path) -> None:
    installed(
        site, "rounded", f"from {__name__} import Shape\nclass Round(Shape): pass\n", "round = rounded_code:Round"
    )
    shapes = registry(square="nowhere.at.all:Square")
    assert shapes.names == ("square", "round")
    assert "round" in shapes
    assert "rounded_code" not in sys.modules
    found = shapes.get("round")
    assert type(found).__name__ == "Round"
    assert shapes.get("round") is found
    assert (shapes.origin("round").distribution, shapes.origin("round").module) == ("rounded 1.5", "rounded_code")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown shape 'squere'") as caught:
        registry(square="a:B", circle="c:D").get("squere", where="here")
    assert caught.value.next_step == "did you mean 'square'? known: square, circle"
    assert caught.value.where == "here"
    assert caught.value.exit_code == 2


def test_a_name_of_two_packages_is_refused_and_names_both(site: Path) -> None:
    installed(site, "first-one", "", "round = first_one_code:A")
    installed(site, "second-one", "", "round = second_one_code:A\nsquare = second_one_code:A")
    with pytest.raises(ConfigError, match=r"first-one 1\.5") as caught:
        registry().get("round")
    assert "second-one 1.5" in caught.value.what
    with pytest.raises(ConfigError, match=r"by seatrial and by second-one 1\.5"):
        registry(square="a:B").get("square")


@pytest.mark.parametrize(
    ("module", "points", "what"),
    [
        ("raise RuntimeError('out of order')", "it = broken_code:A", "RuntimeError: out of order"),
        ("", "it = broken_code:A", "AttributeError"),
        ("", "it = nowhere_code:A", "ModuleNotFoundError"),
        ("class A: pass", "it = broken_code:A", "the class A, not a class derived from Shape"),
        ("A = 7", "it = broken_code:A", "of type int"),
    ],
)
def test_a_broken_entry_is_an_error_that_names_the_distribution(
    site: Path, monkeypatch: pytest.MonkeyPatch, module: str, points: str, what: str
) -> None:
    monkeypatch.delitem(sys.modules, "broken_code", raising=False)
    installed(site, "broken", module, points)
    with pytest.raises(ConfigError, match="shape 'it'") as caught:
        registry().get("it")
    assert what in caught.value.what
    assert "broken 1.5" in f"{caught.value.where} {caught.value.next_step}"


def test_a_mistake_in_a_built_in_entry_is_a_fault_of_ours() -> None:
    with pytest.raises(ModuleNotFoundError):
        registry(square="nowhere.at.all:Square").get("square")


def test_a_registry_of_classes_refuses_an_instance() -> None:
    form = subclass_of(Shape)
    origin = registry(a="b:C").origin("a")
    assert form(origin, Shape) is Shape
    with pytest.raises(TypeError, match="of type Shape"):
        form(origin, Shape())
