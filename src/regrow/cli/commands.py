"""The commands by their words, and which of them a command line names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from regrow.cli.fields import whole
from regrow.cli.settings import given_config, read_settings
from regrow.spelling import did_you_mean

if TYPE_CHECKING:
    from tyro.extras import SubcommandApp

__all__ = ["COMMANDS", "GROUPS", "check_words", "load", "make_app"]

# "module:function" by words; an argument without an option has a name in the help.
COMMANDS: Mapping[str, str] = {
    "bench": "regrow.cli.bench:bench",
    "demo": "regrow.cli.demo:demo",
    "methods": "regrow.cli.methods:methods",
    "report": "regrow.cli.study:report",
    "train": "regrow.cli.train:train",
    "motion prepare": "regrow.cli.motion:motion_prepare",
    "motion train": "regrow.cli.forecasts:motion_train",
    "motion evaluate": "regrow.cli.forecasts:motion_evaluate",
    "motion predict": "regrow.cli.forecasts:motion_predict",
    "motion draw": "regrow.cli.forecasts:motion_draw",
    "control train": "regrow.cli.control:control_train",
    "preferences serve": "regrow.cli.preferences:preferences_serve",
    "preferences export": "regrow.cli.preferences:preferences_export",
    "preferences import": "regrow.cli.preferences:preferences_import",
    "segment train": "regrow.cli.segment:segment_train",
    "segment predict": "regrow.cli.segment:segment_predict",
    "segment evaluate": "regrow.cli.segment:segment_evaluate",
    "segment nnunet": "regrow.cli.segment:segment_nnunet",
    "speech train": "regrow.cli.speech:speech_train",
    "speech transcribe": "regrow.cli.speech:speech_transcribe",
    "speech evaluate": "regrow.cli.speech:speech_evaluate",
    "speech generate": "regrow.cli.speech:speech_generate",
    "study list": "regrow.cli.study:study_list",
    "study run": "regrow.cli.study:study_run",
    "completion": "regrow.cli.completion:completion",
}

GROUPS: Mapping[str, str] = {
    "motion": "Predict road users: prepare, train, draw.",
    "control": "Control: train agents from preferences, or from images.",
    "preferences": "People as teachers: serve clips, export answers.",
    "segment": "Segment volumes: train, predict, evaluate.",
    "speech": "Recognise speech: train, transcribe, evaluate, generate.",
    "study": "List the studies, or run one.",
}

_PIXELS = "regrow.cli.pixels:control_train_pixels"


def check_words(words: Sequence[str]) -> None:
    """Refuse a command that there is not, and say which one may have been meant.

    Args:
        words: of the command line.

    Raises:
        ValueError: the first word, or the second one of a group, is no command.

    Example:
        >>> check_words(["trian", "--epochs", "3"])
        Traceback (most recent call last):
        ValueError: there is no command 'trian'; did you mean train? Known are: bench, demo, ...
    """
    said = [*takewhile(lambda word: not word.startswith("-"), words)][:2]
    firsts = [*dict.fromkeys(command.split()[0] for command in COMMANDS)]
    if said and said[0] not in firsts:
        raise ValueError(_unknown(said[0], firsts))
    if len(said) == 2 and said[0] in GROUPS:
        seconds = [command.split()[1] for command in COMMANDS if command.startswith(f"{said[0]} ")]
        if said[1] not in seconds:
            raise ValueError(f"{said[0]}: {_unknown(said[1], seconds)}")


def _unknown(word: str, known: Sequence[str]) -> str:
    meant = did_you_mean(word, known) or "."
    return f"there is no command {word!r}{meant} Known are: {', '.join(known)}"


def load(command: str, words: Sequence[str] = ()) -> Callable[..., Any]:
    """Import a command; of "control train" the one for the method that the words name."""
    where = COMMANDS[command]
    if command == "control train" and words:
        from regrow.cli.pixels import is_of_pixels  # noqa: PLC0415

        said = [*words]
        if (path := given_config(words)) and not any(w.startswith("--method") for w in words):
            said += ["--method", str(read_settings(path).get("method", ""))]
        where = _PIXELS if is_of_pixels(said) else where
    found: Callable[..., Any] = resolve_name(where)
    return found


def make_app(words: Sequence[str]) -> SubcommandApp:
    """Make the command line, of which only the command that the words name has its options.

    Finding out the options of a training takes torch, which is slow to import.

    Args:
        words: of the command line.

    Raises:
        ValueError: a file of options that it names is wrong.
    """
    from tyro.extras import SubcommandApp  # noqa: PLC0415  (an extra)

    app = SubcommandApp()
    groups = {name: SubcommandApp() for name in GROUPS}
    for command in COMMANDS:
        group, _, name = command.rpartition(" ")
        named = [*words][: command.count(" ") + 1] == command.split()
        found = load(command, words if named else ())
        summary = (inspect.getdoc(found) or "").partition("\n")[0]
        target = whole(found, words, command) if named else _only_named(summary)
        (groups[group] if group else app).command(name=name)(target)
    for name, about in GROUPS.items():
        app.command(groups[name], name=name, help=about)
    return app


def _only_named(summary: str) -> Callable[[], None]:
    def command() -> None:
        """Stand in for a command whose options nobody asked for."""

    command.__doc__ = summary
    return command
