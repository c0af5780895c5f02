"""The tiny model's build, as the fixture `tiny` hands it to tests."""

from dataclasses import dataclass
from pathlib import Path

from seatrial.optimize.building.built import Build
from seatrial.optimize.store import Store

ROOT = Path(__file__).parent.parent.parent
TINY = ROOT / "tests" / "support" / "tiny.toml"


@dataclass(frozen=True)
class Built:
    """The tiny recipe, built once per test session."""

    build: Build
    store: Store
    home: Path
