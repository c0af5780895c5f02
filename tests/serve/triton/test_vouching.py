"""The check before each load: what seatrial placed and nothing else, whatever lies there, and no hang over it."""

import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatrial.optimize.errors import ConfigError, IntegrityError, SeatrialError
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Deployment
from seatrial.serve.security.audit import audit_folder
from seatrial.serve.triton.lint import lint
from seatrial.serve.triton.repository import entries, vouching
from seatrial.serve.triton.repository.doubt import NEXT
from seatrial.serve.triton.repository.placement import models as names
from seatrial.serve.triton.repository.placing import place
from seatrial.serve.triton.repository.vouching import check
from tests.support.placed import EVIL, digest, instead, planted, put, record


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


def vouched_by_its_record(version: Path) -> None:
    (version / "model.py").write_text(EVIL)
    record(version, lambda told: told["files"].update({"model.py": digest(version / "model.py")}))


def downgraded(version: Path) -> None:
    (version / "model.py").write_text(EVIL)
    record(version, lambda told: told.pop("files"))


def added_with_its_digest(version: Path) -> None:
    (version / "helper.py").write_text(EVIL)
    record(version, lambda told: told["files"].update({"helper.py": digest(version / "helper.py")}))


def unrecorded(version: Path) -> None:
    shutil.copytree(version, version.with_name("3"))
    (version.with_name("3") / "placement.json").unlink()


def emptied(version: Path) -> None:
    for path in (version / "placement.json", version / "model.py"):
        path.unlink()
    (version / "model.py").write_text(EVIL)


def bytecode(version: Path, name: str = "__pycache__") -> None:
    if (version / name).is_file():
        (version / name).unlink()
    planted(version, f"{name}/model.cpython-311.pyc")


def configure(version: Path, text: str) -> None:
    config = version.parent / "config.pbtxt"
    config.write_text(config.read_text() + text)


REFUSED: dict[str, Callable[[Path], object]] = {
    "changed code": lambda version: (version / "model.py").write_text(EVIL),
    "changed code and its digest": vouched_by_its_record,
    "changed code and no digests": downgraded,
    "added code and its digest": added_with_its_digest,
    "helper missing": lambda version: (version / "python_cache.py").unlink(),
    "changed artifact": lambda version: (version / "model.onnx").write_bytes(b"other"),
    "numpy.py": lambda version: planted(version, "numpy.py"),
    "NUMPY.PY": lambda version: planted(version, "NUMPY.PY"),
    "a package": lambda version: planted(version, "onnx/__init__.py"),
    "legacy bytecode": lambda version: planted(version, "sympy.pyc"),
    "a library": lambda version: planted(version, "libtriton_python.so"),
    "an extension": lambda version: planted(version, "torch.cpython-311-x86_64-linux-gnu.so"),
    "data": lambda version: planted(version, "more.bin"),
    "beside: numpy.py": lambda version: planted(version.parent, "numpy.py"),
    "beside: a package": lambda version: planted(version.parent, "torch/__init__.py"),
    "beside: the version's name": lambda version: planted(version.parent, "1.py"),
    "beside: a library": lambda version: planted(version.parent, "libtriton_python.so.1"),
    "beside: bytecode": lambda version: bytecode(version.parent),
    "beside: the stub's name": lambda version: planted(version.parent, "triton_python_backend_stub"),
    "beside: anything unknown": lambda version: planted(version.parent, "something"),
    "beside: a folder": lambda version: planted(version.parent, "more/notes.txt"),
    "bytecode": bytecode,
    "bytecode deeper": lambda version: bytecode(version, "more/__pycache__"),
    "a version without a record": unrecorded,
    "the only record gone": emptied,
    "a record of nothing": lambda version: (version / "placement.json").write_text("{}"),
    "a record of lists": lambda version: (version / "placement.json").write_text("[[1]]"),
    "a deep record": lambda version: (version / "placement.json").write_text("[" * 200_000),
    "an infinite version": lambda version: record(version, lambda told: told.update(version=float("inf"))),
    "an unknown backend": lambda version: record(version, lambda told: told.update(backend="evil")),
    "a link": lambda version: instead(version / "model.onnx", lambda path: path.symlink_to("/etc/hostname")),
    "a link to nothing": lambda version: (version / "x").symlink_to("gone"),
    "a hard link": lambda version: os.link(version / "model.onnx", version.parents[2] / "name"),
    "a pipe": lambda version: instead(version / "model.onnx", os.mkfifo),
    "a pipe as code": lambda version: instead(version / "model.py", os.mkfifo),
    "a pipe as record": lambda version: instead(version / "placement.json", os.mkfifo),
    "a pipe as configuration": lambda version: instead(version.parent / "config.pbtxt", os.mkfifo),
    "a folder as configuration": lambda version: instead(version.parent / "config.pbtxt", Path.mkdir),
    "a folder as record": lambda version: instead(version / "placement.json", Path.mkdir),
    "a folder as code": lambda version: instead(version / "model.py", Path.mkdir),
    "a socket": lambda version: bound(version / "s"),
    "writable by all": lambda version: (version / "model.onnx").chmod(0o666),
    "folder writable by all": lambda version: version.parent.chmod(0o777),
    "repository writable by all": lambda version: version.parents[1].chmod(0o777),
    "set-id": lambda version: (version / "model.onnx").chmod(0o4755),
    "digits of another script": lambda version: version.with_name("２").mkdir(),
    "a number beyond all": lambda version: version.with_name("9" * 20).mkdir(),
    "a byte-order mark": lambda version: instead(
        version.parent / "config.pbtxt", lambda path: path.write_bytes(b"\xef\xbb\xbfname: 'python'")
    ),
    "Latin-1": lambda version: instead(version.parent / "config.pbtxt", lambda path: path.write_bytes(b"name: '\xe9'")),
    "no configuration": lambda version: (version.parent / "config.pbtxt").unlink(),
    "another file as code": lambda version: configure(version, 'default_model_filename: "model.onnx"'),
    "another graph": lambda version: configure(version, 'parameters { key: "model_file" value { string_value: "x" } }'),
    "an environment": lambda version: configure(
        version, 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "e" } }'
    ),
    "a batching strategy": lambda version: configure(
        version, 'parameters { key: "TRITON_BATCH_STRATEGY_PATH" value { string_value: "b" } }'
    ),
    "a parameter outside": lambda version: configure(
        version, 'parameters { key: "a" value { string_value: "../../x" } }'
    ),
    "a library in the configuration": lambda version: configure(
        version, 'model_operations { op_library_filename: "x" }'
    ),
    "a runtime": lambda version: configure(version, 'runtime: "x.so"'),
    "warm-up data outside": lambda version: configure(
        version, 'model_warmup { inputs { key: "x" value { input_data_file: "../../../x" } } }'
    ),
    "labels outside": lambda version: configure(version, 'output { name: "z" label_filename: "/etc/passwd" }'),
    "a state outside": lambda version: configure(
        version, 'sequence_batching { state { initial_state { data_file: "../../x" } } }'
    ),
    "an agent": lambda version: configure(version, 'model_repository_agents { agents { name: "checksum" } }'),
    "an agent outside": lambda version: configure(version, 'model_repository_agents { agents { name: "../x" } }'),
}


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path may have about a hundred bytes
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


@pytest.mark.parametrize("name", REFUSED)
def test_what_was_not_placed_is_neither_loaded_nor_overlooked(models: Path, store: Store, name: str) -> None:
    check(models, ("python", "native", "both"), store)
    REFUSED[name](models / "python" / "1")
    began = time.monotonic()
    for asked in (("python",), ("both",)):  # a server loads the models of an ensemble's steps with it
        with pytest.raises(IntegrityError, match="must not be loaded") as refused:
            check(models, asked, store)
        assert refused.value.where
        assert refused.value.next_step in NEXT.values()
    found = audit_folder(models, store)
    assert {each.rule for each in found.findings} - {"unbounded-queue"}
    lint(models, release="2.51")
    assert time.monotonic() - began < 60.0, "it hung"
    if "repository" not in name:
        check(models, ("native",), store)


def test_other_users_files_are_refused_unless_the_repository_is_theirs(models: Path, store: Store) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    os.chown(models / "python" / "1" / "model.onnx", 12345, -1)
    with pytest.raises(IntegrityError, match="owned by user 12345"):
        check(models, ("python",), store)
    assert "foreign-owner" in {each.rule for each in audit_folder(models, store).findings}
    os.chown(models, 12345, -1)
    check(models, ("python",), store)


def test_a_model_of_somebody_else_is_loaded_only_by_name_and_links_never(models: Path, store: Store) -> None:
    planted(models / "theirs", "1/model.py")
    (models / "theirs" / "config.pbtxt").write_text('name: "theirs" backend: "python"')
    with pytest.raises(ConfigError, match="not placed by seatrial") as refused:
        check(models, ("theirs",), store)
    assert "--allow-foreign theirs" in refused.value.next_step
    assert check(models, ("theirs",), store, foreign=("theirs",))
    assert vouching.placed(models, ("native", "theirs")) == (("native",), ("theirs",))
    assert vouching.placed(models, ("native", "theirs"), ("theirs",)) == (("native", "theirs"), ())
    assert {"foreign-code", "unverified"} <= {each.rule for each in audit_folder(models, store).findings}
    (models / "theirs" / "1" / "more").symlink_to("/etc/hostname")
    with pytest.raises(IntegrityError, match="a link to"):
        check(models, ("theirs",), store, foreign=("theirs",))


@pytest.mark.parametrize("name", ["..evil", ".hidden", "a b", "a\nb", "é", "-x", "a\udcff"])
def test_names_that_are_none_are_refused_even_where_they_are_allowed(models: Path, store: Store, name: str) -> None:
    planted(models / name, "1/model.py")
    (models / name / "config.pbtxt").write_text('backend: "python"')
    with pytest.raises(IntegrityError, match="invalid model name") as refused:
        check(models, (name,), store, foreign=(name,))
    assert all(each.isprintable() for each in refused.value.where)
    refused.value.what.encode()
    assert "odd-name" in {each.rule for each in audit_folder(models, store).findings}
    assert json.dumps(audit_folder(models, store).to_json()).encode()


def test_a_model_whose_configuration_leads_in_circles_is_not_left_out_unseen(models: Path, store: Store) -> None:
    instead(models / "python" / "config.pbtxt", lambda path: path.symlink_to(path.name))
    assert "python" in names(models)
    with pytest.raises(IntegrityError, match="a link to"):
        check(models, names(models), store)


@pytest.mark.parametrize("name", ["../x", "", ".", "..", "a/b"])
def test_what_is_no_directory_of_the_repository_is_no_model(models: Path, store: Store, name: str) -> None:
    with pytest.raises(ConfigError, match="invalid model name"):
        check(models, (name,), store)


def test_bytes_that_only_the_record_vouches_for_are_reported(models: Path, tmp_path: Path) -> None:
    found = check(models, ("python", "native", "both"), Store(tmp_path / "empty"))
    assert [Path(each.where).parent.name for each in found] == ["python", "native"]  # an ensemble has no bytes
    assert all(each.rule == "unverified" for each in found)
    record(models / "native" / "1", lambda told: told.pop("files"))
    assert "neither the store nor the record" in check(models, ("native",), None)[0].seen


def test_texts_for_people_may_lie_beside_the_versions(models: Path, store: Store) -> None:
    for name in ("README.md", "labels.txt", ".gitkeep"):
        (models / "python" / name).write_text("text")
    check(models, ("python",), store)


def test_what_is_placed_under_any_umask_may_be_loaded(tmp_path: Path, placed: Path, store: Store) -> None:
    made = next(iter(store.all()))
    before = os.umask(0)
    try:
        for backend in ("python", "native"):
            deployment = Deployment(schema=1, name=backend, backend=backend, max_batch_size=8)
            place(made, deployment, store=store, repository=tmp_path / "any", elsewhere=True)
    finally:
        os.umask(before)
    check(tmp_path / "any", ("python", "native"), store)


def test_parameters_of_other_backends_may_lead_where_their_owner_wants(models: Path, store: Store) -> None:
    planted(models / "theirs", "1/model.py")
    path = 'parameters { key: "tokenizer_dir" value { string_value: "/models/tokenizer" } }'
    (models / "theirs" / "config.pbtxt").write_text(f'name: "theirs" backend: "python" runtime: "model.py" {path}')
    check(models, ("theirs",), store, foreign=("theirs",))
    found = {each.rule for each in audit_folder(models, store).findings if "config.pbtxt" in each.where}
    assert found == {"parameter-path", "unbounded-queue"}


def test_only_the_versions_that_are_loaded_are_compared(models: Path, store: Store) -> None:
    version = models / "native" / "1"
    shutil.copytree(version, version.with_name("2"))
    record(version.with_name("2"), lambda told: told.update(version=2))
    (version.with_name("2") / "model.onnx").write_bytes(b"other")
    check(models, ("native",), store, versions={1})
    with pytest.raises(IntegrityError, match="changed"):
        check(models, ("native",), store, versions={2})


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.slow
def test_whatever_lies_there_is_refused_or_passed_and_never_a_traceback(
    placed: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    models = tmp_path_factory.mktemp("any") / "models"
    shutil.copytree(placed / "models", models)
    store = Store(placed / "store")
    targets = sorted(path for path in entries.walk(models / "python") if path.is_file())
    for path in data.draw(st.lists(st.sampled_from(targets), min_size=1, max_size=3, unique=True)):
        kind = data.draw(st.sampled_from(["bytes", "cut", "flip", "pipe", "folder", "link", "json", "gone"]))
        was = path.read_bytes()
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to(data.draw(st.sampled_from(["/dev/zero", ".", "gone", path.name])))
        elif kind != "gone":
            at = data.draw(st.integers(0, max(len(was) - 1, 0)))
            flipped = was[:at] + bytes([was[at] ^ 255]) + was[at + 1 :] if was else b"x"
            json_ = b'{"schema":1,"name":"python","version":1,"digest":[],"backend":{},"files":[1]}'
            path.write_bytes({"bytes": data.draw(st.binary()), "cut": was[:at], "flip": flipped, "json": json_}[kind])
    with suppress(SeatrialError):
        check(models, ("python",), store)
    audit_folder(models, store)
    lint(models, release="2.51")
