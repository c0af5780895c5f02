"""Names from files, servers and arguments as a terminal shows them: nothing is obeyed, nothing is hidden."""

import io

import pytest
from rich.table import Table

from seatrial.optimize.terminal import Terminal, led
from seatrial.optimize.visible import visible

EVIL = "\x1b[31mred\x1b[0m\x07\x9b2J\x7f[bold red]x[/] \u202egnp\u2066\u200b\ud800\r"
SHOWN = ("\\x1b[31mred", "\\x07", "\\x9b2J", "\\x7f", "[bold red]x[/]", "\\u202egnp", "\\u2066", "\\u200b", "\\ud800")


@pytest.mark.parametrize("form", ["text", "led", "table", "title", "exact"])
def test_what_a_terminal_would_obey_is_shown_wherever_it_is_printed(form: str) -> None:
    sink = io.StringIO()
    console = Terminal(file=sink, width=200, force_terminal=True, color_system=None)
    if form in ("table", "title"):
        table = Table(title=EVIL if form == "title" else None)
        table.add_column("name", header_style="")
        table.add_row(EVIL)
        console.print(table)
    else:
        console.print(led("bold", "name", EVIL) if form == "led" else EVIL, highlight=form == "exact")
    printed = sink.getvalue()
    assert all(part in printed for part in SHOWN)
    assert not any(character in printed for character in "\x1b\x07\x9b\x7f\u202e\u2066\u200b\ud800\r")
    printed.encode()


def test_ordinary_text_stays_as_it_is() -> None:
    text = "a → b: 2 µs … é 日本\n\tplain"
    assert visible(text) == text
    assert visible(text, one_line=True) == text.replace("\n", "\\n").replace("\t", "\\t")
