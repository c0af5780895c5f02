"""Rules of a repository's files: names, version directories, model files, links, what should not lie there."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ...deployment import Broken
from ...deployment.broken import Effect, Severity
from . import libraries, python
from .backends import backend_of
from .sizes import bytes_of
from .versions import directories, is_readable, loaded, versions

_MODEL_FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan", "python": "model.py", "pytorch": "model.pt"}
_CONFIG = "config.pbtxt"


def model_directories(repository: Path) -> list[Path]:
    """Directories that are to be models: all that are not hidden."""
    return sorted(path for path in repository.iterdir() if path.is_dir() and not path.name.startswith("."))


def strangers(repository: Path) -> Iterator[Broken]:
    """Hidden directories, which a server in its default mode takes for models."""
    for path in sorted(repository.iterdir()):
        if path.is_dir() and path.name.startswith("."):
            yield _finding(
                path.name,
                "a server in its default mode treats this directory as a model, and ends because it is none",
                "move it out of the repository",
                "warning",
            )


def findings(repository: Path, model: Path, config: Any) -> Iterator[Broken]:
    """Every rule that the files of one model break; `config` is None where it cannot be read."""
    yield from _links(repository, model)
    yield from _versions(model, config)
    yield from _directories(model)
    there = versions(model)
    if not there:
        yield _finding(
            model.name, "there is no version directory, so nothing can be loaded", "put the model into MODEL/1/"
        )
    if config is None:
        return
    yield from _listed(model, config, there)
    served = loaded(config, there)
    if not config.HasField("ensemble_scheduling"):
        for version in sorted(served):
            yield from _model_file(model, version, config)
    yield from _named_files(model, config)
    for broken in libraries.broken_files(model, config, served):
        yield broken.at(f"{model.name}/{_CONFIG}")
    if backend_of(config) == "python":
        yield from python.findings(model, config, served)


def _numeric(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def _finding(file: str, rule: str, fix: str, severity: Severity = "error", *, effect: Effect = "refused") -> Broken:
    return Broken(severity=severity, file=file, field="", rule=rule, fix=fix, effect=effect)


def _links(repository: Path, model: Path) -> Iterator[Broken]:
    for path in sorted([model, *model.rglob("*")]):
        if not path.is_symlink():
            continue
        file = str(path.relative_to(repository))
        if not path.exists():
            yield _finding(file, "a broken link", "put the file itself there", effect="loads")
        elif not path.resolve().is_relative_to(repository.resolve()):
            yield _finding(
                file,
                "a link out of the repository: its contents can change unnoticed",
                "copy the file there",
                effect="loads",
            )
        else:
            yield _finding(file, "a link: its contents can change unnoticed", "copy the file there", "warning")


def _versions(model: Path, config: Any) -> Iterator[Broken]:
    """Directories that Triton takes for versions and that are not named as such."""
    ensemble = config is not None and config.HasField("ensemble_scheduling")
    served = loaded(config, versions(model)) if config is not None and not ensemble else set()
    for name, version in directories(model):
        file = f"{model.name}/{name}"
        if not is_readable(version):
            yield _finding(
                file,
                "the number is too large for Triton: it ends the whole server, with every other model",
                "rename or remove the directory; versions count from 1",
                effect="ends",
            )
        elif version < 0 and version in served:
            yield _finding(
                file, f"version {version} is negative, and its load hangs", "rename it; count from 1", effect="hangs"
            )
        elif name != str(version) and version in served and not (model / str(version)).is_dir():
            yield _finding(
                file,
                (
                    f"Triton reads version {version} from this name and looks for the model in {version}, which "
                    "does not exist: the load fails or hangs"
                ),
                f"rename it to {version}, or to a name that does not begin with a number",
                effect="hangs",
            )
        elif name != str(version) or version < 0:
            yield _finding(
                file,
                f"Triton reads version {version} from this name",
                "use a name that does not begin with a number",
                "warning",
            )


def _directories(model: Path) -> Iterator[Broken]:
    for path in sorted(path for path in model.iterdir() if path.is_dir()):
        file = f"{model.name}/{path.name}"
        if _numeric(path.name) and path.name[0] == "0" and path.name != "0":
            yield _finding(file, "a version with a leading zero is ignored", "rename it", "warning")
        if _numeric(path.name) and (path / "__pycache__").is_dir():
            yield _finding(
                f"{file}/__pycache__",
                "bytecode written here changes the version's time stamp, so a later load restarts it",
                "remove it; set PYTHONDONTWRITEBYTECODE=1 or mount the repository read-only",
                "warning",
            )
    stray = [path.name for path in model.iterdir() if path.is_file() and path.suffix in (".onnx", ".plan", ".pt")]
    for name in sorted(stray):
        yield _finding(
            f"{model.name}/{name}",
            "a model file beside the version directories is never read",
            "move it into a version directory",
            "warning",
        )


def _listed(model: Path, config: Any, there: set[int]) -> Iterator[Broken]:
    if not config.version_policy.HasField("specific") or not there:
        return
    listed = set(config.version_policy.specific.versions)
    if missing := sorted(listed - there):
        nothing = not listed & there
        yield Broken(
            severity="error" if nothing else "warning",
            file=f"{model.name}/{_CONFIG}",
            field="version_policy.specific",
            rule=f"version {', '.join(map(str, missing))} is listed but does not exist"
            + ("; no version is left to load" if nothing else ", which is only logged"),
            fix=f"available versions: {', '.join(map(str, sorted(there)))}",
        )


def _model_file(model: Path, version: int, config: Any) -> Iterator[Broken]:
    backend = backend_of(config)
    names = list(config.cc_model_filenames.values()) if backend != "python" else []
    if config.default_model_filename or not names:
        names.append(config.default_model_filename or _MODEL_FILES.get(backend, ""))
    for name in sorted(set(names) - {""}):
        path = model / str(version) / name
        file = f"{model.name}/{version}/{name}"
        if not path.exists():
            hangs = backend == "python"
            yield _finding(
                file,
                f"missing: version {version} cannot be loaded" + (", and the load hangs" if hangs else ""),
                "put the model file there",
                effect="hangs" if hangs else "refused",
            )
        elif path.is_file() and path.stat().st_size == 0:
            yield _finding(file, "empty", "copy the complete model file again")


def _named_files(model: Path, config: Any) -> Iterator[Broken]:
    """Files that the configuration names: labels, warm-up data, initial states, each below a folder of the model."""
    wanted = [
        (f"output.{each.name}.label_filename", "", each.label_filename, 0)
        for each in config.output
        if each.label_filename
    ]
    for sample in config.model_warmup:
        wanted += [
            (f"model_warmup.{sample.name}.inputs.{name}", "warmup", tensor.input_data_file, _least(tensor))
            for name, tensor in sorted(sample.inputs.items())
            if tensor.WhichOneof("input_data_type") == "input_data_file" and sample.batch_size > 0
        ]
    for state in config.sequence_batching.state:
        wanted += [
            (f"sequence_batching.state.{state.input_name}", "initial_state", each.data_file, _least(each))
            for each in state.initial_state
            if each.WhichOneof("state_data") == "data_file"
        ]
    for field, folder, name, least in wanted:
        shown = str(PurePosixPath(folder, name.lstrip("/")))
        path = model / folder / name.lstrip("/")
        if rule := _unlike(path, shown, least):
            directory = path.is_dir()
            yield Broken(
                severity="error",
                file=f"{model.name}/{_CONFIG}",
                field=field,
                rule=rule,
                fix="name a file, or remove the field"
                if directory
                else f"put the data into {model.name}/{shown}, or remove the field",
                effect="ends" if directory else "refused",
            )


def _unlike(path: Path, shown: str, least: int) -> str:
    """Return what keeps Triton from reading a file of data; empty where nothing does."""
    if path.is_dir():
        return f"{shown} is a directory: reading it ends the whole server, with every other model"
    if not path.is_file():
        return f"the file {shown} does not exist"
    if path.stat().st_size < least:
        return f"the file {shown} has {path.stat().st_size} bytes, but {least} are needed; Triton refuses the model"
    return ""


def _least(tensor: Any) -> int:
    """The bytes that a file of raw data needs at least; of strings any."""
    from tritonclient.grpc import model_config_pb2 as pb

    if tensor.data_type == pb.TYPE_STRING or any(size < 0 for size in tensor.dims):
        return 0
    return bytes_of(tensor.data_type, list(tensor.dims))
