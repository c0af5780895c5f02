"""Attack on what is kept: every part of store, cache and registry damaged in every way, and healed as the error says.

The verbs are the command's own, run as a user would run them: what reads the damage must name it and exit with 5, and
the step that it names is then taken, until everything is whole and every artifact is bit for bit what it was.
"""

import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from scripts.benchmarks.attack_site import LONGEST, NAME, Site, Tally, contents, made, one_each, parts, places, release
from scripts.benchmarks.forked import Ran, forked, run, run_all
from scripts.benchmarks.rows import Row, Rows
from scripts.benchmarks.rows import main as run_rows
from seatrial.optimize.artifact import Artifact, Provenance
from seatrial.optimize.plain import STAGED
from tests.support.damages import FILES, FOLDERS, Harm

STEP = re.compile(r"seatrial (verify --repair|build \S+)")
DAMAGED = 5
KILLS = 30
REGISTRATIONS = 60


def attacked(site: Site, tally: Tally, label: str, path: Path, harm: Harm) -> None:
    """Damage one part, read it with every reading verb, follow the named steps, and hold what comes out."""
    site.renew()
    target = site.home / path.relative_to(site.whole)
    with suppress(OSError):
        target.chmod(0o755 if target.is_dir() else 0o644)
    harm(target)
    tally.tried += 1
    if tally.tried % 20 == 0:
        print(f"  {tally.tried} attacks, last {label}: {len(tally.failures)} failures", file=sys.stderr, flush=True)
    verbs = (("verify",), ("show", NAME), ("history", NAME), ("verify", NAME), ("plan", str(site.recipe)))
    seen, *others = run_all(verbs, site.home, timeout=LONGEST)
    for words, ran in zip(verbs, (seen, *others), strict=True):
        tally.watch(ran, f"{label}, {words[0]}")
    codes = {ran.code for ran in others}
    if seen.code == DAMAGED and str(target) in seen.output:
        tally.found += 1
    elif seen.code == 0 and "second copy of" in seen.output:
        tally.found += 1  # of the newest release: a killed registration leaves it so, which is no damage
    elif seen.code == 0 and codes == {0} and ("note" in label or "lock" in label):
        tally.harmless += 1  # a note is a cache, of which an earlier version's cannot be checked; a lock holds nothing
    elif seen.code == 0 and codes <= {0, 2} and label.startswith("folder"):
        tally.harmless += 1  # a store, a cache or a registry that is not there is an empty one
    else:
        tally.failures.append(f"{label}: verify said {seen.code}, others {codes}: {seen.output[-300:]}")
    if codes - {0, 2, DAMAGED}:
        tally.failures.append(f"{label}: exit codes {codes}")
    _heal(site, tally, label, seen)


def _heal(site: Site, tally: Tally, label: str, seen: Ran) -> None:
    for _ in range(4):
        if seen.code == 0:
            break
        if (step := STEP.search(_next(seen.output))) is None:
            tally.failures.append(f"{label}: no step in {seen.output[-300:]}")
            return
        tally.steps[step[1].partition(" /")[0]] += 1
        taken, seen = run_all((tuple(step[1].split()), ("verify",)), site.home, timeout=LONGEST)
        tally.watch(taken, f"{label}, {step[1]}")
        tally.watch(seen, f"{label}, verify after {step[1]}")
    if label.startswith(("folder", "note")):  # they may be gone without a word, and are made again
        built, seen = run_all((("build", str(site.recipe)), ("verify",)), site.home, timeout=LONGEST)
        tally.watch(built, f"{label}, build at the end")
    last = seen
    try:
        now = contents(site.home)
    except Exception as error:  # noqa: BLE001  whatever it is, it did not heal
        now = {"error": repr(error)}
    lost = {key for key, value in site.contents.items() if now.get(key) != value}
    if last.code != 0 or lost:
        tally.failures.append(f"{label}: not healed, {last.code}, lost {lost}: {last.output[-300:]}")
    else:
        tally.healed += 1


def _next(output: str) -> str:
    return " ".join(line for line in output.splitlines() if line.strip().startswith("next:"))


def damage(folder: Path) -> Row:
    """Every part, damaged in every way."""
    site, tally = made(folder), Tally()
    for role, path in one_each(parts(site.whole)):
        for name, harm in FILES.items():
            if name == "unreadable" and os.geteuid() == 0:
                continue  # root reads what it likes
            attacked(site, tally, f"{role} {name}", path, harm)
    for role, path in places(site.whole):
        for name, harm in FOLDERS.items():
            attacked(site, tally, f"{role} {name}", path, harm)
    tally.report()
    return Row(
        name="stores-damage",
        claim="each blob, record, index, note, lock and folder damaged in every way: found, healed by the named step",
        value=f"{tally.tried} attacks: {tally.found} found, {tally.harmless} harmless, {tally.healed} healed bit for "
        f"bit ({', '.join(f'{count}x {step}' for step, count in tally.steps.most_common())}); "
        f"{tally.traced} tracebacks, {tally.hung} hangs",
        bar="all found or harmless, all healed, 0 tracebacks, 0 hangs",
        met=tally.found + tally.harmless == tally.healed == tally.tried and not tally.failures,
    )


def killed(folder: Path) -> Row:
    """kill -9 at random moments of build and repair: whole after it, nothing left over, all goes on."""
    site, tally = made(folder), Tally()
    random_ = random.Random(int.from_bytes(os.urandom(4), "big"))
    left = 0
    verbs = {"build": ("build", str(site.recipe)), "repair": ("verify", "--repair")}
    longest = {}
    for verb, words in verbs.items():
        _prepare(site, verb)
        start = time.monotonic()
        tally.watch(site.run(*words), verb)
        longest[verb] = time.monotonic() - start
    for number in range(KILLS):
        verb = tuple(verbs)[number % 2]
        _prepare(site, verb)
        site.run(*verbs[verb], kill_after=random_.uniform(0.005, longest[verb]))
        tally.tried += 1
        repair = ("--repair",) if verb == "repair" else ()
        after = tally.watch(site.run("verify", *repair), f"{verb}, verify")
        if after.code != 0:
            tally.failures.append(f"{verb}: verify says {after.code} after a kill: {after.output[-300:]}")
        again = tally.watch(site.run("build", str(site.recipe)), f"{verb}, again")
        last = site.run("verify")
        rest = [path for path in site.home.rglob(f"{STAGED}*") if "quarantine" not in str(path)]
        left += len(rest)
        if again.code == last.code == 0 and contents(site.home) == site.contents and not rest:
            tally.healed += 1
        else:
            tally.failures.append(f"{verb}: {again.code}, {last.code}, left {rest}: {again.output[-200:]}")
    tally.report()
    return Row(
        name="stores-killed",
        claim="kill -9 at random moments of build and verify --repair: whole after it, the next command works",
        value=f"{tally.tried} kills: {tally.healed} whole and the same bytes after the next command; "
        f"{left} staged files left, {tally.traced} tracebacks",
        bar="all, 0 left, 0 tracebacks",
        met=tally.healed == tally.tried and left == 0 and not tally.failures,
    )


def _prepare(site: Site, verb: str) -> None:
    """A home in which the verb has something to do: an empty store, or damage."""
    site.renew()
    if verb == "build":
        for name in ("store", "cache/steps", "cache/recipes"):
            shutil.rmtree(site.home / name)
        return
    for role, path in parts(site.whole):
        if role in ("manifest", "index", "release"):
            FILES["flipped"](site.home / path.relative_to(site.whole))


def together(folder: Path) -> Row:
    """Two builds and a repair at once in one empty home, again and again."""
    site, wrong = made(folder), []
    rounds = 5
    for _ in range(rounds):
        site.renew()
        shutil.rmtree(site.home / "store")
        shutil.rmtree(site.home / "cache")
        children = []
        for words in (("build", str(site.recipe)), ("build", str(site.recipe)), ("verify", "--repair")):
            process = os.fork()
            if process == 0:
                os._exit(min(abs(run(words, site.home, timeout=LONGEST).code), 255))
            children.append(process)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        last = site.run("verify")
        if codes != [0, 0, 0] or last.code or contents(site.home) != site.contents:
            wrong.append(f"{codes}, {last.code}: {last.output[-300:]}")
    for line in wrong:
        print("  !!", line, file=sys.stderr, flush=True)
    return Row(
        name="stores-together",
        claim="two builds and a repair at once",
        value=f"{rounds - len(wrong)} of {rounds} rounds: all three end well, the store is whole",
        bar="all",
        met=not wrong,
    )


def registered(folder: Path) -> Row:
    """kill -9 at random moments of registrations, and four registrars at once."""
    from seatrial.serve.release.registry import Registry
    from seatrial.serve.release.registry_check import inspect_releases

    random_ = random.Random(int.from_bytes(os.urandom(4), "big"))
    wrong = []
    for number in range(REGISTRATIONS):

        def registering(first: int = number * 10_000) -> None:
            for each in range(2000):
                release(folder / "releases", "net", _artifact(first + each), folder)

        forked(registering, {}, kill_after=random_.uniform(0.02, 0.25))
        try:
            Registry(folder / "releases").releases("net")
        except Exception as error:  # noqa: BLE001  whatever it is, it is what the user would see
            wrong.append(repr(error))
    release(folder / "releases", "net", _artifact(10**7), folder)
    count = len(Registry(folder / "releases").releases("net"))
    left = [path.name for path in (folder / "releases").rglob(f"{STAGED}*")]
    copies = len(list((folder / "releases" / ".copies" / "net").iterdir()))

    def four(first: int) -> None:
        for each in range(25):
            release(folder / "releases", "two", _artifact(10**8 + first + each), folder)

    children = []
    for first in (0, 1000, 2000, 3000):
        if (process := os.fork()) == 0:
            os._exit(abs(forked(partial(four, first), {}).code) % 256)
        children.append(process)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    together_ = len(Registry(folder / "releases").releases("two"))
    found = inspect_releases(folder, False)
    for line in (*wrong, *map(str, found.damage)):
        print("  !!", line, file=sys.stderr, flush=True)
    return Row(
        name="stores-registered",
        claim="kill -9 at random moments of registrations; four registrars at once",
        value=f"{REGISTRATIONS} kills: {len(wrong)} broken chains, {count} releases, {copies} second copies, "
        f"{len(left)} half-made files after the next; 4 x 25 at once: {together_} releases, exit codes {codes}",
        bar="0 broken, a copy each, 0 half-made, 100",
        met=not wrong and not left and copies == count and together_ == 100 and not any(codes) and not found.damage,
    )


def _artifact(number: int) -> Artifact:
    made_by = Provenance(stage="import", parent=None, config={}, recipe="", samples=None, seed=0, environment={}, at="")
    return Artifact(
        name="net", format="onnx", files=(), inputs=(), outputs=(), requires={"number": number}, made_by=made_by
    )


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A filesystem of that size; needs the right to mount."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True, timeout=20)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, timeout=20)


def full(folder: Path) -> Row:
    """A disk that is full at every stage of a build, and read-only homes."""
    site, tally = made(folder), Tally()
    sizes = ("8k", "24k", "40k", "64k", "96k", "128k", "160k")
    ended: Counter[int] = Counter()
    for size in sizes:
        with small_disk(folder / "disk", size) as disk:
            home = disk / "home"
            first = tally.watch(run(("build", str(site.recipe)), home, timeout=LONGEST), f"build on {size}")
            ended[first.code] += 1
            tally.tried += 1
            staged = list(home.rglob(f"{STAGED}*")) if home.exists() else []
            remount = ["mount", "-o", "remount,size=64m", str(disk)]
            subprocess.run(remount, check=True, timeout=20)
            check = tally.watch(run(("verify",), home, timeout=LONGEST), f"verify after {size}")
            again = tally.watch(run(("build", str(site.recipe)), home, timeout=LONGEST), f"again on {size}")
            last = run(("verify",), home, timeout=LONGEST)
            clear = first.code in (0, 4) and (first.code == 0 or "next:" in first.output)
            if clear and not staged and check.code == again.code == last.code == 0:
                tally.healed += 1
            else:
                tally.failures.append(
                    f"{size}: {first.code}, {staged}, {check.code}, {again.code}, {last.code}: {first.output[-400:]}"
                )
    tally.report()
    return Row(
        name="stores-full",
        claim="builds on a full disk: exit 4 and a next step, nothing half-written; with space all works",
        value=f"{tally.healed} of {tally.tried} sizes (exit codes {dict(ended)}); {tally.traced} tracebacks",
        bar="all, 0 tracebacks",
        met=tally.healed == tally.tried and not tally.failures,
    )


ROWS: Rows = {
    "stores-damage": damage,
    "stores-killed": killed,
    "stores-together": together,
    "stores-registered": registered,
    "stores-full": full,
}


def main() -> int:
    """Run the rows that the command line names."""
    return run_rows("Damage stored files, and repair them by the steps that the errors name.", ROWS)


if __name__ == "__main__":
    raise SystemExit(main())
