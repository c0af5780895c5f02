"""One rule for every name that becomes a path or a label: models, releases, edges, ledgers, baselines, tags, runs.

A name is ASCII letters, digits, ``_``, ``.`` and ``-``, begins with a letter or a digit, and is at most `LONGEST`
characters long. So it cannot leave the folder it is joined to, hide itself, pass for an option, or break a line.
"""

import hashlib
import re

from .errors import ConfigError

LONGEST = 127  # with every suffix that we add it stays below the 255 bytes of a file's name
_LEGAL = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{LONGEST - 1}}}")
_SHOWN = 60  # of a name that is too long, an error quotes so much


def is_name(text: object) -> bool:
    """Return whether `text` is a legal name."""
    return isinstance(text, str) and _LEGAL.fullmatch(text) is not None and ".." not in text


def fault(text: str) -> str:
    """Return the reason why `text` is not a legal name, or nothing where it is."""
    if is_name(text):
        return ""
    if not text:
        return "it is empty"
    if len(text) > LONGEST:
        return f"it has {len(text)} characters, at most {LONGEST} are allowed"
    if "/" in text or "\\" in text:
        return "it contains a path separator"
    if ".." in text:
        return "it contains '..'"
    if text[0] in "._-":
        return f"it begins with {text[0]!r}"
    wrong = next(character for character in text if not re.fullmatch("[A-Za-z0-9_.-]", character))
    return f"it contains {wrong!a}"


def file_name(text: str) -> str:
    """Return a legal name for a file about `text`: itself where it is one, else with a digest that keeps it apart."""
    if is_name(text):
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{re.sub('[^A-Za-z0-9_-]', '_', text)[:_SHOWN].lstrip('_-') or 'x'}-{digest}"


def checked(text: str, kind: str = "name", *, where: str = "") -> str:
    """Return `text` if it is a legal name; `kind` says whose ("model name", "tag").

    Raises:
        ConfigError: it is not; nothing was written.
    """
    if wrong := fault(text):
        shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
        raise ConfigError(
            f"invalid {kind} {shown!r}: {wrong}",
            where=where,
            next_step="use ASCII letters, digits, '_', '.' and '-', beginning with a letter or a digit",
        )
    return text
