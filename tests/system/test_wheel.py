"""The built distribution: the sdist gives the same wheel, and it works beside folders of the floors' names."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from seatrial.optimize.import_closure import own_tree
from tests.house.test_floors import ROOT

pytestmark = pytest.mark.system


def built(folder: Path, *options: str) -> Path:
    """Build what the options say into an empty folder and return the wheel."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), *options, str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as ``python -m build`` makes it: from the sdist."""
    return built(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's own project, whose folders have the floors' names."""
    for floor in ("optimize", "bench", "serve"):
        (tmp_path / floor).mkdir()
        (tmp_path / floor / "__init__.py").write_text(f"OWN = {floor!r}\n")
    (tmp_path / "serve" / "net.py").write_text("def net() -> str:\n    return 'own'\n")
    (tmp_path / "test_bench.py").write_text(
        "import pytest\nfrom bench import OWN\n\n"
        "@pytest.mark.budget('p50', max_regression=0.05)\n"
        "def test_sum(benchmark):\n    assert OWN == 'bench'\n    benchmark(sum, [1, 2])\n"
    )
    return tmp_path


def run(project: Path, installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the project, with the wheel's files and without this checkout on its path."""
    paths = os.pathsep.join((str(project), str(installed)))
    environment = os.environ | {"PYTHONPATH": paths, "SEATRIAL_HOME": str(project / "home")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def test_the_sdist_gives_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(built(tmp_path, "--wheel")) as other:
        assert {each.filename: each.CRC for each in one.infolist()} == {
            each.filename: each.CRC for each in other.infolist()
        }


def test_everything_that_a_floor_needs_is_in_it(wheel: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "optimize", "bench", "serve"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(wheel) as archive:
        assert {f"seatrial/{name}" for name in tracked.stdout.split()} <= set(archive.namelist())


def test_the_command_works_beside_a_project_with_folders_of_those_names(project: Path, installed: Path) -> None:
    code = "import optimize, bench, serve, seatrial, seatrial.serve.cli; print(bench.OWN, seatrial.__file__)"
    done = run(project, installed, "-c", code)
    assert done.stdout.split() == ["bench", str(installed / "seatrial" / "__init__.py")], done.stderr
    done = run(project, installed, "-m", "seatrial", "plan", "none.toml")
    assert (done.returncode, "none.toml" in done.stderr) == (2, True)


def test_what_is_cached_is_keyed_alike_in_a_checkout_and_a_wheel(project: Path, installed: Path) -> None:
    code = "from seatrial.optimize.import_closure import own_tree; print(own_tree().digest('stages.prune'))"
    done = run(project, installed, "-c", code)
    assert done.stdout.strip() == own_tree().digest("stages.prune"), done.stderr


def test_a_project_s_own_serve_net_is_found(project: Path, installed: Path) -> None:
    code = (
        "from pathlib import Path; from seatrial.optimize.user_code import Reference; "
        "print(Reference.parse('serve.net:net', Path('.')).call())"
    )
    done = run(project, installed, "-c", code)
    assert done.stdout == "own\n", done.stderr


def test_pytest_finds_the_plugin_by_itself(project: Path, installed: Path) -> None:
    options = ("-q", "-p", "no:cacheprovider", "--strict-markers", "test_bench.py")
    done = run(project, installed, "-m", "pytest", *options)
    assert done.returncode == 0, done.stdout + done.stderr
