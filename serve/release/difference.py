"""Differences between two artifacts or releases: files, tensors, stages, data, seed, packages, machine, and figures.

Pure. Every value is compared under its own name, so that the list says all that differs and nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seatrial.optimize.artifact import Artifact

from .record import Release

_MISSING = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One value that differs: its part (a stage, the verdict), its name, and both values as text."""

    part: str
    name: str
    first: str
    second: str


def between(
    first: Sequence[Artifact],
    second: Sequence[Artifact],
    releases: tuple[Release, Release] | None = None,
) -> tuple[Difference, ...]:
    """Return what differs between two artifacts, each given as its chain from itself to its source."""
    found = [*_differences("artifact", _of_artifact(first[0]), _of_artifact(second[0]))]
    stages = [_stages(chain) for chain in (first, second)]
    for name in dict.fromkeys((*stages[0], *stages[1])):
        found += _differences(f"stage {name}", stages[0].get(name, {}), stages[1].get(name, {}))
    if releases is not None:
        found += _differences("verdict", *(_of_verdict(each.verdict) for each in releases))
    return tuple(found)


def _differences(part: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys((*first, *second)):
        one, two = first.get(name, _MISSING), second.get(name, _MISSING)
        if one != two:
            yield Difference(part=part, name=name, first=_text(one), second=_text(two))


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _of_artifact(artifact: Artifact) -> dict[str, Any]:
    tensors = {
        f"{side} {each.name}": f"{each.dtype} {list(each.shape)}"
        for side, specs in (("input", artifact.inputs), ("output", artifact.outputs))
        for each in specs
    }
    files = {f"file {each.path}": f"{each.size} bytes, {each.digest[:19]}" for each in artifact.files}
    requires = _flat("requires", artifact.requires)
    return {"name": artifact.name, "format": artifact.format, **tensors, **files, **requires}


def _stages(chain: Sequence[Artifact]) -> dict[str, dict[str, Any]]:
    """Return each stage's values, from the source on; a stage that occurs twice is numbered."""
    found: dict[str, dict[str, Any]] = {}
    for artifact in reversed(chain):
        made = artifact.made_by
        name, number = made.stage, 2
        while name in found:
            name, number = f"{made.stage} {number}", number + 1
        found[name] = {
            "recipe": made.recipe[:19],
            "samples": (made.samples or _MISSING)[:19],
            "seed": made.seed,
            **_flat("", made.config),
            **_flat("environment", made.environment),
        }
    return found


def _flat(prefix: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping's leaves under dotted names."""
    found: dict[str, Any] = {}
    for key, each in value.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(each, Mapping):
            found |= _flat(name, each)
        else:
            found[name] = each
    return found


def _of_verdict(verdict: Mapping[str, Any]) -> dict[str, Any]:
    found = {"budget": str(verdict.get("budget", ""))[:19], "pairs": verdict.get("pairs")}
    samples = verdict.get("samples")
    if isinstance(samples, Mapping):
        found["samples"] = samples.get("count")
    for each in verdict.get("findings", ()):
        if isinstance(each, Mapping):
            name = " ".join(str(each[key]) for key in ("metric", "rule", "about") if each.get(key))
            value = each.get("candidate")
            found[name] = each.get("outcome") if value is None else f"{_text(value)} {each.get('unit', '')}".strip()
    return found
