"""Audits of a real Triton: what `seatrial up` starts, and what the rendered manifests would start."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest

from seatrial.bench.errors import TargetError
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Deployment
from seatrial.serve.errors import RequestError, ServerError
from seatrial.serve.kubernetes.argo import analysis
from seatrial.serve.kubernetes.cluster import Cluster
from seatrial.serve.kubernetes.pod import pod
from seatrial.serve.kubernetes.scaling import adapter_rule
from seatrial.serve.kubernetes.source import Source, read_source
from seatrial.serve.processes import end, free_ports, start_ticks, wait
from seatrial.serve.security import process
from seatrial.serve.security.arguments import ADMINISTRATIVE
from seatrial.serve.security.audit import audit_server
from seatrial.serve.security.finding import Audit
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.repository.placing import place
from seatrial.serve.triton.running import wheel
from seatrial.serve.triton.running.on_pytriton import serving
from tests.support.graphs import pictures

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENT = Deployment(schema=1, name="pictures", max_batch_size=8)
CLUSTER = Cluster(schema=1, hostname="models.example.com", image="registry.example.com/triton-ort")
KEY = "a-key-that-nobody-may-see"


@dataclass(frozen=True, kw_only=True)
class Site:
    """A store and a repository with one placed model of the Python backend."""

    folder: Path
    store: Store
    repository: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("audited")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        store = Store(folder / "store")
        place(pictures(store, folder / "made"), DEPLOYMENT, store=store, repository=folder / "models")
        yield Site(folder=folder, store=store, repository=folder / "models")


def rules(found: Audit, where: str = "") -> set[str]:
    return {each.rule for each in found.findings if each.where.startswith(where)}


def test_what_up_starts_has_nothing_high_and_every_open_door_is_told(site: Site) -> None:
    with serving(site.repository, ("pictures",)) as server:
        with Control(server.url) as control:
            before = (control.index(), control.config("pictures"))
        found = audit_server(server.url, site.store, own=False)
        with Control(server.url) as control:  # asking changed nothing, and the server still answers
            assert (control.index(), control.config("pictures")) == before
            inputs = {"image": np.zeros((1, 3, 8, 8), np.float32), "gain": np.ones((1, 1), np.float32)}
            assert control.infer("pictures", 1, inputs)["scores"].shape == (1, 5)
    assert found.passed, [each for each in found.findings if each.severity == "high"]
    open_ = set(ADMINISTRATIVE.values()) - {"open-trace", "open-logging"}  # nothing of ours asks for these two
    assert rules(found, "http ") == {*open_, "old-server", "plaintext", "no-body-limit"}
    assert rules(found, "grpc ") == {*open_, "plaintext", "stream-use-after-free"}
    assert "secret-argument" in rules(found, "process ")  # Triton takes keys no other way; a random one, kept nowhere
    assert rules(found, "metrics ") == {"open-metrics"}
    assert ("root" in rules(found, "process ")) == (os.geteuid() == 0)
    assert not {"bound-to-all", "auto-complete", "foreign-code", "changed"} & rules(found)
    assert [line.partition(":")[0] for line in found.unseen] == ["limits on the depth of JSON and the size of headers"]
    assert len(found.looked) == 5


@pytest.fixture(scope="module")
def rendered(site: Site) -> Iterator[tuple[int, int]]:
    """The very command of the rendered pod, run by the wheel's Triton: its HTTP port and process number."""
    source = read_source(site.repository, "pictures", 1, image=CLUSTER.image)
    scratch = site.folder / "scratch"
    scratch.mkdir()
    (site.folder / "key").write_text(f"{KEY}\n")
    ports, variables = free_ports(3), wheel.surroundings(scratch)
    variables["PATH"] = f"{wheel.binary(wheel.installed()).parent}:{variables['PATH']}"
    command = _command(source, site, tuple(ports))
    with (site.folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=variables, stdout=log, stderr=subprocess.STDOUT)
    started = start_ticks(server.pid) or 0
    try:
        address = f"127.0.0.1:{ports[0]}"
        with Control(address, timeout=10.0) as control:
            assert wait(control.live, 30.0), (site.folder / "server.log").read_text()
            assert wait(lambda: control.ready("pictures", 1), 30.0)  # the path that the rendered probes ask
        yield ports[0], server.pid
    finally:
        end(server.pid, started, timeout=15.0)
    for left in Path("/dev/shm").glob("rendered_test*"):
        left.unlink()


def _command(source: Source, site: Site, ports: tuple[int, ...]) -> list[str]:
    """The container's command; only paths and ports of a pod become those of this machine."""
    mounted = site.folder / "mounted" / "pictures"
    mounted.mkdir(parents=True)
    (mounted / "config.pbtxt").write_text(source.config)
    os.rename(site.repository / "pictures" / "1", mounted / "1")
    (site.repository / "pictures" / "config.pbtxt").unlink()
    container = pod(source, CLUSTER, gpu=False)["containers"][0]
    here = {
        "/etc/seatrial/control/key": str(site.folder / "key"),
        "--model-repository=/models": f"--model-repository={mounted.parent}",
        "--http-port=8000": f"--http-port={ports[0]}",
        "--grpc-port=8001": f"--grpc-port={ports[1]}",
        "--metrics-port=8002": f"--metrics-port={ports[2]}",
    }
    command = [*container["command"], *container["args"]]
    for old, new in here.items():
        assert any(old in each for each in command)
        command = [each.replace(old, new) for each in command]
    command += [f"--{side}-address=127.0.0.1" for side in ("http", "grpc", "metrics")]
    backends = wheel.backends(wheel.installed(), site.folder / "home" / "triton")
    return [*command, f"--backend-directory={backends}", "--backend-config=python,shm-region-prefix-name=rendered_test"]


def test_what_the_manifests_start_is_closed_but_for_its_metrics(site: Site, rendered: tuple[int, int]) -> None:
    found = audit_server(f"127.0.0.1:{rendered[0]}", site.store, own=False)
    assert rules(found, "http ") == {"old-server", "plaintext", "no-body-limit"}
    assert rules(found, "grpc ") == {"plaintext", "stream-use-after-free"}
    assert rules(found, "metrics ") == {"open-metrics"}
    assert "secret-argument" in rules(found, "process ")  # Triton takes keys no other way
    assert KEY not in json.dumps(found.to_json())
    assert any("closed, as recommended" in line for line in found.unseen)
    assert found.passed


def test_a_pod_answers_for_its_one_version_of_its_one_model(rendered: tuple[int, int]) -> None:
    """Whatever path or message a caller gets past the gateway, the server has nothing else to serve."""
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    seen = process.listener(rendered[0])
    assert seen is not None
    inputs = {"image": np.zeros((1, 3, 8, 8), np.float32), "gain": np.ones((1, 1), np.float32)}
    with Control(f"127.0.0.1:{rendered[0]}") as control:
        assert control.infer("pictures", 1, inputs)["scores"].shape == (1, 5)
        for other, number in (("pictures", 2), ("pictures", 0), ("others", 1)):
            with pytest.raises(RequestError):
                control.infer(other, number, inputs)
    served: dict[tuple[str, str], str] = {}
    with grpc.insecure_channel(f"127.0.0.1:{seen.port('grpc')}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for name, version in product(("pictures", "others", "../pictures"), ("", "1", "2", "0", "-1", "01", "1 ")):
            request = service_pb2.ModelInferRequest(model_name=name, model_version=version)
            for key, value in inputs.items():
                request.inputs.add(name=key, datatype="FP32", shape=value.shape)
                request.raw_input_contents.append(value.tobytes())
            try:
                served[name, version] = stub.ModelInfer(request, timeout=10).model_version
            except grpc.RpcError:
                continue
    assert set(served.values()) == {"1"}
    assert {("pictures", ""), ("pictures", "1")} <= set(served)
    assert {name for name, _ in served} == {"pictures"}
    assert not {("pictures", "2"), ("pictures", "0"), ("pictures", "-1")} & set(served)


def test_the_metrics_that_scaler_and_analysis_ask_for_are_there(rendered: tuple[int, int]) -> None:
    seen = process.listener(rendered[0])
    assert seen is not None
    with urlopen(f"http://127.0.0.1:{seen.port('metrics')}/metrics") as reply:
        text = reply.read().decode()
    asked = str(adapter_rule()) + str(analysis("pictures", CLUSTER))
    for name in set(re.findall(r"nv_\w+", asked)):
        assert re.search(rf'^{name}{{.*model="pictures".*version="1"', text, re.MULTILINE), name


def test_the_verb_says_the_same_and_what_others_reach_is_high(
    rendered: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "seatrial.serve.cli", "audit", f"http://127.0.0.1:{rendered[0]}", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["passed"] is True
    assert told["counts"]["high"] == 0
    seen = process.listener(rendered[0])
    assert seen is not None
    assert seen.pid == rendered[1]
    assert not seen.exposed
    # No test binds to all addresses: the same process, as it would look if it had.
    open_ = replace(seen, listens=(("0.0.0.0", rendered[0]),))
    assert open_.exposed
    monkeypatch.setattr(process, "listener", lambda port: open_)
    found = audit_server(f"127.0.0.1:{rendered[0]}", None, own=False)
    high = {each.rule for each in found.findings if each.severity == "high"}
    assert high >= {"bound-to-all", "old-server", "secret-argument"}
    assert not found.passed


def test_up_refuses_bytes_that_were_changed_after_placing(site: Site, tmp_path: Path, home: Path) -> None:
    store = Store(home / "store")
    placed = place(pictures(store, tmp_path / "made"), DEPLOYMENT, store=store, repository=tmp_path / "models")
    (placed.path / "model.onnx").write_bytes(b"other")
    command = [
        sys.executable,
        "-m",
        "seatrial.serve.cli",
        "up",
        "--repository",
        str(tmp_path / "models"),
        "--http-port",
        "0",
    ]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 5, done.stdout
    assert "pictures must not be loaded" in done.stderr
    assert not (home / "triton" / "server.json").exists()


def test_other_machines_and_other_servers_are_refused() -> None:
    with pytest.raises(TargetError, match="not this machine"):
        audit_server("http://192.0.2.1:8000", None, own=False)
    with pytest.raises(TargetError, match="not this machine"):
        audit_server("http://127.0.0.1:8000", None, grpc_url="192.0.2.1:8001", own=False)
    with socket.socket() as quiet:
        quiet.bind(("127.0.0.1", 0))
        with pytest.raises(ServerError, match="does not answer"):
            audit_server(f"127.0.0.1:{quiet.getsockname()[1]}", None, own=False)
