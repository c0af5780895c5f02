"""Overlays: what dev, staging and prod change about the base, as a kustomization and as our own merge of it.

Pure. Only three things differ: the namespace, how many servers there may be, and whether the image's bytes are pinned.
`merged` does what ``kubectl kustomize`` does with such an overlay, so that manifests can be checked without it; a test
holds the two against each other where the tool is installed.
"""

import copy
from collections.abc import Sequence

import yaml

from .cluster import PLACEHOLDER, Cluster
from .pod import Object

ENVIRONMENTS = ("dev", "staging", "prod")
LABEL = "app.kubernetes.io/environment"


def kustomization(name: str, cluster: Cluster) -> Object:
    """The overlay's ``kustomization.yaml``. Prod always pins a digest, if only the placeholder that starts nothing."""
    environment = cluster.environments[name]
    operations = [
        {"op": "replace", "path": f"/spec/{key}", "value": value}
        for key, value in (("minReplicas", environment.least), ("maxReplicas", environment.most))
    ]
    made: Object = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": cluster.namespace(name),
        "resources": ["../../base"],
        "labels": [{"pairs": {LABEL: name}}],
        "patches": [
            {"target": {"kind": "HorizontalPodAutoscaler"}, "patch": yaml.safe_dump(operations, sort_keys=False)}
        ],
    }
    if digest := digest_for(name, cluster):
        made["images"] = [{"name": cluster.image, "digest": digest}]
    return made


def digest_for(name: str, cluster: Cluster) -> str:
    """The digest that an environment pins; empty where the release's tag will do."""
    return cluster.digest or (PLACEHOLDER if name == "prod" else "")


def merged(base: Sequence[Object], name: str, cluster: Cluster) -> list[Object]:
    """The base as that environment gets it."""
    return [_merge(copy.deepcopy(each), name, cluster) for each in base]


def _merge(document: Object, name: str, cluster: Cluster) -> Object:
    metadata, environment = document["metadata"], cluster.environments[name]
    metadata["namespace"] = cluster.namespace(name)
    metadata["labels"] = metadata.get("labels", {}) | {LABEL: name}
    if document["kind"] == "HorizontalPodAutoscaler":
        document["spec"] |= {"minReplicas": environment.least, "maxReplicas": environment.most}
    if (digest := digest_for(name, cluster)) and document["kind"] == "Deployment":
        pod = document["spec"]["template"]["spec"]
        for container in [*pod["initContainers"], *pod["containers"]]:
            container["image"] = f"{cluster.image}@{digest}"
    return document
