"""Draft of a first recipe for a model, with a sample loader to replace, in a new folder.

What the model takes and is made of is looked up (`on_onnx`, `on_modules`); here it is only decided what follows.
Nothing is overwritten, and the samples are random numbers that are clearly marked.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, MachineError
from ..recipe.text import value_text
from ..store import write_atomically
from ..templating import environment
from .engines import others
from .methods import Family, Source, candidates, family, stages
from .model import Input

RECIPE, SAMPLES, DEPLOYMENT = "recipe.toml", "samples.py", "deployment.toml"
FILES = (SAMPLES, DEPLOYMENT, RECIPE)  # the recipe last: with it there, the draft is whole
LARGEST_BATCH = 32
COMPARED_BATCH = 8  # of the drafted search: what a server that joins requests sees most
_TEMPLATES = Path(__file__).with_name("templates")


def draft(model: str, folder: Path, *, name: str = "", inputs: Sequence[Input] = ()) -> tuple[Path, Path, Family]:
    """Write ``recipe.toml``, ``samples.py`` and ``deployment.toml`` for ``MODEL.onnx`` or ``module-or-file:factory``.

    `inputs` replace what would be guessed. Returns the paths of recipe and samples, and the kind of network.

    Raises:
        ConfigError: a file already exists, or the inputs cannot be guessed.
        MissingError, SourceError: no such model, or it cannot be loaded.
    """
    for file in FILES:
        if (folder / file).exists() and (file == RECIPE or not _drafted(folder / file)):
            raise _taken(folder, file)
    if model.endswith(".onnx"):
        from .on_onnx import look

        found = look(Path(model), inputs)
        source: dict[str, Any] = {"onnx": os.path.relpath(model, folder)}
        source |= {"outputs": list(found.kept)} if found.kept else {}
    else:
        from .on_modules import look as look_at_module

        found = look_at_module(model, Path.cwd(), inputs)
        place, _, function = model.rpartition(":")
        moved = f"{os.path.relpath(place, folder)}:{function}" if place.endswith(".py") else model
        source = {"factory": moved}
    kind, form = family(found.operators), _form(source)
    operators = {} if found.as_it_is else found.operators
    values = {
        "name": name or slug(folder.name),
        "source": source,
        "model": found,
        "kind": kind,
        "stages": stages(kind, form, operators),
        "candidates": candidates(kind, form, operators, others()),
        "batch": COMPARED_BATCH if found.batches else 1,
        "largest": LARGEST_BATCH if found.batches else 0,
    }
    rendered = {name: _rendered(name, values).encode() for name in FILES}
    for file, data in rendered.items():
        if (folder / file).exists() and (folder / file).read_bytes() != data:
            raise _taken(folder, file)
    try:
        for file, data in rendered.items():
            write_atomically(folder / file, data)
    except OSError as error:
        raise MachineError(f"cannot write: {error.strerror or error}", where=str(folder)) from error
    return folder / RECIPE, folder / SAMPLES, kind


def _form(source: Mapping[str, Any]) -> Source:
    return "onnx" if "onnx" in source else "factory"


def _drafted(path: Path) -> bool:
    """Tell whether a file begins as a draft does: a killed one may have left it without its recipe."""
    first = (_TEMPLATES / f"{path.name}.j2").read_bytes().split(b"{", 1)[0]
    return path.is_file() and path.read_bytes().startswith(first)


def _taken(folder: Path, name: str) -> ConfigError:
    return ConfigError(
        f"{name} already exists", where=str(folder), next_step="use another --into; nothing is overwritten"
    )


def slug(text: str) -> str:
    """A legal recipe name made of that text."""
    kept = "".join(character if character.isascii() and character.isalnum() else "-" for character in text.lower())
    return kept.strip("-")[:60].rstrip("-") or "model"


def _rendered(name: str, values: Mapping[str, Any]) -> str:
    templates = environment(_TEMPLATES, html=False)  # TOML and Python: texts go through `value_text`
    templates.filters["toml"] = value_text
    return templates.get_template(f"{name}.j2").render(values)
