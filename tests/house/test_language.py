"""The language rules that can be checked by reading: how docstrings open, and words that users must not meet."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPENS_WELL = ("optimize", "scripts")  # add bench and serve once their docstrings open with a sentence or a noun phrase
SPEAKS_WELL = ("optimize",)  # add bench and serve once their messages are free of the words below
MOST = 0.03
QUESTION = re.compile(r"(?:What|Whether|How|Who)\b")
PRIVATE = {
    "mend": "fix",
    "mends": "fixes",
    "mended": "fixed",
    "told": "informational, reported",
    "dear": "expensive",
    "nobody": "unknown, no caller",
    "somebody": "a person or process by name",
    "whoever": "the caller, the user",
    "flavour": "backend",
    "flavours": "backends",
    "spelling": "format",
    "spelt": "written",
    "wild": "outlier",
    "relief": "load shedding",
    "upkeep": "supervision",
    "pace": "latency ratio",
    "grids": "fake quantization",
    "lesson": "training job",
}
WORD = re.compile(rf"\b({'|'.join(PRIVATE)})\b", re.IGNORECASE)
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def modules(floor: str) -> list[Path]:
    return sorted((ROOT / floor).rglob("*.py"))


def templates(floor: str) -> list[Path]:
    return sorted((ROOT / floor).rglob("*.j2"))


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
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
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and called(node).endswith(("Error", "Breach")):
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


def private(texts: Iterator[tuple[int, str]], path: Path) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}: {word!r}, write {PRIVATE[word.lower()]!r}: {text.strip()[:80]!r}"
        for line, text in texts
        for word in WORD.findall(text)
    ]


@pytest.mark.parametrize("floor", OPENS_WELL)
def test_docstrings_open_with_a_sentence_or_a_noun_phrase(floor: str) -> None:
    found = [(path, line, text) for path in modules(floor) for line, text in docstrings(path)]
    odd = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}" for path, line, text in found if QUESTION.match(text)
    ]
    assert len(odd) <= MOST * len(found), "\n".join(odd)


@pytest.mark.parametrize("floor", SPEAKS_WELL)
def test_messages_use_the_words_of_the_field(floor: str) -> None:
    read = [(path, list(messages(path))) for path in modules(floor)]
    assert sum(len(texts) for _, texts in read) > 100, "the messages of the floor were not found"
    odd = [line for path, texts in read for line in private(iter(texts), path)]
    assert not odd, "\n".join(odd)


@pytest.mark.parametrize("floor", SPEAKS_WELL)
def test_templates_use_the_words_of_the_field(floor: str) -> None:
    odd = [
        line
        for path in templates(floor)
        for line in private(enumerate(prose(path.read_text()).splitlines(), start=1), path)
    ]
    assert not odd, "\n".join(odd)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_use_the_words_of_the_field(page: Path) -> None:
    odd = private(enumerate(prose(page.read_text()).splitlines(), start=1), page)
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
