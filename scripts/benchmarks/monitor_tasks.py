"""Classification tasks whose truth is known: covariate shift, label shift and concept drift, each of chosen size."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from seatrial.serve.monitor.answering import Coder, Codes, Labelled, Reference, labelled
from seatrial.serve.monitor.plan import Feature, Plan
from seatrial.serve.monitor.plan_answers import Answers, Outcomes
from seatrial.serve.monitor.quantities import Columns, Floats
from seatrial.serve.monitor.sketch import Sketch, learn_sketch

FEATURES = 12
PLAN = Plan(
    schema=1,
    model="task",
    features={f"x{at}": Feature(kind="number") for at in range(FEATURES)},
    estimate=Answers(label="label", probabilities={"1": "p"}),
    outcomes=Outcomes(request="request"),
)
Truth = Literal["none", "covariate", "label", "concept"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Inputs moved by `shift` standard deviations in four features, class 1 with the share `prior`, or the class of a
    sixth of the traffic turned over with the chance `flip`.
    """

    truth: Truth
    shift: float = 0.0
    prior: float = 0.0
    flip: float = 0.0


SCENARIOS: Mapping[str, Scenario] = {
    "none": Scenario(truth="none"),
    "covariate 0.5": Scenario(truth="covariate", shift=0.5),
    "covariate 1": Scenario(truth="covariate", shift=1.0),
    "covariate 2": Scenario(truth="covariate", shift=2.0),
    "covariate 3": Scenario(truth="covariate", shift=3.0),
    "label 0.75": Scenario(truth="label", prior=0.75),
    "concept 0.5": Scenario(truth="concept", flip=0.5),
    "concept 1": Scenario(truth="concept", flip=1.0),
}


def drawn(rows: int, draw: np.random.Generator, scenario: Scenario) -> tuple[Floats, Codes]:
    """Draw inputs of shape [rows, 12] and their class; the model cannot know all of it."""
    inputs = draw.normal(size=(rows * (6 if scenario.prior else 1), FEATURES))
    inputs[:, :4] += scenario.shift * np.array([1.0, -0.5, 0.7, 0.3])
    linear = 1.2 * inputs[:, 0] + 0.8 * inputs[:, 1] * inputs[:, 2] - 0.6 * inputs[:, 3]
    linear += 0.7 * np.sin(2 * inputs[:, 4]) - 0.4
    chance = 1 / (1 + np.exp(-linear * 1.6 / (1 + 0.6 * np.abs(inputs[:, 5]))))
    truth = (draw.random(len(inputs)) < chance).astype(np.int64)
    if scenario.prior:
        wanted = (draw.random(rows) < scenario.prior).astype(np.int64)
        places = [np.flatnonzero(truth == each) for each in (0, 1)]
        chosen = np.where(wanted == 1, draw.choice(places[1], rows), draw.choice(places[0], rows))
        return inputs[chosen], truth[chosen]
    turned = (inputs[:, 6] > 1.0) & (draw.random(len(inputs)) < scenario.flip)
    return inputs, np.where(turned, 1 - truth, truth)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A model trained on its own draw, with a labelled reference of `rows` and the row functions learned from it."""

    seed: int
    rows: int = 12_000

    @cached_property
    def draw(self) -> np.random.Generator:
        """The source of all its draws, one after the other."""
        return np.random.default_rng([self.seed, 19])

    @cached_property
    def model(self) -> HistGradientBoostingClassifier:
        """The model that serves."""
        return HistGradientBoostingClassifier(max_iter=60, random_state=0).fit(
            *drawn(4000, self.draw, SCENARIOS["none"])
        )

    @cached_property
    def reference(self) -> Reference:
        """What is kept of the reference."""
        columns, truth = self.window(self.rows, "none")
        return Reference(columns={**columns, "label": truth.astype(np.float64)}, said="")

    @cached_property
    def sketch(self) -> Sketch:
        """The row functions."""
        return learn_sketch(PLAN, self.reference.columns)

    @property
    def coder(self) -> Coder:
        """The two classes."""
        return Coder(classes=("not 1", "1"), binary=True)

    def window(self, rows: int, scenario: str) -> tuple[Columns, Codes]:
        """Draw traffic with the model's answers, and the right classes."""
        inputs, truth = drawn(rows, self.draw, SCENARIOS[scenario])
        columns = {f"x{at}": inputs[:, at] for at in range(FEATURES)}
        return {**columns, "p": self.model.predict_proba(inputs)[:, 1]}, truth

    def labelled(self, columns: Columns, truth: Codes) -> Labelled:
        """Return answers with their outcome."""
        assert PLAN.estimate is not None
        return labelled(PLAN.estimate, self.sketch, columns, self.coder, truth.tolist())
