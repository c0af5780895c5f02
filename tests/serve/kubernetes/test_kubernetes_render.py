"""Rendered manifests: valid for several Kubernetes versions, the same by kustomize and by our merge, and hardened."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from seatrial.optimize.errors import ConfigError, MissingError
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Deployment, Instances
from seatrial.serve.errors import ConfigRuleError
from seatrial.serve.kubernetes import render as rendering
from seatrial.serve.kubernetes.cluster import PLACEHOLDER, Cluster, Environment, Gateway, Resources
from seatrial.serve.kubernetes.overlay import ENVIRONMENTS, merged
from seatrial.serve.kubernetes.pod import arguments
from seatrial.serve.kubernetes.source import Source
from seatrial.serve.traffic.routes import Routes
from seatrial.serve.triton.compiler.config import parse
from seatrial.serve.triton.repository.placing import place
from tests.support.graphs import pictures

pytestmark = pytest.mark.experimental("Kubernetes")

KUBERNETES = ("1.29", "1.33", "1.37")
CUSTOM = {"HTTPRoute", "GRPCRoute", "InferenceService", "Rollout", "AnalysisTemplate"}
DEPLOYMENT = Deployment(schema=1, name="Pictures_8", backend="native", max_batch_size=16)
CLUSTER = Cluster(schema=1, hostname="models.example.com", grpc_hostname="grpc.models.example.com")
ROUTES = Routes(model=DEPLOYMENT.name, stable=1, candidate=2, share=0.05, mirror=0.25)
PINNED = "sha256:" + "5" * 64


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster")
    store = Store(folder / "store")
    for scale in (1.0, 2.0):
        place(pictures(store, folder / f"made-{scale}", scale), DEPLOYMENT, store=store, repository=folder / "models")
    return folder / "models"


@pytest.fixture(scope="module")
def versions(repository: Path) -> list[Source]:
    return rendering.sources(repository, ROUTES, CLUSTER)


def base(
    versions: list[Source], cluster: Cluster = CLUSTER, deployment: Deployment = DEPLOYMENT
) -> list[dict[str, Any]]:
    return rendering.documents(rendering.base(deployment, versions, ROUTES, cluster))


def validate(document: Mapping[str, Any]) -> None:
    if document["kind"] not in CUSTOM:
        for version in KUBERNETES:
            kubernetes_validate.validate(dict(document), version, strict=True)


@cache
def kubectl() -> str:
    found = shutil.which("kubectl")
    works = found and subprocess.run([found, "kustomize", "--help"], capture_output=True).returncode == 0
    return found if found and works else ""


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.slow
def test_every_object_of_every_overlay_is_valid(versions: list[Source], name: str) -> None:
    for document in merged(base(versions), name, CLUSTER):
        validate(document)
    kinds = {document["kind"] for document in base(versions)}
    assert kinds >= {
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "HorizontalPodAutoscaler",
        "ConfigMap",
    }


def test_strict_validation_would_find_a_wrong_field(versions: list[Source]) -> None:
    [document] = [each for each in base(versions) if each["kind"] == "NetworkPolicy"]
    document["spec"]["ingres"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(document)


@pytest.mark.parametrize("cluster", [CLUSTER, replace(CLUSTER, digest=PINNED)], ids=["unpinned", "pinned"])
@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.slow
def test_kustomize_makes_of_an_overlay_what_our_merge_makes(
    versions: list[Source], tmp_path: Path, name: str, cluster: Cluster
) -> None:
    if not kubectl():
        pytest.skip("no kubectl with kustomize on the PATH; the merge itself is checked by the other tests")
    rendering.write(rendering.render(DEPLOYMENT, versions, ROUTES, cluster), tmp_path / "out")
    done = subprocess.run(
        [kubectl(), "kustomize", str(tmp_path / f"out/overlays/{name}")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout)}
    ours = {(each["kind"], each["metadata"]["name"]): each for each in merged(base(versions, cluster), name, cluster)}
    if name == "prod" or cluster.digest:  # newer kustomize keeps the tag beside the digest, older drops it: same bytes
        told, ours = ({key: _untagged(each) for key, each in side.items()} for side in (told, ours))
    assert told == ours


def _untagged(document: Any) -> Any:
    return yaml.safe_load(re.sub(r":[0-9][^@\s]*@sha256", "@sha256", yaml.safe_dump(document)))


@pytest.mark.slow
def test_extras_build_and_are_valid(versions: list[Source], tmp_path: Path) -> None:
    routes = replace(ROUTES, mirror=0.0)
    files = rendering.render(DEPLOYMENT, versions, routes, CLUSTER, extras=("kserve", "argo"))
    for path, text in files.items():
        for document in yaml.safe_load_all(text):
            if document.get("kind") and document["kind"] != "Kustomization":
                validate(document)
            assert path.endswith("kustomization.yaml") == (document.get("kind") == "Kustomization")
    rollout = next(each for each in yaml.safe_load_all(files["argo/rollout.yaml"]) if each["kind"] == "Rollout")
    # The pod of a Rollout is the pod of a Deployment: let the strict schema judge it as one.
    deployment = {key: rollout["spec"][key] for key in ("replicas", "selector", "template")}
    validate({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": rollout["metadata"], "spec": deployment})
    assert rollout["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"] == "2"
    if kubectl():
        rendering.write(files, tmp_path / "out")
        for extra in ("kserve", "argo"):
            done = subprocess.run(
                [kubectl(), "kustomize", str(tmp_path / "out" / extra)], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr


def test_selectors_match_their_pods_and_no_others(versions: list[Source]) -> None:
    documents = base(versions)
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in documents
        if each["kind"] == "Deployment"
    }
    assert len(pods) == 2
    for document in documents:
        chosen = {
            "Deployment": lambda spec: spec["selector"]["matchLabels"],
            "Service": lambda spec: spec["selector"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
        }.get(document["kind"])
        if chosen is not None:
            picks = [name for name, labels in pods.items() if chosen(document["spec"]).items() <= labels.items()]
            assert picks == [document["metadata"]["name"]]
    [policy] = [each for each in documents if each["kind"] == "NetworkPolicy"]
    assert all(policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items() for labels in pods.values())
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in documents if each["kind"] == "HorizontalPodAutoscaler"}
    assert scaled == set(pods)
    services = {each["metadata"]["name"] for each in documents if each["kind"] == "Service"}
    for route in (each for each in documents if each["kind"] in CUSTOM):
        assert {each["name"] for each in route["spec"]["rules"][0]["backendRefs"]} == services


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_no_namespace_leaks_into_another(versions: list[Source], name: str) -> None:
    text = yaml.safe_dump_all(merged(base(versions), name, CLUSTER))
    assert {each["metadata"]["namespace"] for each in yaml.safe_load_all(text)} == {f"seatrial-{name}"}
    assert not any(f"seatrial-{other}" in text for other in ENVIRONMENTS if other != name)
    assert all("namespace" not in each["metadata"] for each in base(versions))


def test_prod_is_pinned_to_bytes_or_starts_nothing(versions: list[Source]) -> None:
    def images(name: str, cluster: Cluster) -> set[str]:
        pods = [
            each["spec"]["template"]["spec"]
            for each in merged(base(versions, cluster), name, cluster)
            if each["kind"] == "Deployment"
        ]
        return {one["image"] for pod in pods for one in [*pod["containers"], *pod["initContainers"]]}

    assert images("prod", CLUSTER) == {f"{CLUSTER.image}@{PLACEHOLDER}"}
    assert images("dev", CLUSTER) == {f"{CLUSTER.image}:26.09-py3"}
    assert images("prod", replace(CLUSTER, digest=PINNED)) == {f"{CLUSTER.image}@{PINNED}"}
    assert any("digest" in line for line in rendering.left_to_do(DEPLOYMENT, versions, CLUSTER))
    assert not any(
        "digest" in line for line in rendering.left_to_do(DEPLOYMENT, versions, replace(CLUSTER, digest=PINNED))
    )


def test_the_pod_is_hardened_probed_by_version_and_drains(versions: list[Source]) -> None:
    [first, second] = [each["spec"]["template"]["spec"] for each in base(versions) if each["kind"] == "Deployment"]
    for version, pod in ((1, first), (2, second)):
        [triton], [verify] = pod["containers"], pod["initContainers"]
        for container in (triton, verify):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"] == container["resources"]["requests"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for probe in ("readinessProbe", "startupProbe"):
            assert triton[probe]["httpGet"]["path"] == f"/v2/models/Pictures_8/versions/{version}/ready"
        assert (
            triton["startupProbe"]["periodSeconds"] * triton["startupProbe"]["failureThreshold"] >= CLUSTER.load_seconds
        )
        drain = int(triton["lifecycle"]["preStop"]["exec"]["command"][1])
        assert pod["terminationGracePeriodSeconds"] > drain + CLUSTER.exit_seconds
        assert f"--exit-timeout-secs={CLUSTER.exit_seconds}" in triton["args"]
        assert all(mount["readOnly"] for mount in triton["volumeMounts"] if mount["name"] not in ("scratch", "shm"))
        assert {"scratch", "shm"} == {each["name"] for each in pod["volumes"] if "emptyDir" in each}
        mounted = {mount["name"] for one in (triton, verify) for mount in one["volumeMounts"]}
        assert mounted == {each["name"] for each in pod["volumes"]}
        assert "nvidia.com/gpu" not in triton["resources"]["limits"]
    gpu = replace(DEPLOYMENT, instances=Instances(kind="gpu"))
    pods = [each["spec"]["template"]["spec"] for each in base(versions, deployment=gpu) if each["kind"] == "Deployment"]
    assert all(pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1 for pod in pods)


def test_each_server_is_configured_for_its_version_alone(versions: list[Source]) -> None:
    for version, source in enumerate(versions, start=1):
        assert list(parse(source.config).version_policy.specific.versions) == [version]
        assert {path for path, _ in source.files} >= {"model.onnx", "placement.json"}
        assert "--model-control-mode=explicit" in arguments(source, CLUSTER)
        assert "#" not in source.config  # the comment names the newest artifact, and a new one must not restart stable


def test_the_verifier_refuses_changed_added_and_linked_files(
    versions: list[Source], repository: Path, tmp_path: Path
) -> None:
    """The init container's own script, run here on a copy of what it would see."""
    documents = [each for each in base(versions) if each["metadata"]["name"].endswith("-v1")]
    [pod] = [each["spec"]["template"]["spec"] for each in documents if each["kind"] == "Deployment"]
    [config] = [each for each in documents if each["kind"] == "ConfigMap"]
    command = pod["initContainers"][0]["command"]
    folder, sums = tmp_path / "1", tmp_path / "sha256sums"
    shutil.copytree(repository / "Pictures_8" / "1", folder)
    sums.write_text(config["data"]["sha256sums"])
    script = command[2].replace("/etc/seatrial/sha256sums", str(sums))

    def passes() -> bool:
        return (
            subprocess.run([*command[:2], script, command[3], str(folder), command[5]], capture_output=True).returncode
            == 0
        )

    assert passes()
    (folder / "model.py").write_text("import os")
    assert not passes()
    (folder / "model.py").unlink()
    (folder / "link").symlink_to("model.onnx")
    assert not passes()
    (folder / "link").unlink()
    assert passes()
    (folder / "model.onnx").write_bytes(b"other")
    assert not passes()


def test_python_models_need_an_image_that_can_run_them(repository: Path, tmp_path: Path) -> None:
    store, other = Store(tmp_path / "store"), replace(DEPLOYMENT, backend="python")
    place(pictures(store, tmp_path / "made"), other, store=store, repository=tmp_path / "models")
    routes = Routes(model=DEPLOYMENT.name, stable=1)
    with pytest.raises(ConfigRuleError, match="ONNX Runtime"):
        rendering.sources(tmp_path / "models", routes, CLUSTER)
    assert rendering.sources(tmp_path / "models", routes, replace(CLUSTER, image="registry.example.com/triton-ort"))
    with pytest.raises(MissingError, match="no placed version 9"):
        rendering.sources(repository, Routes(model=DEPLOYMENT.name, stable=9), CLUSTER)


def test_a_folder_is_replaced_only_if_it_was_rendered(versions: list[Source], tmp_path: Path) -> None:
    files = rendering.render(DEPLOYMENT, versions, ROUTES, CLUSTER)
    rendering.write(files, tmp_path / "out")
    rendering.write({"one.yaml": "a: 1\n"}, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [rendering.MARK, "one.yaml"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").write_text("x")
    with pytest.raises(ConfigError, match="did not render"):
        rendering.write(files, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["precious"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"schema": 2}, "schema"),
        ({"release": "latest"}, "release"),
        ({"digest": "sha256:12"}, "digest"),
        ({"image": "triton:latest@x"}, "image"),
        ({"hostname": "Not A Host"}, "hostname"),
        ({"grpc_hostname": "models.example.com"}, "grpc_hostname"),
        ({"store_cidr": "0.0.0.0/0"}, "store_cidr"),
        ({"claim": "My_Claim"}, "claim"),
        ({"queue_us": 0}, "queue_us"),
        ({"drain_seconds": 0}, "drain_seconds"),
        ({"gateway": Gateway(name="-")}, "gateway.name"),
        ({"resources": Resources(memory="lots")}, "resources.memory"),
        ({"environments": {"dev": Environment()}}, "environments"),
        (
            {"environments": {"dev": Environment(least=3, most=2), "staging": Environment(), "prod": Environment()}},
            "environments.dev.most",
        ),
        (
            {"environments": {each: Environment(namespace="one") for each in ("dev", "staging", "prod")}},
            "environments",
        ),
    ],
)
def test_a_wrong_cluster_names_the_field(change: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(CLUSTER, **change)
    assert caught.value.where == where
    assert caught.value.next_step
