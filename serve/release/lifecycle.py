"""The lifecycle of a model as a table: states, and the entries of the trail that lead from one to the next.

Pure. The trail is signed, so a state is nothing that somebody wrote down: it follows from what was done.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from .trail import Entry

State = Literal["proposal", "development", "validation", "deployment", "monitoring", "retirement"]
STATES: Final[tuple[State, ...]] = (
    "proposal",
    "development",
    "validation",
    "deployment",
    "monitoring",
    "retirement",
)
Act = Literal["trained", "gated", "registered", "placed", "served", "on trial", "kept", "taken back", "retired"]
ACTS: Final[tuple[Act, ...]] = (
    "trained",
    "gated",
    "registered",
    "placed",
    "served",
    "on trial",
    "kept",
    "taken back",
    "retired",
)

TABLE: Final[Mapping[State, Mapping[Act, State]]] = {
    "proposal": {
        "trained": "development",
        "gated": "development",
        "registered": "validation",
        "placed": "deployment",
        "served": "monitoring",
    },
    "development": {
        "registered": "validation",
        "placed": "deployment",
        "served": "monitoring",
        "retired": "retirement",
    },
    "validation": {"placed": "deployment", "served": "monitoring", "retired": "retirement"},
    "deployment": {"served": "monitoring", "kept": "monitoring", "taken back": "monitoring", "retired": "retirement"},
    "monitoring": {"on trial": "deployment", "retired": "retirement"},
    "retirement": {"trained": "development", "registered": "validation", "placed": "deployment"},
}
"""The state after each act; an act that is not listed changes nothing. A new version of a retired model begins anew."""


def state_of(entries: Iterable[Entry]) -> State:
    """Return the state that the entries of one model, oldest first, lead to."""
    state: State = "proposal"
    for entry in entries:
        act = act_of(entry)
        if act is not None:
            state = TABLE[state].get(act, state)
    return state


def act_of(entry: Entry) -> Act | None:
    """Return what an entry means for the lifecycle; None where it means nothing.

    Retiring one version of several is no retirement of the model: its entry says how many are left.
    """
    details = entry.details
    if entry.event == "switched":
        return "on trial" if len(details.get("shares", ())) > 1 else "served"
    if entry.event == "rollout":
        phases: Mapping[str, Act] = {
            "started": "on trial",
            "promoted": "kept",
            "rolled_back": "taken back",
            "aborted": "taken back",
        }
        return phases.get(str(details.get("phase")))
    if entry.event == "retired":
        return None if details.get("left") else "retired"
    plain: Mapping[str, Act] = {"trained": "trained", "gated": "gated", "registered": "registered", "placed": "placed"}
    return plain.get(entry.event)
