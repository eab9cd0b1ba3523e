"""nnU-Net's networks against its own package, and against the published sizes."""

import pytest
import torch
from torch import nn

from regrow.measure.layers import layer_costs
from regrow.segmentation import PlainConvUNet, ResidualEncoderUNet, channels_of, segmenter

ANISOTROPIC = [(1, 2, 2), 2, 2, 2, (1, 2, 2)]
FLAT_FIRST = [(1, 3, 3), 3, 3, 3, 3, 3]


def totals(model, sides, **options):
    """(million parameters, GFLOP) of one volume of one channel."""
    costs = layer_costs(model, (1, model.in_channels, *sides), **options)
    return sum(c.parameters for c in costs) / 1e6, 2 * sum(c.macs for c in costs) / 1e9


def on_meta(kind, *arguments, **options):
    with torch.device("meta"):
        return kind(*arguments, deep_supervision=False, **options)


@pytest.mark.parametrize(
    ("kind", "options", "sides", "parameters", "gflop"),
    [
        (PlainConvUNet, {}, (128,) * 3, 31.207, 956.34),
        (PlainConvUNet, {"num_classes": 4, "in_channels": 4}, (128,) * 3, 31.20, 965.6),
        (PlainConvUNet, {"strides": ANISOTROPIC}, (64, 160, 160), 30.79, 1122),
        (
            PlainConvUNet,
            {"strides": ANISOTROPIC, "kernels": FLAT_FIRST},
            (64, 160, 160),
            30.71,
            878,
        ),
        (ResidualEncoderUNet, {"strides": ANISOTROPIC}, (64, 160, 160), 101.94, 1878),
    ],
)
def test_parameters_and_operations_are_the_published_ones(kind, options, sides, parameters, gflop):
    found = totals(on_meta(kind, **{"in_channels": 1, "num_classes": 16, **options}), sides)
    assert found == (pytest.approx(parameters, abs=0.006), pytest.approx(gflop, abs=0.7))


def theirs(kind, channels, strides, kernels, classes, **options):
    unet = pytest.importorskip(
        "dynamic_network_architectures.architectures.unet",
        reason="needs dynamic-network-architectures",
    )
    return getattr(unet, kind)(
        2,
        len(channels),
        channels,
        nn.Conv3d,
        kernels,
        [1, *strides],
        num_classes=classes,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
        **options,
    )


def copied(model, other, renamed):
    """Load the other network's weights; every weight of both has its partner."""
    renamed = {renamed(name): value for name, value in other.named_parameters()}
    model.load_state_dict(renamed)


def plain_name(name):
    """The name of nnU-Net's weight in ours; its decoder counts levels from below."""
    parts = name.split(".")
    if name.startswith("encoder.stages"):
        stage, block, rest = parts[2], parts[-3], parts[-2:]
        return ".".join(["encoder", stage, block, *rest])
    kind, index = parts[1], 2 - int(parts[2])
    if kind == "stages":
        return ".".join(["decoder", str(index), *parts[4:]])
    return ".".join(["ups" if kind == "transpconvs" else "heads", str(index), *parts[3:]])


def residual_name(name):
    parts = name.split(".")
    if name.startswith("encoder.stem"):
        return ".".join(["stem", *parts[-2:]])
    if not name.startswith("encoder.stages"):
        return plain_name(name)
    stage, block, inside = parts[2], parts[4], parts[5]
    if inside == "skip":
        return ".".join(["encoder", stage, block, "shortcut", *parts[6:]])
    which = {"conv1": "first", "conv2": "second"}[inside]
    return ".".join(["encoder", stage, block, which, *parts[6:]])


CHANNELS, STRIDES, KERNELS = (4, 6, 8, 8), [(1, 2, 2), 2, (2, 1, 2)], [(1, 3, 3), 3, 3, (3, 1, 3)]


@pytest.mark.parametrize("convolutions", [2, 3])
def test_the_plain_network_equals_nnu_nets(convolutions):
    other = theirs(
        "PlainConvUNet",
        CHANNELS,
        STRIDES,
        KERNELS,
        3,
        n_conv_per_stage=convolutions,
        n_conv_per_stage_decoder=convolutions,
    )
    ours = PlainConvUNet(2, 3, CHANNELS, STRIDES, kernels=KERNELS, convolutions=convolutions)
    copied(ours, other, plain_name)
    x = torch.randn(2, 2, 8, 16, 16)
    for got, wanted in zip(ours(x), other(x), strict=True):
        assert torch.allclose(got, wanted, atol=1e-5)


def test_the_residual_network_equals_nnu_nets():
    other = theirs(
        "ResidualEncoderUNet",
        CHANNELS,
        STRIDES,
        KERNELS,
        3,
        n_blocks_per_stage=(1, 2, 3, 1),
        n_conv_per_stage_decoder=1,
    )
    ours = ResidualEncoderUNet(2, 3, CHANNELS, STRIDES, kernels=KERNELS, blocks=(1, 2, 3, 1))
    copied(ours, other, residual_name)
    x = torch.randn(2, 2, 8, 16, 16)
    for got, wanted in zip(ours(x), other(x), strict=True):
        assert torch.allclose(got, wanted, atol=1e-5)


def test_residual_blocks_start_as_their_shortcuts():
    model = ResidualEncoderUNet(1, 2, (4, 8), blocks=(2, 1))
    block = model.encoder[0][1]
    x = torch.randn(1, 4, 4, 4, 4).abs()
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("kind", [PlainConvUNet, ResidualEncoderUNet])
def test_outputs_of_odd_sides_and_their_weights(kind):
    options = {"blocks": (1, 1, 1)} if kind is ResidualEncoderUNet else {}
    model = kind(1, 2, (4, 4, 4), [(1, 2, 2), 2], **options)
    full, half = model(torch.randn(1, 1, 5, 7, 9))
    assert (full.shape, half.shape) == ((1, 2, 5, 7, 9), (1, 2, 5, 4, 5))
    assert model.loss_weights == (1, 0)  # as in nnU-Net, the lowest is there and does not count
    model.deep_supervision = False
    assert torch.equal(model(torch.ones(1, 1, 5, 7, 9)), model.eval()(torch.ones(1, 1, 5, 7, 9)))


def test_one_number_makes_a_narrow_network():
    assert channels_of(32) == (32, 64, 128, 256, 320, 320)
    assert channels_of(48) == (48, 96, 192, 320, 320, 320)
    narrow = on_meta(PlainConvUNet, 1, 16, channels_of(16))
    wide = on_meta(PlainConvUNet, 1, 16)
    # Half the width is a quarter of the work, but for the input and what is capped at 320.
    share = totals(narrow, (64,) * 3)[1] / totals(wide, (64,) * 3)[1]
    assert 1 / 4 < share < 1 / 3


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (PlainConvUNet, {"kernels": 2}, "odd sides are needed"),
        (PlainConvUNet, {"kernels": [3, 3, 3]}, "one kernel for each of 2 levels"),
        (ResidualEncoderUNet, {}, "blocks=.* one number from 1 on is needed for each of 2 levels"),
        (ResidualEncoderUNet, {"blocks": (1, 0)}, "blocks=\\(1, 0\\)"),
        (PlainConvUNet, {"convolutions": 0}, "convolutions=0: must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(kind, options, said):
    with pytest.raises(ValueError, match=said):
        kind(1, 2, (4, 4), **options)


@pytest.mark.parametrize("activated", [False, True])
def test_a_block_computes_the_same_where_norm_and_activation_are_fused(monkeypatch, activated):
    """As on a GPU; there the blocks of shortcuts, which have no activation, are fused, too."""
    torch.manual_seed(0)
    block = segmenter.ConvBlock(2, 3, (3, 3, 3), activated=activated)
    torch.nn.init.normal_(block.norm.weight)
    x = torch.randn(2, 2, 4, 5, 6)
    expected = block(x)
    assert bool((expected < -0.5).any()) != activated
    monkeypatch.setattr(segmenter, "fusable", lambda *_: True)
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)
