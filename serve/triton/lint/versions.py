"""The versions that Triton sees in a model's directory, and those of them that a policy loads.

Triton takes for a version whatever begins with a number, as C does: "2_old" is version 2, and it then looks for the
model in the directory "2".
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)")
_SKIPPED = ("warmup", "initial_state", "configs")
_INT64 = 2**63


def directories(model: Path) -> Iterator[tuple[str, int]]:
    """Names of directories that Triton takes for versions, and the numbers that it reads in them."""
    for path in sorted(model.iterdir()) if model.is_dir() else ():
        found = _NUMBER.match(path.name)
        ignored = path.name in _SKIPPED or (len(path.name) > 1 and path.name.startswith("0"))
        if found and not ignored and path.is_dir():
            yield path.name, int(found[1])


def is_readable(version: int) -> bool:
    """Return whether a number fits Triton's integers; it ends over one that does not."""
    return -_INT64 <= version < _INT64


def versions(model: Path) -> set[int]:
    """Version numbers that Triton sees."""
    return {version for _, version in directories(model) if is_readable(version)}


def loaded(config: Any, there: Collection[int]) -> set[int]:
    """Those of the versions that the policy of a configuration loads; the newest one where there is none."""
    policy = config.version_policy
    if policy.HasField("specific"):
        return set(there) & set(policy.specific.versions)
    if policy.HasField("all"):
        return set(there)
    count = policy.latest.num_versions if policy.HasField("latest") else 1
    return set(sorted(there, reverse=True)[:count])
