"""nginx configurations before a Triton: what it sends again, how large a request may be, and how long it waits.

Pure but for reading: takes text. nginx itself reads a whole request before it passes it on (proxy_request_buffering),
holds headers under 8 kB a line and bodies under 1 MB unless told otherwise, and sends a POST again only where
`non_idempotent` says so; findings are where a configuration gives that up.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from seatrial.optimize.breach import Breach

from .reading import number, told
from .rules import TRITON_HEADER_KB, breach

_TOKEN = re.compile(r"""\s+|\#[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[{};]|(?:\\.|[^\s{};"'\#\\]|\$\{[^}]*\})+""")
_PROXIES = ("proxy_pass", "grpc_pass")
_MOST_TOKENS = 200_000
_TRITON = re.compile(r"triton|inference", re.I)
_WIDE = re.compile(r"location (\^~ )?/(v2/?)?|location ~\*? \^?/(v2/?)?(\.\*)?\$?")
_CODE = re.compile(r"\w+_by_lua_block\s*\{")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_CAUSES = {"error", "timeout", "invalid_header", "http_500", "http_502", "http_503", "http_504"}


@dataclass(slots=True)
class Block:
    """A directive's block: what stands in it, by name, and the blocks inside."""

    name: str = ""
    given: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    inside: list["Block"] = field(default_factory=list)

    def last(self, name: str, outer: tuple["Block", ...] = ()) -> tuple[str, ...] | None:
        """The arguments in force here: its own, else those of the nearest block around."""
        for block in (self, *reversed(outer)):
            if name in block.given:
                return block.given[name][-1]
        return None


def parse(text: str) -> Block:
    """The blocks of a configuration.

    Raises:
        ValueError: it is none, or holds code.
    """
    if _CODE.search(text):
        raise ValueError("it contains Lua blocks, which are not supported")
    root = Block()
    stack, words = [root], list[str]()
    place = 0
    for _ in range(_MOST_TOKENS):
        if place == len(text):
            break
        found = _TOKEN.match(text, place)
        if found is None:
            raise ValueError(f"invalid nginx syntax at {told(text[place : place + 20])!r}")
        token, place = found[0], found.end()
        if token.isspace() or token.startswith("#"):
            continue
        if token == ";":
            if words:
                stack[-1].given.setdefault(words[0], []).append(tuple(words[1:]))
            words = []
        elif token == "{":
            block = Block(name=" ".join(words))
            stack[-1].inside.append(block)
            stack.append(block)
            words = []
        elif token == "}":
            if len(stack) == 1 or words:
                raise ValueError("a block is not closed, or is closed twice")
            stack.pop()
        else:
            words.append(token.strip("\"'") if token[0] in "\"'" else token)
        if len(stack) > 50:
            raise ValueError("blocks are nested deeper than 50 levels")
    if len(stack) != 1 or words or place != len(text):
        raise ValueError("it ends inside a block, or is too long")
    return root


def audit(text: str, where: str) -> Iterator[Breach]:
    """Everything found in one file.

    Raises:
        ValueError: it is no nginx configuration.
    """
    root = parse(text)
    yield from _block(root, where, (), frozenset(_tritons(root)))


def _tritons(block: Block) -> Iterator[str]:
    """Names of upstreams that are Tritons by their own name or a server's."""
    for each in block.inside:
        servers = " ".join(" ".join(words) for words in each.given.get("server", []))
        if each.name.startswith("upstream ") and _TRITON.search(f"{each.name} {servers}"):
            yield each.name.split()[1]
        yield from _tritons(each)


def _block(block: Block, where: str, outer: tuple[Block, ...], tritons: frozenset[str]) -> Iterator[Breach]:
    if any(name in block.given for name in _PROXIES) and block.name.startswith(("location", "if", "limit_except")):
        yield from _location(block, f"{where}: {told(block.name)}", outer, tritons)
    for each in block.inside:
        yield from _block(each, where, (*outer, block), tritons)


def _location(block: Block, where: str, outer: tuple[Block, ...], tritons: frozenset[str]) -> Iterator[Breach]:
    size = block.last("client_max_body_size", outer)
    if size and _bytes(size[0]) == 0:
        yield breach("proxy-body-limit", where, "client_max_body_size 0")
    for name in ("proxy_next_upstream", "grpc_next_upstream"):
        again = set(block.last(name, outer) or ())
        if "non_idempotent" in again and again & _CAUSES:
            yield breach("retries-again", where, f"{name} {told(' '.join(sorted(again)))}")
    headers = block.last("large_client_header_buffers", outer)
    if headers and len(headers) == 2 and _bytes(headers[1]) > TRITON_HEADER_KB << 10:
        yield breach("large-headers", where, f"large_client_header_buffers {' '.join(headers)}")
    if (block.last("proxy_request_buffering", outer) or ("on",))[0] == "off":
        yield breach("slow-requests", where, "proxy_request_buffering off")
    if block.last("limit_conn", outer) is None:
        yield breach("no-connection-limit", where, "no limit_conn")
    if _WIDE.fullmatch(block.name) and _is_triton(block, tritons):
        yield breach("wide-route", where, f"{told(block.name)} to a Triton")


def _is_triton(block: Block, tritons: frozenset[str]) -> bool:
    """By the target's name: a port says nothing, since much else listens on 8000."""
    targets = [each[0] for name in _PROXIES for each in block.given.get(name, []) if each]
    hosts = [re.sub(r"^\w+://", "", each).partition("/")[0] for each in targets]
    return any(_TRITON.search(host) or host in tritons for host in hosts)


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)([kmg]?)", text.strip().lower())
    return int(number(found[1]) or 0) * _UNITS[found[2]] if found else 1
