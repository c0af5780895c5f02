"""The house rules that can be checked by reading: imports point down, heavy libraries in leaves, small files."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from scripts.drawing.tree import statements

ROOT = Path(__file__).parent.parent.parent
FLOORS = ("optimize", "bench", "serve")
FILES = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]
HEAVY = {
    "torch",
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
SLOW = {"numpy", "scipy", "pydantic", "http.client", "importlib.metadata"}  # 10 to 60 ms each, before --help is printed
# Rooms whose very subject is the library: a leaf named for it, a stage, a file that another process runs.
LEAVES = ("on_", "stages/", "load/locustfile.py", "backend/python_")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    found = statements(parsed(path))
    yield from (each for each in found if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))


def imports(path: Path, *, top_only: bool) -> Iterator[str]:
    tree = parsed(path)
    nodes = tree.body if top_only else statements(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ("." * node.level) + (node.module or "")
            if node.level:
                parts = path.relative_to(ROOT).with_suffix("").parts[: -node.level]
                package = ".".join([*parts, *([node.module] if node.module else [])])
            yield package.removeprefix("seatrial.")


def named(path: Path, fault: str) -> str:
    """Return a fault with its file as the checkout names it."""
    return f"{path.relative_to(ROOT)}: {fault}"


def test_imports_point_down() -> None:
    breaches = []
    for path in FILES:
        above = FLOORS[FLOORS.index(path.relative_to(ROOT).parts[0]) + 1 :]
        names = imports(path, top_only=False)
        breaches += [named(path, f"imports {name}, of a floor above") for name in names if name.split(".")[0] in above]
    assert breaches == []


def test_heavy_libraries_are_imported_in_leaves_only() -> None:
    breaches = [
        named(path, f"imports {name} at its top; move that into a leaf or into the function")
        for path in FILES
        if not any(leaf in str(path.relative_to(ROOT)) for leaf in LEAVES)
        for name in imports(path, top_only=True)
        if name.split(".")[0] in HEAVY
    ]
    assert breaches == []


def test_files_and_functions_are_small() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in FILES}
    breaches = [named(path, f"{count} lines") for path, count in lines.items() if count > 400]
    for path in FILES:
        lengths = ((each.name, (each.end_lineno or 0) - each.lineno + 1) for each in functions(path))
        breaches += [named(path, f"{name} has {length} lines") for name, length in lengths if length > 60]
    assert breaches == []


def test_functions_take_at_most_eight_parameters() -> None:
    """Beside the command line, whose options are parameters; more belong into a value with a name (`GateSetup`)."""
    assert [
        named(path, f"{each.name} takes {count} parameters")
        for path in FILES
        if "verbs" not in path.relative_to(ROOT).parts and path.name != "cli.py"
        for each in functions(path)
        if (count := parameters(each.args)) > 8
    ] == []


def parameters(given: ast.arguments) -> int:
    """Parameters of a function, those that gather others included; self and cls do not count."""
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return sum(each.arg not in ("self", "cls") for each in every)


def test_every_room_says_its_job() -> None:
    breaches = [named(path, "no module docstring") for path in FILES if not ast.get_docstring(parsed(path))]
    for path in FILES:
        public = (
            each
            for each in parsed(path).body
            if isinstance(each, ast.FunctionDef | ast.ClassDef) and not each.name.startswith("_")
        )
        breaches += [named(path, f"{each.name} has no docstring") for each in public if not ast.get_docstring(each)]
    assert breaches == []


def test_no_package_shadows_another_under_tests() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_the_command_line_starts_without_heavy_libraries() -> None:
    code = f"import seatrial.serve.cli, sys; print([name for name in {sorted(HEAVY | SLOW)!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
