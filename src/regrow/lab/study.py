"""A study: a question asked of a paper, as trials, figures, tables and claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regrow.lab.claims import Claim
from regrow.lab.records import Records
from regrow.lab.trial import Trial

if TYPE_CHECKING:  # the page needs matplotlib, a list of studies does not
    from regrow.lab.report import Section

__all__ = ["Preset", "Study", "check_data"]


def check_data(data: str | None, known: Sequence[str]) -> None:
    """Refuse data that a preset does not know.

    Args:
        data: what was asked for; None is the preset's own choice.
        known: names of data sets.

    Raises:
        ValueError: it is none of them.
    """
    if data is not None and data not in known:
        raise ValueError(f"data={data!r}: this preset knows {', '.join(known)}")


@dataclass(frozen=True)
class Preset:
    """A size at which a study can be run.

    Args:
        cost: what it takes, in words, such as "20 minutes on two CPU cores".
        trials: makes the trials for a data set, given by name; for None, the preset's own choice.
            An unknown name is a ValueError.
    """

    cost: str
    trials: Callable[[str | None], Sequence[Trial]]


@dataclass(frozen=True)
class Study:
    """A question asked of a paper.

    Args:
        name: on the command line.
        title: heading of its page.
        source: the paper.
        about: a few sentences on the question and its controls.
        presets: by name: "smoke", "quick", "paper".
        claims: what is decided.
        sections: makes figures and tables of the records. What they need and is not there may be a
            ValueError: the page then says so.
    """

    name: str
    title: str
    source: str
    about: str
    presets: Mapping[str, Preset]
    claims: Sequence[Claim]
    sections: Callable[[Records], Sequence[Section]]

    def trials(self, preset: str, data: str | None = None) -> list[Trial]:
        """Make the trials of a preset.

        Args:
            preset: its name.
            data: a data set's name; None is the preset's own choice.

        Raises:
            ValueError: no such preset, or no such data.
        """
        if preset not in self.presets:
            raise ValueError(
                f"preset={preset!r}: {self.name} has {', '.join(map(repr, self.presets))}"
            )
        return list(self.presets[preset].trials(data))
