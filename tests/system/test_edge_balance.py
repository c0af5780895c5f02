"""A real Envoy before a real Triton: a client that knows a version's users cannot send it more than its share."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from scripts.benchmarks.teller import Grpc, Http, telling, upstream
from seatrial.serve.processes import wait
from seatrial.serve.traffic.edge import Edge, Keys, Model
from seatrial.serve.traffic.envoy import on_envoy
from seatrial.serve.traffic.routes import Routes

pytestmark = pytest.mark.system


def lines(log: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


HALF = Routes(model="teller", stable=1, candidate=2, share=0.5)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_client_that_names_one_versions_users_alone_gets_its_share(tmp_path: Path, protocol: str) -> None:
    keys = tmp_path / "keys"
    keys.write_text("evil key-of-evil\nbob key-of-bob\n")
    keys.chmod(0o600)
    draw = random.Random(1)
    with telling(tmp_path) as triton:
        edge = Edge(
            schema=1,
            port=0,
            server=upstream(triton),
            models=(Model(name="teller"),),
            auth=Keys(kind="keys", file=keys),
        )
        with on_envoy.serving(edge, (HALF,)) as proxy:
            caller = Http(proxy.url) if protocol == "http" else Grpc(proxy.url)

            def version(client: str, user: str) -> int:
                return caller.ask(headers={"x-api-key": f"key-of-{client}", "x-user-id": user}).version

            tried = {user: version("bob", user) for user in (f"user{number}" for number in range(100))}
            of_each = [[user for user, number in tried.items() if number == each][:25] for each in (1, 2)]
            users = [*of_each[0], *of_each[1]]
            before = {user: tried[user] for user in users}
            known = [f"evil{number}" for number in range(300) if version("evil", f"evil{number}") == 2]
            served: Counter[int] = Counter()
            for number in range(1200):
                served[version("evil", draw.choice(known))] += 1
                if number % 4 == 0:
                    version("bob", draw.choice(users))
            assert served[2] < 0.62 * served.total()
            after = {user: version("bob", user) for user in users}
            moved = [user for user in users if after[user] != before[user]]
            assert len(moved) <= 5  # of those on trial; chance gives others an excess of their own
            assert all(after[user] == 1 for user in moved)
            caller.close()
            log = proxy.places.access_log
            assert wait(lambda: any(line.get("moved") for line in lines(log)), 30.0)
