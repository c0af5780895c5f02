"""The model.py of a drill: serves the model beside it, and takes a known share longer over each execution.

Copied into a placed version as its ``model.py`` by `slowed`, with the version's own model beside it as
``served_model.py``; runs inside the server's stub process and imports nothing of ours. Never placed for a release.
"""

import time
from importlib import import_module
from pathlib import Path
from typing import Any

_SLEEP_ERROR = 0.0003  # seconds by which a sleep may overshoot; the rest is waited for awake


class TritonPythonModel:
    """The served model, slowed."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model beside this file, and read the share from the file ``slowdown``."""
        self.share = float(Path(__file__).with_name("slowdown").read_text())
        self.served: Any = import_module(".served_model", __package__).TritonPythonModel()
        self.served.initialize(args)

    def execute(self, requests: list[Any]) -> list[Any]:
        """The served model's answers, once the share of the time that they took is over, too."""
        began = time.perf_counter()
        responses: list[Any] = self.served.execute(requests)
        ended = time.perf_counter()
        until = ended + self.share * (ended - began)
        time.sleep(max(0.0, until - ended - _SLEEP_ERROR))
        while time.perf_counter() < until:
            pass
        return responses

    def finalize(self) -> None:
        """Let the served model end."""
        self.served.finalize()
