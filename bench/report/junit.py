"""A verdict as JUnit XML, which every CI system draws: one case per rule, and one for the run itself.

FAIL is a failure, INVALID an error, INCONCLUSIVE a skip with its message (or a failure, by choice): a CI system knows
no third answer. Rules that are only told never fail. Decides nothing.
"""

import re
from typing import Literal
from xml.etree import ElementTree as xml

from ..pairs import GateRun
from ..verdict import Finding, Verdict
from .advice import minutes, next_steps
from .evidence import facts
from .rows import title

Inconclusive = Literal["skip", "fail"]
_UNPRINTABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # not allowed in XML 1.0


def to_junit(verdict: Verdict, run: GateRun | None = None, *, inconclusive: Inconclusive = "skip") -> str:
    """The verdict as a JUnit document; `inconclusive` says what becomes of a rule that could not be told."""
    cases = [_run_case(verdict)] + [_case(verdict, finding, inconclusive) for finding in verdict.findings]
    count = {tag: str(sum(case.find(tag) is not None for case in cases)) for tag in ("failure", "error", "skipped")}
    totals = {"tests": str(len(cases)), "failures": count["failure"], "errors": count["error"]}
    spent = f"{60 * minutes(verdict, run):.1f}"
    root = xml.Element("testsuites", {"name": "seatrial", "time": spent} | totals)
    suite = xml.SubElement(
        root,
        "testsuite",
        {"name": clean(title(verdict)), "skipped": count["skipped"], "timestamp": verdict.at, "time": spent} | totals,
    )
    known = facts(verdict, run) if run is not None else [("budget", verdict.budget), ("measured", verdict.at)]
    properties = xml.SubElement(suite, "properties")
    for name, text in [("outcome", verdict.outcome), *known]:
        xml.SubElement(properties, "property", {"name": name, "value": clean(text)})
    suite.extend(cases)
    xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(root, encoding="unicode") + "\n"


def clean(text: str) -> str:
    """The text without what XML may not carry (a server's message may hold anything)."""
    return _UNPRINTABLE.sub("\ufffd", text)


def _run_case(verdict: Verdict) -> xml.Element:
    """The run as a whole: an error where it carries no verdict, a failure where the candidate itself broke."""
    case = xml.Element("testcase", {"classname": _class(verdict), "name": "the run itself", "time": "0"})
    if verdict.reasons and verdict.outcome in ("FAIL", "INVALID"):
        tag = "failure" if verdict.outcome == "FAIL" else "error"
        _add(case, tag, verdict.outcome, verdict.reasons[0], (*verdict.reasons, *next_steps(verdict)))
    return case


def _case(verdict: Verdict, finding: Finding, inconclusive: Inconclusive) -> xml.Element:
    name = f"{finding.metric} {finding.rule} {finding.margin:g}"
    case = xml.Element("testcase", {"classname": _class(verdict), "name": name, "time": "0"})
    tags = {"FAIL": "failure", "INVALID": "error", "INCONCLUSIVE": "failure" if inconclusive == "fail" else "skipped"}
    tag = tags.get(finding.outcome)
    if tag is not None and verdict.outcome == "INVALID" and verdict.reasons:
        _add(case, "skipped", finding.outcome, f"the run carries no verdict. {finding.reason}", ())
    elif tag is not None and not finding.gating:
        _add(case, "skipped", finding.outcome, f"told only, decides nothing: {finding.outcome}. {finding.reason}", ())
    elif tag is not None:
        _add(case, tag, finding.outcome, finding.reason, ())
    xml.SubElement(case, "system-out").text = clean(finding.reason)
    return case


def _class(verdict: Verdict) -> str:
    return clean(f"seatrial.{verdict.candidate['name']}")


def _add(case: xml.Element, tag: str, kind: str, message: str, lines: tuple[str, ...]) -> None:
    kinds = {} if tag == "skipped" else {"type": kind}
    xml.SubElement(case, tag, {"message": clean(message)} | kinds).text = clean("\n".join(lines)) or None
