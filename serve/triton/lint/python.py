"""Rules of the python backend: names that its shell and its import take, parameters, environment, model.py itself."""

import ast
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ...deployment import Broken
from ...deployment.broken import Effect, Severity
from .. import engines

_CONFIG = "config.pbtxt"
_MODEL = "model.py"
_CLASS = "TritonPythonModel"
_BREAKING = re.compile(r"[\s\x00-\x1f\x7f'\"`;&|()<>$\\]|\{[^}]*(,|\.\.)[^}]*\}")
"""Characters that the shell, through which the backend starts each instance, does not pass on unchanged."""
_EXPANDING = re.compile(r"[*?\[#~!]")
_DIRECTORY = "$$TRITON_MODEL_DIRECTORY"
_ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK", b"7z", b"\x04\x22\x4d\x18")
_BINDING = ("exec", "globals", "setattr", "vars")


def findings(model: Path, config: Any, served: Collection[int]) -> Iterator[Broken]:
    """Every rule of the python backend that a model breaks; `served` are the versions to load."""
    yield from _names(model.name, config)
    yield from _parameters(model, config)
    name = config.default_model_filename or _MODEL
    yield from _filename(model.name, name)
    if _given(config).get("EXECUTION_ENV_PATH"):
        return  # its Python may read what this one does not
    for version in sorted(served):
        yield from _code(model / str(version) / name, f"{model.name}/{version}/{name}")
        yield from _engine(model / str(version), f"{model.name}/{version}")


def _names(model: str, config: Any) -> Iterator[Broken]:
    file = f"{model}/{_CONFIG}"
    given = [(model, "", model)]
    given += [(file, "instance_group.name", group.name) for group in config.instance_group]
    given += [(file, "default_model_filename", config.default_model_filename)]
    for where, field, name in given:
        if _BREAKING.search(name):
            yield _finding(
                where,
                (
                    f"{name!r} contains a shell metacharacter; the Python backend starts the model through a "
                    "shell: the load hangs or fails, or another command runs"
                ),
                "use only letters, digits, _ - and .",
                field=field,
                effect="hangs",
            )
        elif not name.isascii() and field != "instance_group.name":
            yield _finding(
                where,
                f"{name!r} is not ASCII: Python can import the model only if the server runs in a UTF-8 locale",
                "use only letters, digits, _ - and .",
                field=field,
            )
        elif _EXPANDING.search(name):
            yield _finding(
                where,
                (f"{name!r} contains a character that the shell may expand when the Python backend starts the model"),
                "use only letters, digits, _ - and .",
                field=field,
                severity="warning",
            )


def _filename(model: str, name: str) -> Iterator[Broken]:
    *folders, file = name.split("/")
    if not re.fullmatch(r"[^./]+\.py", file) or any("." in folder for folder in folders[-1:]):
        yield _finding(
            f"{model}/{_CONFIG}",
            (f"{name!r} cannot be imported: the file name must end in .py and have no other dot, nor may its folder"),
            "name the file model.py, and omit the field",
            field="default_model_filename",
        )


def _parameters(model: Path, config: Any) -> Iterator[Broken]:
    given = _given(config)
    file = f"{model.name}/{_CONFIG}"
    if given.get("FORCE_CPU_ONLY_INPUT_TENSORS", "no") not in ("yes", "no"):
        yield _finding(
            file,
            f"{given['FORCE_CPU_ONLY_INPUT_TENSORS']!r} is neither yes nor no; Triton refuses the model",
            'write "yes" or "no"',
            field="parameters.FORCE_CPU_ONLY_INPUT_TENSORS",
        )
    wanted = given.get("EXECUTION_ENV_PATH", "")
    if wanted and (wrong := _environment(model, wanted)):
        yield _finding(
            file,
            f"{wanted!r} {wrong}; Triton refuses the model",
            f"write {_DIRECTORY}/NAME for an archive (conda-pack) or an unpacked environment beside the versions",
            field="parameters.EXECUTION_ENV_PATH",
        )


def _given(config: Any) -> dict[str, str]:
    return {name: value.string_value for name, value in config.parameters.items()}


def _environment(model: Path, wanted: str) -> str:
    """Return what is wrong with the environment that a model is to run in; empty where nothing can be seen."""
    if wanted.startswith(_DIRECTORY):
        path = Path(f"{model}{wanted.removeprefix(_DIRECTORY)}")
    elif _DIRECTORY in wanted:
        return f"has {_DIRECTORY}, but not at its start"
    elif not wanted.startswith("/"):
        return "is relative to the folder in which the server is started"
    else:
        path = Path(wanted)
    if not path.exists():
        return "does not exist"
    if path.is_dir():
        return "" if (path / "bin" / "activate").exists() else "is a folder without bin/activate"
    with path.open("rb") as stream:
        head = stream.read(512)
    return "" if head.startswith(_ARCHIVES) or head[257:262] == b"ustar" else "is not an archive of an environment"


def _code(path: Path, file: str) -> Iterator[Broken]:
    """Return what can be seen of model.py without running it: that it is Python, and has the class."""
    if path.is_dir():
        yield _finding(file, "a directory instead of a Python file", "put the file there")
    if not path.is_file() or path.stat().st_size == 0:
        return
    try:
        module = ast.parse(path.read_bytes(), filename=file)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        yield _finding(file, f"Python cannot read it: {getattr(error, 'msg', None) or error}", "fix the code there")
        return
    if not _may_bind(module, _CLASS):
        yield _finding(
            file,
            f"it defines no class {_CLASS}; Triton refuses the model",
            f"name the class {_CLASS}, with initialize and execute",
        )


def _engine(version: Path, file: str) -> Iterator[Broken]:
    """Yield what a version placed by seatrial needs for its engine and a server on this machine lacks."""
    found, options = engines.recorded(version)
    if found and (lacking := engines.missing(options)) is not None:
        rule = f"{lacking.what}: a server on this machine refuses the version"
        yield _finding(f"{file}/{engines.RECORD}", rule, lacking.next_step, field="engine")


def _may_bind(module: ast.Module, name: str) -> bool:
    """Return whether a module may bind a name, in whatever way."""
    for node in ast.walk(module):
        match node:
            case ast.ClassDef(name=bound) | ast.FunctionDef(name=bound) if bound == name:
                return True
            case ast.Name(id=bound, ctx=ast.Store()) if bound == name:
                return True
            case ast.alias(name=bound, asname=other) if (other or bound) in (name, "*"):
                return True
            case ast.Call(func=ast.Name(id=called)) if called in _BINDING:
                return True
    return False


def _finding(
    file: str,
    rule: str,
    fix: str,
    *,
    field: str = "",
    severity: Severity = "error",
    effect: Effect = "refused",
) -> Broken:
    return Broken(severity=severity, file=file, field=field, rule=rule, fix=fix, effect=effect)
