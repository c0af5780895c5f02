"""Judges what became of an attack: which of the things that must never happen did. Pure."""

from collections.abc import Mapping
from typing import Literal

from scripts.benchmarks.hostile import Hostile, Target
from scripts.benchmarks.hostile_wire import Outcome, Response

Kind = Literal["refused", "served", "failed", "closed", "silent", "unreachable"]
_GRPC_FAILURES = frozenset({2, 4, 13, 14, 15})


def kind(outcome: Outcome) -> Kind:
    """Return the worst thing that came back, in one word; `failed` is a 5xx or its counterparts over gRPC."""
    if any(each.served for each in outcome.responses):
        return "served"
    if any(failed(each) for each in outcome.responses):
        return "failed"
    if outcome.responses:
        return "refused"
    return outcome.ended if outcome.ended in ("silent", "unreachable") else "closed"


def failed(response: Response) -> bool:
    """Return whether the response blames the service."""
    return response.status >= 500 or response.grpc in _GRPC_FAILURES


def breaches(attack: Hostile, outcome: Outcome, target: Target, routed: frozenset[str]) -> list[str]:
    """Return what got through; `routed` are the versions that the routes name."""
    found = []
    for each in outcome.responses:
        if each.served and attack.most == "refused":
            found.append(f"served with {each.status} though it had to be refused ({each.size} bytes)")
        if each.said_model not in ("", target.model):
            found.append(f"model {each.said_model} answered")
        if each.said_model == target.model and each.said:
            if each.said != each.label:
                found.append(f"version {each.said} answered, the header says {each.label or 'nothing'}")
            if each.said not in routed:
                found.append(f"version {each.said} answered, routed are {', '.join(sorted(routed))}")
        if not each.served and each.label and each.status in (401, 413, 429, 431):
            found.append(f"a refusal with {each.status} names version {each.label}")
    if attack.ends and outcome.ended == "silent":
        found.append(f"no response and no close within {outcome.seconds:.0f} s")
    return found


def unlogged(outcome: Outcome, logged: Mapping[str, str]) -> list[str]:
    """Return which served inferences the access log does not name, or names with another version."""
    found = []
    for each in outcome.responses:
        if each.said and each.id and logged.get(each.id) != each.said:
            found.append(f"version {each.said} answered {each.id}, the log says {logged.get(each.id, 'nothing')}")
        if each.said and not each.id:
            found.append(f"version {each.said} answered without a request id")
    return found
