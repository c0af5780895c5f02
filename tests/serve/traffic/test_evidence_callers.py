"""Evidence that callers cannot write: results of requests, like compared with like, quarantine, clients and clocks."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.serve.traffic.envoy import access_log
from seatrial.serve.traffic.envoy.metering import REASONS, reason
from seatrial.serve.traffic.envoy.quarantine import Suspicion
from seatrial.serve.traffic.rollout.blocks import CLIENT_MOST, FREEZE, Block, BlockAggregator, Thresholds
from seatrial.serve.traffic.rollout.evidence import judge
from seatrial.serve.traffic.rollout.matching import kind_of, typical_factors
from seatrial.serve.traffic.rollout.plan import Plan, Step
from seatrial.serve.traffic.rollout.steady import SteadyClock
from seatrial.serve.traffic.rollout.tally import Tally
from seatrial.serve.traffic.seen import Result, Seen
from seatrial.serve.traffic.shadow.agreement import AgreementLimits
from seatrial.serve.traffic.shadow.by_client import unanimous
from seatrial.serve.traffic.shadow.differing import Differing

PLAN = Plan(
    schema=1,
    steps=(Step(share=0.5, requests=200), Step(share=1.0, requests=100, needs="requests")),
    block=10.0,
    block_requests=2,
)
KNOWN = Thresholds(p95=0.04, p99=0.06, requests=1000)

LINE = {
    "start": "100.5",
    "us": 9000,
    "upstream_us": 5000,
    "ms": 9,
    "received_ms": 2,
    "status": 200,
    "details": "via_upstream",
    "flags": "-",
    "model": "m",
    "version": "2",
    "role": "live",
    "route": "m/default@2",
    "attempts": 1,
    "kind": "json",
    "size": "1000",
    "digest": "aa",
    "client": "alice",
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("answered", 2, 0.005)),
        ({"status": 500}, ("unconfirmed", 2, 0.005)),
        ({"status": 400}, ("unconfirmed", 2, 0.005)),
        ({"status": 200, "grpc": 13}, ("unconfirmed", 2, 0.005)),
        ({"attempts": 2, "version": "1"}, ("failed", 2, 0.005)),
        ({"attempts": 2, "version": "1", "status": 500, "flags": "URX"}, ("shared", 2, 0.005)),
        ({"attempts": 2, "version": "1", "grpc": 3}, ("shared", 2, 0.005)),
        ({"status": 504, "details": "response_timeout", "flags": "UT", "ms": 3002}, ("late", 2, 3.0)),
        (
            {"status": 504, "details": "response_timeout", "flags": "URX,UT", "version": "1", "attempts": 2},
            ("shared", 2, 0.007),
        ),
        ({"status": 0, "details": "downstream_remote_disconnect", "flags": "DC", "ms": 52}, ("abandoned", 2, 0.05)),
        ({"route": "m/default@2/copied"}, ("answered", 2, 0.005)),
        ({"status": 401, "details": "api_key_authn_unauthorized"}, None),
        ({"status": 429, "details": "local_rate_limited"}, None),
        ({"status": 413, "details": "request_payload_too_large"}, None),
        ({"status": 400, "details": "lua_response", "refused": "depth"}, None),
        ({"status": 503, "details": "upstream_reset_before_response_started{overflow}", "flags": "UO"}, None),
        ({"status": 503, "details": "upstream_reset_before_response_started{connection_termination}"}, None),
        ({"status": 503, "flags": "URX,UF", "details": "upstream_reset_before_response_started{x}"}, None),
        ({"route": "m/about"}, None),
        ({"status": "many"}, None),
        ({"size": "1e999"}, None),
    ],
)
def test_a_line_says_of_a_version_only_what_an_upstream_said(
    changes: dict[str, object], expected: tuple[Result, int, float] | None
) -> None:
    seen = access_log.parse(json.dumps(LINE | changes))
    assert (None if seen is None else (seen.result, seen.judged, round(seen.seconds, 9))) == expected


def test_a_caller_s_own_time_is_no_latency_of_a_version() -> None:
    slow_reader = access_log.parse(json.dumps(LINE | {"us": 30_000_000, "ms": 30_000, "received_ms": 20_000}))
    assert slow_reader is not None
    assert slow_reader.seconds == 0.005


def one(at: float, version: int, seconds: float = 0.02, **changes: object) -> Seen:
    seen = Seen(
        at=at,
        model="m",
        version=version,
        role="live",
        seconds=seconds,
        status=200,
        on_trial=True,
        kind="json",
        size=1000,
    )
    return replace(seen, **changes)  # type: ignore[arg-type]


def honest(start: float, end: float, rate: int = 10, slower: float = 1.0, seed: int = 1) -> Iterator[Seen]:
    """Both versions alike but for a factor; callers of two sizes, the large ones four times as slow."""
    random = np.random.default_rng(seed)
    for index in range(int((end - start) * rate)):
        for version in (1, 2):
            large = random.random() < 0.3  # and there are three clients
            seconds = 0.02 * (4 if large else 1) * math.exp(random.normal(0, 0.1)) * (slower if version == 2 else 1)
            yield one(
                start + index / rate,
                version,
                seconds,
                size=9000 if large else 1000,
                request_id=f"{seed}-{index}-{version}",
                client=("bob", "carol", "dave")[index % 3],
            )


def blocks(stream: Iterator[Seen], end: float = 400.0) -> tuple[list[Block], BlockAggregator]:
    cutter = BlockAggregator(PLAN, "m", 1, 2)
    ordered = sorted(stream, key=lambda each: each.at + each.seconds)
    before = [each for each in ordered if each.at < 100.0]
    cutter.add(before, 100.0)
    cutter.counts_from(0, 100.0)
    return cutter.add((each for each in ordered if each.at >= 100.0), end), cutter


def steered(version: int, **changes: object) -> Iterator[Seen]:
    """Five hostile requests a second to one version."""
    for index in range(1500):
        hostile = one(100.0 + index / 5, version, request_id=f"evil-{version}-{index}", client="mallory")
        yield replace(hostile, **changes)  # type: ignore[arg-type]


ATTACKS: dict[str, dict[str, object]] = {
    "malformed": {"status": 500, "version": 1, "asked": 2, "attempts": 2},
    "malformed, and nobody could be asked": {"status": 500},
    "refused": {"status": 400},
    "heavy": {"seconds": 0.9, "size": 900_000},
    "light": {"seconds": 0.0005, "size": 10},
    "heavy, of the size of others": {"seconds": 0.9},
    "given up at once": {"status": 0, "flags": "DC", "seconds": 0.0},
    "too heavy to end": {"status": 504, "flags": "UT", "seconds": 3.0, "size": 900_000},
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.slow
def test_no_requests_steered_to_a_version_decide_about_it(name: str, version: int) -> None:
    changes = ATTACKS[name]
    if "asked" in changes and version == 1:
        changes = changes | {"version": 2, "asked": 1}
    attack = [replace(each, **changes) for each in steered(version)]  # type: ignore[arg-type]
    for slower, expected in ((1.0, "FAIL"), (1.25, "FAIL")):
        made, cutter = blocks(iter([*honest(0.0, 400.0, slower=slower), *attack]))
        found = judge(PLAN, 0, Tally.of(made))
        assert (found.outcome == expected) == (slower > 1), (found.reasons, cutter.dropped)


def test_failures_of_the_version_s_own_count_and_the_other_version_s_answer_is_no_sample_of_it() -> None:
    failing = (
        replace(each, version=1, asked=2, attempts=2, request_id=f"f-{each.request_id}")
        if each.version == 2 and index % 40 < 2
        else each
        for index, each in enumerate(honest(0.0, 400.0))
    )
    made, _ = blocks(failing)
    found = judge(PLAN, 0, Tally.of(made))
    assert found.outcome == "FAIL"
    assert "errors" in found.reasons[0]
    assert sum(block.baseline.errors for block in made) == 0


def test_one_client_counts_for_so_many_requests_of_a_block_and_those_without_a_key_are_not_bounded() -> None:
    cutter = BlockAggregator(PLAN, "m", 1, 2, thresholds=KNOWN)
    cutter.counts_from(0, 100.0)
    many = [one(101.0, 2, client="mallory") for _ in range(CLIENT_MOST + 500)]
    few = [one(102.0 + i, 1 + i % 2, client="bob") for i in range(8)]
    (block,) = cutter.add([*many, *few], 111.0)
    assert block.candidate.requests == CLIENT_MOST + 4
    assert cutter.dropped["of a client that counts enough"] == 500
    (second,) = cutter.add([replace(each, at=112.0, client="") for each in [*many, *few]], 122.0)
    assert second.candidate.requests == CLIENT_MOST + 504


def test_kinds_that_only_one_version_had_say_nothing_and_rare_ones_have_no_tail() -> None:
    cutter = BlockAggregator(PLAN, "m", 1, 2)
    cutter.add([one(i / 10, 1, 0.01 * (1 + i % 3), size=1000) for i in range(FREEZE)], 60.0)
    cutter.add([one(60.0 + i / 10, 1, 5.0, size=10**6) for i in range(10)], 70.0)
    cutter.counts_from(0, 100.0)
    assert cutter.thresholds is not None
    assert set(cutter.thresholds.typical) == {kind_of(one(0, 1, size=1000))}
    alike = [one(101 + i / 10, 1 + i % 2, 0.02) for i in range(20)]
    heavy = [one(101 + i / 10, 2, 5.0, size=10**6) for i in range(20)]
    (block,) = cutter.add([*alike, *heavy], 111.0)
    assert (block.candidate.answered, block.candidate.matched, block.candidate.measured) == (30, 10, 10)
    assert block.candidate.slow99 == 0
    assert Tally.of([block]).differences() == pytest.approx([0.0])
    assert Block.from_json(json.loads(json.dumps(block.to_json()))) == block


@given(st.lists(st.tuples(st.sampled_from(["json", "grpc"]), st.floats(1e-4, 10.0)), min_size=1, max_size=80))
def test_typical_factors_are_those_of_the_kinds_medians(answers: list[tuple[str, float]]) -> None:
    factors = typical_factors(answers, least=1)
    assert set(factors) == {kind for kind, _ in answers}
    if len(factors) == 1:
        assert set(factors.values()) == {1.0}
    doubled = typical_factors([(kind, 2 * seconds) for kind, seconds in answers], least=1)
    assert doubled == pytest.approx(factors)


CUT = {"flags": "UC", "status": 503, "details": "upstream_reset_before_response_started{connection_termination}"}


def log_line(digest: str, at: float, **changes: object) -> dict[str, object]:
    return LINE | {"digest": digest, "start": str(at), "ms": 0} | changes


def test_a_body_that_was_alone_at_a_crash_is_condemned_at_once_and_others_at_their_second_death() -> None:
    suspicion = Suspicion()
    (death,) = suspicion.learn([log_line("ok", 1.0), log_line("bad", 10.0, **CUT), log_line("ok", 10.2, **CUT)])
    assert suspicion.condemn(death, crashed=True) == ("bad",), "what was answered before is no killer"
    first, second = suspicion.learn([log_line(each, at, **CUT) for at in (20.0, 30.0) for each in ("x", "y")])
    assert suspicion.condemn(first, crashed=True) == (), "nobody knows which of the two it was"
    suspicion.learn([log_line("y", 25.0)])
    assert suspicion.condemn(second, crashed=True) == ("x",)
    (killed,) = suspicion.learn([log_line("z", 40.0, **CUT)])
    assert suspicion.condemn(killed, crashed=False) == (), "an operator's kill is nobody's fault"
    (again,) = suspicion.learn([log_line("z", 50.0, **CUT)])
    assert suspicion.condemn(again, crashed=False) == ("z",)


def test_refusals_are_counted_by_a_few_fixed_reasons() -> None:
    assert reason(LINE) == ""
    assert reason(LINE | CUT) == "server died"
    assert reason(LINE | {"details": "lua_response", "refused": "depth", "status": 400}) == "depth"
    assert reason(LINE | {"details": "x", "flags": "UO", "status": 503}) == "breaker"
    for status, why in REASONS.items():
        assert reason(LINE | {"details": "x", "status": status}) == why


def test_a_clock_that_is_set_back_or_forward_changes_nothing_for_a_rollout() -> None:
    times = {"wall": 1000.0, "steady": 5.0}
    clock = SteadyClock(wall=lambda: times["wall"], steady=lambda: times["steady"])
    assert (clock(), clock.correction()) == (1000.0, 0.0)
    for step in (-300.0, 600.0):
        times["wall"] += 10.0 + step
        times["steady"] += 10.0
        before = clock()
        assert before - times["wall"] == pytest.approx(clock.correction())
    assert clock() == 1020.0
    restarted = SteadyClock(after=1020.0, wall=lambda: 700.0, steady=lambda: times["steady"])
    assert restarted() == 1020.0, "what an earlier process wrote down is not in the future"
    assert restarted.correction() == 320.0


def differing(client: str, same: float, count: int) -> list[Differing]:
    return [Differing(output="y", rows=1, same=same, request=f"{client}-{i}", client=client) for i in range(count)]


LIMITS = {"y": AgreementLimits(top1_at_least=0.9)}


def test_no_single_client_s_inputs_decide_whether_two_versions_agree() -> None:
    noise = unanimous([*differing("bob", 1.0, 800), *differing("mallory", 0.0, 400)], LIMITS)
    assert noise.outcome == "INCONCLUSIVE"
    assert "only the inputs of client mallory disagree" in noise.reasons[0]
    hiding = unanimous([*differing("bob", 0.0, 200), *differing("mallory", 1.0, 20_000)], LIMITS)
    assert hiding.outcome == "INCONCLUSIVE"
    assert "all inputs but those of client mallory" in hiding.reasons[0]
    both = [*differing("bob", 0.0, 400), *differing("carol", 0.0, 400)]
    assert unanimous(both, LIMITS).outcome == "FAIL"
    assert unanimous([*differing("bob", 1.0, 800), *differing("carol", 1.0, 800)], LIMITS).outcome == "PASS"
    assert unanimous(differing("", 0.0, 800), LIMITS).outcome == "FAIL", "without keys callers are one"


def test_the_attacks_would_decide_where_requests_of_all_kinds_are_compared_with_each_other() -> None:
    stream = [*honest(0.0, 400.0), *(replace(each, seconds=0.9) for each in steered(2))]
    made, _ = blocks(replace(each, kind="", client="") for each in stream)
    assert judge(PLAN, 0, Tally.of(made)).outcome == "FAIL"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.slow
def test_two_clients_who_make_like_requests_heavier_move_nothing_beside_one_honest_client(version: int) -> None:
    attack = [replace(each, seconds=0.9, client=f"mallory-{i % 2}") for i, each in enumerate(steered(version))]
    light = [replace(each, seconds=0.001, client=f"mallory-{i % 2}") for i, each in enumerate(steered(3 - version))]
    for slower in (1.0, 1.25):
        alone = [replace(each, client="bob") for each in honest(0.0, 400.0, slower=slower)]
        made, _ = blocks(iter([*alone, *attack, *light]))
        found = {each.metric: each for each in judge(PLAN, 0, Tally.of(made)).findings}
        assert found["mean"].estimate == pytest.approx(slower - 1, abs=0.04)
        assert (found["mean"].outcome == "FAIL") == (slower > 1)
        assert (found["p99"].outcome == "FAIL") <= (slower > 1)


def test_many_small_clients_are_compared_together() -> None:
    stream = [replace(each, client=f"client-{i % 700}") for i, each in enumerate(honest(0.0, 400.0, slower=1.25))]
    made, _ = blocks(iter(stream))
    assert sum(block.candidate.of("matched") for block in made) > 0.9 * sum(block.candidate.answered for block in made)
    assert judge(PLAN, 0, Tally.of(made)).outcome == "FAIL"
