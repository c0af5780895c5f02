"""HTTP/2 frames and header blocks as bytes: enough to write any request, well-formed or not, and to read the response.

Pure. Headers are written as literals without an index (RFC 7541, 6.2.2), so that any name and value can be sent. What
is read may use the static table and the Huffman code; `SETTINGS` announces a dynamic table of size 0.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, ACK = 0x1, 0x4, 0x8, 0x1
Fields = Sequence[tuple[bytes, bytes]]
_FRAME = 16_384  # the largest payload that a peer must accept
_HEAD = 9
_STATIC = (
    ":authority= :method=GET :method=POST :path=/ :path=/index.html :scheme=http :scheme=https :status=200 :status=204 "
    ":status=206 :status=304 :status=400 :status=404 :status=500 accept-charset= accept-encoding=gzip,_deflate "
    "accept-language= accept-ranges= accept= access-control-allow-origin= age= allow= authorization= cache-control= "
    "content-disposition= content-encoding= content-language= content-length= content-location= content-range= "
    "content-type= cookie= date= etag= expect= expires= from= host= if-match= if-modified-since= if-none-match= "
    "if-range= if-unmodified-since= last-modified= link= location= max-forwards= proxy-authenticate= "
    "proxy-authorization= range= referer= refresh= retry-after= server= set-cookie= strict-transport-security= "
    "transfer-encoding= user-agent= vary= via= www-authenticate="
)
STATIC = tuple(
    (name.encode(), value.replace("_", " ").encode())
    for name, _, value in (each.partition("=") for each in _STATIC.split(" "))
)
# Lengths of the codes of the bytes 0 to 255 and of the end of a string, in base 36; the code is canonical.
_LENGTHS = (
    "dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad677777777777777777777"
    "77878djde6f56565666577666567655677777fbedskmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmo"
    "lmnnllmlnmnnkmmmnmmnqqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu"
)


def _codes() -> dict[tuple[int, int], int]:
    """Byte by length and code."""
    lengths = [int(each, 36) for each in _LENGTHS]
    found, code, before = dict[tuple[int, int], int](), 0, 0
    for symbol in sorted(range(257), key=lambda each: (lengths[each], each)):
        code <<= lengths[symbol] - before
        before = lengths[symbol]
        found[before, code] = symbol
        code += 1
    return found


_HUFFMAN = _codes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame as it was read."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0, length: int | None = None) -> bytes:
    """Return one frame; `length` replaces the true length of the payload."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def opening(settings: Sequence[tuple[int, int]] = ()) -> bytes:
    """Return the preface and settings that begin a connection: no dynamic table, no push, a large window."""
    pairs = settings or ((1, 0), (2, 0), (4, 1 << 24))
    payload = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in pairs)
    return PREFACE + frame(SETTINGS, payload) + frame(WINDOW_UPDATE, (1 << 24).to_bytes(4, "big"))


def block(fields: Fields) -> bytes:
    """Return a header block of literals."""
    return b"".join(b"\x00" + _string(name) + _string(value) for name, value in fields)


def headers(fields: Fields, *, stream: int = 1, end: bool = False) -> bytes:
    """Return the frames of a header block, continued where one frame does not hold it."""
    content = block(fields)
    parts = [content[at : at + _FRAME] for at in range(0, len(content), _FRAME)] or [b""]
    found = []
    for number, part in enumerate(parts):
        flags = (END_HEADERS if number == len(parts) - 1 else 0) | (END_STREAM if end and not number else 0)
        found.append(frame(CONTINUATION if number else HEADERS, part, flags=flags, stream=stream))
    return b"".join(found)


def data(content: bytes, *, stream: int = 1, end: bool = True) -> bytes:
    """Return the frames of a body."""
    parts = [content[at : at + _FRAME] for at in range(0, len(content), _FRAME)] or [b""]
    return b"".join(
        frame(DATA, part, flags=END_STREAM if end and number == len(parts) - 1 else 0, stream=stream)
        for number, part in enumerate(parts)
    )


def split(content: bytes) -> tuple[list[Frame], bytes]:
    """Return the whole frames of what was received, and the rest."""
    found, at = list[Frame](), 0
    while len(content) - at >= _HEAD:
        size = int.from_bytes(content[at : at + 3], "big")
        if len(content) - at < _HEAD + size:
            break
        kind, flags = content[at + 3], content[at + 4]
        stream = int.from_bytes(content[at + 5 : at + 9], "big") & 0x7FFFFFFF
        found.append(Frame(kind=kind, flags=flags, stream=stream, payload=content[at + _HEAD : at + _HEAD + size]))
        at += _HEAD + size
    return found, content[at:]


def fields(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers of a block that uses no dynamic table.

    Raises:
        ValueError: the block is damaged, or uses a dynamic table.
    """
    at = 0
    while at < len(content):
        first = content[at]
        if first & 0x80:
            index, at = _integer(content, at, 7)
            yield _indexed(index)
        elif first & 0xE0 == 0x20:
            _, at = _integer(content, at, 5)
        else:
            index, at = _integer(content, at, 6 if first & 0x40 else 4)
            name, at = (_indexed(index)[0], at) if index else _read_string(content, at)
            value, at = _read_string(content, at)
            yield name, value


def _string(content: bytes) -> bytes:
    return _prefixed(len(content), 7) + content


def _prefixed(value: int, bits: int) -> bytes:
    most = (1 << bits) - 1
    if value < most:
        return bytes((value,))
    found, value = [most], value - most
    while value > 127:
        found.append(value % 128 + 128)
        value //= 128
    return bytes((*found, value))


def _integer(content: bytes, at: int, bits: int) -> tuple[int, int]:
    most = (1 << bits) - 1
    value, at, shift = content[at] & most, at + 1, 0
    if value < most:
        return value, at
    while True:
        if at >= len(content):
            raise ValueError("a number ends early")
        byte = content[at]
        value, at, shift = value + ((byte & 127) << shift), at + 1, shift + 7
        if not byte & 128:
            return value, at


def _read_string(content: bytes, at: int) -> tuple[bytes, int]:
    if at >= len(content):
        raise ValueError("a header ends early")
    coded = bool(content[at] & 0x80)
    size, at = _integer(content, at, 7)
    found = content[at : at + size]
    return (_unhuffman(found) if coded else found), at + size


def _unhuffman(content: bytes) -> bytes:
    found, code, length = bytearray(), 0, 0
    for byte in content:
        for bit in range(7, -1, -1):
            code, length = code << 1 | byte >> bit & 1, length + 1
            symbol = _HUFFMAN.get((length, code))
            if symbol is not None:
                found.append(symbol)
                code, length = 0, 0
    return bytes(found)


def _indexed(index: int) -> tuple[bytes, bytes]:
    if not 1 <= index <= len(STATIC):
        raise ValueError(f"index {index} is not in the static table")
    return STATIC[index - 1]
