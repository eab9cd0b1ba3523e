"""What is learnt: to write down what is said in utterances."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, distributed
from torch.nn import functional

from regrow.engine.ranks import rank_and_ranks
from regrow.samples import Criterion, Samples
from regrow.speech.batches import All, Chosen, UtteranceBatches
from regrow.speech.choice import BySamples, Score
from regrow.speech.conformer import STRIDE, mask_of
from regrow.speech.ctc import ctc_losses
from regrow.speech.data import Learnt, Part, Speech
from regrow.speech.features import MELS
from regrow.speech.granularity import TimePruning
from regrow.speech.heard import (
    TESTED,
    TRAINED,
    part_errors,
    recognise,
    rows_of,
    seen_by_group,
    summary,
    trained_rows,
    write_rows,
)
from regrow.speech.recogniser import SIZES, Heard, Recogniser
from regrow.speech.units import BLANK
from regrow.speech.wer import rate
from regrow.training.batch import Batch, Source
from regrow.training.problem import Problem
from regrow.training.run import RunLike, device_of
from regrow.training.setting import Setting
from regrow.training.trainer import Trainer

__all__ = ["RecogniseSpeech", "SpeechSource"]

_SMOOTHING = 0.1  # of the attention decoder's labels, as in auto_avsr


@dataclass(frozen=True, kw_only=True)
class SpeechSource(Source):
    """Speech, opened for training.

    Args:
        speech: what it is.
        chosen: which utterances an epoch has.
        batches: of them.
        begun: weights that the network begins with; None: random ones.
    """

    speech: Speech
    chosen: Chosen
    batches: UtteranceBatches
    begun: Mapping[str, Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class RecogniseSpeech(Problem[SpeechSource]):
    """Learn to recognise speech, and test on other utterances.

    A subclass opens the speech.

    Args:
        size: of the network: "tiny", "1m", "5m", "13m", "41m", "130m" or "243m" parameters.
        units: that are written: "characters", "words", or SentencePiece's "pieces".
        unit_count: of words or pieces, at most.
        dropout: of all layers.
        augment: hide parts of utterances (SpecAugment).
        speeds: at which utterances are played, one drawn for each in every epoch, such as 0.9 1.0
            1.1: the audio is resampled.
        attention: weight of the attention decoder's loss against CTC's, for sizes with a decoder;
            auto_avsr's is 0.9.
        middle: weight of a second CTC loss against the first, of the encoder's steps after half of
            its blocks, scored by the same layer (Lee and Watanabe 2021, arXiv 2102.03216); 0: none.
        time_keep: the share of each utterance's time that is trained on; 1: all of it.
        time_chunk: steps of 40 ms that are removed together; 1: single points.
        time_by: which chunks stay: "random" or "loud" ones.
        criterion: chooses the utterances of each epoch, such as ``regrow.samples.Hard()``; None:
            all are trained on.
        keep: the share of utterances that it keeps.
        full_first: first epochs on all utterances, in which their losses become known.
        full_last: last epochs on all utterances.
        every: epochs from one choice to the next; None: chosen once.
        score: what utterances are compared by: their loss by "label", by "step", or the "sum",
            which is higher the longer they are.
        watched: utterances of the training corpus that are set apart, and recognised after each
            epoch; a tenth of the corpus at most.
    """

    size: str = "5m"
    units: Literal["characters", "words", "pieces"] = "characters"
    unit_count: int = 500
    dropout: float = 0.1
    augment: bool = True
    speeds: tuple[float, ...] = (1.0,)
    attention: float = 0.9
    middle: float = field(default=0.0, metadata={"later": True})
    time_keep: float = 1.0
    time_chunk: int = 10
    time_by: Literal["random", "loud"] = "random"
    criterion: Criterion | None = None
    keep: float = 0.7
    full_first: int = 1
    full_last: int = 0
    every: int | None = 1
    score: Score = "label"
    watched: int = 64

    stride: ClassVar[int] = STRIDE
    """Frames of a step; a subclass that builds another network may have another."""

    def check(self) -> None:
        """Refuse what is out of range.

        Raises:
            ValueError: the message names the argument.
        """
        if self.size not in SIZES:
            raise ValueError(f"size={self.size!r}: must be one of {', '.join(SIZES)}")
        if self.units not in (kinds := ("characters", "words", "pieces")):
            raise ValueError(f"units={self.units!r}: must be one of {', '.join(kinds)}")
        if self.unit_count < 2 or self.watched < 0:
            raise ValueError(
                f"unit_count={self.unit_count}, watched={self.watched}: must be at least 2 and 0"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: must be at least 0 and below 1")
        if 1.0 not in self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise ValueError(f"speeds={self.speeds}: must lie in 0.5..2, and 1.0 be among them")
        if not 0 <= self.attention <= 1:
            raise ValueError(f"attention={self.attention}: must lie in 0..1")
        if not 0 <= self.middle < 1:
            raise ValueError(f"middle={self.middle}: must be at least 0 and below 1")
        if not 0 < self.time_keep <= 1:
            raise ValueError(f"time_keep={self.time_keep}: must be above 0 and at most 1")
        TimePruning(self.time_keep, self.time_chunk, self.time_by)
        if self.score not in ("label", "step", "sum"):
            raise ValueError(f"score={self.score!r}: must be label, step or sum")
        if self.full_first < 0 or self.full_last < 0:
            raise ValueError(
                f"full_first={self.full_first}, full_last={self.full_last}: must be at least 0"
            )
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep={self.keep}: must be above 0 and at most 1")

    @abstractmethod
    def speech(self, run: RunLike) -> Speech:
        """Open the speech."""

    def choose(self, setting: Setting, learnt: Learnt) -> Chosen:
        """Return what chooses the utterances of each epoch.

        Args:
            setting: whose seed and epochs are used.
            learnt: what there is to choose from.

        Raises:
            ValueError: the choice cannot be made as it is asked for.
        """
        n = len(learnt.utterances)
        if self.criterion is None:
            return All(n)
        if self.full_first + self.full_last > setting.epochs:
            raise ValueError(
                f"full_first={self.full_first} and full_last={self.full_last}: together more than "
                f"epochs={setting.epochs}"
            )
        samples = Samples(
            n,
            self.criterion,
            self.keep,
            epochs=setting.epochs,
            warmup=self.full_first,
            anneal=self.full_last,
            every=self.every,
            lengths=learnt.features.lengths.double().numpy(),
            seed=setting.seed,
        )
        return BySamples(samples, learnt, self.score, self.stride)

    def open(self, setting: Setting, run: RunLike) -> SpeechSource:
        """Open the speech and make batches of it."""
        speech = self.speech(run)
        learnt, device = speech.learnt, device_of(run.options)
        chosen = self.choose(setting, learnt)
        rank, ranks = rank_and_ranks()
        labelled = SIZES[self.size].decoder > 0
        batches = UtteranceBatches(
            learnt.features,
            learnt.labels,
            learnt.label_lengths,
            batch=setting.batch,
            seed=setting.seed,
            chosen=chosen,
            pruning=None
            if self.time_keep == 1
            else TimePruning(self.time_keep, self.time_chunk, self.time_by, self.stride),
            labelled=labelled,
            device=device,
            rank=rank,
            ranks=ranks,
            others=learnt.others,
            stride=self.stride,
        )
        frames = int(learnt.features.lengths.double().mean() * self.time_keep)
        labels = int(learnt.label_lengths.double().mean())

        def example(n: int) -> tuple[Tensor, ...]:
            inputs = torch.zeros(n, frames, MELS), torch.full((n,), frames)
            return (*inputs, torch.ones(n, labels, dtype=torch.int64)) if labelled else inputs

        return SpeechSource(
            batches=batches,
            example=example,
            steps=batches.total(setting.epochs),
            memory=chosen,
            speech=speech,
            chosen=chosen,
        )

    def build(self, source: SpeechSource) -> torch.nn.Module:
        """Build the network, with the weights that it begins with."""
        units = source.speech.units.size
        shape = SIZES[self.size]
        model = Recogniser(units, shape, self.dropout, self.augment, middle=self.middle > 0)
        if source.begun is not None:
            model.load_state_dict(source.begun)
        return model

    def loss(self, outputs: Heard, batch: Batch) -> Tensor:
        """Compute the loss of each utterance by label; CTC's, that of the middle, of the decoder.

        All that is learnt from can be aligned, unless a network has other steps than ``stride``
        says. What cannot has no loss: NaN, which training stops at, not 0, the easiest of all.
        """
        labels, lengths = batch.targets
        losses = self._ctc(outputs.log_probs, outputs.steps, labels, lengths)
        if outputs.middle is not None:
            half = self._ctc(outputs.middle, outputs.steps, labels, lengths)
            losses = (1 - self.middle) * losses + self.middle * half
        if outputs.scores is not None:
            written = _decoder_losses(outputs.scores, labels, lengths)
            return (1 - self.attention) * losses + self.attention * written
        return losses

    @staticmethod
    def _ctc(log_probs: Tensor, steps: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
        sums, known = ctc_losses(log_probs, steps, labels, lengths)
        return torch.where(known, sums / lengths.clamp(min=1), math.nan)

    def counts(self, outputs: Heard, batch: Batch) -> Mapping[str, Tensor]:
        """Sum the CTC loss by label, as ``ctc``, where it is not the whole loss."""
        if outputs.scores is None and outputs.middle is None:
            return {}
        labels, lengths = batch.targets
        sums, _ = ctc_losses(outputs.log_probs, outputs.steps, labels, lengths)
        return {"ctc": (sums / lengths.clamp(min=1)).sum()}

    def validate(self, trainer: Trainer[SpeechSource]) -> Mapping[str, float]:
        """Return the word and character error rates of what was set apart."""
        watched = trainer.source.speech.watched
        if watched is None:
            return {}
        errors = part_errors(watched, self.texts(trainer, watched))
        return {"wer": rate(errors), "cer": rate(errors, characters=True)}

    def watch(
        self, trainer: Trainer[SpeechSource], first: Mapping[str, Tensor]
    ) -> Mapping[str, float]:
        """Return what the epoch had: hours, how long they took, the shares kept by length.

        ``hours_kept`` of audio went through the network, of ``hours_in_all``;
        ``real_time_factor`` is seconds of training by second of audio; ``kept_1`` to ``kept_10``
        are the shares of utterances kept, from the tenth that is shortest to the longest, where not
        all are.
        """
        told = trainer.source.batches.told
        if told is None:
            return {}
        lengths = trainer.source.speech.learnt.features.lengths
        kept = torch.zeros(len(lengths), dtype=torch.bool)
        kept[told.ids] = True
        shares = {f"kept_{i}": float(kept[of].float().mean()) for i, of in _tenths(lengths)}
        return {
            "hours_kept": told.hours,
            "hours_in_all": told.whole_hours,
            "real_time_factor": told.seconds / (3600 * told.hours),
            **({} if kept.all() else shares),
        }

    def test(self, trainer: Trainer[SpeechSource], run: RunLike) -> Mapping[str, Any]:
        """Recognise the test corpora, and write what was heard into the run's folder.

        Files: ``tested.jsonl`` has an utterance a line, ``trained.jsonl`` the last loss of each
        that was learnt from.

        Returns:
            ``wer`` and ``cer`` over all corpora, ``by_corpus`` and ``by_group`` with ``wer``,
            ``low`` and ``high`` (a 95 % interval over speakers), ``cer``, ``utterances``;
            ``hours_learnt`` of audio went through the network in the whole run, if played at speed
            1; ``seen_by_group``: how often utterances of a group were, against the mean of all; the
            recogniser's ``size`` and, if weights are kept, ``written``, to build it anew.
        """
        rows: list[dict[str, Any]] = []
        for name, part in trainer.source.speech.tests.items():
            rows += rows_of(name, part, self.texts(trainer, part))
            run.tell(1.0, f"tested on {name}")
        chosen, learnt = trainer.source.chosen, trainer.source.speech.learnt
        if run.writes:
            write_rows(run.folder / TESTED, rows)
            write_rows(run.folder / TRAINED, trained_rows(learnt, chosen.losses, chosen.seen))
        found = summary(rows) if rows else {}
        return {
            **found,
            "size": self.size,
            # Of use beside the weights alone, and large where a model of pieces is in it.
            "written": trainer.source.speech.units.told()
            if run.options.get("keep_weights")
            else {},
            "hours": learnt.features.seconds / 3600,
            "hours_learnt": trainer.source.batches.hours_of(chosen.seen),
            "seen_by_group": seen_by_group(learnt, chosen.seen),
            "left_out": [str(one) for one in trainer.source.speech.left_out[:_TOLD]],
        }

    def texts(self, trainer: Trainer[SpeechSource], part: Part) -> list[str]:
        """Return what is heard in utterances, by the best path; ranks share them out."""
        units = trainer.source.speech.units
        rank, ranks = rank_and_ranks()
        own = torch.arange(rank, len(part), ranks)
        heard = recognise(trainer.outputs, part.features, own, trainer.device)
        texts = [units.decode(numbers) for numbers in heard]
        if ranks == 1:
            return texts
        shares: list[list[str]] = [[] for _ in range(ranks)]
        distributed.all_gather_object(shares, texts)
        return [shares[i % ranks][i // ranks] for i in range(len(part))]

    def describe(self, source: SpeechSource) -> str:
        """Name network, units and hours."""
        speech = source.speech
        hours = speech.learnt.features.seconds / 3600
        tested = ", ".join(f"{len(part):,} of {name}" for name, part in speech.tests.items())
        return (
            f"Conformer of size {self.size}, {speech.units.size} units ({self.units}), "
            f"{len(speech.learnt):,} utterances of {hours:.2f} h to learn from, tested on "
            f"{tested or 'none'}, {len(speech.left_out)} left out"
        )


_TOLD = 1000  # problems that a result holds


def _decoder_losses(scores: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
    """Return the cross-entropy of each utterance's labels and end, by label."""
    wanted = functional.pad(labels, (0, 1), value=BLANK)  # an end comes after the last label
    losses = functional.cross_entropy(
        scores.float().transpose(1, 2), wanted, reduction="none", label_smoothing=_SMOOTHING
    )
    inside = mask_of(lengths + 1, wanted.shape[1])
    return (losses * inside).sum(1) / (lengths + 1)


def _tenths(lengths: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the numbers of tenths of utterances by their length, and which these are."""
    order = lengths.argsort(stable=True)
    for number, of in enumerate(order.tensor_split(10), 1):
        if len(of):
            yield number, of
