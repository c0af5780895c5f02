"""Models that we did not write, from init to a loaded server, through the command line and with no edit by hand.

Each walk is init, build, parity, coverage, place (golden replies in a throwaway server), up, load, down; then
`models_check` holds what was served against onnxruntime and torch themselves. Runs in an environment of its own, which
scripts/benchmark-models makes.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scripts.benchmarks import models_own
from scripts.benchmarks.rows import Row, Rows
from scripts.benchmarks.rows import main as run_rows
from seatrial.optimize.errors import MissingError

_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent
_ZOO = _HERE / "models_zoo.py"
_LIMIT = 1200.0  # seconds of one command
_CLOSE = 1e-3  # what the order of sums may change, of an output's largest number
_KEPT = 0.5  # of an output's variance, or of its classes: less is another model
_BAR = (15, 16)
_WALK = ("init", "build", "parity", "coverage", "place", "up", "check", "load")
_COMMAND = "import sys; sys.argv[0] = 'seatrial'; from seatrial.serve.command import main; sys.exit(main())"


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """Last step that a model reached, the reason where it stopped, and the outside check (`wrong`: unnoticed)."""

    name: str
    done: tuple[str, ...] = ()
    stopped: str = ""
    wrong: str = ""
    told: str = ""
    seconds: float = 0.0

    @property
    def whole(self) -> bool:
        """Return whether it came all the way and is right."""
        return self.done == _WALK and not self.wrong


def shipped(package: str, file: str) -> Callable[[Path], str]:
    """An ONNX file that a package ships."""

    def found(_: Path) -> str:
        spec = find_spec(package)
        folder = next(iter(spec.submodule_search_locations or ()), "") if spec is not None else ""
        path = Path(folder) / file
        if not folder or not path.is_file():
            raise MissingError(
                f"{package} is not installed, or has no {file}", next_step="run scripts/benchmark-models"
            )
        return str(path)

    return found


def factory(name: str) -> Callable[[Path], str]:
    """A factory of the zoo."""
    return lambda _: f"{_ZOO}:{name}"


_OCR = "models/ch_PP-OCRv4_{}_infer.onnx"
MODELS: Mapping[str, Callable[[Path], str]] = {
    **{name: factory(name) for name in ("mobilenet", "shufflenet", "resnet", "convnext", "vit")},
    **{name: factory(name) for name in ("bert", "distilbert", "t5", "wav2vec", "unet", "tagger", "two")},
    "silero-vad": shipped("silero_vad", "data/silero_vad.onnx"),
    "magika": shipped("magika", "models/standard_v3_3/model.onnx"),
    "ocr-detect": shipped("rapidocr_onnxruntime", _OCR.format("det")),
    "ocr-read": shipped("rapidocr_onnxruntime", _OCR.format("rec")),
    "ocr-turn": shipped("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
    "logistic": models_own.logistic,
    "forest": models_own.forest,
    "neurons": models_own.neurons,
}

_FILES = 'sorted(__import__("pathlib").Path(np.__file__).parent.rglob("*.*"))'
_SAMPLES = {  # input and what makes it: the first bytes of files are what magika tells the kinds of
    "magika": (
        "bytes",
        f"np.stack([np.resize(np.frombuffer(each.read_bytes()[:2048], np.uint8), 2048) for each in "
        f'random.choice([each for each in {_FILES} if each.is_file()], rows)]).astype("int32")',
    )
}
_LOAD = ("--rate", "5", "--seconds", "4")
_INPUTS = {"two": ("user=16", "item=24")}  # what nothing in the module tells


class _Walker:
    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.mine = name, folder, folder / name
        self.environment = os.environ | {"SEATRIAL_HOME": str(folder / "home"), "PYTHONPATH": str(_ROOT)}
        self.url = ""
        self.told: dict[str, Any] = {}

    def walk(self, source: str) -> Walk:
        """Every step in turn, until one fails."""
        begun, done, stopped = time.monotonic(), [], ""
        try:
            for step in _WALK:
                if stopped := self._step(step, source):
                    break
                done.append(step)
        finally:
            self._seatrial("down")
        stopped = f"{_WALK[len(done)]}: {stopped}" if stopped else ""
        seconds = time.monotonic() - begun
        return Walk(
            name=self.name,
            done=tuple(done),
            stopped=stopped,
            wrong=self._wrong(),
            told=self._summary(),
            seconds=seconds,
        )

    def _step(self, step: str, source: str) -> str:
        """Do one step; the reason where it failed."""
        repository = ("--repository", str(self.folder / "models"))
        match step:
            case "init":
                given = [word for text in _INPUTS.get(self.name, ()) for word in ("--input", text)]
                return self._seatrial("init", source, "--into", str(self.mine), *given)[1] or self._load_samples()
            case "build":
                return self._seatrial("build", str(self.mine / "recipe.toml"))[1]
            case "parity":
                return self._seatrial("parity", f"{self.name}.fp32", self.name)[1]
            case "coverage":
                return self._seatrial("coverage", self.name)[1]
            case "place":
                deployment = str(self.mine / "deployment.toml")
                return self._seatrial("place", deployment, "--artifact", self.name, *repository)[1]
            case "up":
                ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
                told, why = self._seatrial("up", *repository, *ports, "--json")
                self.url = "" if why else f"127.0.0.1:{json.loads(told)['http_port']}"
                return why
            case "check":
                return self._check(source)
            case _:
                target = (f"http://{self.url}/v2/models/{self.name}", "--recipe", str(self.mine / "recipe.toml"))
                why = self._seatrial("load", *target, *_LOAD)[1]
                return self._seatrial("load", *target, *_LOAD)[1] if why.startswith("exit 4") else why  # a busy machine

    def _load_samples(self) -> str:
        """Replace what the drafted loader makes up where random numbers mean nothing: the one edit that is allowed."""
        name, expression = _SAMPLES.get(self.name, ("", ""))
        lines = (self.mine / "samples.py").read_text().splitlines()
        at = [number for number, line in enumerate(lines) if name and line.strip().startswith(f'"{name}":')]
        for number in at:
            lines[number] = f'        "{name}": {expression},'
        (self.mine / "samples.py").write_text("\n".join(lines) + "\n")
        return f"the drafted loader has no input {name}" if name and not at else ""

    def _check(self, source: str) -> str:
        shown, why = self._seatrial("show", self.name, "--json")
        if why:
            return why
        (self.folder / "shown.json").write_text(shown)
        placed = self.folder / "models" / self.name / "1" / "model.onnx"
        files = json.loads(self._seatrial("show", f"{self.name}.fp32", "--json")[0])["files"]
        blob = next(file["digest"] for file in files if file["path"] == "model.onnx").removeprefix("sha256:")
        floats = self.folder / "home" / "store" / "blobs" / "sha256" / blob
        call = [sys.executable, str(_HERE / "models_check.py"), self.url, self.name, str(self.folder / "shown.json")]
        told, why = self._run([*call, str(placed), str(floats), source, str(self.mine / "samples.py")])
        self.told = {} if why else json.loads(told.splitlines()[-1])
        return why

    def _wrong(self) -> str:
        """Return what the outside check found that no step said."""
        if not self.told:
            return ""
        reasons = []
        if self.told["served"] > _CLOSE:
            reasons.append(f"the server's answers are {self.told['served']:.2g} from onnxruntime's")
        if self.told["shapes"]:
            reasons.append(f"answered {self.told['shapes'][0]}")
        if self.told["reference"] > _CLOSE:
            reasons.append(f"the float reference is {self.told['reference']:.2g} from the source")
        if self.told["kept"] < _KEPT:
            reasons.append(f"what is placed keeps {self.told['kept']:.2f} of the float outputs' variance")
        return "; ".join(reasons)

    def _summary(self) -> str:
        if not self.told:
            return ""
        found, lengths = self.told, ", other lengths too" if self.told["lengths"] else ""
        apart = f"served {found['served']:.1e}, float {found['reference']:.1e}, kept {found['kept']:.3f}"
        return f"{found['requests']} requests{lengths}: {apart}"

    def _seatrial(self, *arguments: str) -> tuple[str, str]:
        return self._run([sys.executable, "-c", _COMMAND, *arguments])

    def _run(self, call: list[str]) -> tuple[str, str]:
        """Return what it printed, and the reason where it failed."""
        try:
            done = subprocess.run(
                call, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=_LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            return "", f"no end after {_LIMIT:.0f} s"
        if done.returncode == 0:
            return done.stdout, ""
        lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
        lines += [line for line in done.stdout.splitlines() if "INVALID" in line]
        said = next((line for line in lines if line.startswith("error:")), lines[-1] if lines else "no word")
        return done.stdout, f"exit {done.returncode}: {said.removeprefix('error: ')[:300]}"


_walked: dict[str, Walk] = {}


def _row(folder: Path, name: str) -> Row:
    walk = _Walker(name, folder).walk(MODELS[name](folder))
    _walked[name] = walk
    told = walk.told if walk.whole else walk.wrong or walk.stopped
    return Row(
        name=name,
        claim=f"{name} from init to load",
        value=f"{len(walk.done)} of {len(_WALK)} steps in {walk.seconds:.0f} s; {told}",
        bar="the whole way, right by onnxruntime's own word",
        met=walk.whole,
    )


def _summary(_: Path) -> Row:
    whole, wrong = (
        sum(map(test, _walked.values())) for test in (lambda walk: walk.whole, lambda walk: bool(walk.wrong))
    )
    least = _BAR[0] / _BAR[1] * len(_walked)
    return Row(
        name="all",
        claim="third-party models the whole way, with no edit by hand",
        value=f"{whole} of {len(_walked)}, {wrong} wrong in silence",
        bar=f"at least {_BAR[0]} of {_BAR[1]}, of {_BAR[1]} models or more, 0 wrong",
        met=len(_walked) >= _BAR[1] and whole >= least and not wrong,
    )


def rows() -> Rows:
    """Return one row for each model, and the summary of those that were measured."""
    return {name: partial(_row, name=name) for name in MODELS} | {"all": _summary}


def main() -> int:
    """Run the rows that the command line names."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--keep", type=Path, help="write every walk there, as JSON")
    own, sys.argv[1:] = parser.parse_known_args()
    code = run_rows("Take third-party models from init to a loaded server.", rows(), parents=(parser,))
    if own.keep is not None:
        own.keep.write_text(json.dumps({name: asdict(walk) for name, walk in _walked.items()}, indent=1))
    return code


if __name__ == "__main__":
    raise SystemExit(main())
