"""Lay out the cases of third-party models, whose recipes name sources ``../../m/NAME.onnx`` and ``../../gen/NAME.py``.

The programs beside the cases write the sources; what a program cannot import it leaves out, and only the sources that
the recipe names are asked for. The drafts of that time state a contract that cannot fail, which is refused by now: each
recipe is built under the default contract, as the refusal advises.
"""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from seatrial.optimize.errors import MissingError

_MAKERS = ("onnxes.py",)  # beside the cases; what a case makes itself lies in its own folder


def is_one(recipe: Path) -> bool:
    """Return whether a recipe belongs to these cases."""
    return (recipe.parent.parent / _MAKERS[0]).is_file()


def lay_out(recipe: Path, room: Path, environment: Mapping[str, str]) -> Path:
    """Copy a case into the empty folder `room`, make its source, and return the folder that its recipe lies in.

    Raises:
        MissingError: no program makes the source.
    """
    case = recipe.parent
    generated, here = room / "gen", room / "c" / case.name
    for folder in (generated, room / "m"):
        folder.mkdir(parents=True)
    shutil.copytree(case, here)
    for program in (*case.parent.glob("*.py"), *case.glob("*.py")):
        if program.name != "samples.py":
            shutil.copy(program, generated)
    lines = recipe.read_text().splitlines(keepends=True)
    (here / recipe.name).write_text("".join(line for line in lines if not line.startswith("parity = ")))
    source = tomllib.loads(recipe.read_text())["source"]
    makers = [generated / name for name in _MAKERS] if "onnx" in source else []
    makers += [generated / each.name for each in case.glob("*.py") if each.name != "samples.py" and "onnx" in source]
    for maker in makers:
        subprocess.run([sys.executable, str(maker)], cwd=room, env=environment, capture_output=True, check=False)
    wanted = here / (source.get("onnx") or source["factory"].rpartition(":")[0])
    if not wanted.is_file():
        raise MissingError(f"nothing makes {wanted.name}", where=str(recipe), next_step="see the programs beside it")
    return here
