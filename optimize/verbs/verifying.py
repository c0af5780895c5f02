"""The verb `verify`: checks every stored byte under SEATRIAL_HOME, and repairs damage on request."""

from collections.abc import Iterable
from typing import Annotated

import typer

from .. import environment as machine
from ..errors import ConfigError
from ..inspection import Inspector, shown
from ..store_check import inspect
from ..store_repair import repair as repairing
from ..terminal import Json, emit, out, store


def verify(
    context: typer.Context,
    ref: Annotated[
        str, typer.Argument(help="An artifact: a tag, a digest, or the first digits of one. Default: everything.")
    ] = "",
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Restore what can be restored without loss; move the rest to quarantine."),
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="With --repair: remove artifacts that stay incomplete from the index.")
    ] = False,
    json_: Json = False,
) -> None:
    """Check every stored byte against its digest: of an artifact and its ancestors, or of everything.

    Everything means the store, the build's cache and the releases. Nothing damaged is deleted: --repair moves it to a
    quarantine folder, and the next build makes it again. Exit code 5: damage was found (or is left).
    """
    if forget and not repair:
        raise ConfigError("--forget needs --repair", next_step="run: seatrial verify --repair --forget")
    if ref and repair:
        raise ConfigError(
            "--repair works on the whole store, not on one artifact", next_step="run: seatrial verify --repair"
        )
    if not ref:
        inspectors = context.obj["inspectors"].values()  # of the floors above
        _verify_all(inspectors, repair=repair, forget=forget, json_=json_)
        return
    kept = store()
    chain = kept.history(kept.get(ref))
    for artifact in chain:
        for file in artifact.files:
            kept.path(artifact, file.path)
    if json_:
        emit({"whole": [artifact.digest for artifact in chain]})
    else:
        out.print(f"whole: {chain[0].short} and {len(chain) - 1} ancestors, every byte matches its digest")


def _verify_all(inspectors: Iterable[Inspector], *, repair: bool, forget: bool, json_: bool) -> None:
    kept = store()
    found = repairing(kept, forget=forget) if repair else inspect(kept)
    for look in inspectors:
        found += look(machine.home(), repair)
    if json_:
        emit(found)
    else:
        for text in found.repaired:
            out.print(f"repaired: {shown(text)}", markup=False, highlight=False, soft_wrap=True)
        for each in found.damage:
            out.print(f"damaged: {shown(each.what)}", markup=False, highlight=False, soft_wrap=True)
            out.print(f"  where: {shown(each.where)}", markup=False, highlight=False, soft_wrap=True)
            out.print(f"  next:  {shown(each.next_step)}", markup=False, highlight=False, soft_wrap=True)
        for text in found.remarks:
            out.print(f"note: {shown(text)}", markup=False, highlight=False, soft_wrap=True)
        counts = ", ".join(f"{number} {name}" for name, number in found.counts.items())
        out.print(f"{f'{len(found.damage)} damaged' if found.damage else 'whole'}: {counts}", highlight=False)
        if repair and any(each.part in ("blob", "record", "manifest") for each in found.damage):
            out.print("to forget what no build can make again: seatrial verify --repair --forget", highlight=False)
    raise typer.Exit(found.exit_code)
