"""The error that says a file is damaged, whatever a decoder raises."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator

__all__ = ["damaged", "decoding"]

# Decoders check little: a wrong byte shows as a wrong key, length, type or number.
_RAISED = (
    *(EOFError, LookupError, NotImplementedError, OSError, SyntaxError, TypeError, ValueError),
    *(struct.error, zlib.error),
)


def damaged(of: object, why: object) -> ValueError:
    """Return the error that says a file is damaged.

    Args:
        of: the file, or what of it.
        why: what is wrong.

    Example:
        >>> damaged("tea.csv", "no rows")
        ValueError('tea.csv is damaged (no rows): get it again')
    """
    return ValueError(f"{of} is damaged ({why}): get it again")


@contextlib.contextmanager
def decoding(of: object, *more: type[Exception]) -> Iterator[None]:
    """Turn whatever a decoder raises inside into the error that says the file is damaged.

    A file that is not there is not damaged: that error passes as it is.

    Args:
        of: the file, or what of it.
        more: what else the decoder raises.

    Raises:
        ValueError: the decoder has failed.

    Example:
        >>> with decoding("tea.gz"):
        ...     zlib.decompress(b"tea")
        Traceback (most recent call last):
        ValueError: tea.gz is damaged (Error -3 while decompressing data: incorrect header check): \
get it again
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except _RAISED + more as error:
        raise damaged(of, str(error) or type(error).__name__) from error
