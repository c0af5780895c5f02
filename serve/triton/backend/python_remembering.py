"""The cache between a batch and its computing: looks up, computes each distinct miss once, and says what it was worth.

Copied beside model.py into each placed version and run inside the server's stub process. What a key is and what is kept
is `python_cache`'s business; how answers are computed, the model's.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .python_cache import Keys, Memory, Worth

Wanted = tuple[str, ...]
Columns = dict[str, list[Any]]  # by input, one tensor a request
_RECORD = "placement.json"
_REPORT_SECONDS = 1.0  # at least, between two reports: each number is a message to the server's process
_METRICS = {
    "hits": ("seatrial_cache_hits_total", "Requests answered from the version's cache", "COUNTER"),
    "misses": ("seatrial_cache_misses_total", "Requests looked up and computed", "COUNTER"),
    "spent": ("seatrial_cache_spent_seconds_total", "Seconds spent on keys, looking up and keeping", "COUNTER"),
    "saved": ("seatrial_cache_saved_seconds_total", "Seconds of computing that hits saved", "COUNTER"),
    "bytes": ("seatrial_cache_bytes", "Bytes that the version's cache holds", "GAUGE"),
    "on": ("seatrial_cache_on", "1 while the cache is used, 0 while it rests because it does not pay", "GAUGE"),
}


class Remembering:
    """One instance's cache."""

    def __init__(self, args: dict[str, str], parameters: dict[str, str], folder: str) -> None:
        with open(os.path.join(folder, _RECORD)) as stream:
            self.keys = Keys(json.load(stream)["digest"])
        self.memory = Memory(int(parameters["cache_bytes"]), float(parameters["cache_ttl_seconds"]))
        self.worth = Worth()
        labels = {"model": args["model_name"], "version": args["model_version"]}
        labels["instance"] = args["model_instance_name"]
        self.metrics = {}
        for key, (name, description, kind) in _METRICS.items():
            kinds = pb_utils.MetricFamily
            family = kinds(name=name, description=description, kind=getattr(kinds, kind))
            self.metrics[key] = (family, family.Metric(labels=labels))  # a family without a name would be freed
        self.told: dict[str, float] = {}
        self.reported = 0.0
        self.report(time.perf_counter())

    def answered(
        self,
        requests: Sequence[Any],
        columns: Columns,
        wanted: list[Wanted],
        compute: Callable[[Columns, list[Wanted]], list[Any]],
    ) -> list[Any]:
        """For each request its answer, remembered or computed now, or the error that it gave."""
        places = range(len(requests))
        if not self.worth.on:
            if self.worth.passed(len(places)):
                pb_utils.Logger.log_info("the cache is tried again")
            return compute(columns, wanted)
        began = time.perf_counter()
        keys = [self._key(requests[place], columns, wanted[place], place) for place in places]
        answers: list[Any] = [self.memory.get(key, began) if key else None for key in keys]
        first: dict[bytes, int] = {}
        missing = [
            place
            for place in places
            if answers[place] is None and (not keys[place] or self._is_first(first, keys, place))
        ]
        looked = time.perf_counter()
        for place, answer in zip(missing, compute(*part(columns, wanted, missing)) if missing else [], strict=True):
            answers[place] = answer
        ran = time.perf_counter()
        for place in missing:
            answer = answers[place]
            if keys[place] and isinstance(answer, tuple):
                self.memory.put(keys[place], answer, ran)
        for place in places:
            if answers[place] is None:
                answers[place] = answers[first[keys[place]]]
        ended = time.perf_counter()
        spent = ended - ran + looked - began
        if self.worth.looked_up(len(places) - len(missing), len(missing), spent, ran - looked):
            self._rest()
        if ended - self.reported >= _REPORT_SECONDS or not self.worth.on:
            self.report(ended)
        return answers

    def report(self, now: float) -> None:
        """Bring the server's metrics up to date; they lag behind by a second, and until the next request.

        A counter is told what came since the last report and never asked what it holds: while a version is loaded
        again, the old process and the new one share it, and a step down would abort the whole server (Triton 2.51).
        """
        for key, (_, metric) in self.metrics.items():
            if _METRICS[key][2] == "GAUGE":
                metric.set(float(self.memory.bytes if key == "bytes" else self.worth.on))
            elif (step := getattr(self.worth, key) - self.told.get(key, 0.0)) > 0:
                metric.increment(float(step))
                self.told[key] = getattr(self.worth, key)
        self.reported = now

    def _key(self, request: Any, columns: Columns, wanted: Wanted, place: int) -> bytes:
        """The request's key; empty where a tensor lies on a device, whose bytes are not worth fetching."""
        tensors = [(name, column[place]) for name, column in columns.items()]
        if not all(isinstance(tensor, np.ndarray) for _, tensor in tensors):
            return b""
        return self.keys.key(tensors, wanted, request.parameters())

    @staticmethod
    def _is_first(first: dict[bytes, int], keys: list[bytes], place: int) -> bool:
        return first.setdefault(keys[place], place) == place

    def _rest(self) -> None:
        self.memory.clear()
        hits, misses = self.worth.hits, self.worth.misses
        pb_utils.Logger.log_warn(
            f"the cache rests because it does not pay: {hits} of {hits + misses} requests were in it so far; looking "
            f"up took {self.worth.spent:.3f} s, hits saved {self.worth.saved:.3f} s"
        )


def part(columns: Columns, wanted: list[Wanted], places: Sequence[int]) -> tuple[Columns, list[Wanted]]:
    """Those requests of a batch."""
    if len(places) == len(wanted):
        return columns, wanted
    chosen = {name: [column[place] for place in places] for name, column in columns.items()}
    return chosen, [wanted[place] for place in places]
