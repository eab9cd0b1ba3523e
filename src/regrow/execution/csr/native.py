"""Finds, compiles if need be, and loads the library of C kernels.

Looked for in this order: the file shipped beside the sources, a copy in the user's cache folder, a
compiler to make that copy with. Without any of them `fallback` takes over, and a warning says why.
The environment variable `REGROW_KERNELS` forces one: `native` (an error if there is none) or
`torch`.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from regrow.execution.csr import build
from regrow.execution.csr.build import NoLibraryError
from regrow.execution.csr.cached import cached_library

__all__ = ["SETS", "Matrix", "library"]

logger = logging.getLogger("regrow")


# Passed for a tensor without numbers, whose own address is 0: to C that would mean that there is no
# tensor, and memcpy may not even be given it to copy nothing.
_NO_NUMBERS = ctypes.create_string_buffer(64)
_EMPTY = ctypes.addressof(_NO_NUMBERS)


class _Pointer:
    """The type of an argument that is a tensor, whose memory is passed; None is NULL."""

    @staticmethod
    def from_param(value: Any) -> Any:
        """Return what ctypes passes on.

        Raises:
            TypeError: the tensor has no memory that C could read: the process would die.
        """
        if not isinstance(value, torch.Tensor):  # a structure by reference, or None
            return ctypes.c_void_p.from_param(value)
        if value.is_neg():
            raise TypeError(
                "a lazily negated view holds other numbers than it shows: resolve_neg()"
            )
        # Another device's address, or the 0 of a meta or fake tensor, would end the process.
        held = value.data_ptr() if value.is_cpu else 0
        if not held and value.numel():
            raise TypeError(
                f"a {type(value).__name__} on {value.device} has no memory on the CPU, where the "
                "kernels compute"
            )
        return ctypes.c_void_p.from_param(held or _EMPTY)


_POINTER, _LONG, _INT = _Pointer, ctypes.c_int64, ctypes.c_int
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "regrow_set": (ctypes.c_char_p, [_INT]),
    "regrow_sources": (ctypes.c_char_p, []),
    "regrow_use": (_INT, [_INT]),
    "regrow_lanes": (_INT, []),
    "regrow_largest": (_INT, []),
    "regrow_rows": (_LONG, [_LONG, _POINTER, _INT, _LONG, _LONG, _POINTER, _POINTER]),
    "regrow_positions": (None, [_LONG, _POINTER, _POINTER, _LONG, _POINTER]),
    "regrow_locate": (_LONG, [_LONG, _POINTER, _LONG, _POINTER, _POINTER]),
    "regrow_merge": (None, [_LONG, _POINTER, _LONG, _POINTER, _POINTER]),
    "regrow_mark": (None, [_LONG, _POINTER, _POINTER]),
    "regrow_above": (
        _LONG,
        [
            *[_LONG, _LONG, _LONG, _POINTER, _LONG, _POINTER, _LONG],
            *[ctypes.c_float, _LONG, _POINTER, _POINTER, _INT],
        ],
    ),
    "regrow_transpose": (
        None,
        [_LONG, _POINTER, _POINTER, _POINTER, _LONG, _LONG, _LONG, _POINTER, _POINTER, _POINTER],
    ),
    "regrow_split": (None, [_LONG, _POINTER, _POINTER, _LONG, _LONG, _POINTER]),
    "regrow_pack": (None, [_LONG, _LONG, _POINTER, _LONG, _LONG, _POINTER, _LONG, _INT]),
    "regrow_epilogue_backward": (
        None,
        [_LONG, _LONG, _POINTER, _LONG, _POINTER, _LONG, _POINTER, _LONG, _POINTER, _INT],
    ),
    "regrow_multiply": (
        _INT,
        [
            *[_POINTER, _POINTER, _POINTER, _LONG, _POINTER, _LONG, _INT, _LONG],
            *[_POINTER, _INT, _INT],
        ],
    ),
    "regrow_linear": (
        _INT,
        [
            *[_POINTER, _POINTER, _POINTER, _LONG, _LONG, _LONG, _POINTER, _LONG],
            *[_POINTER, _LONG, _LONG, _POINTER, _INT, _INT],
        ],
    ),
    "regrow_linear_backward": (
        _INT,
        [
            *[_POINTER, _POINTER, _POINTER, _POINTER, _LONG, _POINTER, _LONG, _LONG],
            *[_POINTER, _LONG, _POINTER, _POINTER, _LONG, _INT, _POINTER, _LONG, _INT],
        ],
    ),
    "regrow_dot": (
        None,
        [_POINTER, _POINTER, _POINTER, _LONG, _POINTER, _LONG, _LONG, _INT],
    ),
    "regrow_convolve": (
        _INT,
        [_POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _INT, _INT],
    ),
    "regrow_convolve_dot": (
        _INT,
        [_POINTER, _POINTER, _POINTER, _LONG, _POINTER, _POINTER, _INT],
    ),
    "regrow_convolve_planes": (
        _INT,
        [_POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _INT, _INT],
    ),
    "regrow_tasks": (_LONG, [_POINTER]),
    "regrow_moments": (None, [_LONG, _LONG, _POINTER, _POINTER, _POINTER, _INT]),
    "regrow_normalize": (None, [_LONG, _LONG, *[_POINTER] * 5, _INT]),
    "regrow_normalize_backward": (
        None,
        [_LONG, _LONG, *[_POINTER] * 5, _INT, *[_POINTER] * 3, _INT],
    ),
}
SETS = 4  # instruction sets that the library was compiled for, the slowest first


class Matrix(ctypes.Structure):
    """`struct sparse` of the C sources: the structure of a sparse matrix."""

    _fields_ = (
        ("rows", _LONG),
        ("columns", _LONG),
        ("blocks", _LONG),
        ("step", _LONG),
        ("pointers", ctypes.c_void_p),
        ("split", ctypes.c_void_p),
        ("index", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
    )


def _load_openmp() -> None:
    """Make the symbols of torch's own OpenMP runtime visible to libraries loaded later."""
    folder = Path(torch.__file__).parent / "lib"
    bundled = sorted(
        p for name in ("libgomp", "libomp", "libiomp5") for p in folder.glob(name + "*")
    )
    for name in [*map(str, bundled), "libgomp.so.1"]:
        try:
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return


def _load(path: Path) -> ctypes.CDLL:
    try:
        found = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(found, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise NoLibraryError(f"{path} cannot be loaded: {error}", refused=True) from error
    if found.regrow_sources().decode() != build.source_hash():
        raise NoLibraryError(f"{path} was made of other sources", refused=True)
    return found


def _find(*, again: bool) -> ctypes.CDLL:
    """Return the library: the shipped one, else the cached one, else one for a single thread.

    Raises:
        NoLibraryError: there is none.
    """
    _load_openmp()
    shipped = build.SOURCES / build.library_name()
    ways: list[Callable[[], Path]] = [lambda: shipped] if shipped.exists() else []
    ways += [functools.partial(cached_library, openmp, again=again) for openmp in (True, False)]
    reasons: list[str] = []
    for way in ways:
        try:
            found = _load(way())
        except NoLibraryError as error:
            reasons.append(str(error))
            if not error.refused:
                break
            continue
        if way is ways[-1]:
            logger.warning("the kernels compute with one thread only: %s", "; ".join(reasons))
        return found
    raise NoLibraryError("; ".join(dict.fromkeys(reasons)))


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the loaded library with its best instruction set chosen, or None.

    Raises:
        ValueError: `REGROW_KERNELS` is set to something else than `native` or `torch`.
        RuntimeError: `REGROW_KERNELS=native`, but there is no library and no way to make one.
    """
    forced = os.environ.get("REGROW_KERNELS", "")
    if forced not in ("", "native", "torch"):
        raise ValueError(
            f"REGROW_KERNELS={forced!r} is not known; allowed are 'native' and 'torch'"
        )
    if forced == "torch":
        return None
    try:
        found = _find(again=forced == "native")
    except NoLibraryError as error:
        if forced == "native":
            raise RuntimeError(
                "REGROW_KERNELS=native, but no kernel library was found and none could be "
                f"compiled: {error}; install a C compiler, or unset the variable to compute with "
                "torch"
            ) from error
        logger.warning(
            "csr layers compute with torch, which is slower, for there are no C kernels: %s. "
            "REGROW_KERNELS=native in the environment tries again; REGROW_KERNELS=torch wants it "
            "so, and says nothing",
            error,
        )
        return None
    for number in reversed(range(SETS)):
        if found.regrow_use(number):
            break
    return found
