"""Shadow: joins the captured answers of both arms by request id, and counts by reason whatever could not be joined.

Pure; takes records as they come, in any order, and gives the comparison of each pair. It reads no file (`on_capture`
does) and judges nothing (`agreement` does). Nothing disappears: every marked request is compared, unmatched or aside.
"""

import base64
import binascii
import json
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from seatrial.bench.errors import AnswerError
from seatrial.optimize.reading import SHAPE_ERRORS

from .agreement import Agreement, AgreementLimits
from .by_client import unanimous
from .differing import Differing, differing
from .tensors import Answer, answer

Arm = Literal["stable", "candidate"]

BREAKER = "the candidate's breaker refused it"
LATE = "the candidate did not answer in time"
UNREACHABLE = "the candidate could not be reached"
FAILED = "the candidate failed"
REFUSED = "the candidate refused it"
MISSING = "never mirrored, or its log was lost"
UNSEEN = "the stable answer was not logged"
TOO_LARGE = "an answer is larger than the capture keeps"
OVER_BUDGET = "the capture's bytes per minute were spent"
CUT = "an answer was cut short"
UNREADABLE = "an answer is not KServe v2"
OTHER = "the two answers are of other versions than asked for"
NOT_WELL = "the stable version did not answer well itself"
OWN = "the candidate answered it live"
REPEATED = "the request id came again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One line of a capture's log: how the proxy saw one answer of one arm, and the answer where it was kept.

    `at` is the request's start in Unix seconds, `seconds` its duration. `model` is empty, and `version` 0, where the
    proxy does not say which one it asked. `client` is the authenticated client, empty where there is none. `kept` is
    ``whole`` or why there is no `body`.
    """

    arm: Arm
    id: str
    at: float
    seconds: float
    status: int
    grpc_status: int | None
    flags: frozenset[str]
    kept: str
    body: bytes
    headers: Mapping[str, str]
    model: str = ""
    version: int = 0
    client: str = ""

    @classmethod
    def parse(cls, line: str | bytes, arm: Arm) -> "Recorded":
        """Read one line.

        Raises:
            ValueError: it is no line of a capture's log.
        """
        try:
            value: dict[str, Any] = json.loads(line)
            known = {key: each for key, each in value.items() if each is not None}
            code = known.get("grpc_status")
            return cls(
                arm=arm,
                id=str(known["id"]),
                at=float(known["at"]),
                seconds=float(known.get("seconds", 0)) / 1e6,
                status=int(known.get("status", 0)),
                grpc_status=None if code is None else int(code),
                flags=frozenset(str(known.get("flags", "-")).split(",")) - {"-", ""},
                kept=str(known.get("kept", "")),
                body=base64.b64decode(known.get("body", ""), validate=True),
                headers={name: str(known[name]) for name in _HEADERS if name in known},
                model=str(known.get("model", "")),
                version=int(known.get("version", 0)),
                client=str(known.get("client", "")),
            )
        except (binascii.Error, *SHAPE_ERRORS) as error:
            raise ValueError(f"no line of a capture's log: {error}") from error

    @property
    def well(self) -> bool:
        """Return whether the model answered without an HTTP or gRPC error."""
        return self.status == 200 and not self.grpc_status

    def answer(self) -> Answer:
        """The tensors.

        Raises:
            AnswerError: it is no KServe v2 answer.
        """
        header = self.headers
        return answer(
            self.body,
            content_type=header.get("content_type", ""),
            content_encoding=header.get("content_encoding", ""),
            grpc_encoding=header.get("grpc_encoding", ""),
            header_length=header.get("header_length"),
        )


_HEADERS = ("content_type", "content_encoding", "grpc_encoding", "header_length")


class Shadow:
    """Two streams of records in, compared pairs and counts out; bounded in what it waits for, not in what it found.

    `stable` and `candidate` are the versions that shall be compared (None: whatever each arm answered with). `wait` is
    how many seconds a record waits for its counterpart, `most_waiting` how many may.
    """

    def __init__(
        self,
        *,
        stable: int | None = None,
        candidate: int | None = None,
        wait: float = 30.0,
        most_waiting: int = 2_000,
    ) -> None:
        self.found: list[Differing] = []
        self.unmatched: Counter[str] = Counter()
        self.aside: Counter[str] = Counter()
        self._versions = {"stable": stable, "candidate": candidate}
        self._wait, self._most = wait, most_waiting
        self._waiting: OrderedDict[str, tuple[Recorded, float]] = OrderedDict()
        self._joined: OrderedDict[str, None] = OrderedDict()

    def add(self, record: Recorded, now: float) -> tuple[Differing, ...]:
        """Take one record at that time (seconds of any clock that goes on); the comparison, if this made a pair.

        An id that comes again (a client's retry) is set aside: whose answer belongs to whom cannot be told then.
        """
        self.expire(now)
        other = self._waiting.get(record.id)
        if record.id in self._joined or (other is not None and other[0].arm == record.arm):
            if record.arm == "stable":
                self.aside[REPEATED] += 1
            return ()
        if other is None:
            self._waiting[record.id] = record, now
            return ()
        del self._waiting[record.id]
        self._joined[record.id] = None
        if len(self._joined) > self._most:
            self._joined.popitem(last=False)
        pair = {record.arm: record, other[0].arm: other[0]}
        return self._compare(pair["stable"], pair["candidate"])

    def expire(self, now: float) -> None:
        """Count what has waited too long, or is too much to wait for."""
        while self._waiting:
            record, since = next(iter(self._waiting.values()))
            if now - since <= self._wait and len(self._waiting) <= self._most:
                return
            self._waiting.popitem(last=False)
            self._alone(record)

    def close(self) -> None:
        """Nothing more will come: count all that still waits."""
        self.expire(float("inf"))

    @property
    def waiting(self) -> int:
        """Records whose counterpart has not come yet."""
        return len(self._waiting)

    def agreement(self, limits: Mapping[str, AgreementLimits], *, compared_at_least: float = 0.9) -> Agreement:
        """The verdict on everything compared so far, which no single client may decide."""
        return unanimous(
            self.found,
            limits,
            unmatched=self.unmatched,
            aside=self.aside,
            compared_at_least=compared_at_least,
        )

    def _alone(self, record: Recorded) -> None:
        if record.arm == "candidate":
            self.unmatched[UNSEEN] += 1
        elif not record.well:
            self.aside[NOT_WELL] += 1
        else:
            self.unmatched[MISSING] += 1

    def _compare(self, stable: Recorded, candidate: Recorded) -> tuple[Differing, ...]:
        if not stable.well:
            self.aside[NOT_WELL] += 1
            return ()
        if reason := _failure(candidate) or _not_kept(stable) or _not_kept(candidate):
            self.unmatched[reason] += 1
            return ()
        try:
            first, second = stable.answer(), candidate.answer()
        except AnswerError:
            self.unmatched[UNREADABLE] += 1
            return ()
        if (first.model, first.version) == (second.model, second.version):
            self.aside[OWN] += 1
            return ()
        if any(
            wanted not in (None, got.version)
            for wanted, got in zip(self._versions.values(), (first, second), strict=True)
        ):
            self.aside[OTHER] += 1
            return ()
        pair = differing(first.outputs, second.outputs, request=stable.id, at=stable.at, client=stable.client)
        if not pair:
            self.unmatched[UNREADABLE] += 1  # not a single output in either
        self.found += pair
        return pair


def _failure(candidate: Recorded) -> str:
    """Return why the candidate gave no answer, by Envoy's response flags and status; empty if it gave one."""
    if "UO" in candidate.flags:
        return BREAKER
    if candidate.flags & {"UT", "SI", "UMSDR", "DT", "DC"} or candidate.status == 504 or candidate.grpc_status == 4:
        return LATE
    if candidate.flags & {"UF", "UH", "UC", "UR"}:
        return UNREACHABLE
    if candidate.well:
        return ""
    refused = 400 <= candidate.status < 500 or candidate.grpc_status in (3, 5, 9, 11, 12)
    return REFUSED if refused else FAILED


def _not_kept(record: Recorded) -> str:
    return {"whole": "", "too large": TOO_LARGE, "over budget": OVER_BUDGET}.get(record.kept, CUT)
