"""The stage that makes a program of `torch.export`: equal answers, equal bytes, no pickles, no source."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seatrial.optimize.building.build import build
from seatrial.optimize.errors import StageError
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.sessions.on_exported import PACKAGE, ExportedSession, pickles, save
from seatrial.optimize.sessions.session import open_artifact
from seatrial.optimize.store import Store
from tests.support.exported import INPUTS, OUTPUTS, Pictures, program

NET = """
import numpy as np
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(16, 8)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, tokens, scale):
        hidden = self.table(tokens).mean(1) * scale
        return {"logits": self.head(hidden), "norm": hidden.norm(dim=1)}


def net():
    return Net().eval()


def samples(split, count=None, seed=7):
    random = np.random.default_rng([seed, len(split)])
    rows = count or 32
    tokens = random.integers(0, 16, (rows, 6))
    scale = random.uniform(0.5, 2.0, (rows, 1)).astype(np.float32)
    return {"tokens": tokens, "scale": scale}, tokens[:, 0] % 4
"""
RECIPE = """
schema = 1
name = "net"
[source]
factory = "net.py:net"
outputs = ["logits", "norm"]
dynamic = { tokens = { 1 = "length" } }
[data]
loader = "net.py:samples"
evaluation = 32
golden = 4
[[stages]]
kind = "package"
"""


@pytest.mark.slow
def test_a_module_becomes_one_file_that_answers_alike(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "net.toml").write_text(RECIPE)
    store = Store(tmp_path / "store")
    made = build(load_recipe(tmp_path / "net.toml"), store)
    artifact = made.artifact
    assert (artifact.format, [file.path for file in artifact.files]) == ("torch-export", [PACKAGE])
    assert artifact.batches
    opened = open_artifact(artifact, store)
    assert (opened.provider, opened.device) == ("torch", "cpu")
    reference = open_artifact(made.source.artifact, store).session
    random = np.random.default_rng(0)
    for rows, length in ((1, 6), (5, 6), (3, 11)):
        inputs: dict[str, Any] = {
            "tokens": random.integers(0, 16, (rows, length)),
            "scale": np.ones((rows, 1), np.float32),
        }
        found, expected = opened.session.run(inputs), reference.run(inputs)
        assert set(found) == {"logits", "norm"}
        for name in found:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)
    with pytest.raises(StageError, match="refused the inputs"):
        opened.session.run({"tokens": np.full((2, 6), 99), "scale": np.ones((2, 1), np.float32)})
    again = build(load_recipe(tmp_path / "net.toml"), Store(tmp_path / "other"))
    assert again.artifact.digest == artifact.digest, "equal bytes"


def test_a_package_says_nothing_of_where_it_was_made(tmp_path: Path) -> None:
    with zipfile.ZipFile(program(tmp_path / "made")) as package:
        held = b"".join(package.read(name) for name in package.namelist())
        (names,) = [name for name in package.namelist() if name.endswith("seatrial.json")]
        assert json.loads(package.read(names)) == {
            "inputs": ["image", "gain"],
            "outputs": ["scores", "winner"],
            "types": {"image": "float32", "gain": "float32"},
            "ranks": {"image": 4, "gain": 2},
        }
    assert b"exported.py" not in held
    assert str(tmp_path).encode() not in held


def test_pickles_are_neither_written_nor_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpickling runs code, so a package with a pickle in it is refused before torch reads it."""
    good = program(tmp_path / "good")
    assert pickles(good) == []
    bad = tmp_path / "bad.pt2"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data.replace(b'"use_pickle": false', b'"use_pickle": true'))
    assert pickles(bad) != []
    monkeypatch.setattr(torch.export, "load", lambda *given, **more: pytest.fail("it was opened"))
    with pytest.raises(StageError, match="holds pickled objects"):
        ExportedSession(bad)
    monkeypatch.setattr("seatrial.optimize.sessions.on_exported.pickles", lambda path: ["module.thing"])
    made = torch.export.export(Pictures(), (torch.zeros(2, 3, 8, 8), torch.zeros(2, 1)), strict=False)
    with pytest.raises(StageError, match=r"only a pickle could store: module\.thing"):
        save(made, tmp_path / "made.pt2", INPUTS, OUTPUTS)


def test_a_damaged_package_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / PACKAGE).write_bytes(b"no zip")
    with pytest.raises(StageError, match="torch cannot open the package") as refused:
        ExportedSession(tmp_path / PACKAGE)
    assert PACKAGE in refused.value.where
