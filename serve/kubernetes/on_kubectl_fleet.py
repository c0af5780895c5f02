"""The fleet of a cluster: makes versions serve by scaling their Deployments, and says how their pods are.

Creates and deletes nothing: the Deployments come from ``seatrial render``. It keeps nothing either; every call reads
the cluster anew, so that it may be killed at any line and asked again. It was tried with kubectl 1.32 against a small
API of our own, never against a cluster.
"""

import json
import time
from collections.abc import Callable
from urllib.parse import quote

from ..errors import ModelLoadError, ServerError
from ..fleet import Health
from .command import Kubectl
from .names import INSTANCE, NAME, selector, slug, version_of, versioned
from .on_kubectl import KubectlRouter
from .workload import KEPT, Workload, memory, workloads

_POLL_SECONDS = 0.5
_KINDS = "deployments.apps,horizontalpodautoscalers.autoscaling,pods"


class KubectlFleet:
    """A `serve.fleet.Fleet` on one Deployment per version.

    `named` says which versions any route of a model names (by default those of its HTTPRoute): none of them is ever
    stopped. `patience` is in seconds, for all versions of one `serve` to become available. `measure` asks the metrics
    API for memory.
    """

    def __init__(
        self,
        namespace: str,
        *,
        context: str = "",
        kubectl: str = "kubectl",
        timeout: float = 30.0,
        patience: float = 300.0,
        named: Callable[[str], frozenset[int]] | None = None,
        measure: bool = True,
    ) -> None:
        self._kubectl = Kubectl(
            namespace,
            error=ServerError,
            rights="patch deployments",
            context=context,
            kubectl=kubectl,
            timeout=timeout,
        )
        router = KubectlRouter(namespace, context=context, kubectl=kubectl, timeout=timeout)
        self._named = named or router.named
        self._patience, self._measure = patience, measure

    def serve(self, model: str, versions: tuple[int, ...]) -> None:
        """Serve exactly these versions: those are scaled up first and waited for, then the others scaled to none.

        A version that has servers already is waited for, and otherwise left as it is: its autoscaler counts them.

        Raises:
            ModelLoadError: one has no Deployment, or its pods do not become available; nothing was stopped.
            ServerError: the cluster does not answer, or a route still names a version that is to be stopped.
        """
        found = self._workloads(model)
        for version in versions:
            if version not in found:
                raise ModelLoadError(
                    f"there is no Deployment {versioned(model, version)}",
                    where=f"namespace {self._kubectl.namespace}",
                    next_step="render the manifests with this version and apply them",
                )
        for version in versions:
            if not found[version].replicas:
                self._scale(found[version], found[version].declared)
        self._await_available(model, versions)
        others = [version for version, each in found.items() if version not in versions and not each.stopped]
        if not others:
            return
        if routed := self._named(model) & set(others):
            raise ServerError(
                f"version {min(routed)} is still used by a route, so it was not stopped",
                where=model,
                next_step="move the routes away from it first",
            )
        for version in others:
            if found[version].replicas:
                self._scale(found[version], 0)
        self._await_stopped(model, others)

    def health(self, model: str, version: int) -> Health:
        """Return the health of its pods. Ready is the result of their probe: the server reports this version as ready.

        `restarts` counts containers that were started again, `memory` is the largest pod's working set (its servers
        come and go with the load), 0 where no metrics API answers.

        Raises:
            ServerError: the cluster does not answer.
        """
        found = self._workloads(model).get(version)
        if found is None:
            return Health(ok=False, reason=f"there is no Deployment {versioned(model, version)}")
        ok = bool(found.ready and found.replicas)
        return Health(
            ok=ok,
            reason="" if ok else found.reason,
            restarts=found.restarts,
            memory=self._memory(model, version) if found.pods and self._measure else 0,
        )

    def _workloads(self, model: str) -> dict[int, Workload]:
        labels = f"--selector={NAME}=triton,{INSTANCE}={slug(model)}"
        listed = self._kubectl.parsed(self._kubectl.run("get", _KINDS, labels, "--output=json"))
        items = list(listed.get("items", []))
        names = [str(each["metadata"]["name"]) for each in items]
        return workloads(items, {name: version for name in names if (version := version_of(name, model)) is not None})

    def _scale(self, workload: Workload, replicas: int) -> None:
        change: dict[str, object] = {"spec": {"replicas": replicas}}
        if not replicas:
            change["metadata"] = {"annotations": {KEPT: str(workload.replicas)}}
        patch = json.dumps(change)
        self._kubectl.parsed(
            self._kubectl.run("patch", "deployment", workload.name, "--type=merge", f"--patch={patch}", "--output=json")
        )

    def _await_available(self, model: str, versions: tuple[int, ...]) -> None:
        """Until each is available or beyond hope, so that one that fails does not keep the others from coming up."""
        until = time.monotonic() + self._patience
        while True:
            found = self._workloads(model)
            waiting = {
                version: found[version].reason if version in found else "the Deployment was removed"
                for version in versions
                if version not in found or not found[version].complete
            }
            failed = {version: why for version in waiting if (why := _hopeless(found.get(version)))}
            late = time.monotonic() > until
            if not waiting:
                return
            if late or len(failed) == len(waiting):
                said = "; ".join(f"version {version}: {why}" for version, why in (waiting | failed).items())
                raise ModelLoadError(
                    f"not available within {self._patience:g} s: {said}" if late else said,
                    where=f"{model} in namespace {self._kubectl.namespace}",
                    next_step=f"kubectl describe pods --selector={INSTANCE}={slug(model)}",
                )
            time.sleep(_POLL_SECONDS)

    def _await_stopped(self, model: str, versions: list[int]) -> None:
        until = time.monotonic() + self._patience
        while True:
            found = self._workloads(model)
            left = [version for version in versions if version in found and not found[version].stopped]
            if not left:
                return
            if time.monotonic() > until:
                raise ServerError(
                    f"version {left[0]} still has servers after {self._patience:g} s",
                    where=model,
                    next_step="find out what scales it; an autoscaler does not scale up from zero",
                )
            time.sleep(_POLL_SECONDS)

    def _memory(self, model: str, version: int) -> int:
        """Unknown is 0: a cluster need not have a metrics API, and the caller may lack permission."""
        labels = quote(",".join(f"{key}={value}" for key, value in selector(model, version).items()), safe="")
        path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{self._kubectl.namespace}/pods?labelSelector={labels}"
        done = self._kubectl.run("get", f"--raw={path}")
        return memory(self._kubectl.parsed(done)) if done.returncode == 0 else 0


def _hopeless(workload: Workload | None) -> str:
    return workload.hopeless if workload is not None else "the Deployment was removed"
