"""The checklist as a table: every rule that an audit can find broken, why it matters and how to fix it.

Only the table and the way from a rule to a finding; nothing is looked at here.
"""

from seatrial.optimize.breach import Breach

from .file_rules import FILES
from .finding import Rule
from .repository_rules import REPOSITORY
from .server_rules import SERVER

FIXED_IN = (2, 59, 1)
"""Triton 25.07, which fixed the chain around CVE-2025-23319, reports 2.59.1; 2.59.0 is 25.06, which is affected."""
FIXED_RELEASE = (25, 7)
FIXED_STREAM_IN = (2, 68)
"""Triton 26.04, which fixed a use after free in ModelStreamInfer (server#8708), reports 2.68."""
FIXED_STREAM_RELEASE = (26, 4)
CALM_RELEASE = (26, 9)
"""The first release that no single known request crashes; docs/patched-servers.md lists the requests."""
TRITON_HEADER_KB = 8
"""Triton resets a connection whose headers are larger (measured on 2.51: about 8 kB)."""

RULES: dict[str, Rule] = {**REPOSITORY, **SERVER, **FILES}


def breach(rule: str, where: str, seen: str, *, exposed: bool = True) -> Breach:
    """A finding of a rule; `exposed` says whether others than this machine's users can reach it."""
    broken = RULES[rule]
    severity = broken.exposed if exposed else broken.private or broken.exposed
    return Breach(rule=rule, severity=severity, where=where, found=seen, why=broken.why, fix=broken.fix)
