"""The page of a build: whole, on its own, with what was measured and without what was not."""

import re
from pathlib import Path

import pytest

from optimize.figures import figures
from optimize.report import Notes, write_html
from tests.models.built import Built

pytestmark = pytest.mark.system


def without_library(page: str) -> str:
    return re.sub(r"<script>.*?</script>", "", page, count=1, flags=re.DOTALL)


def test_the_page_tells_every_step_and_needs_no_network(tiny: Built, tmp_path: Path) -> None:
    rows = figures(tiny.build, tiny.store)
    write_html(tmp_path / "page.html", tiny.build, rows)
    page = without_library((tmp_path / "page.html").read_text())
    for step, row in zip(tiny.build.all, rows, strict=True):
        assert step.label in page
        assert step.artifact.digest.removeprefix("sha256:")[:12] in page
        assert f"{row.quality:.4f}" in page
    assert tiny.build.artifact.digest in page
    assert "Parity with the parent" in page
    assert not re.search(r"(src|href)=", page)
    for absent in ("<h2>Search", "<h2>Layer sensitivities", "<h2>Coverage"):
        assert absent not in page


def test_a_search_and_notes_are_shown_where_they_are_handed_in(tiny: Built, tmp_path: Path) -> None:
    values = {"quality": 0.9, "latency": 0.5}
    trial = {"number": 0, "chosen": {"1.ratio": 0.3}, "values": values, "failure": "", "violation": 0.0}
    failed = trial | {"number": 1, "values": {}, "failure": "it fell over"}
    search = {"objectives": ["quality", "latency"], "candidates": [trial, failed], "front": [0]}
    notes = Notes(sensitivities={"<first>": 0.1}, coverage={"Conv": 0.97})
    rows = figures(tiny.build, tiny.store)
    write_html(tmp_path / "page.html", tiny.build, rows, search=search, notes=notes)
    page = without_library((tmp_path / "page.html").read_text())
    for present in ("<h2>Search", "<h2>Layer sensitivities", "<h2>Coverage", "1.ratio = 0.3"):
        assert present in page
    assert "<first>" not in page
