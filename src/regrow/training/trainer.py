"""Trains a model epoch by epoch: holds it with its optimizer, schedule and topology."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Generic

import torch
from torch import Tensor, distributed, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils._pytree import tree_leaves

import regrow
from regrow.engine.ranks import rank_and_ranks
from regrow.engine.selection import seeded_generator
from regrow.training.batch import Batch, SourceT, arguments, map_tensors
from regrow.training.graphs import graphed
from regrow.training.loop import Step, check_finite, not_finite, take_steps
from regrow.training.setting import Setting, autocast, learning_rate_factor, make_optimizer

__all__ = ["Trainer"]

Loss = Callable[[Any, Batch], Tensor]
"""Of a model's outputs and a batch: one value, or one a sample, shape (n,)."""

Counts = Callable[[Any, Batch], Mapping[str, Tensor]]
"""Of a model's outputs and a batch: sums over its samples, by name."""

# By dimensions of a batch: images and clips. On a GPU convolutions are faster so.
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


class Trainer(Generic[SourceT]):
    """Trains a model on batches, and keeps it sparse.

    Args:
        setting: how.
        model: what is trained; is moved to the device.
        source: the data.
        loss: of outputs and a batch: one value, or one a sample; their mean is minimised.
        counts: of the same: sums over the samples of a batch, by name.
        device: where.
        execution: of sparse layers, as for :func:`regrow.sparsify`.
        saved: a saved topology that will be loaded: "auto" computes each layer as it was then.
        graphs: capture the model's passes as CUDA graphs.

    Attributes:
        model: the model itself.
        forward: what is called in training: the model, or its distributed, graphed form.
        sparse: keeps it sparse.
        schedule: of the learning rate.
        steps: of the whole run.
        epoch: how many epochs are done.
    """

    def __init__(
        self,
        setting: Setting,
        model: nn.Module,
        source: SourceT,
        loss: Loss,
        counts: Counts,
        device: torch.device,
        *,
        execution: str = "masked",
        graphs: bool = False,
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        self.setting, self.source, self.device = setting, source, device
        self.loss, self.counts = loss, counts
        self.execution = execution
        self.rank, self.ranks = rank_and_ranks()
        if self.ranks > 1 and execution != "masked":
            raise ValueError(
                f"execution={execution!r} trains on one rank, and these are {self.ranks}: leave "
                "torchrun out, or give 'masked'"
            )
        self.steps = source.steps or setting.epochs * len(source.batches)
        self.model = model.to(device)
        for dimensions in {x.ndim for x in tree_leaves(source.example(1)) if isinstance(x, Tensor)}:
            if (layout := self._layout(dimensions)) != torch.contiguous_format:
                self.model.to(memory_format=layout)  # type: ignore[call-overload]
        self.optimizer = _optimizer(setting, self.model, device)
        example = self.example(setting.batch)
        self.sparse = regrow.sparsify(
            self.model,
            self.optimizer,
            setting.method,
            total_steps=self.steps,
            include=setting.include or None,
            exclude=setting.exclude or None,
            rescale=setting.rescale,
            execution=execution,
            example_inputs=example,
            seed=setting.seed,
            state=saved if execution == "auto" else None,
        )
        self.schedule: LRScheduler = LambdaLR(self.optimizer, self._factor)
        self.scaler = torch.amp.GradScaler(device.type, enabled=setting.precision == "float16")
        self.forward: Callable[..., Any] = self.model
        if self.ranks > 1:
            self.forward = nn.parallel.DistributedDataParallel(self.model)
        elif graphs and device.type == "cuda":
            self.forward = graphed(self.model, arguments(example), self._autocast)
        self.epoch = 0

    def run_epoch(
        self,
        before_step: Callable[[], None] = lambda: None,
        tell: Callable[[float], None] = lambda _: None,
    ) -> dict[str, float]:
        """Train for one epoch.

        Args:
            before_step: is called when gradients are there and no step was taken yet.
            tell: is told the share of the run that is done, after each step.

        Returns:
            Means over the epoch's samples, of all ranks: ``loss``, and each of the counts, as
            ``train_`` and its name.

        Raises:
            FloatingPointError: the loss is no longer a number.
        """
        sums: dict[str, Tensor] = {}
        n = 0
        for step in self.epoch_steps(before_step):
            counts = {f"train_{name}": count for name, count in step.counts.items()}
            for name, value in {"loss": step.loss * len(step.batch), **counts}.items():
                sums[name] = sums.get(name, 0) + value
            n += len(step.batch)
            tell(self.schedule.last_epoch / self.steps)
        self.epoch += 1
        if self.ranks > 1:  # so that all ranks see alike what one of them does, NaN included
            for total in sums.values():
                distributed.all_reduce(total)
            n *= self.ranks
        means = {name: float(total) / n for name, total in sums.items()}
        check_finite(means["loss"], self.epoch, self._not_finite)
        return means

    def _not_finite(self) -> str:
        """Name where numbers end in a batch of the epoch that was run; empty: nowhere any more."""
        # Any batch may be the one: a scaler skips its step, and the weights stay as good as before.
        for batch in self.source.batches.epoch(self.epoch - 1):
            passed = partial(self.predict, self.source.ready(batch.inputs))
            if found := not_finite(self.model, passed):
                return found
        return ""

    def epoch_steps(self, before_step: Callable[[], None] = lambda: None) -> Iterator[Step]:
        """Take the steps of one epoch, each when it is asked for; the epoch is not counted."""
        self.model.train()
        self._seed_rank()
        yield from take_steps(
            map(self._prepared, self.source.batches.epoch(self.epoch)),
            self._evaluate,
            self.optimizer,
            self.schedule,
            autocast=self._autocast,
            scaler=self.scaler,
            before_step=before_step,
            clip=self._clip if self.setting.clip is not None else None,
        )

    def _clip(self) -> None:
        # Of a dense network nothing is masked, and looking at each layer costs time.
        if self.sparse.plan.layers and not isinstance(self.setting.method, regrow.Dense):
            self.sparse.mask_gradients_()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.setting.clip or math.inf)

    def _prepared(self, batch: Batch) -> Batch:
        inputs = self._placed(self.source.ready(batch.inputs))
        return Batch(inputs, map_tensors(self._moved, batch.targets), self._moved(batch.ids))

    def _evaluate(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        outputs = self.forward(*arguments(batch.inputs))
        losses = self.loss(outputs, batch)
        with torch.no_grad():
            counts = self.counts(outputs, batch)
        if (memory := self.source.memory) is not None:
            weights = memory.weights(batch.ids)
            memory.update(batch.ids, losses.detach())
            losses = losses if weights is None else losses * weights
        return losses, counts

    def _seed_rank(self) -> None:
        """Let each rank draw its own random numbers; a checkpoint holds those of the first."""
        if self.ranks > 1:
            key = self.setting.seed, "rank", self.rank, self.epoch
            torch.manual_seed(seeded_generator(*key).initial_seed())

    def example(self, samples: int) -> Any:
        """Return example inputs of so many samples, where the model is."""
        return self._placed(self.source.example(samples))

    @torch.no_grad()
    def outputs(self, inputs: Any) -> Any:
        """Return the model's outputs for ready inputs, in evaluation mode and without gradients."""
        self.model.eval()
        return self.predict(inputs)

    def predict(self, inputs: Any) -> Any:
        """Return the model's outputs for ready inputs, in its present mode and with gradients."""
        with self._autocast():
            return self.model(*arguments(self._placed(inputs)))

    # ------------------------------------------------------------------ where tensors lie

    def _layout(self, dimensions: int) -> torch.memory_format:
        if self.device.type != "cuda":
            return torch.contiguous_format
        return _LAYOUTS.get(dimensions, torch.contiguous_format)

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    def _placed(self, inputs: Any) -> Any:
        """Move inputs to the device, laid out as its convolutions like them."""
        return map_tensors(
            lambda x: self._moved(x).contiguous(memory_format=self._layout(x.ndim)), inputs
        )

    def _autocast(self) -> torch.autocast:
        return autocast(self.device, self.setting.precision)

    def _factor(self, step: int) -> float:
        return learning_rate_factor(
            step / self.steps,
            self.setting.schedule,
            self.setting.warmup / self.setting.epochs,
            self.setting.milestones,
        )

    # ------------------------------------------------------------------ checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Return all that a run needs to go on bit for bit: tensors, numbers, strings."""
        state = {name: getattr(self, name).state_dict() for name in _STATEFUL}
        state |= {"epoch": self.epoch, "random": torch.get_rng_state()}
        if self.source.memory is not None:
            state["memory"] = self.source.memory.state_dict()
        if self.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        for name in _STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        if self.source.memory is not None:
            self.source.memory.load_state_dict(state["memory"])
        self.epoch = state["epoch"]
        torch.set_rng_state(state["random"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self.device)


_STATEFUL = ("model", "optimizer", "schedule", "scaler", "sparse")


def _optimizer(setting: Setting, model: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    # A step that GradScaler skips leaves the momentum of torch's fused SGD spoilt; if it is the
    # first, as is usual, with whatever was in memory.
    skips = setting.precision == "float16" and setting.optimizer == "sgd"
    return make_optimizer(
        setting.optimizer,
        model.parameters(),
        learning_rate=setting.learning_rate,
        weight_decay=setting.weight_decay,
        momentum=setting.momentum,
        nesterov=setting.nesterov,
        fused=device.type == "cuda" and not skips,
    )
