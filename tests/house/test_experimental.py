"""The experimental parts: one list, from which help, docs, notices and marked tests follow."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from seatrial.optimize import experimental
from seatrial.optimize.config import load
from seatrial.optimize.errors import MissingError, SeatrialError, StageError
from seatrial.optimize.experimental import ALL, GPU, KUBERNETES, LABEL, TENSORRT, Experimental, used
from seatrial.optimize.sessions.on_ort import OrtSession
from seatrial.optimize.sessions.on_tensorrt import EngineSession
from seatrial.serve.cli import Verbs, app
from seatrial.serve.deployment import Deployment
from seatrial.serve.kubernetes import world
from seatrial.serve.traffic.rollout.machine import Rollout
from seatrial.serve.traffic.rollout.plan import load_plan
from seatrial.serve.triton.compiler import config
from tests.support.kinds import DEPLOYMENTS, EXAMPLES

ROOT = Path(__file__).parents[2]
MARK = re.compile(r'pytest\.mark\.experimental\("([^"]*)"\)')


def helps(command: Any, name: str) -> Iterator[tuple[str, str]]:
    """Every verb's text by its name, and every option's by the verb's name and its own."""
    yield name, command.help or ""
    yield from ((f"{name} {each.opts[0]}", getattr(each, "help", None) or "") for each in command.params)
    if hasattr(command, "list_commands"):
        context = typer.Context(command)
        for word in command.list_commands(context):
            yield from helps(command.get_command(context, word), f"{name} {word}".strip())


def test_the_help_bears_the_label_where_the_list_says_so_and_nowhere_else() -> None:
    labelled = {name for name, text in helps(typer.main.get_command(app), "") if LABEL in text}
    assert labelled == {name for part in ALL for name in part.helps}


def test_the_page_names_every_part_with_what_would_settle_it() -> None:
    page = (ROOT / experimental.PAGE).read_text()
    section = page.partition("## Experimental\n")[2].partition("\n## ")[0]
    for part in ALL:
        assert f"| {part.name} | {part.scope} | {part.unmet} | {part.settled_by} |" in section


def test_the_readme_leads_to_the_list() -> None:
    assert f"{experimental.PAGE}#experimental" in (ROOT / "README.md").read_text()


def test_every_part_has_marked_tests_and_every_mark_names_a_part() -> None:
    marked = {name for path in (ROOT / "tests").rglob("test_*.py") for name in MARK.findall(path.read_text())}
    assert marked == {part.name for part in ALL}


def test_each_test_for_a_gpu_is_marked() -> None:
    for path in (ROOT / "tests" / "gpu").glob("test_*.py"):
        assert MARK.search(path.read_text()), path


def test_a_command_reports_each_part_once_and_nothing_outside_it() -> None:
    seen: list[Experimental] = []
    used(GPU)
    with experimental.reported(seen.append):
        for part in (GPU, TENSORRT, GPU):
            used(part)
    used(KUBERNETES)
    assert seen == [GPU, TENSORRT]


def test_a_report_ends_with_its_command_also_where_that_fails() -> None:
    seen: list[Experimental] = []
    with pytest.raises(ValueError, match="planted"), experimental.reported(seen.append):
        raise ValueError("planted")
    used(GPU)
    assert seen == []


def test_the_notice_is_one_line_on_stderr_and_stdout_is_as_without_it() -> None:
    small = typer.Typer(cls=Verbs)

    @small.command()
    def verb() -> None:
        used(GPU)
        used(GPU)
        print("{}")

    @small.command()
    def other() -> None:
        """A second verb, so that the first one has a name."""

    done = CliRunner().invoke(small, ["verb"])
    assert done.exit_code == 0
    assert done.stdout == "{}\n"
    assert done.stderr == f"experimental: {GPU.notice}\n"


def test_cuda_as_a_provider_is_reported_and_the_cpu_is_not(tmp_path: Path) -> None:
    seen: list[Experimental] = []
    with experimental.reported(seen.append):
        for providers in (("CPUExecutionProvider",), ("CUDAExecutionProvider",)):
            with pytest.raises(StageError, match="cannot open"):
                OrtSession(tmp_path / "none.onnx", providers=providers)
            assert (seen == [GPU]) == ("CUDAExecutionProvider" in providers)


def test_the_world_of_a_cluster_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = load_plan(ROOT / "serve" / "rollouts" / "usual.toml")
    rollout = Rollout(
        model="m", stable=1, candidate=2, digest="x", plan=plan, started=0, entered=0, resumed=0, reason="started"
    )
    seen: list[Experimental] = []
    with experimental.reported(seen.append), pytest.raises(MissingError):
        world.cluster(rollout)
    assert seen == [KUBERNETES]


def test_an_engine_is_reported_before_it_is_opened(tmp_path: Path) -> None:
    seen: list[Experimental] = []
    with experimental.reported(seen.append), pytest.raises((SeatrialError, OSError)):
        EngineSession(lambda name: tmp_path / name, (), ())
    assert seen == [TENSORRT]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("scenes.toml", []),
        ("detector-cuda.toml", [GPU]),
        ("scenes-trt-provider.toml", [GPU]),
        ("scenes-engine.toml", [GPU, TENSORRT]),
    ],
)
def test_a_configuration_for_a_gpu_is_reported(name: str, parts: list[Experimental]) -> None:
    seen: list[Experimental] = []
    with experimental.reported(seen.append):
        config.render(load(DEPLOYMENTS / name, Deployment), EXAMPLES[name], versions=(1,))
    assert seen == parts
