"""scripts/gpu: runs the sections one after the other, each in its own process, and keeps the record after each.

Standard library alone; what a section needs, its own process imports. Never sets a clock or any other state of the GPU.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.gpu_sections.record import NO_GPU, Run, verdict
from scripts.gpu_sections.sections import BY_NAME, SECTIONS, Section

ROOT = Path(__file__).parents[2]
LEAST = 5.0  # seconds that a section must have to be started
_TAIL = 2000  # characters of a failed section's output that are kept


def main(words: list[str] | None = None) -> int:
    """Read the command line, run, and return the exit code: 0 all met, 1 missed, 3 could not tell, 4 no GPU."""
    given = _parser().parse_args(words)
    if given.list:
        for section in SECTIONS:
            print(f"{section.name:12} {section.seconds:4.0f} s at most  {section.about}")
        return 0
    run = Run(
        device="cpu" if given.on_cpu else "gpu",
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        arguments=list(words if words is not None else sys.argv[1:]),
    )
    chosen = [section for section in SECTIONS if section.name in (given.only or BY_NAME)]
    until = time.monotonic() + given.minutes * 60
    try:
        run.write(given.out)
        _look_around(run, given.out)
        code = NO_GPU if run.reasons and not given.on_cpu else _walk(run, chosen, given.out, until)
    except OSError as error:
        print(
            f"{given.out}: the record cannot be written: {error.strerror}. Next: name a file in a folder that is there."
        )
        return 2
    if code == NO_GPU:
        for section in chosen:
            if section.name not in run.sections:
                run.add(section.name, "not run", 0.0, {}, "no GPU")
    run.exit_code, run.finished = code, True
    run.write(given.out)
    _report(run)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/gpu", description=__doc__.splitlines()[0] if __doc__ else "")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, metavar="FILE", help="the JSON record, replaced after each section")
    target.add_argument("--list", action="store_true", help="list the sections and exit")
    parser.add_argument("--minutes", type=_minutes, default=30.0, metavar="M", help="for everything (default 30)")
    parser.add_argument("--only", action="append", choices=tuple(BY_NAME), help="this section only (may be repeated)")
    parser.add_argument(
        "--on-cpu", action="store_true", help="rehearse the code paths on the CPU, small; no claim is met, exit 1 or 3"
    )
    return parser


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value <= 24 * 60:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1440, got {text}")
    return value


def _look_around(run: Run, out: Path) -> None:
    """The environment first, whatever was asked for: the others depend on it, and a record needs it."""
    section = BY_NAME["environment"]
    _one(run, section, section.seconds)
    rows = run.sections[section.name]["rows"]
    run.environment = dict(rows[0]) if rows else {}
    run.reasons = list(run.sections[section.name]["notes"])
    if not rows:
        run.reasons.append(f"the environment cannot be read: {run.sections[section.name]['reason']}")
    run.write(out)


def _walk(run: Run, chosen: list[Section], out: Path, until: float) -> int:
    for section in chosen:
        if section.name in run.sections:
            continue
        left = until - time.monotonic()
        if left < LEAST:
            run.add(section.name, "not run", 0.0, {}, "out of time (--minutes)")
        else:
            print(f"{section.name}: {section.about}", flush=True)
            _one(run, section, min(section.seconds, left))
        run.write(out)
    return verdict(run.device, [run.sections[section.name] for section in chosen])


def _one(run: Run, section: Section, seconds: float) -> None:
    """Run a section in a process group of its own, which ends with its time."""
    device = "cpu" if run.device == "cpu" else "cuda"
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="seatrial-gpu-") as folder:
        file, log = Path(folder, "found.json"), Path(folder, "log")
        command = [sys.executable, "-m", "scripts.gpu_sections.child"]
        command += [section.name, str(file), device, str(seconds), str(os.getpid())]
        with log.open("w") as words:
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True
            )
            try:
                code: int | None = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        took = time.monotonic() - began
        told: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        if code is None:
            run.add(section.name, "timeout", took, {}, f"longer than {seconds:.0f} s: {_tail(log)}")
        elif code or not told:
            run.add(section.name, "failed", took, {}, f"exit {code}: {_tail(log)}")
        else:
            run.add(section.name, told["status"], took, told["found"], told["reason"])


def _tail(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-_TAIL:]


def _report(run: Run) -> None:
    for name, section in run.sections.items():
        print(f"{name}: {section['status']} in {section['seconds']:.0f} s {section['reason'].splitlines()[-1:] or ''}")
        for claim in section["claims"]:
            sign = {True: "met ", False: "MISS", None: "?   "}[claim["met"]]
            print(f"  {sign} {claim['claim']}: {claim['value'] or claim['why']} (bar {claim['bar']})")
    for reason in run.reasons:
        print(f"no GPU: {reason}" if run.exit_code == NO_GPU else reason)


def _ended(number: int, _: object) -> None:
    sys.exit(128 + number)  # the section that runs ends with this process


if __name__ == "__main__":
    for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(each, _ended)
    sys.exit(main())
