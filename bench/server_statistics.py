"""Server counters during a load: differences of Triton's statistics extension and its Prometheus counters.

Asks over HTTP with the standard library and judges nothing. A server without the extension is no error: the window then
says why it is empty, and a load test against any KServe v2 server goes on.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from seatrial.optimize.record import Record

from .errors import TargetError
from .measurement import NOTHING, Unavailable
from .targets import Endpoint, ask, fetch

_SAMPLE = re.compile(r"^(?P<name>\w+)\{(?P<labels>[^}]*)\}\s+(?P<value>\S+)$")
_PARTS = ("compute_input", "compute_infer", "compute_output")
_SUMS = ("requests", "failures", "inferences", "executions", "queue", *_PARTS)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatistics:
    """Counters of one version since it was loaded; durations are sums in nanoseconds.

    `inferences` counts batch rows, `executions` runs of the model, `batch_sizes` maps the size of a run to how many
    there were: a server that batches shows sizes above one under concurrent load. `batch_ns` maps it to what those runs
    took in all: input, inference and output. `cache_hits` and `cache_misses` count requests looked up in the response
    cache, and their durations what that took; what a miss had to compute stands in the compute durations.
    """

    name: str
    version: str
    inferences: int
    executions: int
    successes: int
    failures: int
    batch_sizes: Mapping[int, int]
    queue_ns: int
    compute_input_ns: int
    compute_infer_ns: int
    compute_output_ns: int
    batch_ns: Mapping[int, int] = field(default_factory=dict)
    cache_hits: int = 0
    cache_misses: int = 0
    cache_hit_ns: int = 0
    cache_miss_ns: int = 0


def statistics_of(reply: Mapping[str, Any]) -> ModelStatistics:
    """One entry of the statistics API."""
    sums = reply["inference_stats"]

    def duration(name: str) -> int:
        return int(sums.get(name, {}).get("ns", 0))

    return ModelStatistics(
        name=reply["name"],
        version=reply["version"],
        inferences=int(reply.get("inference_count", 0)),
        executions=int(reply.get("execution_count", 0)),
        successes=int(sums["success"].get("count", 0)),
        failures=int(sums["fail"].get("count", 0)),
        batch_sizes={
            int(batch["batch_size"]): int(batch["compute_infer"].get("count", 0))
            for batch in reply.get("batch_stats", ())
        },
        queue_ns=duration("queue"),
        compute_input_ns=duration("compute_input"),
        compute_infer_ns=duration("compute_infer"),
        compute_output_ns=duration("compute_output"),
        batch_ns={
            int(batch["batch_size"]): sum(int(batch.get(part, {}).get("ns", 0)) for part in _PARTS)
            for batch in reply.get("batch_stats", ())
        },
        cache_hits=int(sums.get("cache_hit", {}).get("count", 0)),
        cache_misses=int(sums.get("cache_miss", {}).get("count", 0)),
        cache_hit_ns=duration("cache_hit"),
        cache_miss_ns=duration("cache_miss"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCounts(Record, sparse=("metrics", "metrics_unavailable")):
    """Differences of a server's counters over a load: `requests` answered, `failures`, `inferences` (batch rows).

    `queue` and the `compute_` parts are seconds summed over requests; `batch_sizes` maps the size of an execution to
    how many there were; `metrics` are the Prometheus counters where the endpoint names them, or a reason is given.
    """

    requests: int
    failures: int
    inferences: int
    executions: int
    queue: float
    compute_input: float
    compute_infer: float
    compute_output: float
    batch_sizes: Mapping[int, int]
    metrics: Mapping[str, float] | None = None
    metrics_unavailable: str = ""


Counted = ServerCounts | Unavailable


@dataclass(slots=True)
class Window:
    """Counter differences of one model's server; `counted` is filled when the block ends."""

    endpoint: Endpoint
    counted: Counted = NOTHING
    _first: ModelStatistics | str = ""
    _metrics: Mapping[str, float] | str = field(default_factory=dict)
    _begun: bool = False

    def begin(self, share: float = 0.0) -> None:
        """Count from here on, once; handed to a load as its `progress`, so that its warm-up is not counted."""
        if not self._begun:
            self._begun = True
            self._look()

    def _look(self) -> None:
        self._first, self._metrics = statistics(self.endpoint), counters(self.endpoint)

    def _end(self) -> None:
        last = statistics(self.endpoint)
        if isinstance(self._first, str) or isinstance(last, str):
            self.counted = Unavailable(unavailable=self._first if isinstance(self._first, str) else str(last))
            return
        counted, now = difference(self._first, last), counters(self.endpoint)
        if isinstance(counted, Unavailable):
            self.counted = counted
        elif isinstance(now, str) or isinstance(self._metrics, str):
            self.counted = replace(counted, metrics_unavailable=now if isinstance(now, str) else str(self._metrics))
        else:
            moved = {name: value - self._metrics.get(name, 0.0) for name, value in now.items()}
            metrics = {name: value for name, value in moved.items() if value}
            self.counted = replace(counted, metrics=metrics if now else None)


@contextmanager
def window(endpoint: Endpoint) -> Iterator[Window]:
    """Count what the server does for the length of a block; never raises for what the server cannot tell."""
    counting = Window(endpoint=endpoint)
    counting._look()
    yield counting
    counting._end()


def statistics(endpoint: Endpoint) -> ModelStatistics | str:
    """The counters of the endpoint's version, or why there are none."""
    host, port = endpoint.address
    try:
        status, reply = ask(host, port, "GET", endpoint.path + "/stats")
        if status != 200:
            return f"the server has no statistics extension (HTTP {status})"
        entries = reply["model_stats"]
        if len(entries) != 1:
            return f"the server counts {len(entries)} versions, and no version was named"
        return statistics_of(entries[0])
    except TargetError as error:
        return error.what
    except (KeyError, TypeError, ValueError) as error:
        return f"the server's statistics cannot be read ({type(error).__name__}: {error})"


def difference(first: ModelStatistics, last: ModelStatistics) -> Counted:
    """`counted` of a `Window` from two looks; `Unavailable` where the counters went back, as after a reload."""
    sizes = {
        size: count - first.batch_sizes.get(size, 0)
        for size, count in sorted(last.batch_sizes.items())
        if count != first.batch_sizes.get(size, 0)
    }
    found = ServerCounts(
        requests=last.successes - first.successes,
        failures=last.failures - first.failures,
        inferences=last.inferences - first.inferences,
        executions=last.executions - first.executions,
        queue=(last.queue_ns - first.queue_ns) / 1e9,
        compute_input=(last.compute_input_ns - first.compute_input_ns) / 1e9,
        compute_infer=(last.compute_infer_ns - first.compute_infer_ns) / 1e9,
        compute_output=(last.compute_output_ns - first.compute_output_ns) / 1e9,
        batch_sizes=sizes,
    )
    if min(*sizes.values(), *(getattr(found, name) for name in _SUMS), 0) < 0:
        return Unavailable(unavailable="the server's counters decreased: the model was reloaded meanwhile")
    return found


def mean_queue(counted: Counted) -> float | None:
    """Seconds that a request waited in the server before it was run, on average; None where nothing was counted."""
    return counted.queue / counted.requests if isinstance(counted, ServerCounts) and counted.requests else None


def mean_compute(counted: Counted) -> float | None:
    """Seconds of input, inference and output of a request's execution, on average; None where nothing was counted."""
    if not isinstance(counted, ServerCounts) or not counted.requests:
        return None
    return (counted.compute_input + counted.compute_infer + counted.compute_output) / counted.requests


def sizes_of(counted: Counted) -> Mapping[int, int]:
    """Return the executions by batch size; empty where the server counts none."""
    return counted.batch_sizes if isinstance(counted, ServerCounts) else {}


def counters(endpoint: Endpoint) -> dict[str, float] | str:
    """The model's Prometheus counters by name and further labels, or why there are none.

    Empty where the endpoint names no metrics.
    """
    if endpoint.metrics_url is None:
        return {}
    try:
        parts = urlsplit(endpoint.metrics_url)
        status, text = fetch(parts.hostname or "", parts.port or 80, "GET", parts.path or "/metrics")
    except TargetError as error:
        return error.what
    except ValueError as error:
        return f"invalid metrics URL {endpoint.metrics_url} ({error})"
    if status != 200:
        return f"no metrics at {endpoint.metrics_url} (HTTP {status})"
    return parsed(text.decode(errors="replace"), endpoint.model, endpoint.version)


def parsed(text: str, model: str, version: str) -> dict[str, float]:
    """The counters of one model and version in Prometheus' text format.

    Names carry the labels that remain: ``nv_inference_request_failure{reason="OTHER"}``.
    """
    kinds = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE ") and line.count(" ") >= 3)
    found = {}
    for line in text.splitlines():
        sample = _SAMPLE.match(line)
        if sample is None or kinds.get(sample["name"]) != "counter":
            continue
        labels = dict(_LABEL.findall(sample["labels"]))
        if labels.pop("model", None) != model or labels.pop("version", version) != version:
            continue
        rest = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()) if name != "gpu_uuid")
        found[sample["name"] + (f"{{{rest}}}" if rest else "")] = float(sample["value"])
    return found


def lines(counted: Counted) -> list[tuple[str, str, str]]:
    """Return the server's counters as rows (what, value, about)."""
    queue, compute = mean_queue(counted), mean_compute(counted)
    if isinstance(counted, Unavailable) or queue is None or compute is None:
        why = counted.unavailable if isinstance(counted, Unavailable) else ""
        return [("server", "-", why or "the server counted no requests")]
    sizes = ", ".join(f"{size}: {count}" for size, count in counted.batch_sizes.items())
    return [
        ("queue", f"{queue * 1e3:.2f} ms", "mean wait in the server per answered request"),
        ("compute", f"{compute * 1e3:.2f} ms", "mean of input, inference and output time"),
        ("executions", str(counted.executions), f"executions by batch size {sizes}"),
    ]
