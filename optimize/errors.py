"""Every error that seatrial raises on purpose, as one tree.

    SeatrialError                    exit 2
    ├── ConfigError                  exit 2   a TOML file or an argument is invalid
    │   └── FormatChainError         exit 2   the formats of consecutive stages do not fit
    ├── MissingError                 exit 2   a file, artifact, release or verb does not exist
    ├── SourceError                  exit 2   the user's own module or loader raised or returned the wrong thing
    ├── StageError                   exit 1   a stage failed on legal input
    │   └── ParityError              exit 1   an artifact disagrees with its parent beyond the contract
    ├── IntegrityError               exit 5   a stored record or stored bytes are damaged
    ├── ContractError                exit 4   this machine breaks what the artifact requires
    └── MachineError                 exit 4   this machine lacks something: a port, a stub, a library, space

The floors above add their own leaves to this tree (``bench.errors``, ``serve.errors``). An error says what happened,
where, and the next step; a failed gate is a value (`bench.verdict.Verdict`), never an exception.
"""


class SeatrialError(Exception):
    """The root: what went wrong, where, and what to do next.

    `what` is one sentence; `where` names the file, key, stage or server; `next_step` is an instruction.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next_step = next_step

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"where: {self.where}")
        if self.next_step:
            lines.append(f"next:  {self.next_step}")
        return "\n".join(lines)


class ConfigError(SeatrialError):
    """A TOML file or an argument is invalid."""


class FormatChainError(ConfigError):
    """The formats of consecutive stages do not fit."""


class MissingError(SeatrialError):
    """A file, artifact or release does not exist."""


class SourceError(SeatrialError):
    """The user's own factory, loader or metric raised, or returned the wrong thing."""


class StageError(SeatrialError):
    """A stage failed on legal input."""

    exit_code = 1


class ParityError(StageError):
    """An artifact disagrees with its parent beyond the contract."""


class IntegrityError(SeatrialError):
    """A stored record is damaged, or stored bytes are not what their digest says."""

    exit_code = 5


class ContractError(SeatrialError):
    """This machine breaks what the artifact requires of its hardware."""

    exit_code = 4


class MachineError(SeatrialError):
    """This machine lacks something that the work needs: a free port, a stub, a library, disk space."""

    exit_code = 4
