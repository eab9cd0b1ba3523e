"""``regrow segment``: train on volumes, predict, evaluate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from regrow.cli.checks import check_text, check_threads
from regrow.cli.fields import takes_fields
from regrow.lab.files import check_writable, make_folder
from regrow.machine import expanded

__all__ = ["segment_evaluate", "segment_nnunet", "segment_predict", "segment_train"]

_NO_OPTIONS = (
    "method",
    "include",
    "exclude",
    "nesterov",
    "milestones",
    "data",
    "digest",
    "rescale",
)
_DEFAULTS: dict[str, Any] = {
    # In a few hundred steps SGD of momentum 0.99, the paper's, does not get far.
    "optimizer": "adamw",
    "learning_rate": 0.003,
    "epochs": 20,
    "batches": 25,
    "width": 12,
    "seed": 0,
}


@takes_fields(
    "regrow.studies.segmentation.segment:Segment", leave_out=_NO_OPTIONS, defaults=_DEFAULTS
)
def segment_train(
    folder: Path,
    /,
    *,
    fusion: Literal["kernels", "channels", "dense"] = "kernels",
    density: float | None = None,
    update_every: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int | None = None,
    out: Path = Path("segment-results"),
    **fields: Any,
) -> None:
    """Train a network on volumes, test it on the fold that is held out, and make a page of it.

    Takes a folder of the Decathlon or of nnU-Net. Defaults are for minutes on two CPU cores; the
    paper's setting is --width 48 --batches 250 --epochs 1000 --optimizer sgd --learning-rate 0.01.
    The same command goes on where it was cut off. Predictions, weights and the page lie in the
    run's folder. On several GPUs: torchrun --nproc-per-node N -m regrow segment train ...

    Args:
        folder: The data set: with dataset.json, imagesTr and labelsTr, or preprocessed by nnU-Net.
        fusion: Which units E2ENet drops and grows: kernels (the paper), input channels, or none.
        density: The share of fusion weights kept; else 0.2, of e2enet-lean's kernels more where
            they are few.
        update_every: Steps between updates; else a 200th of the run, at most 1200.
        device: Where to train; "auto" takes a GPU if there is one.
        threads: Of torch; else as torch has it.
        out: Folder for the records of runs.
        **fields: Of the trial.
    """
    from regrow.cli.trial import run_trial  # noqa: PLC0415
    from regrow.segmentation.data import fingerprint  # noqa: PLC0415
    from regrow.segmentation.folders import open_folder  # noqa: PLC0415
    from regrow.segmentation.fusion import steps_between_updates  # noqa: PLC0415
    from regrow.studies.segmentation.page import write_page  # noqa: PLC0415
    from regrow.studies.segmentation.segment import Segment  # noqa: PLC0415

    check_threads(threads)
    folder = Path(os.path.realpath(expanded(folder)))  # resolve() raises where links go in circles
    check_text("folder", folder.name)
    digest = fingerprint(open_folder(folder))  # what is wrong is told before anything is written
    fields = _DEFAULTS | fields
    steps = fields["epochs"] * fields["batches"]
    every = steps_between_updates(max(steps, 1)) if update_every is None else update_every
    trial = Segment(**_sparse(fields, fusion, density, every), data=folder.name, digest=digest)
    make_folder(out, "out")
    options = {
        "data_dir": str(folder.parent),
        "device": device,
        "keep_weights": True,
        "graphs": False,
    }
    record = run_trial(trial, out, options, threads, ["dice"])
    print(f"page             {write_page(record, folder)}")


def _sparse(
    fields: dict[str, Any], fusion: str, density: float | None, every: int
) -> dict[str, Any]:
    """Add the method and the weights that it may make sparse."""
    import regrow  # noqa: PLC0415
    from regrow.segmentation import channel_links, feature_fusion  # noqa: PLC0415
    from regrow.segmentation.fusion import LEAN  # noqa: PLC0415

    if fusion == "dense" or not fields.get("model", "e2enet").startswith("e2enet"):
        if density is not None:
            raise ValueError(f"density={density}: a dense network keeps all weights; leave it out")
        return fields | {"method": regrow.Dense()}
    if fusion == "channels":
        return fields | channel_links(0.2 if density is None else density, update_every=every)
    usual = LEAN if fields.get("model") == "e2enet-lean" else 0.2
    return fields | feature_fusion(usual if density is None else density, update_every=every)


def segment_predict(
    run: Path,
    images: Path,
    /,
    out: Path,
    mirror: bool = True,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Segment volumes with a trained network; labels are written in each input's own geometry.

    Args:
        run: The folder of a run of "regrow segment train", with result.json and weights.pt.
        images: A data set's folder, whose test cases are segmented (if it has none, all cases), a
            folder of NIfTI files named as nnU-Net does (case_0000.nii.gz), or one file.
        out: Folder for the predictions.
        mirror: Average over mirrored volumes: better, and up to eight times slower.
        device: Where to compute; "auto" takes a GPU if there is one.
    """
    from rich.console import Console  # noqa: PLC0415

    from regrow.lab.section import counted  # noqa: PLC0415
    from regrow.studies.segmentation.predict import predict_cases  # noqa: PLC0415

    bad, console = 0, Console()
    told = predict_cases(run, images, out, mirror=mirror, device=device, console=console)
    for name, error in told:
        print(f"{name}: {error or 'done'}", flush=True)
        bad += bool(error)
    if bad:
        raise ValueError(f"{counted(bad, 'case')} could not be segmented; see above")


def segment_evaluate(
    predictions: Path, folder: Path, /, out: Path = Path("evaluation.html")
) -> None:
    """Judge predictions by a data set's labels: a table of cases, worst first, and a page.

    Args:
        predictions: A folder of NIfTI files called as the cases are.
        folder: The data set, of the Decathlon or of nnU-Net.
        out: The page.
    """
    from rich.console import Console  # noqa: PLC0415

    from regrow.lab.section import counted  # noqa: PLC0415
    from regrow.studies.segmentation.page import write_evaluation  # noqa: PLC0415
    from regrow.studies.segmentation.predict import judge_folder, unmatched  # noqa: PLC0415

    check_writable(out, "out")
    if out.suffix not in (".html", ".htm"):
        raise ValueError(f"out={out}: a page is written, which must be called .html")
    by_case, problems = judge_folder(predictions, folder, Console())
    for name, problem in problems.items():
        print(f"{name}: {problem}")
    for sentence in unmatched(predictions, folder):
        print(sentence)
    print(write_evaluation(by_case, predictions, folder, out))
    if problems:
        raise ValueError(f"{counted(len(problems), 'case')} could not be judged; see above")


def segment_nnunet() -> None:
    """Print where nnU-Net v2 finds our trainers: export nnUNet_extTrainer=$(regrow segment nnunet).

    Then nnUNetv2_train ... -tr nnUNetTrainerE2ENet, and nnUNetv2_predict with the same.
    """
    from regrow.adapters.nnunet import trainers_folder  # noqa: PLC0415

    print(trainers_folder())
