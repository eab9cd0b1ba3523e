"""The trial: a network learns hard samples only, or samples that were made hard."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy

import regrow
from regrow.engine.ranks import rank_and_ranks
from regrow.engine.saliency import Loss
from regrow.lab.files import read_json, write_json
from regrow.lab.run import Run
from regrow.reading import decoding
from regrow.studies.hard_samples.attacks import (
    Attack,
    Attacked,
    attack_flops,
    attacked,
    robustness,
)
from regrow.studies.hard_samples.corrupted import OneOfEach
from regrow.studies.hard_samples.ranking import Ranking, scores_of
from regrow.studies.supervised.classify import Classifier, Classify, accuracy, open_for
from regrow.studies.supervised.corrupted import clean_test, standardized
from regrow.studies.supervised.source import LabelledSource, Pairs
from regrow.training.run import RunLike
from regrow.training.train import WEIGHTS, start
from regrow.vision.data import Batches
from regrow.vision.hardness import Pick, choose

__all__ = ["HardSamples"]

_CHOSEN = ("at random", "SNIP", "SNIP ratios", "LTH", "OMP")
_TRAINED = ("LTH", "OMP")
_PRETRAINING, _FOUND = "pretraining", "found.json"


@dataclass(frozen=True, kw_only=True)
class HardSamples(Classify):
    """Train on a share of the samples, or on corrupted or attacked ones, and test.

    Args:
        share: of the training samples, in (0, 1]: exactly round(share · n) are trained on.
        pick: which: "random", or the "hardest" or "easiest" by ``ranking``.
        ranking: how samples are scored.
        balanced: keep the same share of every class.
        severity: from 1 to 5: every image, for training and for testing, is corrupted once and for
            all (:class:`~regrow.studies.hard_samples.corrupted.OneOfEach`); 0: none is.
        attack: adversarial training and testing; None: neither.
        chosen: how a static topology is chosen: "at random"; by "SNIP", on the first batch; by
            "SNIP ratios", at random with the layer densities that SNIP gives; by the largest
            weights of the dense network trained in the same setting, with its first ("LTH") or its
            trained weights ("OMP"). The last two train twice as long. At density 1 "OMP" prunes
            nothing: a dense network that trains twice as long.

    Raises:
        ValueError: a choice is unknown, out of range, or does not go with another.
    """

    share: float = 1.0
    pick: Pick = "random"
    ranking: Ranking | None = None
    balanced: bool = False
    severity: int = 0
    attack: Attack | None = None
    chosen: Literal["at random", "SNIP", "SNIP ratios", "LTH", "OMP"] = "at random"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share}: must be above 0 and at most 1")
        if self.pick not in ("hardest", "easiest", "random"):
            raise ValueError(f"pick={self.pick!r}: must be 'hardest', 'easiest' or 'random'")
        if (self.pick == "random") != (self.ranking is None):
            raise ValueError(
                f"pick={self.pick!r} with ranking={self.ranking}: the hardest and the easiest need "
                "a ranking, a random share has none"
            )
        if self.ranking and self.seed in self.ranking.seeds:
            raise ValueError(
                f"seed={self.seed}: runs of the ranking have {self.ranking.seeds}; choose another"
            )
        if self.severity not in range(6):
            raise ValueError(f"severity={self.severity}: must lie in 0..5; 0 is not corrupted")
        if self.chosen not in _CHOSEN:
            raise ValueError(f"chosen={self.chosen!r}: must be one of {', '.join(_CHOSEN)}")
        if self.chosen != "at random" and not isinstance(self.method, regrow.Static):
            raise ValueError(
                f"chosen={self.chosen!r} is of a static topology: give method=Static(...)"
            )

    def run(self, run: Run) -> Mapping[str, Any]:
        """Train, after a dense network if the topology needs one, and test.

        Returns:
            What :class:`~regrow.studies.supervised.classify.Classify` does; of the dense network
            before it ``pretraining_flops`` and ``pretraining_seconds``.
        """
        found = dict(super().run(run))
        before = run.folder / _PRETRAINING
        if self.chosen in _TRAINED:
            found |= read_json(before / _FOUND)
            _wait_for_all()
            if run.writes:
                shutil.rmtree(before)
        return found

    def start(self, run: Run) -> Classifier:
        """Choose samples and first topology, and build what is trained."""
        trained = self._trained(run) if self.chosen in _TRAINED else {}
        change = self._change
        source = open_for(self, run, change=change, keep=lambda *of: self._keep(run, *of))
        setting = replace(self, method=self._method(source, trained))
        trainer = start(setting, self, run, source)
        if self.chosen == "OMP":
            _load_under_masks(trainer, trained)
        return attacked(trainer, self.attack, self.data) if self.attack else trainer

    def test(self, trainer: Classifier, run: RunLike) -> Mapping[str, Any]:
        """Test what was trained, in its own setting and on clean images.

        Returns:
            ``accuracy`` on test images, corrupted as those of training; then ``clean_accuracy``;
            with an attack ``robust_accuracy`` and ``attack_flops``, of training, which are no part
            of ``training_flops``. And ``train_samples``, ``class_counts``.
        """
        found = dict(super().test(trainer, run))
        if self.severity:
            found["clean_accuracy"] = accuracy(trainer, self._clean(trainer, run))
        if self.attack:
            found["robust_accuracy"] = robustness(
                trainer, self.attack, lambda n: run.tell(1.0, f"attacking, {n} images done")
            ).adversarial
            if trainer.execution == "masked":
                found["attack_flops"] = attack_flops(trainer, self.attack)
        labels = _labels(trainer)
        counts = labels.bincount(minlength=trainer.source.classes).tolist()
        return found | {"train_samples": len(labels), "class_counts": counts}

    # ------------------------------------------------------------------ data

    @property
    def _change(self) -> OneOfEach | None:
        return OneOfEach(self.severity) if self.severity else None

    def _keep(self, run: Run, labels: Tensor, index: Tensor) -> Tensor:
        scores = torch.zeros(len(labels))
        if self.ranking:
            scores = scores_of(self.ranking, self, run, self._change)[index.cpu()]
        kept = choose(scores, labels, self.share, self.pick, self.seed, balanced=self.balanced)
        return index[kept]

    def _clean(self, trainer: Classifier, run: RunLike) -> Pairs:
        source, where = trainer.source, run.options.get("data_dir")
        for images, labels in clean_test(source, self.data, data_dir=where):
            yield standardized(images, source), labels

    # ------------------------------------------------------------------ the first topology

    def _method(self, source: LabelledSource, trained: Mapping[str, Tensor]) -> regrow.Method:
        density = self.method.density
        if trained:
            return regrow.LTH(density=density, trained=trained)
        if self.chosen == "at random":
            return self.method
        scope: Literal["ratios", "global"] = "ratios" if "ratios" in self.chosen else "global"
        return regrow.SNIP(density=density, loss=_loss_on_first(source), scope=scope)

    def _trained(self, run: Run) -> Mapping[str, Tensor]:
        """Train the dense network in a folder of its own, once; return its weights."""
        before = run.folder / _PRETRAINING
        if not (before / _FOUND).exists():
            before.mkdir(exist_ok=True)
            dense = replace(self, method=regrow.Dense(), chosen="at random")
            found = dense.run(_Part(run))
            flops = found.get("training_flops", 0.0) + found.get("attack_flops", 0.0)
            seconds = found["train_seconds"]
            if run.writes:
                kept = {"pretraining_flops": flops, "pretraining_seconds": seconds}
                write_json(before / _FOUND, kept)
        _wait_for_all()
        with decoding(before / WEIGHTS):
            saved = torch.load(before / WEIGHTS, map_location="cpu", weights_only=True)
            weights: Mapping[str, Tensor] = saved["model"]
        return weights


class _Part(Run):
    """The run of a dense network before a trial's own, with its own checkpoints.

    Args:
        whole: the trial's run, which is told how far it is.
    """

    def __init__(self, whole: Run) -> None:
        options = whole.options | {"keep_weights": True}
        self.whole = whole
        super().__init__(
            whole.folder / _PRETRAINING, options, writes=whole.writes, save_every=whole.save_every
        )

    def tell(self, done: float, words: str = "") -> None:
        """Say how far it is, before anything of the trial itself is done."""
        self.whole.tell(0.0, f"dense network first: {done:.0%}, {words}")


def _loss_on_first(source: LabelledSource) -> Loss:
    """Return the loss on the first batch of the first epoch, as a function of the model."""

    def loss(model: nn.Module) -> Tensor:
        batch = next(iter(source.batches.epoch(0)))
        ready = source.ready(batch.inputs)
        return cross_entropy(model(ready), batch.targets.to(ready.device))

    return loss


@torch.no_grad()
def _load_under_masks(trainer: Classifier, trained: Mapping[str, Tensor]) -> None:
    masks = trainer.sparse.masks
    trainer.model.load_state_dict(
        {
            name: tensor * masks[name].to(tensor.device) if name in masks else tensor
            for name, tensor in trained.items()
        }
    )


def _labels(trainer: Classifier) -> Tensor:
    batches = trainer.source.batches
    if isinstance(batches, Attacked):
        batches = batches.batches
    assert isinstance(batches, Batches)
    return batches.labels


def _wait_for_all() -> None:
    if rank_and_ranks()[1] > 1:
        distributed.barrier()
