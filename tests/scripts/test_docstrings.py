"""The docstring workload's pure part: what counts as a sentence, and that splits and tokens are lawful."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.models.docstrings import BUCKETS, LENGTH, sentences_of, split_of, tokens_of, without_names

SOURCE = '''
"""The module speaks of one thing only. It must say so here.

>>> this is an example and not a sentence of prose.
"""

def area(radius):
    """Return the area of a circle with that radius.

    radius : float
        Its length is given in metres and never negative.
    """
'''


def test_sentences_are_prose_of_modules_classes_and_functions() -> None:
    assert list(sentences_of(SOURCE)) == [
        "The module speaks of one thing only.",
        "It must say so here.",
        "Return the area of a circle with that radius.",
    ]


def test_a_source_that_does_not_parse_has_no_sentences() -> None:
    assert list(sentences_of("def broken(:")) == []
    with pytest.raises(SyntaxError):
        ast.parse("def broken(:")


def test_names_of_the_packages_are_taken_out_and_other_words_stay() -> None:
    assert without_names("A NumPy array or torch.Tensor of numpydoc.") == "A  array or .Tensor of numpydoc."


@given(st.text())
def test_tokens_are_few_lie_in_the_vocabulary_and_never_mean_padding(text: str) -> None:
    tokens = tokens_of(text)
    assert len(tokens) <= LENGTH
    assert all(0 < token < BUCKETS for token in tokens)


@given(st.text(alphabet="abcdefgh "), st.text(alphabet="abcdefgh ", min_size=1))
def test_tokens_of_a_sentence_begin_like_those_of_its_beginning(first: str, rest: str) -> None:
    head, whole = tokens_of(first), tokens_of(f"{first} {rest}")
    assert whole[: len(head)] == head


def test_equal_words_have_equal_tokens_wherever_they_stand() -> None:
    assert tokens_of("Array of arrays")[0] == tokens_of("of array")[1]
    assert tokens_of("polynomial")[0] != tokens_of("polynomial")[1]


def test_files_are_spread_over_the_splits_by_name_and_seed_alone() -> None:
    names = [f"package/module_{number}.py" for number in range(4000)]
    splits = [split_of(name) for name in names]
    assert splits == [split_of(name) for name in names]
    assert splits != [split_of(name, seed=8) for name in names]
    assert 0.66 < splits.count("train") / len(splits) < 0.74
    assert 0.17 < splits.count("evaluation") / len(splits) < 0.23
    assert set(splits) == {"train", "calibration", "evaluation", "golden"}
