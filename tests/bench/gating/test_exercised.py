"""What a verdict is silent on is said: batch sizes, lengths and classes that were never tried, and the worst part."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from seatrial.bench.budget import Budget
from seatrial.bench.gating.exercised import deployable, exercised, spans
from seatrial.bench.gating.judge import judge
from seatrial.bench.gating.pairs import Deployable, GateRun, SampledTensor, SaturationUse
from seatrial.bench.quality.evidence import CLEAN, Answers, Evidence
from seatrial.bench.quality.weakest import weakest
from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.samples import Samples
from tests.support.gating import CANDIDATE
from tests.support.usage import executed

RunMaker = Callable[..., GateRun]
IDS = SampledTensor(name="ids", shape=("batch", "length", 4), sampled=(32, 4))
SATURATED = SaturationUse(batch=16, client_cpu=0.1, errors=0, completed=9)


def served(run: GateRun, most: int | None, *, load: dict[int, int], saturation: dict[int, int]) -> GateRun:
    records = [
        replace(each, server=executed(load), saturation=replace(SATURATED, server=executed(saturation)))
        for each in run.records
    ]
    return replace(run, records=tuple(records), header=replace(run.header, deployable=Deployable(max_batch=most)))


@pytest.mark.parametrize(
    ("most", "load", "saturation", "said"),
    [
        (
            16,
            {1: 9, 2: 3},
            {16: 4},
            "1 to 2, 16, out of 1 to 16 deployable; the speed at 3 to 15 is unknown",
        ),
        (4, {1: 9, 2: 3, 3: 1}, {4: 4, 8: 0}, "1 to 4, every size that the deployment allows"),
        (None, {1: 9}, {}, "1; the deployment's largest batch is unknown"),
        (2, {}, {}, "16, out of 1 to 2 deployable"),
    ],
)
def test_batch_sizes(
    make_run: RunMaker, budget: Budget, most: int | None, load: dict[int, int], saturation: dict[int, int], said: str
) -> None:
    notes = judge(served(make_run(), most, load=load, saturation=saturation), budget).notes
    assert any(note.startswith("batch sizes ") and said in note for note in notes), notes


def test_the_batches_of_the_quality_share_are_told_apart_from_the_speed_s(make_run: RunMaker) -> None:
    [note] = exercised(served(make_run(), 16, load={1: 9}, saturation={4: 4}), 8)
    assert "the speed at 2 to 3, 5 to 16 is unknown (plus batches of 8 for quality)" in note


def test_lengths_of_free_axes_beside_the_batch() -> None:
    shaped = replace(CANDIDATE, inputs=(TensorSpec(name="ids", dtype="int64", shape=("batch", "length", 4)),))
    samples = Samples(
        split="evaluation", inputs={"ids": np.zeros((20, 32, 4), np.int64)}, labels=np.zeros(20, np.int64)
    )
    about = deployable(shaped, samples, 8)
    assert about.inputs == (IDS,)


def test_a_single_length_is_said(make_run: RunMaker) -> None:
    run = make_run()
    about = Deployable(max_batch=1, inputs=(IDS,))
    notes = exercised(replace(run, header=replace(run.header, deployable=about)), 8)
    assert "lengths exercised of free axes: ids axis 'length' at 32; other lengths were not tested" in notes


def evidence(n: int = 2000, *, lost: int | None = None) -> Evidence:
    random = np.random.default_rng(0)
    labels, group = random.integers(0, 5, n), random.integers(0, 3, n)
    base = (random.random(n) < 0.95).astype(float)
    candidate = np.where((labels == lost) & (random.random(n) < 0.2), 0.0, base)
    return Evidence(
        labels=labels,
        columns={"group": group},
        derived={},
        rows={CLEAN: np.arange(n)},
        base=Answers(scores={CLEAN: base}),
        candidate=Answers(scores={CLEAN: candidate}),
    )


def test_the_class_that_lost_is_named_with_a_bound() -> None:
    [of_class, of_segment] = weakest(evidence(lost=3))
    assert of_class.startswith("worst class of 5: class 3, from 0.9")
    assert "significantly worse, by at least 0.1" in of_class
    assert of_segment.startswith("worst segment of 3: ")


def test_what_lost_nothing_is_said_to_have_lost_nothing() -> None:
    assert weakest(evidence()) == ("worst class of 5: none lost quality", "worst segment of 3: none lost quality")


@pytest.mark.parametrize("labels", [np.random.default_rng(0).random(50), np.array(["a", "b"] * 25)])
def test_labels_that_are_no_classes_have_no_worst_class(labels: Any) -> None:
    found = replace(evidence(50), labels=labels)
    assert not any("class" in note for note in weakest(found))


def test_numbers_in_words() -> None:
    assert spans({4, 1, 2, 8, 9, 10}) == "1 to 2, 4, 8 to 10"
    assert spans([]) == ""
