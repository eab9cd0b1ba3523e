"""Predictions of a trained network for volumes in files, and figures of predictions in files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from regrow.lab.files import make_folder, read_json
from regrow.lab.progress import follow
from regrow.reading import UnreadableError, decoding
from regrow.segmentation.cases import read_case
from regrow.segmentation.data import figures_of, plan_from, write_labels
from regrow.segmentation.folders import Case, Folder, case_of, open_folder
from regrow.segmentation.inference import predict_scores
from regrow.segmentation.kept_cases import prepared_sample
from regrow.segmentation.meaning import Meaning
from regrow.segmentation.networks import Network
from regrow.segmentation.segmenter import Segmenter, triple
from regrow.segmentation.survey import read
from regrow.segmentation.volumes import ENDINGS
from regrow.training.run import device_of
from regrow.training.train import WEIGHTS

__all__ = ["file_of", "judge_folder", "load_network", "predict_cases"]

Figures = dict[str, dict[str, dict[str, float]]]
"""By case, class and name."""

_UNFIT = UnreadableError, OSError, MemoryError


def load_network(run: Path) -> tuple[Segmenter, dict[str, Any]]:
    """Build a trained network and load its weights.

    Args:
        run: folder of a finished run, with ``result.json`` and ``weights.pt``.

    Returns:
        The network, in evaluation mode, of one output; and the run's result.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: a file is damaged.
    """
    for name in ("result.json", WEIGHTS):
        if not (run / name).is_file():
            raise FileNotFoundError(
                f"{run}: no {name} in it. Give the folder of a finished run of regrow segment train"
            )
    result = read_json(run / "result.json")
    with decoding(run / "result.json"):
        told = result["network"]
        strides = tuple(triple(stride, "strides") for stride in told["strides"])
        lists = {"channels": tuple(told["channels"]), "spacing": tuple(told["spacing"])}
        model = Network(**{**told, **lists, "strides": strides}).build()
    with decoding(run / WEIGHTS):
        saved = torch.load(run / WEIGHTS, map_location="cpu", weights_only=True)
        model.load_state_dict(saved["model"])
    model.deep_supervision = False
    return model.eval(), result


def predict_cases(
    run: Path,
    images: Path,
    out: Path,
    *,
    mirror: bool = True,
    device: str = "auto",
    console: Console | None = None,
) -> Iterator[tuple[str, str]]:
    """Segment cases one by one and write their labels.

    Args:
        run: folder of a finished run.
        images: a data set's folder, a folder of NIfTI files, or one file.
        out: folder for the labels, ``CASE.nii.gz``.
        mirror: average over the mirrorings that the run was tested with.
        device: "auto", "cpu" or "cuda".
        console: where progress is shown; None: nowhere.

    Yields:
        A case's name, and why it could not be segmented, or nothing.
    """
    model, result = load_network(run)
    where = device_of({"device": device})
    model.to(where)
    with decoding(run / "result.json"):
        how, meaning = plan_from(result)
    patch = triple(tuple(result["patch"]), "patch")
    trained = read_json(run / "config.json")
    axes = trained.get("mirror", (0, 1, 2)) if mirror else ()
    overlap = trained.get("overlap", 0.5)
    folder, cases = _cases(images, meaning, model.in_channels)
    make_folder(out, "out")
    share = [0.0]  # of the case that is under way

    def predict(case: Case) -> str:
        try:
            sample, prepared = prepared_sample(case, folder, how, meaning)
        except _UNFIT as error:
            return str(error)
        scores = predict_scores(
            model,
            sample.image,
            patch,
            overlap=overlap,
            mirror=axes,
            device=where,
            tell=lambda done: share.__setitem__(0, done),
        )
        labels = meaning.labels(list(scores.cpu().numpy()), prepared, how)
        write_labels(out / f"{case.name}.nii.gz", labels, prepared)
        return ""

    console = console or Console(quiet=True)
    with follow("segmenting", len(cases), console, shares=lambda: share) as advance:
        for case in cases:
            error = predict(case)
            share[0] = 0.0
            advance(case.name)
            yield case.name, error


def _cases(images: Path, meaning: Meaning, channels: int) -> tuple[Folder, list[Case]]:
    """Return the cases to segment, without their labels."""
    images = images.expanduser()
    if (images / "dataset.json").is_file():
        folder = open_folder(images)
        if folder.preprocessed is not None:
            raise ValueError(f"images={images}: give the volumes as published, not preprocessed")
        chosen = folder.tests or folder.cases
        return folder, [Case(case.name, case.images) for case in chosen]
    if not images.exists():
        raise FileNotFoundError(f"images={images}: there is no such file or folder")
    files = sorted(images.iterdir()) if images.is_dir() else [images]
    by_name: dict[str, list[Path]] = {}
    for file in files:
        if file.name.endswith(ENDINGS):
            by_name.setdefault(case_of(file), []).append(file)
    if not by_name:
        raise FileNotFoundError(f"images={images}: no NIfTI file (.nii.gz, .nii) is there")
    labels = dict(zip(meaning.values, meaning.names, strict=True))
    folder = Folder(images, (), (), labels, tuple(map(str, range(channels))))
    return folder, [Case(name, tuple(paths)) for name, paths in by_name.items()]


def file_of(case: str, folder: Path) -> Path | None:
    """Return the file in a folder that is called as a case is; None: there is none."""
    return next((f for ending in ENDINGS if (f := folder / (case + ending)).is_file()), None)


def judge_folder(
    predictions: Path, path: Path, console: Console | None = None
) -> tuple[Figures, dict[str, str]]:
    """Judge predicted label files by the labels of a data set.

    Args:
        predictions: folder of files called as the cases are.
        path: of the data set.
        console: where progress is shown; None: nowhere.

    Returns:
        Figures of each case; and of those that could not be judged, why.

    Raises:
        FileNotFoundError: there is no prediction of any labelled case.
    """
    folder = open_folder(path)
    meaning = Meaning.of(folder)
    found: Figures = {}
    problems: dict[str, str] = {}
    there = {case: file for case in folder.cases if (file := file_of(case.name, predictions))}
    with follow("judging", len(there), console or Console(quiet=True)) as advance:
        for case, file in there.items():
            try:
                said = Case(case.name, case.images, file)
                predicted = read_case(said, len(folder.channels), folder.values)
                truth = read(case, folder)
                assert predicted.labels is not None and truth.labels is not None
                found[case.name] = figures_of(predicted.labels, truth.labels, truth.grid, meaning)
            except _UNFIT as error:
                problems[case.name] = str(error)
            advance(case.name)
    if not found and not problems:
        known = ", ".join(case.name for case in folder.cases[:3])
        raise FileNotFoundError(
            f"predictions={predictions}: no file of a labelled case of {path}, such as {known}"
        )
    return found, problems
