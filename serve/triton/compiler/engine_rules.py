"""The rules between an artifact and the engine that is to execute it: formats, files, profiles against tensors.

Pure. The rules that an engine breaks by itself stand in `serve.deployment.engines`.
"""

from collections.abc import Iterator

from seatrial.optimize.artifact import Artifact, TensorSpec
from seatrial.optimize.recipe.configs import Profile

from ...deployment import Broken, Deployment, OnnxCuda, OnnxTensorrt, OpenVino, TensorrtPlan

_FORMATS = {"onnx-cpu": "onnx", "onnx-cuda": "onnx", "onnx-tensorrt": "onnx", "tensorrt": "tensorrt"}
_FORMATS |= {"openvino": "onnx", "torch": "torch-export"}


def broken_rules(artifact: Artifact, deployment: Deployment) -> Iterator[Broken]:
    """Every rule that this artifact breaks under the deployment's engine."""
    engine = deployment.engine
    if artifact.format == "tensorrt":
        yield from _as_built(artifact, deployment)
    if engine is None:
        return
    if _FORMATS[engine.kind] != artifact.format:
        yield Broken(
            field="engine.kind",
            rule=f"{engine.kind} runs {_FORMATS[engine.kind]}, but {artifact.short} is {artifact.format}",
            fix="use the engine of the artifact's format",
        )
    texts = [spec.name for spec in (*artifact.inputs, *artifact.outputs) if spec.dtype == "object"]
    if isinstance(engine, OpenVino) and texts:
        yield Broken(
            field="engine.kind",
            rule=f"openvino does not run tensors of strings here, but {texts[0]} is one",
            fix='use kind = "onnx-cpu"',
        )
    free = [spec.name for spec in artifact.inputs if any(isinstance(size, str) for size in spec.shape[1:])]
    if isinstance(engine, OnnxCuda) and engine.cuda_graph and free:
        yield Broken(
            field="engine.cuda_graph",
            rule=f"a captured graph has fixed shapes, but {free[0]} has free axes beside the batch",
            fix="remove it, or export with fixed sizes",
        )
    if isinstance(engine, OnnxTensorrt):
        yield from _profile("engine.profile", engine.profile, artifact.inputs)
        yield from _batches("engine.profile", (engine.profile,), deployment.max_batch_size)
    if isinstance(engine, TensorrtPlan):
        for number, profile in enumerate(engine.profiles):
            yield from _profile(f"engine.profiles.{number}", profile, artifact.inputs)
        if engine.profiles:
            yield from _batches("engine.profiles", engine.profiles, deployment.max_batch_size)
        held = {file.path for file in artifact.files}
        for file in sorted(set(engine.by_gpu.values()) - held):
            yield Broken(
                field="engine.by_gpu",
                rule=f"{artifact.short} has no file {file!r}",
                fix=f"available files: {', '.join(sorted(held))}",
            )


def _as_built(artifact: Artifact, deployment: Deployment) -> Iterator[Broken]:
    """Check the ranges recorded by the compile stage against those that the deployment lists."""
    config = artifact.made_by.config
    built, engine = len(config.get("profiles") or ()), deployment.engine
    listed = len(engine.profiles) if isinstance(engine, TensorrtPlan) else 0
    if built > 1 and listed != built:
        yield Broken(
            field="engine.profiles",
            rule=(
                f"{artifact.short} was built with {built} profiles, but {listed} are listed: Triton uses only "
                "listed profiles, or the first if none is listed"
            ),
            fix="list all of them, in the order of the recipe's compile stage",
        )
    largest = max(config.get("batch") or (deployment.max_batch_size,))
    if deployment.max_batch_size > largest:
        yield Broken(
            field="max_batch_size",
            rule=f"{deployment.max_batch_size} is above {largest}, the largest batch of {artifact.short}",
            fix="lower it, or compile again with a wider range",
        )


def _profile(field: str, profile: Profile, inputs: tuple[TensorSpec, ...]) -> Iterator[Broken]:
    names = {spec.name for spec in inputs}
    if set(profile) != names:
        yield Broken(
            field=field,
            rule=f"the profile has shapes for {sorted(profile)}, but the inputs are {sorted(names)}",
            fix="give three shapes for every input",
        )
    for spec in inputs:
        shapes = profile.get(spec.name)
        if shapes is None:
            continue
        if len(shapes.min) != len(spec.shape):
            yield Broken(
                field=f"{field}.{spec.name}",
                rule=f"{len(shapes.min)} sizes for {list(spec.shape)}: a profile's shapes include the batch axis",
                fix="give complete shapes, such as [1, 3, 224, 224]",
            )
            continue
        for own, low, high in zip(spec.shape, shapes.min, shapes.max, strict=True):
            if isinstance(own, int) and (low, high) != (own, own):
                yield Broken(
                    field=f"{field}.{spec.name}",
                    rule=f"an axis of fixed size {own} cannot range from {low} to {high}",
                    fix=f"write {own} in all three shapes",
                )


def _batches(field: str, profiles: tuple[Profile, ...], max_batch_size: int) -> Iterator[Broken]:
    """Every batch from 1 to the largest must lie in one profile, since the batcher may form any of them."""
    if max_batch_size == 0:
        return
    ranges = []
    for profile in profiles:
        shapes = [each for each in profile.values() if each.min and each.max]
        ranges.append(
            (max((each.min[0] for each in shapes), default=1), min((each.max[0] for each in shapes), default=0))
        )
    reached = 0
    for low, high in sorted(ranges):
        if low <= reached + 1:
            reached = max(reached, high)
    if reached < max_batch_size:
        yield Broken(
            field=field,
            rule=f"no profile accepts a batch of {reached + 1}, but max_batch_size is {max_batch_size}",
            fix="widen a profile's first axis and build again, or lower max_batch_size",
        )
