"""Audit of manifests: what seatrial renders is clean, each planted breach is found, and no input ends the audit."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatrial.optimize.errors import MissingError
from seatrial.serve.deployment import Deployment
from seatrial.serve.kubernetes import render as rendering
from seatrial.serve.kubernetes.cluster import Cluster
from seatrial.serve.security import arguments
from seatrial.serve.security.audit import audit_folder
from seatrial.serve.security.manifests import audit, read
from seatrial.serve.security.rules import RULES
from seatrial.serve.traffic.routes import Routes
from tests.serve.security.test_security_folders import placed_in, rules


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return placed_in(tmp_path_factory.mktemp("placed"))


@pytest.fixture(scope="module")
def rendered(placed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cluster = Cluster(schema=1, hostname="m.example.com", grpc_hostname="g.example.com", digest="sha256:" + "5" * 64)
    routes = Routes(model="native", stable=1)
    deployment = Deployment(schema=1, name="native", backend="native", max_batch_size=8)
    versions = rendering.sources(placed / "models", routes, cluster)
    files = rendering.render(deployment, versions, routes, cluster, extras=("argo", "kserve"))
    folder = tmp_path_factory.mktemp("rendered") / "out"
    rendering.write(files, folder)
    return folder


@pytest.fixture(scope="module")
def documents(rendered: Path) -> list[tuple[str, Any]]:
    return [(where, document) for where, document in read(rendered)[0]]


@pytest.fixture
def manifests(rendered: Path, tmp_path: Path) -> Path:
    shutil.copytree(rendered, tmp_path / "out")
    return tmp_path / "out"


def test_what_seatrial_renders_has_no_finding_at_all(manifests: Path) -> None:
    found = audit_folder(manifests, None)
    assert not found.findings
    assert any("documents" in line for line in found.looked)


def pod(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    return lambda document: change(document["spec"]["template"]["spec"])


def triton(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    return pod(lambda spec: change(spec["containers"][0]))


MANIFESTS: list[tuple[str, str, Callable[[dict[str, Any]], object]]] = [
    ("image-tag", "Deployment", triton(lambda each: each.update(image="tritonserver:latest"))),
    ("image-tag", "Deployment", triton(lambda each: each.update(image="registry:5000/tritonserver"))),
    ("image-digest", "Deployment", triton(lambda each: each.update(image="mine/tritonserver:26.07-py3"))),
    ("old-server", "Deployment", triton(lambda each: each.update(image="nvcr.io/nvidia/tritonserver:25.06-py3"))),
    ("root", "Deployment", pod(lambda each: each["securityContext"].update(runAsNonRoot=False))),
    ("root", "Deployment", triton(lambda each: each["securityContext"].update(runAsUser=0))),
    ("privileged", "Deployment", triton(lambda each: each["securityContext"].update(privileged=True))),
    ("privileged", "Deployment", triton(lambda each: each["securityContext"].pop("allowPrivilegeEscalation"))),
    ("privileged", "Deployment", pod(lambda each: each.update(hostNetwork=True))),
    ("privileged", "Deployment", pod(lambda each: each["volumes"].append({"name": "h", "hostPath": {"path": "/"}}))),
    ("writable-root", "Deployment", triton(lambda each: each["securityContext"].pop("readOnlyRootFilesystem"))),
    (
        "capabilities",
        "Deployment",
        triton(lambda each: each["securityContext"]["capabilities"].update(add=["SYS_ADMIN"])),
    ),
    ("no-seccomp", "Deployment", pod(lambda each: each["securityContext"].pop("seccompProfile"))),
    ("token", "Deployment", pod(lambda each: each.pop("automountServiceAccountToken"))),
    ("no-limits", "Deployment", triton(lambda each: each["resources"].pop("limits"))),
    ("writable-models", "Deployment", triton(lambda each: each["volumeMounts"][0].update(readOnly=False))),
    ("secret-in-manifest", "Deployment", triton(lambda each: each["env"].append({"name": "API_KEY", "value": "1234"}))),
    (
        "secret-argument",
        "Deployment",
        triton(lambda each: each["args"].append("--http-restricted-api=trace:k=hunter2")),
    ),
    ("secret-argument", "Deployment", triton(lambda each: each["args"].append("--password=hunter2"))),
    ("open-control", "Deployment", triton(lambda each: each.update(command=["tritonserver"]))),
    ("open-shared-memory", "Deployment", triton(lambda each: each.update(command=["tritonserver"]))),
    ("auto-complete", "Deployment", triton(lambda each: each["args"].remove("--disable-auto-complete-config"))),
    ("tensor-trace", "Deployment", triton(lambda each: each["args"].append("--trace-config=level=TENSORS"))),
    ("client-shm", "Deployment", triton(lambda each: each["args"].append("--allow-client-shm=true"))),
    ("cache", "Deployment", triton(lambda each: each["args"].append("--cache-config=local,size=1048576"))),
    (
        "server-readiness",
        "Deployment",
        triton(lambda each: each["readinessProbe"]["httpGet"].update(path="/v2/health/ready")),
    ),
    ("no-network-policy", "NetworkPolicy", lambda each: each["spec"]["podSelector"].update(matchLabels={"a": "b"})),
    ("open-network-policy", "NetworkPolicy", lambda each: each["spec"]["ingress"].append({})),
    ("open-network-policy", "NetworkPolicy", lambda each: each["spec"].update(policyTypes=["Ingress"])),
    ("exposed-service", "Service", lambda each: each["spec"].update(type="LoadBalancer")),
    (
        "wide-route",
        "HTTPRoute",
        lambda each: each["spec"]["rules"][0]["matches"][0].update(path={"type": "PathPrefix", "value": "/v2"}),
    ),
    ("wide-route", "GRPCRoute", lambda each: each["spec"]["rules"][0].pop("matches")),
    ("secret-in-manifest", "Service", lambda each: each.update(kind="Secret", stringData={"key": "hunter2"})),
]


@pytest.mark.parametrize(("rule", "kind", "plant"), MANIFESTS)
def test_a_breach_in_manifests_is_found(
    manifests: Path, rule: str, kind: str, plant: Callable[[dict[str, Any]], object]
) -> None:
    for path in (manifests / "base").glob("*.yaml"):
        documents = list(yaml.safe_load_all(path.read_text()))
        for document in documents:
            if document["kind"] == kind:
                plant(document)
        path.write_text(yaml.safe_dump_all(documents))
    found = audit_folder(manifests, None)
    assert rule in rules(found, RULES[rule].exposed)
    assert "hunter2" not in str(found.to_json())  # a finding must not spread the secret it tells of


def pruned(data: st.DataObject, value: Any) -> Any:
    """The same value with something replaced or left out somewhere."""
    if data.draw(st.integers(0, 4)) == 0:
        return data.draw(st.sampled_from([None, {}, [], "text", 0, [None], {"name": None}]))
    if isinstance(value, dict) and value:
        chosen = data.draw(st.sampled_from(sorted(value)))
        kept = {key: each for key, each in value.items() if key != chosen}
        return kept if data.draw(st.booleans()) else kept | {chosen: pruned(data, value[chosen])}
    if isinstance(value, list) and value:
        return [pruned(data, value[0]), *value[1:]]
    return value


def test_an_object_without_its_parts_is_a_finding() -> None:
    for kind in ("Deployment", "Pod", "Service", "HTTPRoute", "NetworkPolicy"):
        assert {each.rule for each in audit([("x.yaml", {"kind": kind, "metadata": None})])} == {"malformed"}


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_manifest_however_broken_ends_the_audit(documents: list[tuple[str, Any]], data: st.DataObject) -> None:
    place, document = documents[data.draw(st.integers(0, len(documents) - 1))]
    broken = {**document, "spec": pruned(data, document.get("spec", {})), "images": pruned(data, [{"name": "x"}])}
    list(audit([(place, broken)]))


@pytest.mark.parametrize(("digest", "rule"), [("", "image-tag"), ("sha256:" + "0" * 64, "image-placeholder")])
def test_prod_must_pin_a_digest(manifests: Path, digest: str, rule: str) -> None:
    path = manifests / "overlays" / "prod" / "kustomization.yaml"
    document = yaml.safe_load(path.read_text())
    document["images"] = [{"name": "nvcr.io/nvidia/tritonserver", "digest": digest}] if digest else []
    path.write_text(yaml.safe_dump(document))
    assert rule in rules(audit_folder(manifests, None))


def test_a_folder_of_neither_is_refused_and_a_broken_file_is_said_to_be_unseen(manifests: Path, tmp_path: Path) -> None:
    (manifests / "broken.yaml").write_text("a: [")
    assert any("broken.yaml" in line for line in audit_folder(manifests, None).unseen)
    (tmp_path / "nothing").mkdir()
    for folder in (tmp_path / "nothing", tmp_path / "gone"):
        with pytest.raises(MissingError):
            audit_folder(folder, None)


def test_flags_are_read_however_they_are_written() -> None:
    given = ["tritonserver", "--http-port", "9000", "--strict-readiness=false", 'sh -c "x --log-verbose=1"', "--alone"]
    assert arguments.flags(given) == {
        "http-port": ["9000"],
        "strict-readiness": ["false"],
        "log-verbose": ["1"],
        "alone": [""],
    }
    closed = ",".join(arguments.ADMINISTRATIVE)
    open_ = [f"--{flag}={closed}:k=$v" for flag in arguments.RESTRICTING]
    assert not list(arguments.unrestricted(open_))
    assert len(list(arguments.unrestricted(["--model-control-mode=explicit"]))) == 2 * len(arguments.ADMINISTRATIVE)


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("--token=abc", True),
        ("PASSWORD='abc'", True),
        ("--api-key=abc", True),
        ("--http-restricted-api=trace:k=abc", True),
        ("--token=/run/secrets/token", False),
        ('token="$(cat /run/secrets/token)"', False),
        ("--grpc-restricted-protocol=trace:k=$key", False),
        ("--load-model=token", False),
    ],
)
def test_a_secret_is_told_from_where_it_is_read(argument: str, told: bool) -> None:
    assert bool(list(arguments.secrets([argument], "here", exposed=True))) == told


def test_every_rule_says_why_and_how_to_mend_it() -> None:
    for name, rule in RULES.items():
        assert rule.why, name
        assert rule.fix, name
        assert rule.private != "high", name  # what only this machine reaches never fails an audit
