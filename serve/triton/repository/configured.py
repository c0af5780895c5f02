"""Files and libraries that a ModelConfig names: every field of the protocol that can lead somewhere.

Pure: reads a message, and touches no file. A test holds that each text field of the protocol stands in one of the
tables here, so that a field of a later protocol is not overlooked.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from .doubt import Doubt

FILES = frozenset(
    {
        "default_model_filename",
        "cc_model_filenames.value",
        "output.label_filename",
        "input.label_filename",
        "model_warmup.inputs.value.input_data_file",
        "sequence_batching.state.initial_state.data_file",
    }
)
"""Fields that name a file, which must lie inside the model's directory."""
LIBRARIES = frozenset({"model_operations.op_library_filename", "runtime"})
"""Fields that name a library or script that the server runs; servers fill in `runtime` with the backend's own."""
NAMES = frozenset(
    {
        "name",
        "backend",
        "platform",
        "model_repository_agents.agents.name",
        "ensemble_scheduling.step.model_name",
    }
)
"""Fields that become part of a path: of a backend's or an agent's library, of a model's directory."""
PARAMETERS = frozenset(
    {
        "parameters.value.string_value",
        "model_repository_agents.agents.parameters.value",
        "optimization.execution_accelerators.gpu_execution_accelerator.parameters.value",
        "optimization.execution_accelerators.cpu_execution_accelerator.parameters.value",
    }
)
"""Free text by key; its meaning depends on the backend."""
HARMLESS = re.compile(
    r"(input|output)\.name|batch_(input|output)\.(target_name|source_input)|(.*\.)?key|metric_tags\.(key|value)|"
    r"optimization\.execution_accelerators\.[cg]pu_execution_accelerator\.name|"
    r"sequence_batching\.(control_input\.name|state\.(in|out)put_name|state\.initial_state\.name)|"
    r"ensemble_scheduling\.step\.((input|output)_map\.(key|value)|model_namespace)|"
    r"instance_group\.(name|profile|host_policy|rate_limiter\.resources\.name)|"
    r"model_warmup\.name|model_metrics\.metric_control\.metric_identifier\.family"
)
"""Text fields that refer to no file."""
RUNNING = ("EXECUTION_ENV_PATH", "TRITON_BATCH_STRATEGY_PATH")
"""Triton's own parameters that name code."""
_WORD = re.compile(r"[A-Za-z0-9_.+-]*")
_FILES_OF_CACHES = re.compile(r".*(cache|calibration).*", re.I)
_BACKENDS = {"python": ("python",), "native": ("onnxruntime", "tensorrt", "")}
_PLATFORMS = {"python": ("",), "native": ("onnxruntime_onnx", "tensorrt_plan", "ensemble", "")}
_MODEL_FILE = "model_file"


def doubts(config: Any, where: str) -> Iterator[Doubt]:
    """Yield every field that leads outside the model's directory, or names code, for a configuration of any origin."""
    for field, key, value in fields(config):
        if field in LIBRARIES and value not in (f"libtriton_{config.backend}.so", "model.py"):
            yield Doubt(rule="library", where=where, seen=f"{field} names {value!r}")
        if field in NAMES and (not _WORD.fullmatch(value) or value.startswith(".")):
            yield Doubt(rule="outside", where=where, seen=f"{field} is {value!r}, which is not a plain name")
        if field in FILES and leads_outside(value):
            yield Doubt(rule="outside", where=where, seen=f"{field} names {value!r}")
        if field in PARAMETERS:
            yield from _parameter(field, key, value, where)


def unlike_ours(config: Any, backend: str, files: frozenset[str] | None, where: str) -> Iterator[Doubt]:
    """Yield what a configuration that seatrial writes for that backend never says; `files` are the artifact's."""

    def other(field: str, value: str) -> Doubt:
        return Doubt(rule="other-backend", where=where, seen=f"{field} is {value!r}, which seatrial never writes")

    if config.backend not in _BACKENDS[backend]:
        yield other("backend", config.backend)
    if config.platform not in _PLATFORMS[backend]:
        yield other("platform", config.platform)
    if (config.backend, config.platform) == ("", "") and not config.HasField("ensemble_scheduling"):
        yield other("backend", "")
    if config.runtime:
        yield other("runtime", config.runtime)
    for agent in config.model_repository_agents.agents:
        yield other("model_repository_agents", agent.name)
    if backend == "python" and config.default_model_filename not in ("", "model.py"):
        yield other("default_model_filename", config.default_model_filename)
    named = [] if backend == "python" else [config.default_model_filename, *config.cc_model_filenames.values()]
    named += [config.parameters[_MODEL_FILE].string_value] if _MODEL_FILE in config.parameters else []
    for name in named:
        if files is not None and name and name not in files:
            yield Doubt(
                rule="changed", where=where, seen=f"it names the file {name!r}, which is not part of the artifact"
            )


def fields(message: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield each text that is set: its field by dotted path, the key of the map that it stands in, and the text."""
    for descriptor, value in message.ListFields():
        name = f"{path}{descriptor.name}"
        if descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry:
            inner = descriptor.message_type.fields_by_name["value"]
            for key in sorted(value):
                if inner.message_type is not None:
                    yield from ((at, str(key), text) for at, _, text in fields(value[key], f"{name}.value."))
                elif isinstance(value[key], str):
                    yield f"{name}.value", str(key), value[key]
            continue
        single = isinstance(value, str | bytes | int | float) or hasattr(value, "ListFields")
        for each in [value] if single else value:
            if isinstance(each, str):
                yield name, "", each
            elif descriptor.message_type is not None:
                yield from fields(each, f"{name}.")


def leads_outside(text: str) -> bool:
    """Return whether a path is absolute, or has a part that goes up; backslashes count as separators."""
    parts = PurePosixPath(text.replace("\\", "/")).parts
    return text.startswith(("/", "\\", "~")) or ".." in parts or "\0" in text


def _parameter(field: str, key: str, value: str, where: str) -> Iterator[Doubt]:
    if key in RUNNING:
        yield Doubt(rule="execution-environment", where=where, seen=f"{key} = {value}")
    if not leads_outside(value):
        return
    # Where engines and tactics are cached is the operator's choice, outside on purpose; it is no part of a model.
    cache = _FILES_OF_CACHES.fullmatch(key) is not None and ".." not in PurePosixPath(value).parts
    seen = f"{field.partition('.value')[0]} {key} names {value!r}"
    rule = "cache-path" if cache else "outside" if key == _MODEL_FILE else "parameter-path"
    yield Doubt(rule=rule, where=where, seen=seen, refused=not cache)
