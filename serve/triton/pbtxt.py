"""The text format of config.pbtxt as Triton's own parser reads it, which the Python package does not match everywhere.

Triton takes any encoding in comments and strings, a blank after a minus sign, and no unknown escape; the package is
the other way round in each. Reads and parses text; touches no file.
"""

import re
from importlib import import_module
from typing import Any

_PIECES = re.compile(
    r"""(?P<comment>\#[^\n]*)
    |(?P<string>"(?:\\[^\n]|[^"\\\n])*"|'(?:\\[^\n]|[^'\\\n])*')
    |(?P<minus>-(?P<gap>[\ \t\r\n\f\v]+)(?=[\w.]))
    |(?P<other>[^#"'-]+|.)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = re.compile(
    r"""\\(?:[abfnrtv\\?'"]|[0-7]{1,3}|x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|(?P<unknown>.))""", re.VERBOSE
)


class UnreadableError(Exception):
    """The text is not a ModelConfig; `line` is where, 0 where none is known."""

    def __init__(self, what: str, line: int = 0) -> None:
        super().__init__(what)
        self.what, self.line = what, line


def decoded(data: bytes) -> str:
    """Return the text of a file: UTF-8, or else Latin-1, since Triton reads comments and strings as plain bytes."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def is_utf8(data: bytes) -> bool:
    """Return whether the bytes are UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def parsed(text: str) -> Any:
    """Return the ModelConfig that Triton reads in a text.

    Raises:
        UnreadableError: Triton refuses the text.
    """
    from tritonclient.grpc import model_config_pb2 as pb

    text_format = import_module("google.protobuf.text_format")
    try:
        return text_format.Parse(_as_the_package_reads(text), pb.ModelConfig())
    except text_format.ParseError as error:
        what = str(error)
        raise UnreadableError(what.partition(" : ")[2] or what, error.GetLine() or 0) from error


def _as_the_package_reads(text: str) -> str:
    """Return the text with the same meaning for the Python package as for Triton."""
    if "\0" in text:
        raise UnreadableError("it contains a NUL byte", text.count("\n", 0, text.index("\0")) + 1)
    pieces, line = [], 1
    for match in _PIECES.finditer(text):
        piece = match.group()
        if match["string"]:
            for escape in _ESCAPES.finditer(piece):
                if escape["unknown"] is not None:
                    raise UnreadableError(f"{escape.group()!r} is not a valid escape in a string", line)
        elif match["other"] and not piece.isascii():
            strange = next(sign for sign in piece if not sign.isascii())
            line += piece.count("\n", 0, piece.index(strange))
            raise UnreadableError(f"{strange!r} is outside of strings and comments", line)
        line += piece.count("\n")
        pieces.append(f"{match['gap']}-" if match["minus"] else piece)
    return "".join(pieces)
