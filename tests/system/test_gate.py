"""The gate on the real Triton and the real Locust: what is better passes, what is sabotaged is refused."""

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import numpy_helper

from seatrial.bench.gating.gate import gate, read_gate, rejudge
from seatrial.bench.gating.gate_setup import GateSetup
from seatrial.bench.report import to_markdown, write_html
from seatrial.bench.targets import Endpoint
from seatrial.optimize.artifact import Artifact, File
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import SeatrialError
from seatrial.optimize.quality import metric
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Deployment
from seatrial.serve.errors import RegistryError
from seatrial.serve.release.registry import Registry
from seatrial.serve.triton.repository.placing import place
from seatrial.serve.triton.running import host as hosting
from tests.support.built import TINY, Built
from tests.support.gated import DEPLOYMENT, Gated, budget, judged

pytestmark = pytest.mark.system


@pytest.fixture
def store(tiny: Built, tmp_path: Path) -> Store:
    """A copy of the session's store, free to be changed."""
    shutil.copytree(tiny.home / "store", tmp_path / "copy" / "store")
    return Store(tmp_path / "copy" / "store")


def changed(store: Store, artifact: Artifact, tmp_path: Path, change: Callable[[bytes], bytes]) -> Artifact:
    """The artifact with other bytes in its model, kept under the digest that these bytes have."""
    folder = tmp_path / "changed"
    store.materialize(artifact, folder)
    (folder / "model.onnx").write_bytes(change((folder / "model.onnx").read_bytes()))
    return store.put(replace(artifact, files=(File.of(folder / "model.onnx"),)), folder)


def wrong_weight(data: bytes) -> bytes:
    """One weight of the head, far off."""
    model = onnx.load_from_string(data)
    tensor = next(each for each in model.graph.initializer if each.name.endswith("head.bias"))
    values = numpy_helper.to_array(tensor).copy()
    values[0] += 50.0
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    serialized: bytes = model.SerializeToString()
    return serialized


def test_a_faster_candidate_of_equal_quality_passes_and_the_run_can_be_judged_again(
    gated: Gated, tmp_path: Path
) -> None:
    run, verdict = tmp_path / "run", gated.verdict
    shutil.copytree(gated.run, run)
    assert verdict.outcome == "PASS", verdict.summary
    p50 = verdict.finding("p50")
    assert p50 is not None
    assert p50.ratio is not None
    assert p50.ratio < 0.9
    first = (run / "verdict.json").read_bytes()
    assert rejudge(run) == verdict
    assert (run / "verdict.json").read_bytes() == first
    assert "PASS" in to_markdown(verdict)
    raw, _ = read_gate(run)
    write_html(run / "report.html", title="wide to tiny", verdict=verdict, run=raw)
    page = (run / "report.html").read_text()
    assert "PASS" in page
    assert 'src="http' not in page
    assert not list(gated.scratch.iterdir())

    registry = Registry(tmp_path / "releases")
    assert registry.register("tiny", gated.light, verdict, run=run).version == 1
    with pytest.raises(RegistryError, match="not to wide"):
        registry.register("tiny", gated.heavy, verdict, run=run)


def test_fifteen_milliseconds_of_sleep_in_the_server_fail(tiny: Built, store: Store, tmp_path: Path) -> None:
    base, candidate = tiny.build.steps[2].artifact, tiny.build.artifact
    honest = hosting.host(store, DEPLOYMENT, scratch=tmp_path / "w")

    @contextmanager
    def sabotaged(artifact: Artifact) -> Iterator[Endpoint]:
        if artifact == base:
            with honest(artifact) as endpoint:
                yield endpoint
            return
        monkey = pytest.MonkeyPatch()
        monkey.setattr(hosting, "place", sleepy)
        monkey.setattr(hosting, "check", lambda *placed: ())  # which would refuse changed code
        try:
            with honest(artifact) as endpoint:
                yield endpoint
        finally:
            monkey.undo()

    verdict = judged(tiny, base, candidate, tmp_path / "run", host=sabotaged)
    assert verdict.outcome == "FAIL", verdict.summary
    assert verdict.exit_code == 1
    p50 = verdict.finding("p50")
    assert p50 is not None
    assert p50.outcome == "FAIL", verdict.summary
    quality = verdict.finding("quality")
    assert quality is not None
    assert quality.outcome == "PASS"
    with pytest.raises(RegistryError, match="FAIL"):
        Registry(tmp_path / "releases").register("tiny", candidate, verdict, run=tmp_path / "run")


def sleepy(artifact: Artifact, deployment: Deployment, **rest: Any) -> Any:
    """Place as ever, then let every execution of the placed model sleep first."""
    placement = place(artifact, deployment, **rest)
    path = placement.path / "model.py"
    text = path.read_text()
    start = text.index("def execute(")
    body = text.index("\n", text.index(":", text.index(")", start))) + 1
    path.chmod(0o644)
    path.write_text("import time\n" + text[:body] + "        time.sleep(0.015)\n" + text[body:])
    return placement


def test_a_wrong_weight_fails_on_quality(tiny: Built, store: Store, tmp_path: Path) -> None:
    base = tiny.build.steps[2].artifact
    candidate = changed(store, base, tmp_path, wrong_weight)
    host = hosting.host(store, DEPLOYMENT, scratch=tmp_path / "w")
    verdict = judged(tiny, base, candidate, tmp_path / "run", host=host)
    assert verdict.outcome == "FAIL", verdict.summary
    quality = verdict.finding("quality")
    assert quality is not None
    assert quality.outcome == "FAIL"


def test_a_corrupt_file_fails_with_the_server_s_reason(tiny: Built, store: Store, tmp_path: Path) -> None:
    base = tiny.build.steps[2].artifact
    candidate = changed(store, base, tmp_path, lambda data: data[: len(data) // 2])
    host = hosting.host(store, DEPLOYMENT, scratch=tmp_path / "w")
    verdict = judged(tiny, base, candidate, tmp_path / "run", host=host)
    assert verdict.outcome == "FAIL", verdict.summary
    assert any("model.onnx" in reason or "ONNX" in reason for reason in verdict.summary), verdict.summary


def test_bytes_that_are_not_what_the_digest_says_never_reach_a_server(
    tiny: Built, store: Store, tmp_path: Path
) -> None:
    base, candidate = tiny.build.steps[2].artifact, tiny.build.artifact
    store.path(candidate, "model.onnx").write_bytes(b"damaged")
    host = hosting.host(store, DEPLOYMENT, scratch=tmp_path / "w")
    with pytest.raises(SeatrialError, match="damaged"):
        host(candidate).__enter__()
    verdict = judged(tiny, base, candidate, tmp_path / "run", host=host)
    assert verdict.outcome == "FAIL"
    assert any("damaged" in reason for reason in verdict.summary)


def test_a_server_killed_in_the_middle_of_a_slot_is_invalid_and_leaves_nothing_behind(
    tiny: Built, store: Store, tmp_path: Path
) -> None:
    base, candidate = tiny.build.steps[2].artifact, tiny.build.artifact
    honest = hosting.host(store, DEPLOYMENT, scratch=tmp_path / "w")
    pids: list[int] = []

    @contextmanager
    def dying(artifact: Artifact) -> Iterator[Endpoint]:
        with honest(artifact) as endpoint:
            pids.extend(endpoint.pids)
            if artifact == candidate:
                threading.Timer(1.0, os.kill, (endpoint.pids[0], signal.SIGKILL)).start()
            yield endpoint

    recipe, once = load_recipe(TINY), budget()
    verdict = gate(
        base,
        candidate,
        replace(once, design=replace(once.design, reruns=0, seconds=3.0)),
        GateSetup(
            host=dying,
            samples=Data(recipe, tiny.store, environment()).samples("evaluation"),
            metric=metric(recipe),
            folder=tmp_path / "run",
        ),
    )
    assert verdict.outcome == "INVALID", verdict.summary
    assert any("candidate arm, pair 1" in reason and "died" in reason for reason in verdict.reasons)
    assert len(read_gate(tmp_path / "run")[0].records) == 2
    assert rejudge(tmp_path / "run") == verdict
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not list((tmp_path / "w").iterdir())


def test_the_wrong_weight_is_wrong(tiny: Built) -> None:
    data = tiny.store.path(tiny.build.steps[2].artifact, "model.onnx").read_bytes()
    before, after = (onnx.load_from_string(each) for each in (data, wrong_weight(data)))
    differing = [
        one.name
        for one, other in zip(before.graph.initializer, after.graph.initializer, strict=True)
        if not np.array_equal(numpy_helper.to_array(one), numpy_helper.to_array(other))
    ]
    assert len(differing) == 1
