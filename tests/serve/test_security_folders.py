"""Audits of folders: a clean one has nothing of high severity, and every breach that is planted is found."""

import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimize.artifact import Artifact, File, TensorSpec
from optimize.errors import IntegrityError, MissingError
from optimize.store import Store
from serve.deployment import Deployment
from serve.kubernetes import render as rendering
from serve.kubernetes.cluster import Cluster
from serve.security import arguments
from serve.security.audit import audit_folder
from serve.security.manifests import audit, read
from serve.security.rules import RULES
from serve.traffic.routes import Routes
from serve.triton.flavour import PLACED_CODE
from serve.triton.repository.placing import place
from serve.triton.repository.vouching import check
from tests.models.made_by import MADE_BY


def artifact(store: Store, folder: Path, width: int | str = 4) -> Artifact:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"graph")
    tensors = {"inputs": ("x", width), "outputs": ("y", 2)}
    specs = {
        side: (TensorSpec(name=name, dtype="float32", shape=("n", size)),) for side, (name, size) in tensors.items()
    }
    files = (File.of(folder / "model.onnx"),)
    made = Artifact(name="m", format="onnx", files=files, requires={}, made_by=MADE_BY, **specs)
    return store.put(made, folder)


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store and a repository with the same model in both flavours, as seatrial places it."""
    folder = tmp_path_factory.mktemp("placed")
    store = Store(folder / "store")
    made = artifact(store, folder / "made")
    for flavour in ("python", "native"):
        deployment = Deployment(schema=1, name=flavour, flavour=flavour, max_batch_size=8)
        place(made, deployment, store=store, repository=folder / "models", elsewhere=True)
    return folder


@pytest.fixture
def site(placed: Path, tmp_path: Path) -> tuple[Path, Store]:
    shutil.copytree(placed / "models", tmp_path / "models")
    return tmp_path / "models", Store(placed / "store")


def rules(found: Any, severity: str = "") -> set[str]:
    return {each.rule for each in found.findings if severity in ("", each.severity)}


def test_what_seatrial_places_has_nothing_but_notes(site: tuple[Path, Store]) -> None:
    found = audit_folder(*site)
    assert found.passed
    assert rules(found) == {"unbounded-queue"}
    assert not found.unseen


@pytest.mark.parametrize("name", sorted(PLACED_CODE.keys() - {"model.py"}))
def test_each_file_that_serves_the_python_flavour_is_vouched_for(site: tuple[Path, Store], name: str) -> None:
    (path,) = site[0].glob(f"*/1/{name}")
    assert "foreign-code" not in rules(audit_folder(*site))
    path.write_text(path.read_text() + "# more")
    assert "changed" in rules(audit_folder(*site), "high")
    with pytest.raises(IntegrityError, match="must not be loaded"):
        check(site[0], (path.parents[1].name,), site[1])


def edit(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def executable(text: str) -> Callable[[Path], object]:
    def plant(version: Path) -> None:
        (version / text).parent.mkdir(exist_ok=True)
        (version / text).write_text("code")

    return plant


def bytecode(version: Path) -> None:
    """Put the folder that Python would write, in place of the file that keeps it from writing."""
    (version / "__pycache__").unlink(missing_ok=True)
    (version / "__pycache__").mkdir()
    (version / "__pycache__" / "model.cpython-311.pyc").write_bytes(b"code")


def ensemble(repository: Path) -> None:
    """Add an ensemble of somebody else over a model that is not there."""
    (repository / "both" / "1").mkdir(parents=True)
    steps = 'ensemble_scheduling { step { model_name: "gone" model_version: 1 } }'
    (repository / "both" / "config.pbtxt").write_text(f'name: "both" platform: "ensemble" {steps}')


def backend(config: Path, name: str) -> None:
    config.write_text(re.sub(r'backend: "\w+"', f'backend: "{name}"', config.read_text()))


def agent(config: Path) -> None:
    edit(config, 'model_repository_agents { agents { name: "checksum" } }')


def parameter(config: Path, key: str, value: str) -> None:
    edit(config, f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}')


PLANTED: list[tuple[str, str, Callable[[Path], object]]] = [
    ("symlink", "high", lambda version: (version / "more").symlink_to("model.onnx")),
    ("outside", "high", lambda version: (version / "more").symlink_to("/etc/hostname")),
    ("symlink", "high", lambda version: (version.parent / "2").symlink_to("1")),
    ("foreign-code", "high", executable("helper.py")),
    ("foreign-code", "high", executable("batchstrategy.so")),
    ("foreign-code", "high", lambda version: executable("batchstrategy.so")(version.parent)),
    ("foreign-code", "high", lambda version: executable("lib/more.so")(version.parent)),
    ("foreign-code", "high", lambda version: shutil.move(version.parent / "config.pbtxt", version / "more.py")),
    ("configuration", "medium", lambda version: (version.parent / "config.pbtxt").unlink()),
    ("changed", "high", lambda version: (version / "model.onnx").write_bytes(b"other")),
    ("changed", "high", lambda version: (version / "model.onnx").unlink()),
    ("changed", "high", lambda version: (version / "extra.bin").write_bytes(b"data")),
    ("changed", "high", lambda version: (version / "placement.json").write_text("{}")),
    ("unrecorded", "high", lambda version: (version / "placement.json").unlink()),
    ("hard-link", "high", lambda version: os.link(version / "model.onnx", version.parents[2] / "name")),
    ("set-id", "high", lambda version: (version / "model.onnx").chmod(0o4644)),
    ("special-file", "high", lambda version: os.mkfifo(version / "pipe")),
    ("bytecode", "high", lambda version: bytecode(version)),
    ("odd-name", "high", lambda version: (version.parent / "１").mkdir()),
    ("missing-step", "low", lambda version: ensemble(version.parents[1])),
    ("library", "high", lambda version: edit(version.parent / "config.pbtxt", 'runtime: "libtriton_evil.so"')),
    (
        "library",
        "high",
        lambda version: edit(version.parent / "config.pbtxt", 'model_operations { op_library_filename: "x.so" }'),
    ),
    ("other-backend", "high", lambda version: backend(version.parent / "config.pbtxt", "evil")),
    ("outside", "high", lambda version: backend(version.parent / "config.pbtxt", "../../evil")),
    (
        "agent",
        "medium",
        lambda version: agent(version.parent / "config.pbtxt"),
    ),
    ("cache-path", "low", lambda version: parameter(version.parent / "config.pbtxt", "trt_engine_cache_path", "/x")),
    ("parameter-path", "medium", lambda version: parameter(version.parent / "config.pbtxt", "some_file", "/x")),
    ("stray", "medium", lambda version: (version.parent / "something").write_text("")),
    ("foreign-code", "high", lambda version: (version.parent / "triton_python_backend_stub").write_text("")),
    ("world-writable", "high", lambda version: (version / "model.onnx").chmod(0o666)),
    ("world-writable", "high", lambda version: version.chmod(0o777)),
    ("pickle", "high", lambda version: (version / "weights.pkl").write_bytes(b"")),
    ("pickle", "high", lambda version: (version / "weights").write_bytes(pickle.dumps({"a": 1}))),
    ("secret-file", "high", lambda version: (version.parent / "server.key").write_text("")),
    ("secret-file", "high", lambda version: (version / "password.txt").write_text("")),
    ("configuration", "medium", lambda version: edit(version.parent / "config.pbtxt", "nonsense {")),
    (
        "outside",
        "high",
        lambda version: edit(version.parent / "config.pbtxt", 'cc_model_filenames { key: "8.6" value: "../x" }'),
    ),
    (
        "execution-environment",
        "high",
        lambda version: edit(
            version.parent / "config.pbtxt",
            'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "/tmp/env.tar.gz" } }',
        ),
    ),
    ("unbounded-dims", "low", lambda version: edit(version.parent / "config.pbtxt", 'input { name: "z" dims: -1 }')),
    ("cache", "medium", lambda version: edit(version.parent / "config.pbtxt", "response_cache { enable: true }")),
    (
        "unsafe-cache",
        "high",
        lambda version: edit(
            version.parent / "config.pbtxt", 'input { name: "z" dims: -1 } response_cache { enable: true }'
        ),
    ),
]


@pytest.mark.parametrize(("rule", "severity", "plant"), PLANTED)
@pytest.mark.parametrize("flavour", ["python", "native"])
def test_a_breach_in_a_repository_is_found(
    site: tuple[Path, Store], flavour: str, rule: str, severity: str, plant: Callable[[Path], object]
) -> None:
    plant(site[0] / flavour / "1")
    found = audit_folder(*site)
    assert rule in rules(found, severity)
    assert found.passed == (severity != "high" and rule != "agent")  # seatrial writes no agent
    elsewhere = ("unbounded-queue", "missing-step", "hard-link")
    assert all(
        str(site[0] / flavour) in each.where for each in found.findings if each.rule not in (*elsewhere, "unverified")
    )


def test_our_own_model_py_is_known_by_its_bytes(site: tuple[Path, Store]) -> None:
    edit(site[0] / "python" / "1" / "model.py", "\nimport os\n")
    assert rules(audit_folder(*site), "high") == {"changed"}
    (site[0] / "native" / "1" / "model.py").write_text("import os")  # a native model has none
    assert rules(audit_folder(*site), "high") == {"changed", "foreign-code"}


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (lambda version: (version / "model.onnx").write_bytes(b"other"), "instead of"),
        (lambda version: (version / "more").symlink_to("model.onnx"), "a link to"),
        (lambda version: (version.parent / "2").symlink_to("/"), "a link to"),
        (lambda version: (version / "placement.json").write_text("{}"), "record"),
    ],
)
def test_what_was_changed_is_not_loaded(site: tuple[Path, Store], plant: Callable[[Path], object], said: str) -> None:
    repository, store = site
    check(repository, ("native", "python"), store)
    plant(repository / "native" / "1")
    check(repository, ("python",), store)
    with pytest.raises(IntegrityError, match=said):
        check(repository, ("native",), store)


def test_without_the_store_bytes_are_said_to_be_unverified(site: tuple[Path, Store], tmp_path: Path) -> None:
    found = audit_folder(site[0], Store(tmp_path / "empty"))
    assert rules(found, "medium") == {"unverified"}
    assert found.passed


@given(st.binary(max_size=64))
def test_data_that_is_no_pickle_is_seldom_called_one(data: bytes) -> None:
    from serve.security.repository import _PICKLE_PROTOCOLS, _is_pickle

    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"seatrial-{os.getpid()}.bin"
    path.write_bytes(data)
    try:
        assert _is_pickle(path) == (data[:2] in _PICKLE_PROTOCOLS and data.endswith(b"."))
    finally:
        path.unlink()


@pytest.fixture(scope="module")
def rendered(placed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cluster = Cluster(schema=1, hostname="m.example.com", grpc_hostname="g.example.com", digest="sha256:" + "5" * 64)
    routes = Routes(model="native", stable=1)
    deployment = Deployment(schema=1, name="native", flavour="native", max_batch_size=8)
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
        assert rule.mend, name
        assert rule.private != "high", name  # what only this machine reaches never fails an audit
