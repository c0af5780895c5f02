"""The program that keeps load on a version on trial at its share, run by LuaJIT itself."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from lupa import luajit21

from seatrial.serve.traffic.edge import Edge, Model, Server
from seatrial.serve.traffic.envoy.programs import SLOTS, balance
from seatrial.serve.traffic.envoy.routes import RouteTable, table
from seatrial.serve.traffic.routes import Routes

Placed = Callable[[str, int | None, str, int, int], int]


@pytest.fixture
def placed() -> Placed:
    return luajit21.LuaRuntime().execute(balance() + "return placed")  # type: ignore[no-any-return]


@dataclass
class Served:
    """What became of requests: load on the version on trial and in all, and the users moved off it."""

    trial: Counter[str] = field(default_factory=Counter)
    whole: Counter[str] = field(default_factory=Counter)
    moved: set[tuple[str, int]] = field(default_factory=set)

    def share(self, unit: str) -> float:
        return self.trial[unit] / self.whole[unit]


def sent(placed: Placed, requests: Iterator[tuple[str, int, int]], share: float) -> Served:
    """Send client, place of the user, and elements of each request."""
    parts, served = round(share * SLOTS), Served()
    for client, slot, size in requests:
        found = placed("m", parts, client, slot, size)
        on_trial = found >= SLOTS - parts
        if slot >= SLOTS - parts and not on_trial:
            served.moved.add((client, slot))
        for unit, load in (("requests", 1), ("elements", size)):
            served.whole[unit] += load
            served.trial[unit] += load * on_trial
    return served


def honest(draw: random.Random, number: int, *, clients: int = 6, users: int = 400) -> Iterator[tuple[str, int, int]]:
    """Requests of four elements, of so many users at each client."""
    places = {client: [draw.randrange(SLOTS) for _ in range(users)] for client in range(clients)}
    for _ in range(number):
        client = draw.randrange(clients)
        yield f"honest{client}", draw.choice(places[client]), 4


def attacked(
    draw: random.Random, number: int, share: float, *, size: int, part: float
) -> Iterator[tuple[str, int, int]]:
    """The same, with `part` of them by two clients who know users of the version on trial."""
    for each in honest(draw, number):
        if draw.random() < part:
            yield f"evil{draw.randrange(2)}", draw.randrange(SLOTS - round(share * SLOTS), SLOTS), size
        else:
            yield each


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(("size", "part", "excess"), [(4, 0.5, 0.08), (32, 0.08, 0.1), (2000, 0.02, 0.18)])
def test_load_for_one_versions_users_is_brought_to_the_share(
    placed: Placed, share: float, size: int, part: float, excess: float
) -> None:
    draw = random.Random(f"{share}{size}")
    sent(placed, attacked(draw, 4000, share, size=size, part=part), share)
    served = sent(placed, attacked(draw, 20_000, share, size=size, part=part), share)
    for unit in ("requests", "elements"):
        assert served.share(unit) < share + excess, unit


@pytest.mark.parametrize("seed", range(5))
def test_the_users_of_others_stay_where_they_are_meanwhile(placed: Placed, seed: int) -> None:
    served = sent(placed, attacked(random.Random(seed), 20_000, 0.5, size=32, part=0.08), 0.5)
    others = {user for user in served.moved if user[0].startswith("honest")}
    assert len(others) <= 12  # of 1,200 on trial
    assert len(served.moved - others) > 100


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize(("clients", "users"), [(6, 400), (300, 1)])
def test_nobody_is_moved_without_cause(placed: Placed, share: float, clients: int, users: int) -> None:
    moved = 0
    for seed in range(10):
        draw = random.Random(seed)
        requests = honest(draw, 5000, clients=clients, users=users)
        moved += len(sent(placed, requests, share).moved)
        placed("m", 0, "", 0, 0)  # forget
    assert moved <= 10 * 0.02 * clients * users * share + 10


def test_a_lone_client_is_free(placed: Placed) -> None:
    served = sent(placed, iter([("alone", 999_999, 4)] * 5000), 0.1)
    assert served.share("requests") == 1.0


def test_a_user_that_was_moved_stays_there_until_the_share_changes(placed: Placed) -> None:
    draw = random.Random(1)
    served = sent(placed, attacked(draw, 5000, 0.5, size=32, part=0.2), 0.5)
    client, slot = min(served.moved)
    assert {placed("m", 500_000, client, slot, 4) for _ in range(50)} == {0}
    assert placed("m", 600_000, client, slot, 4) == slot
    assert placed("m", None, client, slot, 4) == slot


def test_models_do_not_share_their_accounts(placed: Placed) -> None:
    sent(placed, attacked(random.Random(1), 5000, 0.5, size=32, part=0.5), 0.5)
    assert placed("other", 500_000, "evil0", 999_999, 32) == 999_999


def test_a_table_says_the_share_of_a_trial_alone() -> None:
    edge = Edge(
        schema=1, server=Server(http="127.0.0.1:1", grpc="127.0.0.1:2"), models=(Model(name="m"), Model(name="n"))
    )
    for share, expected in ((0.25, {"m": 250_000}), (1.0, None)):
        host = table(edge, RouteTable(routes={"m": Routes(model="m", stable=1, candidate=2, share=share)}))[
            "virtual_hosts"
        ][0]
        found = host.get("metadata", {}).get("filter_metadata", {}).get("envoy.filters.http.lua")
        assert found == expected
