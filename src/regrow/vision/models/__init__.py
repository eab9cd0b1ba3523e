"""Models for images and clips."""

from regrow.vision.models.catalogue import MODELS, Model, build_model, check_model, narrowed
from regrow.vision.models.convolutional import conv_net, lenet5, small_conv, small_conv3d, vgg
from regrow.vision.models.depth import leave_out
from regrow.vision.models.efficient import InvertedBottleneck, SqueezeExcite, efficientnet_b0
from regrow.vision.models.inception3d import InceptionBlock3d, i3d
from regrow.vision.models.perceptron import mlp, perceptron, widest_within
from regrow.vision.models.residual import Bottleneck, ResidualBlock, imagenet_resnet, resnet
from regrow.vision.models.residual3d import Bottleneck3d, resnet3d50
from regrow.vision.models.transformer import (
    Attention,
    TransformerBlock,
    VisionTransformer,
    deit,
    patch_for,
)

__all__ = [
    "MODELS",
    "Attention",
    "Bottleneck",
    "Bottleneck3d",
    "InceptionBlock3d",
    "InvertedBottleneck",
    "Model",
    "ResidualBlock",
    "SqueezeExcite",
    "TransformerBlock",
    "VisionTransformer",
    "build_model",
    "check_model",
    "conv_net",
    "deit",
    "efficientnet_b0",
    "i3d",
    "imagenet_resnet",
    "leave_out",
    "lenet5",
    "mlp",
    "narrowed",
    "patch_for",
    "perceptron",
    "resnet",
    "resnet3d50",
    "small_conv",
    "small_conv3d",
    "vgg",
    "widest_within",
]
