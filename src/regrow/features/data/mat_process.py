"""Reads two variables of a MATLAB file, as a script: SciPy's reader may crash, and then only it.

It is run by its path, so it must not import from this package: that would take seconds. What it
found goes into NPY files, which cannot run anything where they are read.
"""

from __future__ import annotations

import contextlib
import math
import sys
from pathlib import Path
from typing import Any

__all__ = ["NOT_THERE", "PARTS", "TOO_LARGE"]

NOT_THERE = 3
"""The exit status if a variable is not in the file, or holds no numbers."""
TOO_LARGE = 4
"""The exit status if the variables say they take more bytes than are allowed; it says how many."""
PARTS = ("data", "indices", "indptr", "shape")
"""What a sparse matrix is saved as."""


_BYTES = {"double": 8, "int64": 8, "uint64": 8, "single": 4, "int32": 4, "uint32": 4}
_BYTES |= {"int16": 2, "uint16": 2, "int8": 1, "uint8": 1, "logical": 1}


def _main(file: str, folder: str, allowed: str, memory: str, x: str, y: str) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not everywhere
        import resource  # noqa: PLC0415

        resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from scipy.io import loadmat, whosmat  # noqa: PLC0415

    there = whosmat(file)
    size = sum(math.prod(shape) * _BYTES.get(kind, 0) for n, shape, kind in there if n in (x, y))
    if size > int(allowed):
        _end(str(size), TOO_LARGE)
    content: dict[str, Any] = loadmat(file, variable_names=[x, y])
    for name, saved_as in ((x, "x"), (y, "y")):
        if name not in content:
            _end(f"no variable {name!r}; it holds {', '.join(n for n, *_ in there) or 'none'}")
        _save(content[name], name, Path(folder), saved_as)


def _save(value: Any, name: str, folder: Path, saved_as: str) -> None:
    import numpy as np  # noqa: PLC0415
    from scipy import sparse  # noqa: PLC0415

    parts = {saved_as: value}
    if sparse.issparse(value):
        columns = value.tocsc()
        parts = {f"{saved_as}.{part}": np.asarray(getattr(columns, part)) for part in PARTS}
    for place, part in parts.items():
        array = np.asarray(part)
        if array.dtype.kind not in "biuf":
            _end(f"variable {name!r} holds {array.dtype}, not numbers")
        np.save(folder / f"{place}.npy", array, allow_pickle=False)


def _end(why: str, status: int = NOT_THERE) -> None:
    print(why.encode("ascii", "backslashreplace").decode(), file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    _main(*sys.argv[1:])
