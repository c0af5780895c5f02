"""A real Envoy before a real Triton whose models tell their version: who is answered by what, and what gets through."""

import json
import signal
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from scripts.benchmarks.teller import Grpc, Http, upstream
from seatrial.serve.errors import RouterError
from seatrial.serve.processes import free_ports, send, start_ticks, wait
from seatrial.serve.traffic.edge import Edge, Jwt, Keys, Lane, Limits, Model, RateLimit, Server, Tls, Variant
from seatrial.serve.traffic.envoy import config as envoy_config
from seatrial.serve.traffic.envoy import keeping, on_envoy
from seatrial.serve.traffic.envoy import router as envoy_router
from seatrial.serve.traffic.envoy.clusters import filter_
from seatrial.serve.traffic.envoy.config import Extras
from seatrial.serve.traffic.envoy.proxy import Proxy, running
from seatrial.serve.traffic.envoy.router import EnvoyRouter
from seatrial.serve.traffic.envoy.routes import is_copied
from seatrial.serve.traffic.envoy.shedding_loop import LoadShedder
from seatrial.serve.traffic.routes import Routes
from seatrial.serve.traffic.shedding import PATIENCE
from seatrial.serve.triton.server import Server as Triton
from tests.support.certificates import certificate, token
from tests.support.edge_callers import opened, seen, split, versions

pytestmark = pytest.mark.system

SMALL = Variant(model="small", version=1)
HURRY = Lane(name="tight", header="x-latency-budget-ms", below=20, timeout_ms=200, variant=SMALL)
BETA = Lane(name="beta", header="x-segment", equals="beta", variant=Variant(model="teller", version=3))
TELLER = Model(name="teller", timeout_ms=3000, lanes=(HURRY, BETA))
Opened = Callable[..., AbstractContextManager[tuple[Proxy, Http, Grpc]]]


@pytest.fixture
def server(teller_server: Triton) -> Server:
    return upstream(teller_server)


@pytest.fixture
def edge(server: Server) -> Edge:
    return Edge(
        schema=1,
        port=0,
        server=server,
        models=(TELLER, Model(name="small")),
        client_headers=("x-latency-budget-ms",),
        limits=Limits(body_bytes=16 << 20),
    )


def test_callers_get_the_version_that_routes_say_whatever_they_ask_for(edge: Edge) -> None:
    import grpc as grpc_library

    with opened(edge, Routes(model="teller", stable=2)) as (proxy, http, grpc):
        assert versions([http.ask(), http.ask(version=1), grpc.ask(), grpc.ask(version=1)]) == {2}
        assert versions([grpc.ask(padding=3 << 20)]) == {2}
        assert http.ask("small").small
        assert grpc.ask("small").small
        assert grpc.about() == "2"
        assert grpc.ask(compression=grpc_library.Compression.Gzip, padding=10_000).status == 12
        assert [http.get(f"/v2{path}") for path in ("", "/health/ready", "/models/teller/ready")] == [200, 200, 200]
        refused = [
            "/repository/index",
            "/models/teller/config",
            "/models/gone",
            "/models/teller/../../repository/index",
        ]
        assert {http.get(f"/v2{path}") for path in refused} == {404}
        assert http.ask("gone").status == 404
        assert grpc.ask("gone").status == 12
        first = seen(proxy, 7)[0]
        assert (first.model, first.version, first.role, first.status) == ("teller", 2, "live", 200)
        assert 0 < first.seconds < 5
        assert abs(first.at - time.time()) < 30
        assert 'envoy_cluster_upstream_rq_total{envoy_cluster_name="teller_v2_grpc",model="teller",version="2"}' in (
            proxy.admin.metrics()
        )


def test_users_stay_on_their_version_and_a_larger_share_moves_nobody_off(edge: Edge) -> None:
    with opened(edge, split(0.1)) as (proxy, http, grpc):
        router, users = EnvoyRouter(proxy), [f"user-{number}" for number in range(150)]
        assert router.current("teller") == split(0.1)
        on_candidate = []
        for share in (0.1, 0.4, 1.0, 0.0):
            router.apply(split(share, mirror=1 / 3 if share == 0.4 else 0.0))
            told = {user: http.ask(headers={"x-user-id": user}) for user in users}
            versions(list(told.values()))
            assert {grpc.ask(headers={"x-user-id": user}).version for user in users[:5]} == {
                told[user].version for user in users[:5]
            }
            assert all(grpc.ask(headers={"x-user-id": user}).version == told[user].version for user in users[:20])
            on_candidate.append({user for user, each in told.items() if each.version == 2})
        few, more, all_, none = on_candidate
        assert 0 < len(few) < len(more) < 150
        assert few <= more
        assert (len(all_), len(none)) == (150, 0)


def test_lanes_have_their_own_variant_and_timeout_and_strangers_cannot_claim_a_segment(edge: Edge) -> None:
    lanes = (replace(HURRY, variant=None, timeout_ms=100), BETA)
    with opened(replace(edge, models=(replace(TELLER, lanes=lanes), Model(name="small")))) as (_, http, grpc):
        assert versions([http.ask(headers={"x-segment": "beta"}), grpc.ask(headers={"x-segment": "beta"})]) == {1}
        assert http.ask(sleep=400, headers={"x-latency-budget-ms": "10"}).status == 504
        assert http.ask(sleep=400, headers={"x-latency-budget-ms": "50"}).status == 200
    with opened(replace(edge, client_headers=("x-segment", "x-latency-budget-ms"))) as (_, http, grpc):
        for client in (http, grpc):
            assert versions([client.ask(headers={"x-segment": "beta"})]) == {3}
            assert client.ask(headers={"x-latency-budget-ms": "10"}).small
            assert not client.ask(headers={"x-latency-budget-ms": "20"}).small


def test_what_the_model_cannot_answer_in_time_the_smaller_one_does(edge: Edge) -> None:
    model = replace(TELLER, try_ms=300, fallback=SMALL)
    with opened(replace(edge, models=(model, Model(name="small"))), split(0.5)) as (proxy, http, grpc):
        assert EnvoyRouter(proxy).current("teller") == split(0.5)
        users = [f"user-{number}" for number in range(40)]
        told = {user: http.ask(headers={"x-user-id": user}).version for user in users}
        assert set(told.values()) == {1, 2}
        assert all(grpc.ask(headers={"x-user-id": user}).version == version for user, version in told.items())
        for client in (http, grpc):
            assert not client.ask().small
            assert client.ask(fail=True).small
        late = http.ask(sleep=1000)
        assert (late.small, late.labelled) == (True, "1")
        found = seen(proxy, 85)
        assert [each.model for each in found].count("small") == 3
        assert {each.status for each in found} == {200}


def test_a_promise_at_risk_moves_a_share_to_the_smaller_model_and_back(edge: Edge, tmp_path: Path) -> None:
    model = replace(TELLER, slo_ms=100, fallback=SMALL)
    with opened(replace(edge, models=(model, Model(name="small"))), split(0.5)) as (proxy, http, grpc):
        log, router = tmp_path / "log", EnvoyRouter(proxy)
        versions([http.ask()])
        seen(proxy, 1)
        line = json.loads(proxy.places.access_log.read_text())
        shedder = LoadShedder(proxy, log=log)

        def window(milliseconds: int) -> list[str]:
            """Sixty answers of that latency, as the edge would write them: a real one would depend on this machine."""
            with log.open("a") as stream:
                stream.writelines(json.dumps(line | {"upstream_us": milliseconds * 1000}) + "\n" for _ in range(60))
            return list(shedder.look())

        assert window(90) == []
        assert window(110) == ["teller: the smaller model takes 25% (was 0%)"]
        assert (router.shedding("teller"), router.current("teller")) == (0.25, split(0.5))
        router.apply(split(0.2))
        assert router.shedding("teller") == 0.25
        small = sum(client.ask().small for client in (http, grpc) for _ in range(100))
        assert 20 < small < 85
        assert [window(10) for _ in range(PATIENCE - 1)] == [[]] * (PATIENCE - 1)
        assert window(10) == ["teller: the smaller model takes 0% (was 25%)"]
        assert not any(client.ask().small for client in (http, grpc) for _ in range(20))
        assert router.current("teller") == split(0.2)


def test_the_share_of_ids_is_copied_with_its_id_and_nobody_waits_for_a_copy(edge: Edge) -> None:
    with opened(edge, split(0.0, mirror=0.5)) as (proxy, http, grpc):
        told = [client.ask() for client in (http, grpc) for _ in range(30)]
        assert versions(told) == {1}
        expected = {each.id for each in told if is_copied(each.id, 0.5)}
        found = seen(proxy, len(told) + len(expected))
        copies = [each for each in found if each.role == "shadow"]
        assert {each.request_id for each in copies} == expected
        assert len(copies) == len(expected)
        assert {(each.version, each.status) for each in copies} == {(2, 200)}
        assert {each.request_id for each in found if each.role == "live"} == {each.id for each in told}
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections and never answers
        stalled = Server(http=f"127.0.0.1:{deaf.getsockname()[1]}", grpc=f"127.0.0.1:{free_ports(1)[0]}")
        few = replace(
            edge,
            shadow=stalled,
            limits=replace(edge.limits, shadow_requests=4),
            models=(Model(name="teller", timeout_ms=30_000),),
        )
        with opened(few, split(0.0, mirror=1.0)) as (proxy, http, grpc):
            assert versions([client.ask() for client in (http, grpc) for _ in range(20)]) == {1}
            # Four asked and as many waiting for a connection; all others, and those nobody listens to, refused at once.
            hops = {"teller_v2_shadow_hop": 8, "teller_v2_grpc_shadow_hop": 0}
            assert wait(lambda: proxy.admin.under_way(hops) == hops, 5.0), proxy.admin.under_way(hops)


def test_what_one_version_fails_the_other_is_asked_and_the_log_says_whose_failure_it_was(edge: Edge) -> None:
    for stable, candidate in ((1, 2), (2, 1)):
        routes = Routes(model="teller", stable=stable, candidate=candidate, share=1.0)
        with opened(edge, routes) as (proxy, http, grpc):
            for client in (http, grpc):
                assert versions([client.ask(fail=10 + candidate), client.ask(fail=20 + candidate)]) == {stable}
                assert client.ask(fail=1).status in (503, 14)
                assert client.ask(fail=10 + stable).status in (0, 200)
            found = seen(proxy, 8)
            assert [each.result for each in found] == ["failed", "failed", "shared", "answered"] * 2
            assert {each.judged for each in found} == {candidate}
    with opened(edge, split(0.0)) as (proxy, http, _):
        assert http.ask(fail=11).status == 503, "without a share in force there is no other version to ask"
        assert [each.result for each in seen(proxy, 1)] == ["unconfirmed"]


def test_a_caller_who_fails_again_and_again_takes_the_version_from_nobody(edge: Edge) -> None:
    limits = Limits(ejection_failures=1, ejection_seconds=30.0)
    with opened(replace(edge, limits=limits), split(0.5)) as (proxy, http, _):
        assert {http.ask(fail=1, headers={"x-user-id": f"{number}"}).status for number in range(20)} == {503}
        assert {http.ask(headers={"x-user-id": f"{number}"}).status for number in range(20)} == {200}
        assert {each.result for each in seen(proxy, 40)} == {"shared", "answered"}


def test_what_envoy_refuses_is_never_in_force(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Extras(live=(filter_("lua", "lua.v3.Lua", default_source_code={"inline_string": "this is not lua"}),))
    with pytest.raises(RouterError, match=r"(?s)script load error.*next"), on_envoy.serving(edge, extras=bad):
        pass
    with opened(edge, split(0.0)) as (proxy, http, _):
        router = EnvoyRouter(proxy, timeout=3.0)
        real, before = envoy_config.documents, proxy.places.file("rds").read_bytes()

        def broken(*arguments: object, **named: object) -> object:
            files = json.loads(json.dumps(real(*arguments, **named)))  # type: ignore[arg-type]
            files["rds"]["version_info"] = "broken"
            files["rds"]["resources"][0]["virtual_hosts"][0]["routes"][0]["match"]["safe_regex"]["regex"] = "("
            return files

        monkeypatch.setattr(envoy_router, "documents", broken)  # passes the check, is refused when it is read
        with pytest.raises(RouterError, match="refused the new file") as caught:
            router.apply(split(1.0))
        assert "missing )" in caught.value.what
        assert proxy.places.file("rds").read_bytes() == before
        assert router.current("teller") == split(0.0)
        assert versions([http.ask()]) == {1}
        monkeypatch.undo()
        router.apply(split(1.0))
        assert versions([http.ask()]) == {2}


def test_a_killed_envoy_comes_back_with_the_routes_it_had(edge: Edge) -> None:
    with opened(edge) as (proxy, http, _):
        router = EnvoyRouter(proxy)
        router.apply(split(1.0))
        assert versions([http.ask()]) == {2}
        send(proxy.pid, proxy.started, signal.SIGKILL)
        wait(lambda: not running(proxy), 5.0)
        assert router.current("teller") == split(1.0)  # from the files that it will start from
        again = on_envoy.revive(proxy.folder)
        assert again is not None
        assert (again.port, router.current("teller")) == (proxy.port, split(1.0))
        with_new_connection = Http(again.url)
        assert versions([with_new_connection.ask()]) == {2}
        router.apply(split(0.0))
        assert versions([with_new_connection.ask()]) == {1}
        with_new_connection.close()


def test_a_version_is_empty_once_its_requests_are_answered_and_a_stop_loses_none(edge: Edge) -> None:
    with opened(edge, split(1.0)) as (proxy, _, grpc), ThreadPoolExecutor(4) as pool:
        router = EnvoyRouter(proxy)
        running = pool.submit(grpc.ask, sleep=1000)
        wait(lambda: bool(proxy.admin.requests()), 2.0)
        router.apply(split(0.0))
        assert not router.emptied("teller", 2, timeout=0.1)
        assert router.emptied("teller", 2, timeout=5.0)
        assert running.result().version == 2
        last = Http(proxy.url)
        running = pool.submit(last.ask, sleep=800)
        wait(lambda: bool(proxy.admin.requests()), 2.0)
        on_envoy.stop(proxy)
        assert running.result().version == 1
        last.close()


def test_keys_rate_body_and_breaker_bound_what_a_client_can_do(edge: Edge, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice key-of-alice\nbatch key-of-batch\n")
    keys.chmod(0o600)
    limited = replace(
        edge,
        auth=Keys(kind="keys", file=keys),
        rate_limit=RateLimit(per_second=5, clients={"batch": 1000}),
        limits=Limits(body_bytes=4096, requests=1, pending=1, retries=0),
    )
    with opened(limited) as (proxy, http, grpc), ThreadPoolExecutor(8) as pool:
        alice, batch = {"x-api-key": "key-of-alice"}, {"x-api-key": "key-of-batch", "x-client": "alice"}
        assert [http.ask(headers=who).status for who in ({}, {"x-api-key": "other"}, alice)] == [401, 401, 200]
        assert grpc.ask().status == 16
        assert {http.ask(headers=alice).status for _ in range(60)} == {200, 429}
        assert {http.ask(headers=batch).status for _ in range(30)} == {200}
        assert grpc.ask(headers=batch, padding=8192).status != 0
        assert http.ask(headers=batch | {"x-padding": "p"}).status == 200
        clients = [Http(proxy.url) for _ in range(8)]
        together = list(pool.map(lambda client: client.ask(sleep=300, headers=batch).status, clients))
        assert together.count(200) >= 1
        assert set(together) == {200, 503}
        for client in clients:
            client.close()
        logged = wait(lambda: '"UO"' in proxy.places.access_log.read_text(), 3.0)
        assert logged, "what the breaker refused is in the log"
        assert not any("UO" in each.flags for each in seen(proxy, 60)), "and no evidence: no version answered it"
        assert "key-of-alice" not in proxy.places.access_log.read_text()
        assert proxy.folder.stat().st_mode & 0o077 == 0


def test_tokens_choose_lanes_over_tls(edge: Edge, tmp_path: Path) -> None:
    chain, key = certificate(tmp_path)
    jwks, sign = token(tmp_path, issuer="tests", audience="edge")
    guarded = replace(
        edge,
        tls=Tls(certificate=chain, key=key),
        auth=Jwt(kind="jwt", jwks=jwks, issuer="tests", audiences=("edge",), claims={"segment": "x-segment"}),
    )
    with opened(guarded) as (proxy, _, _):
        context = ssl.create_default_context(cafile=str(chain))
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", proxy.port))
        with context.wrap_socket(plain, server_hostname="localhost") as encrypted:
            assert encrypted.selected_alpn_protocol() == "h2"
        http = Http(proxy.url, context=ssl.create_default_context(cafile=str(chain)))
        beta, other = ({"authorization": f"Bearer {sign(segment=name)}"} for name in ("beta", "none"))
        assert http.ask(headers=beta).version == 3
        assert http.ask(headers=other | {"x-segment": "beta"}).version == 1
        assert http.ask().status == 401
        assert http.ask(headers={"authorization": f"Bearer {sign(expired=True)}"}).status == 401
        assert http.ask(headers={"authorization": f"Bearer {sign(audience='else')}"}).status == 403
        http.close()


def test_an_id_of_a_stranger_does_not_choose_whether_it_is_copied(edge: Edge) -> None:
    with opened(edge) as (_, http, _):
        mine = str(uuid4())
        told = http.ask(headers={"x-request-id": mine, "x-envoy-upstream-rq-timeout-ms": "1"})
        assert told.status == 200
        assert told.id not in ("", mine)


def test_the_verbs_start_set_show_and_stop_one(edge: Edge, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from seatrial.serve.cli import app

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(app, [*arguments, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    file = tmp_path / "edge.toml"
    file.write_text(
        f'schema = 1\nname = "verbs"\nport = {free_ports(1)[0]}\nmodels = [{{ name = "teller" }}]\n'
        f'[server]\nhttp = "{edge.server.http}"\ngrpc = "{edge.server.grpc}"\n'
    )
    assert run("edge", "check", str(file))["ok"]
    first = run("edge", "up", str(file))
    try:
        run("routes", "set", "teller", "--stable", "1", "--candidate", "2", "--share", "1")
        http = Http(first["url"])
        assert versions([http.ask()]) == {2}
        assert run("routes", "show", "teller")[0]["share"] == 1.0
        assert CliRunner().invoke(app, ["routes", "set", "gone", "--stable", "1"]).exit_code == 2
        assert CliRunner().invoke(app, ["edge", "up", str(file)]).exit_code == 4
        send(first["pid"], start_ticks(first["pid"]) or 0, signal.SIGKILL)
        events = keeping.watch(on_envoy.folder_of("verbs"))
        assert "was restarted" in next(events)
        again = run("edge", "status")
        assert (again["url"], again["routes"][0]["share"]) == (first["url"], 1.0)
        assert again["pid"] != first["pid"]
        http.close()
    finally:
        assert run("edge", "down")["stopped"]
    assert list(events) == []
    assert run("edge", "up", str(file))["routes"][0]["share"] == 1.0
    assert on_envoy.down("verbs", drain=0)
    assert on_envoy.names() == []
