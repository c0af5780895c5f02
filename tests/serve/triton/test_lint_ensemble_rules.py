"""Lint of ensembles agrees with what Triton 2.51 was seen to do; each case was loaded by the real server."""

from pathlib import Path

import pytest

from seatrial.serve.triton.lint import lint

CODE = "class TritonPythonModel:\n    pass\n"
PORT = '%s { name: "%s" data_type: %s dims: [ %s ] %s }'


def port(side: str, name: str, dims: str, kind: str = "TYPE_FP32", more: str = "") -> str:
    """One tensor of a configuration."""
    return PORT % (side, name, kind, dims, more)


def member(folder: Path, name: str, batch: int, taken: str, given: str, more: str = "") -> None:
    """A python model from "i" to "o"."""
    (folder / name / "1").mkdir(parents=True)
    (folder / name / "1" / "model.py").write_text(CODE)
    text = f'backend: "python" max_batch_size: {batch} {port("input", "i", taken)} {port("output", "o", given)} {more}'
    (folder / name / "config.pbtxt").write_text(text)


def step(model: str, taken: str, given: str, version: int | None = -1) -> str:
    """A step that reads `taken` as "i" and gives "o" as `given`."""
    pinned = "" if version is None else f"model_version: {version}"
    maps = f'input_map {{ key: "i" value: "{taken}" }} output_map {{ key: "o" value: "{given}" }}'
    return f'step {{ model_name: "{model}" {pinned} {maps} }}'


def ensemble(folder: Path, batch: int, ports: str, *steps: str, more: str = "", name: str = "e") -> None:
    """The ensemble itself."""
    (folder / name / "1").mkdir(parents=True)
    text = f'platform: "ensemble" max_batch_size: {batch} {ports} ensemble_scheduling {{ {" ".join(steps)} }} {more}'
    (folder / name / "config.pbtxt").write_text(text)


def refused(folder: Path) -> list[str]:
    """Fields of what is not to load."""
    return [each.field for each in lint(folder, release="2.51") if each.severity == "error" and each.effect != "loads"]


SIMPLE = port("input", "x", "2, 2") + port("output", "y", "2, 2")


@pytest.mark.parametrize(
    ("batch", "taken", "given", "fits"),
    [
        (0, "-1, 2, 2", "-1, 2, 2", True),  # it sees the batch axis as its own
        (0, "2, 2", "2, 2", True),  # or has the same dims without it
        (0, "4", "4", False),
        (4, "2, 2", "2, 2", True),
        (1, "2, 2", "2, 2", False),  # batches, and takes less than the ensemble
        (4, "-1, 2", "2, -1", True),
        (4, "-1, 2, 2", "2, 2", False),
    ],
)
def test_a_step_fits_by_its_dims_or_with_the_batch_axis(
    tmp_path: Path, batch: int, taken: str, given: str, fits: bool
) -> None:
    member(tmp_path, "m", batch, taken, given)
    ensemble(tmp_path, 2, SIMPLE, step("m", "x", "y"))
    assert (refused(tmp_path) == []) is fits


def test_a_join_without_the_batch_axis_is_warned_of(tmp_path: Path) -> None:
    member(tmp_path, "m", 0, "2, 2", "2, 2")
    ensemble(tmp_path, 2, SIMPLE, step("m", "x", "y"), name="two")
    ensemble(tmp_path, 1, SIMPLE, step("m", "x", "y"), name="one")
    found = lint(tmp_path, release="2.51")
    joins = [each.file for each in found if each.field == "ensemble_scheduling.step" and each.severity == "warning"]
    assert set(joins) == {"two/config.pbtxt"}


@pytest.mark.parametrize(("dims", "shape", "fits"), [("4", "2, 2", True), ("2, 2", "4", False), ("2, 2", "2, 2", True)])
def test_the_ensemble_s_own_tensors_count_with_their_reshape(tmp_path: Path, dims: str, shape: str, fits: bool) -> None:
    member(tmp_path, "m", 4, "2, 2", "2, 2")
    own = port("input", "x", dims, more=f"reshape {{ shape: [ {shape} ] }}")
    ensemble(tmp_path, 2, own + port("output", "y", "2, 2"), step("m", "x", "y"))
    assert (refused(tmp_path) == []) is fits


def test_the_dims_of_a_step_count_without_its_reshape(tmp_path: Path) -> None:
    member(tmp_path, "m", 4, "2, 2", "2, 2")
    path = tmp_path / "m" / "config.pbtxt"
    path.write_text(path.read_text().replace("dims: [ 2, 2 ]", "dims: [ 2, 2 ] reshape { shape: [ 4 ] }"))
    ensemble(tmp_path, 2, SIMPLE, step("m", "x", "y"))
    assert refused(tmp_path) == []


@pytest.mark.parametrize(
    ("ports", "steps", "field"),
    [
        (SIMPLE + port("output", "x", "9"), [step("m", "x", "y")], ""),  # passes through, with whatever shape
        (SIMPLE + port("input", "u", "1"), [step("m", "x", "y")], "input.u"),
        (SIMPLE + port("output", "u", "1"), [step("m", "x", "y")], "output.u"),
        (SIMPLE, [step("m", "x", "y"), step("m", "y", "z")], "ensemble_scheduling.step.1.output_map"),
        (SIMPLE, [step("m", "x", "y"), step("m", "x", "y")], "ensemble_scheduling.step.1.output_map"),
        (SIMPLE, [step("m", "z", "y")], "ensemble_scheduling.step.0.input_map"),
        (SIMPLE, [step("m", "x", "y", None)], "ensemble_scheduling.step.0.model_version"),
        (SIMPLE, [step("m", "x", "y", 0)], "ensemble_scheduling.step.0.model_version"),
        (SIMPLE, [step("m", "x", "y", -2)], "ensemble_scheduling.step.0.model_version"),
        (SIMPLE, [step("m", "x", "y", 2)], "ensemble_scheduling.step.0.model_version"),
        (SIMPLE, [step("m", "x", "y", 1)], ""),
        (SIMPLE, ['step { model_name: "m" model_version: -1 }'], "ensemble_scheduling.step.0.input_map"),
        (SIMPLE, [step("", "x", "y")], "ensemble_scheduling.step.0.model_name"),
        (port("input", "x", "2, 2") + port("output", "y", "2, 2", "TYPE_INT64"), [step("m", "x", "y")],
         "ensemble_scheduling.step"),
    ],
)  # fmt: skip
def test_tensors_have_one_source_and_a_reader(tmp_path: Path, ports: str, steps: list[str], field: str) -> None:
    member(tmp_path, "m", 4, "2, 2", "2, 2")
    ensemble(tmp_path, 2, ports, *steps)
    assert (field in refused(tmp_path)) if field else (refused(tmp_path) == [])


def test_a_version_is_served_by_the_policy_of_its_model(tmp_path: Path) -> None:
    member(tmp_path, "m", 4, "2, 2", "2, 2")
    (tmp_path / "m" / "2").mkdir()
    (tmp_path / "m" / "2" / "model.py").write_text(CODE)
    ensemble(tmp_path, 2, SIMPLE, step("m", "x", "y", 1))
    assert refused(tmp_path) == ["ensemble_scheduling.step.0.model_version"]  # only the newest is loaded
    path = tmp_path / "m" / "config.pbtxt"
    path.write_text(path.read_text() + "version_policy { all { } }")
    assert refused(tmp_path) == []


@pytest.mark.parametrize("more", ["optimization { }", "instance_group { }", 'model_warmup { name: "w" }'])
def test_an_ensemble_has_nothing_of_an_executed_model(tmp_path: Path, more: str) -> None:
    member(tmp_path, "m", 4, "2, 2", "2, 2")
    ensemble(tmp_path, 2, SIMPLE, step("m", "x", "y"), more=more)
    assert more.partition(" ")[0] in refused(tmp_path)


DECOUPLED = "model_transaction_policy { decoupled: true }"
BOTH = 'input_map { key: "i" value: "%s" } input_map { key: "j" value: "%s" } output_map { key: "o" value: "%s" }'


@pytest.mark.parametrize(
    ("kinds", "fits"), [(("", ""), True), ((DECOUPLED, ""), False), (("", DECOUPLED), False), ((DECOUPLED,) * 2, False)]
)
def test_branches_of_different_decoupled_models_are_not_joined(
    tmp_path: Path, kinds: tuple[str, str], fits: bool
) -> None:
    for name, more in zip("ab", kinds, strict=True):
        member(tmp_path, name, 0, "1", "1", more)
    member(tmp_path, "c", 0, "1", "1", port("input", "j", "1"))
    ports = port("input", "x", "1") + port("output", "y", "1")
    join = f'step {{ model_name: "c" model_version: -1 {BOTH % ("p", "q", "y")} }}'
    ensemble(tmp_path, 0, ports, step("a", "x", "p"), step("b", "x", "q"), join)
    assert refused(tmp_path) == ([] if fits else ["ensemble_scheduling.step.2.input_map"])


def test_the_cache_is_refused_where_a_step_is_decoupled(tmp_path: Path) -> None:
    member(tmp_path, "a", 0, "1", "1", DECOUPLED)
    member(tmp_path, "b", 0, "1", "1")
    ports = port("input", "x", "1") + port("output", "y", "1")
    ensemble(tmp_path, 0, ports, step("b", "x", "y"), more="response_cache { enable: true }")
    assert refused(tmp_path) == []
    ensemble(tmp_path, 0, ports, step("a", "x", "y"), more="response_cache { enable: true }", name="f")
    assert refused(tmp_path) == ["response_cache"]


def test_one_decoupled_model_may_lead_everywhere_but_beside_the_request(tmp_path: Path) -> None:
    member(tmp_path, "a", 0, "1", "1", DECOUPLED)
    member(tmp_path, "b", 0, "1", "1")
    ports = port("input", "x", "1") + port("output", "y", "1")
    ensemble(tmp_path, 0, ports, step("a", "x", "p"), step("b", "p", "y"))
    assert refused(tmp_path) == []
    ensemble(tmp_path, 0, ports + port("output", "x", "1"), step("a", "x", "p"), step("b", "p", "y"), name="f")
    assert refused(tmp_path) == ["output"]  # one response for the request, many for the step
