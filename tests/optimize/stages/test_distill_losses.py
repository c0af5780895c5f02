"""Laws of the distillation losses, and what is said where layers do not fit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.optimize.errors import ConfigError, StageError
from seatrial.optimize.recipe.configs import Attention, DistillConfig, Features, Relations, Training
from seatrial.optimize.stages.layers import find_layers, observe
from seatrial.optimize.stages.losses import (
    activation_loss,
    activation_map,
    answer_loss,
    attention_loss,
    attention_map,
    feature_loss,
    relation_loss,
)
from seatrial.optimize.stages.objective import Objective, terms_of
from seatrial.optimize.stages.teacher import ask
from tests.support.plain import attentive, net

seeds = st.integers(0, 10_000)
scales = st.floats(0.1, 50)
few = settings(max_examples=25, deadline=None)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@few
@given(seeds, st.integers(1, 6))
def test_every_loss_is_zero_for_the_teacher_itself(seed: int, rows: int) -> None:
    hidden, weights = drawn(seed, rows, 3, 4, 4), drawn(seed, rows, 2, 5, 5).softmax(-1)
    losses = [
        feature_loss(hidden, hidden),
        activation_loss(activation_map(hidden), activation_map(hidden)),
        attention_loss(attention_map(weights), attention_map(weights)),
        relation_loss(hidden, hidden),
        answer_loss(hidden[:, :, 0, 0], hidden[:, :, 0, 0], None, 4.0, 0.9),
    ]
    assert all(abs(float(loss)) < 1e-9 for loss in losses)


@few
@given(seeds, st.integers(2, 6))
def test_every_loss_is_positive_for_another(seed: int, rows: int) -> None:
    one, other = drawn(seed, rows, 3, 4, 4), drawn(seed + 1, rows, 3, 4, 4)
    assert feature_loss(one, other) > 0
    assert activation_loss(activation_map(one), activation_map(other)) > 0
    assert attention_loss(one.softmax(-1).mean(1), other.softmax(-1).mean(1)) > 0
    assert relation_loss(one, other) > 0


@few
@given(seeds, scales)
def test_losses_are_blind_to_what_they_should_not_see(seed: int, scale: float) -> None:
    one, other = drawn(seed, 5, 6), drawn(seed + 1, 5, 8)
    turned = one @ torch.linalg.qr(drawn(seed + 2, 6, 6))[0] * scale
    assert float(relation_loss(turned, other)) == pytest.approx(float(relation_loss(one, other)), abs=1e-9)
    image = drawn(seed, 4, 3, 5, 5)
    target = activation_map(drawn(seed + 1, 4, 7, 5, 5))
    assert float(activation_loss(activation_map(image * scale), target)) == pytest.approx(
        float(activation_loss(activation_map(image), target)), abs=1e-9
    )
    both = drawn(seed + 3, 4, 3, 5, 5)
    assert float(feature_loss(image * scale, both * scale)) == pytest.approx(float(feature_loss(image, both)))


@few
@given(seeds, st.integers(2, 9), st.data())
def test_a_shared_batch_has_the_same_mean_for_every_loss_but_relations(
    seed: int, rows: int, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, rows - 1))
    one, other = drawn(seed, rows, 3, 4, 4), drawn(seed + 1, rows, 3, 4, 4)
    for loss in (feature_loss, activation_loss):
        parts = cut * loss(one[:cut], other[:cut]) + (rows - cut) * loss(one[cut:], other[cut:])
        assert float(parts / rows) == pytest.approx(float(loss(one, other)))


def test_a_student_that_says_nothing_has_a_feature_loss_of_one() -> None:
    assert float(feature_loss(torch.zeros(3, 4), torch.randn(3, 4))) == pytest.approx(1.0)


def test_layers_are_found_level_by_level_and_in_order() -> None:
    assert find_layers(net(), "blocks.*", "") == ["blocks.0", "blocks.1"]
    assert find_layers(net(), "*", "") == ["blocks", "head"]
    with pytest.raises(ConfigError, match=r"no layer fits 'block\.0'") as caught:
        find_layers(net(), "block.0", "features.student")
    assert "blocks.0" in caught.value.next_step
    assert caught.value.where == "features.student"


def test_unequal_numbers_of_layers_are_refused() -> None:
    config = DistillConfig(kind="distill", student="x", features=(Features(student="blocks.*", teacher="head"),))
    with pytest.raises(ConfigError, match="fits 2 layers of the student, 'head' 1"):
        terms_of(config, net(), net())


def objective(config: DistillConfig, student: torch.nn.Module, teacher: torch.nn.Module) -> Objective:
    example = {"signal": torch.randn(2, 1, 64)}
    terms = terms_of(config, student, teacher)
    said = ask(teacher, "logits", terms, example)
    return Objective(student, terms, config.training, output="logits", example=example, targets=said)


def test_projections_are_learnt_only_where_widths_differ() -> None:
    config = DistillConfig(kind="distill", student="x", features=(Features(student="blocks.*", teacher="blocks.*"),))
    assert not objective(config, net(8), net(8)).projections
    made = objective(config, net(8), net(16)).projections
    shapes = {tuple(tensor.shape) for name, tensor in made.state_dict().items() if name.endswith("weight")}
    assert (len(made), shapes) == (2, {(16, 8)})


@pytest.mark.parametrize("held", [False, True])
def test_attention_probabilities_are_compared_although_heads_differ(held: bool) -> None:
    config = DistillConfig(
        kind="distill",
        student="x",
        output_weight=0.0,
        attention=(Attention(student="attention", teacher="attention", maps="weights"),),
    )
    teacher, student = attentive(16, 4, held).eval(), attentive(8, 2)
    example = {"signal": torch.randn(6, 1, 64)}
    said = ask(teacher, "logits", terms_of(config, student, teacher), example)
    loss, across = objective(config, student, teacher)(example, said, None)
    assert loss > 0
    assert across == 0


def test_a_layer_without_attention_weights_is_named() -> None:
    config = DistillConfig(
        kind="distill", student="x", attention=(Attention(student="head", teacher="head", maps="weights"),)
    )
    with pytest.raises(StageError, match="layer head returns no attention weights"):
        objective(config, attentive(), attentive())


def test_a_layer_that_does_not_run_is_named() -> None:
    student = net()
    student.spare = torch.nn.Linear(2, 2)
    with pytest.raises(StageError, match="do not run in forward: spare"):
        observe(student, {"signal": torch.randn(2, 1, 64)}, "logits", ["spare"])


@few
@given(st.integers(1, 64), st.integers(1, 64))
def test_no_more_processes_than_samples_in_a_batch(processes: int, batch: int) -> None:
    if processes <= batch:
        assert Training(processes=processes, batch_size=batch).processes == processes
    else:
        with pytest.raises(ConfigError, match="cannot share a batch"):
            Training(processes=processes, batch_size=batch)


def test_configurations_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="no loss to train on"):
        DistillConfig(kind="distill", student="x", output_weight=0.0)
    with pytest.raises(ConfigError, match="both layers or neither"):
        Relations(student="head")
