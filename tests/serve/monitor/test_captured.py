"""What is kept of captured requests: each policy, exact values, encrypted segments, and what damage does to them."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from seatrial.optimize.errors import ConfigError, IntegrityError, MissingError
from seatrial.serve.monitor.captured.on_vault import KEY, Vault
from seatrial.serve.monitor.captured.policy import Capture, Kept
from seatrial.serve.monitor.captured.rows import Captured, Row, rows, tensor, text
from seatrial.serve.monitor.captured.segments import MAGIC, paths
from seatrial.serve.monitor.on_duckdb import opened
from seatrial.serve.monitor.plan import Feature, Plan, load_plan
from tests.support.commands import within

CAPTURE = Capture(
    fields={
        "age": Kept(keep="allow", tensor="x", index=0),
        "who": Kept(keep="hash", tensor="x", index=1),
        "there": Kept(keep="mask", tensor="x", index=2),
        "secret": Kept(tensor="x", index=3),
        "y": Kept(keep="allow", side="output"),
    }
)
SECRET = np.float32(8191.4375)


def captured(number: int, *, at: float = 0.0, digest: str = "", **changed: object) -> Captured:
    x = np.array([[number + 0.1, 77.0, 3.0, SECRET], [number, 77.0, 3.0, SECRET]], np.float32)
    made = {"request": f"r{number}", "at": at or 1e9 + number, "version": 2, "digest": digest, "status": 200}
    return Captured(**(made | {"inputs": {"x": x}, "outputs": {"y": x[:, :2] * 2}} | changed))  # type: ignore[arg-type]


def kept(*numbers: int) -> list[Row]:
    return [row for number in numbers for row in rows(captured(number), CAPTURE, b"key")]


def test_each_field_is_kept_as_its_policy_says_and_the_rest_nowhere() -> None:
    first, second = kept(5)
    assert (first["age"], second["age"]) == (repr(float(np.float32(5.1))), "5.0")
    assert first["who"] == second["who"] != "77.0"
    assert len(str(first["who"])) == 32
    assert first["there"] == "*"
    assert json.loads(str(first["y"])) == [float(np.float32(5.1) * 2), 154.0]
    assert "8191.4375" not in json.dumps([first, second])
    assert "secret" not in first
    assert (first["request"], first["row"], second["row"]) == ("r5", 0, 1)
    assert rows(captured(5), CAPTURE, b"another")[0]["who"] != first["who"]


def test_a_request_without_content_is_one_row_with_its_reason() -> None:
    (row,) = rows(captured(1, inputs={}, outputs={}, status=503, reason="failed: no_healthy_upstream"), CAPTURE, b"k")
    assert (row["status"], row["reason"], row["age"], row["who"], row["there"]) == (
        503,
        "failed: no_healthy_upstream",
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    "values",
    [
        np.array([[1.1], [np.pi]], np.float32),
        np.array([[np.nan]], np.float64),
        np.array([[2**63 - 1]], np.int64),
        np.array([[True], [False]]),
        np.array([["é [1]".encode()]], dtype=object),
    ],
)
def test_values_read_back_exactly(values: np.ndarray) -> None:  # type: ignore[type-arg]
    back = tensor([text(each) for each in values], str(values.dtype), whole=False)
    assert back is not None
    assert back.dtype == values.dtype
    assert back.tolist() == values.tolist() or np.isnan(back).all()


def sealed(home: Path, *segments: Sequence[int]) -> tuple[Vault, list[Path]]:
    vault = Vault(model="m", home=home)
    secret = vault.secret(make=True)
    return vault, [vault.seal(kept(*numbers), CAPTURE, secret) for numbers in segments]


def requests(vault: Vault) -> tuple[list[str], dict[str, int]]:
    with vault.read(vault.secret()) as read:
        found = read.connection.execute("select distinct request from rows order by request").fetchall()
        return [each[0] for each in found], dict(read.skipped)


def test_segments_are_read_back_and_show_nothing_to_who_has_no_key(tmp_path: Path) -> None:
    vault, files = sealed(tmp_path, [1, 2], [3])
    assert requests(vault) == (["r1", "r2", "r3"], {})
    assert [each.name for each in files] == ["2001-09-09T01-00001.seg", "2001-09-09T01-00002.seg"]
    assert (tmp_path / KEY).stat().st_mode & 0o777 == 0o600
    for path in files:
        assert b"PAR1" not in path.read_bytes()
        assert SECRET.tobytes() not in path.read_bytes()


def test_half_changed_foreign_and_future_segments_are_skipped_and_counted(tmp_path: Path) -> None:
    vault, files = sealed(tmp_path, [1], [2], [3], [4], [5])
    half, changed, policy, future, whole = files
    half.write_bytes(half.read_bytes()[:40])
    changed.write_bytes(changed.read_bytes()[:-1] + bytes([changed.read_bytes()[-1] ^ 1]))
    policy.write_bytes(policy.read_bytes().replace(b'"keep": "hash"', b'"keep": "mask"'))
    future.write_bytes(future.read_bytes().replace(b'"schema": 1', b'"schema": 2'))
    found, skipped = requests(vault)
    assert found == ["r5"]
    assert skipped == {
        "half a segment, or none": 1,
        "damaged: its content is not what was sealed": 1,
        "a segment whose policy is not the one of its digest": 1,
        "a segment of schema 2": 1,
    }
    assert whole.read_bytes().startswith(MAGIC)
    with vault.read(vault.secret()) as read, pytest.raises(IntegrityError, match="too many to learn from"):
        read.refuse_lossy(tmp_path)


def test_a_head_that_tells_another_time_is_found_out(tmp_path: Path) -> None:
    vault, (path, _) = sealed(tmp_path, [1], [2])
    path.write_bytes(path.read_bytes().replace(b'"first": 1000000001.0', b'"first": 1000000009.0'))
    assert requests(vault) == (["r2"], {"damaged: its content is not what was sealed": 1})


def test_a_lost_key_is_not_replaced_where_segments_need_it(tmp_path: Path) -> None:
    vault, _ = sealed(tmp_path, [1])
    (tmp_path / KEY).unlink()
    with pytest.raises(MissingError, match="key is missing"):
        vault.secret(make=True)
    (tmp_path / KEY).write_bytes(bytes(32))
    with pytest.raises(ConfigError, match="readable for other users"):
        vault.secret()
    (tmp_path / KEY).chmod(0o600)
    with pytest.raises(MissingError, match="sealed by another key"), vault.read(vault.secret()):
        pass


def test_rows_of_another_policy_are_skipped(tmp_path: Path) -> None:
    vault, _ = sealed(tmp_path, [1])
    vault.seal(kept(2), Capture(fields={"age": Kept(keep="hash", tensor="x", index=0)}), vault.secret())
    assert requests(vault) == (["r2"], {"captured by another policy": 1})
    with vault.holding(vault.secret(), "r1") as read:
        assert read.connection.execute("select age from rows where request = 'r1' and row = 1").fetchall() == [("1.0",)]


def test_segments_that_are_too_old_are_deleted(tmp_path: Path) -> None:
    import os

    vault, (old, broken) = sealed(tmp_path, [1], [2])
    new = vault.seal(rows(captured(3, at=time.time()), CAPTURE, b"key"), CAPTURE, vault.secret())
    broken.write_bytes(b"")
    assert vault.forget(3600.0) == 0  # just written
    for path in (old, broken, new):
        os.utime(path, (1e9, 1e9))
    assert vault.forget(3600.0) == 2
    assert paths(vault.folder) == [new]


def test_a_plan_reads_what_was_captured_and_its_baseline_holds_when_the_capture_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEATRIAL_HOME", str(tmp_path))
    plan = Plan(schema=1, model="m", features={"age": Feature(kind="number")}, time="at", capture=CAPTURE)
    assert plan.digest == Plan(schema=1, model="m", features=plan.features, time="at").digest
    with pytest.raises(MissingError, match="key"), opened(plan, []):
        pass
    vault, _ = sealed(tmp_path / "watch" / "m", range(40), range(40, 60))
    failed = rows(captured(70, outputs={}, status=503, reason="failed: timeout"), CAPTURE, b"key")
    vault.seal(failed, CAPTURE, vault.secret())
    with opened(plan, []) as traffic:
        assert (traffic.rows, traffic.first, traffic.last) == (120, 1e9, 1e9 + 59)
        assert traffic.between(1e9 + 3, 1e9 + 4)["age"].tolist() == [float(np.float32(3.1)), 3.0]
        traffic.refuse_lossy()


def test_a_field_may_not_take_the_name_of_a_fact(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('schema = 1\nmodel = "m"\n[features.a]\nkind = "number"\n[capture.fields.status]\nkeep = "allow"\n')
    with pytest.raises(ConfigError, match="every captured row"):
        load_plan(path)


def test_learn_says_what_to_do_where_nothing_was_captured(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('schema = 1\nmodel = "m"\n[features.a]\nkind = "number"\n')
    done = within("learn", str(path), home=tmp_path)
    assert done.exit_code == 2
    assert "key of the captured rows is missing" in done.output


def test_a_kill_while_the_key_is_made_leaves_none_and_the_next_one_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    vault = Vault(model="m", home=tmp_path)
    for name in ("fsync", "link"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, killed)
            with pytest.raises(KeyboardInterrupt):
                vault.secret(make=True)
        assert not (tmp_path / KEY).exists()
    assert vault.secret(make=True).name == vault.secret().name
    assert (tmp_path / KEY).stat().st_mode & 0o777 == 0o600
