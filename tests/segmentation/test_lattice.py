"""E2ENet: its shapes, what it sees, what it leaves alone."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import regrow
from regrow.segmentation import E2ENet, deep_supervision_weights
from regrow.segmentation.segmenter import ConvBlock

FLAT = [(1, 2, 2), (1, 2, 2)]  # nothing but a shift can bring another slice in


@pytest.fixture(scope="module")
def full():
    with torch.device("meta"):
        return E2ENet(1, 16)


def shapes(model, end):
    found = {n: tuple(p.shape[:2]) for n, p in model.named_parameters() if n.endswith(end)}
    return {n.removeprefix("nodes.").removesuffix(end): s for n, s in found.items()}


def test_the_lattice_has_the_published_nodes(full):
    """Weight by weight as in the released network's tables; transposed weights are (in, out)."""
    inputs = {0: 96, 1: 240, 2: 480, 3: 832, 4: 960}
    outputs = {0: 48, 1: 96, 2: 192, 3: 320, 4: 320}
    ups = {0: (96, 48), 1: (192, 96), 2: (320, 192), 3: (320, 320), 4: (320, 320)}
    nodes = [(level, stage) for stage in range(1, 6) for level in range(6 - stage)]
    assert len(nodes) == 15
    first = {f"{i}_{j}": (outputs[i], inputs[i]) for i, j in nodes}
    second = {f"{i}_{5 - i}": (outputs[i], outputs[i]) for i in range(5)}
    assert shapes(full, ".blocks.0.conv.weight") == first
    assert shapes(full, ".blocks.1.conv.weight") == second
    assert shapes(full, ".up.weight") == {f"{i}_{j}": ups[i] for i, j in nodes}
    kernels = {m.kernel_size for m in full.modules() if isinstance(m, nn.Conv3d)}
    assert kernels == {(1, 3, 3), (1, 1, 1)}
    assert [tuple(head.weight.shape) for head in full.heads] == [
        (16, channels, 1, 1, 1) for channels in (48, 96, 192, 320)
    ]
    # Bias in blocks, none in heads and transposed convolutions.
    assert all(head.bias is None for head in full.heads)
    assert all(m.bias is None for m in full.modules() if isinstance(m, nn.ConvTranspose3d))
    assert all(m.bias is not None for n, m in full.named_modules() if n.endswith(".conv"))


def test_four_outputs_the_full_resolution_first(full):
    x = torch.zeros(2, 1, 64, 64, 64, device="meta")
    sides = [tuple(scores.shape[2:]) for scores in full(x)]
    assert sides == [(64,) * 3, (32,) * 3, (16,) * 3, (8,) * 3]
    assert full.loss_weights == pytest.approx([8 / 15, 4 / 15, 2 / 15, 1 / 15])


@pytest.mark.parametrize(("levels", "outputs"), [(2, 1), (3, 2), (4, 3), (5, 4), (7, 4)])
def test_any_number_of_levels(levels, outputs):
    with torch.device("meta"):
        model = E2ENet(2, 3, (6,) * levels)
        scores = model(torch.zeros(1, 2, *(2**levels,) * 3))
    assert len(scores) == outputs == len(model.loss_weights)
    assert sum(model.loss_weights) == pytest.approx(1)
    assert len(model.nodes) == levels * (levels - 1) // 2


def test_without_deep_supervision_the_output_is_one_tensor_in_training_and_testing():
    torch.manual_seed(0)
    model = E2ENet(1, 3, (6, 12, 12))
    x = torch.randn(2, 1, 8, 8, 8)
    every = model(x)
    model.deep_supervision = False
    assert torch.equal(model(x), every[0])
    assert torch.equal(model.eval()(x), every[0])
    again = E2ENet(1, 3, (6, 12, 12), deep_supervision=False)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x), every[0])


def test_the_lattice_computes_its_formula():
    """x[i,j] = F(x[i,j-1], Up x[i+1,j-1], Down x[i-1,j-1]), written out for three levels."""
    torch.manual_seed(1)
    model = E2ENet(1, 2, (3, 6, 9), strides=[(1, 2, 2), 2], shift=0).double()
    x = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64)

    def block(b, x):
        x = functional.conv3d(x, b.conv.weight, b.conv.bias, b.conv.stride, (0, 1, 1))
        mean = x.mean((2, 3, 4), keepdim=True)
        x = (x - mean) / (x.var((2, 3, 4), correction=0, keepdim=True) + 1e-5).sqrt()
        x = x * b.norm.weight[:, None, None, None] + b.norm.bias[:, None, None, None]
        return torch.where(x > 0, x, 0.01 * x)

    def up(node, x, stride):
        return functional.conv_transpose3d(x, node.up.weight, stride=stride)

    def down(x, stride):
        return functional.max_pool3d(x, stride)

    a, b = (1, 2, 2), (2, 2, 2)
    e, n = model.encoder, model.nodes
    x00 = block(e[0][1], block(e[0][0], x))
    x10 = block(e[1][1], block(e[1][0], x00))
    x20 = block(e[2][1], block(e[2][0], x10))
    x01 = block(n["0_1"].blocks[0], torch.cat([x00, up(n["0_1"], x10, a)], 1))
    x11 = torch.cat([x10, up(n["1_1"], x20, b), down(x00, a)], 1)
    x11 = block(n["1_1"].blocks[1], block(n["1_1"].blocks[0], x11))
    x02 = torch.cat([x01, up(n["0_2"], x11, a)], 1)
    x02 = block(n["0_2"].blocks[1], block(n["0_2"].blocks[0], x02))
    expected = [
        functional.conv3d(v, h.weight) for v, h in zip((x02, x11), model.heads, strict=True)
    ]
    for got, wanted in zip(model(x), expected, strict=True):
        assert torch.allclose(got, wanted)


# ---------------------------------------------------------------------- the shift in the network


def segments(model, name):
    return model.get_submodule(name).segments


def test_the_input_is_not_moved():
    for channels in (1, 4):
        moves = {offset for *_, offset in segments(E2ENet(channels, 2, (6, 12)), "encoder.0.0")}
        assert moves == {0}


def test_the_released_layout_moves_its_input():
    assert segments(E2ENet(1, 2, (10, 20), paper_compat=True), "encoder.0.0") == ((0, 0, 1, -2),)
    four = segments(E2ENet(4, 2, (10, 20), paper_compat=True), "encoder.0.0")
    assert [offset for *_, offset in four] == [-2, -1, 0, 1]


def test_every_source_of_every_node_sees_every_shift(full):
    for level, stage in (map(int, name.split("_")) for name in full.nodes):
        blocks = full.nodes[f"{level}_{stage}"].blocks
        for block in blocks:
            sources = {s for s, *_ in block.segments}
            assert sources == set(range(2 + (level > 0))) if block is blocks[0] else {0}
            for source in sources:
                seen = [(stop - start, o) for s, start, stop, o in block.segments if s == source]
                assert [o for _, o in seen] == [-1, 0, 1]
                assert max(size for size, _ in seen) - min(size for size, _ in seen) <= 1


def test_the_released_layout_shows_a_source_some_shifts_only():
    with torch.device("meta"):
        model = E2ENet(1, 2, (48, 96, 192), paper_compat=True)
    first = segments(model, "nodes.1_1.blocks.0")
    seen = [{o for s, _, _, o in first if s == source} for source in range(3)]
    assert seen == [{-2, -1}, {0, 1}, {2}]


def test_both_layouts_have_the_same_weights():
    ours, released = E2ENet(1, 2, (6, 12)), E2ENet(1, 2, (6, 12), paper_compat=True)
    released.load_state_dict(ours.state_dict())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_without_a_shift_slices_know_nothing_of_each_other(axis):
    """Slices in another order give outputs in that order; norms see all slices, in any order."""
    torch.manual_seed(2)
    strides = [2, 2, 2]
    strides[axis] = 1
    options = {"channels": (6, 12), "strides": [strides], "axis": axis, "deep_supervision": False}
    x, order = torch.randn(1, 1, 8, 8, 8, dtype=torch.float64), torch.randperm(8)
    blind, seeing = E2ENet(1, 2, shift=0, **options), E2ENet(1, 2, **options)
    for model, same in ((blind.double(), True), (seeing.double(), False)):
        permuted = model(x.index_select(axis + 2, order))
        agree = torch.allclose(permuted, model(x).index_select(axis + 2, order))
        assert agree is same


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_another_axis_is_the_same_network_turned(axis):
    torch.manual_seed(3)
    turned = [1, 2, 3]
    turned[0], turned[axis] = turned[axis], turned[0]
    first = E2ENet(1, 2, (6, 12), strides=[(1, 2, 2)], deep_supervision=False).double()
    strides = [2, 2, 2]
    strides[axis] = 1
    other = E2ENet(1, 2, (6, 12), strides=[strides], axis=axis, deep_supervision=False).double()
    dims = (0, 1, *(d + 1 for d in turned))
    state = {n: v.permute(dims) if v.ndim == 5 else v for n, v in first.state_dict().items()}
    other.load_state_dict(state)
    x = torch.randn(1, 1, 5, 6, 8, dtype=torch.float64)
    assert torch.allclose(other(x.permute(dims)), first(x).permute(dims))


def test_full_kernels_take_the_place_of_the_shift():
    model = E2ENet(1, 2, (6, 12), shift=0, depth_kernel=3)
    kernels = {m.conv.kernel_size for m in model.modules() if hasattr(m, "conv")}
    assert kernels == {(3, 3, 3)}
    assert {o for m in model.modules() if hasattr(m, "segments") for *_, o in m.segments} == {0}


def neighbours(n, generator, side=8):
    """Volumes of noise; a voxel's class is whether the one a slice further is bright."""
    x = torch.randn(n, 1, 6, side, side, generator=generator)
    return x, (x.roll(-1, 2) > 0).long()[:, 0]


@pytest.mark.parametrize(("shift", "solved"), [(3, True), (0, False)])
def test_classes_that_only_depth_tells_apart(shift, solved):
    """What a voxel shows says nothing of its class: without other slices, half are right."""
    torch.manual_seed(4)
    generator = torch.Generator().manual_seed(5)
    model = E2ENet(1, 2, (9, 9), strides=[(1, 2, 2)], shift=shift, deep_supervision=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        x, y = neighbours(8, generator)
        optimizer.zero_grad()
        # The last slice's class lies outside.
        functional.cross_entropy(model(x)[:, :, :-1], y[:, :-1]).backward()
        optimizer.step()
    x, y = neighbours(64, generator)
    right = float((model(x).argmax(1) == y)[:, :-1].float().mean())
    assert right > 0.9 if solved else 0.47 < right < 0.53


# ---------------------------------------------------------------------- shapes and errors


@pytest.mark.parametrize("sides", [(7, 15, 13), (8, 16, 16), (1, 9, 9), (9, 8, 17)])
@pytest.mark.parametrize("strides", [[(1, 2, 2), 2], [2, 2], [(1, 3, 2), (2, 1, 2)]])
def test_sides_are_padded_and_cut_back(sides, strides):
    model = E2ENet(1, 2, (6, 6, 6), strides=strides)
    with torch.no_grad():
        full, half = model(torch.randn(1, 1, *sides))
    assert tuple(full.shape[2:]) == sides
    assert tuple(half.shape[2:]) == tuple(
        -(-side // by) for side, by in zip(sides, model.strides[0], strict=True)
    )
    assert full.isfinite().all()


def test_padding_repeats_the_border():
    torch.manual_seed(6)
    model = E2ENet(1, 2, (6, 6), deep_supervision=False)
    x = torch.randn(1, 1, 5, 6, 7)
    whole = functional.pad(x, (0, 1, 0, 0, 0, 1), mode="replicate")
    assert torch.equal(model(x), model(whole)[:, :, :5, :6, :7])


@pytest.mark.parametrize("counts", [(3, 2, 1), (1, 2, 1), (1, 1, 1), (2, 1, 1)])
def test_the_last_nodes_of_each_level_are_there_and_all_are_used(counts):
    torch.manual_seed(1)
    model = E2ENet(1, 2, (6, 6, 9, 9), nodes=counts, blocks=(1, 2, 3, 1)).double()
    stages = {level: range(4 - level - count, 4 - level) for level, count in enumerate(counts)}
    assert set(model.nodes) == {f"{level}_{j}" for level, js in stages.items() for j in js}
    assert [len(stage) for stage in model.encoder] == [1, 2, 3, 1]
    lasts = [len(model.nodes[f"{level}_{3 - level}"].blocks) for level in range(3)]
    assert lasts == [1, 2, 3]
    outputs = model(torch.randn(1, 1, 8, 16, 16, dtype=torch.float64))
    assert [tuple(y.shape[2:]) for y in outputs] == [(8, 16, 16), (4, 8, 8), (2, 4, 4)]
    sum(y.square().sum() for y in outputs).backward()
    assert all(p.grad is not None for p in model.parameters())
    if counts == (3, 2, 1):  # the whole lattice
        named = E2ENet(1, 2, (6, 6, 9, 9), blocks=(1, 2, 3, 1)).double()
        named.load_state_dict(model.state_dict())
        x = torch.randn(1, 1, 8, 8, 16, dtype=torch.float64)
        assert all(map(torch.equal, named(x), model(x)))


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2), (1, 2, 2), (2, 1, 2)])
@pytest.mark.parametrize("kernel", [(1, 3, 3), (1, 1, 1), (3, 3, 3)])
def test_flat_kernels_are_computed_slice_by_slice_alike(kernel, stride):
    torch.manual_seed(2)
    conv = ConvBlock(5, 7, kernel, stride).conv.double()
    x = torch.randn(2, 5, 6, 7, 8, dtype=torch.float64, requires_grad=True)
    expected = functional.conv3d(x, conv.weight, conv.bias, stride, conv.padding)
    found = conv(x.to(memory_format=torch.channels_last_3d))
    if kernel[0] == 1:
        assert found.is_contiguous(memory_format=torch.channels_last_3d)
    dy = torch.randn_like(expected)
    wanted = [x, conv.weight, conv.bias]
    for one, other in zip(
        (found, *torch.autograd.grad(found, wanted, dy)),
        (expected, *torch.autograd.grad(expected, wanted, dy)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_flat_convolutions_may_be_stored_sparse_as_any():
    """Their class computes what Conv3d does, so csr takes it; other subclasses are refused."""
    torch.manual_seed(3)
    model = E2ENet(1, 2, (6, 6), deep_supervision=False)
    dense = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(
        model, optimizer, regrow.Static(density=0.5), total_steps=3, execution="csr",
        include="nodes.*.conv.weight",
    )  # fmt: skip
    assert {layer.execution for layer in sparse.plan.layers} == {"csr"}
    with torch.no_grad():
        for name, mask in sparse.masks.items():
            dense.get_parameter(name).mul_(mask)
    x = torch.randn(1, 1, 4, 8, 8)
    torch.testing.assert_close(model(x), dense(x))


def test_weights_start_as_he_drew_them_and_biases_at_zero():
    torch.manual_seed(7)
    model = E2ENet(1, 2, (48, 96))
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert not p.any()
        elif p.ndim == 5 and "head" not in name:
            fan = p[0].numel()
            assert float(p.detach().std()) == pytest.approx((2 / (1 + 1e-4) / fan) ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"channels": (6,)}, ValueError, "at least two levels"),
        ({"channels": (6, 0)}, ValueError, "channels=.*whole numbers from 1 on"),
        ({"in_channels": 0}, ValueError, "in_channels=.0.*whole numbers from 1 on"),
        ({"strides": [2, 2]}, ValueError, "2 levels need 1"),
        ({"strides": [(2, 2)]}, ValueError, r"strides: \(2, 2\) must be three"),
        ({"strides": [0]}, ValueError, "strides: 0 must be three whole numbers from 1"),
        ({"channels": (2, 6)}, ValueError, "2 channels cannot see 3 shifts"),
        ({"shift": 4}, ValueError, "shift=4: must be an odd number"),
        ({"shift": 0, "paper_compat": True}, ValueError, "released layout has shift 5"),
        ({"shift": 7, "paper_compat": True}, ValueError, "released layout has shift 5"),
        ({"axis": 3}, ValueError, "axis=3: 0, 1 or 2 is needed"),
        ({"depth_kernel": 2}, ValueError, "depth_kernel=2"),
        ({"nodes": (1, 1)}, ValueError, r"nodes=\(1, 1\): 1 levels above the lowest need"),
        ({"nodes": (2,)}, ValueError, "from 1 to at most 1"),
        ({"nodes": (0,)}, ValueError, "from 1 to at most 1"),
        ({"nodes": (1.0,)}, ValueError, "whole number each"),
        ({"blocks": 0}, ValueError, "blocks=0: 2 whole numbers from 1 on are needed, or one"),
        ({"blocks": (2, 2, 2)}, ValueError, "2 whole numbers"),
    ],
)
def test_bad_arguments_are_refused(options, error, said):
    with pytest.raises(error, match=said):
        E2ENet(**{"in_channels": 1, "num_classes": 2, "channels": (6, 6), **options})


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((1, 8, 8, 8), r"\(batch, 1, depth, height, width\) is needed"),
        ((1, 2, 8, 8, 8), "x has shape"),
        ((1, 1, 2, 2, 2), "2×2×2 leaves 1 voxel at the lowest level, whose scale is 4×4×4"),
        ((1, 1, 0, 8, 8), "leaves 0 voxel"),
    ],
)
def test_bad_inputs_are_refused(shape, said):
    with pytest.raises(ValueError, match=said):
        E2ENet(1, 2, (6, 6, 6))(torch.zeros(shape))


def test_weights_of_outputs():
    assert deep_supervision_weights(1) == (1.0,)
    assert deep_supervision_weights(5, lowest=False)[-1] == 0
    assert sum(deep_supervision_weights(5, lowest=False)) == pytest.approx(1)
    with pytest.raises(ValueError, match="outputs=0"):
        deep_supervision_weights(0)
