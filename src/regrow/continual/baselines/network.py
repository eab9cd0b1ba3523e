"""One body and a head a task: what learners without masks train."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from regrow.engine.checks import check_integer

__all__ = ["MultiHead", "seeded_build"]


def seeded_build(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a module whose first weights depend on the seed alone.

    Args:
        build: makes it, drawing from torch's own CPU generator, which is left as it was.
        seed: of the drawing.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(check_integer(seed, "seed"))
        return build()


class MultiHead(nn.Module):
    """A network whose last linear layer exists once a task.

    Args:
        build: makes a network; its last linear layer is taken off.
        seed: of the first weights.

    Attributes:
        body: the network without its last layer.
        heads: one linear layer a task.

    Raises:
        ValueError: the network has no linear layer.

    Example:
        >>> network = MultiHead(lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), seed=0)
        >>> network.add_head(5, seed=1)
        >>> network(torch.zeros(2, 4), 0).shape
        torch.Size([2, 5])
    """

    def __init__(self, build: Callable[[], nn.Module], seed: int) -> None:
        super().__init__()
        self.body = seeded_build(build, seed)
        layers = [n for n, m in self.body.named_modules() if isinstance(m, nn.Linear)]
        if not layers or layers[-1] == "":
            raise ValueError("the network has no linear layer inside it to be the head")
        self._width: int = self.body.get_submodule(layers[-1]).in_features  # type: ignore[assignment]
        parent, _, child = layers[-1].rpartition(".")
        setattr(self.body.get_submodule(parent), child, nn.Identity())
        self.heads = nn.ModuleList()

    @property
    def classes(self) -> list[int]:
        """How many outputs each head has."""
        return [head.out_features for head in self.heads]  # type: ignore[misc]

    @property
    def weights(self) -> list[Tensor]:
        """The body's weights: of linear layers and convolutions, not biases and norms."""
        return [p for p in self.body.parameters() if p.ndim > 1]

    def add_head(self, classes: int, seed: int) -> None:
        """Add the head of the next task, where the other parameters are.

        Args:
            classes: outputs, at least 1.
            seed: of its first weights.
        """
        head = seeded_build(lambda: nn.Linear(self._width, classes), seed)
        anywhere = next(self.body.parameters(), None)
        self.heads.append(head if anywhere is None else head.to(anywhere.device))

    def forward(self, inputs: Tensor, task: int) -> Tensor:
        """Compute a task's own logits, shape (n, classes of the task)."""
        logits: Tensor = self.heads[task](self.body(inputs))
        return logits

    def mixed_loss(self, inputs: Tensor, targets: Tensor, tasks: Tensor) -> Tensor:
        """Compute the mean cross-entropy of samples of several tasks, each by its own head.

        Args:
            inputs: shape (n, ...).
            targets: shape (n,), counted within each task.
            tasks: int64, shape (n,): the task of each sample.
        """
        features = self.body(inputs)
        logits = torch.cat([head(features) for head in self.heads], dim=1).float()
        sizes = torch.tensor(self.classes)
        owner = torch.repeat_interleave(torch.arange(len(sizes)), sizes).to(tasks.device)
        first = (sizes.cumsum(0) - sizes).to(tasks.device)
        own = owner == tasks.unsqueeze(1)
        return cross_entropy(logits.masked_fill(~own, -torch.inf), targets + first[tasks])
