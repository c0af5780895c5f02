"""Measures one subject: an artifact in a fresh pinned process, or an endpoint under an open-loop load.

Orchestrates and names what was taken; every figure is computed by `measured` from what then lies in the folder.
Compares nothing and judges nothing.
"""

import ipaddress
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.environment import environment, now
from seatrial.optimize.errors import StageError
from seatrial.optimize.samples import Array
from seatrial.optimize.sessions.engine import engine_of, report_use, require
from seatrial.optimize.store import Store

from ..load.on_locust import ClientSetup, load
from ..load.payload import Payload
from ..load.run import CENSORED, OK, LoadRun
from ..measurement import NOTHING, Measurement, Metric, Unavailable
from ..metrics import metric_of
from ..processes import described, listener
from ..schedule import Schedule
from ..server_statistics import mean_compute, mean_queue, window
from ..targets import Endpoint
from . import in_process, measured
from .device import DeviceProbe, EnergyMeter
from .in_process import Plan
from .isolate import isolated
from .measured import (
    ACHIEVED,
    DEVICE_TIME,
    LATENCY,
    MODEL_MEMORY,
    SERVICE,
    TRANSFER,
    ArtifactSubject,
    EndpointSubject,
    EngineUsed,
    Summary,
)
from .probes import MemoryProbe
from .usage import DeviceUse, EnergyUse, Memory

Progress = Callable[[float], None]
"""Called with the completed fraction of the measurement, 0 to 1."""

Taken = list[tuple[Metric, str, Sequence[float]]]

_ELSEWHERE = Unavailable(unavailable="the server's process was not found on this machine")
_GRACE = 120.0  # seconds for starting, opening the model and the first inferences, beside the scenarios
_SHARE_OF_START = 2.0  # seconds that progress allows for the start


def measure_artifact(
    artifact: Artifact,
    store: Store,
    samples: Mapping[str, Array],
    plan: Plan,
    *,
    folder: Path,
    cores: Sequence[int] = (),
    progress: Progress | None = None,
) -> Summary:
    """SingleStream and Offline on an artifact of the store, in a process of its own pinned to `cores`.

    By default that is one core per thread, the last ones of this machine. `samples`, [n, ...], are cycled through.

    Raises:
        ConfigError: the samples are not the artifact's inputs, or the folder holds a run.
        ConfigError: there is no such engine, or it does not open the artifact's format.
        ContractError, MachineError: this machine cannot run it.
        StageError: the engine refuses the model or the samples.
        CallError: the process was killed or overran its time.
    """
    samples = fitting(artifact, samples)
    engine = engine_of(artifact.format, plan.engine)
    report_use(engine, require(engine, plan.device))  # the process that opens it reports nothing
    measured.open_run(folder)
    cores = tuple(cores) or default_cores(plan.threads)
    expected = _SHARE_OF_START + plan.seconds * 2 * (1 + in_process.WARM)
    probes: list[MemoryProbe] = []

    def watch(pid: int) -> MemoryProbe:
        probes.append(MemoryProbe((pid,)))
        device.pids = (pid,)
        return probes[0]

    with DeviceProbe() as device:
        told = isolated(
            in_process.measure,
            artifact,
            store,
            samples,
            plan,
            cores=cores,
            timeout=_GRACE + 10 * expected,
            watch=watch,
            tick=(lambda ran: progress(min(1.0, ran / expected))) if progress else None,
        )
    memory = probes[0].result
    header = measured.MeasuredHeader(
        subject=ArtifactSubject(name=artifact.short, digest=artifact.digest, format=artifact.format),
        engine=EngineUsed(name=engine.name, provider=told.provider, device=told.device, on_cpu=told.on_cpu),
        threads=plan.threads,
        cores=tuple(cores),
        memory=replace(memory, phases=told.phases, allocators=told.allocators),
        device=device.result,
        energy=None if told.energy == NOTHING else told.energy,
        environment=environment().to_json(),
        at=now(),
    )
    return _kept(folder, artifact.digest, [*_ran(told, artifact, memory.peak), *_on_gpu(told, header.device)], header)


def measure_endpoint(
    endpoint: Endpoint,
    schedule: Schedule,
    samples: Mapping[str, Array],
    *,
    folder: Path,
    batch: int = 1,
    own_target: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """An endpoint under exactly these arrivals, open loop; memory and GPU too where the server runs on this machine.

    `samples`, [n, ...] by input, are sent in turn, `batch` in a request.

    Raises:
        ConfigError: the samples do not fit, the hard caps of a load, or the folder holds a run.
        TargetError: the target is not on this machine and not said to be yours, or does not answer.
        LoadError: the load process broke.
    """
    payload = Payload.build(endpoint, samples, batch=batch)
    measured.open_run(folder)
    pids = endpoint.pids or local_server(endpoint)
    watched = ", ".join(described(pid) for pid in pids)  # a port may belong to a proxy of a container: say whose memory
    with (
        MemoryProbe(pids) as memory,
        DeviceProbe(pids) as device,
        EnergyMeter() as energy,
        window(endpoint) as counting,
    ):

        def tell(share: float) -> None:
            counting.begin()
            if progress is not None:
                progress(share)

        client = ClientSetup(own_target=own_target)
        run = load(endpoint, schedule, payload, folder=folder / measured.LOAD, client=client, progress=tell)
    answered = run.done[run.status == OK]
    memory.answered(run.start + answered)
    used = memory.usage
    header = measured.MeasuredHeader(
        subject=EndpointSubject(name=endpoint.url + endpoint.path, model=endpoint.model, version=endpoint.version),
        memory=_ELSEWHERE if isinstance(used, Unavailable) else replace(used, of=watched),
        server=counting.counted,
        device=device.result if pids else _ELSEWHERE,
        energy=energy.result(answered.size * batch) if pids else _ELSEWHERE,
        environment=environment().to_json(),
        at=now(),
    )
    scenario = f"{schedule.law} {schedule.rate:g}/s for {schedule.seconds:g} s" + (
        f", batches of {batch}" if batch > 1 else ""
    )
    return _kept(folder, endpoint.url + endpoint.path, _loaded(run, scenario, batch, header), header)


def default_cores(threads: int) -> tuple[int, ...]:
    """One core per thread, the last ones: the first serve the machine's interrupts and other threads."""
    return tuple(sorted(os.sched_getaffinity(0))[-threads:])


def local_server(endpoint: Endpoint) -> tuple[int, ...]:
    """The process behind an endpoint on this machine; empty where it runs elsewhere or is not to be known."""
    host, port = endpoint.address
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    return listener(port) if here else ()


def fitting(artifact: Artifact, samples: Mapping[str, Array]) -> dict[str, Array]:
    """The samples, [n, ...], of the artifact's inputs, in their order and dtype.

    Raises:
        StageError: an input has no samples, or samples of another rank or fixed size, or numpy lacks its dtype.
    """
    check_inputs(artifact)
    found = {}
    for spec in artifact.inputs:
        array = samples.get(spec.name)
        whole = array is not None and array.ndim == len(spec.shape) + 1  # one run takes one sample
        row = spec.shape if whole else spec.shape[1:]
        fits = (
            array is not None
            and array.ndim == len(row) + 1
            and all(isinstance(dim, str) or dim == size for dim, size in zip(row, array.shape[1:], strict=True))
        )
        if array is None or not fits:
            has = "none" if array is None else f"samples of shape {list(array.shape)}"
            raise StageError(
                f"input {spec.name!r} takes {spec.dtype} {list(spec.shape)}, but the samples have {has}",
                where=artifact.short,
                next_step="pass the recipe that the artifact was built from",
            )
        found[spec.name] = np.ascontiguousarray(array, dtype=spec.dtype)
    return found


def check_inputs(artifact: Artifact) -> None:
    """Check that samples of the artifact's inputs can be made.

    Raises:
        StageError: numpy has no such dtype.
    """
    for spec in artifact.inputs:
        if spec.dtype == "bfloat16":
            raise StageError(
                f"input {spec.name!r} is bfloat16, which numpy does not support",
                where=artifact.short,
                next_step="export the model with inputs of float32 and cast inside",
            )


def _single(batch: int) -> str:
    return "SingleStream" if batch == 1 else f"SingleStream, the model's fixed batch of {batch}"


def _ran(told: in_process.Ran, artifact: Artifact, seen_from_outside: int) -> Taken:
    """Return the values of an isolated measurement. The process knows its own high-water mark exactly, the probe
    outside may miss that moment."""
    offline = f"Offline, batches of {told.batch}"
    first, last = told.phases["started"], told.phases["largest_last"]
    return [
        (LATENCY, _single(told.single_batch), told.single_stream),
        (metric_of("throughput"), offline, [told.batch / seconds for seconds in told.offline]),
        (metric_of("load_time"), "a fresh process", [told.load_time]),
        (metric_of("first_inference"), "a fresh process", [told.first_inference]),
        (metric_of("file_size"), "in the artifact store", [artifact.size]),
        (metric_of("peak_memory"), "the whole process", [max(seen_from_outside, last.high_water)]),
        (metric_of("steady_memory"), "after the last inference", [last.now]),
        (MODEL_MEMORY, "the model's own share", [last.high_water - first.now]),
    ]


def _on_gpu(told: in_process.Ran, device: DeviceUse | Unavailable) -> Taken:
    """Return the values that only a run on a GPU has: bound buffers, device memory, energy; none on the processor."""
    if told.device.startswith("cpu"):
        return []
    taken: Taken = []
    if (bound := told.bound) is not None:
        scenario = f"bound buffers, batches of {bound.batch}, inputs rotated over {bound.copies}"
        taken = [
            (LATENCY, scenario, bound.wall),
            (DEVICE_TIME, scenario, bound.device),
            (TRANSFER, f"to the device, batches of {bound.batch}", bound.write),
            (TRANSFER, f"from the device, batches of {bound.batch}", bound.read),
        ]
    if isinstance(device, DeviceUse):
        taken.append((metric_of("device_memory"), "the whole process", [device.peak]))
    if isinstance(told.energy, EnergyUse):
        taken.append((metric_of("energy"), f"Offline, batches of {told.batch}", [told.energy.per_inference]))
    return [each for each in taken if len(each[2])]


def _loaded(run: LoadRun, scenario: str, batch: int, about: measured.MeasuredHeader) -> Taken:
    """Return the available values of an open-loop run and the probes beside it."""
    kept = (run.status == OK) | (run.status == CENSORED)
    done = run.done[run.status == OK]
    span = max(run.schedule.seconds, float(np.max(done, initial=0.0)))
    counted = about.server or NOTHING
    single = {
        "queue": mean_queue(counted),
        "compute": mean_compute(counted),
        "peak_memory": about.memory.peak if isinstance(about.memory, Memory) else None,
        "steady_memory": about.memory.last if isinstance(about.memory, Memory) else None,
        "device_memory": about.device.peak if isinstance(about.device, DeviceUse) else None,
        "energy": about.energy.per_inference if isinstance(about.energy, EnergyUse) else None,
    }
    taken: Taken = [
        (LATENCY, scenario, (run.done[kept] - run.intended[kept]).tolist()),
        (SERVICE, scenario, run.service.tolist()),
        (ACHIEVED, scenario, [done.size * batch / span]),
        (metric_of("errors"), scenario, (run.status != OK).astype(float).tolist()),
    ]
    taken += [(metric_of(name), scenario, [value]) for name, value in single.items() if value is not None]
    return [each for each in taken if len(each[2])]


def _kept(folder: Path, subject: str, taken: Taken, header: measured.MeasuredHeader) -> Summary:
    measurements = [
        Measurement(
            subject=subject,
            metric=metric,
            scenario=scenario,
            values=tuple(float(value) for value in values),
            environment=header.environment,
            at=header.at,
        )
        for metric, scenario, values in taken
    ]
    return measured.write(folder, header, measurements)
