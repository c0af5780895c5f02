"""Slows a placed version down by a known share, for drills of the gate. Never touches a version that is released."""

import shutil
from pathlib import Path

from ...errors import ConfigRuleError


def slow_down(version: Path, share: float) -> None:
    """Let every execution of a version of the Python backend take that share longer than it does.

    Measured inside the server at each execution, so a batch is slowed as much as a single request.

    Raises:
        ConfigRuleError: the version has no model.py, or the share is not positive.
    """
    model = version / "model.py"
    if not model.is_file() or not share > 0:
        raise ConfigRuleError(
            f"the slow-down must be positive and finite, got {share:.0%}"
            if model.is_file()
            else 'only backend = "python" can be slowed down',
            where=str(version),
            next_step='use a deployment with backend = "python" and a slow-down above 0, for instance 0.10',
        )
    model.rename(version / "served_model.py")
    shutil.copyfile(Path(__file__).with_name("slowed_model.py"), model)
    (version / "slowdown").write_text(repr(share))
