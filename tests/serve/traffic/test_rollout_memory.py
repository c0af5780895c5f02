"""A controller that holds a step for long: what it remembers of single requests is bounded by minutes, not by days."""

from seatrial.serve.traffic.rollout.blocks import REMEMBERED_SECONDS, BlockAggregator
from seatrial.serve.traffic.rollout.plan import Plan, Step
from seatrial.serve.traffic.seen import Seen

PLAN = Plan(schema=1, steps=(Step(share=0.5), Step(share=1.0, needs="requests")), block=10.0, block_requests=2)


def one(at: float) -> Seen:
    return Seen(at=at, model="m", version=1, role="live", seconds=0.01, status=200, request_id=f"id-{at}")


def test_request_ids_are_remembered_for_minutes_and_a_record_that_comes_twice_is_known_that_long() -> None:
    cutter, remembered = BlockAggregator(PLAN, "m", 1, 2), []
    for minute in range(60):
        start = 1000.0 + 60.0 * minute
        seen = [one(start + second) for second in range(60)]
        cutter.add(seen, start + 60.0)
        cutter.add(seen, start + 60.0)
        remembered.append(len(cutter._ids))
    assert cutter.dropped["twice"] == 3600
    assert max(remembered) <= REMEMBERED_SECONDS + 1
    assert remembered[-1] == remembered[10]
