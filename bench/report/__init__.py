"""The verdict for people and for machines that read reports: terminal, Markdown, JUnit XML, one self-contained page.

Shows what the gate decided, with the evidence of the run beside it; decides nothing and starts nothing. Every file
here does one form or one piece of evidence; this one only gathers their names.
"""

from ..outcomes import MEANINGS, STYLES
from .advice import gate_cost, next_steps
from .junit import to_junit
from .markdown import to_markdown
from .page import StageRow, write_html
from .rows import Row, rows
from .terminal import print_verdict

__all__ = [
    "MEANINGS",
    "STYLES",
    "Row",
    "StageRow",
    "gate_cost",
    "next_steps",
    "print_verdict",
    "rows",
    "to_junit",
    "to_markdown",
    "write_html",
]
