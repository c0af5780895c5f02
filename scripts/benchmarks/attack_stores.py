"""Attack on what is kept: every part of store, cache and registry damaged in every way, and healed as the error says.

The verbs are the command's own, run as a user would run them: what reads the damage must name it and exit with 5, and
the step that it names is then taken, until everything is whole and every artifact is bit for bit what it was.
"""

import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from optimize.artifact import Artifact
from optimize.layout import read_manifest
from optimize.plain import STAGED
from optimize.store import Store
from scripts.benchmarks.forked import HANG, Ran, forked, preload, run, run_all
from scripts.benchmarks.rows import Row, Rows
from scripts.benchmarks.rows import main as run_rows
from tests.models.damages import FILES, FOLDERS, Harm

ROOT = Path(__file__).resolve().parents[2]
NAME = "tiny"
TAGS = (NAME, f"{NAME}.fp32")
STEP = re.compile(r"seatrial (verify --repair|build \S+)")
DAMAGED = 5
LONGEST = 90.0  # seconds after which a verb hangs
KILLS = 30
TORCH = """schema = 1
name = "seed"
[source]
factory = "tiny.py:student"
outputs = ["logits"]
[data]
loader = "tiny.py:samples"
train = 16
calibration = 16
evaluation = 32
[[stages]]
kind = "export"
"""
RECIPE = """schema = 1
name = "tiny"
[source]
onnx = "model.onnx"
[data]
loader = "tiny.py:samples"
calibration = 16
evaluation = 32
[[stages]]
kind = "quantize"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A home with a small build and two releases in it, and a copy of it to damage."""

    whole: Path
    home: Path
    recipe: Path
    contents: Mapping[str, str]

    def renew(self) -> None:
        """Throw the damaged copy away for a new one."""
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self.whole, self.home, symlinks=True)

    def run(self, *words: str, kill_after: float | None = None) -> Ran:
        """A verb in the damaged home."""
        return run(words, self.home, timeout=LONGEST, kill_after=kill_after)


def made(folder: Path) -> Site:
    """Build the model that everything is tried on, and register two releases of it."""
    preload()
    work = folder / "work"
    work.mkdir()
    shutil.copy(ROOT / "tests" / "models" / "tiny.py", work)
    (work / "seed.toml").write_text(TORCH)
    (work / "tiny.toml").write_text(RECIPE)
    _must(run(("build", str(work / "seed.toml")), folder / "seed", timeout=300))
    seed = Store(folder / "seed" / "store")
    shutil.copyfile(seed.path(seed.get("seed"), "model.onnx"), work / "model.onnx")
    whole = folder / "whole"
    _must(run(("build", str(work / "tiny.toml")), whole, timeout=300))
    _must(forked(lambda: _release(whole), {"SEATRIAL_HOME": str(whole)}))
    site = Site(whole=whole, home=folder / "home", recipe=work / "tiny.toml", contents=contents(whole))
    site.renew()
    _must(site.run("verify"))
    return site


def _must(ran: Ran) -> None:
    if ran.code != 0:
        raise RuntimeError(f"the attack cannot begin ({ran.code}): {ran.output[-2000:]}")


def _release(home: Path) -> None:
    """Two releases, as a gate that passed would have registered them."""
    from bench.verdict import Verdict
    from serve.release.registry import Registry

    store = Store(home / "store")
    for tag in TAGS:
        artifact = store.get(tag)
        verdict = Verdict(
            outcome="PASS",
            findings=(),
            reasons=("made for the attack",),
            base={},
            candidate={"digest": artifact.digest},
            pairs=6,
            confidence=0.9,
            budget="sha256:b",
            samples={},
            at="2026",
        )
        Registry(home / "releases").register(NAME, artifact, verdict, run=home / "run")


def contents(home: Path) -> dict[str, str]:
    """What must come out of a home whole: every artifact by its tags with its files' bytes, every release's bytes."""
    store = Store(home / "store")
    found = {}
    for tag in TAGS:
        artifact: Artifact = store.get(tag)
        for link in store.history(artifact):
            files = {file.path: _sha(store.path(link, file.path)) for file in link.files}
            found[f"{tag} {link.digest}"] = repr(sorted(files.items()))
    for path in sorted((home / "releases" / NAME).glob("*.json")):
        found[path.name] = _sha(path)
    return found


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def parts(home: Path) -> Iterator[tuple[str, Path]]:
    """Every kind of file that is kept, by what it is."""
    store = Store(home / "store")
    folder, index = store.folder, store.folder.read_index()
    roles = {}
    for entry in index.entries:
        manifest = read_manifest(folder.read_record(entry.digest))
        roles[entry.digest], roles[manifest.config] = "manifest", "record"
        roles |= {digest: "blob" for _, digest, _ in manifest.layers}
    for digest, role in sorted(roles.items(), key=lambda item: item[1]):
        yield role, folder.blob(digest)
    yield "index", folder.index
    yield "second index", folder.second_index
    yield "oci-layout", folder.layout
    yield "lock", folder.lock
    for room in ("steps", "samples", "recipes"):
        if notes := sorted((folder.cache / room).glob("*.json")):
            yield f"note of {room}", notes[0]
    releases = home / "releases"
    yield "registry's lock", releases / NAME / ".lock"
    for path in sorted((releases / NAME).glob("*.json")):
        yield "release", path
    for path in sorted((releases / ".copies" / NAME).glob("*.json")):
        yield "release's copy", path


def one_each(found: Iterator[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """One part of each kind, drawn anew each time; every blob."""
    kinds: dict[str, list[tuple[str, Path]]] = {}
    for role, path in found:
        kinds.setdefault(role, []).append((role, path))
    return [each for role, all_ in kinds.items() for each in (all_ if role == "blob" else [random.choice(all_)])]


def places(home: Path) -> Iterator[tuple[str, Path]]:
    """Every folder that is kept."""
    for name in ("store/blobs", "store/blobs/sha256", "cache", "cache/steps", "releases/.copies", f"releases/{NAME}"):
        yield f"folder {name}", home / name
    yield "folder store", home / "store"


@dataclass(slots=True)
class Tally:
    """What became of the attacks."""

    tried: int = 0
    found: int = 0
    harmless: int = 0
    healed: int = 0
    traced: int = 0
    hung: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def watch(self, ran: Ran, label: str) -> Ran:
        """Count what no verb may do."""
        if ran.traced or ran.code == HANG:
            self.traced += ran.traced
            self.hung += ran.code == HANG
            self.failures.append(f"{label}: {'traceback' if ran.traced else 'hang'}: {ran.output[-300:]}")
        return ran


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
    elif (seen.code == 0 and codes <= {0} and "note" in label) or "lock" in label or harm is FILES["deleted"]:
        tally.harmless += 1
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
    if (label.startswith(("folder releases", "folder store")) and "deleted" in label) or "emptied" in label:
        lost = set()  # what is gone without a trace is not claimed to come back
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
    _report(tally)
    return Row(
        name="damage",
        claim="each blob, record, index, note, lock and folder damaged in every way: found, healed by the named step",
        value=f"{tally.tried} attacks: {tally.found} found, {tally.harmless} harmless, {tally.healed} healed bit for "
        f"bit ({', '.join(f'{count}x {step}' for step, count in tally.steps.most_common())}); "
        f"{tally.traced} tracebacks, {tally.hung} hangs",
        bar="all found or harmless, all healed, 0 tracebacks, 0 hangs",
        met=tally.found + tally.harmless == tally.healed == tally.tried and not tally.failures,
    )


def _report(tally: Tally) -> None:
    for line in tally.failures[:20]:
        print("  !!", line, flush=True)


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
    _report(tally)
    return Row(
        name="killed",
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
        print("  !!", line, flush=True)
    return Row(
        name="together",
        claim="two builds and a repair at once",
        value=f"{rounds - len(wrong)} of {rounds} rounds: all three end well, the store is whole",
        bar="all",
        met=not wrong,
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
    _report(tally)
    return Row(
        name="full disk",
        claim="builds on a full disk: exit 4 and a next step, nothing half-written; with space all works",
        value=f"{tally.healed} of {tally.tried} sizes (exit codes {dict(ended)}); {tally.traced} tracebacks",
        bar="all, 0 tracebacks",
        met=tally.healed == tally.tried and not tally.failures,
    )


ROWS: Rows = {"damage": damage, "killed": killed, "together": together, "full": full}


def main() -> int:
    """Run the rows that the command line names."""
    return run_rows("Damage what is kept, and heal it as the errors say.", ROWS)


if __name__ == "__main__":
    raise SystemExit(main())
