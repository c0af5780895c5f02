"""What a cluster would do with Deployments: a pod for each replica, whose fate a test chooses by version.

Stands in for the deployment controller and the kubelet, for a server that is scaled, crashes or cannot be pulled. It is
no cluster: pods come up after some looks, or fail at once and stay so.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seatrial.serve.kubernetes.names import VERSION
from tests.support.kube_api import path_of

Objects = dict[str, dict[str, Any]]
OOM = {"reason": "OOMKilled", "exitCode": 137}
ERROR = {"reason": "Error", "exitCode": 1, "message": "failed to load 'scenes'"}


def waiting(reason: str, message: str = "", died: dict[str, Any] | None = None, restarts: int = 0) -> dict[str, Any]:
    """A container's status that is not up."""
    status = {"ready": False, "restartCount": restarts, "state": {"waiting": {"reason": reason, "message": message}}}
    return status | ({"lastState": {"terminated": died}} if died else {})


UP: dict[str, Any] = {"ready": True, "restartCount": 0, "state": {"running": {}}}


@dataclass
class Nodes:
    """`fate` is the status of every container of a version's pods; up where none is given.

    `late` is how many looks a version's next pods need to come up, `scaled` records each version's replicas whenever
    they changed.
    """

    fate: dict[int, dict[str, Any]] = field(default_factory=dict)
    late: dict[int, int] = field(default_factory=dict)
    scaled: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, objects: Objects) -> None:
        for deployment in [each for each in objects.values() if each["kind"] == "Deployment"]:
            self._run(deployment, objects)

    def _run(self, deployment: dict[str, Any], objects: Objects) -> None:
        metadata, spec = deployment["metadata"], deployment["spec"]
        count = spec.setdefault("replicas", 1)
        if deployment.get("status", {}).get("asked") != count:
            self.scaled.append((int(metadata["labels"][VERSION]), count))
        fate = self._fate(int(metadata["labels"][VERSION]), count)
        for path in [path for path in objects if path.startswith(path_of("Pod", f"{metadata['name']}-"))]:
            del objects[path]
        for index in range(count):
            pod = _pod(f"{metadata['name']}-{index}", spec["template"]["metadata"]["labels"], fate)
            objects[path_of("Pod", pod["metadata"]["name"])] = pod
        available = count if fate["ready"] else 0
        deployment["status"] = {
            "asked": count,
            "observedGeneration": metadata["generation"],
            "replicas": count,
            "updatedReplicas": count,
            "availableReplicas": available,
            "readyReplicas": available,
        }

    def _fate(self, version: int, count: int) -> dict[str, Any]:
        if count and (left := self.late.get(version, 0)):
            self.late[version] = left - 1
            return waiting("ContainerCreating")
        return self.fate.get(version, UP)


def _pod(name: str, labels: dict[str, str], fate: dict[str, Any]) -> dict[str, Any]:
    version = int(labels[VERSION])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "prod", "labels": labels},
        "spec": {"containers": [{"name": "triton"}]},
        "status": {
            "startTime": "1970-01-02T00:00:00Z",
            "podIP": f"10.0.{version}.{int(name.rpartition('-')[2]) + 1}",
            "conditions": [{"type": "Ready", "status": "True" if fate["ready"] else "False"}],
            "containerStatuses": [{"name": "triton"} | fate],
        },
    }


def kubeconfig(folder: Path, url: str) -> dict[str, str]:
    """The environment in which kubectl talks to that API; it caches in HOME."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "api", "cluster": {"server": url}}],
        "contexts": [{"name": "api", "context": {"cluster": "api"}}],
        "current-context": "api",
    }
    (folder / "config").write_text(json.dumps(config))
    return {"KUBECONFIG": str(folder / "config"), "HOME": str(folder)}
