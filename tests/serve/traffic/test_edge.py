"""The edge as a value and what Envoy is told of it: shares, ids, names, refusals. No process is started."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize import config
from seatrial.optimize.errors import ConfigError
from seatrial.serve.traffic.edge import Capturing, Edge, Jwt, Keys, Lane, Limits, Model, Sticky, Tls, Variant
from seatrial.serve.traffic.envoy import access_log
from seatrial.serve.traffic.envoy.clusters import Pinned, filter_
from seatrial.serve.traffic.envoy.config import Extras, Places, documents, static
from seatrial.serve.traffic.envoy.filters import read_keys
from seatrial.serve.traffic.envoy.programs import pin
from seatrial.serve.traffic.envoy.routes import RouteTable, ids_below, is_copied, read, table, wanted
from seatrial.serve.traffic.routes import Routes
from seatrial.serve.traffic.shedding import LEAST, STEPS, Shedding, begun_at, next_shedding

PLACES = Places(folder=Path("/there"), sockets=Path("/sockets"))
SMALL = Variant(model="small", version=1)
MODEL = Model(
    name="big",
    fallback=SMALL,
    lanes=(
        Lane(name="tight", header="x-latency-budget-ms", below=20, timeout_ms=20, variant=SMALL),
        Lane(name="beta", header="x-segment", equals="beta"),
    ),
)
EDGE = Edge(schema=1, models=(MODEL, Model(name="small")))

versions = st.integers(1, 50)
shares = st.integers(0, 1_000_000).map(lambda millionths: millionths / 1_000_000)


@st.composite
def routes(draw: st.DrawFn, model: str = "big") -> Routes:
    stable, candidate = draw(versions), draw(st.none() | versions)
    if candidate in (None, stable):
        return Routes(model=model, stable=stable)
    return Routes(model=model, stable=stable, candidate=candidate, share=draw(shares), mirror=draw(shares))


@given(routes(), routes("small"))
@pytest.mark.slow
def test_a_table_tells_the_routes_it_was_made_of(big: Routes, small: Routes) -> None:
    ways = RouteTable(routes={"big": big, "small": small}, shedding={"big": 0.25} if big.share else {})
    assert read(json.loads(json.dumps(table(EDGE, ways)))) == ways


@given(routes())
@pytest.mark.slow
def test_every_cluster_that_a_table_names_is_there(big: Routes) -> None:
    files = documents(EDGE, RouteTable(routes={"big": big}, shedding={"big": 0.5}), PLACES)
    there = {each["name"] for each in files["cds"]["resources"]}
    text = json.dumps(files["rds"])
    named = set(re.findall(r'"(?:cluster|cluster_name)": "([^"]+)"', text))
    named |= set(re.findall(r'"name": "((?:big|small)_v[^"]+)"', text))
    assert named
    assert named <= there


@given(st.integers(0, 65536), st.integers(0, 65535))
def test_the_ids_of_a_share_are_those_below_it(bound: int, first: int) -> None:
    share, request_id = bound / 65536, f"{first:04x}{str(uuid4())[4:]}"
    assert is_copied(request_id, share) == (first < bound)
    assert (re.fullmatch(ids_below(share), request_id) is not None) == is_copied(request_id, share)


@given(shares, shares)
def test_a_larger_share_copies_what_a_smaller_one_does(one: float, other: float) -> None:
    ids = [str(uuid4()) for _ in range(50)]
    assert {i for i in ids if is_copied(i, min(one, other))} <= {i for i in ids if is_copied(i, max(one, other))}


def test_a_candidate_has_clusters_for_both_protocols_and_both_roles() -> None:
    names = {each.name for each in wanted(EDGE, RouteTable(routes={"big": Routes(model="big", stable=1, candidate=2)}))}
    assert {"big_v1", "big_v1_grpc", "big_v2", "big_v2_grpc", "big_v2_shadow", "big_v2_grpc_shadow"} <= names
    assert "big_v1_shadow" not in names
    assert Pinned(model="big", version=2, role="shadow").hop == "big_v2_shadow_hop"


def test_the_pin_appends_model_and_version_as_protobuf() -> None:
    from tritonclient.grpc import service_pb2

    text = re.search(r'SERVICE = "/v2[^"]*", "([^"]*)"', pin("big", 12))
    assert text is not None
    fields = bytes(int(digits) for digits in text.group(1).split("\\")[1:])
    asked = service_pb2.ModelInferRequest(model_name="other", model_version="1", id="7").SerializeToString()
    heard = service_pb2.ModelInferRequest.FromString(asked + fields)
    assert (heard.model_name, heard.model_version, heard.id) == ("big", "12", "7")


def test_extra_filters_stand_before_the_router() -> None:
    extras = Extras(live=(filter_("lua", "lua.v3.Lua"),), shadow=(filter_("tap", "tap.v3.Tap"),))
    live, shadow = static(EDGE, RouteTable(), PLACES, extras=extras)["static_resources"]["listeners"]
    names = [
        [
            each["name"].rpartition(".")[2]
            for each in one["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        ]
        for one in (live, shadow)
    ]
    assert names == [["lua", "buffer", "lua", "lua", "router"], ["tap", "router"]]


def test_answers_are_written_down_only_where_the_edge_says_so() -> None:
    def written(edge: Edge) -> list[list[str]]:
        listeners = static(edge, RouteTable(), PLACES)["static_resources"]["listeners"]
        managers = [each["filter_chains"][0]["filters"][0]["typed_config"] for each in listeners]
        return [[log["typed_config"]["path"] for log in each["access_log"]] for each in managers]

    log, capture = str(PLACES.access_log), PLACES.capture
    assert written(EDGE) == [[log], [log]]
    kept = written(replace(EDGE, capture=Capturing()))
    assert kept == [[log, str(capture / "stable.log")], [log, str(capture / "candidate.log")]]
    with pytest.raises(ConfigError, match="bytes_per_minute is below most_bytes"):
        Capturing(most_bytes=10, bytes_per_minute=9)


def test_only_headers_that_clients_may_send_are_left_on_arrival() -> None:
    assert EDGE.stripped == ("triton_grpc_error", "x-client", "x-latency-budget-ms", "x-segment")
    open_ = Edge(schema=1, models=(MODEL,), client_headers=("x-latency-budget-ms",))
    assert "x-latency-budget-ms" not in open_.stripped


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("schema = 2\nmodels = []", "schema must be 1, got 2"),
        ('schema = 1\naddress = "0.0.0.0"\nmodels = []', "reachable from other machines"),
        ('schema = 1\nmodels = [{ name = "a" }, { name = "a" }]', "two models have the same name"),
        ('schema = 1\nmodels = [{ name = "a/b" }]', "a path separator"),
        ('schema = 1\nmodels = [{ name = "a", try_ms = 9000 }]', "try_ms must be between 0 and 5000, got 9000"),
        ('schema = 1\nmodels = []\nclient_headers = ["x-client"]', "clients must not send"),
        ('schema = 1\nmodels = [{ name = "a", lanes = [{ name = "l", header = "x-s" }] }]', "exactly one of"),
        ('schema = 1\nmodels = []\nserver = { http = "here" }', "must be host:port"),
        ("schema = 1\nmodels = []\n[limits]\nretries = 9", "between 0 and 5"),
        ("schema = 1\nmodels = []\n[rate_limit]\nper_second = 0", "at least 1"),
        ('schema = 1\nmodels = []\n[auth]\nkind = "kees"\nfile = "x"', "auth"),
    ],
)
def test_what_cannot_be_is_refused_with_the_files_name(toml: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        config.parse(toml, Edge, Path("edge.toml"))
    assert "edge.toml" in caught.value.where
    assert caught.value.next_step


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[3] / "serve" / "edges").glob("*.toml")), ids=lambda path: path.stem
)
def test_the_examples_can_be_read(path: Path) -> None:
    assert config.load(path, Edge).models


def test_files_are_found_beside_the_edge() -> None:
    edge = Edge(
        schema=1,
        models=(),
        auth=Keys(kind="keys", file=Path("keys")),
        tls=Tls(certificate=Path("/abs/chain.pem"), key=Path("key.pem")),
    ).beside(Path("/etc/edge"))
    assert isinstance(edge.auth, Keys)
    assert edge.auth.file == Path("/etc/edge/keys")
    assert edge.tls == Tls(certificate=Path("/abs/chain.pem"), key=Path("/etc/edge/key.pem"))


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        ("a b c", 0o600, "not CLIENT KEY"),
        ("a k\na l", 0o600, "repeats a client"),
        ("#", 0o600, "no keys"),
        ("a k", 0o644, "readable for other users"),
        ("a\x1b[2J k", 0o600, "client name"),
        ("-a k", 0o600, "client name"),
        ("é k", 0o600, "client name"),
        ("a ké", 0o600, "visible ASCII"),
    ],
)
def test_keys_that_cannot_be_used_are_refused(tmp_path: Path, content: str, mode: int, said: str) -> None:
    path = tmp_path / "keys"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=said):
        read_keys(path)


@pytest.mark.parametrize(
    "header",
    [
        *("X-Big", "x big", "x\nbig", "x-é", "", ":path", "x_under", "x" * 65, "x:y", "x-\x1b[2J"),
        *("host", "content-length", "inference-header-content-length", "te", "connection", "transfer-encoding"),
        *("x-client", "x-edge-model", "x-envoy-retry-on", "x-forwarded-for", "x-model-version", "x-request-id"),
        *("cookie", "grpc-timeout", "content-type"),
    ],
)
def test_headers_that_no_edge_may_name_are_refused_wherever_they_stand(header: str) -> None:
    lanes = (Lane(name="l", header=header, equals="v"),)
    makers: list[Callable[[], object]] = [
        lambda: Model(name="a", lanes=lanes),
        lambda: Edge(schema=1, models=(), client_headers=(header,)),
        lambda: Jwt(kind="jwt", jwks=Path("j"), issuer="i", claims={"segment": header}),
        lambda: Keys(kind="keys", file=Path("keys"), header=header),
        lambda: Sticky(header=header or "\x00"),
    ]
    for make in makers:
        with pytest.raises(ConfigError) as caught:
            make()
        assert caught.value.where
        assert caught.value.next_step


def test_headers_that_an_edge_may_name_are_taken() -> None:
    assert Keys(kind="keys", file=Path("keys"), header="authorization").header == "authorization"
    for header in ("x-segment", "x.y!z", "user-agent"):
        assert Model(name="a", lanes=(Lane(name="l", header=header, equals="v"),)).lanes


@pytest.mark.parametrize(
    "pattern",
    [
        *("(?=a)b", "(?!a)", "(?<=a)b", "(?<!a)b", "(a)\\1", "(?P<n>a)(?P=n)", "(a)?(?(1)b|c)", "(?>a)", "a(?#x)"),
        *("a++", "a{2}+", "a\\Z", "\\u0041", "\\N{DIGIT ONE}", "(?x)a", "(?a:b)", "a{1001}", "a{,3}", "a\x00", "a\n"),
        *("(a", "a)", "[a", "a\\", "", " a"),
    ],
)
def test_a_pattern_that_re2_does_not_know_is_refused_with_the_reason(pattern: str) -> None:
    with pytest.raises(ConfigError, match="RE2") as caught:
        Lane(name="l", header="x-s", matches=pattern)
    assert caught.value.where == "lane l"


@pytest.mark.parametrize(
    "pattern",
    ["eu-[a-z]+", "(?i)beta|b", r"\pL+\z", "[]a]+", "[^]a]", "(?P<n>a)", "(?s:.*)", r"\Q(\E", "a{2,3}?", "[[:alpha:]]"],
)
def test_a_pattern_of_re2_is_taken(pattern: str) -> None:
    assert Lane(name="l", header="x-s", matches=pattern).matches == pattern


@pytest.mark.parametrize("value", ["", " a", "a\r\nx-evil: 1", "\x1b[31m", "a\u202eb", "v" * 1025])
def test_a_value_that_no_header_has_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="can never match a header"):
        Lane(name="l", header="x-s", equals=value)
    with pytest.raises(ConfigError, match="invalid issuer, audience or claim"):
        Jwt(kind="jwt", jwks=Path("j"), issuer="i", client_claim=value)


def test_what_a_claim_sets_or_a_key_comes_in_no_client_chooses() -> None:
    jwt = Jwt(kind="jwt", jwks=Path("j"), issuer="i", claims={"segment": "x-segment"})
    with pytest.raises(ConfigError, match="set from a claim"):
        Edge(schema=1, models=(), auth=jwt, client_headers=("x-segment",))
    with pytest.raises(ConfigError, match="become the same header"):
        replace(jwt, claims={"segment": "x-segment", "tier": "x-segment"})
    with pytest.raises(ConfigError, match="no lane may use it"):
        Edge(schema=1, models=(MODEL,), auth=Keys(kind="keys", file=Path("k"), header="x-segment"))
    with pytest.raises(ConfigError, match="cookie"):
        Sticky(cookie="a;b")
    with pytest.raises(ConfigError, match="not an IP address"):
        Edge(schema=1, models=(), address="127.0.0.1.example.com")


def test_no_retry_and_no_ejection_unless_asked_for() -> None:
    edge = Edge(schema=1, models=(Model(name="a"),), limits=Limits(retries=0))
    assert "retry_policy" not in json.dumps(table(edge, RouteTable()))
    assert "outlier" not in json.dumps(documents(edge, RouteTable(), PLACES))


LINE = {
    "start": "1795570205.663655", "us": 678, "status": 200, "grpc": 14, "flags": "-", "route": "big/default",
    "id": "8afb", "attempts": 1, "model": "big", "version": "2", "role": "shadow",
}  # fmt: skip


def test_a_line_of_the_access_log_is_one_request_seen() -> None:
    seen = access_log.parse(json.dumps(LINE))
    assert seen is not None
    assert (seen.at, seen.model, seen.version, seen.role) == (1795570205.663655, "big", 2, "shadow")
    assert (seen.seconds, seen.grpc_status, seen.failed, seen.flags) == (0.000678, 14, True, "")


@pytest.mark.parametrize("line", ["", "{", "[]", '{"route": "denied"}', json.dumps(LINE | {"route": "big/about"})])
def test_other_lines_are_no_evidence(line: str) -> None:
    assert access_log.parse(line) is None


def test_a_log_is_read_on_while_it_grows_and_is_moved_away(tmp_path: Path) -> None:
    log, line = tmp_path / "access.jsonl", json.dumps(LINE)
    assert access_log.read(log)[0] == []
    log.write_text(f"{line}\n{line}\n{line[:40]}")
    seen, place = access_log.read(log)
    assert len(seen) == 2
    log.write_text(f"{line}\n{line}\n{line}\n{line}\n")
    log.replace(tmp_path / "access.jsonl.1")
    log.write_text(f"{line}\n")
    seen, place = access_log.read(log, place)
    assert len(seen) == 3
    assert access_log.read(log, place)[0] == []


def test_a_place_that_is_in_neither_file_any_more_means_both_from_their_beginning(tmp_path: Path) -> None:
    log, moved, line = tmp_path / "access.jsonl", tmp_path / "access.jsonl.1", json.dumps(LINE)
    log.write_text(f"{line}\n")
    _, place = access_log.read(log)
    log.rename(tmp_path / "long gone")
    moved.write_text(f"{line}\n" * 2)
    log.write_text(f"{line}\n" * 3)
    seen, place = access_log.read(log, place)
    assert len(seen) == 5
    log.write_text("")  # another file that happens to have the number of the one that was read
    log.write_text(f"{line}\n")
    assert len(access_log.read(log, place)[0]) == 1
    assert len(access_log.read(log)[0]) == 1, "from the beginning of the log, not of what was moved away"


def shed_steps(windows: Sequence[float], start: int = 0) -> list[int]:
    """The steps that load shedding takes over windows of a hundred equal answers (seconds), for a promise of 0.1 s."""
    now, steps = Shedding(step=start), []
    for latency in windows:
        now = next_shedding(now, [latency] * 100, 0.1)
        steps.append(now.step)
    return steps


def test_relief_goes_up_at_once_and_down_only_after_calm() -> None:
    assert shed_steps([0.2, 0.05, 0.2, 0.08]) == [1, 1, 2, 2]
    assert shed_steps([0.05] * 11, start=2) == [2, 2, 2, 2, 1, 1, 1, 1, 1, 0, 0]
    assert shed_steps([0.05] * 4 + [0.09] + [0.05] * 5, start=1) == [1] * 9 + [0]
    assert shed_steps([9.0] * 9)[-1] == len(STEPS) - 1


@given(st.integers(0, len(STEPS) - 1), st.integers(0, LEAST - 1), st.floats(0, 10))
def test_too_few_answers_move_nothing(step: int, count: int, latency: float) -> None:
    assert next_shedding(Shedding(step=step), [latency] * count, 0.1) == Shedding(step=step)


@given(st.sampled_from(STEPS))
def test_relief_is_taken_up_where_it_was_left(share: float) -> None:
    assert begun_at(share).share == share
