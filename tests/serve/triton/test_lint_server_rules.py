"""Lint agrees with what Triton 2.51 was seen to do: each case was loaded by the real server, which did as it says."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from seatrial.optimize.errors import ConfigError
from seatrial.serve.triton.lint import lint
from seatrial.serve.triton.repository.vouching import check

BODY = """
backend: "python" max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
"""
CODE = b"class TritonPythonModel:\n    pass\n"
INPUT, OUTPUT = "dims: [ 4 ]", "dims: [ 2 ]"
SEQUENCE = "sequence_batching { %s }"
CONTROL = "control_input { name: %s control { kind: CONTROL_SEQUENCE_%s %s } }"
PAIR = "int32_false_true: [ 0, 1 ]"
STATE = 'state { input_name: "s" output_name: "t" data_type: TYPE_FP32 dims: [ 2 ] initial_state { %s } }'
WARM = 'model_warmup { batch_size: %s inputs { key: "x" value { data_type: TYPE_FP32 %s } } }'
PARAMETER = 'parameters { key: "%s" value { string_value: "%s" } }'
SCATTER = "batch_output { kind: BATCH_SCATTER_WITH_INPUT_SHAPE %s }"


def model(folder: Path, name: str, text: str | bytes, files: Mapping[str, bytes] | None = None) -> None:
    """Write one model."""
    (folder / name).mkdir(parents=True)
    (folder / name / "config.pbtxt").write_bytes(text.encode() if isinstance(text, str) else text)
    for path, content in (files if files is not None else {"1/model.py": CODE}).items():
        (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / path).write_bytes(content)


def refused(folder: Path) -> list[tuple[str, str]]:
    """Files and fields of what is not to load."""
    return [
        (each.file, each.field)
        for each in lint(folder, release="2.51")
        if each.severity == "error" and each.effect != "loads"
    ]


LOADS = {
    "a reshape around free axes": BODY.replace(INPUT, "dims: [ 2, 4, -1, 6 ] reshape { shape: [ 8, -1, 1, 6 ] }"),
    "a negative count of instances": BODY + "instance_group { count: -1 kind: KIND_CPU }",
    "any platform beside the python backend": BODY + 'platform: "onnxruntime_onnx"',
    "accelerators that python ignores": BODY
    + 'optimization { execution_accelerators { cpu_execution_accelerator { name: "tensorrt" } } }',
    "files for other GPUs that python ignores": BODY + 'cc_model_filenames { key: "7.5" value: "gone.py" }',
    "a warm-up of batch 0, whatever its shape": BODY + WARM % (0, "dims: [ 9 ] zero_data: true"),
    "an unknown tensor in a warm-up": BODY
    + (WARM % (1, "dims: [ 4 ] zero_data: true")).replace(
        "batch_size", 'inputs { key: "z" value { data_type: TYPE_FP32 dims: [ 4 ] zero_data: true } } batch_size'
    ),
    "one control_input for two kinds": BODY
    + SEQUENCE % f'control_input {{ name: "c" control [ {{ {PAIR} }}, {{ kind: CONTROL_SEQUENCE_READY {PAIR} }} ] }}',
    "an unknown kind of control": BODY + SEQUENCE % 'control_input { name: "c" control { kind: 9 } }',
    "an initial state for free axes": BODY
    + SEQUENCE
    % (STATE % 'name: "i" data_type: TYPE_FP32 dims: [ 5 ] zero_data: true').replace("dims: [ 2 ]", "dims: [ -1 ]"),
    "Latin-1 in a comment": "# Größe\n".encode("latin-1") + BODY.encode(),
    "Latin-1 in a string": BODY.encode() + 'metric_tags { key: "a" value: "Köln" }'.encode("latin-1"),
    "a blank after the minus sign": BODY.replace(INPUT, "dims: [ - 1 ]"),
    "the known escapes": BODY + r'metric_tags { key: "a" value: "\x41\102\n\u00e9\"" }',
    "a number for a data type that is none": BODY.replace("TYPE_FP32 dims: [ 4", "77 dims: [ 4"),
    "an empty environment path": BODY + PARAMETER % ("EXECUTION_ENV_PATH", ""),
}


@pytest.mark.parametrize("text", LOADS.values(), ids=LOADS.keys())
def test_what_the_server_loads_is_no_error(tmp_path: Path, text: str | bytes) -> None:
    model(tmp_path, "m", text)
    assert refused(tmp_path) == []


CONFIG = "m/config.pbtxt"
REFUSED = {
    "a size of 0 in a reshape": (BODY.replace(INPUT, "dims: [ 4 ] reshape { shape: [ 0 ] }"), "input.x.reshape"),
    "a reshape that moves a free axis": (
        BODY.replace(INPUT, "dims: [ 2, -1, 3 ] reshape { shape: [ 3, -1, 2 ] }"),
        "input.x.reshape",
    ),
    "a reshape that loses a free axis": (
        BODY.replace(INPUT, "dims: [ -1, -1 ] reshape { shape: [ -1 ] }"),
        "input.x.reshape",
    ),
    "a non-linear format": (
        BODY.replace(INPUT, "dims: [ 4, 4, 4 ] is_non_linear_format_io: true"),
        "input.x.is_non_linear_format_io",
    ),
    "a target of a batch_output twice": (
        BODY + SCATTER % 'target_name: [ "y", "y" ] source_input: "x"',
        "batch_output.target_name",
    ),
    "an unknown target": (BODY + SCATTER % 'target_name: "z" source_input: "x"', "batch_output.target_name"),
    "no target, which ends the server": (BODY + SCATTER % 'source_input: "x"', "batch_output.target_name"),
    "no source": (BODY + SCATTER % 'target_name: "y"', "batch_output.source_input"),
    "two sources": (BODY + SCATTER % 'target_name: "y" source_input: [ "x", "x" ]', "batch_output.source_input"),
    "an unknown source": (BODY + SCATTER % 'target_name: "y" source_input: "z"', "batch_output.source_input"),
    "an unknown kind of batch_input": (
        BODY + 'batch_input { kind: 77 target_name: "z" data_type: TYPE_INT32 source_input: "x" }',
        "batch_input.kind",
    ),
    "one control tensor twice": (
        BODY + SEQUENCE % (CONTROL % ('"c"', "START", PAIR) + CONTROL % ('"c"', "READY", PAIR)),
        "sequence_batching.control_input.c",
    ),
    "a control tensor without a name": (
        BODY + SEQUENCE % (CONTROL % ('""', "START", PAIR)),
        "sequence_batching.control_input",
    ),
    "values for an id": (
        BODY + SEQUENCE % (CONTROL % ('"c"', "CORRID", f"data_type: TYPE_UINT64 {PAIR}")),
        "sequence_batching.control_input.c",
    ),
    "slots for more sequences than memory": (
        BODY + SEQUENCE % "oldest { max_candidate_sequences: 2147483647 }",
        "sequence_batching.oldest.max_candidate_sequences",
    ),
    "an initial state without a name": (
        BODY + SEQUENCE % (STATE % "data_type: TYPE_FP32 dims: [ 2 ] zero_data: true"),
        "sequence_batching.state.s.initial_state.name",
    ),
    "an initial state of another type": (
        BODY + SEQUENCE % (STATE % 'name: "i" data_type: TYPE_FP64 dims: [ 2 ] zero_data: true'),
        "sequence_batching.state.s.initial_state.data_type",
    ),
    "an initial state of another shape": (
        BODY + SEQUENCE % (STATE % 'name: "i" data_type: TYPE_FP32 dims: [ 3 ] zero_data: true'),
        "sequence_batching.state.s.initial_state.dims",
    ),
    "an initial state below -1, which ends the server": (
        BODY
        + SEQUENCE % (STATE % 'name: "i" data_type: TYPE_FP32 dims: [ -3 ] zero_data: true').replace("[ 2 ]", "[ -3 ]"),
        "sequence_batching.state.s.initial_state.dims",
    ),
    "an initial state of no data": (
        BODY + SEQUENCE % (STATE % 'name: "i" data_type: TYPE_FP32 dims: [ 2 ]'),
        "sequence_batching.state.s.initial_state",
    ),
    "a warm-up without end": (
        BODY + (WARM % (1, "dims: [ 4 ] zero_data: true")).replace("batch_size", "count: 1000000000 batch_size"),
        "model_warmup..count",
    ),
    "an input twice, with a warm-up": (
        BODY + 'input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }' + WARM % (1, "dims: [ 4 ] zero_data: true"),
        "model_warmup..inputs",
    ),
    "the backend's name in another case": (BODY.replace('"python"', '"Python"'), "backend"),
    "agents without one, which ends the server": (BODY + "model_repository_agents { }", "model_repository_agents"),
    "an environment that is not there": (
        BODY + PARAMETER % ("EXECUTION_ENV_PATH", "/nowhere/env.tar.gz"),
        "parameters.EXECUTION_ENV_PATH",
    ),
    "a relative environment": (
        BODY + PARAMETER % ("EXECUTION_ENV_PATH", "env.tar.gz"),
        "parameters.EXECUTION_ENV_PATH",
    ),
    "neither yes nor no": (
        BODY + PARAMETER % ("FORCE_CPU_ONLY_INPUT_TENSORS", "true"),
        "parameters.FORCE_CPU_ONLY_INPUT_TENSORS",
    ),
    "a batching strategy that is not there": (
        BODY + PARAMETER % ("TRITON_BATCH_STRATEGY_PATH", "/nowhere.so"),
        "parameters.TRITON_BATCH_STRATEGY_PATH",
    ),
    "a batching strategy for sequences": (
        BODY + SEQUENCE % "" + PARAMETER % ("TRITON_BATCH_STRATEGY_PATH", "/nowhere.so"),
        "parameters.TRITON_BATCH_STRATEGY_PATH",
    ),
    "a runtime that is none": (BODY + 'runtime: "x"', "runtime"),
    "a file that cannot be imported": (BODY + 'default_model_filename: "net.v2.py"', "default_model_filename"),
    "a shell's sign in a group's name": (BODY + 'instance_group { name: "a;b" }', "instance_group.name"),
    "a directory as labels, which ends the server": (
        BODY.replace(OUTPUT, 'dims: [ 2 ] label_filename: "."'),
        "output.y.label_filename",
    ),
    "an unknown escape": (BODY + r'metric_tags { key: "a" value: "\q" }', ""),
    "a NUL byte": (BODY.encode() + b"# \0\n", ""),
    "a no-break space": (BODY.replace(" max", "\u00a0max"), ""),
}


@pytest.mark.parametrize(("text", "field"), REFUSED.values(), ids=REFUSED.keys())
def test_what_the_server_refuses_is_an_error(tmp_path: Path, text: str | bytes, field: str) -> None:
    model(tmp_path, "m", text)
    assert (CONFIG, field) in refused(tmp_path)
    for each in lint(tmp_path, release="2.51"):
        assert each.rule
        assert each.fix


WRONG_FILES: dict[str, tuple[dict[str, bytes], str]] = {
    "a number that ends the server": ({"99999999999999999999/x": b""}, "m/99999999999999999999"),
    "a name that begins with one": ({"-99999999999999999999_old/x": b""}, "m/-99999999999999999999_old"),
    "a copy that counts as a version": ({"2_old/model.py": CODE}, "m/2_old"),
    "code that is none": ({"1/model.py": b"def x(:\n"}, "m/1/model.py"),
    "code without the class": ({"1/model.py": b"class Model:\n    pass\n"}, "m/1/model.py"),
    "a directory for code": ({"1/model.py/x": b""}, "m/1/model.py"),
}


@pytest.mark.parametrize(("files", "file"), WRONG_FILES.values(), ids=WRONG_FILES.keys())
def test_files_that_keep_a_model_from_loading_are_errors(tmp_path: Path, files: dict[str, bytes], file: str) -> None:
    sound = {} if "1/model.py" in files or "1/model.py/x" in files else {"1/model.py": CODE}
    model(tmp_path, "m", BODY, {**sound, **files})
    assert (file, "") in refused(tmp_path)


RIGHT_FILES: dict[str, dict[str, bytes]] = {
    "version 0": {"0/model.py": CODE},
    "a copy of a version that is there": {"1/model.py": CODE, "1_old/model.py": CODE},
    "a version with leading zeros is ignored": {"1/model.py": CODE, "007/x": b""},
    "a class by import": {"1/model.py": b"from inner import TritonPythonModel\n"},
    "a class by assignment": {"1/model.py": b"TritonPythonModel = type('M', (), {})\n"},
}


@pytest.mark.parametrize("files", RIGHT_FILES.values(), ids=RIGHT_FILES.keys())
def test_files_that_the_server_takes_are_no_errors(tmp_path: Path, files: dict[str, bytes]) -> None:
    model(tmp_path, "m", BODY, files)
    assert refused(tmp_path) == []


@pytest.mark.parametrize("name", ["a b", "a'b", "a;b", "a$b", "a(b", "a\\b", "{a,b}", "é"])
def test_a_name_that_the_shell_reads_is_an_error(tmp_path: Path, name: str) -> None:
    model(tmp_path, name, BODY)
    assert (name, "") in refused(tmp_path)


@pytest.mark.parametrize("name", ["a+b", "a%b", "a=b", "a@b", "{a}", "-a", "a.b"])
def test_a_name_that_the_shell_passes_on_is_none(tmp_path: Path, name: str) -> None:
    model(tmp_path, name, BODY)
    assert refused(tmp_path) == []


def test_short_data_and_absolute_names_are_found(tmp_path: Path) -> None:
    warm = WARM % (1, 'dims: [ 4 ] input_data_file: "%s"')
    model(tmp_path, "m", BODY + warm % "d", {"1/model.py": CODE, "warmup/d": b"x" * 15})
    model(tmp_path, "n", BODY + warm % "/d", {"1/model.py": CODE, "warmup/d": b"x" * 16})
    model(tmp_path, "o", BODY + warm % "/etc/hostname")
    found = refused(tmp_path)
    assert found == [(f"{name}/config.pbtxt", "model_warmup..inputs.x") for name in ("m", "o")]


def test_a_directory_for_a_configuration_ends_the_server(tmp_path: Path) -> None:
    (tmp_path / "m" / "config.pbtxt").mkdir(parents=True)
    (tmp_path / "m" / "1").mkdir()
    (found,) = [each for each in lint(tmp_path, release="2.51") if each.file == CONFIG]
    assert "ends the whole server" in found.rule


def test_errors_of_models_that_load_say_so(tmp_path: Path) -> None:
    model(tmp_path, "m", BODY.replace(INPUT, "dims: [ -1 ]") + "response_cache { enable: true }")
    (found,) = [each for each in lint(tmp_path, release="2.51") if each.severity == "error"]
    assert (found.field, found.effect) == ("response_cache", "loads")
    alone = BODY.replace("max_batch_size: 4", "max_batch_size: 0")  # there the bytes give the one free axis
    model(tmp_path, "n", alone.replace(INPUT, "dims: [ -1 ]") + "response_cache { enable: true }")
    assert [each.file for each in lint(tmp_path, release="2.51") if each.severity == "error"] == [CONFIG]


def test_one_resource_of_two_models_is_global_in_both_or_in_none(tmp_path: Path) -> None:
    limited = BODY + 'instance_group { rate_limiter { resources { name: "R" count: 1 %s } } }'
    model(tmp_path, "m", limited % "")
    model(tmp_path, "n", limited % "global: true")
    assert refused(tmp_path) == [("m/config.pbtxt", "instance_group.rate_limiter.resources")]
    (tmp_path / "m" / "config.pbtxt").write_text(limited % "global: true")
    assert refused(tmp_path) == []


@pytest.mark.parametrize(
    ("more", "files"),
    [
        ("model_repository_agents { }", {"1/model.py": CODE}),
        ('instance_group { name: "a;b" }', {"1/model.py": CODE}),
        (SCATTER % 'source_input: "x"', {"1/model.py": CODE}),
        ("", {"1/other.py": CODE}),
        ("", {"1/model.py": CODE, "2_old/model.py": CODE}),
    ],
)
def test_what_would_cost_the_server_is_not_loaded_for_anyone(
    tmp_path: Path, more: str, files: dict[str, bytes]
) -> None:
    model(tmp_path, "m", BODY + more, files)
    with pytest.raises(ConfigError, match="must not be loaded") as refusal:
        check(tmp_path, ("m",), None, foreign=("m",))
    assert refusal.value.next_step
    model(tmp_path, "n", BODY)
    assert [note.rule for note in check(tmp_path, ("n",), None, foreign=("n",))] == ["unverified"]
