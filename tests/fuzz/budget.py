"""Runs a fuzzer: random cases from a seed until its budget is spent, then counts on one line.

A case is a function of its own random numbers. It returns a few words on what it tried, by which
cases are counted, and raises where something is wrong. Any case runs again by itself with --only.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable

Case = Callable[[random.Random], str]

_TELL_EVERY = 10.0  # seconds


def run(case: Case, seed: int, numbers: Iterable[int], name: str = "") -> tuple[Counter, list[str]]:
    """Run the cases of these numbers; return how many were of each kind, and what went wrong."""
    kinds: Counter = Counter()
    wrong: list[str] = []
    told = time.monotonic()
    for done, number in enumerate(numbers, start=1):
        try:
            kinds[case(random.Random(f"{seed}/{number}"))] += 1
        except Exception:
            wrong.append(f"case {number} of seed {seed}:\n{traceback.format_exc()}")
            print(wrong[-1], flush=True)
        if time.monotonic() - told > _TELL_EVERY:
            told = time.monotonic()
            print(f"{name}: {_counts(done, kinds, wrong)}", flush=True)
    return kinds, wrong


def _counts(cases: int, kinds: Counter, wrong: list[str]) -> str:
    by_kind = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
    return f"{cases} cases, {len(wrong)} wrong: {by_kind}"


def main(name: str, case: Case, budget: int) -> None:
    """Read a fuzzer's command line, run it, print the counts; exit 1 if a case was wrong."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.fuzz.{name}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=budget, help="how many cases")
    parser.add_argument("--only", type=int, help="the number of a case, to run it again")
    given = parser.parse_args()
    numbers = range(given.budget) if given.only is None else [given.only]
    kinds, wrong = run(case, given.seed, numbers, name)
    print(f"{name}: seed {given.seed}, {_counts(len(numbers), kinds, wrong)}")
    sys.exit(1 if wrong else 0)
