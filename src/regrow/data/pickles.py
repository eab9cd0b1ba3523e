"""Pickles of arrays, read without running anything: for CIFAR, which is published so.

A pickle is a program, and may call whatever it can name. Here it can name three things, and gets
stand-ins for them: not even numpy's own code sees what the file says before it was checked.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.reading import damaged

__all__ = ["read_pickle"]

_CORES = ("numpy.core.multiarray", "numpy._core.multiarray")  # before numpy 2, and since
_PLAIN = (dict, list, tuple, str, bytes, int, float, bool, type(None))


def read_pickle(content: bytes, of: str) -> dict[str, Any]:
    """Read a dictionary of uint8 arrays and plain values.

    Args:
        content: the pickle, of Python 2 or 3.
        of: the file it is from.

    Returns:
        The dictionary, its keys as text; arrays are numpy's.

    Raises:
        ValueError: it is damaged, or asks for anything else; nothing it asks for was run.

    Example:
        >>> read_pickle(pickle.dumps({b"labels": [1, 2]}), "a file")
        {'labels': [1, 2]}
        >>> read_pickle(pickle.dumps(eval), "a file")
        Traceback (most recent call last):
        ValueError: a file asks for builtins.eval, as no published data set does: nothing was \
run; get it again from its publisher
    """
    try:
        read = _Reader(io.BytesIO(content), of).load()
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # a damaged pickle may raise anything
        raise damaged(of, f"{type(error).__name__}: {error}") from error
    if not isinstance(read, dict):
        raise damaged(of, "it holds no dictionary")
    return {_text(key): _value(value, of) for key, value in read.items()}


class _RefusedError(Exception):
    pass


class _Array:
    """Stands for an array until all of it is known."""

    def __init__(self, *_: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> npt.NDArray[np.uint8]:
        _, shape, dtype, fortran, content = self.state
        if not isinstance(dtype, _DType) or dtype.name != "u1" or type(content) is not bytes:
            raise TypeError("an array is not of uint8")
        if len(content) != math.prod(shape):
            raise TypeError(f"{len(content)} bytes for an array of shape {shape}")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


class _DType:
    """Stands for a dtype."""

    def __init__(self, name: Any = "", *_: object) -> None:
        self.name = _text(name)

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and the like: a byte has none


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, of: str) -> None:
        super().__init__(file, encoding="bytes")
        self._of = of

    def find_class(self, module: str, name: str) -> Any:
        if module in _CORES and name == "_reconstruct":
            return _Array
        if (module, name) == ("numpy", "ndarray"):
            return "ndarray"  # handed to _Array, which has no use for it; calls nothing
        if (module, name) == ("numpy", "dtype"):
            return _DType
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return _latin1
        raise _RefusedError(
            f"{self._of} asks for {module}.{name}, as no published data set does: nothing was run; "
            "get it again from its publisher"
        )


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise TypeError(f"text is encoded as {encoding!r}")
    return text.encode("latin1")


def _text(key: Any) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def _value(value: Any, of: str) -> Any:
    if isinstance(value, _Array):
        try:
            return value.array()
        except (TypeError, ValueError) as error:
            raise damaged(of, error) from error
    if not isinstance(value, _PLAIN):
        raise damaged(of, f"it holds a {type(value).__name__}")
    return value
