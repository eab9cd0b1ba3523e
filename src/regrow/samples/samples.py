"""Which samples are trained on: scores by id, a choice for each epoch, samplers for any loader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.engine.checks import check_choice, check_integer, check_number, check_type
from regrow.engine.ranks import rank_and_ranks
from regrow.samples import report, saved
from regrow.samples.chooser import Chooser
from regrow.samples.course import Course
from regrow.samples.dataset import WithIds
from regrow.samples.ids import IdLike, Ids
from regrow.samples.known import Criterion
from regrow.samples.labels import all_labels, checked_lengths
from regrow.samples.rates import RootLoss
from regrow.samples.sampler import BatchSampler, IndexSampler
from regrow.samples.shares import Shares, steps_of
from regrow.samples.store import Store

__all__ = ["Samples"]


class Samples:
    """The samples of a training set: what is known of each, and which ones an epoch trains on.

    Scores belong to ids, so they survive another order, filtering and a restart. What is chosen is
    a function of the scores, the seed and the epoch: the same on all ranks, and after a resume at
    any batch. No random state but its own is used.

    Args:
        ids: how many samples there are, and ids are 0..n-1; or the id of each: integers or texts,
            in the order of the data set.
        criterion: chooses, such as ``InfoBatch()``.
        keep: the share that an epoch keeps, in (0, 1]; or a schedule of it, a function of progress
            such as ``regrow.engine.schedules.Linear(1.0, 0.5)``; None: the criterion decides.
        epochs: the length of the run; needed by whatever changes with progress.
        warmup: first epochs on all samples: a number (int) or a share of the epochs (float).
        anneal: last epochs on all samples, likewise.
        every: epochs from one choice to the next; None: chosen once.
        lengths: of each sample, such as seconds or frames.
        share_of: what ``keep`` is a share of: "samples", or their total "length" (hours).
        strata: by name a label for each sample, such as its class or speaker: for
            ``Stratified``, and for reports. Lengths make strata "length"; ``RootLoss`` looks for
            classes as "class".
        newest: the weight of the newest loss in the running average, in (0, 1].
        seed: of everything random.

    Attributes:
        ids: of the samples.
        shares: how much each epoch keeps.
        lengths: float64, as given, or None.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an argument is out of range or does not fit the others; nothing is kept.

    Example:
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> data = TensorDataset(torch.randn(100, 4), torch.randint(2, (100,)))
        >>> model = torch.nn.Linear(4, 2)
        >>> samples = Samples(len(data), keep=0.7)
        >>> loader = DataLoader(samples.with_ids(data), batch_size=10, sampler=samples.sampler())
        >>> for epoch in range(3):
        ...     for (x, y), ids in loader:
        ...         losses = torch.nn.functional.cross_entropy(model(x), y, reduction="none")
        ...         samples.update(ids, losses)  # then losses.mean().backward(), as ever
        >>> len(loader), samples.metrics()["samples/never_seen"]
        (7, 0.0)
    """

    def __init__(
        self,
        ids: int | IdLike,
        criterion: Criterion = RootLoss(),
        keep: float | Callable[[float], float] | None = 0.7,
        *,
        epochs: int | None = None,
        warmup: int | float = 0,
        anneal: int | float = 0,
        every: int | None = 1,
        lengths: Any = None,
        share_of: Literal["samples", "length"] = "samples",
        strata: Mapping[str, Any] | None = None,
        newest: float = 0.5,
        seed: int = 0,
    ) -> None:
        check_type(criterion, Criterion, "criterion", "InfoBatch()")
        check_choice(share_of, ("samples", "length"), "share_of")
        if strata is not None:
            check_type(strata, Mapping, "strata", "{'class': labels}")
        check_number(newest, "newest", "0.5")
        self.ids = Ids(ids)
        self.shares = shares = Shares(keep, epochs, warmup, anneal, every)
        n = len(self.ids)
        self.lengths = None if lengths is None else checked_lengths(lengths, n)
        self._labels = all_labels(strata or {}, self.lengths, n)
        numbers = {name: labels.numbers for name, labels in self._labels.items()}
        _check(criterion, shares, share_of, self.lengths)
        criterion.check(n, numbers)
        seed = check_integer(seed, "seed")
        chooser = Chooser(criterion, shares, numbers, self.lengths, share_of, seed)
        for number in range(epochs or 1):
            chooser.count(number, n)
        self._course = Course(self.ids, chooser, Store(n, newest, criterion.fields))

    def __len__(self) -> int:
        return len(self.ids)

    # ------------------------------------------------------------------ into the loader

    def with_ids(self, dataset: Any, key: str = "ids") -> WithIds:
        """Return the data set with ids: dicts get a key, any other item becomes (item, id).

        Args:
            dataset: with a length, and items by position, in the order of the ids.
            key: under which a dict holds its id.
        """
        return WithIds(dataset, self.ids, key)

    def sampler(self, *, rank: int | None = None, ranks: int | None = None) -> IndexSampler:
        """Make a sampler: ``DataLoader(..., batch_size=B, sampler=samples.sampler())``.

        Each pass over it is an epoch, or what is left of one after a resume.

        Args:
            rank: which process this is; None: found from torch.distributed.
            ranks: how many train one model; None: likewise. Give 1 where somebody else shares
                batches out, as Accelerate and the transformers Trainer do.
        """
        return IndexSampler(self._course, rank, ranks)

    def batch_sampler(
        self,
        batch_size: int | None = None,
        *,
        max_length: float | None = None,
        buckets: int = 20,
        drop_last: bool = False,
        rank: int | None = None,
        ranks: int | None = None,
    ) -> BatchSampler:
        """Make a batch sampler: ``DataLoader(..., batch_sampler=samples.batch_sampler(128))``.

        Args:
            batch_size: samples in a batch of one rank; with ``max_length``: the most of them.
            max_length: the budget of a batch of one rank, number of samples × length of the
                longest, such as frames after padding. Batches then have similar lengths.
            buckets: lengths are sorted into so many; more: less padding, less variety.
            drop_last: leave out a last batch that is smaller.
            rank: as for ``sampler``.
            ranks: likewise.

        Raises:
            ValueError: an argument is out of range, or a sample is longer than the budget.
        """
        lengths = self.lengths
        if lengths is not None and not self._course.available.all():
            lengths = np.where(self._course.available, lengths, 0)  # left out: of any length
        how = batch_size, max_length, lengths, buckets, drop_last, rank, ranks
        return BatchSampler(self._course, *how)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; without it, each pass over a sampler is the next one.

        Args:
            epoch: counted from 0; the present one, or a later one.

        Raises:
            ValueError: it lies before the present one, or after the last.
        """
        self._course.set_epoch(epoch)

    @property
    def epoch(self) -> int:
        """The number of the epoch that is under way or comes next."""
        return self._course.epoch

    def owns(self, sampler: object) -> bool:
        """Return whether a sampler is of these samples."""
        return isinstance(sampler, IndexSampler | BatchSampler) and sampler.samples is self._course

    # ------------------------------------------------------------------ out of the training step

    def update(self, ids: Any, losses: Tensor, correct: Tensor | None = None) -> None:
        """Take in the losses of a batch.

        An id that is there twice counts once, with the mean of its losses. While an epoch is under
        way, what is updated counts as learnt in it; before, it is only scored. Only the first batch
        is looked at at once, and on a GPU waited for; a later error shows some steps late. With
        several ranks, scores are exchanged when samples are chosen.

        Args:
            ids: of the samples, as the loader gave them, on any device.
            losses: one a sample, shape (n,), any floating dtype: finite.
            correct: bool, shape (n,): whether each was answered right, for ``Forgetting``.

        Raises:
            TypeError: ids or losses are of another type.
            ValueError: losses are a single value or of another shape, one is NaN or infinite, or an
                id is not known. Nothing of this batch is kept.
        """
        self._course.update(ids, losses, correct)

    def weights(self, ids: Any) -> Tensor:
        """Return what the losses of samples are multiplied with, for gradients without bias.

        Args:
            ids: of samples of this epoch; on a GPU they are looked up there, if they are 0..n-1.

        Returns:
            Float32, shape (n,), where the ids are: 1 unless the criterion gives weights.
        """
        return self._course.weights(ids)

    def exclude(self, ids: Any) -> None:
        """Never choose these samples again, such as files that cannot be read.

        With several ranks, call it on all, with the same ids. An epoch under way is not changed.

        Args:
            ids: of the samples.

        Raises:
            ValueError: an id is not known, or too few samples would be left.
        """
        available = self._course.available.copy()
        available[self.ids.positions(ids)] = False
        if not available.any():
            raise ValueError("ids: no sample would be left")
        self._course.chooser.count(self.epoch, int(available.sum()))
        self._course.available = available

    # ------------------------------------------------------------------ what is known

    @property
    def kept(self) -> Tensor:
        """The samples of this epoch: bool, by position, True = kept."""
        return torch.from_numpy(self._course.current().mask.copy())

    @property
    def scores(self) -> dict[str, Tensor]:
        """What is known, by position: ``last``, ``average``, ``seen``, ``epoch`` and fields."""
        self._course.arrive()
        return {name: values.clone() for name, values in self._course.store.tensors().items()}

    @property
    def even(self) -> bool:
        """Whether all epochs keep equally many samples."""
        return self._course.chooser.share_of == "samples" and self.shares.even

    @property
    def progress(self) -> float:
        """The share of the run that is done, by samples learnt; exactly 1 at its end.

        For learning rates: ``LambdaLR(optimizer, lambda _: cosine(samples.progress))``. Epochs
        count by the share that they keep. Of this rank, without waiting for a GPU.
        """
        shares, course = self.shares, self._course
        if shares.epochs is None:
            raise ValueError("epochs=None: progress needs Samples(epochs=...), the run's length")
        before = shares.sums()
        done = min(course.done / course.planned, 1.0) if course.planned else 0.0
        now = before[self.epoch] + done * shares(self.epoch)
        return now / before[-1]

    def steps(
        self,
        batch_size: int,
        *,
        accumulate: int = 1,
        drop_last: bool = False,
        ranks: int | None = None,
    ) -> int:
        """Return the optimizer steps of the whole run, for learning rates that end where it ends.

        Args:
            batch_size: of one rank.
            accumulate: batches a step; an epoch's last step may have fewer.
            drop_last: whether a smaller last batch is left out.
            ranks: how many train one model; None: found from torch.distributed.

        Raises:
            ValueError: it depends on what will be chosen; :attr:`progress` is known even then.

        Example:
            >>> Samples(100, keep=0.5, epochs=4, warmup=1).steps(10)
            25
        """
        if self.shares.epochs is None:
            raise ValueError("epochs=None: steps need Samples(epochs=...), the run's length")
        ranks = rank_and_ranks()[1] if ranks is None else check_integer(ranks, "ranks", 1)
        batch_size = check_integer(batch_size, "batch_size", 1)
        accumulate = check_integer(accumulate, "accumulate", 1)
        available = int(self._course.available.sum())
        counts = [self._course.chooser.count(e, available) for e in range(self.shares.epochs)]
        return steps_of(counts, batch_size, accumulate, drop_last=drop_last, ranks=ranks)

    def metrics(self) -> dict[str, float]:
        """Return numbers for a logger; see :func:`regrow.samples.report.metrics`.

        Of the last choice that was made. With several ranks: of what they have exchanged, which is
        all there was before that choice; so one rank may ask.
        """
        course = self._course
        course.arrive()
        excluded = int(np.count_nonzero(~course.available))
        strata, lengths = course.chooser.strata, self.lengths
        return report.metrics(course.store, self._last(), excluded, strata, lengths)

    def summary(self) -> str:
        """Return a table: samples, kept, never seen, losses; a line a stratum; as of metrics."""
        course = self._course
        course.arrive()
        head = f"epoch {self.epoch}, {course.chooser.criterion!r}, keep={self.shares.keep}"
        strata = {name: (labels.numbers, labels.words) for name, labels in self._labels.items()}
        return f"{head}\n{report.table(course.store, self._last(), strata)}"

    def _last(self) -> npt.NDArray[np.bool_]:
        last = self._course.selection
        return np.zeros(len(self), dtype=np.bool_) if last is None else last.mask

    # ------------------------------------------------------------------ saved and resumed

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resume needs: tensors, numbers, texts.

        With several ranks each has to call it, for they exchange what they know; one may write it.
        """
        self._course.merge()
        return saved.state_of(self._course)

    def load_state_dict(self, state: Mapping[str, Any], *, from_start: bool = False) -> None:
        """Go on where a state was taken: the next pass yields what was left of its epoch.

        Scores go to their ids: samples may be in another order, be new, or be gone.

        Args:
            state: of :meth:`state_dict`.
            from_start: begin the epoch at its first batch: for loaders that skip by themselves
                what is done (the transformers Trainer, Accelerate's ``skip_first_batches``).

        Raises:
            ValueError: it is no such state; nothing is changed.
        """
        saved.restore(self._course, state, from_start)


def _check(
    criterion: Criterion, shares: Shares, share_of: str, lengths: npt.NDArray[np.float64] | None
) -> None:
    if shares.keep is None and not criterion.sizes_itself:
        raise ValueError(f"keep=None: {criterion!r} needs to be told how much is kept, such as 0.7")
    if criterion.curriculum and shares.epochs is None:
        raise ValueError(f"epochs=None: {criterion!r} changes with progress; give epochs=")
    if share_of == "length" and (lengths is None or shares.keep is None):
        raise ValueError("share_of='length': needs lengths, one a sample, and keep")
