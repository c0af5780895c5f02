"""A home to attack: a small build and two releases of it, every part of it by name, and a tally of what verbs did."""

import hashlib
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.benchmarks.forked import HANG, Ran, forked, preload, run
from seatrial.optimize.artifact import Artifact
from seatrial.optimize.layout import read_manifest
from seatrial.optimize.store import Store

ROOT = Path(__file__).resolve().parents[2]
NAME = "tiny"
TAGS = (NAME, f"{NAME}.fp32")
LONGEST = 90.0  # seconds after which a verb hangs
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
    shutil.copy(ROOT / "tests" / "support" / "tiny.py", work)
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
    store = Store(home / "store")
    for tag in TAGS:
        release(home / "releases", NAME, store.get(tag), home / "run")


def contents(home: Path) -> dict[str, str]:
    """Return the contents of a home that must stay intact: artifacts by tag with their bytes, releases with theirs."""
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
    """Counts of outcomes of the attacks."""

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

    def report(self) -> None:
        """Print what went wrong, the first twenty."""
        for line in self.failures[:20]:
            print("  !!", line, file=sys.stderr, flush=True)


def release(registry: Path, name: str, artifact: Artifact, run_: Path) -> None:
    """Register a release as a gate that passed would."""
    from seatrial.bench.verdict import EvaluationSet, Judged, Verdict
    from seatrial.serve.release.registry import Registry

    verdict = Verdict(
        outcome="PASS",
        findings=(),
        reasons=("made for the attack",),
        base=Judged(name="base", digest="sha256:a"),
        candidate=Judged(name=name, digest=artifact.digest),
        pairs=6,
        confidence=0.9,
        budget="sha256:b",
        samples=EvaluationSet(count=0, digest=""),
        at="2026",
    )
    Registry(registry).register(name, artifact, verdict, run=run_)
