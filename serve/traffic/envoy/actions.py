"""The actions of routes: which cluster takes a request, which one is asked next, and for how long.

Pure. A request is sent a second time only where no server has begun it, or where its answer refuses or fails it; never
where a server died or fell silent under it, because it may be what the server died of.
"""

from ..edge import Edge, Lane, Model, Variant
from .clusters import Document, Pinned, Protocol

_NOT_BEGUN = "connect-failure,refused-stream,reset-before-request"
_BUSY = {"retry_on": f"{_NOT_BEGUN},unavailable,retriable-status-codes", "retriable_status_codes": [503]}
_FAILED = [400, 404, 408, 413, 415, 422, 429, 500, 501, 502, 503, 504]
_ASK_OTHER = {
    "retry_on": f"{_NOT_BEGUN},retriable-status-codes,retriable-headers",
    "retriable_status_codes": _FAILED,
    "retriable_headers": [{"name": "grpc-status", "string_match": {"safe_regex": {"regex": "[1-9][0-9]*"}}}],
}
_SPECIFIER = "envoy.extensions.router.cluster_specifiers.priority_group.v3.PriorityGroupClusterSpecifier"


def variant_action(edge: Edge, model: Model, lane: Lane, protocol: Protocol) -> Document:
    """Lead to the lane's own variant."""
    assert lane.variant is not None
    timeout = lane.timeout_ms or model.timeout_ms
    return {"cluster": _cluster(lane.variant, protocol), "timeout": _seconds(timeout)} | _retries(
        edge.limits.retries, _BUSY
    )


def arm_action(
    edge: Edge, model: Model, lane: Lane | None, protocol: Protocol, *, own: int, other: int | None
) -> Document:
    """Lead to version `own`; on a failure to the model's fallback, or to version `other` where that is on trial."""
    timeout = (lane.timeout_ms if lane else None) or model.timeout_ms
    first = _cluster(Variant(model=model.name, version=own), protocol)
    action: Document = {"timeout": _seconds(timeout)}
    if model.fallback is not None:
        policy = dict(_BUSY)
        if 0 < model.try_ms < timeout:
            # Envoy ends a try that is over as it ends one whose server died, so both go on to the fallback. It lies on
            # the same server: one that died refuses the connection, and sees nothing of the request again.
            policy["retry_on"] = f"{_BUSY['retry_on']},reset"
            policy["per_try_timeout"] = _seconds(model.try_ms)
        return action | _groups(first, _cluster(model.fallback, protocol)) | _retries(1, policy)
    if other is not None:
        second = _cluster(Variant(model=model.name, version=other), protocol)
        return action | _groups(first, second) | _retries(1, _ASK_OTHER)
    return action | {"cluster": first} | _retries(edge.limits.retries, _BUSY)


def _groups(first: str, second: str) -> Document:
    """One cluster for the first try and another for the second."""
    groups = [
        {"name": name, "clusters": [{"cluster_name": cluster, "weight": 1}]}
        for name, cluster in (("first", first), ("second", second))
    ]
    config = {"@type": f"type.googleapis.com/{_SPECIFIER}", "priority_groups": groups}
    name = "envoy.router.cluster_specifier_plugin.priority_group"
    return {"inline_cluster_specifier_plugin": {"extension": {"name": name, "typed_config": config}}}


def _retries(count: int, policy: Document) -> Document:
    if not count:
        return {}
    backoff = {"base_interval": "0.005s", "max_interval": "0.05s"}
    return {
        "retry_policy": {"num_retries": count, "refresh_cluster_on_retry": True, "retry_back_off": backoff, **policy}
    }


def _cluster(variant: Variant, protocol: Protocol) -> str:
    return Pinned(model=variant.model, version=variant.version, protocol=protocol).name


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f}s"
