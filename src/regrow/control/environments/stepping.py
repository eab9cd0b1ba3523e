"""A process that steps some of the runs of a population: it is asked by its standard input."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from typing import Any

from regrow.control.environments.base import Environments
from regrow.control.environments.catalogue import make

__all__: list[str] = []


def answer(environments: Environments, what: str, given: Any) -> Any:
    """Do what is asked, and return what there is to tell."""
    if what == "begin":
        run, random = given
        environments.begin_(run, random)
        return environments.observe()[run]
    if what == "advance":
        rewards, terminated = environments.advance_(given)
        return rewards, terminated, environments.observe()
    if what == "state":
        return environments.state()
    state, steps = given
    environments._steps[:] = steps
    environments.set_state_(state)
    return environments.observe()


def main() -> None:
    """Make the environments, tell what they are, and answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks
    out = os.fdopen(os.dup(1), "wb", buffering=0)
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
                environments = make(**given)
                sizes = environments.observations, environments.actions, environments.episode
                told = True, sizes
            else:
                told = True, answer(environments, what, given)
        except Exception as error:
            told = False, error
        try:
            out.write(pickle.dumps(told))
        except BrokenPipeError:  # who asked has gone
            return


if __name__ == "__main__":
    main()
