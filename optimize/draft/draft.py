"""Draft of a first recipe for a model, with a sample loader to replace, in a new folder.

What the model takes and is made of is looked up (`on_onnx`, `on_modules`); here it is only decided what that
Nothing is overwritten, and the samples are random numbers that are clearly marked.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError, MachineError
from ..recipe.text import value_text
from ..store import write_atomically
from ..templating import environment
from .model import Input

Family = Literal["cnn", "transformer", "mlp"]
RECIPE, SAMPLES, DEPLOYMENT = "recipe.toml", "samples.py", "deployment.toml"
FILES = (SAMPLES, DEPLOYMENT, RECIPE)  # the recipe last: with it there, the draft is whole
LARGEST_BATCH = 32
_PRODUCTS_EACH = 8  # a transformer's layer has six matrix products with weights to one attention
_TEMPLATES = Path(__file__).with_name("templates")


def family(operators: Mapping[str, int]) -> Family:
    """Guess the kind of network from its operator counts: a single product of two activations makes no transformer.

    More attention than convolutions does, and at least one in eight matrix products; else convolutions make a CNN.
    """
    attention, convolutions = operators.get("Attention", 0), operators.get("Conv", 0)
    products = operators.get("MatMul", 0) + operators.get("Gemm", 0)
    if attention > convolutions and _PRODUCTS_EACH * attention >= products:
        return "transformer"
    return "cnn" if convolutions else "mlp"


def stages(kind: Family, source: Literal["factory", "onnx"], operators: Mapping[str, int]) -> list[dict[str, Any]]:
    """The stages to begin with, those that need no training: export, and int8 where there is something to quantize.

    In a transformer only the matrix products are quantized, so that normalizations and softmax stay fused in float. An
    ONNX file without anything to quantize needs no stage.
    """
    found: list[dict[str, Any]] = [{"kind": "export"}] if source == "factory" else []
    if any(operators.get(name, 0) for name in ("Conv", "MatMul", "Gemm")):
        products = [name for name in ("MatMul", "Gemm") if operators.get(name, 0) or source == "factory"]
        found.append({"kind": "quantize"} | ({"operators": products} if kind == "transformer" else {}))
    return found


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
    kind = family(found.operators)
    planned = stages(kind, "onnx" if "onnx" in source else "factory", found.operators) if not found.as_it_is else []
    values = {
        "name": name or slug(folder.name),
        "source": source,
        "model": found,
        "kind": kind,
        "stages": planned,
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
