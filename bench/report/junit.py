"""JUnit XML, which every CI system draws: one case per rule of a verdict, and one for the run itself.

FAIL is a failure, INVALID an error, INCONCLUSIVE a skip with its message (or a failure, by choice): a CI system knows
no third answer. Rules that are only told never fail. Decides nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree as xml

from seatrial.optimize.visible import visible

from ..gating.pairs import GateRun
from ..verdict import Finding, Verdict
from .advice import minutes, next_steps
from .evidence import facts
from .rows import named, title

Inconclusive = Literal["skip", "fail"]
Tag = Literal["failure", "error", "skipped"]
_UNPRINTABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # not allowed in XML 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test case, passed where it has no `tag`; `kind` is the outcome's own name, `lines` say more than that."""

    name: str
    tag: Tag | None = None
    kind: str = ""
    message: str = ""
    lines: tuple[str, ...] = ()
    output: str = ""


def to_junit(verdict: Verdict, run: GateRun | None = None, *, inconclusive: Inconclusive = "skip") -> str:
    """Return the verdict as a JUnit document; `inconclusive` is the status of an undecided rule."""
    known = facts(verdict, run) if run is not None else [("budget", verdict.budget), ("measured", verdict.at)]
    return document(
        title(verdict),
        verdict.candidate.name,
        [_run_case(verdict), *(_case(verdict, finding, inconclusive) for finding in verdict.findings)],
        properties=[("outcome", verdict.outcome), *known],
        at=verdict.at,
        seconds=60 * minutes(verdict, run),
    )


def document(
    suite: str,
    subject: str,
    cases: Sequence[Case],
    *,
    properties: Sequence[tuple[str, str]] = (),
    at: str = "",
    seconds: float = 0.0,
) -> str:
    """A JUnit document of one suite about one subject."""
    count = {tag: str(sum(case.tag == tag for case in cases)) for tag in ("failure", "error", "skipped")}
    totals = {
        "tests": str(len(cases)),
        "failures": count["failure"],
        "errors": count["error"],
        "time": f"{seconds:.1f}",
    }
    root = xml.Element("testsuites", {"name": "seatrial"} | totals)
    about = {"name": clean(suite), "skipped": count["skipped"]} | ({"timestamp": clean(at)} if at else {})
    held = xml.SubElement(root, "testsuite", about | totals)
    listed = xml.SubElement(held, "properties")
    for name, text in properties:
        xml.SubElement(listed, "property", {"name": clean(name), "value": clean(text)})
    for case in cases:
        _add(held, case, clean(f"seatrial.{subject}"))
    xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(root, encoding="unicode") + "\n"


def clean(text: str) -> str:
    """Return the text with control and invisible characters as escapes, and without what XML may not carry."""
    return _UNPRINTABLE.sub("\ufffd", visible(text))


def _run_case(verdict: Verdict) -> Case:
    """The run as a whole: an error where it carries no verdict, a failure where the candidate itself broke."""
    name = "the run itself"
    if not verdict.reasons or verdict.outcome not in ("FAIL", "INVALID"):
        return Case(name=name)
    return Case(
        name=name,
        tag="failure" if verdict.outcome == "FAIL" else "error",
        kind=verdict.outcome,
        message=verdict.reasons[0],
        lines=(*verdict.reasons, *next_steps(verdict)),
    )


def _case(verdict: Verdict, finding: Finding, inconclusive: Inconclusive) -> Case:
    tags: dict[str, Tag] = {"FAIL": "failure", "INVALID": "error", "INCONCLUSIVE": "skipped"}
    tag, message = tags.get(finding.outcome), finding.reason
    if finding.outcome == "INCONCLUSIVE" and inconclusive == "fail":
        tag = "failure"
    if tag is not None and verdict.outcome == "INVALID" and verdict.reasons:
        tag, message = "skipped", f"the run has no verdict. {message}"
    elif tag is not None and not finding.gating:
        tag, message = "skipped", f"informational, does not gate: {finding.outcome}. {message}"
    return Case(
        name=f"{named(finding)} {finding.rule} {finding.margin:g}",
        tag=tag,
        kind=finding.outcome,
        message=message,
        output=finding.reason,
    )


def _add(suite: xml.Element, case: Case, class_name: str) -> None:
    made = xml.SubElement(suite, "testcase", {"classname": class_name, "name": clean(case.name), "time": "0"})
    if case.tag is not None:
        kinds = {} if case.tag == "skipped" else {"type": clean(case.kind)}
        xml.SubElement(made, case.tag, {"message": clean(case.message)} | kinds).text = clean("\n".join(case.lines))
    if case.output:
        xml.SubElement(made, "system-out").text = clean(case.output)
