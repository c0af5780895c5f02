"""Placing into a repository: all of a version or nothing, numbers used once, other people's models left alone."""

import json
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seatrial.optimize.artifact import Artifact, File, TensorSpec, digest_file
from seatrial.optimize.errors import ContractError, IntegrityError, MachineError, MissingError
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Batching, Deployment
from seatrial.serve.errors import PlacementError
from seatrial.serve.triton.backend import PLACED_CODE
from seatrial.serve.triton.compiler import config
from seatrial.serve.triton.repository import journal, placing
from seatrial.serve.triton.repository.placement import models, placements
from seatrial.serve.triton.repository.placing import choose, chosen, place, retire
from tests.support.made_by import MADE_BY

DEPLOYMENT = Deployment(schema=1, name="scenes", max_batch_size=8)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return tmp_path / "models"


def make(store: Store, content: bytes = b"weights", *, width: int = 4) -> Artifact:
    """An artifact of a graph and weights beside it; only the server would look inside."""
    folder = store.root.parent / f"made-{content[:8].hex()}-{width}"
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "model.onnx.data").write_bytes(content)
    artifact = Artifact(
        name="scenes",
        format="onnx",
        files=tuple(File.of(folder / name) for name in ("model.onnx", "model.onnx.data")),
        inputs=(TensorSpec(name="x", dtype="float32", shape=("n", width)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 2)),),
        requires={},
        made_by=MADE_BY,
    )
    return store.put(artifact, folder)


def served(repo: Path, name: str = "scenes") -> list[int]:
    return list(config.parse((repo / name / "config.pbtxt").read_text()).version_policy.specific.versions)


def test_an_artifact_for_other_hardware_is_not_placed_unless_the_server_is_elsewhere(store: Store, repo: Path) -> None:
    foreign = replace(make(store), requires={"architecture": ["riscv64"]})
    kept = store.put(foreign, store.root.parent / f"made-{b'weights'.hex()}-4")
    with pytest.raises(ContractError, match="riscv64"):
        place(kept, DEPLOYMENT, store=store, repository=repo)
    assert not repo.exists()
    assert place(kept, DEPLOYMENT, store=store, repository=repo, elsewhere=True).version == 1


def test_a_placed_version_holds_the_artifact_and_its_record(store: Store, repo: Path) -> None:
    artifact = make(store)
    placement = place(artifact, DEPLOYMENT, store=store, repository=repo)
    assert placement.path == repo / "scenes" / "1"
    assert {path.name for path in placement.path.iterdir()} == {
        "model.onnx",
        "model.onnx.data",
        "model.py",
        *PLACED_CODE,
        "placement.json",
        "__pycache__",
    }
    assert (placement.path / "__pycache__").is_file()
    for file in artifact.files:
        assert digest_file(placement.path / file.path) == file.digest
    assert json.loads((placement.path / "placement.json").read_text())["digest"] == artifact.digest
    assert placements(repo, "scenes") == (placement,)
    assert models(repo) == ("scenes",)
    assert [path.name for path in repo.iterdir() if path.is_dir()] == ["scenes"], "Triton takes folders for models"
    compile((placement.path / "model.py").read_text(), "model.py", "exec")


def test_native_needs_no_code_of_ours(store: Store, repo: Path) -> None:
    placement = place(make(store), DEPLOYMENT, store=store, repository=repo, backend="native")
    assert not (placement.path / "model.py").exists()
    assert config.parse((repo / "scenes" / "config.pbtxt").read_text()).backend == "onnxruntime"


def test_the_same_artifact_is_placed_once_and_its_configuration_kept_current(store: Store, repo: Path) -> None:
    artifact = make(store)
    first = place(artifact, DEPLOYMENT, store=store, repository=repo)
    config_file = repo / "scenes" / "config.pbtxt"
    before = config_file.stat().st_mtime_ns
    assert place(artifact, DEPLOYMENT, store=store, repository=repo) == first
    assert config_file.stat().st_mtime_ns == before, "nothing changed, so nothing may be written"
    slower = replace(DEPLOYMENT, batching=Batching(max_queue_delay_us=500))
    assert place(artifact, slower, store=store, repository=repo, version=1) == first
    assert config.parse(config_file.read_text()).dynamic_batching.max_queue_delay_microseconds == 500


def test_another_artifact_becomes_the_next_version_beside_the_first(store: Store, repo: Path) -> None:
    place(make(store), DEPLOYMENT, store=store, repository=repo)
    second = place(make(store, b"others"), DEPLOYMENT, store=store, repository=repo)
    assert second.version == 2
    assert served(repo) == [1, 2]
    assert place(make(store, b"third"), DEPLOYMENT, store=store, repository=repo, version=7).version == 7
    assert place(make(store, b"fourth"), DEPLOYMENT, store=store, repository=repo).version == 8


def test_a_number_is_never_used_again(store: Store, repo: Path) -> None:
    place(make(store), DEPLOYMENT, store=store, repository=repo)
    place(make(store, b"others"), DEPLOYMENT, store=store, repository=repo)
    with pytest.raises(PlacementError, match="being served"):
        retire(repo, "scenes", 2)
    choose(repo, "scenes", (1,))
    assert served(repo) == [1]
    retire(repo, "scenes", 2)
    assert [each.version for each in placements(repo, "scenes")] == [1]
    with pytest.raises(PlacementError, match="were already used"):
        place(make(store, b"third"), DEPLOYMENT, store=store, repository=repo, version=2)
    third = place(make(store, b"third"), DEPLOYMENT, store=store, repository=repo)
    assert third.version == 3
    assert served(repo) == [1, 3]
    for wrong in ((2,), (1, 9)):
        with pytest.raises(MissingError):
            choose(repo, "scenes", wrong)


def test_a_version_left_out_by_choice_stays_out(store: Store, repo: Path) -> None:
    for content in (b"one", b"two"):
        place(make(store, content), DEPLOYMENT, store=store, repository=repo)
    choose(repo, "scenes", (2,))
    place(make(store, b"three"), DEPLOYMENT, store=store, repository=repo)
    assert served(repo) == [2, 3]


def test_damaged_bytes_in_the_store_are_not_placed(store: Store, repo: Path) -> None:
    artifact = make(store)
    store.path(artifact, "model.onnx.data").write_bytes(b"WEIGHTS")
    with pytest.raises(IntegrityError, match=r"model\.onnx\.data"):
        place(artifact, DEPLOYMENT, store=store, repository=repo)
    assert models(repo) == ()
    assert list(repo.iterdir()) == []


def test_a_placed_version_that_was_edited_is_not_taken_for_the_artifact(store: Store, repo: Path) -> None:
    artifact = make(store)
    placement = place(artifact, DEPLOYMENT, store=store, repository=repo)
    (placement.path / "model.onnx").write_bytes(b"edited")
    with pytest.raises(IntegrityError, match="differ from what was placed"):
        place(artifact, DEPLOYMENT, store=store, repository=repo)


def test_other_tensors_or_another_backend_need_another_name(store: Store, repo: Path) -> None:
    place(make(store), DEPLOYMENT, store=store, repository=repo)
    with pytest.raises(PlacementError, match="input differs"):
        place(make(store, width=5), DEPLOYMENT, store=store, repository=repo)
    with pytest.raises(PlacementError, match="backend"):
        place(make(store, b"others"), DEPLOYMENT, store=store, repository=repo, backend="native")
    assert [each.version for each in placements(repo, "scenes")] == [1]
    other = replace(DEPLOYMENT, name="native-scenes")
    assert place(make(store), other, store=store, repository=repo, backend="native").version == 1


def test_a_model_that_somebody_else_put_there_is_left_alone(store: Store, repo: Path) -> None:
    (repo / "scenes" / "1").mkdir(parents=True)
    (repo / "scenes" / "config.pbtxt").write_text("name: 'scenes'")
    with pytest.raises(PlacementError, match="not placed by seatrial"):
        place(make(store), DEPLOYMENT, store=store, repository=repo)
    assert (repo / "scenes" / "config.pbtxt").read_text() == "name: 'scenes'"


def test_a_damaged_journal_is_reported(store: Store, repo: Path) -> None:
    place(make(store), DEPLOYMENT, store=store, repository=repo)
    (repo / ".seatrial.json").write_text("{")
    with pytest.raises(IntegrityError, match="journal"):
        place(make(store, b"others"), DEPLOYMENT, store=store, repository=repo)


POINTS = ["store.materialize", "_fsync", "os.rename", "os.replace"]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("first", [True, False])
def test_an_interruption_anywhere_leaves_what_was_there(
    store: Store, repo: Path, monkeypatch: pytest.MonkeyPatch, point: str, error: BaseException, first: bool
) -> None:
    if not first:
        place(make(store), DEPLOYMENT, store=store, repository=repo)
    before = tree(repo / "scenes")
    artifact = make(store, b"others")
    with monkeypatch.context() as patch:

        def fail(*_: object, **__: object) -> None:
            raise error

        owner, name = (
            {"store": Store, "os": os}.get(point.partition(".")[0], placing),
            point.split(".")[-1],
        )
        patch.setattr(owner, name, fail)
        with pytest.raises((KeyboardInterrupt, MachineError)):
            place(artifact, DEPLOYMENT, store=store, repository=repo)
    assert tree(repo / "scenes") == before
    assert not [path for path in (repo.parent / ".seatrial" / "placing" / "models").iterdir() if path.is_dir()]
    assert place(artifact, DEPLOYMENT, store=store, repository=repo).version in (1, 2, 3)
    assert len(served(repo)) == (1 if first else 2)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def killed(step: int, artifact: Artifact, store: Store, repo: Path) -> int:
    """Place in a process that SIGKILL ends before that rename or fsync; return its exit code, 0 at its end."""
    calls = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return call

    def work() -> None:
        for owner, name in ((os, "rename"), (os, "replace"), (placing, "_fsync_one")):
            setattr(owner, name, counted(getattr(owner, name)))
        place(artifact, DEPLOYMENT, store=store, repository=repo)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


@pytest.mark.slow
def test_a_kill_at_any_step_leaves_a_repository_that_reads_and_heals(store: Store, repo: Path) -> None:
    """SIGKILL before every rename and every fsync in turn; each time what is there is whole, and placing goes on."""
    place(make(store), DEPLOYMENT, store=store, repository=repo)
    step, ended = 0, signal.SIGKILL * -1
    while ended == -signal.SIGKILL:
        step += 1
        artifact = make(store, f"{step:08d}".encode())
        before = served(repo)
        ended = killed(step, artifact, store, repo)
        assert ended in (0, -signal.SIGKILL)
        assert set(before) <= set(served(repo))
        for placement in placements(repo, "scenes"):
            assert {"model.onnx", "model.onnx.data", "model.py"} <= {path.name for path in placement.path.iterdir()}
        healed = place(artifact, DEPLOYMENT, store=store, repository=repo)
        assert served(repo) == [*before, healed.version]
        shop = repo.parent / ".seatrial" / "placing" / "models"
        assert not [path for path in shop.iterdir() if path.is_dir()]
        choose(repo, "scenes", (1,))
    assert step > 8, "too few steps were interrupted to mean anything"


def test_a_disk_that_refuses_is_a_clear_error_with_nothing_half_written(store: Store, repo: Path) -> None:
    """A real refusal of the kernel's: files may not grow beyond a few bytes."""
    artifact = make(store, b"x" * 100_000)

    def place_with_little_space(queue: "multiprocessing.SimpleQueue[str]") -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            place(artifact, DEPLOYMENT, store=store, repository=repo)
        except MachineError as error:
            queue.put(f"{error.exit_code} {error}")
        else:
            queue.put("placed")

    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=place_with_little_space, args=(queue,))
    process.start()
    process.join(30)
    assert queue.get().startswith("4 cannot write")
    assert models(repo) == ()
    assert place(artifact, DEPLOYMENT, store=store, repository=repo).version == 1


def test_a_repository_that_cannot_be_made_is_a_clear_error(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot write the model repository"):
        place(make(store), DEPLOYMENT, store=store, repository=tmp_path / "file" / "models")


def place_one(root: str, content: bytes) -> int:
    store = Store(Path(root) / "store")
    found = next(each for each in store.all() if store.path(each, "model.onnx.data").read_bytes() == content)
    return place(found, DEPLOYMENT, store=store, repository=Path(root) / "models").version


def test_processes_that_place_at_once_get_numbers_of_their_own(store: Store, repo: Path, tmp_path: Path) -> None:
    contents = [f"{number}-content".encode() for number in range(4)]
    for content in contents:
        make(store, content)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        versions = pool.starmap(place_one, [(str(tmp_path), content) for content in contents])
    assert sorted(versions) == [1, 2, 3, 4]
    assert served(repo) == [1, 2, 3, 4]
    assert os.listdir(repo / "scenes" / "3")


def test_a_version_in_a_switch_that_is_not_completed_is_not_retired(store: Store, repo: Path) -> None:
    place(make(store), DEPLOYMENT, store=store, repository=repo)
    place(make(store, b"other"), DEPLOYMENT, store=store, repository=repo)
    choose(repo, "scenes", (1,))
    journal.write(repo, journal.Entry(model="scenes", state="intent", before=(1,), after=(2,)))
    with pytest.raises(PlacementError, match="not completed"):
        retire(repo, "scenes", 2)
    journal.write(repo, journal.Entry(model="scenes", state="verified", before=(1,), after=(1,)))
    retire(repo, "scenes", 2)
    assert chosen(repo, "scenes") == (1,)


def test_placing_leaves_to_the_switch_what_a_switched_model_serves(store: Store, repo: Path) -> None:
    place(make(store), DEPLOYMENT, store=store, repository=repo)
    second = place(make(store, b"other"), DEPLOYMENT, store=store, repository=repo)
    assert chosen(repo, "scenes") == (1, 2), "never switched: what is placed is served at the next load"
    choose(repo, "scenes", (1,))
    journal.write(repo, journal.Entry(model="scenes", state="verified", before=(1, 2), after=(1,)))
    assert place(make(store, b"third"), DEPLOYMENT, store=store, repository=repo).version == 3
    assert chosen(repo, "scenes") == (1,)
    slower = replace(DEPLOYMENT, batching=Batching(max_queue_delay_us=500))
    assert place(make(store, b"other"), slower, store=store, repository=repo) == second
    assert chosen(repo, "scenes") == (1,), "the configuration is current, and the policy as it was"
    assert config.parse((repo / "scenes" / "config.pbtxt").read_text()).dynamic_batching.max_queue_delay_microseconds
    choose(repo, "scenes", (2,))
    journal.write(repo, journal.Entry(model="scenes", state="verified", before=(1,), after=(2,)))
    assert place(make(store), DEPLOYMENT, store=store, repository=repo).version == 1
    assert chosen(repo, "scenes") == (2,)
