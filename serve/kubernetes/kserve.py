"""The same two versions as a KServe InferenceService with a canary, for clusters that run KServe 0.20 or newer.

Pure. In Standard mode ``spec.canary[]`` splits traffic; the older ``canaryTrafficPercent`` is silently ignored there
and never written. KServe copies the model by itself, so that each version needs a repository of its own in the store.
"""

from collections.abc import Mapping
from typing import Any

from ..errors import RoutesError
from ..traffic.routes import Routes
from .cluster import Cluster
from .names import labels, slug, versioned
from .pod import Object

_MODE = "serving.kserve.io/deploymentMode"
_SCALING = ("maxReplicas", "scaleTarget", "scaleMetric", "autoScaling")


def inference_service(routes: Routes, cluster: Cluster, *, replicas: int) -> Object:
    """An InferenceService. Promotion retargets the predictor's name to the canary, whose pods run already.

    Raises:
        RoutesError: a share that is no whole percent, or a mirror, neither of which KServe has.
    """
    percent = round(routes.share * 100)
    if abs(percent - routes.share * 100) > 1e-9:
        raise RoutesError(
            f"KServe needs whole percents, got {routes.share:.2%}",
            where=routes.model,
            next_step="round the share to a whole percent",
        )
    if routes.mirror:
        raise RoutesError(
            "KServe has no traffic mirroring",
            where=routes.model,
            next_step="use the Gateway's routes, or remove the mirror",
        )
    spec: Object = {"predictor": _predictor(routes.model, routes.stable, cluster, replicas)}
    if routes.candidate is not None:
        canary = _predictor(routes.model, routes.candidate, cluster, max(1, round(replicas * routes.share)))
        spec["canary"] = [{"trafficPercent": percent, "predictor": canary}]
    made = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": slug(routes.model),
            "labels": labels(routes.model),
            "annotations": {_MODE: "Standard"},
        },
        "spec": spec,
    }
    for rule in broken(made):
        raise RoutesError(rule, where=f"InferenceService of {routes.model}", next_step="use the Gateway's routes")
    return made


def _predictor(model: str, version: int, cluster: Cluster, replicas: int) -> Object:
    """A fixed number of replicas: with a canary there is no autoscaling."""
    limits = {"cpu": cluster.resources.cpu, "memory": cluster.resources.memory}
    return {
        "name": f"v{version}",
        "automountServiceAccountToken": False,
        "minReplicas": replicas,
        "model": {
            "modelFormat": {"name": "triton"},
            "runtime": "kserve-tritonserver",
            "protocolVersion": "v2",
            "storageUri": f"pvc://{cluster.claim}/kserve/{versioned(model, version)}",
            "resources": {"requests": dict(limits), "limits": dict(limits)},
        },
    }


def broken(service: Mapping[str, Any]) -> list[str]:
    """KServe's rules for canaries that an InferenceService breaks."""
    said, spec = [], service["spec"]
    name, canaries = service["metadata"]["name"], spec.get("canary", [])
    percents = [canary["trafficPercent"] for canary in canaries]
    if service["metadata"].get("annotations", {}).get(_MODE) != "Standard":
        said.append("a canary needs Standard mode")
    if any(not 0 <= percent <= 100 for percent in percents) or sum(percents) > 100:
        said.append(f"canaries take {percents} percent: each must be between 0 and 100, together at most 100")
    predictors = [spec["predictor"], *(canary["predictor"] for canary in canaries)]
    names = [predictor.get("name", "") for predictor in predictors]
    if canaries and (not all(names) or len(set(names)) != len(names)):
        said.append(f"predictor names {names} must be unique")
    said += [
        f"the predictor's name makes {full!r} longer than 63 characters"
        for each in names
        if len(full := f"{name}-{each}-predictor") > 63
    ]
    if canaries:
        said += [
            f"{key} is set together with a canary, whose replicas are fixed"
            for key in _SCALING
            for each in predictors
            if key in each
        ]
    if any("canaryTrafficPercent" in predictor for predictor in predictors):
        said.append("canaryTrafficPercent is silently ignored in Standard mode")
    return said
