"""One server for one version: the Deployment, its Service, its configuration, and who may disturb it.

Pure. Versions are pinned by Service: a server holds exactly one, so no request can reach another by mistake, and a
version that fails to load takes nothing else down.
"""

from seatrial.optimize.artifact import digest_bytes

from .cluster import Cluster
from .names import INSTANCE, labels, selector, slug, versioned
from .pod import GRPC, HTTP, METRICS, Object, pod
from .source import Source


def deployment(source: Source, cluster: Cluster, *, gpu: bool) -> Object:
    """The server of one version. It has no count of replicas: the autoscaler owns that."""
    name = versioned(source.model, source.version)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels(source.model, source.version)},
        "spec": {
            "selector": {"matchLabels": selector(source.model, source.version)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "progressDeadlineSeconds": cluster.load_seconds + 120,
            "template": {
                "metadata": {
                    "labels": labels(source.model, source.version),
                    "annotations": {"seatrial/config": digest_bytes(source.config.encode())},  # a change rolls the pods
                },
                "spec": pod(source, cluster, gpu=gpu),
            },
        },
    }


def config(source: Source) -> Object:
    """config.pbtxt for this version alone, and the digest of every file that may lie beside the model."""
    sums = "".join(f"{digest}  ./{path}\n" for path, digest in source.files)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": versioned(source.model, source.version),
            "labels": labels(source.model, source.version),
        },
        "data": {"config.pbtxt": source.config, "sha256sums": sums},
    }


def service(source: Source) -> Object:
    """The one address of one version; this is what pins a request to it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": versioned(source.model, source.version),
            "labels": labels(source.model, source.version),
        },
        "spec": {
            "type": "ClusterIP",
            "selector": selector(source.model, source.version),
            "ports": [
                {"name": "http", "port": HTTP, "targetPort": "http", "appProtocol": "http"},
                {"name": "grpc", "port": GRPC, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"},
                {"name": "metrics", "port": METRICS, "targetPort": "metrics", "appProtocol": "http"},
            ],
        },
    }


def disruption_budget(source: Source) -> Object:
    """At most one server of a version is taken away at a time; a lone one may be, or no node could ever be emptied."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": versioned(source.model, source.version),
            "labels": labels(source.model, source.version),
        },
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(source.model, source.version)}},
    }


def network_policy(model: str, cluster: Cluster) -> Object:
    """Return the network policy: ingress from the gateway and monitoring, egress to DNS and the store."""
    egress: list[Object] = [
        {
            "to": [{"namespaceSelector": _in("kube-system")}],
            "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")],
        }
    ]
    if cluster.store_cidr:
        egress.append({"to": [{"ipBlock": {"cidr": cluster.store_cidr}}]})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": slug(model), "labels": labels(model)},
        "spec": {
            "podSelector": {"matchLabels": {INSTANCE: slug(model)}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "from": [{"namespaceSelector": _in(cluster.gateway.namespace)}],
                    "ports": [{"protocol": "TCP", "port": port} for port in (HTTP, GRPC)],
                },
                {
                    "from": [{"namespaceSelector": _in(cluster.monitoring)}],
                    "ports": [{"protocol": "TCP", "port": METRICS}],
                },
            ],
            "egress": egress,
        },
    }


def _in(namespace: str) -> Object:
    return {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
