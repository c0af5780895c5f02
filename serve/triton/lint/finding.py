"""A finding: one broken rule in one file of a repository; and reading a configuration so that faults are findings."""

from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ...deployment import Broken
from ...deployment.broken import Severity
from .. import plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One broken rule; `file` is relative to the repository, `line` 0 where none is known."""

    severity: Severity
    file: str
    field: str
    rule: str
    mend: str
    line: int = 0

    @classmethod
    def of(cls, broken: Broken, file: str) -> "Finding":
        """The broken rule as found in that file."""
        return cls(severity=broken.severity, file=file, field=broken.field, rule=broken.rule, mend=broken.mend)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def read_config(path: Path, file: str) -> tuple[Any, list[Finding]]:
    """The configuration as a message; None, with findings, where there is none or it cannot be read."""
    from tritonclient.grpc import model_config_pb2 as pb

    def wrong(rule: str, mend: str, severity: Severity = "error", line: int = 0) -> tuple[None, list[Finding]]:
        return None, [Finding(severity=severity, file=file, field="", rule=rule, mend=mend, line=line)]

    text_format = import_module("google.protobuf.text_format")
    try:
        text = plain.config_text(path)
    except FileNotFoundError:
        return wrong(
            "no configuration: the server guesses it, and refuses the model under --disable-auto-complete-config",
            "write one with every input and output",
            "warning",
        )
    except (OSError, UnicodeDecodeError) as error:
        return wrong(
            f"cannot be read: {getattr(error, 'strerror', None) or error}",
            "let it be a text file that the server may read",
        )
    try:
        return text_format.Parse(text, pb.ModelConfig()), []
    except text_format.ParseError as error:
        said = str(error).partition(" : ")[2] or str(error)
        return wrong(f"Triton cannot parse it: {said}", "mend the text there", line=error.GetLine() or 0)
