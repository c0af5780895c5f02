"""Checks of the language in `bench/` and `serve/`: first lines of docstrings, words of user-visible strings."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FLOORS = ("bench", "serve")
MOST = 0.03
"""Largest fraction of docstrings that may open with a question word."""
OPENERS = re.compile(r"(What|Whether|How|Who)\b")
WORDS = re.compile(
    r"(?<!\.)\b(mends?|mended|told|nobody|whoever|wild|dear|relief|upkeep|absurd|cried wolf)\b"
    r"|\b(slept|spelt|anybody|somebody)\b"
    r"|(?<!there )\b(is|are) no (name|number|share|port|rate|kind|version|time|curve|model)\b"
    r"|\bstands? twice\b|\bflavours\b"
    r"|\bthe \w+ flavour\b|\b(is|are) up already\b|\bthat which\b|\blook(s|ed)? (at|into)\b",
    re.IGNORECASE,
)
"""Words of the left column of the project's word list, as far as they have a single meaning, and retired phrases."""
VISIBLE = re.compile(
    r"(\w*Error|Broken|Rule|Finding|Doubt|_?finding|_?found|_refuse|_legal|breach|Option|Argument|replace)"
)
"""Calls whose string arguments are read by users: errors, findings, and help of options."""


def _modules(floor: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / floor).rglob("*.py")):
        yield path, ast.parse(path.read_text())


def _documented(module: ast.Module) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _texts(node: ast.AST) -> Iterator[str]:
    """Yield the literal parts of a string expression; what is inserted into an f-string is left out."""
    for part in ast.iter_child_nodes(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value
        elif not isinstance(part, ast.FormattedValue):
            yield from _texts(part)


def _visible(path: Path, module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and text of every user-visible string of a module."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if VISIBLE.fullmatch(name):
                for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                    yield from ((argument.lineno, text) for text in _texts(ast.Expr(argument)))
    if path.parent.name == "verbs":
        for each in module.body:
            if isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
                yield each.lineno, ast.get_docstring(each) or ""


@pytest.mark.parametrize("floor", FLOORS)
def test_docstrings_open_with_a_sentence_or_a_noun_phrase(floor: str) -> None:
    texts = {
        f"{path.relative_to(ROOT)}: {getattr(node, 'name', 'module')}": text
        for path, module in _modules(floor)
        for node in _documented(module)
        if (text := ast.get_docstring(node))
    }
    asking = [where for where, text in texts.items() if OPENERS.match(text)]
    assert len(texts) > 500
    assert len(asking) <= MOST * len(texts), asking


@pytest.mark.parametrize("floor", FLOORS)
def test_strings_that_users_read_have_none_of_the_retired_words(floor: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text!r}"
        for path, module in _modules(floor)
        for line, text in _visible(path, module)
        if WORDS.search(text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("floor", FLOORS)
def test_templates_have_none_of_the_retired_words(floor: str) -> None:
    """Names of classes and variables in a template's tags are no text."""
    templates = sorted((ROOT / floor).rglob("*.j2"))
    assert templates
    for path in templates:
        text = re.sub(r"<style>.*?</style>|\{[{%].*?[}%]\}|<[^>]*>", " ", path.read_text(), flags=re.DOTALL)
        assert not WORDS.search(text), f"{path.name}: {WORDS.search(text)}"


@pytest.mark.parametrize(
    "text", ["mend the model", "'x' is no name", "told only", "the python flavour", "a stands twice"]
)
def test_a_retired_word_is_found(text: str) -> None:
    module = ast.parse(f"raise ConfigError(f{text!r}, next_step='none')")
    assert any(WORDS.search(each) for _, each in _visible(Path("x.py"), module))
