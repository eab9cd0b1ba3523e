"""Sparse training inside nnU-Net v2: classes to be put before its trainer's.

Trainers made of them lie in :func:`trainers_folder`, where nnU-Net finds them by its variable. It
asks nothing of a trainer but methods: nothing of nnunetv2 is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

import regrow
from regrow.engine.saliency import LargestWeights
from regrow.engine.wrappers import unwrap
from regrow.segmentation import E2ENet, feature_fusion
from regrow.segmentation.fusion import steps_between_updates

__all__ = ["E2ENetTraining", "SparseTraining", "e2enet_of", "trainers_folder"]

_TOPOLOGY = "topology"
_WIDER = 1.5  # than nnU-Net's network, whose first level has 32 channels where E2ENet's has 48
_LARGEST = 320
_Trainer: Any = object  # nnUNetTrainer comes after these classes: class Mine(SparseTraining, it)


def trainers_folder() -> Path:
    """Return the folder for nnU-Net's variable ``nnUNet_extTrainer``.

    Raises:
        ImportError: nnunetv2 is missing, or older than the variable, which it would ignore.
    """
    # Named together with torch, which pip would otherwise replace by the newest.
    how = f"needed is 2.8 or newer: pip install -U nnunetv2 torch=={torch.__version__}"
    try:
        found = version("nnunetv2")
    except PackageNotFoundError:
        raise ImportError(f"nnunetv2 is not installed; {how}") from None
    if [int(part) for part in found.split(".")[:2]] < [2, 8]:
        raise ImportError(f"nnunetv2 {found} does not look for trainers outside itself; {how}")
    return Path(__file__).parent / "nnunet_trainers"


def e2enet_of(
    configuration: Mapping[str, Any],
    in_channels: int,
    num_classes: int,
    *,
    deep_supervision: bool = True,
) -> E2ENet:
    """Return E2ENet for a configuration of nnU-Net's plans.

    Strides are the plan's; levels have 1.5 times its channels, up to 320 (or its own largest), so
    that nnU-Net's 32, 64, ... become the paper's 48, 96, ...; kernels are flat along the axis of
    the largest spacing.

    Args:
        configuration: an entry of the plan's "configurations", of volumes.
        in_channels: of the volume.
        num_classes: outputs of a voxel.
        deep_supervision: as of :class:`regrow.segmentation.E2ENet`.

    Raises:
        ValueError: the configuration is of slices, or of a network that is no U-Net.

    Example:
        >>> strides = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
        >>> network = {"features_per_stage": [32, 64, 128], "strides": strides}
        >>> plan = {"spacing": [3.0, 0.8, 0.8], "architecture": {"arch_kwargs": network}}
        >>> model = e2enet_of(plan, 1, 3)
        >>> model.channels, model.strides, model.axis
        ((48, 96, 192), ((1, 2, 2), (2, 2, 2)), 0)
    """
    architecture = configuration["architecture"]
    network, spacing = architecture["arch_kwargs"], list(configuration["spacing"])
    if len(spacing) != 3:
        raise ValueError(
            f"the configuration is of {len(spacing)} axes, and E2ENet segments volumes: train "
            "3d_fullres or 3d_lowres"
        )
    if missing := [key for key in ("features_per_stage", "strides") if key not in network]:
        raise ValueError(
            f"the plans' network {architecture.get('network_class_name')} has no "
            f"{' and no '.join(missing)}: use plans of a U-Net, such as nnUNetPlans"
        )
    features, strides = network["features_per_stage"], network["strides"]
    if any(side != 1 for side in strides[0]):
        raise ValueError(
            f"strides={strides}: the plans' network begins below full resolution, where E2ENet "
            "begins; use plans whose first stride is 1"
        )
    largest = max(_LARGEST, *features)
    return E2ENet(
        in_channels,
        num_classes,
        [min(int(_WIDER * count), largest) for count in features],
        strides[1:],
        axis=spacing.index(max(spacing)),
        deep_supervision=deep_supervision,
    )


class SparseTraining(_Trainer):  # type: ignore[misc]
    """Keeps an nnU-Net trainer's network sparse: ``class Mine(SparseTraining, nnUNetTrainer)``.

    By default the plans' own network, by RigL; override :meth:`sparsity` for another method. Masks
    and record are part of the checkpoint's optimizer state, and come back with ``--c``. Weights
    loaded by ``-pretrained_weights`` begin with the largest kept.

    Attributes:
        density: the fraction of weights kept.
        sparse: the sparsifier, from the start of training on.
        loaded: its state in the checkpoint that training goes on from.
    """

    density: float = 0.2
    sparse: regrow.Sparsifier | None = None
    loaded: Mapping[str, Any] | None = None

    def sparsity(self) -> dict[str, Any]:
        """Return the method and which weights, as arguments of `regrow.sparsify`."""
        return {"method": regrow.RigL(density=self.density)}

    def total_steps(self) -> int:
        """Return the optimizer steps of the whole run."""
        return int(self.num_epochs * self.num_iterations_per_epoch)

    def initialize(self) -> None:
        """Build the network, and remember whether others write to it from then on."""
        super().initialize()
        self._writes = self._count_writes()

    def configure_optimizers(self) -> Any:
        """Make the optimizer's state the place of the topology: nnU-Net saves it as it is."""
        optimizer, scheduler = super().configure_optimizers()
        optimizer.register_state_dict_post_hook(self._add_topology)
        optimizer.register_load_state_dict_pre_hook(self._take_topology)
        return optimizer, scheduler

    def on_train_start(self) -> None:
        """Make the network sparse, or go on with the checkpoint's topology."""
        super().on_train_start()
        if self.current_epoch and self.loaded is None:
            raise ValueError(
                f"the checkpoint of epoch {self.current_epoch} has no topology: it was not written "
                f"by {type(self).__name__}, and a new one would lose what was learned"
            )
        options = self.sparsity()
        if self.loaded is None and self._count_writes() != self._writes:
            options["method"] = _keeping_largest(options["method"])
        self.sparse = regrow.sparsify(
            self.network,
            self.optimizer,
            **options,
            total_steps=self.total_steps(),
            state=self.loaded,
        )
        self.print_to_log_file(f"\n{self.sparse.summary()}")

    def on_train_epoch_end(self, train_outputs: list[Any]) -> None:
        """Log the density beside the loss."""
        super().on_train_epoch_end(train_outputs)
        assert self.sparse is not None
        updates = len(self.sparse.history)
        self.print_to_log_file(f"density {self.sparse.density:.4f}, {updates} updates")

    def on_train_end(self) -> None:
        """Save, and let go of the weights: validation may load those of another epoch."""
        super().on_train_end()
        assert self.sparse is not None
        self.sparse.remove()

    def _count_writes(self) -> int:
        return sum(parameter._version for parameter in self.network.parameters())

    def _add_topology(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        topology = self.loaded if self.sparse is None else self.sparse.state_dict()
        return state if topology is None else state | {_TOPOLOGY: topology}

    def _take_topology(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        self.loaded = state.get(_TOPOLOGY)
        return {key: value for key, value in state.items() if key != _TOPOLOGY}


class E2ENetTraining(SparseTraining):
    """Trains E2ENet with sparse feature fusion: ``class Mine(E2ENetTraining, nnUNetTrainer)``.

    The network is :func:`e2enet_of` the plans; loss weights are E2ENet's, on up to four outputs.
    """

    def sparsity(self) -> dict[str, Any]:
        """Return method and weights of :func:`regrow.segmentation.feature_fusion`."""
        return feature_fusion(self.density, update_every=steps_between_updates(self.total_steps()))

    # Static and of these names, as nnU-Net calls it: prediction builds the network without a
    # trainer.
    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> torch.nn.Module:
        """Return the network of a configuration."""
        return e2enet_of(
            configuration_manager.configuration,
            num_input_channels,
            num_output_channels,
            deep_supervision=enable_deep_supervision,
        )

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Return all outputs, or the full resolution alone."""
        self._e2enet().deep_supervision = enabled

    def _get_deep_supervision_scales(self) -> Any:
        scales = super()._get_deep_supervision_scales()
        return scales and scales[: len(self._e2enet().heads)]

    def _build_loss(self) -> Any:
        loss = super()._build_loss()
        if self.enable_deep_supervision:
            loss.weight_factors = self._e2enet().loss_weights
        return loss

    def _e2enet(self) -> E2ENet:
        network = unwrap(self.network)
        assert isinstance(network, E2ENet)
        return network


def _keeping_largest(method: regrow.Method) -> regrow.Method:
    """Return the method whose first topology is the largest weights, where it was drawn."""
    if method.start is not None or isinstance(method, regrow.Dense):
        return method
    return replace(method, start=LargestWeights(scope="layer"))
