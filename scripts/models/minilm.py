"""Sentence embedding with real weights: docstring sentences for MiniLM-L6, and how well a copy keeps the neighbours.

The network is `minilm` in bert.py, the text is docstrings.py's. There is no labelled task here: quality is how many of
a sentence's ten nearest neighbours under the float model (NN@10) a smaller model finds again.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import bert  # type: ignore[import-not-found]  # beside this file, whose folder is importable while it loads
import docstrings  # type: ignore[import-not-found]
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

Integers = NDArray[np.int64]
Floats = NDArray[np.float32]

LENGTH = 64  # tokens of a sentence, padded or cut
NEIGHBOURS = 10
_INDEX = 1500  # sentences that neighbours are looked for among, from the training split


@cache
def _tokenizer() -> Any:
    """The published tokenizer, padding and cutting to `LENGTH`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bert.minilm_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    return tokenizer


def encoded(sentences: list[str]) -> dict[str, Integers]:
    """Sentences as the model's inputs, int64 [n, 64] each."""
    rows = _tokenizer().encode_batch(sentences)
    return {
        "input_ids": np.array([row.ids for row in rows], np.int64),
        "attention_mask": np.array([row.attention_mask for row in rows], np.int64),
    }


def samples(split: str, count: int | None = None, seed: int = 7) -> tuple[dict[str, Integers], Floats | None]:
    """Sentences of one split; where quality is judged, the label is the float model's own answer, float32 [n, 384]."""
    sentences, _ = docstrings.texts(split, count, seed)
    inputs = encoded(sentences)
    return inputs, _float_answers(inputs) if split in ("calibration", "evaluation") else None


@cache
def index() -> Floats:
    """The float model's embeddings of the sentences that neighbours are looked for among, float32 [1500, 384]."""
    return _float_answers(encoded(docstrings.texts("train", _INDEX)[0]))


def neighbours(outputs: Mapping[str, Floats], labels: Floats) -> NDArray[np.float64]:
    """The recipe's metric: the share of ten neighbours kept per sentence, [n], where only the query is the candidate's.

    The index is the float model's, as it is where a model is exchanged under an index that stays. `overlap` is the
    stricter figure, for an index that the candidate made as well.
    """
    return _shared(nearest(labels, index()), nearest(outputs["sentence_embedding"], index()))


def overlap(queries: Floats, documents: Floats, other_queries: Floats, other_documents: Floats) -> NDArray[np.float64]:
    """The share of ten neighbours that two models agree on, per query [n]; each has its own index."""
    return _shared(nearest(queries, documents), nearest(other_queries, other_documents))


def nearest(queries: Floats, documents: Floats) -> Integers:
    """The ten documents of greatest cosine for each query of unit length, int64 [n, 10]."""
    return np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :NEIGHBOURS]


def _shared(one: Integers, other: Integers) -> NDArray[np.float64]:
    common = [len(np.intersect1d(*rows)) / NEIGHBOURS for rows in zip(one, other, strict=True)]
    return np.array(common, np.float64)


def _float_answers(inputs: Mapping[str, Integers]) -> Floats:
    """The published model's embeddings; batches of like length, so that little padding is computed."""
    import torch

    model = bert.minilm()
    lengths = inputs["attention_mask"].sum(1)
    found: Floats = np.empty((len(lengths), 384), np.float32)
    order = np.argsort(lengths, kind="stable")
    with torch.inference_mode():
        for start in range(0, len(order), 32):
            rows = order[start : start + 32]
            part = {name: torch.from_numpy(array[rows, : lengths[rows].max()]) for name, array in inputs.items()}
            found[rows] = model(**part).numpy()
    return found
