"""Models for images."""

from regrow.vision.models.convolutional import conv_net, lenet5, small_conv, vgg
from regrow.vision.models.efficient import InvertedBottleneck, SqueezeExcite, efficientnet_b0
from regrow.vision.models.perceptron import mlp, widest_within
from regrow.vision.models.residual import Bottleneck, ResidualBlock, imagenet_resnet, resnet

__all__ = [
    "Bottleneck",
    "InvertedBottleneck",
    "ResidualBlock",
    "SqueezeExcite",
    "conv_net",
    "efficientnet_b0",
    "imagenet_resnet",
    "lenet5",
    "mlp",
    "resnet",
    "small_conv",
    "vgg",
    "widest_within",
]
