"""Distillation that trains: what is compared, what is asked once, what survives a kill, what two processes share."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from seatrial.optimize.building.build import build
from seatrial.optimize.errors import ConfigError, SeatrialError, StageError
from seatrial.optimize.recipe.configs import Attention, DistillConfig, Features, Relations, Training
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.stages import teacher as room
from seatrial.optimize.stages.training import fit
from seatrial.optimize.stages.training_job import TrainingJob, learn
from seatrial.optimize.stages.workers import learn_in_workers
from seatrial.optimize.store import Store
from seatrial.optimize.user_code import Reference
from tests.support.built import ROOT, TINY, Built
from tests.support.plain import HERE, School, school

pytestmark = pytest.mark.system
ALL: dict[str, Any] = {
    "features": (Features(student="blocks.*", teacher="blocks.*"),),
    "attention": (Attention(student="blocks.1", teacher="blocks.1", weight=3.0),),
    "relations": (Relations(weight=2.0), Relations(student="blocks.0", teacher="blocks.0")),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are too small for more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in memory from the test before: teachers of equal content have equal keys."""
    monkeypatch.setattr(room, "_asked", {})


def lesson(at: School, checkpoint: Path | None = None, training: Training | None = None, **fields: Any) -> TrainingJob:
    config = DistillConfig(
        kind="distill",
        student="x",
        arguments={"width": 8},
        training=training or Training(epochs=3, batch_size=17, checkpoint_every=4),
    )
    config = replace(config, **fields)
    return TrainingJob(
        config=config, teacher=at.teacher, samples=at.samples, store=at.store, seed=3, checkpoint=checkpoint
    )


def reference(name: str = "net") -> Reference:
    return Reference.parse(f"{HERE}:{name}", HERE.parent)


def student(name: str = "net", width: int = 8) -> torch.nn.Module:
    torch.manual_seed(3)
    module: torch.nn.Module = reference(name).call(width=width)
    return module


def quiet(share: float, text: str) -> None:
    """No progress."""


def difference(one: torch.nn.Module, other: torch.nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((mine - theirs).abs().max()) for mine, theirs in pairs)


@pytest.mark.parametrize("kind", sorted(ALL))
def test_each_inner_loss_falls_and_leaves_only_the_student(tmp_path: Path, kind: str) -> None:
    at = school(tmp_path, width=16)
    module = student()
    names = set(module.state_dict())
    told: list[float] = []
    task = lesson(at, training=Training(epochs=30, batch_size=32), output_weight=0.0, **{kind: ALL[kind]})
    learn(task, module, lambda share, text: told.append(float(text.split()[-1])) if "loss" in text else None)
    assert told[-1] < 0.8 * told[0]
    assert set(module.state_dict()) == names


def test_what_does_not_fit_the_limit_is_asked_again_with_the_same_result(tmp_path: Path) -> None:
    at = school(tmp_path, width=16)
    kept, live = student(), student()
    learn(lesson(at, **ALL), kept, quiet)
    learn(lesson(at, hidden_limit_mb=0, **ALL), live, quiet)
    assert difference(kept, live) == 0


def test_the_teacher_is_asked_once_even_by_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = school(tmp_path, width=16)
    first, second = student(), student()
    texts: list[str] = []
    learn(lesson(at, **ALL), first, lambda share, text: texts.append(text))
    assert "running the teacher" in texts
    files = sorted((tmp_path / "home" / "cache" / "teacher").iterdir())
    assert len(files) == 5  # answers, two features, one map, one layer's relations
    monkeypatch.setattr(room, "_asked", {})  # as a new process would start

    texts.clear()
    learn(lesson(at, **ALL), second, lambda share, text: texts.append(text))
    assert "running the teacher" not in texts
    assert difference(first, second) == 0


def test_a_damaged_answer_is_asked_anew_and_the_folder_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = school(tmp_path, width=16)
    known = room.teacher_answers(at.teacher, at.samples, at.store, quiet)
    (file,) = (tmp_path / "home" / "cache" / "teacher").iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    monkeypatch.setattr(room, "_asked", {})
    assert torch.equal(room.teacher_answers(at.teacher, at.samples, at.store, quiet), known)
    assert torch.equal(load_file(file)["said"], known)
    monkeypatch.setattr(room, "CACHE_BYTES", 2 * file.stat().st_size)
    os.utime(file, (0, 0))
    for rows in (90, 80, 70):
        room.teacher_answers(at.teacher, at.samples.take(rows), at.store, quiet)
    files = list(file.parent.iterdir())
    assert file not in files
    assert sum(one.stat().st_size for one in files) <= room.CACHE_BYTES


def test_half_precision_halves_the_file_of_inner_states_only(tmp_path: Path) -> None:
    at = school(tmp_path, width=16)
    learn(lesson(at, features=ALL["features"], hidden_precision="float16"), student(), quiet)
    files = (tmp_path / "home" / "cache" / "teacher").iterdir()
    kinds = {(tensor.ndim, tensor.dtype) for tensor in (load_file(file)["said"] for file in files)}
    assert kinds == {(2, torch.float32), (3, torch.float16)}


@pytest.mark.parametrize("name", ["net", "dropping"])
def test_ctrl_c_and_going_on_ends_with_the_very_same_weights(tmp_path: Path, name: str) -> None:
    at = school(tmp_path, width=16)
    whole, parted = student(name), student(name)
    expected = learn(lesson(at, **ALL), whole, quiet)

    def interrupting(share: float, text: str) -> None:
        if share > 0.6:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        learn(lesson(at, tmp_path / "kept", **ALL), parted, interrupting)
    again = student(name)
    shares: list[float] = []
    assert learn(lesson(at, tmp_path / "kept", **ALL), again, lambda share, _: shares.append(share)) == expected
    assert min(share for share in shares if share > 0.2) > 0.6  # it went on, it did not start anew
    assert difference(whole, again) == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_killed_training_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    at = school(tmp_path, width=16)
    code = f"""
import os, signal, torch
from pathlib import Path
from tests.system.test_distill import ALL, lesson, student
from tests.support.plain import School
from seatrial.optimize.store import Store
from tests.support.tiny import samples
from seatrial.optimize.samples import Samples
torch.set_num_threads({torch.get_num_threads()})
store = Store(Path({str(at.store.root)!r}))
inputs, labels = samples("train", 96)
at = School(teacher=store.get("{at.teacher.digest}"), store=store, samples=Samples(split="train", inputs=inputs,
            labels=labels))
from seatrial.optimize.stages.training_job import learn
def kill(share, text):
    if share > 0.8: os.kill(os.getpid(), signal.SIGKILL)
learn(lesson(at, Path({str(tmp_path / "kept")!r}), **ALL), student(), kill)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    whole, again = student(), student()
    learn(lesson(at, **ALL), whole, quiet)
    shares: list[float] = []
    learn(lesson(at, tmp_path / "kept", **ALL), again, lambda share, _: shares.append(share))
    assert min(share for share in shares if share > 0.2) > 0.6
    assert difference(whole, again) == 0


def test_a_damaged_checkpoint_or_one_of_another_student_starts_anew(tmp_path: Path) -> None:
    at = school(tmp_path, width=16)
    whole, wide = student(), student(width=12)
    learn(lesson(at), whole, quiet)
    learn(lesson(at, tmp_path / "kept"), wide, quiet)
    again = student()
    learn(lesson(at, tmp_path / "kept"), again, quiet)
    assert difference(whole, again) == 0
    (tmp_path / "kept" / "training.safetensors").write_bytes(b"half a file")
    again = student()
    learn(lesson(at, tmp_path / "kept"), again, quiet)
    assert difference(whole, again) == 0


def test_a_finished_training_is_put_back_not_repeated(tmp_path: Path) -> None:
    at = school(tmp_path, width=16)
    answers = room.teacher_answers(at.teacher, at.samples, at.store, quiet)
    first, second = student(), student()
    told: list[float] = []

    def once(module: torch.nn.Module) -> float:
        return fit(
            module,
            at.samples,
            answers,
            Training(epochs=2, batch_size=32),
            output="logits",
            seed=3,
            progress=lambda share, text: told.append(share),
            checkpoint=tmp_path / "kept",
        )

    expected, steps = once(first), len(told)
    assert once(second) == expected
    assert steps == len(told) == 6
    assert difference(first, second) == 0


def test_an_interrupted_build_goes_on_and_leaves_no_checkpoint(tiny: Built, tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_bytes((TINY.parent / "tiny.py").read_bytes())
    (tmp_path / "tiny.toml").write_text("[[stages]]".join(TINY.read_text().split("[[stages]]")[:2]))
    recipe, store = load_recipe(tmp_path / "tiny.toml"), Store(tmp_path / "other" / "store")

    def interrupting(label: str, share: float, text: str) -> None:
        if label == "distill" and share > 0.6:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build(recipe, store, interrupting)
    kept = tmp_path / "other" / "cache" / "checkpoints"
    assert len(list(kept.glob("*/training.safetensors"))) == 1
    assert build(recipe, store).artifact.digest == tiny.build.steps[0].artifact.digest
    assert not list(kept.iterdir())


def test_two_processes_come_to_the_result_of_one(tmp_path: Path) -> None:
    """Equal up to the order of additions: no batch statistics, no dropout; batches of 17 are shared 9 to 8."""
    at = school(tmp_path, width=16)
    alone, shared, start = student(), student(), student()
    expected = learn(lesson(at, **ALL), alone, quiet)
    task = lesson(at, tmp_path / "kept", Training(epochs=3, batch_size=17, processes=2), **ALL)
    (tmp_path / "work").mkdir()
    texts: list[str] = []
    loss = learn_in_workers(task, reference(), shared, tmp_path / "work", lambda share, text: texts.append(text))
    assert loss == pytest.approx(expected, rel=1e-4)
    assert difference(alone, shared) < 1e-6 < 0.01 < difference(alone, start)
    assert any("epoch 3/3" in text for text in texts)
    assert (tmp_path / "kept" / "training.safetensors").exists()


def test_ctrl_c_lets_the_workers_agree_on_a_checkpoint(tmp_path: Path) -> None:
    at = school(tmp_path, width=16)
    training = Training(epochs=4000, batch_size=16, processes=2, checkpoint_every=10**6)

    def interrupting(share: float, text: str) -> None:
        if "loss" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_in_workers(lesson(at, tmp_path / "kept", training), reference(), student(), tmp_path, interrupting)
    with safe_open(tmp_path / "kept" / "training.safetensors", framework="pt") as file:
        names = set(file.keys())
        header = json.loads(file.metadata()["header"])
    assert 0 < header["step"] < 4000 * 6
    assert {"random/0", "random/1", "model/student.head.weight"} <= names


def test_what_a_worker_refuses_is_said_as_if_there_were_one_process(tmp_path: Path) -> None:
    at = school(tmp_path, width=16)
    task = lesson(
        at,
        training=Training(batch_size=16, processes=2),
        features=(Features(student="blocks.7", teacher="blocks.0"),),
    )
    with pytest.raises(ConfigError, match=r"no layer fits 'blocks\.7'") as caught:
        learn_in_workers(task, reference(), student(), tmp_path, quiet)
    assert "blocks.0" in caught.value.next_step


@pytest.mark.parametrize(
    ("fields", "kind", "what"),
    [
        ({"features": (Features(student="blocks.0", teacher="head"),)}, StageError, "blocks.0 gives"),
        ({"attention": (Attention(student="head", teacher="head"),)}, StageError, "no positions"),
        ({"training": Training(epochs=40, learning_rate=1e12)}, StageError, "not finite"),
    ],
)
def test_what_cannot_be_learnt_is_named(
    tmp_path: Path, fields: dict[str, object], kind: type[SeatrialError], what: str
) -> None:
    with pytest.raises(kind, match=what) as caught:
        learn(lesson(school(tmp_path, width=16), **fields), student(), quiet)  # type: ignore[arg-type]
    assert caught.value.next_step
