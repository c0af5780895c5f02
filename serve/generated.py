"""Folders of generated text files: YAML as a person would write it, and one step from the old content to the new."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from seatrial.optimize import scratch
from seatrial.optimize.errors import MachineError

STAGED = ".seatrial-render"


class _Text(yaml.SafeDumper):  # type: ignore[misc]
    """Texts of several lines as blocks, and no anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_Text.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def yaml_text(content: Sequence[Any]) -> str:
    """Return documents as one YAML text, their keys in their order."""
    return str(yaml.dump_all(content, Dumper=_Text, sort_keys=False, width=120, explicit_start=len(content) > 1))


@contextmanager
def swapped(files: Mapping[str, str], folder: Path, what: str) -> Iterator[Path]:
    """Stage the files beside `folder`, and let the folder be what was staged at the end of the block, in one step.

    Raises:
        MachineError: the disk refused; the folder is as it was.
    """
    folder = folder.absolute()
    scratch.sweep(folder.parent, STAGED)
    try:
        with scratch.folder(STAGED, folder.parent) as staged:
            for path, text in files.items():
                (staged / path).parent.mkdir(parents=True, exist_ok=True)
                (staged / path).write_text(text)
            yield staged
            scratch.take_over(staged, folder)
    except OSError as error:
        raise MachineError(
            f"cannot write the {what}: {error.strerror or error}",
            where=str(error.filename or folder),
            next_step="free space there, or name another folder",
        ) from error
