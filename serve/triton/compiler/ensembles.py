"""config.pbtxt of an ensemble, checked against the configurations of the models that are its steps.

Renders and checks; the steps are read from a repository, or handed in as messages. The rules are the linter's own.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ...deployment import Broken
from ...deployment.ensemble import Ensemble
from .. import lint
from ..lint.ensembles import broken_references
from ..lint.versions import versions
from .config import parse, read_text, written
from .rules import DATA_TYPES


def render_ensemble(
    ensemble: Ensemble, models: Mapping[str, Any], on_disk: Mapping[str, Collection[int]], *, version: int
) -> str:
    """The text of config.pbtxt for the ensemble; `models` are the steps' ModelConfigs, `on_disk` their versions.

    Raises:
        ConfigRuleError: a step is not there, or its tensors do not fit; names field, rule and fix.
    """
    config = _model_config(ensemble, version)
    broken = [
        *lint.broken_config(config, ensemble.triton, ensemble.name),
        *broken_references(ensemble.name, config, {**models, ensemble.name: config}, on_disk),
    ]
    for each in broken:
        if each.severity == "error":
            raise each.error()
    return f"# {ensemble.name}: written by seatrial; edits do not last.\n" + written(config)


def members(ensemble: Ensemble, repository: Path) -> tuple[dict[str, Any], dict[str, set[int]]]:
    """Configurations of the ensemble's models, and of theirs where these are ensembles, with their versions on disk.

    Raises:
        ConfigRuleError: one of them is no configuration.
    """
    models: dict[str, Any] = {}
    wanted = [step.model for step in ensemble.steps]
    while wanted:
        name = wanted.pop()
        path = repository / name / "config.pbtxt"
        if name not in models and path.is_file():
            models[name] = parse(read_text(path))
            wanted += [step.model_name for step in models[name].ensemble_scheduling.step]
    return models, {name: versions(repository / name) for name in models}


def _model_config(ensemble: Ensemble, version: int) -> Any:
    from tritonclient.grpc import model_config_pb2 as pb

    config = pb.ModelConfig(name=ensemble.name, platform="ensemble", max_batch_size=ensemble.max_batch_size)
    for side, ports in (("inputs", ensemble.inputs), ("outputs", ensemble.outputs)):
        tensors = config.input if side == "inputs" else config.output
        for port in ports:
            if port.dtype not in DATA_TYPES:
                raise Broken(
                    field=f"{side}.{port.name}",
                    rule=f"Triton has no data type for {port.dtype}",
                    fix=f"use one of {', '.join(DATA_TYPES)}",
                ).error()
            tensors.add(name=port.name, data_type=DATA_TYPES[port.dtype], dims=port.shape)
    config.version_policy.specific.versions[:] = [version]
    for step in ensemble.steps:
        config.ensemble_scheduling.step.add(
            model_name=step.model, model_version=step.version, input_map=step.inputs, output_map=step.outputs
        )
    if ensemble.max_in_flight is not None:
        config.ensemble_scheduling.max_inflight_requests = ensemble.max_in_flight
    return config
