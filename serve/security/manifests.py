"""Kubernetes manifests on disk: whether what they would start keeps to the checklist.

Reads YAML and judges values; needs no cluster and no kustomize. A folder with a ``kustomization.yaml`` that pins images
is judged for that too, since the base it builds on names only a release.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seatrial.optimize.breach import Breach

from . import arguments, gateways, reading
from .reading import told
from .rules import CALM_RELEASE, FIXED_RELEASE, breach

Object = Mapping[str, Any]
_ZEROS = "sha256:" + "0" * 64
_RELEASE = re.compile(r":(\d{2})\.(\d{2})\b")
_SECRET_NAME = re.compile(r"pass(word)?|token|secret|api_?key|credential", re.I)
_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "ReplicaSet", "Rollout")


def read(folder: Path) -> tuple[list[tuple[str, Object]], list[str]]:
    """Every document with the file it stands in, and the files that are no YAML."""
    found = reading.read(folder)
    return objects(found.found), found.unreadable


def objects(documents: Sequence[tuple[str, Any]]) -> list[tuple[str, Object]]:
    """Those documents that are objects of a cluster; the items of a list stand for themselves."""
    made: list[tuple[str, Object]] = []
    for where, document in documents:
        if isinstance(document, dict) and isinstance(document.get("kind"), str):
            items = document.get("items")
            inside = items if document["kind"].endswith("List") and isinstance(items, list) else [document]
            made += [(where, each) for each in inside if isinstance(each, dict) and isinstance(each.get("kind"), str)]
    return made


def audit(documents: list[tuple[str, Object]]) -> Iterator[Breach]:
    """Everything found in those documents; one that is no such object is itself a finding."""
    pinned = {
        each.get("name", "")
        for _, document in documents
        for each in document.get("images") or ()
        if isinstance(each, dict) and each.get("digest")
    }
    policies = [(_unit(where), document) for where, document in documents if document["kind"] == "NetworkPolicy"]
    kinds = {document["kind"] for _, document in documents}
    for where, document in documents:
        try:
            place = f"{where}: {document['kind']} {told((document.get('metadata') or {}).get('name', ''))}"
            own = [policy for unit, policy in policies if unit == _unit(where)]
            yield from list(_document(document, place, pinned, own))
            yield from list(gateways.audit(document, place, kinds))
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            yield breach("malformed", f"{where}: {document['kind']}", f"{type(error).__name__}: {told(error)}")


def _document(document: Object, where: str, pinned: set[str], policies: list[Object]) -> Iterator[Breach]:
    kind = document["kind"]
    if kind in _WORKLOADS:
        template = document["spec"]["template"]
        yield from _pod(template["spec"], where, pinned)
        if not any(_selects(policy, template["metadata"].get("labels", {})) for policy in policies):
            yield breach("no-network-policy", where, "no NetworkPolicy selects its pods")
    elif kind == "Pod":
        yield from _pod(document["spec"], where, pinned)
    elif kind == "Secret" and (document.get("data") or document.get("stringData")):
        yield breach("secret-in-manifest", where, "a Secret contains its data")
    elif kind == "Service" and document["spec"].get("type") in ("LoadBalancer", "NodePort"):
        yield breach("exposed-service", where, f"type {document['spec']['type']}")
    elif kind == "NetworkPolicy":
        yield from _policy(document, where)
    elif kind == "Kustomization":
        yield from _overlay(document, where)


def _unit(where: str) -> Path | None:
    """Return the unit that is applied together: the nearest kustomize folder; None for plain files."""
    return next((each for each in Path(where).parents if (each / "kustomization.yaml").is_file()), None)


def _selects(policy: Object, labels: Object) -> bool:
    chosen = policy["spec"].get("podSelector", {}).get("matchLabels", {})
    return bool(chosen.items() <= labels.items())


def _pod(pod: Object, where: str, pinned: set[str]) -> Iterator[Breach]:
    security = pod.get("securityContext", {})
    if pod.get("automountServiceAccountToken") is not False:
        yield breach("token", where, "automountServiceAccountToken is not false")
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield breach("privileged", where, key)
    for volume in pod.get("volumes", []):
        if "hostPath" in volume:
            yield breach("privileged", where, f"hostPath {volume['hostPath'].get('path')}")
    for container in [*pod.get("initContainers", []), *pod.get("containers", [])]:
        own = f"{where}, container {container['name']}"
        yield from _image(container.get("image", ""), own, pinned)
        yield from _rights(container, security, own)
        yield from _server(container, own)
        yield from _models(container, pod, own)


def _image(image: str, where: str, pinned: set[str]) -> Iterator[Breach]:
    name, _, digest = image.partition("@")
    tagged = ":" in name.rpartition("/")[2]
    if digest == _ZEROS:
        yield breach("image-placeholder", where, "the digest is all zeros")
    elif not digest and (not tagged or name.endswith(":latest")):
        yield breach("image-tag", where, image or "no image is named")
    elif not digest and name.partition(":")[0] not in pinned:
        yield breach("image-digest", where, image)
    release = _RELEASE.search(name)
    if release and "triton" in name:
        dated = (int(release[1]), int(release[2]))
        if dated < FIXED_RELEASE:
            yield breach("old-server", where, image)
        if dated < CALM_RELEASE:
            yield breach("ending-request", where, image)


def _rights(container: Object, pod: Object, where: str) -> Iterator[Breach]:
    own = container.get("securityContext", {})

    def either(key: str) -> Any:
        return own.get(key, pod.get(key))

    if either("runAsNonRoot") is not True or either("runAsUser") == 0:
        yield breach("root", where, "runAsNonRoot is not true, or runAsUser is 0")
    if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
        yield breach("privileged", where, "privileged, or allowPrivilegeEscalation is not false")
    if own.get("readOnlyRootFilesystem") is not True:
        yield breach("writable-root", where, "readOnlyRootFilesystem is not true")
    if "ALL" not in own.get("capabilities", {}).get("drop", []) or own.get("capabilities", {}).get("add"):
        yield breach("capabilities", where, "capabilities are kept or added")
    if (either("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield breach("no-seccomp", where, "no seccompProfile")
    if not {"cpu", "memory"} <= set(container.get("resources", {}).get("limits", {})):
        yield breach("no-limits", where, "no limits of cpu and memory")
    for variable in container.get("env", []):
        if _SECRET_NAME.search(variable["name"]) and variable.get("value"):
            yield breach("secret-in-manifest", where, f"the variable {variable['name']} contains its value")


def _server(container: Object, where: str) -> Iterator[Breach]:
    """Check the settings specific to Triton: its flags and probes."""
    given = [str(each) for each in [*container.get("command", []), *container.get("args", [])]]
    yield from arguments.secrets(given, where, exposed=True)
    if "model-repository" not in arguments.flags(given):
        return
    yield from arguments.settings(given, where, exposed=True)
    for rule, seen in arguments.unrestricted(given):
        yield breach(rule, where, seen)
    for probe in ("readinessProbe", "startupProbe", "livenessProbe"):
        if container.get(probe, {}).get("httpGet", {}).get("path") == "/v2/health/ready":
            yield breach("server-readiness", where, probe)


def _models(container: Object, pod: Object, where: str) -> Iterator[Breach]:
    """Volumes that outlive the pod and may be written; scratch of its own may be."""
    kept = {
        volume["name"]
        for volume in pod.get("volumes", [])
        if not {"emptyDir", "configMap", "secret", "projected", "downwardAPI"} & set(volume)
    }
    for mount in container.get("volumeMounts", []):
        if mount["name"] in kept and mount.get("readOnly") is not True:
            yield breach("writable-models", where, f"{mount['mountPath']} is writable")


def _policy(policy: Object, where: str) -> Iterator[Breach]:
    spec = policy["spec"]
    kinds = spec.get("policyTypes", ["Ingress"])
    for kind, key, side in (("Ingress", "ingress", "from"), ("Egress", "egress", "to")):
        if kind not in kinds:
            yield breach("open-network-policy", where, f"{key} is not restricted")
        for rule in spec.get(key, []):
            peers = rule.get(side)
            if not peers or any(each.get("ipBlock", {}).get("cidr") in ("0.0.0.0/0", "::/0") for each in peers):
                yield breach("open-network-policy", where, f"{key} {side} everywhere")


def _overlay(document: Object, where: str) -> Iterator[Breach]:
    """Check the image digests of prod, identified by its folder's name or its label."""
    labels = [each.get("pairs", {}).get("app.kubernetes.io/environment") for each in document.get("labels", [])]
    prod = "prod" in labels or Path(where.partition(": ")[0]).parent.name == "prod"
    digests = {each.get("digest") for each in document.get("images", [])} - {None, ""}
    if _ZEROS in digests:
        yield breach("image-placeholder", where, "the digest is all zeros")
    elif prod and not digests:
        yield breach("image-tag", where, "prod pins no digest")
