"""Where the files of a data set are looked for, and where downloads are put."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from regrow.data.download import Remote, fetch
from regrow.machine import cache_folder, expanded

__all__ = ["Places"]

_SYSTEM = "/usr/share/datasets", "/usr/share"  # Debian's


@dataclass(frozen=True)
class Places:
    """The folders of one data set.

    Args:
        name: of the data set, and of its folder.
        data_dir: the folder that holds a folder of this name; None: only the usual places do.
        download: whether files may be downloaded.
    """

    name: str
    data_dir: str | Path | None = None
    download: bool = False

    @property
    def folders(self) -> list[Path]:
        """The folders to look in, in order.

        Example:
            >>> str(Places("digits", "here").folders[0])
            'here/digits'
        """
        roots = [self.data_dir, os.environ.get("REGROW_DATA"), cache_folder(), *_SYSTEM]
        return [expanded(root) / self.name for root in roots if root]

    def find(
        self,
        look: Callable[[Path], Path | None],
        what: str,
        advice: str,
        remote: Remote | None = None,
    ) -> Path:
        """Return the first match, folder by folder; else download it.

        Args:
            look: returns the path of what is wanted in a folder, or None.
            what: is looked for, for the error.
            advice: how to get it by hand.
            remote: what to download if there is none; None: it cannot be downloaded.

        Raises:
            FileNotFoundError: there is none, and it cannot be downloaded, or that is not allowed;
                the message says where it was looked for. Or there is no folder ``data_dir``.
            OSError: it could not be downloaded.
            ValueError: what was downloaded is not what was published.

        Example:
            >>> Places("tea").find(lambda folder: None, "tea.csv", "ask a grocer")
            Traceback (most recent call last):
            FileNotFoundError: tea: tea.csv not found; looked in ... To get it: ask a grocer
        """
        if self.data_dir and not expanded(self.data_dir).is_dir():
            raise FileNotFoundError(
                f"data_dir={str(self.data_dir)!r}: there is no such folder; give the one that "
                f"holds a folder {self.name!r}, or leave it out to look in the usual places"
            )
        paths = (path for folder in self.folders if (path := look(folder)))
        return next(paths, None) or self.fetch(remote, what, advice)

    def file(self, names: Sequence[str], advice: str, remote: Remote | None = None) -> Path:
        """Return the first file of one of these names, folder by folder; else download it.

        Args:
            names: of the file, the likeliest first.
            advice: as of :meth:`find`.
            remote: as of :meth:`find`.

        Raises:
            FileNotFoundError: as of :meth:`find`.
            OSError: as of :meth:`find`.
            ValueError: as of :meth:`find`.
        """

        def look(folder: Path) -> Path | None:
            return next((folder / name for name in names if (folder / name).is_file()), None)

        return self.find(look, names[0], advice, remote)

    def fetch(self, remote: Remote | None, what: str, advice: str) -> Path:
        """Download a file into the user's cache, or say what is missing.

        Args:
            remote: as of :meth:`find`.
            what: as of :meth:`find`.
            advice: as of :meth:`find`.

        Raises:
            FileNotFoundError: it cannot be downloaded, or that is not allowed.
            OSError: it could not be downloaded.
            ValueError: what was downloaded is not what was published.
        """
        if remote is None or not self.download:
            looked = ", ".join(map(str, self.folders))
            raise FileNotFoundError(
                f"{self.name}: {what} not found; looked in {looked}. To get it: {advice}"
            )
        if cache_folder().parent == Path(os.devnull):
            raise OSError(
                f"{self.name}: there is no home folder to download {what} to: name a folder in the "
                f"environment variable XDG_CACHE_HOME, or {advice}"
            )
        return fetch(remote, cache_folder() / self.name, advice)
