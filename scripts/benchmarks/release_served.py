"""The trail held against traffic: through switches and rollouts, what did each request's own answer come from?

Three sources that know nothing of each other: the model says its version in every answer, the edge's log has the time
at which each request began, and `trail served` says from its entries alone which digest answered then.
"""

import itertools
import json
import random
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from scripts.benchmarks.attack_honest import honest
from scripts.benchmarks.attack_rollouts import PLAN, moved
from scripts.benchmarks.attack_world import FAILING, IDENTICAL, NAME, STABLE, World, up
from scripts.benchmarks.rows import Row
from seatrial.optimize.environment import home
from seatrial.serve.release.trail_file import TrailFile
from seatrial.serve.traffic.envoy.router import EnvoyRouter
from seatrial.serve.traffic.routes import Routes
from seatrial.serve.traffic.trailed import trailed
from seatrial.serve.triton.repository.placement import placements

SAMPLED = 5000
SWITCHES = 20
RATE = 100.0  # requests a second
_LONGEST = 600.0  # seconds that the load lasts at most


def served(folder: Path) -> Row:
    """Switch 20 times, roll out one candidate that stays and one that is taken back, and ask of 5,000 requests."""
    (folder / "plan.toml").write_text(PLAN)
    complaints = list[str]()
    with up(folder, versions=(STABLE, IDENTICAL)) as world:
        digests = {each.version: each.digest for each in placements(world.server.repository, NAME)}
        router = EnvoyRouter(world.proxy, applied=trailed(lambda model: digests, complaints.append))
        router.apply(Routes(model=NAME, stable=IDENTICAL))
        with honest(world.port, rate=RATE, path=folder / "asked.jsonl", seconds=_LONGEST) as callers:
            time.sleep(2.0)
            for number in range(SWITCHES):
                router.apply(_routes(number))
                time.sleep(1.5)
            router.apply(Routes(model=NAME, stable=STABLE))
            world.serve(STABLE)
            ends = [moved(world, IDENTICAL)]
            router.apply(Routes(model=NAME, stable=IDENTICAL))
            ends.append(moved(world, FAILING))
            time.sleep(2.0)
        said = {each.id: int(each.said) for each in callers.asked() if each.status == 200 and each.said}
        began = _began(world)
    known = [(id_, version, began[id_]) for id_, version in said.items() if id_ in began]
    random.Random(SWITCHES).shuffle(known)
    trail, wrong, single = TrailFile(home() / "trail"), list[str](), 0
    for id_, version, at in known[:SAMPLED]:
        found = trail.served(NAME, datetime.fromtimestamp(at, UTC))
        possible = found.digests if found else frozenset()
        single += len(possible) == 1
        if digests[version] not in possible:
            wrong.append(f"{id_} by version {version}")
    entries = sum(each.event == "switched" for each in trail.entries(model=NAME))
    phases = ", ".join(phase for phase, _ in ends)
    sampled = min(len(known), SAMPLED)
    return Row(
        name="served",
        claim=f"trail served --at through {SWITCHES} switches and 2 rollouts ({phases}) at {RATE:.0f} requests/s",
        value=f"{sampled - len(wrong)} of {sampled} sampled requests of {len(known)} map to the digest that answered, "
        f"{single} of them to it alone; {entries} changes of routes in the trail; {len(complaints)} not entered"
        + (f"; wrong: {'; '.join(wrong[:3])}" if wrong else ""),
        bar=f"all of {SAMPLED}",
        met=not wrong and not complaints and sampled == SAMPLED and phases == "promoted, rolled_back",
    )


def _routes(number: int) -> Routes:
    """Return the routes after one switch: either version alone, or both at some share."""
    stable, other = ((STABLE, IDENTICAL), (IDENTICAL, STABLE))[number % 2]
    if number % 4 < 2:
        return Routes(model=NAME, stable=stable)
    return Routes(model=NAME, stable=stable, candidate=other, share=0.1 + 0.04 * number)


def _began(world: World) -> dict[str, float]:
    """Return when each live request began, by its id, as the edge's log has it."""
    log, found = world.proxy.places.access_log, dict[str, float]()
    paths = (log.with_name(log.name + ".1"), log)
    lines = itertools.chain.from_iterable(path.open(errors="replace") for path in paths if path.exists())
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):
            said = json.loads(line)
            if said.get("role", "live") == "live":
                found[said["id"]] = float(said["start"])
    return found
