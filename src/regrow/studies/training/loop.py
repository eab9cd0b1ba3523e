"""One training run: a model, its optimizer, its schedule, its topology, and where they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

import regrow
from regrow.engine.selection import seeded_generator
from regrow.lab.ranks import rank_and_ranks
from regrow.studies.training.graphs import graphed
from regrow.studies.training.setting import Setting
from regrow.studies.training.source import Pairs, Source
from regrow.vision.models import build_model, narrowed

__all__ = ["Training", "learning_rate_factor"]

# By dimensions of one input: images and clips.
_LAYOUTS = {3: torch.channels_last, 4: torch.channels_last_3d}
_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Training:
    """A run of a trial's setting, step by step.

    Args:
        setting: what is trained, and how.
        source: the data.
        device: where.
        execution: of sparse layers, as for :func:`regrow.sparsify`.
        graphs: capture the model's passes as CUDA graphs.

    Attributes:
        model: the model itself.
        forward: what is called in training: the model, or its distributed, graphed form.
        sparse: keeps it sparse.
    """

    def __init__(
        self,
        setting: Setting,
        source: Source,
        device: torch.device,
        *,
        execution: str = "masked",
        graphs: bool = False,
    ) -> None:
        self.setting, self.source, self.device = setting, source, device
        self.execution = execution
        self.rank, self.ranks = rank_and_ranks()
        if self.ranks > 1 and execution != "masked":
            raise ValueError(
                f"execution={execution!r} trains on one rank, and these are {self.ranks}: leave "
                "torchrun out, or give 'masked'"
            )
        self.steps = setting.epochs * len(source.batches)
        torch.manual_seed(setting.seed)
        scale = 1.0
        if setting.narrow < 1:
            scale = narrowed(setting.model, source.shape, source.classes, setting.narrow)
        self.model = build_model(
            setting.model, source.shape, source.classes, scale=scale, dropout=setting.dropout
        )
        self.model.to(device)
        if self._layout != torch.contiguous_format:
            self.model.to(memory_format=self._layout)  # type: ignore[call-overload]
        self.optimizer = _optimizer(setting, self.model, fused=device.type == "cuda")
        self.sparse = regrow.sparsify(
            self.model,
            self.optimizer,
            setting.method,
            total_steps=self.steps,
            exclude=setting.exclude or None,
            rescale=setting.rescale,
            execution=execution,
            example_inputs=self._example(),
            seed=setting.seed,
        )
        self.schedule = LambdaLR(self.optimizer, self._factor)
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=setting.precision == "float16" and device.type == "cuda"
        )
        self.forward: Callable[[Tensor], Tensor] = self.model
        if self.ranks > 1:
            self.forward = nn.parallel.DistributedDataParallel(self.model)
        elif graphs and device.type == "cuda":
            self.forward = graphed(self.model, self._example(), self._autocast)
        self.epoch = 0

    @property
    def _layout(self) -> torch.memory_format:
        if self.device.type != "cuda":
            return torch.contiguous_format
        return _LAYOUTS.get(len(self.source.shape), torch.contiguous_format)

    def _laid_out(self, batch: Tensor) -> Tensor:
        return batch.contiguous(memory_format=self._layout)

    def _example(self) -> Tensor:
        batch = self.setting.batch, *self.source.shape
        return self._laid_out(torch.zeros(batch, device=self.device))

    def _autocast(self) -> torch.autocast:
        half = _HALF.get(self.setting.precision)
        return torch.autocast(
            self.device.type, dtype=half, enabled=half is not None, cache_enabled=False
        )

    def _factor(self, step: int) -> float:
        return learning_rate_factor(
            step / self.steps,
            self.setting.schedule,
            self.setting.warmup / self.setting.epochs,
            self.setting.milestones,
        )

    def run_epoch(
        self,
        before_step: Callable[[], None] = lambda: None,
        tell: Callable[[float], None] = lambda _: None,
    ) -> dict[str, float]:
        """Train for one epoch.

        Args:
            before_step: is called when gradients are there and no step was taken yet.
            tell: is told the share of the run that is done.

        Returns:
            Mean loss and accuracy over the epoch's batches, of all ranks.

        Raises:
            FloatingPointError: the loss is no longer a number.
        """
        self.model.train()
        self._part_ranks()
        losses = torch.zeros((), device=self.device)
        right = torch.zeros((), device=self.device)
        n = 0
        for step, (batch, targets) in enumerate(self.source.batches.epoch(self.epoch)):
            labels = targets.to(self.device, non_blocking=True)
            inputs = self._laid_out(self.source.ready(batch))
            with self._autocast():
                outputs = self.forward(inputs)
                loss = cross_entropy(outputs, labels, label_smoothing=self.setting.label_smoothing)
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            before_step()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.schedule.step()
            losses += loss.detach() * len(labels)
            right += (outputs.detach().argmax(1) == labels).sum()
            n += len(labels)
            tell((self.epoch + (step + 1) / len(self.source.batches)) / self.setting.epochs)
        self.epoch += 1
        if self.ranks > 1:  # so that all ranks see alike what one of them does, NaN included
            for total in (losses, right):
                distributed.all_reduce(total)
            n *= self.ranks
        loss_mean = float(losses) / n
        if not math.isfinite(loss_mean):
            raise FloatingPointError(
                f"the loss is {loss_mean} in epoch {self.epoch}: lower the learning rate"
            )
        return {"loss": loss_mean, "train_accuracy": float(right) / n}

    def _part_ranks(self) -> None:
        """Let each rank draw its own random numbers; a checkpoint holds those of the first."""
        if self.ranks > 1:
            key = self.setting.seed, "rank", self.rank, self.epoch
            torch.manual_seed(seeded_generator(*key).initial_seed())

    def accuracy(self, pairs: Pairs) -> float:
        """Return the share of samples classified right; of none it is NaN.

        Args:
            pairs: inputs and labels, batch by batch, as from ``source.test()``.
        """
        right, n = torch.zeros((), dtype=torch.int64, device=self.device), 0
        for inputs, labels in pairs:
            right += (self.outputs(self.source.ready(inputs)).argmax(1) == labels.to(right)).sum()
            n += len(labels)
        return int(right) / n if n else math.nan

    @torch.no_grad()
    def outputs(self, inputs: Tensor) -> Tensor:
        """Return what the model says of inputs that are ready for it, in evaluation mode."""
        self.model.eval()
        with self._autocast():
            outputs: Tensor = self.model(self._laid_out(inputs))
        return outputs

    def state_dict(self) -> dict[str, Any]:
        """Return all that a run needs to go on bit for bit: tensors, numbers, strings."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "sparse": self.sparse.state_dict(),
            "epoch": self.epoch,
            "random": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.sparse.load_state_dict(state["sparse"])
        self.epoch = state["epoch"]
        torch.set_rng_state(state["random"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self.device)


def learning_rate_factor(
    progress: float, schedule: str, warmup: float, milestones: tuple[float, ...]
) -> float:
    """Return what the learning rate is multiplied with.

    Args:
        progress: through the run, from 0 to 1.
        schedule: "cosine" falls from 1 to 0; "steps" is divided by 10 at each milestone.
        warmup: the share of the run in which the rate rises from 0.
        milestones: for "steps": shares of the run.

    Example:
        >>> learning_rate_factor(0.6, "steps", 0.0, (0.5, 0.75))
        0.1
    """
    rise = min(1.0, progress / warmup) if warmup else 1.0
    if schedule == "cosine":
        return rise * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return rise * 0.1 ** sum(progress >= milestone for milestone in milestones)


def _optimizer(setting: Setting, model: nn.Module, *, fused: bool) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": setting.learning_rate, "weight_decay": setting.weight_decay}
    if setting.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), fused=fused, **common)
    return torch.optim.SGD(
        model.parameters(),
        momentum=setting.momentum,
        nesterov=setting.nesterov,
        fused=fused,
        **common,
    )
