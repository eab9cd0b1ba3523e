"""Networks of volumes by name: what a run's record needs to build its network anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regrow.segmentation.lattice import E2ENet, lean_shape
from regrow.segmentation.rivals import monai_unet, seg_res_net
from regrow.segmentation.segmenter import Segmenter, Sides
from regrow.segmentation.unet import PlainConvUNet, ResidualEncoderUNet

__all__ = ["LATTICES", "MODELS", "Network"]

LATTICES = ("e2enet", "e2enet-lean")
MODELS = (*LATTICES, "nnunet", "nnunet-residual", "monai-unet", "monai-segresnet")


@dataclass(frozen=True)
class Network:
    """A network's shape: all that is needed to build it anew.

    Args:
        model: one of ``MODELS``.
        in_channels: of the volumes.
        num_classes: the background included.
        channels: of each level.
        strides: from each level to the next.
        spacing: of the volumes: kernels of U-Nets are flat along a wide axis.
        shift: of E2ENet and its lean form; 0: none.
        depth_kernel: of E2ENet: 3 for full kernels.
    """

    model: str
    in_channels: int
    num_classes: int
    channels: tuple[int, ...]
    strides: tuple[Sides, ...]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shift: int = 3
    depth_kernel: int = 1

    def build(self) -> Segmenter:
        """Build it; its first weights are drawn from torch's global generator.

        Raises:
            ValueError: the model is unknown, or does not have these strides.
        """
        if self.model not in MODELS:
            raise ValueError(f"model={self.model!r}: must be one of {', '.join(MODELS)}")
        shape = self.in_channels, self.num_classes, self.channels, self.strides
        levels = len(self.channels)
        if self.model == "monai-unet":
            return monai_unet(*shape)
        if self.model == "monai-segresnet":
            if set(self.strides) != {(2, 2, 2)}:
                raise ValueError(
                    f"model='monai-segresnet' halves every axis, and patch and spacing ask for "
                    f"strides of {self.strides}: give another patch, or another model"
                )
            return seg_res_net(*shape[:2], self.channels[0], (1, 2, 2, 4, 4, 4)[:levels])
        kernels = _kernels(self.strides, self.spacing)
        if self.model == "nnunet":
            return PlainConvUNet(*shape, kernels=kernels)
        if self.model == "nnunet-residual":
            blocks = (1, 3, 4, 6, 6, 6)[:levels]
            return ResidualEncoderUNet(*shape, kernels=kernels, blocks=blocks)
        if self.model == "e2enet-lean":
            return E2ENet(*shape, shift=self.shift, **lean_shape(levels))
        return E2ENet(*shape, shift=self.shift, depth_kernel=self.depth_kernel)


def _kernels(strides: Sequence[Sides], spacing: tuple[float, float, float]) -> tuple[Sides, ...]:
    """Return nnU-Net's kernels: flat along an axis whose spacing is still twice the finest."""
    apart, kernels = list(spacing), []
    for stride in (*strides, (1, 1, 1)):
        one, two, three = (1 if mm >= 2 * min(apart) else 3 for mm in apart)
        kernels.append((one, two, three))
        apart = [mm * by for mm, by in zip(apart, stride, strict=True)]
    return tuple(kernels)
