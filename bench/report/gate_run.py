"""A gate's run, judged again from its raw values: the same verdict, bit for bit, years later and in another place."""

from pathlib import Path

from ..gating import gate
from ..records.baseline import measurements_of
from .benchmark_file import from_gate
from .junit import to_junit
from .markdown import to_markdown
from .page import write_html
from .rows import title
from .run_report import RunReport
from .terminal import print_verdict


def told(folder: Path) -> RunReport:
    """Judge the run in a folder again.

    Raises:
        MissingError: no run there.
        IntegrityError: the run cannot be read.
    """
    gate.rejudge(folder)
    run, verdict = gate.read_gate(folder)
    return RunReport(
        kind="gate",
        exit_code=verdict.exit_code,
        document=verdict.to_json(),
        show=lambda console: print_verdict(verdict, console),
        markdown=lambda: to_markdown(verdict, run),
        junit=lambda inconclusive: to_junit(verdict, run, inconclusive=inconclusive),
        html=lambda path: write_html(path, title=title(verdict), verdict=verdict, run=run),
        pytest_benchmark=lambda: from_gate(run),
        measured=lambda arm: (
            run.named(arm).name,
            measurements_of(run, arm),
        ),
    )
