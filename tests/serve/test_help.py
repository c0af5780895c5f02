"""What the help texts say is what a reader sees."""

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
