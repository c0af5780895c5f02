"""Source of a rendering: one placed version of a repository, its pinned configuration, and every file's digest.

Reads a repository; writes nothing.
"""

from dataclasses import dataclass
from pathlib import Path

from seatrial.optimize.artifact import digest_file
from seatrial.optimize.environment import home
from seatrial.optimize.errors import MissingError
from seatrial.optimize.store import Store

from ..errors import ConfigRuleError
from ..triton.compiler.config import parse, read_text, with_versions
from ..triton.repository import vouching
from ..triton.repository.placement import placements

_STOCK = "tritonserver"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Version `version` of `model`: the text of its config.pbtxt and sha256 (bare hex) by path of each of its files."""

    model: str
    version: int
    config: str
    files: tuple[tuple[str, str], ...]


def newest(repository: Path, model: str) -> int:
    """The highest placed version.

    Raises:
        MissingError: none is placed.
    """
    placed = placements(repository, model)
    if not placed:
        raise MissingError(
            f"no version of {model!r} is placed there",
            where=str(repository),
            next_step="place one first: seatrial place DEPLOYMENT --backend native --elsewhere --repository DIR",
        )
    return placed[-1].version


def read_source(repository: Path, model: str, version: int, *, image: str) -> Source:
    """A placed version as a cluster serves it: alone, so that its Service pins it.

    Raises:
        MissingError: that version is not placed.
        IntegrityError: the version is not what was placed.
        ConfigRuleError: the image cannot serve it, or its config.pbtxt is damaged.
    """
    known = {placement.version: placement for placement in placements(repository, model)}
    if version not in known:
        raise MissingError(
            f"{model} has no placed version {version}",
            where=str(repository),
            next_step=f"placed versions: {sorted(known)}",
        )
    vouching.check(repository, (model,), Store(home() / "store"), versions=(version,))
    folder = known[version].path
    lines = with_versions(read_text(folder.parent / "config.pbtxt"), (version,)).splitlines(keepends=True)
    config = "".join(line for line in lines if not line.startswith("#"))  # comments tell of other versions
    if parse(config).backend == "python" and image.rpartition("/")[2] == _STOCK:
        raise ConfigRuleError(
            'backend = "python" needs ONNX Runtime in the server\'s Python, which the stock image lacks',
            where=f"{model} version {version}, image {image}",
            next_step="place it with --backend native, or name your own image with ONNX Runtime (cluster file, image)",
        )
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = tuple((str(path.relative_to(folder)), digest_file(path).removeprefix("sha256:")) for path in paths)
    return Source(model=model, version=version, config=config, files=files)
