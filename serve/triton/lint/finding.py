"""A finding: one broken rule in one file of a repository; and reading a configuration so that faults are findings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seatrial.optimize.plain import read_plain
from seatrial.optimize.record import Record

from ...deployment import Broken
from ...deployment.broken import Effect, Severity
from .. import pbtxt, plain

_REFUSED: Effect = "refused"
_ENDS: Effect = "ends"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding(Record, keys={"mend": "fix"}):
    """One broken rule; `file` is relative to the repository, `line` 0 where none is known.

    `effect` is what Triton does with the model; for a warning it loads.
    """

    severity: Severity
    file: str
    field: str
    rule: str
    mend: str
    line: int = 0
    effect: Effect = "refused"

    def __post_init__(self) -> None:
        if self.severity == "warning":
            object.__setattr__(self, "effect", "loads")

    @classmethod
    def of(cls, broken: Broken, file: str) -> "Finding":
        """The broken rule as found in that file."""
        return cls(
            severity=broken.severity,
            file=file,
            field=broken.field,
            rule=broken.rule,
            mend=broken.mend,
            effect=broken.effect,
        )


def read_config(path: Path, file: str) -> tuple[Any, list[Finding]]:
    """The configuration as a message; None, with findings, where there is none or it cannot be read."""
    try:
        data = read_plain(path.resolve() if path.is_symlink() else path, plain.CONFIG_BYTES)
        config = pbtxt.parsed(pbtxt.decoded(data))
    except FileNotFoundError:
        return None, [
            _found(
                file,
                (
                    "there is no configuration: the server guesses it, and refuses the model under "
                    "--disable-auto-complete-config"
                ),
                "write one with every input and output",
                severity="warning",
            )
        ]
    except (OSError, RuntimeError) as error:
        what, effect = f"cannot be read: {getattr(error, 'strerror', None) or error}", _REFUSED
        if path.is_dir():
            what, effect = "a directory: it ends the whole server, with every other model", _ENDS
        return None, [_found(file, what, "replace it by a text file that the server can read", effect=effect)]
    except pbtxt.UnreadableError as error:
        return None, [_found(file, f"Triton cannot parse it: {error.what}", "fix the syntax there", line=error.line)]
    findings = []
    if not pbtxt.is_utf8(data):
        findings.append(
            _found(
                file,
                "not UTF-8: Triton reads it, but text tools do not; names in it cannot be sent over gRPC",
                "save it as UTF-8",
                severity="warning",
            )
        )
    return config, findings


def _found(
    file: str, rule: str, mend: str, *, severity: Severity = "error", line: int = 0, effect: Effect = _REFUSED
) -> Finding:
    return Finding(severity=severity, file=file, field="", rule=rule, mend=mend, line=line, effect=effect)
