"""The page of a build: whole, on its own, with what was measured and without what was not."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seatrial.optimize.building.built import Build
from seatrial.optimize.building.figures import figures
from seatrial.optimize.graphs.coverage import Coverage, Island, Layer
from seatrial.optimize.report.build_page import write_html
from seatrial.optimize.verbs import building
from tests.support.built import TINY, Built

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
    for absent in ("<h2>Search", "<h2>Layer sensitivities", "<h2>Kept in float", "<h2>Coverage"):
        assert absent not in page


def test_the_verb_measures_coverage_for_the_page(tiny: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEATRIAL_HOME", str(tiny.home))
    building.build(TINY, report_=tmp_path / "page.html", json_=True)
    page = without_library((tmp_path / "page.html").read_text())
    assert "<h2>Coverage" in page
    assert "share of multiply-accumulates" in page
    assert "int8" in page
    assert "measured with ONNX Runtime" in page


def noted(build: Build, notes: Mapping[str, Any]) -> Build:
    """The build, its last step with other notes."""
    last = build.steps[-1]
    artifact = replace(last.artifact, made_by=replace(last.artifact.made_by, notes=notes))
    return replace(build, steps=(*build.steps[:-1], replace(last, artifact=artifact)))


def test_sensitivities_reasons_and_islands_are_shown_as_the_stages_noted_them(tiny: Built, tmp_path: Path) -> None:
    notes = {
        "sensitivities": {"<first>": 0.02, "second": 0.001},
        "kept_in_float": {"<first>": "int8 is slower here"},
        "in_fp32": {"root": "size reaches 1e6"},
        "front": [{"kept": [], "drop": 0.1}],
    }
    layer = Layer(name="conv7", kind="Conv", precision="fp32", macs=30)
    found = Coverage(
        layers=(layer, replace(layer, precision="int8", macs=70)),
        islands=(Island(layer=layer, reason="nothing fuses it"),),
        unseen=("loop (Loop)",),
        engine="an engine",
        machine="a machine",
    )
    rows = figures(tiny.build, tiny.store)
    write_html(tmp_path / "page.html", noted(tiny.build, notes), rows, coverages={"quantize": found})
    page = without_library((tmp_path / "page.html").read_text())
    for present in ("<h2>Layer sensitivities", "quality regained in float", "int8 is slower here", "size reaches 1e6"):
        assert present in page
    for present in ("<h2>Coverage", "conv7", "30.0%", "nothing fuses it", "loop (Loop)", "an engine on a machine"):
        assert present in page
    assert "front 1" in page
    assert "<first>" not in page


def test_a_search_is_shown_where_it_is_handed_in(tiny: Built, tmp_path: Path) -> None:
    values = {"quality": 0.9, "latency": 0.5}
    trial = {"number": 0, "chosen": {"1.ratio": 0.3}, "values": values, "failure": "", "violation": 0.0}
    failed = trial | {"number": 1, "values": {}, "failure": "it fell over"}
    search = {"objectives": ["quality", "latency"], "candidates": [trial, failed], "front": [0]}
    write_html(tmp_path / "page.html", tiny.build, figures(tiny.build, tiny.store), search=search)
    page = without_library((tmp_path / "page.html").read_text())
    assert "<h2>Search" in page
    assert "1.ratio = 0.3" in page
