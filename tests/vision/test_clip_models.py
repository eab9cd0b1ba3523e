"""Models for clips: sizes against independent counts, shapes, and what comes in."""

import pytest
import torch
from torch import nn

from regrow.vision.models import (
    Bottleneck,
    Bottleneck3d,
    InceptionBlock3d,
    build_model,
    i3d,
    resnet3d50,
)
from regrow.vision.models.catalogue import MODELS

CLIPS = [name for name, model in MODELS.items() if model.clips]


def size(model):
    return sum(p.numel() for p in model.parameters())


def with_norm(before, after, kernel):
    return before * after * kernel**3 + 2 * after


def test_a_3d_resnet_has_the_size_of_its_papers_table():
    """Figure 3 and table 1, shortcuts B; the public code counts the same: 47,018,576."""
    total, before = with_norm(3, 64, 7), 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            total += with_norm(before, width, 1) + with_norm(width, width, 3)
            total += with_norm(width, 4 * width, 1)
            total += with_norm(before, 4 * width, 1) if block == 0 else 0
            before = 4 * width
    with torch.device("meta"):
        assert size(resnet3d50(3, 400)) == total + 400 * 2049 == 47_018_576


def test_i3d_has_the_size_of_public_versions():
    with torch.device("meta"):
        assert size(i3d(3, 400)) == 12_697_264
        blocks = [m for m in i3d().modules() if isinstance(m, InceptionBlock3d)]
    widths = [m.point[0].in_channels for m in blocks]
    assert widths == [192, 256, 480, 512, 512, 512, 528, 832, 832]  # GoogLeNet, table 1


def test_a_block_that_does_not_look_into_time_is_the_flat_one():
    """Kernels that see their middle frame only leave every frame to itself."""
    flat, deep = Bottleneck(8, 4).eval(), Bottleneck3d(8, 4).eval()
    state = {}
    for name, value in flat.state_dict().items():
        if value.ndim == 4:
            kernel = torch.zeros(deep.state_dict()[name].shape)
            kernel[:, :, kernel.shape[2] // 2] = value
        state[name] = kernel if value.ndim == 4 else value
    deep.load_state_dict(state)
    clip = torch.randn(2, 8, 3, 6, 6)
    frames = torch.stack([flat(frame) for frame in clip.unbind(2)], 2)
    torch.testing.assert_close(deep(clip), frames, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("shape", [(1, 8, 28, 28), (3, 8, 32, 32), (3, 16, 112, 112)])
def test_every_parameter_is_reached(name, shape):
    model = build_model(name, shape, 7, scale=0.1)
    outputs = model(torch.randn(2, *shape))
    assert outputs.shape == (2, 7)
    outputs.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", CLIPS)
def test_large_clips_go_through(name):
    model = build_model(name, (3, 64, 224, 224), 4, scale=0.02).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 64, 224, 224)).shape == (1, 4)


@pytest.mark.parametrize(("name", "pools"), [("resnet3d-50", 1), ("i3d", 4)])
def test_small_clips_are_not_shrunk_at_the_start(name, pools):
    small = build_model(name, (1, 8, 28, 28), 7, scale=0.1)
    large = build_model(name, (1, 8, 112, 112), 7, scale=0.1)
    first = [
        next(m for m in model.modules() if isinstance(m, nn.Conv3d)) for model in (small, large)
    ]
    assert [conv.kernel_size for conv in first] == [(3, 3, 3), (7, 7, 7)]
    assert first[0].stride == (1, 1, 1)
    counts = [sum(isinstance(m, nn.MaxPool3d) for m in model) for model in (small, large)]
    assert counts == [pools - 1, pools]


@pytest.mark.parametrize("name", CLIPS)
def test_images_are_refused(name):
    with pytest.raises(ValueError, match=rf"model='{name}' takes clips .*\(3, 32, 32\)"):
        build_model(name, (3, 32, 32), 10)


@pytest.mark.parametrize("name", ["small-conv", "resnet34", "deit-tiny"])
def test_clips_are_refused_by_models_of_images(name):
    with pytest.raises(ValueError, match=rf"model='{name}' takes images"):
        build_model(name, (3, 8, 32, 32), 10)


def test_grey_images_are_refused_where_colour_is_needed():
    with pytest.raises(ValueError, match="model='resnet34' takes images of 3 channels"):
        build_model("resnet34", (1, 32, 32), 10)
