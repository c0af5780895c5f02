"""Names and values of headers, cookies, claims and clients, as an edge's file may give them.

Pure. A header's name is a lower-case token of RFC 9110. Refused are those that frame a message or belong to one
connection (`host`, `content-length`, `te`), those that the edge or Envoy writes itself, and names with underscores,
which Envoy rejects on arrival. A regular expression is Envoy's, so RE2's: what only Python knows is refused.
"""

import re

CLIENT = "x-client"  # the caller's name, set by the edge from the key or the token
INTERNAL = "x-edge-"  # headers with this prefix are the edge's own: clients must not send them
LONGEST_VALUE = 1024
_TOKEN = re.compile(r"[a-z0-9!#$%&'*+.^`|~-]{1,64}")
_COOKIE = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_CLIENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:|/+-]{0,127}")
_KEY = re.compile(r"[!-~]{1,256}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_FRAMING = frozenset(
    (
        *(
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "http2-settings",
        ),
        *("host", "content-length", "content-type", "content-encoding", "accept-encoding", "expect", "range"),
        *("proxy-authenticate", "proxy-authorization", "inference-header-content-length", "traceparent", "via"),
    )
)
_OWN = frozenset((CLIENT, "x-model", "x-model-version", "x-request-id"))
_OWN_PREFIXES = (INTERNAL, "x-envoy-", "x-forwarded-", "grpc-", "sec-")
_CREDENTIALS = frozenset(("authorization", "cookie", "set-cookie"))
_MOST_REPEATS = 1000
_SPAN = re.compile(r"\{(\d*),?(\d*)\}")
_GROUPS = {
    "(?=": "look-ahead",
    "(?!": "look-ahead",
    "(?<=": "look-behind",
    "(?<!": "look-behind",
    "(?>": "atomic group",
    "(?(": "conditional",
    "(?#": "comment",
    "(?P=": "back-reference",
    "(?P>": "recursion",
}
_ESCAPES = {
    **dict.fromkeys("123456789kg", "back-reference"),
    **dict.fromkeys("uUN", "such escape"),
    "Z": "\\Z (RE2 writes \\z)",
    "G": "\\G",
    "K": "\\K",
}


def header_fault(name: str, *, credentials: bool = False) -> str:
    """Return the reason why an edge's file may not name this header, or nothing where it may.

    With `credentials`, `authorization` is allowed: API keys may come in it.
    """
    if name.startswith(":"):
        return "it is a pseudo header"
    if "_" in name:
        return "Envoy rejects headers with underscores"
    if not _TOKEN.fullmatch(name):
        return "a header name must be a lower-case token of at most 64 characters"
    if name in _FRAMING:
        return "it belongs to the connection or frames the message"
    if name in _OWN or name.startswith(_OWN_PREFIXES):
        return "it is set by the edge itself"
    if name in _CREDENTIALS and not (credentials and name == "authorization"):
        return "it carries credentials or cookies"
    return ""


def cookie_fault(name: str) -> str:
    """Return the reason why this is no cookie's name, or nothing."""
    return "" if _COOKIE.fullmatch(name) else "a cookie name must be a token of at most 64 characters"


def client_fault(name: str) -> str:
    """Return the reason why a keys file may not name a client so, or nothing."""
    legal = "a client name has at most 128 letters, digits and _.@:|/+-, and begins with a letter or a digit"
    return "" if _CLIENT_NAME.fullmatch(name) else legal


def key_fault(key: str) -> str:
    """Return the reason why no caller could send this key, or nothing."""
    return "" if _KEY.fullmatch(key) else "a key has at most 256 visible ASCII characters"


def text_fault(value: str, *, longest: int = LONGEST_VALUE) -> str:
    """Return the reason why no header's value or claim is this text, or nothing."""
    if not value or value != value.strip():
        return "it is empty, or begins or ends with white space, which a header value never does"
    if len(value) > longest:
        return f"it has {len(value)} characters, the limit is {longest}"
    return "it contains control or invisible characters" if _CONTROL.search(value) else ""


def regex_fault(pattern: str) -> str:
    """Return the reason why RE2 does not take this regular expression, as far as a scan can tell, or nothing."""
    if wrong := text_fault(pattern):
        return wrong
    return _scan(pattern)


def _scan(pattern: str) -> str:
    at, inside, depth = 0, False, 0
    while at < len(pattern):
        character, rest = pattern[at], pattern[at:]
        if character == "\\":
            if at + 1 == len(pattern):
                return "it ends with a backslash"
            if what := _ESCAPES.get(pattern[at + 1]):
                return f"RE2 has no {what}"
            quoted = pattern.find("\\E", at) if pattern[at + 1] == "Q" else at
            at = len(pattern) if quoted < 0 else quoted + 2
            continue
        if inside:
            inside = character != "]"
        elif character == "[":
            inside = True
            at += 2 if rest.startswith("[^") else 1
            at += pattern.startswith("]", at)
            continue
        elif character == "(":
            depth += 1
            if wrong := _group(rest):
                return wrong
        elif character == ")":
            depth -= 1
        elif wrong := _repeat(rest):
            return wrong
        if depth < 0:
            break
        at += 1
    return "its brackets do not match" if inside or depth else ""


def _group(rest: str) -> str:
    for opening, what in _GROUPS.items():
        if rest.startswith(opening):
            return f"RE2 has no {what}"
    flags = re.match(r"\(\?([a-zA-Z-]*)[:)]", rest)
    if flags and set(flags.group(1)) - set("imsU-"):
        return "RE2 supports only the flags i, m, s and U"
    return ""


def _repeat(rest: str) -> str:
    if re.match(r"[*+?]\+|\{\d+(,\d*)?\}\+", rest):
        return "RE2 has no possessive repetition"
    span = _SPAN.match(rest)
    if span and not span.group(1) and span.group(2):
        return "RE2 treats '{,n}' as text: write {0,n}"
    if span and any(int(bound) > _MOST_REPEATS for bound in span.groups() if bound):
        return f"RE2 repeats at most {_MOST_REPEATS} times"
    return ""
