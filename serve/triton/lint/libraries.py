"""Rules of what a model has Triton load beside its backend: batching strategies, a runtime, repository agents."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ...deployment import Broken
from .backends import backend_of

_STRATEGY = "TRITON_BATCH_STRATEGY_PATH"
_BESIDE = "batchstrategy.so"
_ELF = b"\x7fELF"


def broken_rules(config: Any) -> Iterator[Broken]:
    """Every rule that a configuration breaks by itself."""
    if config.HasField("model_repository_agents"):
        agents = config.model_repository_agents.agents
        if not agents:
            yield Broken(
                field="model_repository_agents",
                rule="without an agent it ends the whole server, with every other model",
                fix="remove it, or name an agent",
                effect="ends",
            )
        for agent in agents:
            yield Broken(
                field="model_repository_agents",
                rule=(
                    f"the server needs libtritonrepoagent_{agent.name}.so, else it refuses the model; the wheel "
                    "has none"
                ),
                fix="start the server with --repoagent-directory, or remove the agent",
                severity="warning",
            )
    if config.HasField("sequence_batching") and _STRATEGY in config.parameters:
        yield Broken(
            field=f"parameters.{_STRATEGY}",
            rule="Triton refuses it for sequences, which have their own batcher",
            fix="remove it",
        )


def broken_files(model: Path, config: Any, served: Collection[int]) -> Iterator[Broken]:
    """Every rule that libraries on disk break; `served` are the versions to load."""
    if config.HasField("ensemble_scheduling"):
        return
    yield from _runtime(model, config, served)
    if config.HasField("sequence_batching"):
        return
    if _STRATEGY in config.parameters:
        path = config.parameters[_STRATEGY].string_value
        if not _is_library(Path(path)):
            yield Broken(
                field=f"parameters.{_STRATEGY}",
                rule=f"{path!r} is not a library on this machine; Triton refuses the model",
                fix="give the absolute path of the library",
            )
        return
    for place in (*(str(version) for version in sorted(served)), ""):
        path = model / place / _BESIDE
        if path.exists() and not _is_library(path):
            yield Broken(
                field="dynamic_batching",
                rule=(
                    f"Triton loads {path.relative_to(model)} as the batching strategy, but it is not a library; "
                    "Triton refuses the model"
                ),
                fix="put the library there, or remove it",
            )


def _runtime(model: Path, config: Any, served: Collection[int]) -> Iterator[Broken]:
    runtime, backend = config.runtime, backend_of(config)
    beside = [model / place / runtime for place in ("", *(str(version) for version in served))]
    if not runtime or any(path.is_file() for path in beside):
        return
    if runtime not in (f"libtriton_{backend}.so", "model.py"):
        yield Broken(
            field="runtime",
            rule=(
                f"{runtime!r} is neither libtriton_{backend}.so nor model.py, nor a library beside the model; "
                "Triton refuses the model"
            ),
            fix="omit it: Triton finds the backend's own",
        )
    else:
        yield Broken(
            field="runtime",
            rule=(
                "unnecessary, and refused by a server whose backend directory contains links, as that of "
                "seatrial up does"
            ),
            fix="omit it: Triton finds the backend's own",
            severity="warning",
        )


def _is_library(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(4) == _ELF
    except (OSError, ValueError):
        return False
