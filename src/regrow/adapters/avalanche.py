"""An Avalanche plugin: ``Naive(model=network.model, ..., plugins=[TaskNetworkPlugin(network)])``.

A strategy asks nothing of plugins but callbacks: nothing of ``regrow[avalanche]`` is imported here.
"""

from typing import Any

import torch

from regrow.continual.network import TaskNetwork

__all__ = ["TaskNetworkPlugin"]


class TaskNetworkPlugin:
    """Makes each experience a task of a network; evaluation shows the experience's own task.

    Labels are counted as the head counts them, from 0, in the order of the task's classes.

    Args:
        network: whose model the strategy trains; tasks are named by their experiences' numbers.

    Example:
        >>> import regrow
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 2))
        >>> plugin = TaskNetworkPlugin(TaskNetwork(model, regrow.SET(density=0.1)))
    """

    def __init__(self, network: TaskNetwork) -> None:
        self.network = network

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Begin a task, and the optimizer anew."""
        classes = sorted(strategy.experience.classes_in_this_experience)
        self.network.add_task(classes, name=str(strategy.experience.current_experience))
        strategy.make_optimizer(reset_optimizer_state=True)
        steps = len(strategy.dataloader) * strategy.train_epochs
        self.network.sparsify(strategy.optimizer, total_steps=steps)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Freeze it."""
        self.network.finish_task()

    def before_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Show the task that is asked for; ValueError if it was never learnt."""
        self.network.activate(str(strategy.experience.current_experience))

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Go on with what is being learnt."""
        if self.network.learning is not None:
            self.network.activate(self.network.learning)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Count labels from 0."""
        labels = torch.tensor(self.network.tasks[self.network.active or 0].classes)
        strategy.mbatch[1] = torch.searchsorted(labels.to(strategy.mb_y.device), strategy.mb_y)

    before_eval_forward = before_forward
