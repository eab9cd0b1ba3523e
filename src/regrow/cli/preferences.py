"""``regrow preferences``: people compare clips in a browser."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

from regrow.cli.checks import check_between

__all__ = ["preferences_export", "preferences_import", "preferences_serve"]


def preferences_serve(
    file: Path, /, *, host: str = "127.0.0.1", port: int = 8000, token: str | None = None
) -> None:
    """Show clips side by side in a browser, and keep what people say of them.

    Keys: 1 and 2 choose a clip, 0 says they are equal, s that one cannot tell, u takes the latest
    answer back. Questions come from regrow control train --people FILE, which waits for the
    answers. Several people may answer at once; ctrl-C ends it, and nothing is lost.

    Args:
        file: Of questions and answers; it is made if there is none.
        host: Of this machine; another than 127.0.0.1 lets others in and needs a token.
        port: To listen on; 0 takes one that is free.
        token: A password that is part of the address.
    """
    from regrow.control.people.server import make_server  # noqa: PLC0415
    from regrow.control.people.store import Preferences  # noqa: PLC0415

    check_between("port", port, 0, 65535)
    preferences = Preferences(file)
    with make_server(preferences, host, port, token) as server:
        asked, answered = preferences.counts()
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{server.server_port}/"
        address += f"?token={quote(token, safe='')}" if token else ""
        print(f"{file}: {answered} of {asked} questions answered. Open {address}", flush=True)
        server.serve_forever()


def preferences_export(file: Path, /, *, out: Path = Path("preferences.json")) -> None:
    """Write all answers and their clips as JSON.

    Args:
        file: Of questions and answers.
        out: The file to write.
    """
    from regrow.control.people.store import Preferences  # noqa: PLC0415
    from regrow.lab.files import write_bytes  # noqa: PLC0415

    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file of preferences")
    answers = Preferences(file).export()
    write_bytes(out, json.dumps(answers, indent=1).encode())
    print(f"{len(answers)} answers in {out}")


def preferences_import(file: Path, answers: Path, /) -> None:
    """Take over answers that were exported; a training that asks the same finds them.

    Args:
        file: Of questions and answers; it is made if there is none.
        answers: JSON of regrow preferences export.
    """
    from regrow.control.people.store import Preferences  # noqa: PLC0415

    try:
        exported = json.loads(answers.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{answers}: is no JSON ({error})") from error
    if not isinstance(exported, list):
        raise ValueError(f"{answers}: is no list of answers, as regrow preferences export writes")
    print(f"{Preferences(file).read(exported)} new answers in {file}")
