"""The outcomes for people: what each means, and its style on a terminal. Decides nothing."""

from collections.abc import Mapping

from .verdict import Outcome

STYLES: Mapping[Outcome, str] = {
    "PASS": "bold green",
    "FAIL": "bold red",
    "INCONCLUSIVE": "bold yellow",
    "INVALID": "bold magenta",
}
MEANINGS: Mapping[Outcome, str] = {
    "PASS": "Every gating metric is within its budget.",
    "FAIL": "At least one gating metric is beyond its budget.",
    "INCONCLUSIVE": "The data are not sufficient for a PASS or a FAIL.",
    "INVALID": "The run is invalid and has no verdict.",
}
