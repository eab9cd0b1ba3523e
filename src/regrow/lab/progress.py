"""Progress of anything that takes over two seconds: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["follow"]

T = TypeVar("T")

_LINE_EVERY = 5.0  # seconds between plain lines


def follow(
    items: Iterable[T], total: int, title: str, describe: Callable[[T], str], console: Console
) -> Iterator[T]:
    """Yield items as they arrive and show how far it is.

    Args:
        items: what is awaited.
        total: how many there will be.
        title: what is going on.
        describe: a few words on an item that has arrived.
        console: where to print; a bar if it is a terminal, else a line now and then.
    """
    if not console.is_terminal:
        yield from _lines(items, total, title, describe, console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[last]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total, last="")
        for item in items:
            progress.update(task, advance=1, last=describe(item))
            yield item


def _lines(
    items: Iterable[T], total: int, title: str, describe: Callable[[T], str], console: Console
) -> Iterator[T]:
    printed = -_LINE_EVERY
    for done, item in enumerate(items, start=1):
        now = time.monotonic()
        if now - printed >= _LINE_EVERY or done == total:
            console.print(f"{title}: {done}/{total}, last {describe(item)}", soft_wrap=True)
            printed = now
        yield item
