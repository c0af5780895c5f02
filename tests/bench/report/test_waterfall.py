"""The waterfall's arithmetic: its parts always add up, none is negative, and old runs are divided as far as they go."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.bench.gating.findings import complete_pairs
from seatrial.bench.gating.pairs import GateRun, SlotRecord
from seatrial.bench.measurement import NOTHING
from seatrial.bench.report import waterfall
from seatrial.bench.report.waterfall import COMPUTE, COPIES, LAG, NETWORK, QUEUE, SERVICE, split
from seatrial.bench.server_statistics import Counted
from tests.support.usage import NO_COUNTS

RunMaker = Callable[..., GateRun]
seconds = st.floats(-1.0, 100.0)
accounts = st.none() | st.fixed_dictionaries({QUEUE: seconds, COPIES: seconds, COMPUTE: seconds})


@given(latency=seconds, lag=seconds, server=accounts)
def test_parts_add_up_to_the_whole_and_none_is_negative(
    latency: float, lag: float, server: dict[str, float] | None
) -> None:
    found = split(latency, lag, server)
    assert found.whole == pytest.approx(max(latency, 0.0), rel=1e-9, abs=1e-12)
    assert min(found.parts.values()) >= 0
    assert list(found.parts) == ([LAG, SERVICE] if server is None else [LAG, NETWORK, QUEUE, COPIES, COMPUTE])


@given(one=st.tuples(seconds, seconds, accounts), other=st.tuples(seconds, seconds, accounts))
def test_changes_add_up_to_the_change_of_the_whole(
    one: tuple[float, float, dict[str, float] | None], other: tuple[float, float, dict[str, float] | None]
) -> None:
    with_server = one[2] is not None and other[2] is not None
    base, candidate = (split(each[0], each[1], each[2] if with_server else None) for each in (one, other))
    steps = waterfall.change(base, candidate)
    assert sum(steps.values()) == pytest.approx(candidate.whole - base.whole, rel=1e-9, abs=1e-9)
    name, step = waterfall.largest(base, candidate)
    assert abs(candidate.whole - base.whole) <= len(steps) * abs(step) + 1e-9
    assert name in steps


def test_accounts_that_fit_are_taken_as_they_are() -> None:
    found = split(0.010, 0.001, {QUEUE: 0.002, COPIES: 0.001, COMPUTE: 0.004})
    assert found.parts == pytest.approx({LAG: 0.001, NETWORK: 0.002, QUEUE: 0.002, COPIES: 0.001, COMPUTE: 0.004})
    assert not found.bounded


def test_a_server_that_accounts_for_more_than_the_client_saw_is_bounded() -> None:
    found = split(0.010, 0.0, {QUEUE: 0.004, COPIES: 0.0, COMPUTE: 0.016})
    assert found.bounded
    assert found.parts == pytest.approx({LAG: 0.0, NETWORK: 0.0, QUEUE: 0.002, COPIES: 0.0, COMPUTE: 0.008})


def server(queue: float, infer: float) -> Callable[[SlotRecord], SlotRecord]:
    def account(record: SlotRecord) -> SlotRecord:
        n = record.status.size
        return replace(record, server=replace(NO_COUNTS, requests=n, queue=queue * n, compute_infer=infer * n))

    return account


def test_the_part_that_grew_is_found(make_run: RunMaker) -> None:
    run = make_run(latency=1.5, noise=0.0)
    told = {"base": server(2e-4, 1e-3), "candidate": server(2e-4, 2e-3)}
    run = replace(run, records=tuple(told[record.slot.arm](record) for record in run.records))
    arms = waterfall.arms(complete_pairs(run))
    assert arms is not None
    name, step = waterfall.largest(*arms)
    assert name == COMPUTE
    assert step == pytest.approx(1e-3)


def test_without_the_server_s_account_in_every_slot_no_arm_is_divided_by_it(make_run: RunMaker) -> None:
    whole = make_run()
    arms = waterfall.arms(complete_pairs(whole))
    assert arms is not None
    assert list(arms[0].parts) == [LAG, SERVICE]
    records = [server(1e-4, 1e-3)(record) for record in whole.records]
    partly = replace(whole, records=(whole.records[0], *records[1:]))
    arms = waterfall.arms(complete_pairs(partly))
    assert arms is not None
    assert list(arms[1].parts) == [LAG, SERVICE]


@pytest.mark.parametrize("account", [NOTHING, NO_COUNTS])
def test_a_server_that_counted_nothing_has_no_account(account: Counted) -> None:
    assert waterfall.server_means(account) is None


def test_a_run_without_answers_has_no_waterfall(make_run: RunMaker) -> None:
    run = make_run()
    silent = tuple(replace(record, status=np.zeros_like(record.status)) for record in run.records)
    assert waterfall.arms(complete_pairs(replace(run, records=silent))) is None
    assert waterfall.arms([]) is None
