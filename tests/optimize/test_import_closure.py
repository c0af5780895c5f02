import ast
import shutil
from pathlib import Path

import pytest

from seatrial.optimize import import_closure
from seatrial.optimize.import_closure import SourceTree, own_tree
from seatrial.optimize.recipe.kinds import STAGES
from tests.house.test_floors import ROOT

FLOOR = ROOT / "optimize"
PRESENTATION = ("report", "terminal", "verbs")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("somewhere") / "else"
    shutil.copytree(FLOOR, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def tree(folder: Path) -> SourceTree:
    return SourceTree(folder, "seatrial.optimize")


@pytest.mark.parametrize(
    ("kind", "inside", "outside"),
    [
        ("mixed", "quality.py", "pruning/on_cut.py"),
        ("prune", "sessions/on_ort.py", "quantization/on_graph.py"),
        ("cast", "parity/sweep.py", "stages/qat.py"),
        ("distill", "stages/worker.py", "stages/export.py"),  # run by another process
        ("export", "stages/dims.py", "stages/training.py"),
        ("compile", "tensorrt/plan.py", "stages/quantize.py"),
    ],
)
def test_an_edit_changes_the_digest_of_the_stages_that_run_it(copy: Path, kind: str, inside: str, outside: str) -> None:
    module = f"stages.{kind}"
    before = tree(copy).digest(module)
    for name, same in ((inside, False), (outside, True)):
        kept = (copy / name).read_bytes()
        (copy / name).write_bytes(kept + b"\nEDITED = True\n")
        try:
            assert (tree(copy).digest(module) == before) is same, name
        finally:
            (copy / name).write_bytes(kept)
    assert tree(copy).digest(module) == before


def test_the_digest_is_the_same_wherever_the_floor_lies(copy: Path) -> None:
    assert tree(copy).digest("stages.quantize") == own_tree().digest("stages.quantize")
    assert tree(FLOOR).digest("stages.quantize") == own_tree().digest("stages.quantize")


@pytest.mark.parametrize("module", ["building.source", *(f"stages.{kind}" for kind in STAGES.built_in)])
def test_how_results_are_shown_is_no_part_of_what_is_cached(module: str) -> None:
    shown = {file for file in own_tree().closure(module) if file.split("/")[0].removesuffix(".py") in PRESENTATION}
    assert shown == set()


@pytest.mark.parametrize("path", sorted(FLOOR.rglob("*.py")), ids=lambda path: str(path.relative_to(FLOOR)))
def test_imports_are_read_as_the_parser_reads_them(path: Path) -> None:
    text = path.read_text()
    whole = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert sorted(map(ast.dump, import_closure._statements(text))) == sorted(map(ast.dump, whole))


def test_every_way_to_import_counts(tmp_path: Path) -> None:
    files = {
        "__init__.py": "",
        "room/__init__.py": "",
        "room/first.py": "import os\nfrom . import second\nfrom ..ground import (\n    NAME,  # (a remark)\n)\n",
        "room/second.py": "def late() -> None:\n    from house.floor.other import last as final\n",
        "ground.py": '"""Words:\nimport nothing of this\n"""\nimport house.floor.whole\n',
        "other/__init__.py": "",
        "other/last.py": 'COMMAND = ["-m", "house.floor.runner"]\n',
        "other/unused.py": "",
        "runner.py": "from .room.first import NAME\nfrom elsewhere.floor import unused\n",
        "whole.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = SourceTree(tmp_path, "house.floor")
    assert found.closure("room.first") == tuple(sorted(files.keys() - {"other/unused.py"}))
    assert found.closure("whole") == ("__init__.py", "whole.py")
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        found.closure("nowhere")
