"""Keeps each model's latency promise: reads what the edge saw, and has a smaller model take a share where it must.

The loop around `shedding`; what is in force is read back from Envoy, so it goes on where another left off.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ...errors import RouterError
from ..shedding import Shedding, begun_at, next_shedding
from . import access_log
from .proxy import Proxy
from .router import EnvoyRouter

WINDOW_SECONDS = 2.0


class LoadShedder:
    """Looks at one window after the other; call `look` every `WINDOW_SECONDS`. `log` is by default the edge's own."""

    def __init__(self, proxy: Proxy, *, log: Path | None = None) -> None:
        self._log = log or proxy.places.access_log
        self._router = EnvoyRouter(proxy)
        self._promises = {model.name: model.slo_ms / 1000 for model in proxy.edge.models if model.slo_ms}
        self._now: dict[str, Shedding] = {}
        _, self._place = access_log.read(self._log)

    def look(self) -> Iterator[str]:
        """Weigh what was seen since the last look, change what must be; yields what it did, in words.

        What Envoy does not take is tried again with the next window.
        """
        seen, self._place = access_log.read(self._log, self._place)
        latencies = defaultdict(list)
        for each in seen:
            if each.role == "live" and each.route.startswith(f"{each.model}/default"):
                latencies[each.model].append(each.seconds)
        for model, promised in self._promises.items():
            now = self._now.get(model) or begun_at(self._router.shedding(model))
            then = next_shedding(now, latencies[model], promised)
            try:
                if then.share != now.share:
                    self._router.shed(model, then.share)
                    yield f"{model}: the smaller model takes {then.share:.0%} (was {now.share:.0%})"
                self._now[model] = then
            except RouterError as error:
                yield f"{model}: load shedding failed: {error.what}"
