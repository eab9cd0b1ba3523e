"""What is learnt: to segment the volumes of a set, in one of five folds."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from regrow.engine.ranks import rank_and_ranks
from regrow.segmentation.augment import Augmentation
from regrow.segmentation.inference import predict_scores
from regrow.segmentation.loss import dice_ce, hard_dice
from regrow.segmentation.networks import LATTICES, MODELS, Network
from regrow.segmentation.patch_sizes import patch_rule, strides_rule
from regrow.segmentation.patches import PatchBatches, targets_of
from regrow.segmentation.samples import Sample, around, crop, label_of
from regrow.segmentation.segmenter import (
    Segmenter,
    Sides,
    channels_of,
    deep_supervision_weights,
    triple,
)
from regrow.segmentation.shift import check_shift, shift_segments
from regrow.training.batch import Batch, Source
from regrow.training.problem import Problem
from regrow.training.run import RunLike, device_of
from regrow.training.setting import Setting
from regrow.training.trainer import Trainer

__all__ = ["Figures", "PatchSource", "SegmentVolumes", "Volumes", "mean_known"]

_WATCHED = 4  # held-out cases that are looked at after each epoch

Figures = Mapping[str, float]
"""Figures of a class in a case, ``dice`` and others; NaN where there is none."""


@dataclass(frozen=True, eq=False)
class Volumes:
    """Prepared cases of one fold.

    Args:
        training: cases to learn from.
        held_out: labelled cases to test on.
        channels: of the images.
        outputs: names of the network's outputs: classes, the background first, or regions.
        spacing: between voxels along depth, height and width, in mm; depth has the widest.
        judge: writes what a case's class scores say into a folder, unless it is None, and returns
            figures of it, by class or region and name.
        told: plain data that lead from a run's record back to the volumes' geometry and labels.
        regions: the classes that each region consists of; None: outputs are classes.
    """

    training: Sequence[Sample]
    held_out: Sequence[Sample]
    channels: int
    outputs: Sequence[str]
    spacing: tuple[float, float, float]
    judge: Callable[[Sample, Tensor, Path | None], Mapping[str, Figures]]
    told: Mapping[str, Any] = field(default_factory=dict)
    regions: Sequence[Sequence[int]] | None = None


@dataclass(frozen=True, kw_only=True)
class PatchSource(Source):
    """Volumes, opened for training.

    Args:
        volumes: what they are.
        patch: sides of a patch.
    """

    volumes: Volumes
    patch: Sides


@dataclass(frozen=True, kw_only=True)
class SegmentVolumes(Problem[PatchSource]):
    """Learn to segment volumes from patches, and test on the held-out cases, mirrored.

    A subclass opens the volumes.

    Args:
        model: "e2enet", "e2enet-lean" with one node a level and full kernels at the finest two,
            nnU-Net's plain "nnunet" or its "nnunet-residual", or MONAI's "monai-unet" or
            "monai-segresnet".
        width: channels of the first level; each further level doubles them, up to 320.
        shift: of E2ENet's channel groups; 0: none.
        depth_kernel: of "e2enet": 1, flat kernels, or 3.
        patch: sides of a patch, three numbers; none: by nnU-Net's rule from the median volume.
        batches: in an epoch.
        foreground: the share of patches that are centred on a class.
        augment: change patches at random.
        mirror: axes along which patches are mirrored, in training and at test time: 0, 1, 2.
        overlap: of neighbouring windows at test time.
    """

    model: str = "e2enet"
    width: int = 48
    shift: int = field(default=3, metadata={"later": True})
    depth_kernel: int = field(default=1, metadata={"later": True})
    patch: tuple[int, ...] = ()
    batches: int = 250
    foreground: float = 0.33
    augment: bool = True
    mirror: tuple[int, ...] = (0, 1, 2)
    overlap: float = 0.5

    def check(self) -> None:
        """Refuse what is out of range.

        Raises:
            ValueError: the message names the argument.
        """
        if self.model not in MODELS:
            raise ValueError(f"model={self.model!r}: must be one of {', '.join(MODELS)}")
        if self.width < 1 or self.batches < 1:
            raise ValueError(f"width={self.width}, batches={self.batches}: must be at least 1")
        if not 0 <= self.foreground <= 1:
            raise ValueError(f"foreground={self.foreground}: must lie in 0..1")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap={self.overlap}: must be at least 0 and below 1")
        Augmentation(mirror=self.mirror)
        if self.patch and math.prod(triple(self.patch, "patch")) == 1:
            raise ValueError(f"patch={self.patch}: must hold more than one voxel")
        if self.model in LATTICES:
            check_shift(self.shift)
            shift_segments([self.width], self.shift)  # refuses more shifts than channels
            if self.depth_kernel not in (1, 3, 5):
                raise ValueError(f"depth_kernel={self.depth_kernel}: must be 1, 3 or 5")
            if self.depth_kernel != 1 and self.model == "e2enet-lean":
                raise ValueError(
                    f"depth_kernel={self.depth_kernel}: 'e2enet-lean' has kernels of its own: "
                    "leave it out, or give --model e2enet"
                )

    @abstractmethod
    def volumes(self, run: RunLike) -> Volumes:
        """Open the volumes."""

    def open(self, setting: Setting, run: RunLike) -> PatchSource:
        """Open the volumes and draw patches from them."""
        volumes = self.volumes(run)
        shapes = [case.image.shape[1:] for case in volumes.training]
        median = [int(statistics.median(sides)) for sides in zip(*shapes, strict=True)]
        patch = (
            triple(self.patch, "patch") if self.patch else patch_rule(median, volumes.spacing)[0]
        )
        rank, ranks = rank_and_ranks()
        batches = PatchBatches(
            volumes.training,
            patch,
            batch=setting.batch,
            batches=self.batches,
            seed=setting.seed,
            foreground=self.foreground,
            augmentation=Augmentation(mirror=self.mirror) if self.augment else None,
            regions=volumes.regions,
            device=device_of(run.options),
            rank=rank,
            ranks=ranks,
        )
        return PatchSource(
            batches=batches,
            example=lambda n: torch.zeros(n, volumes.channels, *patch),
            volumes=volumes,
            patch=patch,
        )

    def network(self, source: PatchSource) -> Network:
        """Return the network for the source's patches: as many levels as they allow, six at most.

        Args:
            source: whose volumes say what comes in and what is to come out.
        """
        volumes = source.volumes
        strides = strides_rule(source.patch, volumes.spacing)[:5]
        channels = channels_of(self.width, len(strides) + 1)
        outputs = len(volumes.outputs)
        return Network(
            self.model,
            volumes.channels,
            outputs,
            channels,
            strides,
            volumes.spacing,
            self.shift,
            self.depth_kernel,
        )

    def build(self, source: PatchSource) -> Segmenter:
        """Build the network."""
        return self.network(source).build()

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """Compute Dice and cross-entropy over all scales, sums of Dice over the batch."""
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        weights = deep_supervision_weights(len(outputs), lowest=self.model in LATTICES)
        return dice_ce(outputs, batch.targets, weights)

    def counts(self, outputs: Any, batch: Batch) -> Mapping[str, Tensor]:
        """Sum the mean Dice of patches over the classes that are there, as ``dice``."""
        scores = outputs if isinstance(outputs, Tensor) else outputs[0]
        dices = hard_dice(scores, batch.targets)
        return {"dice": dices.nanmean(1).nan_to_num(1.0).sum()}

    def watch(
        self, trainer: Trainer[PatchSource], first: Mapping[str, Tensor]
    ) -> Mapping[str, float]:
        """Return the mean Dice of a few held-out cases, not mirrored; nothing is chosen by it.

        Of large volumes a part around what is labelled, twice as long as a patch: whole scans
        would take longer than the epoch.
        """
        source = trainer.source
        d, h, w = (2 * side for side in source.patch)
        dices: list[float] = []
        for case in source.volumes.held_out[:_WATCHED]:
            box = around(label_of(case), (d, h, w))
            part = Sample(case.name, crop(case.image, *box))
            targets = targets_of(crop(label_of(case), *box)[None], source.volumes.regions)
            scores = self.scores(trainer, part)[None]
            dices += hard_dice(scores, targets.to(scores.device)).flatten().tolist()
        found = mean_known(dices)
        return {} if found is None else {"held_out_dice": found}

    def test(self, trainer: Trainer[PatchSource], run: RunLike) -> Mapping[str, Any]:
        """Segment the held-out cases, mirrored, and write them to the run's ``predictions``.

        Returns:
            ``by_case``: figures by case, class and name, None where there is none; ``dices``: the
            mean Dice by class; ``dice``: the mean over classes; ``network``, ``patch`` and what the
            volumes tell, from which a prediction can be made again.
        """
        volumes, folder = trainer.source.volumes, run.folder / "predictions"
        rank, ranks = rank_and_ranks()
        found: dict[str, Any] = {}
        for number, case in enumerate(volumes.held_out[rank::ranks]):
            figures = volumes.judge(case, self.scores(trainer, case, self.mirror), folder)
            found[case.name] = {
                name: {key: None if math.isnan(value) else value for key, value in of.items()}
                for name, of in figures.items()
            }
            run.tell(1.0, f"tested {number + 1} of {len(volumes.held_out[rank::ranks])} cases")
        found = dict(sorted(_of_all_ranks(found).items()))
        names = dict.fromkeys(name for figures in found.values() for name in figures)
        dices = {
            name: mean_known(figures[name]["dice"] for figures in found.values() if name in figures)
            for name in names
        }
        return {
            "by_case": found,
            "dices": dices,
            "dice": mean_known(dices.values()),
            "network": dataclasses.asdict(self.network(trainer.source)),
            "patch": list(trainer.source.patch),
            **volumes.told,
        }

    def scores(
        self, trainer: Trainer[PatchSource], case: Sample, mirror: tuple[int, ...] = ()
    ) -> Tensor:
        """Return the class scores of a case, shape (classes, depth, height, width)."""
        with single_output(trainer.model):
            return predict_scores(
                trainer.predict,
                case.image,
                trainer.source.patch,
                overlap=self.overlap,
                mirror=mirror,
                device=trainer.device,
            )

    def describe(self, source: PatchSource) -> str:
        """Name network, patch and cases."""
        shape = self.network(source)
        patch, channels = ("×".join(map(str, v)) for v in (source.patch, shape.channels))
        volumes = source.volumes
        return (
            f"{self.model} of {channels} channels, patches of {patch}, "
            f"{len(volumes.training)} cases to learn from, {len(volumes.held_out)} held out"
        )


@contextlib.contextmanager
def single_output(model: nn.Module) -> Iterator[None]:
    """Let a network compute its full resolution only, in evaluation mode, inside the block."""
    was, training = getattr(model, "deep_supervision", False), model.training
    model.eval()
    setattr(model, "deep_supervision", False)  # noqa: B010 not all models have it
    try:
        yield
    finally:
        setattr(model, "deep_supervision", was)  # noqa: B010
        model.train(training)


def _of_all_ranks(found: dict[str, Any]) -> dict[str, Any]:
    _, ranks = rank_and_ranks()
    if ranks == 1:
        return found
    parts: list[dict[str, Any]] = [{} for _ in range(ranks)]
    distributed.all_gather_object(parts, found)
    return {name: case for part in parts for name, case in part.items()}


def mean_known(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is known, neither None nor NaN; None if nothing is."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return statistics.fmean(known) if known else None
