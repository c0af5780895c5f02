"""The house rules that can be checked by reading: imports point down, heavy libraries in leaves, small files."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("optimize", "bench", "serve")
FILES = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]
HEAVY = {
    "torch",
    "torch_pruning",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "tensorrt",
    "tritonclient",
    "locust",
    "grpc",
    "pynvml",
    "ruptures",
    "gevent",
    "plotly",
    "sklearn",
    "optuna",
    "pytriton",
}
# Rooms whose very subject is the library: a leaf named for it, a stage, a file that another process runs.
LEAVES = ("on_", "stages/", "load/locustfile.py", "flavour/python_")


def imports(path: Path, *, top_only: bool) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ("." * node.level) + (node.module or "")
            if node.level:
                parts = path.relative_to(ROOT).with_suffix("").parts[: -node.level]
                package = ".".join([*parts, *([node.module] if node.module else [])])
            yield package


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    floor = FLOORS.index(path.relative_to(ROOT).parts[0])
    above = set(FLOORS[floor + 1 :])
    breaches = [name for name in imports(path, top_only=False) if name.split(".")[0] in above]
    assert not breaches, f"{path} imports from a floor above: {breaches}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_libraries_are_imported_in_leaves_only(path: Path) -> None:
    room = str(path.relative_to(ROOT))
    if any(leaf in room for leaf in LEAVES):
        return
    heavy = [name for name in imports(path, top_only=True) if name.split(".")[0] in HEAVY]
    assert not heavy, f"{room} imports {heavy} at its top; move that into a leaf or into the function"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    long = [
        f"{node.name} ({(node.end_lineno or 0) - node.lineno + 1} lines)"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= 60
    ]
    assert not long, f"{path} has functions of 60 lines or more: {long}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_room_says_its_job(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path} has no module docstring"
    bare = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not bare, f"{path}: public names without a docstring: {bare}"


def test_no_package_shadows_another_under_tests() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_the_command_line_starts_without_heavy_libraries() -> None:
    code = f"import serve.cli, sys; print([name for name in {sorted(HEAVY)!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
