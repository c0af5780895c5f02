"""The leaves that measuring adds to the error tree.

    SeatrialError
    ├── TargetError                  exit 2   what is to be measured is not there, not ready, or not to be loaded
    ├── AnswerError                  exit 1   a served model did not answer, or not with what it promises
    ├── LoadError                    exit 4   the load generator itself broke, so nothing was measured
    └── CallError                    exit 4   a call in a process of its own broke, so nothing was measured

A run that breaks a validity rule is not an error: it is a run with `breaches` (`bench.load.validity`).
"""

from seatrial.optimize.errors import SeatrialError


class TargetError(SeatrialError):
    """The target is missing, not ready, or may not be loaded."""


class LoadError(SeatrialError):
    """The load generator itself broke, so that nothing was measured."""

    exit_code = 4


class AnswerError(SeatrialError):
    """A served model did not answer, or answered something other than its metadata promises."""

    exit_code = 1


class CallError(SeatrialError):
    """A call in its own process raised an unexpected error, was killed, or exceeded its time."""

    exit_code = 4
