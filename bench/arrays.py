"""Raw arrays of a run, read so that damage is an error with the file's name. Knows the container, not what it holds."""

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.optimize.errors import IntegrityError
from seatrial.optimize.reading import RESTORE, SHAPE_ERRORS, read_bytes

MOST_VALUES = 1 << 30  # bytes of all arrays of one file, unpacked
_BROKEN = (*SHAPE_ERRORS, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


def read_arrays(path: Path, names: Sequence[str], *, next_step: str = RESTORE) -> dict[str, NDArray[Any]]:
    """Return the arrays of those names: one-dimensional and of real numbers. No pickle is ever loaded.

    Raises:
        FileNotFoundError: there is no such file.
        IntegrityError: not such a file, an array is missing or of another kind.
    """
    data = read_bytes(path, next_step=next_step)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            if sum(each.file_size for each in packed.infolist()) > MOST_VALUES:
                raise ValueError("its arrays are too large")
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            found = {name: stored[name] for name in names}
    except (*_BROKEN, SyntaxError, MemoryError) as error:
        raise IntegrityError(f"not readable as arrays: {error}", where=str(path), next_step=next_step) from error
    for name, array in found.items():
        if array.ndim != 1 or array.dtype.kind not in "fiu":
            raise IntegrityError(f"{name} is not a list of numbers", where=str(path), next_step=next_step)
    return found
