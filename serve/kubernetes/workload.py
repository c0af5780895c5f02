"""State of one version in a cluster: its Deployment's counts and conditions, and why its pods do not serve.

Pure: reads objects, sends no requests and changes nothing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .names import VERSION
from .pod import Object

KEPT = "seatrial/replicas"
"""The annotation that stores the number of servers of a version that was scaled to zero."""
HOPELESS = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)
"""Waiting reasons of a container that do not resolve by themselves; the first failed pull is not one of them."""
_UNITS = {"": 0, "Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}
_BINARY = re.compile(r"([0-9]+)(Ki|Mi|Gi|Ti)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One version's Deployment, the least replicas that its autoscaler is declared with (1 without), and its pods."""

    deployment: Object
    least: int = 1
    pods: tuple[Object, ...] = ()

    @property
    def name(self) -> str:
        """The Deployment's name."""
        return str(self.deployment["metadata"]["name"])

    @property
    def replicas(self) -> int:
        """Return the requested number of servers; 1 if the Deployment gives none."""
        return int(self.deployment.get("spec", {}).get("replicas", 1))

    @property
    def declared(self) -> int:
        """Return the number of servers to start: as many as before the stop, at least the autoscaler's minimum."""
        kept = str(self.deployment["metadata"].get("annotations", {}).get(KEPT, ""))
        return max(1, self.least, int(kept) if kept.isdigit() else 1)

    @property
    def complete(self) -> bool:
        """Return whether the declared servers have the newest template and are available, as in ``rollout status``.

        More than declared are the autoscaler's: that it could not get one more does not make a version incomplete.
        """
        if not self.replicas or not self._observed:
            return False
        status, enough = self.deployment["status"], min(self.replicas, self.declared)
        return all(int(status.get(key) or 0) >= enough for key in ("updatedReplicas", "availableReplicas"))

    @property
    def stopped(self) -> bool:
        """Return whether no server is requested and none is left that would receive requests."""
        return not self.replicas and self._observed and not self.deployment["status"].get("replicas")

    @property
    def _observed(self) -> bool:
        seen = int(self.deployment.get("status", {}).get("observedGeneration") or 0)
        return seen >= int(self.deployment["metadata"].get("generation", 0))

    @property
    def ready(self) -> int:
        """Pods that are ready now."""
        return sum(_is_ready(pod) for pod in self.pods)

    @property
    def restarts(self) -> int:
        """Return the restarts of the containers of its present pods; a replaced pod takes its count along."""
        return sum(int(each.get("restartCount", 0)) for pod in self.pods for each in _containers(pod))

    @property
    def hopeless(self) -> str:
        """Return why waiting longer is useless; empty if it may still become ready."""
        for pod in self.pods:
            for each in _containers(pod):
                if _state(each, "waiting").get("reason") in HOPELESS or _died(each).get("reason") == "OOMKilled":
                    return self.reason
        return ""

    @property
    def reason(self) -> str:
        """Return why it does not serve, as reported for a container, a pod, else the Deployment."""
        if not self.replicas:
            return "scaled to zero servers"
        said = [text for pod in self.pods if not _is_ready(pod) for text in _complaints(pod)]
        if said:
            return "; ".join(dict.fromkeys(said))  # each once: ten pods of one kind fail alike
        for name, bad in (("ReplicaFailure", "True"), ("Progressing", "False")):
            condition = _condition(self.deployment, name)
            if condition.get("status") == bad:
                return _joined(condition)
        return f"{self.ready} of {self.replicas} servers are ready"


def workloads(items: Sequence[Object], versions: Mapping[str, int]) -> dict[int, Workload]:
    """Workload by version, from Deployments, autoscalers and pods of one model in any order; `versions` by name."""
    least = {
        each["spec"]["scaleTargetRef"]["name"]: int(each["spec"].get("minReplicas", 1))
        for each in items
        if each["kind"] == "HorizontalPodAutoscaler"
    }
    pods = [each for each in items if each["kind"] == "Pod" and not each["metadata"].get("deletionTimestamp")]
    made = {}
    for each in items:
        version = versions.get(each["metadata"]["name"])
        if each["kind"] == "Deployment" and version is not None:
            own = tuple(pod for pod in pods if pod["metadata"].get("labels", {}).get(VERSION) == str(version))
            made[version] = Workload(deployment=each, least=least.get(each["metadata"]["name"], 1), pods=own)
    return made


def memory(metrics: Mapping[str, Any]) -> int:
    """Bytes that the largest pod of a PodMetricsList works with; 0 where there is none."""
    return max((sum(_bytes(each) for each in pod.get("containers", [])) for pod in metrics.get("items", [])), default=0)


def _bytes(container: Mapping[str, Any]) -> int:
    found = _BINARY.fullmatch(str(container.get("usage", {}).get("memory", "0")))
    return int(found[1]) << _UNITS[found[2] or ""] if found else 0


def _containers(pod: Object) -> list[Mapping[str, Any]]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _state(container: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return container.get("state", {}).get(name) or {}


def _died(container: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return its last failure if it has not become ready since."""
    ended = _state(container, "terminated") or container.get("lastState", {}).get("terminated") or {}
    return ended if ended.get("exitCode", 0) != 0 and not container.get("ready") else {}


def _complaints(pod: Object) -> Iterator[str]:
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        yield _joined(scheduled)
    if pod.get("status", {}).get("reason"):
        yield _joined(pod["status"])  # Evicted and its like
    for each in _containers(pod):
        waiting, died = _state(each, "waiting"), _died(each)
        if waiting.get("reason") and waiting["reason"] not in ("PodInitializing", "ContainerCreating"):
            yield f"{each['name']}: {_joined(waiting)}"
        if died:
            yield f"{each['name']} terminated with {died['exitCode']}: {_joined(died)}"


def _is_ready(pod: Object) -> bool:
    return _condition(pod, "Ready").get("status") == "True"


def _condition(thing: Object, name: str) -> Mapping[str, Any]:
    conditions = thing.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each.get("type") == name), {})


def _joined(said: Mapping[str, Any]) -> str:
    return ", ".join(str(said[key]).strip() for key in ("reason", "message") if said.get(key))
