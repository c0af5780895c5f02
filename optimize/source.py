"""The source: the user's trained model as the first artifact of the chain, tried on real samples before it is kept."""

import json
import shutil
from pathlib import Path
from typing import Any

from .artifact import Artifact, File, Provenance, TensorSpec, canonical, digest_file
from .data import Data
from .environment import Environment, now
from .errors import SeatrialError, SourceError
from .recipe import Recipe, as_json
from .samples import Samples
from .sessions.session import Session


def source_ingredients(recipe: Recipe, golden: str) -> dict[str, Any]:
    """What the source depends on: its code, weights, arguments and the samples that it was tried on."""
    source = recipe.source
    files = [digest_file(recipe.base / name) for name in (source.weights, source.onnx) if name is not None]
    code = recipe.reference(source.factory).digest if source.factory is not None else ""
    code += digest_file(Path(__file__))
    return {"source": as_json(source), "name": recipe.name, "files": files, "code": code, "golden": golden}


def make_source(recipe: Recipe, data: Data, folder: Path, environment: Environment) -> Artifact:
    """Write the source's files into `folder` and describe them.

    Raises:
        SourceError: the factory raised, the weights do not fit, or the model refuses its own samples.
    """
    golden = data.samples("golden")
    inputs = _input_specs(golden, recipe)
    if recipe.source.onnx is not None:
        names, inputs, outputs = _from_onnx(recipe, golden, folder)
    else:
        names, outputs = _from_torch(recipe, golden, inputs, folder, environment)
    return Artifact(
        name=recipe.name,
        format=recipe.source.format,
        files=tuple(File.of(folder / name, name) for name in names),
        inputs=inputs,
        outputs=outputs,
        requires={},
        made_by=Provenance(
            stage="source",
            parent=None,
            config=as_json(recipe.source),
            recipe=recipe.digest,
            samples=golden.digest,
            seed=recipe.seed,
            environment=environment.to_json(),
            at=now(),
        ),
    )


def _from_torch(
    recipe: Recipe, golden: Samples, inputs: tuple[TensorSpec, ...], folder: Path, environment: Environment
) -> tuple[list[str], tuple[TensorSpec, ...]]:
    import torch

    from .sessions.on_torch import Architecture, TorchSession, build_module, load_weights, save_module

    torch.manual_seed(recipe.seed)
    torch.set_num_threads(environment.cores)  # a factory may train, and sums depend on how they are split
    factory = recipe.reference(recipe.source.factory or "")
    module = build_module(factory, recipe.source.arguments)
    if recipe.source.weights is not None:
        load_weights(module, recipe.base / recipe.source.weights)
    wanted = tuple(TensorSpec(name=name, dtype="", shape=()) for name in recipe.source.outputs)
    outputs = _output_specs(TorchSession(module, inputs, wanted), golden, recipe, inputs)
    text = f"source.py:{factory.name}" if factory.file else factory.text
    architecture = Architecture(factory=text, arguments=json.loads(canonical(dict(recipe.source.arguments))))
    return save_module(module, architecture, factory.file, folder), outputs


def _from_onnx(
    recipe: Recipe, golden: Samples, folder: Path
) -> tuple[list[str], tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    from .sessions.on_ort import OrtSession

    target = folder / "model.onnx"
    shutil.copyfile(recipe.base / (recipe.source.onnx or ""), target)
    try:
        session = OrtSession(target)
        session.run(golden.take(2).inputs)
    except SeatrialError as error:
        raise SourceError(
            error.what, where=f"{recipe.source.onnx}", next_step="check the model and the loader's arrays"
        ) from error
    return ["model.onnx"], session.inputs, session.outputs


def _input_specs(golden: Samples, recipe: Recipe) -> tuple[TensorSpec, ...]:
    """Names, dtypes and shapes as the loader's arrays have them; the batch and named axes symbolic."""
    specs = []
    for name, array in golden.inputs.items():
        named = {int(axis): text for axis, text in recipe.source.dynamic.get(name, {}).items()}
        shape = ("batch", *(named.get(axis, size) for axis, size in enumerate(array.shape[1:], start=1)))
        specs.append(TensorSpec(name=name, dtype=str(array.dtype), shape=shape))
    return tuple(specs)


def _output_specs(
    session: Session, golden: Samples, recipe: Recipe, inputs: tuple[TensorSpec, ...]
) -> tuple[TensorSpec, ...]:
    """Run two samples through the model: the outputs' dtypes, and shapes in which a dynamic axis keeps its name."""
    some = golden.take(min(2, len(golden)))
    try:
        results = session.run(some.inputs)
    except SeatrialError as error:
        raise SourceError(
            f"the model refuses the loader's samples: {error.what}",
            where=f"{recipe.source.factory}, {error.where}",
            next_step="let the loader's inputs and source.outputs fit the model's forward",
        ) from error
    sizes = {
        some.inputs[spec.name].shape[axis]: dim
        for spec in inputs
        for axis, dim in enumerate(spec.shape)
        if axis and isinstance(dim, str)
    }
    specs = []
    for name, array in results.items():
        if array.ndim == 0 or array.shape[0] != len(some):
            raise SourceError(
                f"output {name!r} has shape {array.shape} for {len(some)} samples",
                where=f"{recipe.source.factory}",
                next_step="return one row per sample",
            )
        shape = ("batch", *(sizes.get(size, size) for size in array.shape[1:]))
        specs.append(TensorSpec(name=name, dtype=str(array.dtype), shape=shape))
    return tuple(specs)
