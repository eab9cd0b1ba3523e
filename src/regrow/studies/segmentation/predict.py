"""Predictions of a trained network for volumes in files, and figures of predictions in files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from regrow.lab.files import check_finished, make_folder, read_json
from regrow.lab.progress import follow
from regrow.lab.section import counted
from regrow.machine import expanded
from regrow.reading import UnreadableError, decoding, is_there, refused
from regrow.segmentation.augment import Augmentation
from regrow.segmentation.cases import read_prediction
from regrow.segmentation.data import figures_of, plan_from, write_labels
from regrow.segmentation.folders import (
    Case,
    Folder,
    case_of,
    cases_of,
    open_folder,
    stem_of,
    volumes_in,
)
from regrow.segmentation.inference import predict_scores
from regrow.segmentation.kept_cases import prepared_sample
from regrow.segmentation.meaning import Meaning
from regrow.segmentation.networks import Network
from regrow.segmentation.segmenter import Segmenter, triple
from regrow.segmentation.survey import read
from regrow.segmentation.volumes import ENDINGS
from regrow.training.run import device_of
from regrow.training.train import WEIGHTS

__all__ = ["file_of", "judge_folder", "load_network", "predict_cases", "unmatched"]

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
    check_finished(run, ("result.json", WEIGHTS), "regrow segment train")
    result = read_json(run / "result.json")
    if "network" not in result:
        raise ValueError(
            f"{run}: its result.json tells of no network that segments. Give the folder of a "
            "finished run of regrow segment train"
        )
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

    Raises:
        FileNotFoundError: the run is not finished, or there are no images.
        ValueError: run and images do not fit, or labels would take an image's place.
    """
    model, result = load_network(run)
    if result.get("preprocessed"):
        raise ValueError(
            f"run={run}: it has learnt from volumes that nnU-Net had normalised, and does not know "
            "how: train on the raw folder (nnUNet_raw/DatasetXXX_Name) to predict files"
        )
    where = device_of({"device": device})
    model.to(where)
    with decoding(run / "result.json"):
        how, meaning = plan_from(result)
        patch = triple(tuple(result["patch"]), "patch")
        counts = len(how.channels), len(meaning.outputs), len(meaning.names)
        if counts != (model.in_channels, model.num_classes, len(meaning.values)):
            raise ValueError("plan and labels are of another network")
    trained = read_json(run / "config.json")
    with decoding(run / "config.json"):
        axes = Augmentation(mirror=tuple(trained.get("mirror", (0, 1, 2)))).mirror if mirror else ()
        if not 0 <= (overlap := float(trained.get("overlap", 0.5))) < 1:
            raise ValueError(f"overlap={overlap}: must be at least 0 and below 1")
    folder, cases = _cases(images, meaning, model.in_channels)
    _check_apart(cases, out)
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
        try:
            labels = meaning.labels(list(scores.cpu().numpy()), prepared, how)
        except FloatingPointError as error:
            return str(error)
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
    images = expanded(images)
    if (images / "dataset.json").is_file():
        folder = open_folder(images)
        if folder.preprocessed is not None:
            raise ValueError(f"images={images}: give the volumes as published, not preprocessed")
        if len(folder.channels) != channels:
            said = f"has channels {', '.join(folder.channels)}, and the network takes {channels}"
            raise ValueError(f"images={images}: {said}")
        chosen = folder.tests or folder.cases
        return folder, [Case(case.name, case.images) for case in chosen]
    if not images.exists():
        raise FileNotFoundError(f"images={images}: there is no such file or folder")
    one = [Case(case_of(images), (images,))]
    cases = cases_of(volumes_in(images)) if images.is_dir() else one
    if not cases:
        raise FileNotFoundError(f"images={images}: no NIfTI file (.nii.gz, .nii) is there")
    labels = dict(zip(meaning.values, meaning.names, strict=True))
    return Folder(images, (), (), labels, tuple(map(str, range(channels)))), cases


def _check_apart(cases: Sequence[Case], out: Path) -> None:
    """Refuse a folder for labels in which they would take an image's place, or each other's."""
    images = {os.path.realpath(path) for case in cases for path in case.images}
    taken: set[str] = set()
    for case in cases:
        target = os.path.realpath(out / f"{case.name}.nii.gz")
        if target in images:
            raise ValueError(
                f"out={out}: the labels of {case.name} would replace {target}, an image"
            )
        if target in taken:
            raise ValueError(f"images: case {case.name} is there twice; keep one of its files")
        taken.add(target)


def file_of(case: str, folder: Path) -> Path | None:
    """Return the file in a folder that is called as a case is; None: there is none.

    Raises:
        UnreadableError: there are two.
    """
    files = [file for ending in ENDINGS if is_there(file := folder / (case + ending))]
    if len(files) > 1:
        raise refused(f"case {case}", f"is both {files[0]} and {files[1]}", "keep one of them")
    return files[0] if files else None


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
    if not predictions.is_dir():
        raise FileNotFoundError(f"predictions={predictions}: there is no such folder")
    meaning = Meaning.of(folder)
    found: Figures = {}
    problems: dict[str, str] = {}
    names = {stem_of(file) for file in volumes_in(predictions) if file.is_file()}
    there = [case for case in folder.judged if case.name in names]
    with follow("judging", len(there), console or Console(quiet=True)) as advance:
        for case in there:
            try:
                file = file_of(case.name, predictions)
                assert file is not None
                truth = read(case, folder)
                predicted = read_prediction(case, file, folder.values, truth)
                assert truth.labels is not None
                found[case.name] = figures_of(predicted, truth.labels, truth.grid, meaning)
            except _UNFIT as error:
                problems[case.name] = str(error)
            advance(case.name)
    if not found and not problems:
        known = ", ".join(case.name for case in folder.judged[:3])
        raise FileNotFoundError(
            f"predictions={predictions}: no file of a labelled case of {path}, such as {known}"
        )
    return found, problems


def unmatched(predictions: Path, path: Path) -> list[str]:
    """Say which labelled cases have no prediction, and which files are predictions of no case.

    Args:
        predictions: folder of files called as the cases are.
        path: of the data set.

    Returns:
        A sentence for each of the two, if there are any.
    """
    folder = open_folder(path)
    files = {stem_of(file): file.name for file in volumes_in(predictions) if file.is_file()}
    learnt = {case.name for case in folder.cases}
    tests = {case.name for case in folder.judged} - learnt
    # Of predictions of tests alone nobody wants to hear that training cases have none.
    cases = {name for part in (learnt, tests) if part & files.keys() for name in part}
    missing, strange = sorted(cases - files.keys()), sorted(files.keys() - learnt - tests)
    said = []
    if missing:
        shown = ", ".join(missing[:5])
        said.append(f"without prediction: {len(missing)} of {len(cases)} cases, such as {shown}")
    if strange:
        shown = ", ".join(files[name] for name in strange[:5])
        said.append(f"of no labelled case: {counted(len(strange), 'file')}, such as {shown}")
    return said
