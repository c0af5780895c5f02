"""The verb of single cases: replay a captured request on the artifact that answered it, explain it, contest it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seatrial.optimize.environment import home
from seatrial.optimize.errors import ConfigError, MissingError
from seatrial.optimize.tables import table
from seatrial.optimize.terminal import Json, emit, led, out, store

if TYPE_CHECKING:
    from seatrial.optimize.artifact import Artifact
    from seatrial.optimize.store import Store

    from ..monitor.captured.on_vault import Vault
    from ..monitor.captured.replay import Compared, Effect

_COARSE = ("quantize", "mixed", "qat", "cast")  # stages after which a model computes in fewer bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The captured rows of one request: `columns` by name, the policy that kept them, and a middle of other requests.

    `usual` is the median of each number that was kept, over the segments of the same policy.
    """

    columns: Mapping[str, list[Any]]
    policy: Mapping[str, Any]
    usual: Mapping[str, float]

    def fact(self, name: str) -> Any:
        """Return a fact of the request."""
        return self.columns[name][0]


def case(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model whose requests are recorded.")],
    request: Annotated[str, typer.Argument(metavar="[REQUEST]", help="The x-request-id of the answer.")] = "",
    digest: Annotated[
        str, typer.Option(help="Insist on this artifact: refused where another one answered (sha256:...).")
    ] = "",
    contest: Annotated[str, typer.Option(help="Open a review of this answer, for this reason.")] = "",
    list_: Annotated[bool, typer.Option("--list", help="List the reviews of the model's answers.")] = False,
    json_: Json = False,
) -> None:
    """Replay a captured request on the artifact that answered it, and say what its answer hangs on.

    Attribution is by occlusion on that artifact; a counterfactual is the smallest change of one field towards its usual
    value at which the decision is another. Exit codes: 0 the same answer (within the precision of the model), 1 another
    one, 2 not captured, not replayable, or another artifact answered, 5 a damaged record.
    """
    from ..monitor.captured import cases
    from ..monitor.captured.on_vault import Vault

    folder = home() / "watch" / _model(model)
    if list_:
        _list(cases.listed(folder), json_=json_)
        return
    vault = Vault(model=model, home=folder)
    found = _found(vault, cases.checked(request))
    artifact, held = _artifact(found, request, digest)
    compared, effects = _replayed(found, artifact, held, request)
    equal = all(each.equal for each in compared)
    told = {
        "model": model,
        "request": request,
        "digest": artifact.digest,
        "version": found.fact("version"),
        "equal": equal,
        "outputs": [asdict(each) | {"equal": each.equal} for each in compared],
        "effects": [asdict(each) for each in effects],
    }
    if contest:
        cases.opened(folder, request, contest, artifact.digest, told)
    if json_:
        emit(told | {"contested": bool(contest)})
    else:
        _show(artifact, compared, effects, contested=bool(contest))
    if not equal:
        raise typer.Exit(1)


def _model(name: str) -> str:
    from seatrial.optimize.names import checked

    return checked(name, "model name", where="MODEL")


def _found(vault: "Vault", request: str) -> Found:
    """Return what was captured of a request, whatever the policy of that time.

    Raises:
        MissingError: it was not captured, or the key is missing.
    """
    with vault.holding(vault.secret(), request) as read:
        rows = read.connection.execute('select * from rows where request = ? order by "row"', [request])
        names = [each[0] for each in rows.description]
        values = rows.fetchall()
        if not values:
            notes = "; ".join(read.notes)
            raise MissingError(
                f"the request is not among the captured ones{f' ({notes})' if notes else ''}",
                where=request,
                next_step="only sampled requests are captured, and only from closed segments ([capture] of the plan)",
            )
        kept = [name for name, told in read.policy["fields"].items() if told["keep"] == "allow"]
        usual = {}
        for name in kept:
            quoted = '"' + name.replace('"', '""') + '"'
            middle = read.connection.execute(f"select median(try_cast({quoted} as double)) from rows").fetchone()[0]
            if middle is not None:
                usual[name] = float(middle)
        columns = {name: [row[at] for row in values] for at, name in enumerate(names)}
        return Found(columns=columns, policy=read.policy, usual=usual)


def _artifact(found: Found, request: str, wanted: str) -> "tuple[Artifact, Store]":
    """Return the artifact that answered, and the store that has it.

    Raises:
        ConfigError: it is not known which one answered, or it is not the wanted one.
        MissingError: the store does not have it any more.
    """
    digest = str(found.fact("digest") or "")
    if not digest:
        raise ConfigError(
            "it is not known which artifact answered: no placement of ours had that version",
            where=request,
            next_step="serve placed versions (seatrial place, seatrial up); later requests can then be replayed",
        )
    if wanted not in ("", digest):
        raise ConfigError(
            f"another artifact answered: {digest}", where=request, next_step="leave out --digest, or name that one"
        )
    held = store()
    artifact = held.whole(digest)
    if artifact is None:
        raise MissingError(
            "the artifact that answered is not in the store any more",
            where=digest,
            next_step="build the same recipe again, or restore the store",
        )
    return artifact, held


def _replayed(found: Found, artifact: "Artifact", held: "Store", request: str) -> "tuple[list[Compared], list[Effect]]":
    """Return the comparison of the answers, and the effects of the input's fields.

    Raises:
        ConfigError: the capture lacks what a replay needs; names it.
    """
    from seatrial.optimize.sessions import session

    from ..monitor.captured import replay

    shapes = json.loads(found.fact("shapes"))
    if not shapes["input"] or not shapes["output"]:
        raise ConfigError(
            f"the capture holds no content of this request: {found.fact('reason') or 'no answer'}",
            where=request,
            next_step="its status and reason are all that is kept of it",
        )
    try:
        inputs = replay.rebuilt(found.columns, found.policy, shapes, "input")
        outputs = _outputs(found, shapes)
    except replay.IncompleteError as error:
        raise ConfigError(
            f"this request cannot be replayed: {error}",
            where=request,
            next_step='only requests whose inputs and an output are kept with keep = "allow" can be',
        ) from error
    opened = session.open_session(artifact, held)
    coarse = any(each.made_by.stage in _COARSE for each in held.history(artifact))
    compared = replay.compared(outputs, opened.run(inputs), coarse=coarse)
    fields = _numbers(found, shapes)
    return compared, replay.effects(inputs, fields, found.usual, opened.run, compared[0].output) if fields else []


def _outputs(found: Found, shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outputs that were wholly kept.

    Raises:
        IncompleteError: there is none.
    """
    from ..monitor.captured import replay

    outputs, last = dict[str, Any](), replay.IncompleteError("the answer has no tensors")
    for name in shapes["output"]:
        try:
            outputs |= replay.rebuilt(found.columns, found.policy, {"output": {name: shapes["output"][name]}}, "output")
        except replay.IncompleteError as error:
            last = error
    if not outputs:
        raise last
    return outputs


def _numbers(found: Found, shapes: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """Return tensor and element of each number field of the inputs, where the samples are rows of numbers."""
    return {
        name: (told["tensor"], told["index"])
        for name, told in found.policy["fields"].items()
        if told["side"] == "input" and told["keep"] == "allow" and told["index"] is not None
        if shapes["input"].get(told["tensor"], ["object"])[0].startswith(("float", "int", "uint"))
        and len(shapes["input"][told["tensor"]][1]) > 1
    }


def _show(artifact: "Artifact", compared: "list[Compared]", effects: "list[Effect]", *, contested: bool) -> None:
    for each in compared:
        lead = led("green", "equal ") if each.equal else led("bold red", "different ")
        out.print(lead + f"{each.output} on {artifact.short}: error {each.error:.2g}, allowed {each.tolerance:.2g}")
    if effects:
        head = ("field", "value", "usual", "effect on the decision", "another decision at")
        rows = [
            (
                each.field,
                *(f"{value:.6g}" for value in (each.value, each.usual, each.effect)),
                "nowhere on the way" if each.flips_at is None else f"{each.flips_at:.6g}",
            )
            for each in effects[:20]
        ]
        out.print(table(head, rows, left=("field",), title="Each field at its usual value instead, strongest first"))
    if contested:
        out.print("a review is open (case MODEL --list)")


def _list(found: "list[Any]", *, json_: bool) -> None:
    if json_:
        emit(found)
        return
    head = ("at", "request", "state", "why")
    rows = [(each.at, each.request, each.state, each.contest) for each in found]
    out.print(table(head, rows, left=head, title="Contested answers"))
