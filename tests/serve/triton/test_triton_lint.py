"""Lint finds each planted fault under its own field and none in a clean repository; it never ends in a traceback."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from seatrial.optimize.errors import MissingError
from seatrial.serve.cli import app
from seatrial.serve.deployment import Broken
from seatrial.serve.triton.lint import lint

CLEAN = """
name: "m"
backend: "onnxruntime"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3, 4 ] }, { name: "ids" data_type: TYPE_INT64 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 5 ] } ]
version_policy { specific { versions: [ 1 ] } } instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching { max_queue_delay_microseconds: 100 default_queue_policy { default_timeout_microseconds: 200000 } }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
model_warmup [ { name: "w" batch_size: 8
  inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 3, 4 ] zero_data: true } }
  inputs { key: "ids" value { data_type: TYPE_INT64 dims: [ 2 ] zero_data: true } } } ]
"""
PYTHON = """
name: "p"
backend: "python"
max_batch_size: 8
input [ { name: "y" data_type: TYPE_FP32 dims: [ 5 ] } ]
output [ { name: "z" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } } ]
version_policy { specific { versions: [ 1 ] } }
instance_group [ { kind: KIND_CPU } ]
dynamic_batching { }
"""
ENSEMBLE = """
name: "e"
platform: "ensemble"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3, 4 ] }, { name: "ids" data_type: TYPE_INT64 dims: [ 2 ] } ]
output [ { name: "z" data_type: TYPE_FP32 dims: [ 1 ] } ]
version_policy { specific { versions: [ 1 ] } }
ensemble_scheduling { step [
  { model_name: "m" model_version: 1 input_map { key: "x" value: "x" } input_map { key: "ids" value: "ids" }
    output_map { key: "y" value: "middle" } },
  { model_name: "p" model_version: 1 input_map { key: "y" value: "middle" } output_map { key: "z" value: "z" } } ] }
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Three models without a fault."""
    folder = tmp_path / "models"
    for name, text, file in (("m", CLEAN, "model.onnx"), ("p", PYTHON, "model.py"), ("e", ENSEMBLE, "")):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(text)
        if file:
            (folder / name / "1" / file).write_text("class TritonPythonModel:\n    pass\n")
    return folder


def found(repository: Path, release: str = "2.51") -> list[tuple[str, str, str]]:
    return [(each.severity, each.file, each.field) for each in lint(repository, release=release)]


def edit(repository: Path, model: str, old: str, new: str) -> None:
    path = repository / model / "config.pbtxt"
    assert old in path.read_text(), old
    path.write_text(path.read_text().replace(old, new, 1))


def test_a_clean_repository_has_no_findings(repository: Path) -> None:
    assert lint(repository, release="2.51") == ()


GPU = ("kind: KIND_CPU", "kind: KIND_GPU")
TRT = "optimization { execution_accelerators { gpu_execution_accelerator [ { name: %s } ] } }\nname"
_SHAPES = ' parameters { key: "trt_profile_%s_shapes" value: "x:1x3x4,ids:1x2" }'
PROFILES = "".join(_SHAPES % end for end in ("min", "opt", "max"))
CACHED = (
    'parameters { key: "trt_engine_cache_enable" value: "1" } parameters { key: "trt_engine_cache_path" value: "/c" }'
)
OLD_KEY = TRT % f'"tensorrt" parameters {{ key: "trt_fp16_enable" value: "1" }} {CACHED}{PROFILES}'
GPU_FIELD = "optimization.execution_accelerators.gpu_execution_accelerator"
POLICY = "default_queue_policy { default_timeout_microseconds: 200000 }"
BATCHING = f"dynamic_batching {{ max_queue_delay_microseconds: 100 {POLICY} }}"
STATE = 'state [ { input_name: "s" output_name: "t" data_type: TYPE_FP32 dims: [ 1 ] } ]'
STEP = "ensemble_scheduling.step"
ORDERED = "preserve_ordering: true priority_levels: 2 default_priority_level: 1"


@pytest.mark.parametrize(
    ("model", "edits", "severity", "field"),
    [
        ("m", [('name: "m"', 'name: "other"')], "error", "name"),
        ("m", [("max_batch_size: 8", "max_batch_size: -1")], "error", "max_batch_size"),
        ("m", [("dims: [ 5 ]", "dims: [ 0 ]")], "error", "output.y.dims"),
        ("m", [("dims: [ 5 ]", "")], "error", "output.y.dims"),
        ("m", [('name: "y" data_type: TYPE_FP32', 'name: "y"')], "error", "output.y.data_type"),
        ("m", [('name: "ids" data_type: TYPE_INT64', 'name: "x" data_type: TYPE_INT64')], "error", "input.x"),
        ("m", [("dims: [ 3, 4 ] }", "dims: [ 3, -1 ] }")], "warning", "input.x.dims"),
        ("m", [("dims: [ 3, 4 ] }", "dims: [ 3, 4 ] format: FORMAT_NHWC }")], "error", "input.x.format"),
        ("m", [("dims: [ 3, 4 ] }", "dims: [ 3, 4 ] optional: true }")], "error", "input.x.optional"),
        ("m", [("dims: [ 3, 4 ] }", "dims: [ 3, 4 ] is_shape_tensor: true }")], "error", "input.x.is_shape_tensor"),
        ("m", [("dims: [ 3, 4 ] }", "dims: [ 3, 4 ] reshape { shape: [ 5 ] } }")], "error", "input.x.reshape"),
        (
            "m",
            [("dims: [ 3, 4 ] }", "dims: [ 3, 4 ] allow_ragged_batch: true }")],
            "error",
            "input.x.allow_ragged_batch",
        ),
        ("m", [('platform: "onnxruntime_onnx"', 'platform: "tensorrt_plan"')], "error", "platform"),
        (
            "m",
            [('backend: "onnxruntime"\n', ""), ('platform: "onnxruntime_onnx"\n', "")],
            "warning",
            "backend",
        ),
        ("m", [("versions: [ 1 ]", "versions: [ 1, 7 ]")], "warning", "version_policy.specific"),
        ("m", [("versions: [ 1 ]", "versions: [ 7 ]")], "error", "version_policy.specific"),
        ("m", [("versions: [ 1 ]", "")], "error", "version_policy.specific"),
        ("m", [("kind: KIND_CPU", "kind: KIND_CPU gpus: [ 0 ]")], "error", "instance_group.gpus"),
        ("m", [("kind: KIND_CPU", "kind: KIND_GPU gpus: [ 0, 0 ]")], "error", "instance_group.gpus"),
        ("m", [("kind: KIND_CPU", 'kind: KIND_GPU profile: [ "0" ]')], "error", "instance_group.profile"),
        ("m", [("instance_group [ { count: 2 kind: KIND_CPU } ]", "")], "warning", "instance_group"),
        (
            "m",
            [('parameters { key: "intra_op_thread_count" value { string_value: "1" } }', "")],
            "warning",
            "parameters.intra_op_thread_count",
        ),
        (
            "m",
            [("kind: KIND_CPU", 'kind: KIND_CPU rate_limiter { resources [ { name: "R" count: 1 } ] }')],
            "warning",
            "instance_group.rate_limiter",
        ),
        (
            "m",
            [
                (
                    "kind: KIND_CPU",
                    'kind: KIND_CPU rate_limiter { resources [ { name: "R" count: 1 }, '
                    '{ name: "R" global: true count: 1 } ] }',
                )
            ],
            "error",
            "instance_group.rate_limiter.resources",
        ),
        (
            "m",
            [("max_queue_delay_microseconds: 100", "preferred_batch_size: [ 9 ]")],
            "error",
            "dynamic_batching.preferred_batch_size",
        ),
        (
            "m",
            [("max_queue_delay_microseconds: 100", "preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 1")],
            "warning",
            "dynamic_batching.preferred_batch_size",
        ),
        (
            "m",
            [("default_timeout_microseconds: 200000", "allow_timeout_override: true")],
            "warning",
            "dynamic_batching.default_queue_policy.allow_timeout_override",
        ),
        (
            "m",
            [("default_timeout_microseconds: 200000", "default_timeout_microseconds: 50")],
            "error",
            "dynamic_batching.default_queue_policy.default_timeout_microseconds",
        ),
        (
            "m",
            [("max_queue_delay_microseconds: 100", "priority_levels: 2")],
            "error",
            "dynamic_batching.default_priority_level",
        ),
        (
            "m",
            [("max_queue_delay_microseconds: 100", "default_priority_level: 1")],
            "warning",
            "dynamic_batching.priority_levels",
        ),
        (
            "m",
            [
                (
                    "max_queue_delay_microseconds: 100",
                    "priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 3 value { } }",
                )
            ],
            "error",
            "dynamic_batching.priority_queue_policy",
        ),
        (
            "m",
            [("max_queue_delay_microseconds: 100", ORDERED)],
            "error",
            "dynamic_batching.preserve_ordering",
        ),
        (
            "m",
            [
                (
                    "max_queue_delay_microseconds: 100 default_queue_policy {",
                    "preserve_ordering: true default_queue_policy { timeout_action: DELAY",
                )
            ],
            "error",
            "dynamic_batching.preserve_ordering",
        ),
        ("p", [("max_batch_size: 8", "max_batch_size: 0")], "warning", "dynamic_batching"),
        ("p", [("max_batch_size: 8", "max_batch_size: 0")], "error", "output.z.reshape"),
        ("m", [('key: "ids" value { data', 'key: "idz" value { data')], "error", "model_warmup.w.inputs"),
        ("m", [('key: "ids" value { data', 'key: "idz" value { data')], "warning", "model_warmup.w.inputs.idz"),
        ("m", [("batch_size: 8\n  inputs", "batch_size: 9\n  inputs")], "error", "model_warmup.w.batch_size"),
        ("m", [("batch_size: 8\n  inputs", "batch_size: 0\n  inputs")], "warning", "model_warmup.w.batch_size"),
        ("m", [("dims: [ 3, 4 ] zero", "dims: [ 8, 3, 4 ] zero")], "error", "model_warmup.w.inputs.x.dims"),
        ("m", [("dims: [ 3, 4 ] zero", "dims: [ 3, -1 ] zero")], "error", "model_warmup.w.inputs.x.dims"),
        (
            "m",
            [("dims: [ 3, 4 ] zero_data", "dims: [ 3, 4 ] random_data")],
            "warning",
            "model_warmup.w.inputs.x.random_data",
        ),
        ("m", [("dims: [ 3, 4 ] zero_data: true", "dims: [ 3, 4 ]")], "error", "model_warmup.w.inputs.x"),
        (
            "m",
            [("TYPE_INT64 dims: [ 2 ] zero", "TYPE_INT32 dims: [ 2 ] zero")],
            "error",
            "model_warmup.w.inputs.ids.data_type",
        ),
        (
            "m",
            [("dims: [ 3, 4 ] zero_data: true", 'dims: [ 3, 4 ] input_data_file: "x.bin"')],
            "error",
            "model_warmup.w.inputs.x",
        ),
        (
            "m",
            [("dims: [ 3, 4 ] }", "dims: [ -1, -1 ] }"), ('name: "m"', 'name: "m" response_cache { enable: true }')],
            "error",
            "response_cache",
        ),
        ("m", [('name: "m"', 'name: "m" response_cache { enable: true }')], "warning", "response_cache"),
        ("m", [('name: "m"', 'name: "m" optimization { graph { level: 2 } }')], "warning", "optimization.graph.level"),
        ("m", [("dims: [ 5 ]", 'dims: [ 5 ] label_filename: "labels.txt"')], "error", "output.y.label_filename"),
        ("m", [GPU, ("name", OLD_KEY)], "error", f"{GPU_FIELD}.tensorrt.trt_fp16_enable"),
        ("m", [GPU, ("name", TRT % '"tensorrt"')], "warning", f"{GPU_FIELD}.tensorrt.trt_engine_cache_path"),
        ("m", [GPU, ("name", TRT % '"tensorrt"')], "warning", f"{GPU_FIELD}.tensorrt.trt_profile_opt_shapes"),
        (
            "m",
            [GPU, ("name", TRT % '"cuda" parameters { key: "gpu_mem_limit" value: "1" }')],
            "warning",
            f"{GPU_FIELD}.cuda",
        ),
        (
            "m",
            [(BATCHING, "sequence_batching { direct { max_queue_delay_microseconds: 5 } }")],
            "warning",
            "sequence_batching.direct.minimum_slot_utilization",
        ),
        ("m", [(BATCHING, f"sequence_batching {{ {STATE} }}")], "warning", "sequence_batching.state.s"),
        ("m", [('name: "m"', 'name: "m" model_metrics { }')], "error", "model_metrics"),
        ("e", [('model_name: "p"', 'model_name: "gone"')], "error", "ensemble_scheduling.step.1.model_name"),
        ("e", [('"m" model_version: 1', '"m" model_version: -1')], "warning", f"{STEP}.0.model_version"),
        ("e", [('"m" model_version: 1', '"m" model_version: 4')], "error", "ensemble_scheduling.step.0.model_version"),
        ("e", [('input_map { key: "ids" value: "ids" }', "")], "error", "ensemble_scheduling.step.0.input_map"),
        ("e", [('output_map { key: "z"', 'output_map { key: "zz"')], "error", "ensemble_scheduling.step.1.output_map"),
        (
            "e",
            [('input_map { key: "y" value: "middle" }', 'input_map { key: "y" value: "other" }')],
            "error",
            "ensemble_scheduling.step.1.input_map",
        ),
        (
            "e",
            [('output_map { key: "y" value: "middle" }', 'output_map { key: "y" value: "z" }')],
            "error",
            "ensemble_scheduling.step.1.output_map",
        ),
        ("e", [('key: "ids" value: "ids"', 'key: "ids" value: "z"')], "error", "ensemble_scheduling.step"),
        ("e", [("dims: [ 3, 4 ]", "dims: [ 3, 5 ]")], "error", "ensemble_scheduling.step"),
        ("e", [("max_batch_size: 8", "max_batch_size: 9")], "error", "max_batch_size"),
        ("e", [('name: "e"', 'name: "e" instance_group [ { count: 1 } ]')], "error", "instance_group"),
        ("e", [('name: "e"', 'name: "e" backend: "python"')], "error", "platform"),
    ],
)
def test_each_planted_fault_is_found(
    repository: Path, model: str, edits: list[tuple[str, str]], severity: str, field: str
) -> None:
    for old, new in edits:
        edit(repository, model, old, new)
    assert (severity, f"{model}/config.pbtxt", field) in found(repository)
    for each in lint(repository, release="2.51"):
        assert each.rule
        assert each.fix


def rename(old: str, new: str) -> Callable[[Path], object]:
    return lambda repository: (repository / old).rename(repository / new)


def link_out(repository: Path) -> None:
    (repository.parent / "elsewhere.onnx").write_text("x")
    (repository / "m" / "1" / "model.onnx").unlink()
    (repository / "m" / "1" / "model.onnx").symlink_to(repository.parent / "elsewhere.onnx")


@pytest.mark.parametrize(
    ("plant", "severity", "file"),
    [
        (rename("m/1", "m/01"), "warning", "m/01"),
        (rename("m/1", "m/01"), "error", "m"),
        (rename("m/1/model.onnx", "m/1/net.onnx"), "error", "m/1/model.onnx"),
        (rename("m/1/model.onnx", "m/model.onnx"), "warning", "m/model.onnx"),
        (lambda folder: (folder / "m/1/model.onnx").write_text(""), "error", "m/1/model.onnx"),
        (lambda folder: (folder / "p/1/__pycache__").mkdir(), "warning", "p/1/__pycache__"),
        (lambda folder: (folder / ".git").mkdir(), "warning", ".git"),
        (lambda folder: (folder / "m/1/old").symlink_to("gone"), "error", "m/1/old"),
        (lambda folder: (folder / "m/1/same").symlink_to("model.onnx"), "warning", "m/1/same"),
        (link_out, "error", "m/1/model.onnx"),
        (lambda folder: (folder / "p/config.pbtxt").unlink(), "warning", "p/config.pbtxt"),
        (lambda folder: (folder / "p/config.pbtxt").write_bytes(b"\xff\xfe"), "error", "p/config.pbtxt"),
    ],
)
def test_each_planted_file_is_found(
    repository: Path, plant: Callable[[Path], object], severity: str, file: str
) -> None:
    plant(repository)
    assert (severity, file, "") in found(repository)


def test_broken_text_is_a_finding_with_its_line(repository: Path) -> None:
    edit(repository, "p", "max_batch_size: 8", "max_batch_sise: 8")
    (finding,) = [each for each in lint(repository, release="2.51") if each.file == "p/config.pbtxt"]
    assert (finding.severity, finding.line) == ("error", 4)
    assert "max_batch_sise" in finding.rule


def test_a_field_is_judged_by_the_release(repository: Path) -> None:
    edit(repository, "e", "ensemble_scheduling {", "ensemble_scheduling { max_inflight_requests: 4 ")
    assert ("error", "e/config.pbtxt", "ensemble_scheduling.max_inflight_requests") in found(repository)
    assert ("error", "e/config.pbtxt", "ensemble_scheduling.max_inflight_requests") in found(repository, "2.60")
    assert found(repository, "2.73") == []


@pytest.mark.parametrize(
    ("given", "legal"),
    [
        ("", True),
        ("metric_control { }", False),
        ('metric_control { metric_identifier { family: "f" } }', False),
        ('metric_control { metric_identifier { family: "f" } histogram_options { } }', False),
        ("metric_control { histogram_options { buckets: [ 1 ] } }", False),
        ('metric_control { metric_identifier { family: "f" } histogram_options { buckets: [ 1 ] } }', True),
    ],
)
def test_a_metric_of_a_model_has_a_family_and_buckets(repository: Path, given: str, legal: bool) -> None:
    edit(repository, "p", 'name: "p"', f'name: "p" model_metrics {{ {given} }}')
    finding = ("error", "p/config.pbtxt", "model_metrics.metric_control")
    assert (finding in found(repository, "2.73")) is not legal


def test_errors_come_first_and_no_directory_is_said(repository: Path, tmp_path: Path) -> None:
    edit(repository, "m", "kind: KIND_CPU", "kind: KIND_CPU gpus: [ 0 ]")
    edit(repository, "e", '"m" model_version: 1', '"m" model_version: -1')
    assert [each.severity for each in lint(repository, release="2.51")] == ["error", "warning"]
    with pytest.raises(MissingError):
        lint(tmp_path / "gone", release="2.51")


def test_the_verb_s_exit_code_is_for_errors_only(repository: Path) -> None:
    def linted(*more: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["lint", str(repository), *more])
        return done.exit_code, done.output

    assert linted() == (0, "configurations: 3; no findings\n")
    edit(repository, "e", '"m" model_version: 1', '"m" model_version: -1')
    code, said = linted("--json")
    (finding,) = json.loads(said)["findings"]
    assert (code, finding["severity"], finding["file"]) == (0, "warning", "e/config.pbtxt")
    edit(repository, "p", "max_batch_size: 8", "max_batch_sise: 8")
    code, said = linted()
    assert (code, "2 errors, 1 warnings" in said) == (1, True)  # the ensemble loses a step with it
    assert linted("--triton", "1.0")[0] == 2


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(CLEAN)), st.integers(0, 40), st.text(max_size=8))
def test_no_text_ends_in_a_traceback(repository: Path, start: int, length: int, put: str) -> None:
    (repository / "m" / "config.pbtxt").write_text(CLEAN[:start] + put + CLEAN[start + length :], encoding="utf-8")
    assert all(isinstance(each, Broken) for each in lint(repository, release="2.51"))
