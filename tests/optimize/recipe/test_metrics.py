import numpy as np
import pytest

from seatrial.optimize.errors import SourceError
from seatrial.optimize.recipe.metrics import METRICS, accuracy, log_likelihood, top5

SCORES = np.array([[3.0, 1, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5]], np.float32)


def test_named_metrics_score_each_sample() -> None:
    labels = np.array([0, 0])
    assert accuracy(SCORES, labels).tolist() == [1, 0]
    assert top5(SCORES, np.array([5, 1])).tolist() == [0, 1]
    likely = log_likelihood(SCORES, labels)
    assert likely[0] == pytest.approx(np.log(np.exp(3) / np.exp(SCORES[0]).sum()))
    assert likely[1] < likely[0] < 0


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("labels", [None, np.zeros((2, 1), int), np.zeros(3, int), np.zeros(2)])
def test_a_metric_without_its_labels_says_so(name: str, labels: np.ndarray | None) -> None:  # type: ignore[type-arg]
    with pytest.raises(SourceError, match="one integer label per sample"):
        METRICS[name](SCORES, labels)
