"""The rules between an artifact and a deployment: what Triton needs of the tensors, checked before it sees them.

Triton answers most of these with "failed to poll from model repository", or not at all; here each has its own sentence.
Pure: reads two values, touches nothing. The rules that a deployment breaks by itself stand in `serve.deployment`.
"""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from seatrial.optimize.artifact import Artifact, TensorSpec

from ...caching import response_cache_risks
from ...deployment import Backend, Broken, Deployment
from ..backend import PLACED_CODE

# numpy dtype name -> Triton data type. bfloat16 has no place in the arrays that our model.py hands on.
DATA_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bfloat16": "TYPE_BF16",
    "object": "TYPE_STRING",
}
_NATIVE_ONLY = ("bfloat16",)
_SUFFIXES = {"onnx": ".onnx", "tensorrt": ".plan", "torch-export": ".pt2"}
_FORMATS = {"python": ("onnx", "torch-export"), "native": ("onnx", "tensorrt")}
_FIXES = {"tensorrt": 'write backend = "native"', "torch-export": 'write backend = "python"'}
_RESERVED = (*PLACED_CODE, "placement.json", "__pycache__")
_INT64 = 2**63 - 1


def model_file(artifact: Artifact) -> str:
    """The file that the backend opens; other files (external weights) lie beside it.

    Raises:
        ConfigRuleError: none, or several could be meant.
    """
    suffix = _SUFFIXES.get(artifact.format, "")
    fits = [file.path for file in artifact.files if suffix and PurePosixPath(file.path).suffix == suffix]
    if len(fits) != 1 or "/" in fits[0]:
        raise Broken(
            field="artifact.files",
            rule=f"{artifact.short} needs exactly one {suffix or 'model'} file at its top level, it has {fits}",
            fix="export it again as one model",
        ).error()
    return fits[0]


def broken_rules(artifact: Artifact, deployment: Deployment, backend: Backend) -> Iterator[Broken]:
    """Every rule that this artifact breaks under this deployment."""
    yield from _format(artifact, deployment, backend)
    yield from _tensors(artifact, deployment, backend)
    yield from _warmup(artifact, deployment)
    yield from _cache(artifact, deployment)


def broken_versions(versions: tuple[int, ...]) -> Iterator[Broken]:
    """Check a list of version numbers, which are also directory names."""
    if not versions:
        yield Broken(
            field="versions", rule="no version is given: Triton refuses a model without one", fix="name one version"
        )
    if len(set(versions)) != len(versions):
        yield Broken(field="versions", rule=f"{list(versions)} contains a version twice", fix="name each once")
    for version in versions:
        if not 1 <= version <= _INT64:
            yield Broken(
                field="versions", rule=f"a version must be at least 1, got {version}", fix="count versions from 1"
            )


def _format(artifact: Artifact, deployment: Deployment, backend: Backend) -> Iterator[Broken]:
    if artifact.format not in _FORMATS[backend]:
        yield Broken(
            field="backend",
            rule=f'backend = "{backend}" cannot serve a {artifact.format} artifact ({artifact.short})',
            fix=_FIXES.get(
                artifact.format, 'export it to onnx first, or make a package of it (stage kind = "package")'
            ),
        )
    if artifact.format == "tensorrt" and deployment.instances.kind != "gpu":
        yield Broken(field="instances.kind", rule="a TensorRT engine runs only on GPUs", fix='write kind = "gpu"')
    for file in artifact.files:
        if PurePosixPath(file.path).parts[0] in _RESERVED:
            yield Broken(
                field="artifact.files",
                rule=f"{file.path!r} would replace a file that placing writes, or would run as code",
                fix="rename it in the artifact",
            )


def _tensors(artifact: Artifact, deployment: Deployment, backend: Backend) -> Iterator[Broken]:
    batch = next((spec.shape[0] for spec in artifact.inputs if spec.shape), 0)
    for side, specs in (("inputs", artifact.inputs), ("outputs", artifact.outputs)):
        if not specs:
            yield Broken(field=f"artifact.{side}", rule=f"{artifact.short} has none", fix="export it again")
        names = [spec.name for spec in specs]
        if len(set(names)) != len(names) or "" in names:
            yield Broken(
                field=f"artifact.{side}",
                rule=f"names must be distinct and not empty, got {names}",
                fix="rename them at export",
            )
        for spec in specs:
            yield from _tensor(spec, f"artifact.{side}.{spec.name}", deployment, backend, batch)


def _tensor(
    spec: TensorSpec, field: str, deployment: Deployment, backend: Backend, batch: int | str
) -> Iterator[Broken]:
    if spec.dtype not in DATA_TYPES:
        yield Broken(field=field, rule=f"Triton has no data type for {spec.dtype}", fix="cast it in the model")
    elif backend == "python" and spec.dtype in _NATIVE_ONLY:
        yield Broken(
            field=field,
            rule=f'backend = "python" does not support {spec.dtype} tensors',
            fix='cast it in the model, or write backend = "native"',
        )
    fixed = [size for size in spec.shape if isinstance(size, int)]
    if any(not 1 <= size <= _INT64 for size in fixed):
        yield Broken(field=field, rule=f"shape {list(spec.shape)} has a size below 1", fix="export with real sizes")
    if deployment.max_batch_size == 0 and not spec.shape and backend == "native":
        yield Broken(
            field=field,
            rule="Triton has no rank-0 tensors",
            fix='write backend = "python", which presents it as [1], or add an axis of 1 at export',
        )
    if deployment.max_batch_size > 0 and (not spec.shape or spec.shape[0] != batch or isinstance(batch, int)):
        yield Broken(
            field=field,
            rule=(
                f"max_batch_size is {deployment.max_batch_size}, but the first axis of {list(spec.shape)} is "
                "not a symbolic batch axis, which every input and output needs"
            ),
            fix="export with a dynamic batch axis, or write max_batch_size = 0",
        )


def _warmup(artifact: Artifact, deployment: Deployment) -> Iterator[Broken]:
    warmup, batching = deployment.warmup, deployment.max_batch_size > 0
    inputs = {spec.name: item_shape(spec, batching=batching) for spec in artifact.inputs}
    for number, shapes in enumerate(warmup.every_bucket):
        field = "warmup.shapes" if shapes is warmup.shapes else f"warmup.buckets.{number - bool(warmup.shapes)}.shapes"
        yield from _warmup_shapes(field, shapes, inputs, needed=bool(warmup.batch_sizes))


def _warmup_shapes(
    field: str, shapes: Mapping[str, tuple[int, ...]], inputs: Mapping[str, tuple[int | str, ...]], *, needed: bool
) -> Iterator[Broken]:
    for name, shape in shapes.items():
        own = inputs.get(name)
        if own is None:
            yield Broken(
                field=f"{field}.{name}", rule="there is no such input", fix=f"inputs are {', '.join(inputs) or 'none'}"
            )
        elif len(own) != len(shape) or any(
            isinstance(mine, int) and mine != size for mine, size in zip(own, shape, strict=False)
        ):
            yield Broken(
                field=f"{field}.{name}",
                rule=f"{list(shape)} does not fit {list(own)} (without the batch axis)",
                fix="keep the fixed sizes and fill in the symbolic ones",
            )
    for name, own in inputs.items() if needed else ():
        if name not in shapes and any(isinstance(size, str) for size in own):
            yield Broken(
                field=f"{field}.{name}",
                rule=f"warm-up needs concrete sizes, but {name} has {list(own)}",
                fix="add the shape for warm-up, or leave warmup.batch_sizes empty",
            )


def _cache(artifact: Artifact, deployment: Deployment) -> Iterator[Broken]:
    """Triton's own cache where its key would not tell two requests apart."""
    if deployment.response_cache is None:
        return
    for risk in response_cache_risks(artifact, batching=deployment.max_batch_size > 0):
        yield Broken(
            field="response_cache",
            rule=f"{risk}; Triton's key contains neither shapes nor outputs",
            fix='remove it; backend = "python" can cache inside model.py under the full key ([cache])',
        )


def item_shape(spec: TensorSpec, *, batching: bool) -> tuple[int | str, ...]:
    """A tensor's shape without the batch axis, where there is one."""
    return spec.shape[1:] if batching else spec.shape
