"""The same steps as an Argo Rollout with an analysis, for clusters that run Argo Rollouts and its Gateway API plugin.

Pure. The analysis compares the candidate's share of failures with the stable version's, told apart by Triton's own
version label and not by a shared address. Without data it is inconclusive: the rollout pauses, it is neither aborted
nor promoted (an empty answer would else be an error, and NaN a failure). It is a coarse gate with a fixed threshold;
the sequential test of `serve.traffic` is the better one where seatrial's controller can run.
"""

from collections.abc import Mapping
from typing import Any

from ..traffic.routes import Routes
from .cluster import Cluster
from .names import INSTANCE, NAME, labels, slug
from .pod import GRPC, HTTP, METRICS, Object, pod
from .routes import without_headers
from .source import Source

STEPS = (1, 5, 25, 50)
_MORE_FAILURES = 0.005  # of all requests; more than the stable version has
_KNOWN = "len(result) > 0 && !isNaN(result[0])"


def selector(model: str) -> dict[str, str]:
    """Pods of any version: Argo tells them apart by a hash of its own."""
    return {NAME: "triton", INSTANCE: slug(model)}


def services(routes: Routes) -> list[Object]:
    """The two Services that the controller points at stable and candidate pods."""
    ports = [
        {"name": name, "port": port, "targetPort": name}
        for name, port in (("http", HTTP), ("grpc", GRPC), ("metrics", METRICS))
    ]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"{slug(routes.model)}-{role}", "labels": labels(routes.model)},
            "spec": {"type": "ClusterIP", "selector": selector(routes.model), "ports": ports},
        }
        for role in ("stable", "canary")
    ]


def rollout(source: Source, cluster: Cluster, *, stable: int, replicas: int, gpu: bool) -> Object:
    """The Rollout to this version, in seatrial's steps; `stable` is what it is compared with."""
    name = slug(source.model)
    checked = {
        "analysis": {
            "templates": [{"templateName": name}],
            "args": [
                {"name": "stable", "value": str(stable)},
                {"name": "candidate", "value": str(source.version)},
                {"name": "namespace", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            ],
        }
    }
    steps = [step for share in STEPS for step in ({"setWeight": share}, {"pause": {"duration": "2m"}}, checked)]
    plugin = {"argoproj-labs/gatewayAPI": {"httpRoute": name}}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": name, "labels": labels(source.model)},
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector(source.model)},
            "strategy": {
                "canary": {
                    "stableService": f"{name}-stable",
                    "canaryService": f"{name}-canary",
                    "abortScaleDownDelaySeconds": 300,
                    "trafficRouting": {"plugins": plugin},
                    "steps": steps,
                }
            },
            "template": {
                "metadata": {"labels": labels(source.model, source.version)},
                "spec": pod(source, cluster, gpu=gpu),
            },
        },
    }


def route(http: Mapping[str, Any]) -> Object:
    """The model's HTTPRoute between the two Services; the plugin moves the weights."""
    [rule] = http["spec"]["rules"]
    name = http["metadata"]["name"]
    backends = [
        {"name": f"{name}-{role}", "port": HTTP, "weight": share} for role, share in (("stable", 100), ("canary", 0))
    ]
    kept = {key: rule[key] for key in ("matches", "timeouts")}
    return {
        **http,
        "spec": {**http["spec"], "rules": [{**kept, "filters": [without_headers()], "backendRefs": backends}]},
    }


def analysis(model: str, cluster: Cluster) -> Object:
    """Failures of the candidate beyond those of the stable version, looked at every minute for ten."""
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AnalysisTemplate",
        "metadata": {"name": slug(model), "labels": labels(model)},
        "spec": {
            "args": [{"name": "stable"}, {"name": "candidate"}, {"name": "namespace"}],
            "metrics": [
                {
                    "name": "failures-beyond-stable",
                    "interval": "1m",
                    "count": 10,
                    "failureLimit": 1,
                    "inconclusiveLimit": 2,
                    "successCondition": f"{_KNOWN} && result[0] <= {_MORE_FAILURES}",
                    "failureCondition": f"{_KNOWN} && result[0] > {_MORE_FAILURES}",
                    "provider": {
                        "prometheus": {
                            "address": cluster.prometheus,
                            "query": f"{_failures(model, 'candidate')}\n- {_failures(model, 'stable')}",
                        }
                    },
                }
            ],
        },
    }


def _failures(model: str, role: str) -> str:
    chosen = f'{{model="{model}",version="{{{{args.{role}}}}}",namespace="{{{{args.namespace}}}}"}}[2m]'
    failed, served = (f"sum(rate(nv_inference_request_{each}{chosen}))" for each in ("failure", "success"))
    return f"{failed} / ({failed} + {served})"
