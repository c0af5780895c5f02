"""A default that came with the package is found from any folder; one's own file of that path goes before it."""

from pathlib import Path

import pytest

from seatrial.serve.shipped import shipped

DEFAULTS = ("serve/clusters/example.toml", "serve/rollouts/usual.toml", "serve/deployments/scenes.toml")


@pytest.mark.parametrize("path", DEFAULTS)
def test_a_default_is_found_from_anywhere(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped(Path(path)).is_file()
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text("own")
    assert shipped(Path(path)).read_text() == "own"


def test_what_is_nowhere_stays_what_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped(Path("serve/clusters/none.toml")) == Path("serve/clusters/none.toml")
    assert shipped(tmp_path / "none.toml") == tmp_path / "none.toml"
