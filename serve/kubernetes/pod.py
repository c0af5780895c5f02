"""The pod of one version: its bytes are checked first, then Triton serves them; it may write nothing but its scratch.

Pure. Readiness asks for that very version: the server's own ``/v2/health/ready`` turns bad for good when any load
fails, and stays good when the model is gone.
"""

from collections.abc import Mapping
from typing import Any

from ..triton.compiler.config import parse
from ..triton.compiler.flags import server_flags
from .cluster import Cluster
from .names import selector, versioned
from .source import Source

Object = dict[str, Any]
HTTP, GRPC, METRICS = 8000, 8001, 8002
RESTRICTED = "model-repository,model-config,shared-memory,statistics,trace,logging"
_USER = 1000  # triton-server in NVIDIA's images
_STUBS_SECONDS = 5  # python stubs end up to this long after the server
_CONTROL = "/etc/seatrial/control/key"
_PROBE_SECONDS = 5

# The key comes from a file and never stands in a manifest. Triton takes it as an argument only, so that users who may
# read this container's /proc reads it; it is defence in depth behind the network policy.
_START = (
    f'key="$(cat {_CONTROL})" && exec tritonserver "$@"'
    f' "--http-restricted-api={RESTRICTED}:seatrial-key=$key"'
    f' "--grpc-restricted-protocol={RESTRICTED}:seatrial-key=$key"'
)


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
        *server_flags([parse(source.config)]),
    ]


def _resources(limits: Mapping[str, Any]) -> Object:
    return {"requests": dict(limits), "limits": dict(limits)}
