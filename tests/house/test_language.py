"""The language rules that can be checked by reading: how docstrings open, and words that users must not meet."""

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from scripts.drawing.tree import statements
from tests.house.test_floors import FLOORS, ROOT, parsed

MOST = 0.03
"""Largest fraction of docstrings that may open with a question word."""
QUESTION = re.compile(r"(?:What|Whether|How|Who)\b")
PRIVATE = {
    "mend": "fix",
    "mends": "fixes",
    "mended": "fixed",
    "told": "informational, reported",
    "dear": "expensive",
    "absurd": "out of range",
    "slept": "missed",
    "anybody": "a person or process by name",
    "nobody": "unknown, no caller",
    "somebody": "a person or process by name",
    "whoever": "the caller, the user",
    "spelling": "format",
    "spelt": "written",
    "wild": "outlier",
    "relief": "load shedding",
    "upkeep": "supervision",
    "pace": "latency ratio",
    "grids": "fake quantization",
    "lesson": "training job",
}
WORD = re.compile(rf"(?<![.\w])({'|'.join(PRIVATE)})\b", re.IGNORECASE)
PHRASE = re.compile(
    r"(?<!there )\b(?:is|are) no (?:name|number|share|port|rate|kind|version|time|curve|model)\b|\bstands? twice\b"
    r"|\bthe \w+ flavour\b|\b(?:is|are) up already\b|\bthat which\b|\blook(?:s|ed)? (?:at|into)\b|\bcried wolf\b",
    re.IGNORECASE,
)
SPOKEN = re.compile(r"\w*Error|Breach|Broken|Rule|Finding|Doubt|_?finding|_?found|_refuse|_legal|breach|replace")
"""Calls whose string arguments are read by users: errors, findings and broken rules."""
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def modules(floor: str) -> list[Path]:
    return sorted((ROOT / floor).rglob("*.py"))


def templates(floor: str) -> list[Path]:
    return sorted((ROOT / floor).rglob("*.j2"))


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    tree = parsed(path)
    for node in (tree, *statements(tree)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def literal(node: ast.expr) -> Iterator[str]:
    """The text of an expression as far as it is written there, with ``{}`` for what is filled in."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=values):
            yield "".join(
                str(value.value) if isinstance(value, ast.Constant) else "{}"
                for value in values
                if isinstance(value, ast.Constant | ast.FormattedValue)
            )
            for value in values:
                if isinstance(value, ast.FormattedValue):
                    yield from literal(value.value)
        case ast.BinOp(left=left, right=right):
            yield from (*literal(left), *literal(right))
        case ast.BoolOp(values=values):
            for value in values:
                yield from literal(value)
        case ast.IfExp(body=body, orelse=orelse):
            yield from (*literal(body), *literal(orelse))


def called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """Texts of errors and breaches, help texts of options and arguments, and the docstrings of verbs."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call) and SPOKEN.fullmatch(called(node)):
            for each in (*node.args, *(keyword.value for keyword in node.keywords)):
                yield from ((each.lineno, text) for text in literal(each))
        elif isinstance(node, ast.Call) and called(node) in ("Option", "Argument"):
            for keyword in node.keywords:
                if keyword.arg == "help":
                    yield from ((keyword.value.lineno, text) for text in literal(keyword.value))
        elif isinstance(node, ast.FunctionDef) and (
            path.stem == "cli" or path.stem.endswith("_verb") or "verbs" in path.parts
        ):
            yield node.lineno, ast.get_docstring(node) or ""


def prose(text: str) -> str:
    """A page or template without code, styles, tags, placeholders and the targets of links; lines stay in place."""

    def blank(found: re.Match[str]) -> str:
        return "\n" * found.group().count("\n")

    code = r"^```.*?^```|`[^`]*`|<style>.*?</style>|<script>.*?</script>"
    return re.sub(rf"{code}|{{[{{%].*?[}}%]}}|<[^>]*>|\]\([^)]*\)", blank, text, flags=re.MULTILINE | re.DOTALL)


def lines(path: Path) -> list[tuple[int, str]]:
    return list(enumerate(prose(path.read_text()).splitlines(), start=1))


def private(texts: Sequence[tuple[int, str]], path: Path) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}: {word!r}, write {PRIVATE[word.lower()]!r}: {text.strip()[:80]!r}"
        for line, text in texts
        for word in WORD.findall(text)
    ] + [
        f"{path.relative_to(ROOT)}:{line}: {found.group()!r} is no phrase to use: {text.strip()[:80]!r}"
        for line, text in texts
        if (found := PHRASE.search(text))
    ]


@pytest.mark.parametrize("floor", [*FLOORS, "scripts"])
def test_docstrings_open_with_a_sentence_or_a_noun_phrase(floor: str) -> None:
    found = [(path, line, text) for path in modules(floor) for line, text in docstrings(path)]
    odd = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}" for path, line, text in found if QUESTION.match(text)
    ]
    assert len(odd) <= MOST * len(found), "\n".join(odd)


@pytest.mark.parametrize("floor", FLOORS)
def test_messages_use_the_words_of_the_field(floor: str) -> None:
    read = [(path, list(messages(path))) for path in modules(floor)]
    assert sum(len(texts) for _, texts in read) > 100, "the messages of the floor were not found"
    odd = [line for path, texts in read for line in private(texts, path)]
    assert not odd, "\n".join(odd)


@pytest.mark.parametrize("floor", FLOORS)
def test_templates_use_the_words_of_the_field(floor: str) -> None:
    odd = [line for path in templates(floor) for line in private(lines(path), path)]
    assert not odd, "\n".join(odd)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_use_the_words_of_the_field(page: Path) -> None:
    odd = private(lines(page), page)
    assert not odd, "\n".join(odd)


def test_a_private_word_is_found_wherever_users_meet_it(tmp_path: Path) -> None:
    module = tmp_path / "cli.py"
    module.write_text(
        'def verb(x: Annotated[int, typer.Option(help="Nobody knows.")]):\n'
        '    """Be told."""\n'
        '    raise ConfigError(f"{x} is dear", where="here" if x else "whoever", next_step="mend " + "it")\n'
    )
    assert sorted(word for _, text in messages(module) for word in WORD.findall(text)) == sorted(
        ["Nobody", "told", "dear", "whoever", "mend"]
    )
    page = "told\n```\ntold\n```\n`told` <b class='told'>x</b> {{ told }} [y](told.md)\n"
    assert [line for line, text in enumerate(prose(page).splitlines(), start=1) if WORD.search(text)] == [1]


@pytest.mark.parametrize(
    "text", ["mend the model", "'x' is no name", "told only", "the python flavour", "a stands twice"]
)
def test_a_retired_word_or_phrase_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.py").write_text(f"raise ConfigError(f{text!r}, next_step='none')")
    assert any(WORD.search(each) or PHRASE.search(each) for _, each in messages(tmp_path / "x.py"))
