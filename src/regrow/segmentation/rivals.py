"""Small networks of MONAI, to compare with: its residual U-Net and SegResNet."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from regrow.machine import needed
from regrow.segmentation.segmenter import Segmenter, deep_supervision_weights

__all__ = ["Rival", "monai_unet", "seg_res_net"]


class Rival(Segmenter):
    """A network of another package, of one output, whose sides are padded and cut back as ours are.

    Args:
        network: takes (batch, in_channels, depth, height, width), gives num_classes channels.
        in_channels: of the volume.
        num_classes: outputs of a voxel, the background included.
        channels: of each level.
        strides: from each level to the next.
    """

    def __init__(
        self,
        network: nn.Module,
        in_channels: int,
        num_classes: int,
        channels: Sequence[int],
        strides: Sequence[int | Sequence[int]] | None,
    ) -> None:
        super().__init__(in_channels, num_classes, channels, strides, deep_supervision=False)
        self.network = network

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """There is one output."""
        return deep_supervision_weights(1)

    def scores(self, x: Tensor) -> list[Tensor]:
        """Return the network's output alone."""
        return [self.network(x)]


def monai_unet(
    in_channels: int,
    num_classes: int,
    channels: Sequence[int] = (16, 32, 64, 128, 256),
    strides: Sequence[int | Sequence[int]] | None = None,
    *,
    residual: int = 2,
) -> Rival:
    """Build MONAI's U-Net of residual units, 4.8 million parameters at 16 classes.

    Args:
        in_channels: of the volume.
        num_classes: outputs of a voxel, the background included.
        channels: of each level.
        strides: from each level to the next; None is 2 throughout.
        residual: convolutions of a residual unit; 0 for plain convolutions.

    Raises:
        ImportError: MONAI is not installed: the extra ``segmentation`` brings it.

    Source: Kerfoot et al. 2019, "Left-ventricle quantification using residual U-Net".
    """
    with needed("monai", "segmentation"):
        from monai.networks.nets import UNet  # noqa: PLC0415 optional
    steps = (2,) * (len(channels) - 1) if strides is None else tuple(strides)
    network = UNet(3, in_channels, num_classes, channels, steps, num_res_units=residual)
    return Rival(network, in_channels, num_classes, channels, steps)


def seg_res_net(
    in_channels: int,
    num_classes: int,
    width: int = 8,
    blocks: Sequence[int] = (1, 2, 2, 4),
) -> Rival:
    """Build MONAI's SegResNet, 1.2 million parameters at width 8, 18.8 million at width 32.

    Args:
        in_channels: of the volume.
        num_classes: outputs of a voxel, the background included.
        width: channels of the first level, a multiple of 8; doubled from level to level.
        blocks: residual blocks of each level of the encoder; the decoder has one a level.

    Raises:
        ImportError: MONAI is not installed: the extra ``segmentation`` brings it.

    Source: Myronenko 2018 (arXiv 1810.11654), without its auto-encoder.
    """
    with needed("monai", "segmentation"):
        from monai.networks.nets import SegResNet  # noqa: PLC0415 optional
    network = SegResNet(
        init_filters=width,
        in_channels=in_channels,
        out_channels=num_classes,
        blocks_down=tuple(blocks),
        blocks_up=(1,) * (len(blocks) - 1),
    )
    channels = tuple(width * 2**level for level in range(len(blocks)))
    return Rival(network, in_channels, num_classes, channels, None)
