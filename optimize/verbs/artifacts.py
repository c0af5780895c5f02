"""The verbs `show` and `history`: an artifact, and how it came to be."""

from ..report.show import history_table
from ..terminal import Json, Ref, emit, led, named, out, store


def show(ref: Ref, json_: Json = False) -> None:
    """Show an artifact: files, tensors, hardware contract, provenance."""
    artifact = named(ref)
    if json_:
        emit(artifact.to_json() | {"digest": artifact.digest})
        return
    out.print(led("bold", artifact.name, f" {artifact.format} {artifact.digest}"))
    for spec in (*artifact.inputs, *artifact.outputs):
        side = "in " if spec in artifact.inputs else "out"
        out.print(f"  {side} {spec.name}: {spec.dtype} {list(spec.shape)}", highlight=False, markup=False)
    for file in artifact.files:
        out.print(f"  file {file.path}: {file.size} bytes, {file.digest}", highlight=False)
    out.print(f"  requires: {dict(artifact.requires) or 'nothing'}", highlight=False)
    made = artifact.made_by
    out.print(f"  made by {made.stage} at {made.at}, seed {made.seed}, recipe {made.recipe[:19]}", highlight=False)


def history(ref: Ref, json_: Json = False) -> None:
    """Show the provenance of an artifact: the chain of stages back to its source."""
    chain = store().history(store().get(ref))
    if json_:
        emit({"chain": [artifact.to_json() | {"digest": artifact.digest} for artifact in chain]})
    else:
        out.print(history_table(chain))
