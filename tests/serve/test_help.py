"""What the help texts say is what a reader sees."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import typer
from rich.text import Text

from seatrial.serve.cli import app


def helps(command: Any, name: str) -> Iterator[tuple[str, str]]:
    """Every verb's text and every option's, of the commands as typer makes them."""
    yield name, command.help or ""
    yield from ((f"{name} {each.name}", getattr(each, "help", None) or "") for each in command.params)
    if hasattr(command, "list_commands"):
        context = typer.Context(command)
        for word in command.list_commands(context):
            yield from helps(command.get_command(context, word), f"{name} {word}")


def test_no_help_text_loses_a_bracketed_word_to_markup() -> None:
    """A table's name in brackets reads as a style to rich, and vanishes, unless it is escaped."""
    texts = dict(helps(typer.main.get_command(app), "seatrial"))
    assert len(texts) > 200
    assert [name for name, text in texts.items() if Text.from_markup(text).spans] == []


def test_the_list_of_verbs_says_what_each_verb_says_and_imports_none() -> None:
    code = (
        "import sys, typer; from seatrial.serve.cli import app; "
        "shown = {name: each.help for name, each in typer.main.get_command(app).commands.listed().items()}; "
        "print([name for name in sys.modules if '.verbs.' in name]); print(repr(shown))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    imported, shown = done.stdout.splitlines()
    assert imported == "[]"
    command: Any = typer.main.get_command(app)
    assert ast.literal_eval(shown) == {name: each.help for name, each in command.commands.items()}
