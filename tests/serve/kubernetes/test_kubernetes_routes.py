"""Routes as Gateway routes and back, names, KServe's and Argo's rules: laws, not examples, where there is one."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.names import is_name
from seatrial.serve.errors import RouterError, RoutesError
from seatrial.serve.kubernetes import argo, kserve
from seatrial.serve.kubernetes.cluster import Cluster
from seatrial.serve.kubernetes.names import is_label, slug, version_of, versioned
from seatrial.serve.kubernetes.routes import WHOLE, broken, grpc_route, http_route, read, weight, weights
from seatrial.serve.kubernetes.scaling import METRIC, adapter_rule
from seatrial.serve.traffic.routes import Routes

pytestmark = pytest.mark.experimental("Kubernetes")

CLUSTER = Cluster(schema=1, hostname="models.example.com", grpc_hostname="grpc.models.example.com")
MODELS = st.from_regex(re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,126}", re.ASCII), fullmatch=True).filter(is_name)
SHARES = st.floats(0.0, 1.0)


@st.composite
def routes(draw: st.DrawFn) -> Routes:
    stable, candidate = draw(st.lists(st.integers(1, 10**9), min_size=2, max_size=2, unique=True))
    if draw(st.booleans()):
        return Routes(model=draw(MODELS), stable=stable)
    return Routes(model=draw(MODELS), stable=stable, candidate=candidate, share=draw(SHARES), mirror=draw(SHARES))


@given(routes())
def test_weights_sum_to_the_whole_and_no_share_is_lost(made: Routes) -> None:
    shares = weights(made)
    assert sum(shares.values()) == WHOLE
    assert set(shares) == set(made.versions)
    assert all(share >= 0 for share in shares.values())
    if made.candidate is not None:
        assert abs(shares[made.candidate] / WHOLE - made.share) <= 1 / WHOLE
        assert (shares[made.candidate] == 0) == (made.share == 0.0)
        assert (shares[made.candidate] == WHOLE) == (made.share == 1.0)


def test_every_hundredth_of_a_percent_is_exact() -> None:
    assert all(weight(parts / WHOLE) == parts for parts in range(WHOLE + 1))


@given(SHARES, SHARES)
def test_a_larger_share_never_weighs_less(one: float, other: float) -> None:
    assert weight(min(one, other)) <= weight(max(one, other))


@given(routes())
def test_routes_survive_the_cluster(made: Routes) -> None:
    for route in (http_route(made, CLUSTER), grpc_route(made, CLUSTER)):
        assert not broken(route)
        again = read(route, made.model)
        assert (again.stable, again.candidate) == (made.stable, made.candidate)
        assert abs(again.share - made.share) <= 1 / WHOLE
        assert abs(again.mirror - made.mirror) <= 1 / WHOLE
        assert http_route(again, CLUSTER) == http_route(made, CLUSTER)  # nothing drifts by being read and written
    assert http_route(made, CLUSTER)["spec"]["hostnames"] != grpc_route(made, CLUSTER)["spec"]["hostnames"]


@given(routes())
def test_only_what_clients_need_passes_the_gateway(made: Routes) -> None:
    [rule] = http_route(made, CLUSTER)["spec"]["rules"]
    paths = {match["path"]["value"] for match in rule["matches"]}
    assert all(match["path"]["type"] == "Exact" for match in rule["matches"])
    assert all(path.startswith(f"/v2/models/{made.model}") for path in paths)
    assert not any(word in path.removeprefix(f"/v2/models/{made.model}") for path in paths for word in ("stats", "v2"))


@given(MODELS, st.integers(1, 10**9))
def test_names_are_legal_and_lead_back(model: str, version: int) -> None:
    name = versioned(model, version)
    assert is_label(name)
    assert is_label(f"{slug(model)}-v{version}-predictor")
    assert version_of(name, model) == version
    assert slug(slug(model)) == slug(model)


@given(MODELS, MODELS, st.integers(1, 999))
def test_two_models_never_share_a_name(one: str, other: str, version: int) -> None:
    if one != other:
        assert slug(one) != slug(other)
        assert version_of(versioned(one, version), other) is None


def test_names_that_would_meet_are_kept_apart() -> None:
    assert (
        len({slug(each) for each in ("Scenes", "scenes", "scenes_", "scenes.", "scenes-v3", "9scenes", "m-9scenes")})
        == 7
    )
    with pytest.raises(RoutesError):
        versioned("scenes", 10**9 + 1)


SPLIT = Routes(model="scenes", stable=3, candidate=4, share=0.05, mirror=0.5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rule: rule["backendRefs"].append({"name": "scenes-v5", "port": 8000, "weight": 1}), "other services"),
        (lambda rule: rule["backendRefs"][0].update(name="someone-v3"), "other services"),
        (lambda rule: rule["backendRefs"].clear(), "other services"),
        (lambda rule: [each.update(weight=0) for each in rule["backendRefs"]], "none has a weight"),
        (
            lambda rule: rule["filters"][0]["requestMirror"]["backendRef"].update(name="scenes-v3"),
            "does not point to the candidate",
        ),
        (lambda rule: rule.pop("backendRefs"), "backendRefs"),
        (
            lambda rule: rule["backendRefs"].append(rule["backendRefs"].pop(0) | {"name": "scenes-v4"}),
            "its own candidate",
        ),
    ],
)
def test_a_foreign_route_is_said_to_be_one(change: object, said: str) -> None:
    route = http_route(SPLIT, CLUSTER)
    change(route["spec"]["rules"][0])  # type: ignore[operator]
    with pytest.raises(RouterError, match=said):
        read(route, "scenes")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rule: rule["backendRefs"][0].update(weight=1_000_001), "1000000"),
        (lambda rule: [each.update(weight=0) for each in rule["backendRefs"]], "no backend"),
        (lambda rule: rule["filters"][0].pop("requestMirror"), "needs a backendRef"),
        (lambda rule: rule["filters"][0]["requestMirror"].update(percent=5), "both percent and fraction"),
        (lambda rule: rule["filters"][0]["requestMirror"]["fraction"].update(numerator=10_001), "exceeds 100 percent"),
        (lambda rule: rule["matches"][0]["path"].update(value="infer"), "path must be absolute"),
    ],
)
def test_what_a_gateway_would_refuse_is_found(change: object, said: str) -> None:
    route = http_route(SPLIT, CLUSTER)
    assert not broken(route)
    change(route["spec"]["rules"][0])  # type: ignore[operator]
    assert any(said in each for each in broken(route))


def test_a_mirror_of_everything_needs_no_fraction() -> None:
    [rule] = http_route(replace(SPLIT, mirror=1.0), CLUSTER)["spec"]["rules"]
    assert "fraction" not in rule["filters"][0]["requestMirror"]
    assert read(http_route(replace(SPLIT, mirror=1.0), CLUSTER), "scenes").mirror == 1.0


def test_kserve_takes_whole_percents_and_no_mirror() -> None:
    service = kserve.inference_service(replace(SPLIT, mirror=0.0), CLUSTER, replicas=4)
    assert [each["trafficPercent"] for each in service["spec"]["canary"]] == [5]
    assert service["metadata"]["annotations"] == {"serving.kserve.io/deploymentMode": "Standard"}
    with pytest.raises(RoutesError, match="no traffic mirroring"):
        kserve.inference_service(SPLIT, CLUSTER, replicas=4)
    with pytest.raises(RoutesError, match="whole percents"):
        kserve.inference_service(replace(SPLIT, mirror=0.0, share=0.015), CLUSTER, replicas=4)
    assert "canary" not in kserve.inference_service(Routes(model="scenes", stable=3), CLUSTER, replicas=2)["spec"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda made: made["metadata"]["annotations"].clear(), "Standard mode"),
        (lambda made: made["spec"]["canary"].append(made["spec"]["canary"][0] | {"trafficPercent": 96}), "at most 100"),
        (lambda made: made["spec"]["canary"][0]["predictor"].update(name="v3"), "must be unique"),
        (lambda made: made["spec"]["predictor"].update(maxReplicas=5), "replicas are fixed"),
        (lambda made: made["spec"]["predictor"].update(canaryTrafficPercent=5), "silently ignored"),
        (lambda made: made["metadata"].update(name="x" * 60), "63 characters"),
    ],
)
def test_kserve_s_rules_are_checked(change: object, said: str) -> None:
    service = kserve.inference_service(replace(SPLIT, mirror=0.0), CLUSTER, replicas=4)
    assert not kserve.broken(service)
    change(service)  # type: ignore[operator]
    assert any(said in each for each in kserve.broken(service))


def test_argo_calls_no_data_inconclusive() -> None:
    [metric] = argo.analysis("scenes", CLUSTER)["spec"]["metrics"]
    words = {"&&": "and", "!isNaN": "not isnan"}

    def outcome(result: list[float]) -> str:
        verdicts = []
        for key in ("successCondition", "failureCondition"):
            text = metric[key]
            for old, new in words.items():
                text = text.replace(old, new)
            verdicts.append(bool(eval(text, {"len": len, "isnan": lambda each: each != each, "result": result})))
        return {(True, False): "success", (False, True): "failure", (False, False): "inconclusive"}[tuple(verdicts)]  # type: ignore[index]

    assert outcome([]) == "inconclusive"
    assert outcome([float("nan")]) == "inconclusive"
    assert outcome([0.0]) == "success"
    assert outcome([-0.2]) == "success"
    assert outcome([0.02]) == "failure"
    for role in ("stable", "candidate"):
        assert f'version="{{{{args.{role}}}}}"' in metric["provider"]["prometheus"]["query"]


def test_the_scaler_s_metric_is_the_adapter_s() -> None:
    [rule] = adapter_rule()["rules"]["custom"]
    assert rule["name"]["as"] == METRIC
    assert "nv_inference_queue_duration_us" in rule["metricsQuery"]
    assert "clamp_min" in rule["metricsQuery"]
