"""The edge's watch over its own log: keeps latency promises, quarantines deadly bodies, and counts for metrics.

One reading of the log for all three. It starts and stops nothing; `keeping.watch` calls it now and then.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Any

from seatrial.optimize.errors import SeatrialError

from . import access_log
from .metering import EdgeMeter
from .proxy import Proxy
from .quarantine import Suspicion
from .router import EnvoyRouter
from .shedding_loop import WINDOW_SECONDS, LoadShedder

LOOK_SECONDS = 0.5

Line = Mapping[str, Any]


class Watcher:
    """Looks at what the edge logged since the last time; call `look` every `LOOK_SECONDS`.

    `crashed` says whether a server of ours ended by its own fault since a moment (Unix seconds).
    """

    def __init__(
        self, proxy: Proxy, *, meter: EdgeMeter, crashed: Callable[[float], bool] = lambda since: False
    ) -> None:
        self._log, self._crashed, self._meter = proxy.places.access_log, crashed, meter
        self._router, self._shedder = EnvoyRouter(proxy), LoadShedder(proxy)
        self._suspicion = Suspicion()
        self._relieved = monotonic()
        lines, self._place = access_log.read_lines(self._log, parsing=_line)
        self._suspicion.learn(lines)  # what was answered before we came
        self._meter.quarantined(len(self._router.quarantine()))
        self._meter.offers(model.name for model in proxy.edge.models)

    def look(self) -> Iterator[str]:
        """Take what is new; yields what was done, in words."""
        lines, self._place = access_log.read_lines(self._log, self._place, parsing=_line)
        for line in lines:
            self._meter.request(line)
        for death in self._suspicion.learn(lines):
            self._meter.death()
            yield from self._refuse(self._suspicion.condemn(death, crashed=self._crashed(death.at)))
        if monotonic() - self._relieved >= WINDOW_SECONDS:
            self._relieved = monotonic()
            yield from self._shedder.look()

    def _refuse(self, digests: tuple[str, ...]) -> Iterator[str]:
        if not digests:
            return
        try:
            held = self._router.refuse(digests)
        except SeatrialError as error:
            yield f"a body that crashed a server could not be quarantined: {error.what}"
            return
        self._meter.quarantined(held)
        yield f"a server crashed on {', '.join(digests)}: such bodies are now refused ({held} in quarantine)"


def _line(text: str) -> Line | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
