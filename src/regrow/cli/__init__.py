"""The command line: a function a command, whose signature is its options and docstring its help.

Commands import what they need when they are called, so that ``--help`` is fast.
"""

from __future__ import annotations

import io
import os
import sys

from regrow.cli.bench import bench
from regrow.cli.checks import check_no_empty
from regrow.cli.control import control_train
from regrow.cli.demo import demo
from regrow.cli.fields import named
from regrow.cli.forecasts import motion_draw, motion_evaluate, motion_predict, motion_train
from regrow.cli.methods import methods
from regrow.cli.motion import motion_prepare
from regrow.cli.pixels import control_train_pixels, is_of_pixels
from regrow.cli.preferences import preferences_export, preferences_import, preferences_serve
from regrow.cli.segment import segment_evaluate, segment_nnunet, segment_predict, segment_train
from regrow.cli.speech import (
    speech_evaluate,
    speech_generate,
    speech_train,
    speech_transcribe,
)
from regrow.cli.study import report, study_list, study_run
from regrow.cli.train import train
from regrow.lab.ranks import all_ranks
from regrow.machine import how_to_install

__all__ = ["main"]


def main() -> None:
    """Run the command line; an error a user can mend is one line, not a traceback."""
    for stream in (sys.stdout, sys.stderr):  # a sign the terminal has not must not cost the rest
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with all_ranks() as first:
            if first:
                check_no_empty(sys.argv[1:])
                _call()
    except ModuleNotFoundError as error:
        sys.exit(f"regrow: {error.name} is missing: {how_to_install(str(error.name), 'all')}")
    except BrokenPipeError:  # what reads our output, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit("regrow: stopped")
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"regrow: {error}")


def _call() -> None:
    from tyro.extras import SubcommandApp  # noqa: PLC0415  (an extra)

    study = SubcommandApp()
    study.command(name="list")(study_list)
    study.command(name="run")(study_run)
    segment = SubcommandApp()
    segment.command(name="train")(named(segment_train, folder="FOLDER"))
    segment.command(name="predict")(named(segment_predict, run="RUN", images="IMAGES"))
    judged = named(segment_evaluate, predictions="PREDICTIONS", folder="FOLDER")
    segment.command(name="evaluate")(judged)
    segment.command(name="nnunet")(segment_nnunet)
    speech = SubcommandApp()
    speech.command(name="train")(speech_train)
    speech.command(name="transcribe")(speech_transcribe)
    speech.command(name="evaluate")(speech_evaluate)
    speech.command(name="generate")(speech_generate)
    control = SubcommandApp()
    motion = SubcommandApp()
    motion.command(name="prepare")(named(motion_prepare, folder="FOLDER"))
    motion.command(name="train")(motion_train)
    motion.command(name="evaluate")(named(motion_evaluate, run="RUN", folder="FOLDER"))
    motion.command(name="predict")(named(motion_predict, run="RUN", folder="FOLDER"))
    motion.command(name="draw")(named(motion_draw, folder="FOLDER"))
    trains = control_train_pixels if is_of_pixels(sys.argv) else control_train
    control.command(name="train")(trains)
    preferences = SubcommandApp()
    preferences.command(name="serve")(named(preferences_serve, file="FILE"))
    preferences.command(name="export")(named(preferences_export, file="FILE"))
    preferences.command(name="import")(named(preferences_import, file="FILE", answers="ANSWERS"))
    app = SubcommandApp()
    for command in (bench, demo, methods, report, train):
        app.command(command)
    app.command(motion, name="motion", help="Predict road users: prepare, train, draw.")
    app.command(
        control, name="control", help="Control: train agents from preferences, or from images."
    )
    app.command(
        preferences, name="preferences", help="People as teachers: serve clips, export answers."
    )
    app.command(segment, name="segment", help="Segment volumes: train, predict, evaluate.")
    app.command(
        speech, name="speech", help="Recognise speech: train, transcribe, evaluate, generate."
    )
    app.command(study, name="study", help="List the studies, or run one.")
    app.cli(
        prog="regrow",
        description="Train neural networks on less: sparse training in PyTorch.",
    )
