"""Audits of folders: a clean one has nothing of high severity, and every breach that is planted is found."""

import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.artifact import Artifact, File, TensorSpec
from seatrial.optimize.errors import IntegrityError
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Deployment
from seatrial.serve.security.audit import audit_folder
from seatrial.serve.triton.backend import PLACED_CODE
from seatrial.serve.triton.repository.placing import place
from seatrial.serve.triton.repository.vouching import check
from tests.support.made_by import MADE_BY


def artifact(store: Store, folder: Path, width: int | str = 4) -> Artifact:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"graph")
    tensors = {"inputs": ("x", width), "outputs": ("y", 2)}
    specs = {
        side: (TensorSpec(name=name, dtype="float32", shape=("n", size)),) for side, (name, size) in tensors.items()
    }
    files = (File.of(folder / "model.onnx"),)
    made = Artifact(name="m", format="onnx", files=files, requires={}, made_by=MADE_BY, **specs)
    return store.put(made, folder)


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store and a repository with the same model in both backends, as seatrial places it."""
    return placed_in(tmp_path_factory.mktemp("placed"))


def placed_in(folder: Path) -> Path:
    """Fill the folder: ``store`` and ``models``."""
    store = Store(folder / "store")
    made = artifact(store, folder / "made")
    for backend in ("python", "native"):
        deployment = Deployment(schema=1, name=backend, backend=backend, max_batch_size=8)
        place(made, deployment, store=store, repository=folder / "models", elsewhere=True)
    return folder


@pytest.fixture
def site(placed: Path, tmp_path: Path) -> tuple[Path, Store]:
    shutil.copytree(placed / "models", tmp_path / "models")
    return tmp_path / "models", Store(placed / "store")


def rules(found: Any, severity: str = "") -> set[str]:
    return {each.rule for each in found.findings if severity in ("", each.severity)}


def test_what_seatrial_places_has_nothing_but_notes(site: tuple[Path, Store]) -> None:
    found = audit_folder(*site)
    assert found.passed
    assert rules(found) == {"unbounded-queue"}
    assert not found.unseen


@pytest.mark.parametrize("name", sorted(PLACED_CODE.keys() - {"model.py"}))
def test_each_file_that_serves_the_python_backend_is_vouched_for(site: tuple[Path, Store], name: str) -> None:
    (path,) = site[0].glob(f"*/1/{name}")
    assert "foreign-code" not in rules(audit_folder(*site))
    path.write_text(path.read_text() + "# more")
    assert "changed" in rules(audit_folder(*site), "high")
    with pytest.raises(IntegrityError, match="must not be loaded"):
        check(site[0], (path.parents[1].name,), site[1])


def edit(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def executable(text: str) -> Callable[[Path], object]:
    def plant(version: Path) -> None:
        (version / text).parent.mkdir(exist_ok=True)
        (version / text).write_text("code")

    return plant


def bytecode(version: Path) -> None:
    """Put the folder that Python would write, in place of the file that keeps it from writing."""
    (version / "__pycache__").unlink(missing_ok=True)
    (version / "__pycache__").mkdir()
    (version / "__pycache__" / "model.cpython-311.pyc").write_bytes(b"code")


def ensemble(repository: Path) -> None:
    """Add an ensemble of somebody else over a model that is not there."""
    (repository / "both" / "1").mkdir(parents=True)
    steps = 'ensemble_scheduling { step { model_name: "gone" model_version: 1 } }'
    (repository / "both" / "config.pbtxt").write_text(f'name: "both" platform: "ensemble" {steps}')


def backend(config: Path, name: str) -> None:
    config.write_text(re.sub(r'backend: "\w+"', f'backend: "{name}"', config.read_text()))


def agent(config: Path) -> None:
    edit(config, 'model_repository_agents { agents { name: "checksum" } }')


def parameter(config: Path, key: str, value: str) -> None:
    edit(config, f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}')


PLANTED: list[tuple[str, str, Callable[[Path], object]]] = [
    ("symlink", "high", lambda version: (version / "more").symlink_to("model.onnx")),
    ("outside", "high", lambda version: (version / "more").symlink_to("/etc/hostname")),
    ("symlink", "high", lambda version: (version.parent / "2").symlink_to("1")),
    ("foreign-code", "high", executable("helper.py")),
    ("foreign-code", "high", executable("batchstrategy.so")),
    ("foreign-code", "high", lambda version: executable("batchstrategy.so")(version.parent)),
    ("foreign-code", "high", lambda version: executable("lib/more.so")(version.parent)),
    ("foreign-code", "high", lambda version: shutil.move(version.parent / "config.pbtxt", version / "more.py")),
    ("configuration", "medium", lambda version: (version.parent / "config.pbtxt").unlink()),
    ("changed", "high", lambda version: (version / "model.onnx").write_bytes(b"other")),
    ("changed", "high", lambda version: (version / "model.onnx").unlink()),
    ("changed", "high", lambda version: (version / "extra.bin").write_bytes(b"data")),
    ("changed", "high", lambda version: (version / "placement.json").write_text("{}")),
    ("unrecorded", "high", lambda version: (version / "placement.json").unlink()),
    ("hard-link", "high", lambda version: os.link(version / "model.onnx", version.parents[2] / "name")),
    ("set-id", "high", lambda version: (version / "model.onnx").chmod(0o4644)),
    ("special-file", "high", lambda version: os.mkfifo(version / "pipe")),
    ("bytecode", "high", lambda version: bytecode(version)),
    ("odd-name", "high", lambda version: (version.parent / "１").mkdir()),
    ("missing-step", "low", lambda version: ensemble(version.parents[1])),
    ("library", "high", lambda version: edit(version.parent / "config.pbtxt", 'runtime: "libtriton_evil.so"')),
    (
        "library",
        "high",
        lambda version: edit(version.parent / "config.pbtxt", 'model_operations { op_library_filename: "x.so" }'),
    ),
    ("other-backend", "high", lambda version: backend(version.parent / "config.pbtxt", "evil")),
    ("outside", "high", lambda version: backend(version.parent / "config.pbtxt", "../../evil")),
    (
        "agent",
        "medium",
        lambda version: agent(version.parent / "config.pbtxt"),
    ),
    ("cache-path", "low", lambda version: parameter(version.parent / "config.pbtxt", "trt_engine_cache_path", "/x")),
    ("parameter-path", "medium", lambda version: parameter(version.parent / "config.pbtxt", "some_file", "/x")),
    ("stray", "medium", lambda version: (version.parent / "something").write_text("")),
    ("foreign-code", "high", lambda version: (version.parent / "triton_python_backend_stub").write_text("")),
    ("world-writable", "high", lambda version: (version / "model.onnx").chmod(0o666)),
    ("world-writable", "high", lambda version: version.chmod(0o777)),
    ("pickle", "high", lambda version: (version / "weights.pkl").write_bytes(b"")),
    ("pickle", "high", lambda version: (version / "weights").write_bytes(pickle.dumps({"a": 1}))),
    ("secret-file", "high", lambda version: (version.parent / "server.key").write_text("")),
    ("secret-file", "high", lambda version: (version / "password.txt").write_text("")),
    ("configuration", "medium", lambda version: edit(version.parent / "config.pbtxt", "nonsense {")),
    (
        "outside",
        "high",
        lambda version: edit(version.parent / "config.pbtxt", 'cc_model_filenames { key: "8.6" value: "../x" }'),
    ),
    (
        "execution-environment",
        "high",
        lambda version: edit(
            version.parent / "config.pbtxt",
            'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "/tmp/env.tar.gz" } }',
        ),
    ),
    ("unbounded-dims", "low", lambda version: edit(version.parent / "config.pbtxt", 'input { name: "z" dims: -1 }')),
    ("cache", "medium", lambda version: edit(version.parent / "config.pbtxt", "response_cache { enable: true }")),
    (
        "unsafe-cache",
        "high",
        lambda version: edit(
            version.parent / "config.pbtxt", 'input { name: "z" dims: -1 } response_cache { enable: true }'
        ),
    ),
]


@pytest.mark.parametrize(("rule", "severity", "plant"), PLANTED)
@pytest.mark.parametrize("backend", ["python", "native"])
def test_a_breach_in_a_repository_is_found(
    site: tuple[Path, Store], backend: str, rule: str, severity: str, plant: Callable[[Path], object]
) -> None:
    plant(site[0] / backend / "1")
    found = audit_folder(*site)
    assert rule in rules(found, severity)
    assert found.passed == (severity != "high" and rule != "agent")  # seatrial writes no agent
    elsewhere = ("unbounded-queue", "missing-step", "hard-link")
    assert all(
        str(site[0] / backend) in each.where for each in found.findings if each.rule not in (*elsewhere, "unverified")
    )


def test_our_own_model_py_is_known_by_its_bytes(site: tuple[Path, Store]) -> None:
    edit(site[0] / "python" / "1" / "model.py", "\nimport os\n")
    assert rules(audit_folder(*site), "high") == {"changed"}
    (site[0] / "native" / "1" / "model.py").write_text("import os")  # a native model has none
    assert rules(audit_folder(*site), "high") == {"changed", "foreign-code"}


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (lambda version: (version / "model.onnx").write_bytes(b"other"), "instead of"),
        (lambda version: (version / "more").symlink_to("model.onnx"), "a link to"),
        (lambda version: (version.parent / "2").symlink_to("/"), "a link to"),
        (lambda version: (version / "placement.json").write_text("{}"), "record"),
    ],
)
def test_what_was_changed_is_not_loaded(site: tuple[Path, Store], plant: Callable[[Path], object], said: str) -> None:
    repository, store = site
    check(repository, ("native", "python"), store)
    plant(repository / "native" / "1")
    check(repository, ("python",), store)
    with pytest.raises(IntegrityError, match=said):
        check(repository, ("native",), store)


def test_without_the_store_bytes_are_said_to_be_unverified(site: tuple[Path, Store], tmp_path: Path) -> None:
    found = audit_folder(site[0], Store(tmp_path / "empty"))
    assert rules(found, "medium") == {"unverified"}
    assert found.passed


@given(st.binary(max_size=64))
def test_data_that_is_no_pickle_is_seldom_called_one(data: bytes) -> None:
    from seatrial.serve.security.repository import _PICKLE_PROTOCOLS, _is_pickle

    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"seatrial-{os.getpid()}.bin"
    path.write_bytes(data)
    try:
        assert _is_pickle(path) == (data[:2] in _PICKLE_PROTOCOLS and data.endswith(b"."))
    finally:
        path.unlink()
