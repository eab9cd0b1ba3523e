"""The command line: a function a command, whose signature is its options and docstring its help.

Commands import what they need when they are called, and options of the command that is named are
found out alone, so that ``--help`` is fast.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec

import regrow
from regrow.cli.checks import check_no_empty
from regrow.cli.commands import check_words, make_app
from regrow.machine import how_to_install

__all__ = ["main"]

_ABOUT = """Train neural networks on less: sparse training in PyTorch.

"regrow COMMAND --help" tells the options of a command, "regrow --version" the version."""


def main() -> None:
    """Run the command line; an error a user can mend is one line, not a traceback."""
    for stream in (sys.stdout, sys.stderr):  # a sign the terminal has not must not cost the rest
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _ranks() as first:
            if first:
                _call(sys.argv[1:])
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        # One after the other they would be told one a run.
        missing = [one for one in ("tyro", "rich") if find_spec(one) is None]
        names = " ".join(missing if package in missing else [package])
        sys.exit(f"regrow: {package} is missing: {how_to_install(names, 'all')}")
    except BrokenPipeError:  # what reads our output, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit("regrow: stopped")
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"regrow: {error}")


def _ranks() -> AbstractContextManager[bool]:
    """Bring the ranks that torchrun started together; yields whether this is the first."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return nullcontext(True)
    from regrow.lab.ranks import all_ranks  # noqa: PLC0415  (imports torch)

    return all_ranks()


def _call(words: list[str]) -> None:
    if words in (["--version"], ["-V"]):
        print(f"regrow {regrow.__version__}")
        return
    check_no_empty(words)
    check_words(words)
    if words[:2] == ["control", "train"]:
        from regrow.cli.pixels import spelt  # noqa: PLC0415  (imports torch)

        words = spelt(words)
    make_app(words).cli(prog="regrow", description=_ABOUT, args=words)
