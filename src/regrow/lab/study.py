"""A study: a question asked of a paper, as trials, claims and a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrow.lab.claims import UNFIT, Claim
from regrow.lab.design import Labelled
from regrow.lab.learnt import Known
from regrow.lab.section import Section
from regrow.lab.trial import Trial
from regrow.lab.view import View

__all__ = ["Part", "Prepare", "Preset", "Study", "Together"]

Part = Callable[[View], Iterable[Section]]
"""Makes figures or tables of labelled records; a ValueError says that they do not give them."""

Together = Callable[
    [Sequence[Trial], Path, Mapping[str, Any]], Iterable[tuple[list[Trial], dict[str, Any]]]
]
"""Returns parts of trials, with more options for each; takes trials, a folder and options."""


Prepare = Callable[[Sequence[Trial], Mapping[str, Any], Callable[[str], object]], None]
"""Makes what trials share; takes trials, options, and what is told of it as it goes on."""


@dataclass(frozen=True)
class Preset:
    """A size at which a study can be run; the same trials on every machine.

    Args:
        cost: what it takes, in words, such as "20 minutes on two CPU cores".
        designs: makes the labelled trials of each data set, by its name.
        default: the data set that is run if none is named; None: all of them.
        judges: whether verdicts may rest on it; not on one that only tries whether all runs.
    """

    cost: str
    designs: Mapping[str, Callable[[], Iterable[Labelled]]]
    default: str | None = None
    judges: bool = True

    def trials(self, data: str | None = None) -> list[Labelled]:
        """Make the trials of a data set, or of the preset's own choice.

        Raises:
            ValueError: the preset does not know the data set.
        """
        if data is not None and data not in self.designs:
            raise ValueError(f"data={data!r}: this preset knows {', '.join(self.designs)}")
        chosen = data or self.default
        names = self.designs if chosen is None else (chosen,)
        return [one for name in names for one in self.designs[name]()]


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
        page: makes the figures and tables, part by part.
        known: what controls are known to reach; one far below it has not learned.
        together: trains many trials at once, where that is much faster; each is then run with the
            options that it yields, which hold its results. Those left out are run by themselves.
        prepare: makes the data that trials share, on all cores, before the first of them runs.
    """

    name: str
    title: str
    source: str
    about: str
    presets: Mapping[str, Preset]
    claims: Sequence[Claim]
    page: Sequence[Part]
    known: Sequence[Known] = ()
    together: Together | None = None
    prepare: Prepare | None = None

    def trials(self, preset: str, data: str | None = None) -> list[Labelled]:
        """Make the labelled trials of a preset.

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
        return self.presets[preset].trials(data)

    def sections(self, view: View) -> list[Section]:
        """Make the page's sections; a part that cannot be made says why in its place."""
        made: list[Section] = []
        for part in self.page:
            try:
                made += part(view)
            except UNFIT as error:
                name = getattr(part, "__name__", "part").strip("_").replace("_", " ")
                why = str(error) or type(error).__name__
                made.append(Section(f"Not shown: {name}", f"These records do not give it: {why}."))
        return made
