"""Models for images."""

from regrow.vision.models.catalogue import MODELS, build_model, narrowed
from regrow.vision.models.convolutional import conv_net, lenet5, small_conv, vgg
from regrow.vision.models.efficient import InvertedBottleneck, SqueezeExcite, efficientnet_b0
from regrow.vision.models.perceptron import mlp, perceptron, widest_within
from regrow.vision.models.residual import Bottleneck, ResidualBlock, imagenet_resnet, resnet

__all__ = [
    "MODELS",
    "Bottleneck",
    "InvertedBottleneck",
    "ResidualBlock",
    "SqueezeExcite",
    "build_model",
    "conv_net",
    "efficientnet_b0",
    "imagenet_resnet",
    "lenet5",
    "mlp",
    "narrowed",
    "perceptron",
    "resnet",
    "small_conv",
    "vgg",
    "widest_within",
]
