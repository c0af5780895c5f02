"""Rules of a repository's files: names, version directories, model files, links, what should not lie there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...deployment.broken import Severity
from .execution import backend_of
from .finding import Finding

_MODEL_FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan", "python": "model.py", "pytorch": "model.pt"}
_CONFIG = "config.pbtxt"


def model_directories(repository: Path) -> list[Path]:
    """Directories that are to be models: all that are not hidden."""
    return sorted(path for path in repository.iterdir() if path.is_dir() and not path.name.startswith("."))


def versions(model: Path) -> set[int]:
    """Version numbers that Triton sees: plain integers without leading zeros."""
    if not model.is_dir():
        return set()
    names = [path.name for path in model.iterdir() if path.is_dir()]
    return {int(name) for name in names if _numeric(name) and name[0] != "0"}


def strangers(repository: Path) -> Iterator[Finding]:
    """Hidden directories, which a server in its default mode takes for models."""
    for path in sorted(repository.iterdir()):
        if path.is_dir() and path.name.startswith("."):
            yield _finding(
                path.name,
                "a server in its default mode takes this directory for a model, and ends because it is none",
                "move it out of the repository",
                "warning",
            )


def findings(repository: Path, model: Path, config: Any) -> Iterator[Finding]:
    """Every rule that the files of one model break; `config` is None where it cannot be read."""
    yield from _links(repository, model)
    yield from _directories(model)
    there = versions(model)
    if not there:
        yield _finding(model.name, "no version directory: nothing can be loaded", "put the model into MODEL/1/")
    if config is None:
        return
    yield from _listed(model, config, there)
    for version in sorted(_loaded(config, there)):
        yield from _model_file(model, version, config)
    yield from _named_files(model, config)


def _numeric(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def _finding(file: str, rule: str, mend: str, severity: Severity = "error") -> Finding:
    return Finding(severity=severity, file=file, field="", rule=rule, mend=mend)


def _links(repository: Path, model: Path) -> Iterator[Finding]:
    for path in sorted([model, *model.rglob("*")]):
        if not path.is_symlink():
            continue
        file = str(path.relative_to(repository))
        if not path.exists():
            yield _finding(file, "a link to nothing", "put the file itself there")
        elif not path.resolve().is_relative_to(repository.resolve()):
            yield _finding(file, "a link out of the repository: what it holds can change unseen", "copy the file there")
        else:
            yield _finding(file, "a link: what it holds can change unseen", "copy the file there", "warning")


def _directories(model: Path) -> Iterator[Finding]:
    for path in sorted(path for path in model.iterdir() if path.is_dir()):
        file = f"{model.name}/{path.name}"
        if _numeric(path.name) and path.name[0] == "0":
            yield _finding(file, "a version with a leading zero is ignored", "rename it", "warning")
        if _numeric(path.name) and (path / "__pycache__").is_dir():
            yield _finding(
                f"{file}/__pycache__",
                "bytecode written here changes the version's time, so a later load starts it anew",
                "remove it; set PYTHONDONTWRITEBYTECODE=1 or mount the repository read-only",
                "warning",
            )
    stray = [path.name for path in model.iterdir() if path.is_file() and path.suffix in (".onnx", ".plan", ".pt")]
    for name in sorted(stray):
        yield _finding(
            f"{model.name}/{name}",
            "a model beside the version directories is never read",
            "move it into one",
            "warning",
        )


def _loaded(config: Any, there: set[int]) -> set[int]:
    policy = config.version_policy
    if policy.HasField("specific"):
        return there & set(policy.specific.versions)
    if policy.HasField("all"):
        return there
    return set(sorted(there)[-max(policy.latest.num_versions, 1) :])


def _listed(model: Path, config: Any, there: set[int]) -> Iterator[Finding]:
    if not config.version_policy.HasField("specific") or not there:
        return
    listed = set(config.version_policy.specific.versions)
    if missing := sorted(listed - there):
        nothing = not listed & there
        yield Finding(
            severity="error" if nothing else "warning",
            file=f"{model.name}/{_CONFIG}",
            field="version_policy.specific",
            rule=f"version {', '.join(map(str, missing))} is listed and not there"
            + ("; nothing is left to load" if nothing else ", which is only logged"),
            mend=f"there are {', '.join(map(str, sorted(there)))}",
        )


def _model_file(model: Path, version: int, config: Any) -> Iterator[Finding]:
    backend = backend_of(config)
    names = list(config.cc_model_filenames.values())
    if config.default_model_filename or not names:
        names.append(config.default_model_filename or _MODEL_FILES.get(backend, ""))
    for name in sorted(set(names) - {""}):
        path = model / str(version) / name
        file = f"{model.name}/{version}/{name}"
        if not path.exists():
            yield _finding(file, f"missing: version {version} cannot be loaded", "put the model file there")
        elif path.is_file() and path.stat().st_size == 0:
            yield _finding(file, "empty", "copy the model file again, whole")


def _named_files(model: Path, config: Any) -> Iterator[Finding]:
    """Files that the configuration names: labels, warm-up data, initial states."""
    wanted = [(f"output.{each.name}.label_filename", Path(each.label_filename)) for each in config.output]
    for sample in config.model_warmup:
        wanted += [
            (f"model_warmup.{sample.name}.inputs.{name}", Path("warmup", sample.inputs[name].input_data_file))
            for name in sorted(sample.inputs)
            if sample.inputs[name].input_data_file
        ]
    for state in config.sequence_batching.state:
        wanted += [
            (f"sequence_batching.state.{state.input_name}", Path("initial_state", each.data_file))
            for each in state.initial_state
            if each.data_file
        ]
    for field, path in wanted:
        if path.name and not (model / path).is_file():
            yield Finding(
                severity="error",
                file=f"{model.name}/{_CONFIG}",
                field=field,
                rule=f"the file {path} is not there",
                mend=f"put it into {model.name}, or drop the field",
            )
