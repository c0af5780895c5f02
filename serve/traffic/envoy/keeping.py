"""The loop that keeps an edge up: brings a killed Envoy back, bounds its files, and looks at what it logged.

Never gives up; starting itself is `on_envoy`'s business.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from seatrial.optimize.errors import SeatrialError

from ...errors import ServerError
from ...triton.supervision.healing import Backoff
from .access_log import rotate
from .metering import EdgeMeter
from .on_capture import expire
from .on_envoy import revive
from .proxy import Proxy, read, read_edge, running

_BACKOFF = Backoff()


def watch(
    folder: Path,
    *,
    every: float = 0.2,
    look: Callable[[], Iterator[str]] | None = None,
    look_every: float = 2.0,
    meter: EdgeMeter | None = None,
    backoff: Backoff = _BACKOFF,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[str]:
    """Bring a killed Envoy back, move its log away when it has grown, and forget answers that were captured long ago,
    until the edge is taken down or `stop`.

    One that ends again and again is started after a pause that grows, and never given up. `look` is called now and then
    while it runs (seconds in `look_every`). Yields what was done, in words.
    """
    meter, attempts = meter or EdgeMeter(), tuple[float, ...]()
    capturing = read_edge(folder).capture if read(folder) is not None else None
    looked, ran = time.monotonic(), True
    while not stop() and (proxy := read(folder)) is not None:
        now = time.monotonic()
        try:
            if not running(proxy):
                attempts, ran = backoff.streak(attempts, now) if ran else attempts, False
                if backoff.left(attempts, now) <= 0:
                    yield _revived(folder)
                    attempts = backoff.add(attempts, time.monotonic())
                    meter.restarted()
            elif rotate(proxy.places.access_log, proxy.admin):
                ran = True
                yield "the access log was rotated"
            elif capturing is not None and expire(proxy.places.capture, capturing.keep_seconds):
                yield "expired captured answers were deleted"
            elif now - looked >= look_every:
                looked, ran = now, True
                meter.process(proxy.pid, _answer_time(proxy))
                yield from look() if look is not None else ()
            else:
                ran = True
        except (SeatrialError, OSError) as error:  # no descriptor, no space, a record being written: look again
            yield f"the check failed: {error.what if isinstance(error, SeatrialError) else error}"
        time.sleep(every)


def _answer_time(proxy: Proxy) -> float | None:
    begun = time.monotonic()
    return time.monotonic() - begun if proxy.admin.ready() else None


def _revived(folder: Path) -> str:
    try:
        again = revive(folder)
    except ServerError as error:
        return f"Envoy had ended and could not be restarted: {error.what}"
    return f"Envoy had ended and was restarted as process {again.pid}" if again is not None else "the edge is down"
