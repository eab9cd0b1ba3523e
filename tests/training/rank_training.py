"""Trainings of every system on ranks, of which each tells what it holds after every update.

``torchrun ... -m tests.training.rank_training FOLDER DEVICE NAME...`` does what :func:`train` does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

import regrow
from regrow.engine.layer import MaskedLayer
from regrow.engine.ranks import rank_and_ranks
from regrow.engine.swift import Exchanged
from regrow.lab.files import remove
from regrow.lab.ranks import all_ranks, run_on_all
from regrow.lab.run import CHECKPOINT, Run
from regrow.segmentation import feature_fusion
from regrow.segmentation.problem import SegmentVolumes, Volumes
from regrow.segmentation.samples import Sample
from regrow.speech.data import Part, Speech, labelled
from regrow.speech.features import MELS, Features
from regrow.speech.problem import RecogniseSpeech
from regrow.speech.units import Words
from regrow.speech.utterances import Utterance
from regrow.studies.supervised.classify import Classify
from regrow.training import Setting, start
from regrow.training import train as learn
from tests.motion.learning import Learn

FIRST = 3  # updates of RigL in the first epoch, after which some stop, and others begin


class Stopped(Exception):
    """Raised where a training is to stop, when its last checkpoint was saved."""


class Told:
    """Trains, and leaves what each rank holds in the folder ``told``, by the run's name."""

    def run(self, run):
        trainer, trail, (rank, ranks) = start(self, self, run), {}, rank_and_ranks()

        def look(*_):
            if (number := len(trainer.sparse.history)) not in trail:
                trail[number] = {n: mask.clone() for n, mask in trainer.sparse.masks.items()}

        trainer.optimizer.register_step_post_hook(look)
        if run.options.get("dies") == rank:
            _die(len(trainer.sparse.weights()))
        if "stop" in run.options:
            _stop(trainer, run.options["stop"])
        found = learn(self, trainer, run)
        model = trainer.model.state_dict()
        told = {"weights": model, "trail": trail, "loss": found["loss"], "noise": torch.rand(1)}
        told["masks"] = trainer.sparse.masks
        torch.save(told, run.options["told"] / f"{run.folder.name}-{ranks}-{rank}.pt")
        return found


def _stop(trainer, epochs):
    go_on = trainer.run_epoch

    def run_epoch(**how):
        if trainer.epoch == epochs:
            raise Stopped
        return go_on(**how)

    trainer.run_epoch = run_epoch


def _die(layers):
    """Let this process be killed in its second update: between two layers, on a GPU before all."""
    left, by_layer, at_once = [layers + 2], MaskedLayer.committing, Exchanged.write_

    def count(steps):
        left[0] -= steps
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def committing(*given):
        commit = by_layer(*given)

        def counted():
            count(1)
            commit()

        return counted

    def write_(update):
        count(layers + 1)
        at_once(update)

    MaskedLayer.committing, Exchanged.write_ = committing, write_


@dataclass(frozen=True, kw_only=True)
class Digits(Told, Classify):
    """Classification of small images."""

    data: str = "digits"
    model: str = "mlp-30-20"
    epochs: int = 3
    batch: int = 64
    augment: bool = False
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class Motion(Told, Learn):
    """Motion of made-up scenes; the network has batch norms, whose statistics are each rank's."""

    batch: int = 4
    epochs: int = 3
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    lidar: str = "temporal"
    lidar_frames: int = 3
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Balls(Told, Setting, SegmentVolumes):
    """Segmentation of bright balls by E2ENet."""

    method: regrow.Method = feature_fusion(0.3, update_every=2)["method"]
    include: tuple[str, ...] = tuple(feature_fusion(0.3)["include"])
    epochs: int = 3
    batch: int = 2
    batches: int = 3
    width: int = 6
    patch: tuple[int, ...] = (8, 8, 8)
    augment: bool = False
    learning_rate: float = 0.01
    seed: int = 0

    def volumes(self, run):
        made = [_ball(f"ball {i}", i) for i in range(6)]
        return Volumes(
            training=made[:4],
            held_out=made[4:],
            channels=1,
            outputs=("background", "ball"),
            spacing=(1.0, 1.0, 1.0),
            judge=lambda case, scores, _: {"ball": {"dice": float(scores[1].float().mean())}},
        )


def _ball(name, seed):
    far = torch.stack(torch.meshgrid(*[torch.arange(10.0)] * 3, indexing="ij")).sub(5 - seed % 3)
    label = (far.square().sum(0) < 9).long()
    noise = torch.randn(10, 10, 10, generator=torch.Generator().manual_seed(seed))
    return Sample(name, (label + 0.1 * noise)[None], label)


@dataclass(frozen=True, kw_only=True)
class Words3(Told, Setting, RecogniseSpeech):
    """Recognition of three words, each of them a band that is loud.

    Utterances are equally long: else batches of two ranks, which are multiples of two, would not be
    those of one.
    """

    size: str = "tiny"
    epochs: int = 3
    batch: int = 8
    dropout: float = 0.0
    augment: bool = False
    optimizer: str = "sgd"  # whose steps, unlike AdamW's, do not hang on signs of gradients near 0
    learning_rate: float = 0.002
    seed: int = 0

    def speech(self, run):
        part, units = _spoken(24), Words(("<unknown>", "one", "two", "three"))
        learnt, _ = labelled(part, units)
        return Speech(learnt, None, {"heard": _spoken(5)}, units, ())


def _spoken(n):
    draw, words = torch.Generator().manual_seed(n), ("one", "two", "three")
    said = [torch.randint(3, (3,), generator=draw).tolist() for _ in range(n)]
    lengths = torch.tensor([40 * len(one) for one in said])
    frames = torch.randn(int(lengths.sum()), MELS, generator=draw)
    for at, word in enumerate(word for one in said for word in one):
        frames[40 * at + 8 : 40 * at + 32, 20 * word : 20 * word + 20] += 3
    texts = tuple(" ".join(words[word] for word in one) for one in said)
    utterances = tuple(Utterance(f"u{i}", Path("u.wav"), text) for i, text in enumerate(texts))
    return Part(utterances, Features.of((frames.half(), lengths)), texts)


EVERY4 = {"density": 0.2, "update_every": 4}
SYSTEMS = {
    "classification by RigL": Digits(method=regrow.RigL(**EVERY4)),
    "classification by SET": Digits(method=regrow.SET(**EVERY4)),
    "classification by GMP": Digits(method=regrow.GMP(**EVERY4)),
    "segmentation": Balls(),
    "speech": Words3(method=regrow.RigL(density=0.5, update_every=2)),
    "motion": Motion(method=regrow.RigL(density=0.5, update_every=2)),
}
# Batch norms see the samples of their rank: what two ranks find is not what one does.
ALIKE = [name for name in SYSTEMS if name != "motion"]
_RIGL = "classification by RigL"
# The folder says from which checkpoint a run goes on, if it has one.
RUNS = {name: (trial, {}) for name, trial in SYSTEMS.items()} | {
    "stopped": (SYSTEMS[_RIGL], {"stop": 1}),
    "from one": (SYSTEMS[_RIGL], {}),
    "from two": (SYSTEMS[_RIGL], {}),
    "resumed": (SYSTEMS[_RIGL], {}),
    "first dies": (SYSTEMS[_RIGL], {"dies": 0}),
    "second dies": (SYSTEMS[_RIGL], {"dies": 1}),
}


def train(folder, device, *names):
    """Run these on all ranks there are, in folders of these names."""
    exact = torch.backends.cudnn.flags(deterministic=True, benchmark=False, allow_tf32=False)
    with exact, all_ranks() as first:
        if not first:
            return
        for name in names:
            trial, options = RUNS[name]
            (folder / name).mkdir(exist_ok=True)
            own = {"device": device, "graphs": False, "told": folder, **options}
            with contextlib.suppress(Stopped):
                run_on_all(trial, Run(folder / name, own, save_every=0))
                remove(folder / name / CHECKPOINT)


if __name__ == "__main__":
    train(Path(sys.argv[1]), *sys.argv[2:])
