"""One import name: everything is imported as seatrial.<floor>, and the package offers the verbs as functions."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import seatrial
from tests.house.test_floors import FLOORS, ROOT

CODE = [path for folder in (*FLOORS, "seatrial", "scripts", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]

NAMED = re.compile(rf"^\s*(?:import|from)\b.*(?<![.\w])(?:{'|'.join(FLOORS)})\b", re.MULTILINE)
"""A line that may import a floor by its bare name: only such files are parsed."""


def test_nothing_imports_a_floor_by_its_bare_name() -> None:
    bare = []
    for path in (each for each in CODE if NAMED.search(each.read_text())):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            bare += [f"{path.relative_to(ROOT)}: {name}" for name in names if name.partition(".")[0] in FLOORS]
    assert bare == []


@pytest.mark.parametrize("name", seatrial.__all__)
def test_what_is_offered_is_there(name: str) -> None:
    assert getattr(seatrial, name)


def test_type_checkers_see_what_is_offered() -> None:
    tree = ast.parse((ROOT / "seatrial" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == seatrial._OFFERED


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="sail"):
        seatrial.sail  # noqa: B018


def test_importing_the_package_brings_in_nothing_else() -> None:
    code = "import sys, seatrial; print([name for name in sys.modules if name.startswith('seatrial.')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_the_package_is_the_command(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "seatrial", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "seatrial" in done.stdout
    assert Path(sys.executable).name not in done.stdout
