"""Where the files of a data set are looked for, and where they are put."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regrow.vision.data.download import Remote, fetch

__all__ = ["Places", "cache_folder"]

_SYSTEM = "/usr/share/datasets"  # Debian's


def cache_folder() -> Path:
    """Return the user's cache folder; it need not exist.

    Example:
        >>> cache_folder().name
        'regrow'
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "regrow"


@dataclass(frozen=True)
class Places:
    """The folders of one data set.

    Args:
        name: of the data set, and of its folder.
        data_dir: the folder that holds a folder of this name; None: only the usual places do.
        download: whether files may be downloaded.
    """

    name: str
    data_dir: Path | None = None
    download: bool = False

    @property
    def folders(self) -> list[Path]:
        """The folders to look in, in order.

        Example:
            >>> str(Places("digits", Path("here")).folders[0])
            'here/digits'
        """
        roots = [self.data_dir, os.environ.get("REGROW_DATA"), cache_folder(), _SYSTEM]
        return [Path(root).expanduser() / self.name for root in roots if root]

    def file(self, candidates: Sequence[str], remote: Remote, advice: str) -> Path:
        """Return the first file found, folder by folder; else download it.

        Args:
            candidates: names of the file, the likeliest first.
            remote: what to download if there is none.
            advice: how to get it by hand.

        Raises:
            FileNotFoundError: there is none, and downloads are not allowed.
            OSError: it could not be downloaded.
            ValueError: what was downloaded is not what was published.
        """
        for folder in self.folders:
            for candidate in candidates:
                if (folder / candidate).is_file():
                    return folder / candidate
        return self.fetched(remote, candidates[0], advice)

    def fetched(self, remote: Remote | None, what: str, advice: str) -> Path:
        """Download a file into the user's cache, or say what is missing.

        Args:
            remote: what to download; None: it cannot be downloaded.
            what: the file that is missing.
            advice: how to get it by hand.

        Raises:
            FileNotFoundError: it cannot be downloaded, or that is not allowed.
            OSError: it could not be downloaded.
            ValueError: what was downloaded is not what was published.
        """
        if remote is None or not self.download:
            places = ", ".join(map(str, self.folders))
            raise FileNotFoundError(
                f"{self.name}: {what} not found; looked in {places}. To get it: {advice}"
            )
        return fetch(remote, cache_folder() / self.name, advice)
