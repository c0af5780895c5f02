"""The router on HTTPRoutes: with the real kubectl against a small API, and with a stand-in for its faults.

No cluster was ever met: the API has neither schemas nor admission, and its gateway accepts at once.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatrial.serve.errors import RouterError
from seatrial.serve.kubernetes.cluster import Cluster
from seatrial.serve.kubernetes.on_kubectl import KubectlRouter
from seatrial.serve.kubernetes.routes import grpc_route, http_route
from seatrial.serve.traffic.routes import Router, Routes
from tests.support import kube_api, kubectl_stand_in
from tests.support.kube_nodes import kubeconfig

pytestmark = pytest.mark.experimental("Kubernetes")

CLUSTER = Cluster(schema=1, hostname="models.example.com", grpc_hostname="grpc.models.example.com")
STABLE = Routes(model="scenes", stable=3)
SPLIT = Routes(model="scenes", stable=3, candidate=4, share=0.25, mirror=0.5)
KINDS = ("HTTPRoute", "GRPCRoute")
PLAN = (
    Routes(model="scenes", stable=3, candidate=4, mirror=0.2),
    *(Routes(model="scenes", stable=3, candidate=4, share=share) for share in (0.05, 1.0)),
    Routes(model="scenes", stable=4),
    STABLE,
)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, dict[str, Any]]]:
    """The objects of an API that the real kubectl talks to."""
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl on the PATH")
    with kube_api.serving(http_route(STABLE, CLUSTER), grpc_route(STABLE, CLUSTER)) as (url, objects):
        for name, value in kubeconfig(tmp_path, url).items():
            monkeypatch.setenv(name, value)
        yield objects


@pytest.mark.slow
def test_the_real_kubectl_takes_a_whole_plan_and_its_undoing(api: dict[str, dict[str, Any]]) -> None:
    made = KubectlRouter("prod", kinds=KINDS)
    for wanted in PLAN:
        made.apply(wanted)
        assert made.current("scenes") == wanted
        assert made.named("scenes") == set(wanted.versions)
        generations = [each["metadata"]["generation"] for each in api.values()]
        assert len(set(generations)) == 1
    KubectlRouter("prod", kinds=KINDS[1:]).apply(SPLIT)  # as if it had died between the two
    assert made.named("scenes") == {3, 4}
    assert made.current("nobody") is None
    assert made.named("nobody") == set()


def test_the_real_kubectl_loses_a_race_without_harm(
    api: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = KubectlRouter("prod")
    replace = made._replace

    def overtaken(route: dict[str, Any]) -> dict[str, Any]:
        for each in api.values():
            each["metadata"]["resourceVersion"] = "8"
        return replace(route)

    monkeypatch.setattr(made, "_replace", overtaken)
    with pytest.raises(RouterError, match="another process"):
        made.apply(SPLIT)
    assert KubectlRouter("prod").current("scenes") == STABLE
    assert {each["metadata"]["generation"] for each in api.values()} == {1}  # and nothing of theirs is put back


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A namespace with the two routes that `seatrial render` would have left there, defaults filled in."""
    monkeypatch.setenv("STAND_IN", str(tmp_path))
    program = tmp_path / "kubectl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {kubectl_stand_in.__file__} "$@"\n')
    program.chmod(0o755)
    for route in (http_route(STABLE, CLUSTER), grpc_route(STABLE, CLUSTER)):
        route["metadata"] |= {"namespace": "prod", "resourceVersion": "7", "generation": 1}
        for reference in route["spec"]["rules"][0]["backendRefs"]:
            reference |= {"group": "", "kind": "Service"}
        (tmp_path / f"prod.{route['kind'].lower()}.scenes.json").write_text(json.dumps(route))
    return tmp_path


def router(folder: Path, **options: object) -> KubectlRouter:
    return KubectlRouter("prod", kinds=KINDS, kubectl=str(folder / "kubectl"), **options)  # type: ignore[arg-type]


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().split("\n")[:-1]


def stored(folder: Path, kind: str) -> dict[str, object]:
    return dict(json.loads((folder / f"prod.{kind}.scenes.json").read_text()))


def test_applied_routes_are_read_back_from_the_cluster(folder: Path) -> None:
    made: Router = router(folder)
    assert made.current("scenes") == STABLE
    made.apply(SPLIT)
    assert made.current("scenes") == SPLIT
    assert KubectlRouter("prod", kinds=KINDS[1:], kubectl=str(folder / "kubectl")).current("scenes") == SPLIT
    assert made.current("nobody") is None


def test_applying_the_same_again_changes_nothing(folder: Path) -> None:
    router(folder).apply(SPLIT)
    before = stored(folder, "httproute")
    (folder / "calls").unlink()
    router(folder).apply(SPLIT)
    assert stored(folder, "httproute") == before
    assert not any(call.startswith("replace") for call in calls(folder))


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.integers(0, 10_000), mirror=st.integers(0, 10_000))
@pytest.mark.slow
def test_any_step_of_a_plan_comes_back_as_it_was(folder: Path, share: int, mirror: int) -> None:
    wanted = Routes(model="scenes", stable=3, candidate=4, share=share / 10_000, mirror=mirror / 10_000)
    router(folder).apply(wanted)
    assert router(folder).current("scenes") == wanted


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("conflict", "another process"),
        ("forbid httproute", "you may not"),
        ("forbid grpcroute", "you may not"),
        ("refuse httproute", "refused the HTTPRoute: Because"),
        ("refuse grpcroute", "refused the GRPCRoute: Because"),
        ("slow gateway", "no gateway accepted the HTTPRoute"),
        ("lost answer", "the connection broke"),
        ("nonsense", "is not JSON"),
    ],
)
@pytest.mark.slow
def test_a_refusal_leaves_the_old_routes_in_force(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str, said: str
) -> None:
    monkeypatch.setenv("FAULT", fault)
    with pytest.raises(RouterError, match=said):
        router(folder, timeout=1.0).apply(SPLIT)
    monkeypatch.setenv("FAULT", "")
    for kind in KINDS:
        assert KubectlRouter("prod", kinds=(kind,), kubectl=str(folder / "kubectl")).current("scenes") == STABLE


def test_without_a_route_or_a_kubectl_the_error_says_what_to_do(folder: Path) -> None:
    with pytest.raises(RouterError, match="there is no HTTPRoute for nobody") as caught:
        router(folder).apply(Routes(model="nobody", stable=1))
    assert "render" in caught.value.next_step
    with pytest.raises(RouterError, match="kubectl cannot be run"):
        KubectlRouter("prod", kubectl=str(folder / "gone")).current("scenes")


def test_a_foreign_route_is_not_written_over(folder: Path) -> None:
    route = json.loads((folder / "prod.httproute.scenes.json").read_text())
    route["spec"]["rules"][0]["backendRefs"][0]["name"] = "somebody"
    (folder / "prod.httproute.scenes.json").write_text(json.dumps(route))
    with pytest.raises(RouterError, match="was not written by seatrial"):
        router(folder).apply(SPLIT)
    assert not any(call.startswith("replace") for call in calls(folder))
