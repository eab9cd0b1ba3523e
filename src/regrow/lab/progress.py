"""Progress of anything that takes over two seconds: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

__all__ = ["follow"]

_LOOK_EVERY = 1.0  # seconds between looks at what is under way
_LINE_EVERY = 5.0  # seconds between plain lines, at first
_TELLING = 0.01  # the share done from which the time left is told
_LISTED = 4  # more than so many under way are told as one number


@contextmanager
def follow(
    title: str,
    total: int,
    console: Console,
    *,
    done: int = 0,
    shares: Callable[[], Sequence[float]] = tuple,
    words: Callable[[], str] = str,
    heard: Callable[[], float] = float,
) -> Iterator[Callable[[str], None]]:
    """Show how far it is, until the block ends.

    Args:
        title: what is going on.
        total: how many things there are.
        console: where to print; a bar if it is a terminal, else a line now and then.
        done: how many of them were done before.
        shares: tells how far those under way are, each from 0 to 1; asked about once a second.
        words: tells what is under way.
        heard: tells when, as of `time.monotonic`, something else was last said of it, which plain
            lines do not say again.

    Yields:
        What to call when one more is done, with a few words on it.
    """
    state = _State(title, total, done, shares, words, heard)
    show = _bar if console.is_terminal else _lines
    with show(state, console) as look:
        stop = threading.Event()
        watch = threading.Thread(target=_watch, args=(look, stop), daemon=True)
        watch.start()

        def advance(words: str) -> None:
            state.done, state.last = state.done + 1, words
            look()

        try:
            yield advance
        finally:
            stop.set()
            watch.join()


def _watch(look: Callable[[], None], stop: threading.Event) -> None:
    while not stop.wait(_LOOK_EVERY):
        look()


@dataclass
class _State:
    title: str
    total: int
    done: int
    shares: Callable[[], Sequence[float]]
    words: Callable[[], str] = str
    heard: Callable[[], float] = float
    last: str = ""

    def __post_init__(self) -> None:
        self.before, self.started = self.done, time.monotonic()

    def look(self) -> tuple[float, str]:
        """Return how many are done, parts of those under way included, and that in words."""
        under_way = self.shares()
        done = min(self.done + sum(under_way), float(self.total))
        said = [f"{self.done}/{self.total}"] if self.total > 1 else []
        if len(under_way) > _LISTED:
            mean = sum(under_way) / len(under_way)
            said.append(f"{len(under_way)} under way, {mean:.0%} done on average")
        elif under_way:
            said.append("under way " + " ".join(f"{share:.0%}" for share in under_way))
        if now := self.words():
            said.append(now)
        elapsed = time.monotonic() - self.started
        # Less tells how long it took to begin, not how long it will take.
        if self.before + _TELLING * (self.total - self.before) <= done < self.total:
            left = elapsed / (done - self.before) * (self.total - done)
            said.append(f"about {_duration(left)} left")
        if self.last:
            said.append(f"last {self.last}")
        return done, ", ".join(said)


@contextmanager
def _bar(state: _State, console: Console) -> Iterator[Callable[[], None]]:
    words = TextColumn("{task.fields[words]}", table_column=Column(no_wrap=True, ratio=1))
    columns = (TextColumn("{task.description}"), BarColumn(20), words)
    with Progress(*columns, console=console, transient=True, expand=True) as progress:
        task = progress.add_task(state.title, total=state.total, words="")

        def look() -> None:
            done, words = state.look()
            progress.update(task, completed=done, words=words)

        look()
        yield look


@contextmanager
def _lines(state: _State, console: Console) -> Iterator[Callable[[], None]]:
    lock = threading.Lock()
    due, said = state.started, ""

    def look() -> None:
        nonlocal due, said
        with lock:
            now = time.monotonic()
            # In a long run a line every few seconds would bury what else is said.
            pause = min(60.0, max(_LINE_EVERY, (now - state.started) / 20))
            if now < max(due, state.heard() + pause) and state.done < state.total:
                return
            due = now + pause
            words = state.look()[1]
            if words and words != said:
                console.print(f"{state.title}: {words}", soft_wrap=True, highlight=False)
            said, state.last = words, ""  # what was last done is said once

    yield look


def _duration(seconds: float) -> str:
    """Say a duration in one unit.

    Example:
        >>> [_duration(seconds) for seconds in (7.2, 130, 9000)]
        ['7 s', '2 min', '2.5 h']
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
