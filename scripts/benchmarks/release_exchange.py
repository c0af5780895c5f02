"""Releases that travel and go: push and pull through a real registry, damage on the way, and kills of every act.

Kills come at random moments of a process of its own. The next command must find nothing half-done: no release without
its artifact, no manifest without its blobs, no version without its tombstone.
"""

import json
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from scripts.benchmarks.attack_kill_jobs import command, surroundings
from scripts.benchmarks.oci_registry import OciServer, missing, oci_server
from scripts.benchmarks.release_home import released, stored
from scripts.benchmarks.rows import Row
from seatrial.optimize.errors import MachineError, SeatrialError
from seatrial.optimize.store import Store
from seatrial.optimize.store_check import inspect
from seatrial.serve.release.exchange.on_oras import OciRepository
from seatrial.serve.release.exchange.pulling import pull
from seatrial.serve.release.exchange.pushing import push
from seatrial.serve.release.registry import Registry
from seatrial.serve.release.registry_check import inspect_releases
from seatrial.serve.release.trail_file import TrailFile
from seatrial.serve.triton.repository.placement import placements
from seatrial.serve.triton.repository.placing import choose

KILLS = 60
FLIPS = 200
DEPLOYMENT = """
schema = 1
name = "net"
backend = "python"
max_batch_size = 8
"""


def exchange(folder: Path) -> Row:
    """Push a release, pull it into an empty home, compare; then flip bytes in the registry's storage, one at a time."""
    if why := missing():
        raise MachineError("there is no OCI registry here", where=why, next_step="run scripts/prometheus")
    here, there = folder / "here" / "home", folder / "there"
    release = released(here)
    with oci_server(folder / "registry") as registry:
        reference = f"{registry.host}/models/net"
        push(release, OciRepository(reference), home=here, tag="2")
        pull(OciRepository(f"{reference}:2"), home=there)
        equal = _equal(here, there)
        found, tried = _flipped(registry, reference, folder)
    return Row(
        name="exchange",
        claim=f"push to and pull from a real registry; {tried} bytes flipped in its storage",
        value=f"records, files and approvals {'bit-equal' if equal else 'DIFFERENT'}; {found} of {tried} flips "
        "refused, no release registered",
        bar="bit-equal, all refused",
        met=equal and found == tried,
    )


def _equal(here: Path, there: Path) -> bool:
    def files(home: Path, room: str) -> dict[str, bytes]:
        found = (path for path in (home / room).rglob("*") if path.is_file() and path.name != ".lock")
        return {path.relative_to(home).as_posix(): path.read_bytes() for path in found}

    rooms = all(files(here, room) == files(there, room) for room in ("releases", "approvals"))
    digest = Registry(there / "releases").get("net@2").digest
    stores = [Store(home / "store") for home in (here, there)]
    chains = [store.history(store.get(digest)) for store in stores]
    return rooms and chains[0] == chains[1] and all(stores[1].holds(each) for each in chains[1])


def _flipped(registry: OciServer, reference: str, folder: Path) -> tuple[int, int]:
    """Flip a bit of a random byte of a random blob, pull, and put it back; how many were refused, of how many."""
    drawn, found = random.Random(time.time_ns()), 0
    blobs = sorted(path for path in registry.storage.rglob("data") if "/blobs/" in str(path))
    for number in range(FLIPS):
        path = drawn.choice(blobs)
        whole = path.read_bytes()
        at = drawn.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << drawn.randrange(8))]) + whole[at + 1 :])
        home = folder / f"flip-{number}"
        try:
            pull(OciRepository(f"{reference}:2"), home=home)
        except SeatrialError:
            found += not Registry(home / "releases").folder.names()
        path.write_bytes(whole)
    return found, FLIPS


def acts_killed(folder: Path) -> Row:
    """Kill push, pull, gc and retire at random moments, then run each again and look at all that they write."""
    if why := missing():
        raise MachineError("there is no OCI registry here", where=why, next_step="run scripts/prometheus")
    wrong, killed, drawn = list[str](), Counter[str](), random.Random(time.time_ns())
    with oci_server(folder / "registry") as registry:
        for number in range(KILLS):
            act = ("push", "pull", "gc", "retire")[number % 4]
            lane = folder / str(number)
            words = _prepared(act, lane, f"{registry.host}/net-{number}")
            killed[act] += _killed(words, lane, after=0.4 + drawn.random() * 1.6)
            wrong += [f"{act} {number}: {why}" for why in _after(act, words, lane, f"{registry.host}/net-{number}")]
    return Row(
        name="acts",
        claim=f"{KILLS} kills of push, pull, gc and retire at random moments ("
        + ", ".join(f"{count} of {act}" for act, count in killed.items())
        + " while they ran), the same command run again",
        value=f"{len(wrong)} half-done{': ' if wrong else ''}{'; '.join(wrong[:3])}",
        bar="nothing half-done",
        met=not wrong and sum(killed.values()) >= KILLS // 2,
    )


def _prepared(act: str, lane: Path, reference: str) -> list[str]:
    """Make a home in which the act has something to do; return its words."""
    (lane / "ws").mkdir(parents=True)
    release = released(lane / "home")
    if act == "push":
        return ["push", "net@2", f"{reference}:2"]
    if act == "pull":
        push(release, OciRepository(reference), home=lane / "home", tag="2")
        (lane / "home").rename(lane / "origin")
        return ["pull", f"{reference}:2"]
    if act == "gc":
        store = Store(lane / "home" / "store")
        tagged = store.get(release.digest)
        store.tag(tagged, "kept")
        for number in range(20):
            _trial(lane, number)
        return ["gc", "--older-than", "0d", "--go"]
    (lane / "ws" / "net.toml").write_text(DEPLOYMENT)
    for version in (1, 2):
        place = (
            "place",
            "net.toml",
            "--release",
            f"net@{version}",
            "--unproven",
            "--elsewhere",
            "--repository",
            "models",
        )
        _run(place, lane)
    choose(lane / "ws" / "models", "net", (1,))
    return ["retire", "net", "2", "--repository", "models"]


def _trial(lane: Path, number: int) -> None:
    stored(lane / "home", f"trial-{number}", b"x" * (1 << 16) + str(number).encode())


def _killed(words: Sequence[str], lane: Path, *, after: float) -> bool:
    process = subprocess.Popen(
        command(words),
        cwd=lane / "ws",
        env=surroundings(lane),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def _run(words: Sequence[str], lane: Path) -> tuple[int, str]:
    done = subprocess.run(
        command([*words, "--json"]),
        cwd=lane / "ws",
        env=surroundings(lane),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def _after(act: str, words: Sequence[str], lane: Path, reference: str) -> list[str]:
    """Return what is wrong after a kill, and after the same command."""
    home, found = lane / "home", list[str]()
    if act == "push":
        try:
            pull(OciRepository(f"{reference}:2"), home=lane / "early")
        except SeatrialError as error:
            found += [] if "has no" in error.what else [f"a half-pushed release: {error.what}"]
    if act == "pull" and Registry(home / "releases").folder.names():
        digest = Registry(home / "releases").get("net@2").digest
        found += [] if Store(home / "store").whole(digest) else ["a release without its artifact"]
    code, said = _run(words, lane)
    already = act == "retire" and code == 0
    if code and not already:
        found.append(f"exit {code}: {said[-200:]}")
    found += [each.what for each in inspect(Store(home / "store")).damage]
    found += [each.what for each in inspect_releases(home, repair=False).damage]
    found += [each.what for each in TrailFile(home / "trail").verify(repair=True).damage]
    return found + _right(act, lane, reference)


def _right(act: str, lane: Path, reference: str) -> list[str]:
    """Return what the completed act left undone."""
    home = lane / "home"
    if act == "push":
        label = pull(OciRepository(f"{reference}:2"), home=lane / "late").release.label
        return [] if label == "net@2" else [f"pulled {label}"]
    if act == "pull":
        return [] if _equal(lane / "origin", home) else ["what was pulled differs"]
    if act == "gc":
        names = [each.name for each in Store(home / "store").all()]
        blobs = json.loads(_run(("gc", "--older-than", "0d"), lane)[1])["blobs"]
        return [] if sorted(names) == ["net"] * 3 and not blobs else [f"left: {names}, {blobs} blobs"]
    versions = [each.version for each in placements(lane / "ws" / "models", "net")]
    buried = (home / "retired" / "net" / "2.json").is_file()
    entries = sum(each.event == "retired" for each in TrailFile(home / "trail").entries(model="net"))
    return (
        [] if (versions, buried, entries) == ([1], True, 1) else [f"{versions}, tombstone {buried}, {entries} entries"]
    )
