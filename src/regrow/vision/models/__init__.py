"""Models for images."""

from regrow.vision.models.convolutional import conv_net
from regrow.vision.models.perceptron import mlp, widest_within
from regrow.vision.models.residual import Bottleneck, ResidualBlock, imagenet_resnet, resnet

__all__ = [
    "Bottleneck",
    "ResidualBlock",
    "conv_net",
    "imagenet_resnet",
    "mlp",
    "resnet",
    "widest_within",
]
