"""Reads a configuration so that what is wrong with the file itself is a broken rule like any other."""

from pathlib import Path
from typing import Any

from seatrial.optimize.plain import read_plain

from ...deployment import Broken
from ...deployment.broken import Effect
from .. import pbtxt, plain


def read_config(path: Path, file: str) -> tuple[Any, list[Broken]]:
    """The configuration as a message; None, with findings, where there is none or it cannot be read."""
    try:
        data = read_plain(path.resolve() if path.is_symlink() else path, plain.CONFIG_BYTES)
        config = pbtxt.parsed(pbtxt.decoded(data))
    except FileNotFoundError:
        guesses = "the server guesses it, and refuses the model under --disable-auto-complete-config"
        rule = f"there is no configuration: {guesses}"
        return None, [Broken(severity="warning", file=file, rule=rule, fix="write one with every input and output")]
    except (OSError, RuntimeError) as error:
        effect: Effect = "ends" if path.is_dir() else "refused"
        rule = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        if path.is_dir():
            rule = "a directory: it ends the whole server, with every other model"
        fix = "replace it by a text file that the server can read"
        return None, [Broken(file=file, rule=rule, fix=fix, effect=effect)]
    except pbtxt.UnreadableError as error:
        rule = f"Triton cannot parse it: {error.what}"
        return None, [Broken(file=file, rule=rule, fix="fix the syntax there", line=error.line)]
    if pbtxt.is_utf8(data):
        return config, []
    rule = "not UTF-8: Triton reads it, but text tools do not; names in it cannot be sent over gRPC"
    return config, [Broken(severity="warning", file=file, rule=rule, fix="save it as UTF-8")]
