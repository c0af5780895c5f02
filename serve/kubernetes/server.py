"""One server for one version: the Deployment, its Service, its configuration, and who may disturb it.

Pure. Versions are pinned by Service: a server holds exactly one, so no request can reach another by mistake, and a
version that fails to load takes nothing else down. Readiness asks for that very version; the server's own
``/v2/health/ready`` turns bad for good when any load fails, and stays good when the model is gone.
"""

from collections.abc import Mapping
from typing import Any

from optimize.artifact import digest_bytes

from .cluster import Cluster
from .names import INSTANCE, labels, selector, slug, versioned
from .source import Source

Object = dict[str, Any]
HTTP, GRPC, METRICS = 8000, 8001, 8002
RESTRICTED = "model-repository,model-config,shared-memory,statistics,trace,logging"
_USER = 1000  # triton-server in NVIDIA's images
_STUBS_SECONDS = 5  # python stubs end up to this long after the server
_CONTROL = "/etc/seatrial/control/key"
_PROBE_SECONDS = 5

# The key comes from a file and never stands in a manifest. Triton takes it as an argument only, so that whoever may
# read this container's /proc reads it; it is defence in depth behind the network policy.
_START = (
    f'key="$(cat {_CONTROL})" && exec tritonserver "$@"'
    f' "--http-restricted-api={RESTRICTED}:seatrial-key=$key"'
    f' "--grpc-restricted-protocol={RESTRICTED}:seatrial-key=$key"'
)


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


def pod(source: Source, cluster: Cluster, *, gpu: bool) -> Object:
    """The pod: bytes checked first, then the server; nothing of it may be written but its own scratch."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": cluster.drain_seconds + cluster.exit_seconds + _STUBS_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector(source.model, source.version)},
            }
        ],
        "initContainers": [_verify(source, cluster)],
        "containers": [_triton(source, cluster, gpu=gpu)],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": cluster.claim, "readOnly": True}},
            {"name": "config", "configMap": {"name": versioned(source.model, source.version)}},
            {"name": "control", "secret": {"secretName": cluster.control_secret, "defaultMode": 0o440}},
            {"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": cluster.resources.shared_memory}},
        ],
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
    """Who may talk to the model's servers: the gateway, and monitoring for metrics; they reach DNS and the store."""
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


def _container(cluster: Cluster) -> Object:
    return {
        "image": f"{cluster.image}:{cluster.release}",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _mounts(source: Source) -> list[Object]:
    """Only this version's directory of the store is seen, beside a configuration that names no other."""
    inside = f"/models/{source.model}"
    return [
        {
            "name": "models",
            "mountPath": f"{inside}/{source.version}",
            "subPath": f"{source.model}/{source.version}",
            "readOnly": True,
        },
        {"name": "config", "mountPath": f"{inside}/config.pbtxt", "subPath": "config.pbtxt", "readOnly": True},
    ]


def _verify(source: Source, cluster: Cluster) -> Object:
    """Every file as it was rendered, no file more, nothing but files: else the pod does not start."""
    script = (
        'cd "$1" && sha256sum --strict --quiet --check /etc/seatrial/sha256sums'
        ' && test "$(find . -type f | wc -l)" -eq "$2" && test -z "$(find . ! -type f ! -type d)"'
    )
    folder = f"/models/{source.model}/{source.version}"
    mounts = [
        *_mounts(source)[:1],
        {"name": "config", "mountPath": "/etc/seatrial/sha256sums", "subPath": "sha256sums", "readOnly": True},
    ]
    return _container(cluster) | {
        "name": "verify",
        "command": ["sh", "-ec", script, "verify", folder, str(len(source.files))],
        "resources": _resources({"cpu": "500m", "memory": "128Mi"}),
        "volumeMounts": mounts,
    }


def _triton(source: Source, cluster: Cluster, *, gpu: bool) -> Object:
    ready = {"path": f"/v2/models/{source.model}/versions/{source.version}/ready", "port": "http"}
    limits: dict[str, Any] = {"cpu": cluster.resources.cpu, "memory": cluster.resources.memory}
    if gpu:
        limits["nvidia.com/gpu"] = cluster.resources.gpus
    return _container(cluster) | {
        "name": "triton",
        "command": ["sh", "-ec", _START, "triton"],
        "args": arguments(source, cluster),
        "env": [
            {"name": "HOME", "value": "/tmp"},
            {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
        ],
        "ports": [
            {"name": "http", "containerPort": HTTP},
            {"name": "grpc", "containerPort": GRPC},
            {"name": "metrics", "containerPort": METRICS},
        ],
        "resources": _resources(limits),
        "startupProbe": {
            "httpGet": ready,
            "periodSeconds": _PROBE_SECONDS,
            "timeoutSeconds": _PROBE_SECONDS,
            "failureThreshold": -(-cluster.load_seconds // _PROBE_SECONDS),
        },
        "readinessProbe": {"httpGet": ready, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {
            "httpGet": {"path": "/v2/health/live", "port": "http"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        # The endpoint leaves the gateway while the server still answers: Triton closes its listeners at SIGTERM.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(cluster.drain_seconds)]}}},
        "volumeMounts": [
            *_mounts(source),
            {"name": "control", "mountPath": _CONTROL.rpartition("/")[0], "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }


def arguments(source: Source, cluster: Cluster) -> list[str]:
    """The server's arguments, without the keys."""
    return [
        "--model-repository=/models",
        "--model-control-mode=explicit",
        f"--load-model={source.model}",
        "--strict-readiness=false",
        "--exit-on-error=true",
        f"--exit-timeout-secs={cluster.exit_seconds}",
        "--disable-auto-complete-config",
        f"--http-port={HTTP}",
        f"--grpc-port={GRPC}",
        f"--metrics-port={METRICS}",
    ]


def _resources(limits: Mapping[str, Any]) -> Object:
    return {"requests": dict(limits), "limits": dict(limits)}
