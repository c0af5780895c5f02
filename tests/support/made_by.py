"""A provenance for artifacts that tests make by hand."""

from seatrial.optimize.artifact import Provenance

MADE_BY = Provenance(
    stage="test",
    parent=None,
    config={},
    recipe="",
    samples=None,
    seed=0,
    environment={},
    at="2026-01-01T00:00:00+00:00",
)
