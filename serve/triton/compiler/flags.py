"""The flags that a server must be started with so that its models' configurations mean what they say.

Triton ignores a rate limiter and a response cache in silence unless it is started for them. Reads configurations; only
says which flags, starting servers is another room's business.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...deployment import Broken
from ...errors import ConfigRuleError
from .config import CACHE_BYTES, POOL, parse, read_text

_CACHE_DEFAULT = 64 << 20


def flags_for(repository: Path, models: Sequence[str] = ()) -> tuple[str, ...]:
    """Flags for a server of that repository that is to load these models, or any of them where none is named.

    A configuration that cannot be read asks for nothing: loading the model says what is wrong with it.

    Raises:
        ConfigRuleError: two of the models mean different things by one resource.
    """
    names = set(models) or {path.parent.name for path in repository.glob("*/config.pbtxt")}
    return server_flags(_configs(repository, names))


def server_flags(configs: Iterable[Any]) -> tuple[str, ...]:
    """Flags for one server that is to serve all of these ModelConfigs; none where no configuration needs any.

    The rate limiter is off unless asked for, and a response cache of no size is no cache: its size is for the whole
    server, so the largest that a model asks for counts.

    Raises:
        ConfigRuleError: two configurations mean different things by one resource.
    """
    chosen = tuple(configs)
    limiters = [
        group.rate_limiter for each in chosen for group in each.instance_group if group.HasField("rate_limiter")
    ]
    flags = ["--rate-limit=execution_count"] if limiters else []
    for name in sorted({each.name for limiter in limiters for each in limiter.resources}):
        meant = [each for limiter in limiters for each in limiter.resources if each.name == name]
        flags += _pool(name, meant, [size for each in chosen for size in _sizes(each, POOL + name)])
    caches = [max([0, *_sizes(each, CACHE_BYTES)]) or _CACHE_DEFAULT for each in chosen if each.response_cache.enable]
    return (*flags, f"--cache-config=local,size={max(caches)}") if caches else tuple(flags)


def _pool(name: str, meant: Sequence[Any], pools: Sequence[int]) -> list[str]:
    """Return the flag for the amount of one resource; none if no model gives it."""
    if len({getattr(each, "global") for each in meant}) > 1:
        raise Broken(
            field="instances.resources",
            rule=f"{name} is per device in one model and global in another; Triton refuses that",
            fix="use the same scope in both",
        ).error()
    if pools and max(pools) < max(each.count for each in meant):
        raise Broken(
            field="instances.resources.available",
            rule=f"one model needs more of {name} than another model makes available",
            fix="raise the available amount",
        ).error()
    return [f"--rate-limit-resource={name}:{max(pools)}"] if pools else []


def _sizes(config: Any, parameter: str) -> list[int]:
    """The parameter's whole number, if the configuration has one."""
    value = config.parameters[parameter].string_value if parameter in config.parameters else ""
    return [int(value)] if value.isdecimal() else []


def _configs(repository: Path, names: Iterable[str]) -> Iterator[Any]:
    """Configurations of the models, and of those that an ensemble among them takes along."""
    waiting, seen = set(names), set[str]()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        try:
            config = parse(read_text(repository / name / "config.pbtxt"))
        except ConfigRuleError:
            continue
        waiting |= {step.model_name for step in config.ensemble_scheduling.step} - seen
        yield config
