"""A stand-in for TensorRT that has exactly the names of one version's binding wheel, and writes down what is called.

The lists under ``tests/golden`` hold, per class: enum members, properties (``=`` where they can be set) and methods
with the least and the most arguments and the type that they return, as the wheel's own signatures give them: they were
read by importing each wheel's extension module beside empty libraries of the names that it links, and listing its
classes. A name, an assignment or an argument count that the version does not have raises; nothing is built.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent.parent / "golden"
VERSIONS = tuple(sorted(path.stem.removeprefix("tensorrt-") for path in GOLDEN.glob("tensorrt-*.txt")))
_LINE = re.compile(
    r"(?P<owner>\w+)(\.(?P<name>\w+))?(\((?P<low>\d+)\.\.(?P<high>\d+)\))?(?P<rw>=)?( -> (?P<type>.*))?$"
)
_SPELLED = {"nvonnxparser::IParserError": "ParserError"}  # the wheels' signatures spell one class as in C++
_PLAIN: Mapping[str, Any] = {"bool": True, "None": None, "str": '{"Layers": []}', "int": 0}


@cache
def _names(version: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Classes by name and their members by ``Class.name``."""
    lines = (GOLDEN / f"tensorrt-{version}.txt").read_text().splitlines()
    found = [match.groupdict() for line in lines if (match := _LINE.match(line))]
    assert len(found) == len(lines)
    members = {f"{entry['owner']}.{entry['name']}": entry for entry in found if entry["name"]}
    return {entry["owner"]: entry for entry in found if not entry["name"]}, members


@dataclass
class Recorder:
    """The module: classes as attributes, `calls` as (``Class.name``, arguments), `answers` to override what is said."""

    version: str
    answers: Mapping[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.classes, self.members = _names(self.version)
        self.__version__ = self.version

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in vars(self).get("classes", {}):
            raise AttributeError(f"tensorrt {self.version} has no {name}")
        return OutputAllocator if name == "IOutputAllocator" else Class(self, name)

    def made(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of every call of that name."""
        return [arguments for called, arguments in self.calls if called == name]

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a method by its full name."""
        return self.called(name, self.members[name], arguments)

    def called(self, name: str, entry: Mapping[str, Any], arguments: tuple[Any, ...]) -> Any:
        """Write a call down and answer with something of the type that it returns."""
        if entry["low"] is None or not int(entry["low"]) <= len(arguments) <= int(entry["high"]):
            raise TypeError(f"tensorrt {self.version}: {name} does not take {len(arguments)} arguments")
        self.calls.append((name, arguments))
        if name in self.answers:
            answer = self.answers[name]
            return answer(*arguments) if callable(answer) else answer
        kind = _SPELLED.get(entry["type"], entry["type"])
        return Thing(self, kind) if kind in self.classes else _PLAIN[kind]


@dataclass(frozen=True)
class Member:
    """An enum's member."""

    name: str

    def __int__(self) -> int:
        return 1


class OutputAllocator:
    """The class that users derive from."""


class Class:
    """A class: called, it gives a thing; its attributes are enum members."""

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder, self._name = recorder, name

    def __call__(self, *arguments: Any) -> "Thing":
        self._recorder.called(self._name, self._recorder.classes[self._name] | {"type": self._name}, arguments)
        return Thing(self._recorder, self._name)

    def __getattr__(self, name: str) -> Member:
        if f"{self._name}.{name}" not in self._recorder.members:
            raise AttributeError(f"tensorrt {self._recorder.version} has no {self._name}.{name}")
        return Member(f"{self._name}.{name}")


class Thing:
    """An object of a class."""

    def __init__(self, recorder: Recorder, kind: str) -> None:
        vars(self).update(_recorder=recorder, _kind=kind)

    def __bytes__(self) -> bytes:
        return f"{self._kind} of nothing".encode()

    def __getattr__(self, name: str) -> Any:
        recorder, full = self._recorder, f"{self._kind}.{name}"
        if full not in recorder.members:
            raise AttributeError(f"tensorrt {recorder.version} has no {full}")
        entry = recorder.members[full]
        if entry["low"] is None:
            return recorder.answers.get(full, 0)
        return partial(recorder.call, full)

    def __setattr__(self, name: str, value: Any) -> None:
        full = f"{self._kind}.{name}"
        if not self._recorder.members.get(full, {}).get("rw"):
            raise AttributeError(f"tensorrt {self._recorder.version} cannot set {full}")
        self._recorder.calls.append((full, (value,)))
