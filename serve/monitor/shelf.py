"""What a monitor keeps on disk: the baseline of a model, and how far its traffic has been judged.

Each is one file of arrays with a JSON head, staged, fsynced and renamed into place: a kill leaves the old one or the
new.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from seatrial.optimize.artifact import digest_file
from seatrial.optimize.errors import IntegrityError, MissingError
from seatrial.optimize.plain import write_atomically
from seatrial.optimize.reading import parse_json, read_bytes

from .alarms import Watched
from .answering import Reference
from .baseline import Baseline
from .detect import State
from .learning import Learned
from .quantities import Quantity
from .sketch import Categories, Numbers, Sketch
from .window import Window

T = TypeVar("T")
SCHEMA = 1
LEARN = "learn it again: seatrial learn PLAN FILE"
_HEAD = "head"
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """The folder of one model's monitor."""

    folder: Path

    def keep_baseline(self, learned: Learned, plan: str) -> None:
        """Write what was learned by the plan of that digest; how far traffic was judged is forgotten."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._baseline, _packed(*_of_learned(learned, plan)))
        self._state.unlink(missing_ok=True)

    def baseline(self) -> tuple[Learned, str]:
        """Return what was learned, and the digest of the plan.

        Raises:
            MissingError: nothing was learned yet.
            IntegrityError: the file is damaged.
        """
        try:
            content = read_bytes(self._baseline, next_step=LEARN)
        except FileNotFoundError as error:
            raise MissingError("no baseline was learned", where=str(self._baseline), next_step=LEARN[10:]) from error
        return _read(self._baseline, content, _learned)

    def keep_state(self, state: State, watched: Watched, waiting: tuple[Window, ...]) -> None:
        """Write how far the traffic was judged, with the windows that wait for more rows."""
        arrays = {name: getattr(state, name) for name in ("up", "down", "common", "error")}
        arrays |= {f"waiting{at}": each.sums for at, each in enumerate(waiting)}
        rest = [{name: getattr(each, name) for name in ("start", "seconds", "rows", "faults")} for each in waiting]
        head: dict[str, Any] = {"at": state.at, "since": state.since, "watched": watched.to_json(), "waiting": rest}
        head |= {"baseline": digest_file(self._baseline)}
        write_atomically(self._state, _packed(head, arrays))

    def state(self) -> tuple[State, Watched, tuple[Window, ...]] | None:
        """Return how far the traffic was judged by this baseline; None before the first window.

        Raises:
            IntegrityError: the file is damaged.
        """
        try:
            content = read_bytes(self._state, next_step=LEARN)
        except FileNotFoundError:
            return None
        made, baseline = _read(self._state, content, _state)
        return made if baseline == digest_file(self._baseline) else None  # a kill came between the two files

    def keep_reference(self, reference: Reference | None) -> None:
        """Write the labelled rows of the reference, or remove those of before."""
        if reference is None:
            self._labelled.unlink(missing_ok=True)
            return
        arrays = {f"column{at}": column for at, column in enumerate(reference.columns.values())}
        write_atomically(self._labelled, _packed({"names": list(reference.columns), "said": reference.said}, arrays))

    def reference(self) -> Reference | None:
        """Return the labelled rows of the reference; None where it had too few.

        Raises:
            IntegrityError: the file is damaged.
        """
        try:
            content = read_bytes(self._labelled, next_step=LEARN)
        except FileNotFoundError:
            return None
        return _read(self._labelled, content, _reference)

    @property
    def _labelled(self) -> Path:
        return self.folder / "labelled.npz"

    @property
    def _baseline(self) -> Path:
        return self.folder / "baseline.npz"

    @property
    def _state(self) -> Path:
        return self.folder / "state.npz"


def _packed(head: Mapping[str, Any], arrays: Arrays) -> bytes:
    """Return arrays and a JSON head as one file."""
    text = json.dumps({"schema": SCHEMA, **head}, allow_nan=False).encode()
    stream = io.BytesIO()
    np.savez_compressed(stream, **{_HEAD: np.frombuffer(text, np.uint8)}, **arrays)
    return stream.getvalue()


def _read(path: Path, content: bytes, make: Callable[[dict[str, Any], dict[str, NDArray[Any]]], T]) -> T:
    """Return what `make` makes of head and arrays; whatever is wrong with them is damage."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        head = parse_json(arrays.pop(_HEAD).tobytes(), where=str(path), next_step=LEARN)
        if head.pop("schema") != SCHEMA:
            raise IntegrityError("it is of another version", where=str(path), next_step=LEARN)
        return make(head, arrays)
    except (
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        OSError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        raise IntegrityError(f"cannot be read: {error}", where=str(path), next_step=LEARN) from error


def _of_learned(learned: Learned, plan: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    sketch, baseline = learned.sketch, learned.baseline
    values = {each.name: getattr(baseline, each.name) for each in fields(baseline)}
    quantities = values.pop("quantities")
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    head: dict[str, Any] = {
        "plan": plan,
        "baseline": {name: value for name, value in values.items() if name not in arrays},
        "quantities": [[each.feature, each.what, each.value] for each in quantities],
        "numbers": [[each.name, each.low, each.high] for each in sketch.numbers],
        "categories": [[each.name, each.top, sorted(each.known)] for each in sketch.categories],
        "replayed": learned.replayed,
        "doubts": learned.doubts,
    }
    arrays |= {"usual": learned.usual, "sketch_pairs": sketch.pairs}
    for at, each in enumerate(sketch.numbers):
        arrays |= {f"edges{at}": each.edges, f"scores{at}": each.scores}
    return head, arrays


def _learned(head: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> tuple[Learned, str]:
    numbers = tuple(
        Numbers(name=name, low=low, high=high, edges=arrays.pop(f"edges{at}"), scores=arrays.pop(f"scores{at}"))
        for at, (name, low, high) in enumerate(head["numbers"])
    )
    categories = tuple(
        Categories(name=name, top=tuple(top), known=frozenset(known)) for name, top, known in head["categories"]
    )
    usual, pairs = arrays.pop("usual"), arrays.pop("sketch_pairs")
    quantities = tuple(Quantity(feature=name, what=what, value=value) for name, what, value in head["quantities"])
    rest: dict[str, Any] = head["baseline"] | {"common": tuple(head["baseline"]["common"])} | arrays
    baseline = Baseline(quantities=quantities, **rest)
    if {each.shape[-1] for each in (baseline.phi, baseline.spread, baseline.weight, baseline.season)} != {
        len(quantities)
    }:
        raise ValueError("arrays of different lengths")
    learned = Learned(
        sketch=Sketch(numbers=numbers, categories=categories, pairs=pairs),
        baseline=baseline,
        usual=usual,
        replayed=tuple((float(time), str(name)) for time, name in head["replayed"]),
        doubts=tuple(map(str, head["doubts"])),
    )
    return learned, str(head["plan"])


def _reference(head: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Reference:
    columns = {str(name): arrays[f"column{at}"] for at, name in enumerate(head["names"])}
    if len({each.shape for each in columns.values()}) != 1:
        raise ValueError("arrays of different lengths")
    return Reference(columns=columns, said=str(head["said"]))


def _state(
    head: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> tuple[tuple[State, Watched, tuple[Window, ...]], str]:
    waiting = tuple(
        Window(
            start=float(each["start"]),
            seconds=float(each["seconds"]),
            rows=int(each["rows"]),
            sums=arrays.pop(f"waiting{at}"),
            faults=tuple(each["faults"]),
        )
        for at, each in enumerate(head["waiting"])
    )
    state = State(at=head["at"], since=int(head["since"]), **arrays)
    return (state, Watched.from_json(head["watched"], where="state"), waiting), str(head["baseline"])
