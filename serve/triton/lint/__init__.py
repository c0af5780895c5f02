"""Lint: every rule that a Triton model repository of any origin breaks, found without a server.

Reads files and reports; fixes nothing. The same rules over a parsed configuration are the compiler's last check before
it writes one, so what seatrial places and what it finds fault with cannot drift apart.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seatrial.optimize.errors import MissingError

from ...deployment import Broken
from . import accelerators, ensembles, execution, files, libraries, releases, scheduling, tensors, warming
from .reading import read_config
from .versions import versions

_CONFIG = "config.pbtxt"
_COSTLY = ("ends", "hangs")


def lint(repository: Path, *, release: str) -> tuple[Broken, ...]:
    """Every broken rule of every model in the repository, as `release` of Triton would read it; errors first.

    Raises:
        MissingError: no such directory.
    """
    if not repository.is_dir():
        raise MissingError(
            "there is no such model repository", where=str(repository), next_step="give a directory of models"
        )
    findings: list[Broken] = []
    configs: dict[str, Any] = {}
    for model in files.model_directories(repository):
        config, found = _of_model(model, release)
        findings += found
        if config is not None:
            configs[model.name] = config
    for name, config in configs.items():
        on_disk = {other: versions(repository / other) for other in configs}
        broken = ensembles.broken_references(name, config, configs, on_disk)
        findings += (each.at(f"{name}/{_CONFIG}") for each in broken)
    findings += _shared_resources(configs)
    findings += files.strangers(repository)
    return tuple(sorted(set(findings), key=lambda each: (each.severity, each.file, each.field, each.rule)))


def costing_the_server(model: Path, *, release: str) -> tuple[Broken, ...]:
    """The errors of one model that would cost a server more than this model: it would end, or wait for minutes."""
    return tuple(each for each in _of_model(model, release)[1] if each.severity == "error" and each.effect in _COSTLY)


def _of_model(model: Path, release: str) -> tuple[Any, list[Broken]]:
    """One model's configuration, None where it cannot be read, and what is wrong with it and its files."""
    file = f"{model.name}/{_CONFIG}"
    config, findings = read_config(model / _CONFIG, file)
    if config is not None:
        findings += (broken.at(file) for broken in broken_config(config, release, model.name))
    return config, [*findings, *files.findings(model.parent, model, config)]


def _shared_resources(configs: Mapping[str, Any]) -> Iterator[Broken]:
    """Resources of the rate limiter that two models mean differently, each by itself as it should be."""
    meant: dict[str, dict[bool, str]] = {}
    for name, config in configs.items():
        for group in config.instance_group:
            for each in group.rate_limiter.resources:
                meant.setdefault(each.name, {}).setdefault(getattr(each, "global"), name)
    for resource, models in meant.items():
        if len(set(models.values())) > 1:
            yield Broken(
                severity="error",
                file=f"{models[False]}/{_CONFIG}",
                field="instance_group.rate_limiter.resources",
                rule=(
                    f"{resource} is per device here and global in {models[True]}: Triton refuses whichever loads second"
                ),
                fix="use the same scope in both, or give the resources different names",
            )


def broken_config(config: Any, release: str, directory: str = "") -> Iterator[Broken]:
    """Every rule that one configuration breaks by itself; `directory` is the model's, where it is known."""
    if directory and config.name not in ("", directory):
        yield Broken(
            field="name",
            rule=f"the name {config.name!r} differs from the directory {directory!r}; Triton refuses the model",
            fix="use the same name in both, or omit name",
        )
    yield from releases.broken_rules(config, release)
    yield from tensors.broken_rules(config)
    yield from scheduling.broken_rules(config)
    yield from execution.broken_rules(config)
    yield from libraries.broken_rules(config)
    yield from accelerators.broken_rules(config, release)
    yield from warming.broken_rules(config)
    yield from ensembles.broken_rules(config)
