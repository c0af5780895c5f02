"""Estimators of scikit-learn on made-up data, as the ONNX files that skl2onnx writes of them."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx


def logistic(folder: Path) -> str:
    """A scaled logistic regression: labels, and the maps of ZipMap."""
    from sklearn.linear_model import LogisticRegression

    return _written(folder, "logistic", _scaled(LogisticRegression()))


def forest(folder: Path) -> str:
    """Fifty trees: operators of ai.onnx.ml alone."""
    from sklearn.ensemble import RandomForestClassifier

    return _written(folder, "forest", RandomForestClassifier(50, random_state=0))


def neurons(folder: Path) -> str:
    """A scaled network of two hidden layers."""
    from sklearn.neural_network import MLPClassifier

    return _written(folder, "neurons", _scaled(MLPClassifier((128, 64), max_iter=400, random_state=0)))


def _scaled(estimator: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), estimator)


def _written(folder: Path, name: str, estimator: Any) -> str:
    random = np.random.default_rng(0)
    features = random.normal(size=(800, 8)).astype(np.float32)
    classes = (features[:, 0] + features[:, 1] * features[:, 2] > 0).astype(int) + (features[:, 3] > 1)
    path = folder / f"{name}.onnx"
    made = import_module("skl2onnx").to_onnx(estimator.fit(features, classes), features[:1])
    onnx.save(made, str(path))
    return str(path)
