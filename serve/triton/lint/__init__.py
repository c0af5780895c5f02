"""Lint: every rule that a Triton model repository breaks, whoever wrote it, found without a server.

Reads files and reports; mends nothing. The same rules over a parsed configuration are the compiler's last check before
it writes one, so what seatrial places and what it finds fault with cannot drift apart.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optimize.errors import MissingError

from ...deployment import Broken
from . import accelerators, ensembles, execution, files, releases, scheduling, tensors, warming
from .finding import Finding as Finding
from .finding import read_config

_CONFIG = "config.pbtxt"


def lint(repository: Path, *, release: str) -> tuple[Finding, ...]:
    """Every broken rule of every model in the repository, as `release` of Triton would read it; errors first.

    Raises:
        MissingError: no such directory.
    """
    if not repository.is_dir():
        raise MissingError("no such model repository", where=str(repository), next_step="give a directory of models")
    findings: list[Finding] = []
    configs: dict[str, Any] = {}
    for model in files.model_directories(repository):
        file = f"{model.name}/{_CONFIG}"
        config, unreadable = read_config(model / _CONFIG, file)
        findings += unreadable
        if config is not None:
            configs[model.name] = config
            findings += (Finding.of(broken, file) for broken in broken_config(config, release, model.name))
        findings += files.findings(repository, model, config)
    for name, config in configs.items():
        on_disk = {other: files.versions(repository / other) for other in configs}
        broken = ensembles.broken_references(name, config, configs, on_disk)
        findings += (Finding.of(each, f"{name}/{_CONFIG}") for each in broken)
    findings += files.strangers(repository)
    return tuple(sorted(set(findings), key=lambda each: (each.severity, each.file, each.field, each.rule)))


def broken_config(config: Any, release: str, directory: str = "") -> Iterator[Broken]:
    """Every rule that one configuration breaks by itself; `directory` is the model's, where it is known."""
    if directory and config.name not in ("", directory):
        yield Broken(
            field="name",
            rule=f"{config.name!r} stands in the directory {directory!r}; Triton refuses the model",
            mend="let both say the same, or leave name out",
        )
    yield from releases.broken_rules(config, release)
    yield from tensors.broken_rules(config)
    yield from scheduling.broken_rules(config)
    yield from execution.broken_rules(config)
    yield from accelerators.broken_rules(config)
    yield from warming.broken_rules(config)
    yield from ensembles.broken_rules(config)
