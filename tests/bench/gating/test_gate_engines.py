"""Arms that different engines serve: each has its own host, the slots say which engine, and the verdict names both."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from seatrial.bench.gating.gate import gate, read_gate
from seatrial.bench.targets import Endpoint
from seatrial.optimize.artifact import Artifact
from tests.support.gating import BASE, Clock, Host, means, small_budget, some_samples

pytestmark = pytest.mark.usefixtures("stub_host")


class InEngine(Host):
    """A host whose servers run that engine."""

    engine = ""

    @contextmanager
    def __call__(self, artifact: Artifact) -> Iterator[Endpoint]:
        with super().__call__(artifact) as endpoint:
            yield replace(endpoint, engine=self.engine)


def host(engine: str) -> InEngine:
    made = InEngine()
    made.engine = engine
    return made


@pytest.mark.slow
def test_one_artifact_is_gated_in_one_engine_against_itself_in_another(tmp_path: Path) -> None:
    base, candidate = host("onnx-cpu"), host("openvino (bf16)")
    setup = replace(means(some_samples(), tmp_path, candidate, Clock()), base_host=base)
    gate(BASE, BASE, small_budget(), setup)
    run, verdict = read_gate(tmp_path)
    assert (len(base.order), len(candidate.order)) == (4, 4)
    engines = {"base": "onnx-cpu", "candidate": "openvino (bf16)"}
    assert all(each.engine == engines[each.slot.arm] for each in run.records)
    assert "the base was served in onnx-cpu, the candidate in openvino (bf16)" in verdict.notes


@pytest.mark.parametrize(("engine", "notes"), [("onnx-cpu", ["served in onnx-cpu"]), ("", [])])
@pytest.mark.slow
def test_without_a_host_of_its_own_the_base_is_served_alike(tmp_path: Path, engine: str, notes: list[str]) -> None:
    verdict = gate(BASE, BASE, small_budget(), means(some_samples(), tmp_path, host(engine), Clock()))
    assert [note for note in verdict.notes if "served in" in note] == notes
