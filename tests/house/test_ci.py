"""The CI recipes use only verbs and options that exist, parse, and turn every exit code into what CI should do."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from seatrial.serve.cli import app
from tests.support.built import ROOT

CI = ROOT / "docs" / "ci"
WORKFLOW = CI / "github-actions.yml"
SCRIPT = CI / "gate.sh"


def scripts() -> Iterator[tuple[str, str]]:
    """Every piece of shell in the recipes, by where it stands."""
    yield "gate.sh", SCRIPT.read_text()
    for name, job in workflow()["jobs"].items():
        for step in job["steps"]:
            if "run" in step:
                yield f"github-actions.yml, {name}", step["run"]
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "ci.md").read_text(), re.DOTALL):
        yield "ci.md", block


def workflow() -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text())
    return found


def calls() -> list[tuple[str, tuple[str, ...]]]:
    """Every call of seatrial in the recipes: where it stands, and its words."""
    found = []
    for where, text in scripts():
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r"\|\||&&|;|\|", line.split(" #")[0]):
                words = part.split(">")[0].split()
                if words and re.fullmatch(r"(\.venv/bin/)?seatrial", words[0]):
                    found.append((where, tuple(shlex.split(" ".join(words[1:])))))
    return found


def spread(words: tuple[str, ...]) -> tuple[str, ...]:
    """`"$@"` replaced by what gate.sh sets it to."""
    if "$@" not in words:
        return words
    given = re.findall(r"^\s*(?:\[.*\] \|\| )?set -- (.*)$", SCRIPT.read_text(), re.MULTILINE)
    return (*words[: words.index("$@")], *(word for line in given for word in shlex.split(line) if word != "$@"))


def test_the_recipes_call_what_they_are_about() -> None:
    verbs = {words[0] for _, words in calls()}
    assert {"build", "gate", "report", "trend", "baseline", "aa", "drill"} <= verbs
    assert len(calls()) >= 15


@pytest.mark.parametrize(("where", "words"), calls(), ids=lambda each: str(each)[:60])
def test_every_call_names_a_verb_and_options_that_exist(where: str, words: tuple[str, ...]) -> None:
    command: Any = typer.main.get_command(app)
    rest = list(spread(words))
    while hasattr(command, "commands"):
        verb = rest.pop(0)
        assert verb in command.commands, f"{where}: no verb {verb}"
        command = command.commands[verb]
    options = {name: each for each in command.params for name in each.opts if name.startswith("-")}
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    positional, taken = 0, iter(rest)
    for word in taken:
        if word.startswith("--"):
            name = word.split("=")[0]
            assert name in options, f"{where}: {command.name} has no {name}"
            if not options[name].is_flag and "=" not in word:
                assert next(taken, "--").startswith("--") is False, f"{where}: {name} takes a value"
        else:
            positional += 1
    assert sum(each.required for each in arguments) <= positional <= len(arguments), f"{where}: {words}"


def test_the_workflow_is_one_that_github_takes() -> None:
    found = workflow()
    assert set(found[True]) == {"pull_request", "schedule", "workflow_dispatch"}  # YAML reads `on` as true
    for job in found["jobs"].values():
        assert job["timeout-minutes"] <= 360
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"])
    for path in (found["env"]["RECIPE"], found["env"]["BUDGET"], "docs/ci/gate.sh", "scripts/install"):
        assert (ROOT / path).is_file()


STUB = """#!/bin/sh
echo "$*" >> "$CALLS"
case $1 in
build)
    digest=$(cat "$(dirname "$2")/digest")
    printf '{\\n "recipe": "x",\\n "artifact": "sha256:%s",\\n "worked": true\\n}\\n' "$digest" ;;
gate)
    while [ "$1" != --out ]; do shift; done
    mkdir "$2" && echo '{}' > "$2/run.json"
    set -- $CODES; code=$1; shift
    count=$(grep -c '^gate' "$CALLS")
    for each in $CODES; do count=$((count - 1)); [ "$count" -gt 0 ] || { code=$each; break; }; done
    exit "$code" ;;
report) echo "## verdict" ; exit 1 ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository whose base builds one digest and whose head builds another."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "recipe.toml").write_text("")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(folder)]
    subprocess.run([*git, "init", "-q"], check=True)
    for digest in ("aa", "bb"):
        (folder / "digest").write_text(digest)
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-qm", digest], check=True)
    stub = tmp_path / "seatrial"
    stub.write_text(STUB)
    stub.chmod(0o755)
    return folder


def gate(project: Path, codes: str, **more: str) -> tuple[int, list[str], str]:
    calls = project.parent / "calls"
    given = {"RECIPE": "recipe.toml", "BUDGET": "budget.toml", "BASE": "HEAD~1", "CODES": codes, "CALLS": str(calls)}
    done = subprocess.run(
        ["sh", str(SCRIPT)],
        cwd=project,
        env=os.environ | given | {"SEATRIAL": str(project.parent / "seatrial")} | more,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, calls.read_text().splitlines() if calls.is_file() else [], done.stderr


@pytest.mark.parametrize(
    ("codes", "more", "code", "said"),
    [
        ("0", {}, 0, "PASS"),
        ("1", {}, 1, "FAIL"),
        ("2", {}, 2, "ended with 2"),
        ("3", {}, 3, "INCONCLUSIVE"),
        ("3", {"ON_INCONCLUSIVE": "warn"}, 0, "not blocked"),
        ("4 0", {}, 0, "PASS"),
        ("4 4", {}, 4, "INVALID"),
        ("4 0", {"RETRIES": "0"}, 4, "INVALID"),
        ("1 0", {}, 1, "FAIL"),
        ("5 0", {}, 5, "damaged"),
    ],
)
def test_exit_codes_and_artefacts(project: Path, codes: str, more: dict[str, str], code: int, said: str) -> None:
    returned, made, stderr = gate(project, codes, **more)
    assert (returned, said in stderr) == (code, True), stderr
    gates = [line for line in made if line.startswith("gate ")]
    again = codes.startswith("4") and more.get("RETRIES") != "0"
    assert len(gates) == (2 if again else 1)
    assert gates[0].startswith("gate sha256:aa sha256:bb --budget budget.toml")
    assert (project / "seatrial-out" / "gate.md").read_text() == "## verdict\n"
    assert (project / "seatrial-out" / "run" / "run.json").is_file()
    assert (project / "seatrial-out" / "run-invalid-1").is_dir() == again
    worktrees = subprocess.run(["git", "worktree", "list"], cwd=project, capture_output=True, text=True, check=True)
    assert len(worktrees.stdout.splitlines()) == 1


def test_equal_bytes_are_not_gated_and_an_old_run_is_not_overwritten(project: Path) -> None:
    returned, made, stderr = gate(project, "1", BASE="HEAD")
    assert (returned, "same bytes" in stderr) == (0, True)
    assert not any(line.startswith("gate") for line in made)
    assert gate(project, "1")[0] == 1
    returned, _, stderr = gate(project, "0")
    assert (returned, "there already" in stderr) == (2, True)


def test_an_artifact_of_the_store_may_be_the_base(project: Path) -> None:
    _, made, _ = gate(project, "0", BASE_ARTIFACT="scenes.fp32", DEPLOYMENT="small.toml")
    assert sum(line.startswith("build") for line in made) == 1
    assert any(line.startswith("gate scenes.fp32 sha256:bb") and "--deployment small.toml" in line for line in made)


def test_without_a_recipe_it_says_what_is_missing(project: Path) -> None:
    returned, made, stderr = gate(project, "0", RECIPE="")
    assert returned == 2
    assert made == []
    assert "name the recipe" in stderr
