"""Trainers for ``nnUNetv2_train ... -tr NAME``, where ``nnUNet_extTrainer`` names this folder."""

from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from regrow.adapters.nnunet import E2ENetTraining, SparseTraining
from regrow.segmentation import channel_links
from regrow.segmentation.fusion import steps_between_updates

__all__ = ["nnUNetTrainerE2ENet", "nnUNetTrainerE2ENetLinks", "nnUNetTrainerRigL"]


class nnUNetTrainerE2ENet(E2ENetTraining, nnUNetTrainer):  # type: ignore[misc]
    """E2ENet, whose fusion keeps a fifth of its kernels: the paper's."""


class nnUNetTrainerE2ENetLinks(E2ENetTraining, nnUNetTrainer):  # type: ignore[misc]
    """E2ENet, whose fusion drops and grows whole input channels."""

    def sparsity(self) -> dict[str, Any]:
        """Return method and weights of :func:`regrow.segmentation.channel_links`."""
        return channel_links(self.density, update_every=steps_between_updates(self.total_steps()))


class nnUNetTrainerRigL(SparseTraining, nnUNetTrainer):  # type: ignore[misc]
    """The plans' own network, which keeps a fifth of its weights, by RigL."""
