"""Segmentation of volumes: networks whose feature fusion is sparse, and those they compete with."""

from regrow.segmentation.fusion import feature_fusion, released_densities
from regrow.segmentation.lattice import E2ENet, lean_shape
from regrow.segmentation.links import channel_links, pack
from regrow.segmentation.segmenter import Segmenter, channels_of, deep_supervision_weights
from regrow.segmentation.unet import PlainConvUNet, ResidualEncoderUNet

__all__ = [
    "E2ENet",
    "PlainConvUNet",
    "ResidualEncoderUNet",
    "Segmenter",
    "channel_links",
    "channels_of",
    "deep_supervision_weights",
    "feature_fusion",
    "lean_shape",
    "pack",
    "released_densities",
]
