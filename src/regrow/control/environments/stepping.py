"""A process that steps some of the runs of a population: it is asked by its standard input."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from typing import Any

from regrow.control.environments.base import Environments

__all__: list[str] = []


def answer(environments: Any, what: str, given: Any) -> Any:
    """Do what is asked, and return what there is to tell."""
    if what == "begin":
        run, random, environments.seeds[run], environments._numbers[run] = given
        environments.begin_(run, random)
        environments._numbers[run] += 1
        environments._steps[run] = 0
        return None
    if what == "advance":
        rewards, terminated = environments.advance_(given)
        environments._steps += 1
        return rewards, terminated, environments.observe()
    if what == "set_state":
        state, environments.seeds[:], environments._numbers[:], environments._steps[:] = given
        environments.set_state_(state)
        return environments.observe()
    return getattr(environments, what)()  # state, observe, foreground


def main() -> None:
    """Make the environments, tell what they are, and answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is none of the answers
    asked = sys.stdin.buffer
    environments: Environments | None = None
    while True:
        try:
            what, given = pickle.load(asked)
        except EOFError:
            return
        told: tuple[bool, Any]
        try:
            if environments is None:
                make, arguments = given
                environments = make(**arguments)
                sizes = environments.observations, environments.actions, environments.episode
                told = True, sizes
            else:
                told = True, answer(environments, what, given)
        except Exception as error:
            told = False, error
        try:
            out.write(pickle.dumps(told))
            out.flush()
        except BrokenPipeError:  # who asked has gone
            return


if __name__ == "__main__":
    main()
