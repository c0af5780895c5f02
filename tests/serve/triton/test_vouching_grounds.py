"""What the check before a load rests on: the table of shipped code, the protocol's fields, and who calls it."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import pytest

from seatrial.optimize import plain
from seatrial.optimize.errors import IntegrityError, SeatrialError
from seatrial.optimize.plain import digest_settled, read_plain
from seatrial.optimize.store import Store
from seatrial.serve.kubernetes.source import read_source
from seatrial.serve.security.rules import RULES
from seatrial.serve.triton.backend import PLACED_CODE, releases
from seatrial.serve.triton.plain import RECORD_BYTES
from seatrial.serve.triton.repository import configured, journal
from seatrial.serve.triton.repository.doubt import NEXT
from seatrial.serve.triton.repository.vouching import check
from seatrial.serve.triton.running import wheel
from seatrial.serve.triton.supervision.switch import heal, recover, switch
from seatrial.serve.triton.supervision.uncaching import switch_off
from tests.support.placed import EVIL, digest, instead, planted, put

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("placed")
    put(folder)
    return folder


@pytest.fixture
def models(placed: Path, tmp_path: Path) -> Path:
    shutil.copytree(placed / "models", tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def store(placed: Path) -> Store:
    return Store(placed / "store")


def test_a_version_of_an_earlier_release_serves_on_and_releases_are_not_mixed(
    models: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = models / "python" / "1"
    (version / "model.py").write_text("earlier\n")
    (version / "python_cache.py").write_text("earlier as well\n")
    earlier = releases.current() | {name: digest(version / name) for name in ("model.py", "python_cache.py")}
    with pytest.raises(IntegrityError, match="not code of any release"):
        check(models, ("python",), store)
    for module in ("seatrial.serve.triton.backend.releases", "seatrial.serve.triton.repository.contents"):
        monkeypatch.setattr(import_module(module), "RELEASES", (earlier, releases.current()))
    check(models, ("python",), store)
    shutil.copyfile(PLACED_CODE["model.py"], version / "model.py")
    with pytest.raises(IntegrityError, match="from several releases"):
        check(models, ("python",), store)


def test_the_table_of_releases_ends_with_the_code_of_this_one() -> None:
    assert dict(releases.RELEASES[-1]) == releases.current()
    assert {name for release in releases.RELEASES for name in release} == releases.NAMES


def test_no_code_that_was_ever_shipped_is_missing_from_the_table() -> None:
    """The history of the repository, as far as this checkout has it."""

    def git(*words: str) -> bytes:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True).stdout

    folders = ("serve/triton", "serve/triton/flavour", "serve/triton/backend")
    try:
        commits = git("log", "--format=%H", "HEAD", "--", *(f"{each}/python_*.py" for each in folders)).decode().split()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git, or no checkout of it")
    for commit in commits:
        code: dict[str, str] = {}
        for line in git("ls-tree", "-r", commit, "--", *folders).decode().splitlines():
            blob, path = line.split()[2], Path(line.split("\t")[1])
            if str(path.parent) in folders and path.match("python_*.py"):
                data = git("cat-file", "blob", blob)
                name = "model.py" if path.name == "python_model.py" else path.name
                code[name] = f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert not code or code in releases.RELEASES, f"the code of {commit[:12]} is not in the table"


def text_fields(message: object, path: str = "", seen: tuple[str, ...] = ()) -> set[str]:
    """Every text field of a protocol message, by its dotted path."""
    found: set[str] = set()
    for field in message.fields:  # type: ignore[attr-defined]
        if field.type == field.TYPE_STRING or field.type == field.TYPE_BYTES:
            found.add(path + field.name)
        elif field.message_type is not None and field.message_type.name not in seen:
            found |= text_fields(field.message_type, f"{path}{field.name}.", (*seen, field.message_type.name))
    return found


def test_each_text_field_of_the_protocol_is_known_to_lead_somewhere_or_nowhere() -> None:
    protocol = import_module("tritonclient.grpc.model_config_pb2")
    leading = configured.FILES | configured.LIBRARIES | configured.NAMES | configured.PARAMETERS
    unknown = {
        field
        for field in text_fields(protocol.ModelConfig.DESCRIPTOR)
        if field not in leading and not configured.HARMLESS.fullmatch(field)
    }
    assert not unknown
    message = protocol.ModelConfig(backend="b")
    message.model_warmup.add().inputs["x"].input_data_file = "f"
    message.parameters["k"].string_value = "v"
    message.cc_model_filenames["8.6"] = "c"
    assert set(configured.fields(message)) == {
        ("backend", "", "b"),
        ("model_warmup.inputs.value.input_data_file", "x", "f"),
        ("parameters.value.string_value", "k", "v"),
        ("cc_model_filenames.value", "8.6", "c"),
    }


def test_each_doubt_has_a_next_step_and_a_rule_of_the_checklist() -> None:
    assert NEXT.keys() <= RULES.keys()


def test_a_file_is_hashed_once_while_it_stays_and_again_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, original = tmp_path / "f", hashlib.file_digest
    hashed: list[object] = []

    def counted(stream: Any, name: str) -> Any:
        hashed.append(stream)
        return original(stream, name)

    path.write_bytes(b"one")
    monkeypatch.setattr(hashlib, "file_digest", counted)
    assert digest_settled(path) == digest_settled(path) == digest(path)
    assert len(hashed) == 2, "a file changed just now may change again within the resolution of its times"
    monkeypatch.setattr(plain, "_SETTLED_NS", -(10**18))
    assert digest_settled(path) == digest_settled(path) == digest(path)
    assert len(hashed) == 3
    times = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest_settled(path) == digest(path)


def test_large_and_endless_files_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(200 << 20)
    with pytest.raises(OSError, match="larger than"):
        read_plain(tmp_path / "large", RECORD_BYTES)
    with pytest.raises(OSError, match="a device is in the place"):
        read_plain(Path("/dev/zero"), 10)


class Loading:
    """A server's control that counts what it is asked to load."""

    foreign: tuple[str, ...] | None = ()
    url = "nowhere"

    def __init__(self, ready: frozenset[int]) -> None:
        self.ready, self.loads = ready, 0

    def ready_versions(self, name: str) -> frozenset[int]:
        return self.ready

    def load(self, *given: object) -> None:
        self.loads += 1

    set_versions = dismiss = without_cache = load


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch, placed: Path) -> Callable[[frozenset[int]], Any]:
    monkeypatch.setenv("SEATRIAL_HOME", str(placed))
    return Loading


BEFORE_A_LOAD: dict[str, tuple[frozenset[int], Callable[[Any, Path], object]]] = {
    "switch": (frozenset(), lambda control, models: switch(control, models, "python", (1,))),
    "heal": (frozenset(), lambda control, models: heal(control, models, "python", 1)),
    "switching a cache off": (frozenset({1}), lambda control, models: switch_off(control, models, "python")),
    "finishing a switch": (frozenset(), lambda control, models: recovered(control, models, before=(), after=(1,))),
    "undoing a switch": (frozenset(), lambda control, models: recovered(control, models, before=(1,), after=(2,))),
}


def recovered(control: Any, models: Path, *, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    state: Literal["intent", "applied"] = "applied" if after == (1,) else "intent"
    journal.write(models, journal.Entry(model="python", state=state, before=before, after=after))
    outcome = recover(control, models, "python")
    assert not outcome.serving, outcome
    raise IntegrityError(outcome.reason)


@pytest.mark.parametrize("name", BEFORE_A_LOAD)
def test_whoever_loads_checks_before(models: Path, loading: Callable[[frozenset[int]], Any], name: str) -> None:
    ready, load = BEFORE_A_LOAD[name]
    planted(models / "python" / "1", "numpy.py")
    control = loading(ready)
    with pytest.raises(SeatrialError, match="code that seatrial did not place"):
        load(control, models)
    assert control.loads in (0, 1) if name == "finishing a switch" else control.loads == 0


def test_what_is_rendered_for_a_cluster_was_placed(models: Path, loading: Callable[[frozenset[int]], Any]) -> None:
    assert read_source(models, "native", 1, image="triton").files
    (models / "native" / "1" / "model.onnx").write_bytes(b"other")
    with pytest.raises(IntegrityError, match="changed"):
        read_source(models, "native", 1, image="triton")


@pytest.mark.skipif(find_spec("pytriton") is None, reason="the Triton wheel is not installed (seatrial[serve])")
def test_the_backends_that_a_server_loads_are_the_wheels_own(tmp_path: Path) -> None:
    root = wheel.installed()
    ready = wheel.backends(root, tmp_path)
    before = ready.stat().st_ino
    assert wheel.backends(root, tmp_path).stat().st_ino == before, "running servers load from it"
    utils = ready / "python" / "triton_python_backend_utils.py"
    spoils: tuple[Callable[[], object], ...] = (
        lambda: (ready / "python" / "numpy.py").write_text(EVIL),
        lambda: instead(utils, Path.touch),
        lambda: (ready / "evil").mkdir(),
    )
    for spoil in spoils:
        spoil()
        again = wheel.backends(root, tmp_path)
        assert {path.name for path in again.rglob("*")} == {
            "python",
            "libtriton_python.so",
            "triton_python_backend_stub",
            "triton_python_backend_utils.py",
        }
        assert all(path.is_symlink() for path in (again / "python").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == [ready.name]
