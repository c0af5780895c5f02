"""The gate: runs both arms in turn on fresh servers, keeps everything raw, and asks the judge.

Orchestrates only: order and records are `pairs`, the load is `bench.load`, answers are `bench.quality`, the
decision is `judge` on what lies in the folder. Places nothing and knows no server: the host is handed in.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from seatrial.optimize.artifact import Artifact, canonical
from seatrial.optimize.environment import environment, now
from seatrial.optimize.errors import ConfigError, ContractError, MachineError, SeatrialError, SourceError
from seatrial.optimize.reading import damage
from seatrial.optimize.samples import Samples

from .. import cost
from ..budget import Budget
from ..errors import LoadError
from ..load.load_setup import ClientSetup
from ..load.payload import Payload
from ..load.run import OK
from ..load.validity import breaches, saturation_breaches
from ..measurement import Unavailable
from ..measuring import throttling
from ..measuring.device import DeviceProbe, EnergyMeter
from ..measuring.probes import MemoryProbe, alive, control_seconds, load_average
from ..quality import served
from ..quality.suite import Ask, Suite
from ..schedule import poisson
from ..server_statistics import window
from ..targets import Endpoint, Host
from ..verdict import EvaluationSet, Judged
from . import pairs
from .exercised import deployable
from .findings import complete_pairs
from .gate_setup import GateSetup, Generator, Progress
from .judge import Verdict, judge
from .pairs import Arm, ClientUse, GateRun, PinnedPrice, RunHeader, SaturationUse, Slot, SlotRecord

_SETTLE = 3.0  # seconds before a spoiled pair is run again: what spoiled it comes in bursts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setup:
    """State that is constant over all slots of a run."""

    artifacts: dict[Arm, Artifact]
    budget: Budget
    hosts: Mapping[Arm, Host]
    samples: Samples
    metric: served.Metric
    folder: Path
    generator: Generator
    quality_batch: int
    saturation_batch: int
    max_batch: int | None
    suite: Suite
    ledger: Mapping[str, float]

    def ask(self, endpoint: Endpoint) -> Ask:
        """Answer the suite's inputs with the served model, in the quality batches."""
        return lambda inputs: served.answers(endpoint, inputs, self.quality_batch)

    def share(self, pair: int) -> tuple[int, int]:
        """The samples that a pair asks in both arms; the pairs up to the first look ask every sample once."""
        count, parts = len(self.samples), self.budget.design.first_look
        return min(pair, parts) * count // parts, min(pair + 1, parts) * count // parts


def gate(
    base: Artifact,
    candidate: Artifact,
    budget: Budget,
    means: GateSetup,
    *,
    suite: Suite | None = None,
    ledger: Mapping[str, float] | None = None,
    going_on: GateRun | None = None,
) -> Verdict:
    """Compare two artifacts on this machine and judge the candidate.

    `means` says what serves and scores them, and where the run lies. `suite` asks the budget's checks and is only
    needed where these hold attacks, whose inputs are made beforehand; `ledger` is what the budget's ledger holds
    already (`bench.records.accepted`). A design with looks stops at the first that decides. `going_on` is the run that
    lies in the folder already, where `budget` asks for more pairs of it (`continuing.continued`). Raw results go into
    the folder as they come: an interruption leaves one that `read_run` reads, and the verdict (also in
    ``verdict.json``) is recomputed from it by `rejudge`, bit for bit.

    Raises:
        ConfigError: no labels, fewer samples than pairs, an unknown price, a saturation batch that the servers would
            refuse, or a folder that holds a run already.
        SourceError: the metric raised or returned the wrong thing.
    """
    setup = _Setup(
        artifacts={"base": base, "candidate": candidate},
        budget=budget,
        hosts={"base": means.base_host or means.host, "candidate": means.host},
        samples=means.samples,
        metric=means.metric,
        folder=means.folder,
        generator=means.generator,
        quality_batch=min(budget.design.quality_batch, means.max_batch or budget.design.quality_batch),
        saturation_batch=budget.design.saturation_batch or means.max_batch or 1,
        max_batch=means.max_batch,
        suite=suite or Suite(checks=budget.checks, samples=means.samples, metric=means.metric),
        ledger=ledger or {},
    )
    setup.suite.ready()
    check_batch(budget, means.max_batch)
    if going_on is None:
        pairs.write_header(means.folder, _header(setup))
    else:
        pairs.go_on(means.folder, _more(going_on, budget))
    tell = means.progress or (lambda what, share: None)
    _measure_pairs(setup, going_on, tell)
    tell("judging", 1.0)
    return rejudge(means.folder, budget)


def _measure_pairs(setup: _Setup, going_on: GateRun | None, tell: Progress) -> None:
    """Every pair of the design that is not there yet, until a look decides or a pair cannot be had."""
    design, folder = setup.budget.design, setup.folder
    done = {base.slot.pair for base, _ in complete_pairs(going_on)} if going_on else set()
    tried = {each.slot.pair: each.attempt + 1 for each in going_on.final().values()} if going_on else {}
    plan = pairs.plan(design.pairs, design.seed)
    for pair in range(design.pairs):
        slots = [slot for slot in plan if slot.pair == pair]
        if pair not in done and not _run_pair(setup, slots, tell, first=tried.get(pair, 0)):
            break
        if pair + 1 in design.looks and judge(pairs.read_run(folder), setup.budget).outcome in ("PASS", "FAIL"):
            break


def rejudge(folder: Path, budget: Budget | None = None) -> Verdict:
    """Judge the run in a folder from its raw values, against its own budget unless another is given.

    Writes ``verdict.json`` beside the raw values.

    Raises:
        MissingError: no run there.
        IntegrityError: the run cannot be read.
    """
    run = pairs.read_run(folder)
    with damage(folder, "restore the folder from a copy, or run the gate again"):
        verdict = judge(run, budget or run.header.budget)
        canonical(verdict.to_json())
    verdict.write(folder / "verdict.json", indent=1)
    return verdict


def read_verdict(folder: Path) -> Verdict:
    """The verdict that lies beside a run's raw values.

    Raises:
        MissingError: the run was never judged.
        IntegrityError: it cannot be read.
    """
    path = folder / "verdict.json"
    try:
        return Verdict.read(path, next_step=f"judge the run again: seatrial report {folder}")
    except FileNotFoundError as error:
        raise pairs.no_record(path) from error


def read_gate(folder: Path) -> tuple[GateRun, Verdict]:
    """A run and its verdict, as a report needs them."""
    return pairs.read_run(folder), read_verdict(folder)


def _header(setup: _Setup) -> RunHeader:
    """Check what can be checked before a server is started, and describe the run.

    Raises:
        ConfigError: the evaluation set cannot be used.
    """
    samples, design = setup.samples, setup.budget.design
    if samples.labels is None:
        raise ConfigError("the evaluation set has no labels, so quality cannot be judged", where=samples.split)
    if len(samples) < design.first_look:
        raise ConfigError(
            f"{len(samples)} samples cannot be divided among {design.first_look} pairs", where=samples.split
        )
    price = cost.price_list().of(setup.budget.price)
    return RunHeader(
        base=_named(setup.artifacts["base"]),
        candidate=_named(setup.artifacts["candidate"]),
        budget=setup.budget,
        samples=EvaluationSet(split=samples.split, count=len(samples), digest=samples.digest),
        price=PinnedPrice(name=price.name, machine=price.machine, usd_hour=price.usd_hour, source=price.source),
        environment=environment().to_json(),
        at=now(),
        ledger=dict(setup.ledger),
        deployable=deployable(setup.artifacts["candidate"], samples, setup.max_batch),
    )


def _more(run: GateRun, budget: Budget) -> RunHeader:
    """The run's header with the budget of more pairs, and the pairs after which it was looked at before."""
    before = run.header.budget.design.pairs
    looked = (before,) if budget.design.pairs > before else ()
    return replace(run.header, budget=budget, continued=(*run.header.continued, *looked))


def check_batch(budget: Budget, max_batch: int | None) -> None:
    """Saturation is measured in the batches that the budget names, or not at all; quality does not depend on them.

    Raises:
        ConfigError: the servers would refuse such batches.
    """
    if max_batch and (budget.design.saturation_batch or 0) > max_batch:
        raise ConfigError(
            (
                f"saturation uses batches of {budget.design.saturation_batch}, but the servers accept at most "
                f"{max_batch}"
            ),
            where="design.saturation_batch",
            next_step="lower it in the budget, or raise max_batch_size in the deployment",
        )


def _named(artifact: Artifact) -> Judged:
    return Judged(name=artifact.name, digest=artifact.digest, format=artifact.format, size=artifact.size)


def _run_pair(setup: _Setup, slots: list[Slot], tell: Progress, first: int = 0) -> bool:
    """Both slots of a pair, and again where the load or the machine spoiled it; False where the run must stop.

    `first` is the first attempt's number.
    """
    faulty: set[Arm] = set()
    for attempt in range(first, first + 1 + setup.budget.design.reruns):
        records = []
        time.sleep(_SETTLE if attempt > first else 0.0)
        for slot in slots:
            what = f"pair {slot.pair + 1} of {setup.budget.design.pairs}, {slot.arm}" + (", again" if attempt else "")
            tell(what, slot.index / (2 * setup.budget.design.pairs))
            record = _run_slot(setup, slot, attempt, again=slot.arm in faulty)
            pairs.write_record(setup.folder, record)
            records.append(record)
        if all(record.usable for record in records):
            return True
        if any(record.fault_kind == "model" for record in records) or _refused(records):
            return False
        faulty |= {record.slot.arm for record in records if record.faults}
    return False


def _refused(records: list[SlotRecord]) -> bool:
    """A living server that broke connections in one arm alone: no accident, so a rerun may not wipe it away."""
    broken = [
        not record.faults and any("transport" in breach.split(":")[0] for breach in record.breaches)
        for record in records
    ]
    return any(broken) and not all(broken)


def _run_slot(setup: _Setup, slot: Slot, attempt: int, *, again: bool) -> SlotRecord:
    """One fresh server with one arm, measured; whatever goes wrong with it is in the record.

    `again` says that the arm was faulty in this pair before. A server that dies, or a machine that lacks something,
    may be an accident of the machine's the first time (a stall of a second kills Triton); when it happens again while
    the other arm works, it is this artifact that the machine cannot serve.
    """
    record = SlotRecord(
        slot=slot, attempt=attempt, started_at=now(), control=control_seconds(), load_average=load_average()
    )
    began = time.perf_counter()
    try:
        with setup.hosts[slot.arm](setup.artifacts[slot.arm]) as endpoint:
            try:
                record = _measured(setup, record, endpoint, began)
            except SourceError:
                raise
            except SeatrialError as error:
                record = _faulty(record, error, again=again)
            if endpoint.pids and not alive(endpoint.pids):
                record = record.faulty("the server process died", "model" if again else "environment")
    except SourceError:
        raise
    except SeatrialError as error:
        record = _faulty(record, error, again=again)
    around = (record.control or 0.0, control_seconds())  # the machine before and after, since it cannot be asked during
    return replace(record, control=sum(around) / 2, seconds=time.perf_counter() - began)


def _faulty(record: SlotRecord, error: SeatrialError, *, again: bool) -> SlotRecord:
    """The record with the error as a fault of the model or of the environment."""
    kind: Literal["model", "environment"] = "model"
    if isinstance(error, ContractError | LoadError) or (isinstance(error, MachineError) and not again):
        kind = "environment"
    return record.faulty(f"{error.what} ({error.where})" if error.where else error.what, kind)


def _measured(setup: _Setup, record: SlotRecord, endpoint: Endpoint, began: float) -> SlotRecord:
    """Warm-up, the pair's share of the evaluation set, open-loop load, saturation; memory throughout.

    The largest batch is asked for first and last: arenas grow to it at once, and what the server still holds after it
    is the steady state.
    """
    design, inputs = setup.budget.design, setup.samples.inputs
    batches = (1, setup.quality_batch, setup.saturation_batch)
    probes = MemoryProbe(endpoint.pids), DeviceProbe(endpoint.pids, endpoint.device_baseline)
    with probes[0] as memory, probes[1] as device:
        fixed = served.fixed_batch(endpoint, inputs)
        memory.mark("loaded")
        asked = time.perf_counter()
        served.warm_up(endpoint, inputs, (1,), 1)
        first, startup = time.perf_counter() - asked, time.perf_counter() - began
        record = replace(record, load_seconds=endpoint.load_seconds, first_inference=first, startup=startup)
        record = replace(record, engine=endpoint.engine)
        served.warm_up(endpoint, inputs, (max(batches),), 1)
        memory.mark("largest_first")
        served.warm_up(endpoint, inputs, batches, design.warmup_requests)
        record = _quality(setup, record, endpoint)
        record = _load(setup, record, endpoint, fixed or 1, memory)
        record = _saturation(setup, record, endpoint, fixed or setup.saturation_batch)
        served.warm_up(endpoint, inputs, (max(batches),), 1)
        memory.mark("largest_last")
    used, device_used = memory.usage, device.result
    peak = None if isinstance(used, Unavailable) else used.peak
    record = replace(record, breaches=(*record.breaches, *throttling.breaches(device_used)))
    return replace(record, memory=used, peak_memory=peak, device=device_used)


def _quality(setup: _Setup, record: SlotRecord, endpoint: Endpoint) -> SlotRecord:
    start, stop = setup.share(record.slot.pair)
    if start == stop:
        return replace(record, quality_start=start)
    share = setup.samples.take(start, stop)
    found = served.answers(endpoint, share.inputs, setup.quality_batch)
    named = [spec.name for spec in setup.artifacts[record.slot.arm].outputs if spec.name in found]
    outputs = {name: found[name] for name in named or found}  # in the artifact's order, as the build's metric saw them
    labels = np.asarray(share.labels)
    record = replace(record, quality=served.scores(setup.metric, outputs, labels), quality_start=start)
    return replace(record, checks=setup.suite.measure(setup.ask(endpoint), outputs, start, stop))


def _load(setup: _Setup, record: SlotRecord, endpoint: Endpoint, batch: int, memory: MemoryProbe) -> SlotRecord:
    design = setup.budget.design
    with EnergyMeter() as energy, window(endpoint) as counting:
        run = setup.generator.load(
            endpoint,
            poisson(design.rate, design.seconds, record.slot.seed),
            Payload.build(endpoint, setup.samples.inputs, batch=batch),
            folder=setup.folder / "load" / record.name,
            client=ClientSetup(cores=design.client_cores),
            progress=counting.begin,
        )
    answered = run.done[run.status == OK]
    memory.answered(run.start + answered)
    return replace(
        record,
        latency=run.done - run.intended,
        service=run.done - run.sent,
        lag=run.sent - run.intended,
        status=run.status.astype(np.int64),
        breaches=breaches(run, setup.budget.load),
        server=counting.counted,
        energy=energy.result(answered.size * batch),
        load=ClientUse(client_cpu=run.client_cpu, reasons=dict(run.reasons)),
    )


def _saturation(setup: _Setup, record: SlotRecord, endpoint: Endpoint, batch: int) -> SlotRecord:
    design = setup.budget.design
    with window(endpoint) as counting:
        run = setup.generator.saturate(
            endpoint,
            Payload.build(endpoint, setup.samples.inputs, batch=batch),
            seconds=design.saturation_seconds,
            concurrency=design.concurrency,
            folder=setup.folder / "load" / record.name,
            client=ClientSetup(cores=design.client_cores),
            progress=counting.begin,
        )
    used = SaturationUse(
        batch=batch,
        client_cpu=run.client_cpu,
        client_wait=run.about.client_wait or 0.0,
        errors=run.errors,
        completed=run.completed,
        server=counting.counted,
    )
    broken = tuple(f"saturation {breach}" for breach in saturation_breaches(run, setup.budget.load))
    return replace(record, throughput=run.inferences_per_second, saturation=used, breaches=(*record.breaches, *broken))
