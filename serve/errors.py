"""The leaves that serving adds to the error tree.

    SeatrialError
    ├── ConfigError
    │   └── ConfigRuleError          exit 2   a deployment breaks a rule of Triton's, found before the server sees it
    ├── RoutesError                  exit 2   routes that make no sense: a share out of range, a version twice
    ├── PlacementError               exit 2   an artifact cannot go into that repository, or not under that version
    ├── MachineError
    │   ├── ServerError              exit 4   the server cannot start or does not answer: port, stub, libpython, crash
    │   └── ExhaustedError           exit 4   this process lacks descriptors, memory or threads; tells nothing of others
    ├── ModelLoadError               exit 1   the server refused a model; quotes the server's own reason
    ├── ProofError                   exit 1   other answers than the artifact's in a throwaway server; not placed
    ├── UnprovenError                exit 3   no server of this machine could load it, so nothing is known of it
    ├── RouterError                  exit 1   the proxy refused routes or did not take them; the old ones are in force
    ├── RolloutError                 exit 2   not now: one is on its way, another controller acts, a digest is blocked
    ├── RequestError                 exit 1   the server refused or failed one inference request
    ├── ObjectiveError               exit 1   no way of serving meets the objective at that rate
    ├── ExchangeError                exit 2   an OCI registry refused, went away, or gave something else; nothing half
    ├── RehearsalError               exit 2   a rehearsal that may not or cannot begin; nothing was planted
    ├── InUseError                   exit 2   what is to go is in use; names who uses it, and nothing was removed
    ├── UnapprovedError              exit 1   a release that a protected environment does not allow yet
    └── RegistryError                exit 1   a release that its verdict does not allow (3, 4: the verdict's own code)

A model whose answers differ from the reference is no error: it is a report that did not pass
(`serve.triton.proof.golden.GoldenReport`).
"""

from seatrial.optimize.errors import ConfigError, MachineError, SeatrialError


class ConfigRuleError(ConfigError):
    """A deployment breaks a rule of Triton's; `where` is the field, `next_step` the fix."""


class RoutesError(SeatrialError):
    """Routes that make no sense by themselves."""


class RouterError(SeatrialError):
    """The proxy or cluster refused routes, or did not take them in time; the old ones stay in force."""

    exit_code = 1


class RolloutError(SeatrialError):
    """A rollout that may not start or be moved now: one is on its way, another controller acts, a digest is blocked."""


class PlacementError(SeatrialError):
    """An artifact cannot go into that repository, or not under that version."""


class ServerError(MachineError):
    """The server cannot start, died, or does not answer."""


class ExhaustedError(MachineError):
    """This process lacks descriptors, memory, threads or ports, so what it had to observe is unknown."""


class ModelLoadError(SeatrialError):
    """The server refused to load or unload a model; `what` quotes its reason."""

    exit_code = 1


class ExchangeError(SeatrialError):
    """An OCI registry refused, went away in between, or does not hold what it should; nothing was left half-written."""


class RehearsalError(SeatrialError):
    """A rehearsal that may not or cannot begin: no rehearsal environment, or what is to fail does not work already."""


class ProofError(SeatrialError):
    """A throwaway server gave other answers than the artifact does; nothing was placed."""

    exit_code = 1


class UnprovenError(SeatrialError):
    """No server of this machine could load it, so whether it would serve is not known; nothing was placed."""

    exit_code = 3


class RequestError(SeatrialError):
    """The server refused or failed one request; `status` is the HTTP status (400 bad input, 503 queue full or late)."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", next_step: str = "", status: int = 0) -> None:
        super().__init__(what, where=where, next_step=next_step)
        self.status = status


class ObjectiveError(SeatrialError):
    """No way of serving meets the objective at that rate; `next_step` says which rate would."""

    exit_code = 1


class RegistryError(SeatrialError):
    """A release that its verdict does not allow; leaves with the verdict's own exit code."""

    def __init__(self, what: str, *, where: str = "", next_step: str = "", exit_code: int = 1) -> None:
        super().__init__(what, where=where, next_step=next_step)
        self.exit_code = exit_code


class UnapprovedError(SeatrialError):
    """A release lacks the approvals of a protected environment; nothing was placed."""

    exit_code = 1


class InUseError(SeatrialError):
    """What is to be retired or removed is in use; `what` says by whom, and nothing was removed."""
