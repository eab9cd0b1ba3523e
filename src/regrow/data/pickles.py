"""Pickles of arrays, read without running anything: for what is published so, such as CIFAR.

A pickle is a program for a machine that builds whatever it can name. Here is a smaller machine: it
knows values, lists, tuples, dictionaries and arrays of bytes, and whatever else is asked of it
ends the reading.
"""

from __future__ import annotations

import io
import itertools
import math
import pickle
import pickletools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.reading import UnreadableError, damaged, decoding, refused

__all__ = ["read_pickle", "read_pickles"]

_RECONSTRUCT = {"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"}
_KNOWN = {*_RECONSTRUCT, "numpy.ndarray", "numpy.dtype", "_codecs.encode"}
_VALUES = {  # operations that say a value
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_BYTES = {"u1": "uint8"}  # what arrays may be of
_NUMBERS = {**_BYTES, "f8": "float64"}
_PLACES = 1 << 31  # of what is kept to be used again
_MARK = object()


def read_pickle(content: bytes, of: str) -> dict[str, Any]:
    """Read a dictionary of uint8 arrays and plain values.

    Args:
        content: the pickle, of Python 2 or 3.
        of: the file it is from.

    Returns:
        The dictionary, its keys as text; arrays are numpy's.

    Raises:
        UnreadableError: it is damaged, or asks for anything else; nothing it asks for was run.

    Example:
        >>> read_pickle(pickle.dumps({b"labels": [1, 2]}), "a file")
        {'labels': [1, 2]}
        >>> read_pickle(pickle.dumps(eval), "a file")
        Traceback (most recent call last):
        regrow.reading.UnreadableError: a file asks for builtins.eval, as no published data set \
does: nothing was run; get it again from its publisher
    """
    with decoding(of):
        read = _Machine(of).run(content)
        if not isinstance(read, dict):
            raise damaged(of, "it holds no dictionary")
        return {_text(key): _value(value) for key, value in read.items()}


def read_pickles(content: bytes, of: str) -> list[Any]:
    """Read pickles that follow each other, as ``torch.save`` wrote them before it wrote zip files.

    Args:
        content: the pickles.
        of: the file they are from.

    Returns:
        Of each its value: lists, dictionaries, plain values, arrays of uint8 and float64.

    Raises:
        UnreadableError: as of :func:`read_pickle`.

    Example:
        >>> read_pickles(pickle.dumps([{"red": 0.5}]) + pickle.dumps(1), "a file")
        [[{'red': 0.5}], 1]
    """
    found, file = [], io.BytesIO(content)
    with decoding(of):
        while file.tell() < len(content):
            # Each value takes a byte at least, unless values are shared, again and again.
            found.append(_nested(_Machine(of).run(file), itertools.count(-len(content))))
    return found


def _nested(value: Any, left: Iterator[int], depth: int = 8) -> Any:
    if depth == 0 or next(left) >= 0:
        raise ValueError("values in each other, deeper than 8 or more than there are bytes")
    if isinstance(value, list | tuple):
        return [_nested(one, left, depth - 1) for one in value]
    if isinstance(value, dict):
        return {_text(key): _nested(one, left, depth - 1) for key, one in value.items()}
    return _value(value, _NUMBERS)


class _Named:
    """Stands for what a pickle names, one of few things."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Array:
    """Stands for an array until all of it is known."""

    state: Any = None

    def array(self, kinds: Mapping[str, str]) -> npt.NDArray[Any]:
        _, shape, dtype, fortran, content = self.state
        if not isinstance(dtype, _DType) or dtype.name not in kinds or type(content) is not bytes:
            raise TypeError(f"an array is not of {' or '.join(kinds.values())}")
        if dtype.state is not None and (len(dtype.state) != 8 or dtype.state[0] not in (3, 4)):
            raise TypeError(f"a type in the form {dtype.state}, which numpy does not write")
        if dtype.name == "f8" and (dtype.state or ("", "<"))[1] not in ("<", b"<"):
            raise TypeError("numbers whose first byte is the highest")
        kind = np.dtype(kinds[dtype.name])
        if min(shape, default=0) < 0 or len(content) != kind.itemsize * math.prod(shape):
            raise TypeError(f"{len(content)} bytes for an array of shape {shape}")
        return np.frombuffer(content, kind).reshape(shape, order="F" if fortran else "C")


class _DType:
    """Stands for a dtype."""

    state: Any = None  # byte order and the like: a byte has none

    def __init__(self, name: object) -> None:
        self.name = _text(name)


class _Machine:
    """Builds what a pickle says, of plain values and the stand-ins above.

    Args:
        of: the file it is from.
    """

    def __init__(self, of: str) -> None:
        self._of = of
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, content: bytes | io.BytesIO) -> Any:
        size = len(content) if isinstance(content, bytes) else content.getbuffer().nbytes
        for operation, argument, place in pickletools.genops(content):
            try:
                if operation.name == "FRAME" and (place or 0) + 9 + (argument or 0) > size:
                    raise ValueError(f"it breaks off before {argument} bytes more")
                self._step(operation.name, argument)
            except UnreadableError:
                raise
            except Exception as error:
                why = f"{operation.name} at byte {place}: {type(error).__name__}: {error}"
                raise damaged(self._of, why) from error
        if len(self._stack) != 1:
            raise ValueError(f"it ends with {len(self._stack)} values, not one")
        return self._stack[0]

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "PROTO" if argument > pickle.HIGHEST_PROTOCOL:
                raise ValueError(f"there is no protocol {argument}")
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                stack.append(_MARK)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "STRING" | "BINSTRING" | "SHORT_BINSTRING":  # Python 2's, which are bytes
                stack.append(argument.encode("latin1"))
            case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_TUPLE":
                stack.append({"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}[name]())
            case "LIST":
                stack.append(self._marked())
            case "TUPLE":
                stack.append(tuple(self._marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._last(int(name[-1]))))
            case "DICT":
                self._fill({}, self._marked())
            case "APPEND" | "APPENDS":
                items = self._last(1) if name == "APPEND" else self._marked()
                _only(list, stack[-1]).extend(items)
            case "SETITEM" | "SETITEMS":
                items = self._last(2) if name == "SETITEM" else self._marked()
                self._fill(_only(dict, stack.pop()), items)
            case "PUT" | "BINPUT" | "LONG_BINPUT" if 0 <= argument < _PLACES:
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                self._name(*argument.split(" ", 1))
            case "STACK_GLOBAL":
                self._name(*self._last(2))
            case "REDUCE":
                stack.append(_made(*self._last(2)))
            case "BUILD":
                state = stack.pop()
                if not isinstance(stack[-1], _Array | _DType):
                    raise TypeError(f"a {type(stack[-1]).__name__} has no state")
                stack[-1].state = state
            case _ if name in _VALUES:
                stack.append(argument)
            case _:
                raise TypeError("no published data set needs it")

    def _last(self, count: int) -> list[Any]:
        """Take values from the stack."""
        if len(self._stack) < count:
            raise IndexError("the stack is empty")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _marked(self) -> list[Any]:
        """Take values from the stack, down to the last mark."""
        taken: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            taken.append(value)
        return taken[::-1]

    def _fill(self, entries: dict[Any, Any], items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Only of text, for a tuple of tuples takes exponential time to hash.
            entries[_only(bytes | str, key)] = value
        self._stack.append(entries)

    def _name(self, module: Any, name: Any) -> None:
        if (full := f"{_only(str, module)}.{_only(str, name)}") not in _KNOWN:
            raise refused(
                self._of,
                f"asks for {full}, as no published data set does",
                "nothing was run; get it again from its publisher",
            )
        self._stack.append(_Named(full))


def _made(what: Any, arguments: Any) -> Any:
    """Return what a call of one of the known names would give."""
    name = _only(_Named, what).name
    if name in _RECONSTRUCT and arguments[1:] == (
        (0,),
        b"b",
    ):  # empty, of bytes, for the time being
        return _Array()
    if name == "numpy.dtype":
        kind, _, _ = arguments  # whether it is aligned, and copied
        return _DType(kind)
    if name == "_codecs.encode" and arguments[1] in ("latin1", b"latin1"):
        return _only(str, arguments[0]).encode("latin1")  # how Python 3 writes bytes for Python 2
    raise TypeError(f"{name} is called")


def _only(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} where there must be another type")
    return value


def _text(key: Any) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(_only(str, key))


def _value(value: Any, kinds: Mapping[str, str] = _BYTES) -> Any:
    if isinstance(value, _Array):
        return value.array(kinds)
    return _only(dict | list | tuple | bytes | str | int | float | None, value)
