"""What a cluster says of one version: its Deployment's counts and conditions, and why its pods do not serve.

Pure: reads objects, asks nobody and changes nothing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .names import VERSION
from .pod import Object

KEPT = "seatrial/replicas"
"""The annotation that remembers how many servers a version had when it was scaled to none."""
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
"""Reasons for which a container waits that waiting longer does not mend; the first failed pull is not yet one."""
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
        """How many servers are asked for now; a Deployment that says nothing asks for one."""
        return int(self.deployment.get("spec", {}).get("replicas", 1))

    @property
    def declared(self) -> int:
        """How many to start with: as many as it had before it was stopped, and no fewer than its autoscaler's least."""
        kept = str(self.deployment["metadata"].get("annotations", {}).get(KEPT, ""))
        return max(1, self.least, int(kept) if kept.isdigit() else 1)

    @property
    def complete(self) -> bool:
        """Whether the declared servers are of the newest template and available, as ``rollout status`` reads it.

        More than declared are the autoscaler's: that it could not get one more does not make a version incomplete.
        """
        if not self.replicas or not self._observed:
            return False
        status, enough = self.deployment["status"], min(self.replicas, self.declared)
        return all(int(status.get(key) or 0) >= enough for key in ("updatedReplicas", "availableReplicas"))

    @property
    def stopped(self) -> bool:
        """Whether none is asked for and the cluster has none left that would be sent requests."""
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
        """How often containers of its present pods were started again; a pod that was replaced took its count along."""
        return sum(int(each.get("restartCount", 0)) for pod in self.pods for each in _containers(pod))

    @property
    def hopeless(self) -> str:
        """Why waiting longer is of no use; empty where it may still come up."""
        for pod in self.pods:
            for each in _containers(pod):
                if _state(each, "waiting").get("reason") in HOPELESS or _died(each).get("reason") == "OOMKilled":
                    return self.reason
        return ""

    @property
    def reason(self) -> str:
        """Why it does not serve, in the cluster's own words: a container's, a pod's, else the Deployment's."""
        if not self.replicas:
            return "scaled to no server"
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
    """How it ended last, if it did so badly and has not become ready since."""
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
            yield f"{each['name']} ended with {died['exitCode']}: {_joined(died)}"


def _is_ready(pod: Object) -> bool:
    return _condition(pod, "Ready").get("status") == "True"


def _condition(thing: Object, name: str) -> Mapping[str, Any]:
    conditions = thing.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each.get("type") == name), {})


def _joined(said: Mapping[str, Any]) -> str:
    return ", ".join(str(said[key]).strip() for key in ("reason", "message") if said.get(key))
