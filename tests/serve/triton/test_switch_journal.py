"""The journal of switches: every state a crash can leave has one remedy, and what is written is what is read."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.errors import IntegrityError, MachineError
from seatrial.serve.triton.repository import journal
from seatrial.serve.triton.repository.journal import (
    RECOVERY,
    SERVINGS,
    STATES,
    Entry,
    Failure,
    lock,
    read,
    serving_of,
    write,
)

VERSIONS = st.lists(st.integers(1, 99), unique=True, max_size=3).map(lambda found: tuple(sorted(found)))


def test_every_state_has_a_remedy() -> None:
    assert set(RECOVERY) == set(itertools.product(STATES, SERVINGS))


def test_only_what_serves_is_finished_from_an_intent_and_only_what_was_proven_from_applied() -> None:
    assert {serving for serving in SERVINGS if RECOVERY["intent", serving] == "finish"} == {"after"}
    assert {RECOVERY["applied", serving] for serving in SERVINGS} == {"finish"}
    assert {RECOVERY["verified", serving] for serving in SERVINGS} == {"nothing"}


@given(before=VERSIONS, after=VERSIONS, state=st.sampled_from(STATES), tries=st.integers(1, 9))
@pytest.mark.slow
def test_what_is_written_is_read(
    before: tuple[int, ...],
    after: tuple[int, ...],
    state: journal.State,
    tries: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    repository = tmp_path_factory.mktemp("journal") / "models"
    entry = Entry(
        model="m",
        state=state,
        before=before,
        after=after,
        at="2026-01-01",
        digests=dict.fromkeys(after, "sha256:1"),
        failures={"sha256:1": Failure(tries=tries, reason="no")},
    )
    write(repository, entry)
    assert read(repository, "m") == entry
    assert journal.journaled(repository) == ("m",)
    assert serving_of(entry, frozenset(after)) == "after"
    assert serving_of(entry, None) == "down"
    assert serving_of(entry, frozenset({100})) == "other"


def test_a_model_never_switched_has_no_journal(tmp_path: Path) -> None:
    assert read(tmp_path / "models", "m") is None
    assert journal.journaled(tmp_path / "models") == ()


@pytest.mark.parametrize("text", ["", "{}", '{"schema":2}', '{"schema":1,"state":"perhaps"}', "[1]"])
def test_a_journal_changed_by_hand_is_refused_with_its_place(text: str, tmp_path: Path) -> None:
    path = journal.journal_path(tmp_path / "models", "m")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(IntegrityError) as caught:
        read(tmp_path / "models", "m")
    assert caught.value.where == str(path)


def test_two_do_not_switch_one_model_at_once(tmp_path: Path) -> None:
    models = tmp_path / "models"
    with (
        lock(models, "m"),
        lock(models, "other", timeout=0.1),
        pytest.raises(MachineError, match="another process"),
        lock(models, "m", timeout=0.1),
    ):
        pass
