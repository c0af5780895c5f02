"""The fleet on Deployments: with the real kubectl against a small API whose nodes do what a test chooses.

No cluster was ever met: pods come up or fail at once, and what they say is what Kubernetes documents.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.serve.errors import ModelLoadError, ServerError
from seatrial.serve.fleet import Fleet
from seatrial.serve.kubernetes import server
from seatrial.serve.kubernetes.cluster import Cluster, Environment
from seatrial.serve.kubernetes.on_kubectl import KubectlRouter
from seatrial.serve.kubernetes.on_kubectl_fleet import KubectlFleet
from seatrial.serve.kubernetes.routes import http_route
from seatrial.serve.kubernetes.scaling import autoscaler
from seatrial.serve.kubernetes.source import Source
from seatrial.serve.kubernetes.workload import KEPT, Workload
from seatrial.serve.traffic.routes import Routes
from tests.support import kube_api
from tests.support.kube_nodes import ERROR, OOM, UP, Nodes, kubeconfig, waiting

pytestmark = pytest.mark.experimental("Kubernetes")

CLUSTER = Cluster(schema=1, hostname="models.example.com")
STABLE = Routes(model="scenes", stable=3)
Objects = dict[str, dict[str, Any]]


def sources(*versions: int) -> list[Source]:
    return [Source(model="scenes", version=each, config="", files=()) for each in versions]


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: Nodes) -> Iterator[Objects]:
    """A namespace as rendered for versions 3 and 4, of which 4 is scaled to none."""
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl on the PATH")
    both = [server.deployment(each, CLUSTER, gpu=False) for each in sources(3, 4)]
    scalers = [autoscaler(each, CLUSTER, Environment(least=2, most=4)) for each in sources(3, 4)]
    both[0]["spec"]["replicas"], both[1]["spec"]["replicas"] = 3, 0
    with kube_api.serving(http_route(STABLE, CLUSTER), *both, *scalers, nodes=nodes) as (url, objects):
        for name, value in kubeconfig(tmp_path, url).items():
            monkeypatch.setenv(name, value)
        nodes(objects)
        nodes.scaled.clear()
        yield objects


def fleet(**options: Any) -> KubectlFleet:
    return KubectlFleet("prod", patience=options.pop("patience", 5.0), **options)


@pytest.mark.slow
def test_capacity_comes_first_and_leaves_when_no_route_names_it(api: Objects, nodes: Nodes) -> None:
    made: Fleet = fleet()
    made.serve("scenes", (3, 4))
    made.serve("scenes", (3, 4))
    assert nodes.scaled == [(4, 2)]  # once, to what its autoscaler is declared with
    with pytest.raises(ServerError, match="version 3 is still used by a route"):
        made.serve("scenes", (4,))
    assert nodes.scaled == [(4, 2)]
    KubectlRouter("prod").apply(Routes(model="scenes", stable=4))
    made.serve("scenes", (4,))
    assert nodes.scaled[1:] == [(3, 0)]
    assert api[kube_api.path_of("Deployment", "scenes-v3")]["metadata"]["annotations"][KEPT] == "3"
    made.serve("scenes", (3, 4))
    assert nodes.scaled[2:] == [(3, 3)]  # as many as it had under traffic


@pytest.mark.parametrize(
    ("fate", "said"),
    [
        (waiting("ImagePullBackOff", "no such manifest"), "ImagePullBackOff, no such manifest"),
        (waiting("CrashLoopBackOff", died=ERROR, restarts=2), "terminated with 1: Error, failed to load 'scenes'"),
        (waiting("CrashLoopBackOff", died=OOM, restarts=1), "terminated with 137: OOMKilled"),
        (waiting("ContainerCreating"), "not available within 0.1 s: version 4: 0 of 2 servers are ready"),
    ],
    ids=["image", "crash", "memory", "slow"],
)
@pytest.mark.slow
def test_what_does_not_come_up_is_told_in_the_pods_own_words(
    api: Objects, nodes: Nodes, fate: dict[str, Any], said: str
) -> None:
    nodes.fate[4] = fate
    slow = fate["state"]["waiting"]["reason"] == "ContainerCreating"
    with pytest.raises(ModelLoadError) as caught:
        fleet(patience=0.1 if slow else 600.0).serve("scenes", (4,))  # what is beyond hope is not waited for
    assert said in caught.value.what
    assert (3, 0) not in nodes.scaled  # the stable version serves as before
    told = fleet().health("scenes", 4)
    assert (told.ok, told.restarts) == (False, 2 * fate["restartCount"])
    assert fleet().health("scenes", 3).ok


@pytest.mark.slow
def test_health_counts_restarts_and_reads_memory_where_it_is_measured(api: Objects, nodes: Nodes) -> None:
    nodes.fate[3] = UP | {"restartCount": 1, "lastState": {"terminated": OOM}}
    told = fleet().health("scenes", 3)
    assert (told.ok, told.reason, told.restarts, told.memory) == (True, "", 3, 0)
    usage = [[{"usage": {"memory": text}}] for text in ("1048576Ki", "2Gi")]
    metrics = {"kind": "PodMetricsList", "items": [{"containers": each} for each in usage]}
    api["/apis/metrics.k8s.io/v1beta1/namespaces/prod/pods"] = metrics | {"metadata": {}}
    assert fleet().health("scenes", 3).memory == 2 << 30
    assert fleet().health("scenes", 4).reason == "scaled to zero servers"
    assert "no Deployment" in fleet().health("scenes", 5).reason
    with pytest.raises(ModelLoadError, match="no Deployment scenes-v5"):
        fleet().serve("scenes", (3, 5))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'Error from server (Forbidden): you may not' >&2; exit 1", "you may not"),
        ("echo '{'", "is not JSON"),
    ],
)
def test_a_cluster_that_refuses_or_talks_nonsense_is_a_server_error(tmp_path: Path, script: str, said: str) -> None:
    """The stand-in is a script, for what no small API says through a real kubectl."""
    program = tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    made = KubectlFleet("prod", kubectl=str(program))
    with pytest.raises(ServerError, match=said):
        made.serve("scenes", (3,))
    with pytest.raises(ServerError, match=said):
        made.health("scenes", 3)
    with pytest.raises(ServerError, match="cannot be run"):
        KubectlFleet("prod", kubectl=str(tmp_path / "gone")).health("scenes", 3)


@pytest.mark.slow
def test_one_that_fails_does_not_keep_another_from_coming_up(api: Objects, nodes: Nodes) -> None:
    fleet().serve("scenes", (3, 4))
    KubectlRouter("prod").apply(Routes(model="scenes", stable=4))
    fleet().serve("scenes", (4,))
    nodes.fate[4] = waiting("CrashLoopBackOff", died=ERROR, restarts=1)
    nodes.late[3] = 12  # a look at Deployments, autoscalers and pods is three
    with pytest.raises(ModelLoadError, match="version 4: triton: CrashLoopBackOff") as caught:
        fleet().serve("scenes", (3, 4))
    assert "version 3" not in caught.value.what
    assert fleet().health("scenes", 3).ok  # so that whoever goes back can


@settings(max_examples=60, deadline=None)
@given(
    replicas=st.integers(0, 9), least=st.integers(1, 9), kept=st.integers(0, 9), updated=st.integers(0, 9),
    available=st.integers(0, 9), behind=st.booleans(),
)  # fmt: skip
def test_complete_and_stopped_are_never_both_and_only_said_of_the_newest_generation(
    replicas: int, least: int, kept: int, updated: int, available: int, behind: bool
) -> None:
    status = {"observedGeneration": 7 - behind, "updatedReplicas": updated, "availableReplicas": available}
    metadata = {"name": "scenes-v3", "generation": 7, "annotations": {KEPT: str(kept)}}
    made = Workload(deployment={"metadata": metadata, "spec": {"replicas": replicas}, "status": status}, least=least)
    assert made.declared == max(least, kept)
    assert not (made.complete and made.stopped)
    assert not (behind and (made.complete or made.stopped))
    if made.complete:
        assert min(updated, available) >= min(replicas, max(least, kept)) >= 1


def test_an_autoscaler_that_gets_no_more_servers_does_not_make_a_version_incomplete() -> None:
    status = {"observedGeneration": 4, "replicas": 5, "updatedReplicas": 5, "availableReplicas": 2}
    deployment = {"metadata": {"name": "scenes-v3", "generation": 4}, "spec": {"replicas": 5}, "status": status}
    assert Workload(deployment=deployment, least=2).complete
    assert not Workload(deployment=deployment, least=3).complete
    assert not Workload(deployment=deployment | {"metadata": {"name": "scenes-v3", "generation": 5}}, least=2).complete
