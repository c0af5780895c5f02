"""A real Envoy before a real Triton: users known by a cookie, lanes by a pattern, a log moved away under load."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from scripts.benchmarks.teller import Grpc, Http, Told, upstream
from seatrial.serve.processes import wait
from seatrial.serve.traffic.edge import Edge, Lane, Model, Server, Sticky, Variant
from seatrial.serve.traffic.envoy import access_log, on_envoy
from seatrial.serve.traffic.envoy.router import EnvoyRouter
from seatrial.serve.traffic.envoy.shedding_loop import LoadShedder
from seatrial.serve.traffic.routes import Routes
from seatrial.serve.triton.server import Server as Triton

pytestmark = pytest.mark.system

EUROPE = Lane(name="europe", header="x-region", matches="eu-[a-z]+", variant=Variant(model="teller", version=3))
HALF = Routes(model="teller", stable=1, candidate=2, share=0.5)


@pytest.fixture
def server(teller_server: Triton) -> Server:
    return upstream(teller_server)


def edge(server: Server, *, cookie: str = "", lanes: tuple[Lane, ...] = ()) -> Edge:
    return Edge(
        schema=1,
        port=0,
        server=server,
        models=(Model(name="teller", lanes=lanes),),
        sticky=Sticky(cookie=cookie),
        client_headers=("x-region",),
    )


def test_a_cookie_keeps_a_user_on_a_version_and_a_header_goes_before_it(server: Server) -> None:
    with on_envoy.serving(edge(server, cookie="visitor"), (HALF,)) as proxy:
        http, grpc, users = Http(proxy.url), Grpc(proxy.url), [f"visitor={number}; theme=dark" for number in range(40)]
        of_user = {user: http.ask(headers={"cookie": user}).version for user in users}
        assert set(of_user.values()) == {1, 2}
        for _ in range(3):
            assert {user: http.ask(headers={"cookie": user}).version for user in users} == of_user
        assert {user: grpc.ask(headers={"cookie": user}).version for user in users} == of_user
        other_order = {user: "; ".join(reversed(user.split("; "))) for user in users}
        assert {user: http.ask(headers={"cookie": other_order[user]}).version for user in users} == of_user
        named = [http.ask(headers={"cookie": user, "x-user-id": "one and the same"}).version for user in users]
        assert len(set(named)) == 1
        EnvoyRouter(proxy).apply(Routes(model="teller", stable=1, candidate=2, share=0.9))
        later = {user: http.ask(headers={"cookie": user}).version for user in users}
        assert all(later[user] == 2 for user, version in of_user.items() if version == 2)
        assert list(later.values()).count(2) > list(of_user.values()).count(2)
        http.close()
        grpc.close()


def test_a_lane_takes_the_values_that_its_pattern_matches_as_a_whole(server: Server) -> None:
    with on_envoy.serving(edge(server, lanes=(EUROPE,)), ()) as proxy:
        http, grpc = Http(proxy.url), Grpc(proxy.url)
        asked = {"eu-west": 3, "eu-north": 3, "eu-": 1, "us-east": 1, "xeu-west": 1, "eu-west1": 1, "EU-west": 1}
        assert {region: http.ask(headers={"x-region": region}).version for region in asked} == asked
        assert {region: grpc.ask(headers={"x-region": region}).version for region in asked} == asked
        http.close()
        grpc.close()


def test_no_line_is_lost_while_the_log_is_moved_away(server: Server) -> None:
    with on_envoy.serving(edge(server), ()) as proxy:
        log, ids, found = proxy.places.access_log, list[str](), list[str]()
        place = access_log.end(log)

        def ask(count: int) -> list[str]:
            http = Http(proxy.url)
            told = [http.ask() for _ in range(count)]
            http.close()
            assert {each.status for each in told} == {200}
            return [each.id for each in told]

        with ThreadPoolExecutor(2) as pool:
            for _ in range(4):
                asking = [pool.submit(ask, 100) for _ in range(2)]
                assert wait(lambda: log.exists() and log.stat().st_size > 2000, 60.0)
                assert access_log.rotate(log, proxy.admin, above=1000)
                ids += [each for done in asking for each in done.result()]
                assert wait(log.exists, 60.0)  # the old file is moved over only once it was read to its end
                some, place = access_log.read(log, place)
                found += [each.request_id for each in some]

        def all_there() -> bool:
            nonlocal place
            some, place = access_log.read(log, place)
            found.extend(each.request_id for each in some)
            return len(found) >= len(ids)

        assert wait(all_there, 60.0)
        assert sorted(found) == sorted(ids)
        assert len(set(ids)) == 800


def test_a_model_that_real_callers_overwhelm_gets_relief_until_they_are_fewer(server: Server) -> None:
    small = Variant(model="small", version=1)
    models = (Model(name="teller", timeout_ms=5000, slo_ms=120, fallback=small), Model(name="small"))
    over, told = threading.Event(), list[Told]()
    with on_envoy.serving(replace(edge(server), models=models), ()) as proxy:

        def ask(until: Callable[[], bool]) -> None:
            http = Http(proxy.url)
            while not until():
                told.append(http.ask(sleep=8))
            http.close()

        shedder, events = LoadShedder(proxy), list[str]()

        def said(what: str, windows: int) -> bool:
            for _ in range(windows):
                time.sleep(1.0)
                events.extend(shedder.look())
                if events and what in events[-1]:
                    return True
            return False

        with ThreadPoolExecutor(32) as pool:
            many = threading.Event()
            asking = [  # one instance, 8 ms a request: thirty wait for 240 ms, three for a tenth of that
                pool.submit(ask, over.is_set if number < 3 else many.is_set) for number in range(32)
            ]
            try:
                assert said("takes 25%", 20), events
                many.set()
                assert said("takes 0%", 80), events
            finally:
                many.set()
                over.set()
        for done in asking:
            done.result()
        assert {each.status for each in told} == {200}
        assert 0 < sum(each.small for each in told) < len(told)
        assert EnvoyRouter(proxy).shedding("teller") == 0.0
