"""The source: the user's trained model as the first artifact of the chain, tried on real samples before it is kept."""

import json
from pathlib import Path
from typing import Any

from ..artifact import Artifact, File, Provenance, TensorSpec, canonical, digest_file
from ..environment import Environment, now
from ..errors import ConfigError, SourceError
from ..import_closure import own_tree
from ..intake.axes import Tensors, measured
from ..intake.on_rows import refuse_dependence
from ..recipe.data import Data
from ..recipe.recipe import Recipe
from ..record import as_json
from ..samples import Samples
from ..sessions.session import Session


def source_ingredients(recipe: Recipe, golden: str) -> dict[str, Any]:
    """Return the ingredients of the source: its code, weights, arguments and the samples that it was tried on."""
    source = recipe.source
    files = [digest_file(path) for path in _files(recipe)]
    code = recipe.reference(source.factory).digest if source.factory is not None else ""
    code += own_tree().digest("building.source")
    return {"source": as_json(source), "name": recipe.name, "files": files, "code": code, "golden": golden}


def check_source(recipe: Recipe) -> None:
    """Refuse, before any work, an ONNX file that cannot be taken in, or that a stage of the recipe cannot work on.

    Raises:
        SourceError, MissingError, ConfigError: with what is in the file, and what to do.
    """
    if recipe.source.onnx is None:
        return
    from ..intake import on_onnx as intake

    path = recipe.base / recipe.source.onnx
    model = intake.read(path)
    intake.external(model, path)
    reason = intake.as_it_is(model, path)
    intake.prepared(model, path, recipe.source.outputs)
    for number, stage in enumerate(recipe.stages):
        if stage.needs_float and reason:
            raise ConfigError(
                f"this file cannot be quantized: {reason}",
                where=f"{recipe.path}: stages.{number}, {path}",
                next_step="write stages = [] to serve it as it is, or give the float model",
            )


def _files(recipe: Recipe) -> list[Path]:
    """The weights or the ONNX file, and what lies beside it."""
    named = [recipe.base / name for name in (recipe.source.weights, recipe.source.onnx) if name is not None]
    if recipe.source.onnx is None:
        return named
    from ..intake import on_onnx as intake

    return named + [named[0].parent / name for name in intake.external(intake.read(named[0]), named[0])]


def make_source(recipe: Recipe, data: Data, folder: Path, environment: Environment) -> Artifact:
    """Write the source's files into `folder` and describe them.

    Raises:
        SourceError: the factory raised, the weights do not fit, or the model refuses its own samples.
    """
    golden = data.samples("golden")
    notes: dict[str, Any] = {}
    if recipe.source.onnx is not None:
        from ..intake import on_onnx as intake

        path = recipe.base / recipe.source.onnx
        taken = intake.take_in(path, folder, golden.inputs, recipe.source.outputs, environment.cores)
        names, tensors = list(taken.files), taken.tensors
        notes = {"changes": list(taken.changes)} if taken.changes else {}
    else:
        names, tensors = _from_torch(recipe, golden, _input_specs(golden, recipe), folder, environment)
    return Artifact(
        name=recipe.name,
        format=recipe.source.format,
        files=tuple(File.of(folder / name, name) for name in names),
        inputs=tensors.inputs,
        outputs=tensors.outputs,
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
            notes=notes | {"data": data.manifest().to_json()},
        ),
    )


def _from_torch(
    recipe: Recipe, golden: Samples, inputs: tuple[TensorSpec, ...], folder: Path, environment: Environment
) -> tuple[list[str], Tensors]:
    import torch

    from ..intake.on_state import refuse_state
    from ..sessions.on_torch import Architecture, TorchSession, build_module, load_weights, save_module

    torch.manual_seed(recipe.seed)
    torch.set_num_threads(environment.cores)  # a factory may train, and sums depend on how they are split
    factory = recipe.reference(recipe.source.factory or "")
    module = build_module(factory, recipe.source.arguments)
    if recipe.source.weights is not None:
        load_weights(module, recipe.base / recipe.source.weights)
    wanted = tuple(TensorSpec(name=name, dtype="", shape=()) for name in recipe.source.outputs)
    session = TorchSession(module, inputs, wanted, threads=environment.cores)
    tensors = _measured(session, golden, recipe, inputs)
    refuse_state(module, session, golden.take(2).inputs, f"{recipe.source.factory}")
    refuse_dependence(session, golden.inputs, f"{recipe.source.factory}")
    text = f"source.py:{factory.name}" if factory.file else factory.text
    architecture = Architecture(factory=text, arguments=json.loads(canonical(dict(recipe.source.arguments))))
    return save_module(module, architecture, factory.file, folder), tensors


def _input_specs(golden: Samples, recipe: Recipe) -> tuple[TensorSpec, ...]:
    """Names, dtypes and shapes as the loader's arrays have them; the batch and named axes symbolic."""
    specs = []
    for name, array in golden.inputs.items():
        named = {int(axis): text for axis, text in recipe.source.dynamic.get(name, {}).items()}
        shape = ("batch", *(named.get(axis, size) for axis, size in enumerate(array.shape[1:], start=1)))
        specs.append(TensorSpec(name=name, dtype=str(array.dtype), shape=shape))
    return tuple(specs)


def _measured(session: Session, golden: Samples, recipe: Recipe, inputs: tuple[TensorSpec, ...]) -> Tensors:
    """Run samples through the module at several sizes of every axis that the recipe calls free."""
    try:
        found = measured(inputs, session.run, golden.inputs, str(recipe.source.factory))
    except SourceError as error:
        if error.next_step.startswith("let the loader"):
            error.next_step = "make the loader's inputs and source.outputs match the model's forward"
        raise
    if found.fixed:
        raise ConfigError(
            f"source.dynamic declares axes free whose size the module fixes: {', '.join(found.fixed)}",
            where=f"{recipe.path}: source.dynamic",
            next_step="remove it there, or let the module's forward accept other sizes",
        )
    return found
