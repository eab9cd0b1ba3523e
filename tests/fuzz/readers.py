"""Malformed files of every format, in every reader: read rightly, or refused by name and reason.

A case makes a small right file, damages it, and reads it in a process with little memory and time.
What is read must be what an independent reader of that format finds in the same bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import os
import random
import resource
import signal
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from regrow.data.tables import as_numbers, read_csv
from regrow.features.data import mat as mat_module
from regrow.reading import LIMIT
from tests.formats import FORMATS, Format, same_table
from tests.fuzz.budget import main
from tests.malformed import malform

Image.init()

MEMORY = 3 << 29  # bytes beside what this process has already
SECONDS, WALL = 30, 600  # of the CPU; by the clock, should it wait for something


def equal(found: Any, expected: Any) -> bool:
    """Tell whether a reader and its oracle found the same."""
    if isinstance(found, dict):
        return (
            isinstance(expected, dict)
            and found.keys() == expected.keys()
            and all(equal(value, expected[key]) for key, value in found.items())
        )
    if isinstance(found, bytes | list) and not isinstance(expected, np.ndarray):
        return found == expected
    one, other = (np.asarray(x) for x in (found, expected))
    if one.shape != other.shape:
        return False
    if "O" in (one.dtype.kind, other.dtype.kind):
        one, other = (as_numbers(x.astype(object)) if _numeric(x) else x for x in (one, other))
    if {one.dtype.kind, other.dtype.kind} <= set("fiub"):
        return np.array_equal(one.astype(float), other.astype(float), equal_nan=True)
    return one.tolist() == other.tolist()


def _numeric(column: np.ndarray) -> bool:
    return all(value is None or isinstance(value, float | int) for value in column.tolist())


def judge(format_: Format, path: Path) -> str:
    """Read a file; return what became of it, and raise where that is wrong."""
    try:
        found = format_.read(path)
    except (ValueError, FileNotFoundError) as error:
        said = str(error)
        assert str(path) in said or path.parent.name in said, f"no file is named: {error!r}"
        assert len(said) > len(str(path)) + 10, f"no reason is given: {error!r}"
        assert type(error).__module__ in ("builtins", "regrow.reading"), f"foreign: {error!r}"
        assert not isinstance(error, UnicodeError), f"foreign: {error!r}"
        return "refused"
    expected = format_.oracle(path.read_bytes())
    same = same_table(found, expected) if format_.read is read_csv else equal(found, expected)
    assert same, f"read as {found!r:.700}, is {expected!r:.700}"
    return "read"


def in_a_process(work: Callable[[], str]) -> str:
    """Do something in a process with little memory and time; return what it says."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            try:
                said = "+" + work()
            except BaseException as error:
                said = "-" + "".join(traceback.format_exception(error))[-3000:]
            os.write(write, said.encode("utf-8", "backslashreplace"))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert said, f"the process died: {os.waitstatus_to_exitcode(status)}"
    assert said[0] == "+", said[1:]
    return said[1:]


def limit() -> None:
    """Give this process little memory and time from here on."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    allowed = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
    used = math.ceil(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
    resource.setrlimit(resource.RLIMIT_CPU, (used + SECONDS, used + SECONDS))
    signal.alarm(WALL)


def case(rng: random.Random) -> str:
    """Read one malformed file of one format."""
    name = rng.choice(sorted(FORMATS))
    format_ = FORMATS[name]

    def work() -> str:
        mat_module._INTERPRETER = 1 << 30
        os.environ[LIMIT] = str(64 << 20)  # so that bombs take less time
        if format_.bombs and rng.random() < 0.05:
            way, content = "bomb", rng.choice(format_.bombs)()
        elif format_.packed and rng.random() < 0.7:  # inside, with right checksums
            way, content = malform(rng, gzip.decompress(format_.make(rng)))
            content = gzip.compress(content)
        else:
            way, content = malform(rng, format_.make(rng))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"a{format_.ending}"
            path.write_bytes(content)
            limit()
            try:
                return judge(format_, path)
            except BaseException as error:
                error.add_note(f"{name}, {way}, {content[:600]!r}")
                raise

    return f"{name} {in_a_process(work)}"


if __name__ == "__main__":
    main("readers", case, budget=4000)
