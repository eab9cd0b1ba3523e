"""Questions and people's answers, in one SQLite file that several processes may use at once."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from regrow.control.people.drawings import Clip
from regrow.engine.checks import check_choice

__all__ = ["CHOICES", "Preferences", "Question"]

CHOICES = ("first", "second", "equal", "skip")
"""Answers, that is which clip is better, that they are equal, or that one cannot tell."""

_HELD = 120.0  # seconds for which a question that one browser shows is not given to another
_TABLES = """
CREATE TABLE IF NOT EXISTS questions (
    number INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, clips TEXT NOT NULL,
    asked REAL NOT NULL, shown_to TEXT, shown REAL
);
CREATE TABLE IF NOT EXISTS answers (
    place INTEGER PRIMARY KEY AUTOINCREMENT, question INTEGER NOT NULL UNIQUE
    REFERENCES questions (number), choice TEXT NOT NULL, person TEXT NOT NULL, given REAL NOT NULL
);
"""

_COLUMNS = {
    "questions": ["number", "digest", "clips", "asked", "shown_to", "shown"],
    "answers": ["place", "question", "choice", "person", "given"],
}


@dataclass(frozen=True)
class Question:
    """Two clips to be compared.

    Args:
        number: of the question, in its file.
        clips: the first and the second.
    """

    number: int
    clips: tuple[Clip, Clip]


class Preferences:
    """Questions and answers in a file. Every write is on the disk before its call returns.

    A question is known by its clips: asked again, by a training that was killed and goes on, it is
    the same one, and its answer is there.

    Args:
        path: the file; it is made if there is none.

    Raises:
        ValueError: the file is damaged, or of something else; the message names it.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> clip, other = (Clip((0, 0, 1, 1), 25, [[[0, 0, 0, 1, y]]]) for y in (0, 1))
        >>> with TemporaryDirectory() as folder:
        ...     preferences = Preferences(Path(folder) / "answers.sqlite")
        ...     numbers = preferences.ask([(clip, other)])
        ...     preferences.answer(numbers[0], "second", "ada")
        ...     preferences.answers(numbers), preferences.next("ada")
        True
        (['second'], None)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as file:
            if (said := file.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(said)
            _check_tables(file)
            file.execute("PRAGMA journal_mode=WAL")
            file.executescript(_TABLES)

    def ask(self, pairs: Sequence[tuple[Clip, Clip]]) -> list[int]:
        """Add questions that are not there yet; return the numbers of all of them."""
        rows = []
        for pair in pairs:
            text = json.dumps([asdict(clip) for clip in pair], separators=(",", ":"))
            rows.append((hashlib.sha256(text.encode()).hexdigest(), text, time.time()))
        insert = "INSERT OR IGNORE INTO questions (digest, clips, asked) VALUES (?, ?, ?)"
        with self._open() as file:
            file.executemany(insert, rows)
            find = "SELECT number FROM questions WHERE digest = ?"
            return [file.execute(find, (digest,)).fetchone()[0] for digest, *_ in rows]

    def next(self, person: str) -> Question | None:
        """Return an open question for somebody, and keep it from others for two minutes.

        Args:
            person: who asks, a name of a browser or a human being.

        Returns:
            None: all are answered, or before others.
        """
        now = time.time()
        find = """SELECT number, clips FROM questions
            WHERE number NOT IN (SELECT question FROM answers)
            AND (shown_to IS NULL OR shown_to = ? OR shown < ?) ORDER BY number LIMIT 1"""
        with self._open() as file:
            found = file.execute(find, (person, now - _HELD)).fetchone()
            if found is None:
                return None
            mark = "UPDATE questions SET shown_to = ?, shown = ? WHERE number = ?"
            file.execute(mark, (person, now, found[0]))
        first, second = (Clip(**clip) for clip in json.loads(found[1]))
        return Question(found[0], (first, second))

    def answer(self, number: int, choice: str, person: str) -> bool:
        """Keep an answer; return False if there is one already, which stays.

        Raises:
            ValueError: there is no such choice, or no such question.
        """
        check_choice(choice, CHOICES, "choice")
        insert = """INSERT OR IGNORE INTO answers (question, choice, person, given)
            SELECT number, ?, ?, ? FROM questions WHERE number = ?"""
        with self._open() as file:
            kept = file.execute(insert, (choice, person, time.time(), number)).rowcount
            if kept:
                return True
            if file.execute("SELECT 1 FROM questions WHERE number = ?", (number,)).fetchone():
                return False
        raise ValueError(f"question {number}: {self.path} has none of that number")

    def undo(self, person: str) -> int | None:
        """Take somebody's latest answer back; return its question's number, or None."""
        find = "SELECT place, question FROM answers WHERE person = ? ORDER BY place DESC LIMIT 1"
        with self._open() as file:
            found = file.execute(find, (person,)).fetchone()
            if found is None:
                return None
            file.execute("DELETE FROM answers WHERE place = ?", (found[0],))
        return int(found[1])

    def answers(self, numbers: Sequence[int]) -> list[str | None]:
        """Return the answers to questions, None where there is none yet."""
        find = "SELECT choice FROM answers WHERE question = ?"
        with self._open() as file:
            found = [file.execute(find, (number,)).fetchone() for number in numbers]
        return [None if one is None else str(one[0]) for one in found]

    def counts(self) -> tuple[int, int]:
        """Return how many questions there are, and how many of them are answered."""
        count = "SELECT (SELECT COUNT(*) FROM questions), (SELECT COUNT(*) FROM answers)"
        with self._open() as file:
            asked, answered = file.execute(count).fetchone()
        return asked, answered

    def export(self) -> list[dict[str, Any]]:
        """Return all questions that have an answer, with clips, as plain data."""
        find = """SELECT clips, choice, person, given FROM answers
            JOIN questions ON questions.number = answers.question ORDER BY place"""
        with self._open() as file:
            return [
                {"clips": json.loads(clips), "choice": choice, "person": person, "given": given}
                for clips, choice, person, given in file.execute(find)
            ]

    def read(self, exported: Sequence[Mapping[str, Any]]) -> int:
        """Take over what :meth:`export` gave; return how many answers were new.

        Raises:
            ValueError: an entry is no answer; the message tells its place, and nothing was read.
        """
        entries = [_checked(place, entry) for place, entry in enumerate(exported)]
        numbers = self.ask([pair for pair, _, _ in entries])
        given = zip(numbers, entries, strict=True)
        return sum(self.answer(number, choice, who) for number, (_, choice, who) in given)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the file for one transaction: kept whole, or not at all."""
        try:
            file = sqlite3.connect(self.path, timeout=30.0)
        except sqlite3.OperationalError as error:
            raise OSError(f"{self.path}: cannot be opened or made ({error})") from error
        try:
            with file:
                file.execute("PRAGMA synchronous=FULL")
                file.execute("PRAGMA foreign_keys=ON")
                yield file
        except sqlite3.OperationalError as error:
            raise OSError(
                f"{self.path}: {error}; nothing of this was kept: look whether the disk is full, "
                "or the file may not be written"
            ) from error
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{self.path} is no file of preferences, or damaged ({error}): give another, or "
                "save what is left with sqlite3's command .recover"
            ) from error
        finally:
            file.close()


def _check_tables(file: sqlite3.Connection) -> None:
    """Raise DatabaseError if there are tables of something else, before anything is written."""
    found = file.execute("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'").fetchall()
    for (name,) in found:
        columns = [row[0] for row in file.execute("SELECT name FROM pragma_table_info(?)", (name,))]
        if columns != _COLUMNS.get(name):
            raise sqlite3.DatabaseError(f"it has {name} with {', '.join(columns)}")


def _checked(place: int, entry: Mapping[str, Any]) -> tuple[tuple[Clip, Clip], str, str]:
    try:
        first, second = (Clip(**clip) for clip in entry["clips"])
        check_choice(entry["choice"], CHOICES, "choice")
        return (first, second), entry["choice"], str(entry["person"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"entry {place}: is no exported answer ({error})") from error
