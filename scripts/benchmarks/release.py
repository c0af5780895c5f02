"""Claims of governance: tampering is found, what is not approved is refused, the trail is fast, a kill leaves nothing
half.

Every row acts on a home that it makes; damage is counted as found only where the error names the file that was changed.
"""

import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import randbelow
from statistics import median

from scripts.benchmarks.release_exchange import acts_killed, exchange
from scripts.benchmarks.release_rehearsed import rehearsals
from scripts.benchmarks.release_served import served
from scripts.benchmarks.release_site import Site, built
from scripts.benchmarks.rows import Row, Rows, main
from seatrial.optimize.artifact import canonical, digest_bytes
from seatrial.optimize.errors import ConfigError, IntegrityError, SeatrialError
from seatrial.serve.errors import UnapprovedError
from seatrial.serve.release.on_cryptography import fingerprint, private_key, sign
from seatrial.serve.release.trail import line_of
from seatrial.serve.release.trail_file import Head, TrailFile

_ENTRIES = 100_000
_KILLS = 60


def tamper(folder: Path) -> Row:
    """Flip every byte of 3 releases, 6 approvals, 200 entries and the head, one at a time; then move lines about."""
    site = built(folder, releases=3)
    for version in (1, 2, 3):
        for member, role in (("anna", "owner"), ("bob", "risk")):
            site.approvals.approve(site.subject(version), role=role, key=site.key(member))
    for number in range(200 - site.trail.verify().entries):
        site.trail.append("placed", model=f"net-{number % 5}", actor="anna", details={"version": number})
    tried, missed, unnamed = 0, list[str](), list[str]()
    for path, look in _watched(site):
        whole, mode = path.read_bytes(), path.stat().st_mode
        path.chmod(0o644)
        for at in range(len(whole)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << randbelow(8))]) + whole[at + 1 :])
            tried += 1
            where = look()
            if where is None:
                missed.append(f"{path.name}:{at}")
            elif str(path) not in where and path != site.trail.head_path:
                unnamed.append(f"{path.name}:{at}: {where}")
        path.write_bytes(whole)
        path.chmod(mode)
    moved = [*_moved(site)]
    missed += [name for name, where in moved if where is None]
    value = (
        f"{tried - len(missed)} of {tried} changed bytes found, {len(unnamed)} of them without the file's name; "
        f"{sum(where is not None for _, where in moved)} of {len(moved)} lists of moved, dropped and replayed lines"
    )
    return Row(
        name="tamper",
        claim="every byte of 3 releases, 6 approvals, 200 entries and 1 head flipped, lines dropped, swapped, replayed",
        value=value,
        bar="all found, with file and line",
        met=not missed and not unnamed,
    )


def _watched(site: Site) -> Iterator[tuple[Path, Callable[[], str | None]]]:
    """Yield each file with what looks at it: where damage is found, None where it is not."""

    def damaged(look: Callable[[], object]) -> str | None:
        try:
            look()
        except IntegrityError as error:
            return error.where
        return None

    def trail() -> str | None:
        found = site.trail.verify().damage
        return found[0].where if found else None

    for version in (1, 2, 3):
        yield site.registry.folder.path("net", version), lambda: damaged(lambda: site.registry.releases("net"))
    for path in sorted(site.approvals.root.rglob("*.json")):
        subject = site.subject(int(path.parent.name))
        yield path, lambda subject=subject: damaged(lambda: site.approvals.read(subject))  # type: ignore[misc]
    yield site.trail.path, trail
    yield site.trail.head_path, trail


def _moved(site: Site) -> Iterator[tuple[str, str | None]]:
    """Drop, swap, replay and cut at every line of the trail."""
    whole = site.trail.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for at in range(len(lines)):
        after = lines[at + 1 : at + 2] or lines[:1]
        for name, changed in (
            ("dropped", lines[:at] + lines[at + 1 :]),
            ("cut", lines[:at]),
            ("replayed", lines[: at + 1] + lines[at:]),
            ("swapped", [*lines[:at], *after, lines[at], *lines[at + 2 :]]),
        ):
            site.trail.path.write_bytes(b"".join(changed))
            found = site.trail.verify().damage
            yield f"line {at + 1} {name}", found[0].where if found else None
    site.trail.path.write_bytes(whole)


def refused(folder: Path) -> Row:
    """Try what governance forbids, and look whether anything was written."""
    site = built(folder, releases=2)
    subject = site.subject(1)

    def approve(member: str, role: str, *, withdraw: bool = False) -> None:
        site.approvals.approve(subject, role=role, key=site.key(member), withdraw=withdraw)

    def check() -> None:
        site.approvals.check(subject, "prod", site.approvals.roles.environments["prod"])

    attempts: list[tuple[str, Callable[[], None], type[SeatrialError]]] = [
        ("unapproved", check, UnapprovedError),
        ("a key of nobody", lambda: approve("eve", "owner"), ConfigError),
        ("an unknown role", lambda: approve("anna", "boss"), ConfigError),
        ("a key of another role", lambda: approve("bob", "owner"), ConfigError),
        ("withdrawing nothing", lambda: approve("anna", "owner", withdraw=True), ConfigError),
    ]
    held = [name for name, act, error in attempts if _refuses(site, act, error)]
    approve("anna", "owner")
    more: list[tuple[str, Callable[[], None], type[SeatrialError]]] = [
        ("k of n short", check, UnapprovedError),
        ("the same key twice", lambda: approve("anna", "owner"), ConfigError),
    ]
    held += [name for name, act, error in more if _refuses(site, act, error)]
    approve("bob", "risk")
    check()
    roles = (site.root / "roles.toml").read_text()
    key = site.approvals.read(subject)[1][0].key
    (site.root / "roles.toml").write_text(roles.replace("schema = 1", f'schema = 1\nrevoked = ["{key}"]'))
    more.append(("a revoked key", check, UnapprovedError))
    held += ["a revoked key"] if _refuses(site, check, UnapprovedError) else []
    (site.root / "roles.toml").write_text(roles)
    approve("bob", "risk", withdraw=True)
    more.append(("withdrawn", check, UnapprovedError))
    held += ["withdrawn"] if _refuses(site, check, UnapprovedError) else []
    number = len(attempts) + len(more)
    return Row(
        name="refused",
        claim="placing without approvals, a key twice, of nobody, of another role, revoked, withdrawn, k of n short",
        value=f"{len(held)} of {number} refused before any write",
        bar="all",
        met=len(held) == number,
    )


def _refuses(site: Site, act: Callable[[], None], error: type[SeatrialError]) -> bool:
    """Return whether it is refused with that error and nothing is written."""
    before = _state(site.home)
    try:
        act()
    except error:
        return _state(site.home) == before
    return False


def _state(home: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(home.rglob("*")) if path.suffix in (".json", ".jsonl")}


def speed(folder: Path) -> Row:
    """Time appending to, verifying and asking a trail of 100,000 entries."""
    trail = TrailFile(folder / "trail")
    trail.append("switched", model="net", actor="anna", details={"shares": []})
    _long(trail)
    seconds = []
    for number in range(200):
        begun = time.perf_counter()
        trail.append("placed", model=f"net-{number % 7}", actor="anna", details={"version": number})
        seconds.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    checked = trail.verify()
    verified = time.perf_counter() - begun
    asked = []
    for model in ("net", "net-3", "unknown"):
        begun = time.perf_counter()
        trail.served(model, datetime.now(UTC))
        asked.append(time.perf_counter() - begun)
    append = median(seconds)
    sound = checked.entries == _ENTRIES + 200 and not checked.damage
    return Row(
        name="speed",
        claim=f"a trail of {_ENTRIES:,} entries: append (durable), verify, served-at (newest, oldest and unknown)",
        value=f"append p50 {append * 1e3:.1f} ms, verify {verified:.2f} s, served-at at most {max(asked) * 1e3:.0f} ms",
        bar="<= 5 ms, <= 2 s, <= 50 ms",
        met=sound and append <= 5e-3 and verified <= 2.0 and max(asked) <= 50e-3,
    )


def _long(trail: TrailFile) -> None:
    """Bring a trail of one entry to 100,000, written at once; what is timed comes afterwards."""
    first = next(trail.entries())
    lines, previous = [line_of(first)], digest_bytes(line_of(first))
    for number in range(2, _ENTRIES + 1):
        details = {"shares": [{"version": number, "digest": f"sha256:{number:064x}", "share": 1.0}]}
        entry = replace(first, seq=number, model=f"net-{number % 7}", details=details, previous=previous)
        lines.append(line_of(entry))
        previous = digest_bytes(lines[-1])
    key, whole = private_key(trail.key_path), b"".join(line + b"\n" for line in lines)
    head = Head(entries=_ENTRIES, size=len(whole), line=lines[-1].decode(), key=fingerprint(key.public_key()))
    signature = b64encode(sign(key, head.signed)).decode()
    trail.path.write_bytes(whole)
    trail.head_path.write_bytes(canonical(head.to_json() | {"signature": signature}))


def kills(folder: Path) -> Row:
    """Kill approvals at random moments; the next command must find a sound trail and no approval half-done."""
    site = built(folder, releases=_KILLS)
    wrong, killed = list[str](), 0
    for version in range(1, _KILLS + 1):
        subject = site.subject(version)
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmarks.release", "--approve", str(folder), str(version)]
        )
        time.sleep(0.15 + randbelow(1000) / 1000 * 0.6)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        try:
            site.approvals.standings(subject, site.approvals.roles.environments["prod"])
            if not site.approvals.read(subject):
                site.approvals.approve(subject, role="owner", key=site.key("anna"))
            if site.trail.verify(repair=True).damage:
                wrong.append(f"{version}: {site.trail.verify().damage[0].what}")
        except SeatrialError as error:
            wrong.append(f"{version}: {error}")
        if len(site.approvals.read(subject)) != 1:
            wrong.append(f"{version}: {len(site.approvals.read(subject))} approvals")
    entries = sum(each.event == "approved" for each in site.trail.entries(model="net"))
    return Row(
        name="kills",
        claim=f"{_KILLS} approvals killed at random moments ({killed} while they ran), the next command run",
        value=f"{len(wrong)} half-done; {entries} approvals in the trail; {'; '.join(wrong[:3])}".rstrip("; "),
        bar="nothing half-done, each once",
        met=not wrong and entries == _KILLS,
    )


ROWS: Rows = {
    "tamper": tamper,
    "refused": refused,
    "speed": speed,
    "kills": kills,
    "acts": acts_killed,
    "exchange": exchange,
    "served": served,
    "rehearsals": rehearsals,
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--approve"]:
        here = Site(root=Path(sys.argv[2]))
        here.approvals.approve(here.subject(int(sys.argv[3])), role="owner", key=here.key("anna"))
        sys.exit(0)
    sys.exit(main("Measure what governance promises.", ROWS))
