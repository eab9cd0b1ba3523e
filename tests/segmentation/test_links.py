"""Packed networks against the masked lattice with the same links."""

import copy

import pytest
import torch
from torch.nn import functional

import regrow
from regrow.measure.layers import layer_costs
from regrow.segmentation import E2ENet, feature_fusion
from regrow.segmentation.links import channel_links, pack

STRIDES = [(1, 2, 2), 2, 2]


def sparse_lattice(density=0.3, finest=0.4, second=0.6, seed=0, update_every=2, **options):
    torch.manual_seed(seed)
    model = E2ENet(2, 3, (9, 12, 15, 15), STRIDES, **options).double()
    for module in model.modules():  # nothing that the norms would do alike by default
        if isinstance(module, torch.nn.InstanceNorm3d):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    chosen = channel_links(density, finest=finest, second=second, update_every=update_every)
    return model, optimizer, regrow.sparsify(model, optimizer, **chosen, total_steps=12, seed=seed)


def volume(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 2, 5, 16, 16, dtype=torch.float64, generator=generator)


def gradient(parameter):
    """The gradient; zero where nothing reads what the parameter gives."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"second": 1.0},
        {"density": 0.05, "finest": 0.05},
        {"shift": 0},
        {"axis": 1},
        {"nodes": (1, 2, 1), "blocks": (1, 2, 2, 2)},
        {"nodes": (2, 1, 1), "density": 0.1, "finest": 0.2},
    ],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_masked_lattice(options, seed):
    model, _, sparse = sparse_lattice(**options, seed=seed)
    packed, x = pack(model, sparse.masks), volume()
    ours, theirs = packed(x), model(x)
    for got, wanted in zip(ours, theirs, strict=True):
        assert torch.allclose(got, wanted, rtol=1e-9, atol=1e-10)
    weights = [torch.randn_like(y) for y in ours]
    for outputs in (ours, theirs):
        torch.autograd.backward(outputs, weights)
    # Encoder and heads have the same parameters in both; their gradients come through all nodes.
    same = dict(model.named_parameters())
    for name, p in packed.named_parameters():
        if not name.startswith("nodes"):
            assert torch.allclose(gradient(p), gradient(same[name]), rtol=1e-7, atol=1e-9), name
    for name, node in packed.nodes.items():
        for k, block in enumerate(node.blocks):
            whole = gradient(model.nodes[name].blocks[k].conv.weight)
            mask = sparse.masks[f"nodes.{name}.blocks.{k}.conv.weight"]
            columns = whole[:, mask[0].flatten(1).all(1)]
            # Of the outputs that are left; those nobody reads have no gradient.
            rows = columns[columns.flatten(1).abs().sum(1) > 1e-12]
            left = gradient(block.conv.weight)
            left = left[left.flatten(1).abs().sum(1) > 1e-12]
            assert torch.allclose(left, rows, rtol=1e-7, atol=1e-9), name


def test_what_is_left_is_really_smaller():
    """Multiply-adds of the packed network, as it runs, by hand from its links."""
    model, _, sparse = sparse_lattice()
    packed = pack(model, sparse.masks)
    rows = {row.name: row for row in layer_costs(packed, (1, 2, 8, 16, 16))}
    for name, node in packed.nodes.items():
        level, mask = int(name[0]), sparse.masks[f"nodes.{name}.blocks.0.conv.weight"]
        read = mask[0].flatten(1).all(1)
        row = rows[f"nodes.{name}.blocks.0.conv.weight"]
        assert row.shape[1] == int(read.sum())
        voxels = (8 * 16 * 16, 8 * 8 * 8, 4 * 4 * 4)[level]
        assert row.macs == voxels * row.parameters
        channels = model.channels[level]
        ups = int(read[channels : 2 * channels].sum())
        assert (node.up.out_channels if node.up else 0) == ups
    assert sum(r.parameters for r in rows.values()) < sum(p.numel() for p in model.parameters())


def test_channels_that_nobody_reads_are_not_computed():
    model, _, sparse = sparse_lattice(density=0.1, finest=0.1)
    masks = sparse.masks
    packed = pack(model, masks)
    skip = masks["nodes.0_2.blocks.0.conv.weight"][0].flatten(1).all(1)[:9]
    down = masks["nodes.1_2.blocks.0.conv.weight"][0].flatten(1).all(1)[-9:]
    assert packed.nodes["0_1"].blocks[-1].conv.out_channels == max(int((skip | down).sum()), 1) < 9


def test_a_packed_network_trains_as_the_masked_one_until_an_update():
    model, optimizer, sparse = sparse_lattice(update_every=100)
    packed = pack(model, sparse.masks)
    other = torch.optim.SGD(packed.parameters(), lr=0.05, momentum=0.9)
    for step in range(3):
        for network, its in ((model, optimizer), (packed, other)):
            x = volume(step)
            its.zero_grad()
            functional.cross_entropy(network(x)[0], (x[:, 0] > 0).long()).backward()
            its.step()
    assert torch.allclose(packed(volume())[0], model(volume())[0], rtol=1e-6, atol=1e-8)


def test_links_move_at_updates_and_pack_again():
    model, optimizer, sparse = sparse_lattice()
    before = {n: m.clone() for n, m in sparse.masks.items()}
    for step in range(4):
        optimizer.zero_grad()
        functional.cross_entropy(model(volume(step))[0], (volume(step)[:, 0] > 0).long()).backward()
        optimizer.step()
    assert any(not torch.equal(m, before[n]) for n, m in sparse.masks.items())
    for layer in sparse.plan.layers:
        assert int(sparse.masks[layer.name][0].flatten(1).all(1).sum()) == layer.final
    assert torch.allclose(pack(model, sparse.masks)(volume())[0], model(volume())[0])


def test_masked_and_packed_networks_are_exported():
    few = {"nodes": (1, 1, 1), "blocks": (1, 1, 2, 1), "deep_supervision": False}
    model, _, sparse = sparse_lattice(**few)
    wanted = model.eval()(volume())
    for network in (model, pack(model, sparse.masks).eval()):
        exported = torch.export.export(network, (volume(),)).module()
        assert torch.allclose(exported(volume()), wanted)


def test_packing_leaves_the_lattice_alone_and_is_not_done_twice():
    model, _, sparse = sparse_lattice()
    before = copy.deepcopy(model.state_dict())
    packed = pack(model, sparse.masks)
    with torch.no_grad():
        for p in packed.parameters():
            p.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(TypeError, match="packed already"):
        pack(packed, {})


def test_weights_load_into_the_same_links_only():
    model, _, sparse = sparse_lattice()
    other, _, its = sparse_lattice(seed=1)
    saved = pack(model, sparse.masks).state_dict()
    again = pack(other, sparse.masks)
    again.load_state_dict(saved)
    assert torch.equal(again(volume())[0], pack(model, sparse.masks)(volume())[0])
    with pytest.raises((ValueError, RuntimeError), match=r"other links|size mismatch"):
        pack(other, its.masks).load_state_dict(saved)
    # Equally many links in every place, but others.
    turned = {
        n: m.roll(1, 1) if n.endswith("1.conv.weight") else m for n, m in sparse.masks.items()
    }
    with pytest.raises(ValueError, match="packed with other links"):
        pack(model, turned).load_state_dict(saved)


def test_without_masks_all_is_read():
    torch.manual_seed(0)
    model = E2ENet(2, 3, (9, 12, 15, 15), STRIDES).double()
    packed = pack(model, {})
    assert torch.equal(packed(volume())[0], model(volume())[0])
    assert sum(p.numel() for p in packed.parameters()) == sum(p.numel() for p in model.parameters())


def test_bad_masks_are_refused():
    torch.manual_seed(0)
    model = E2ENet(1, 2, (6, 12))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(model, optimizer, **feature_fusion(0.5), total_steps=4)
    kernels = {n: m for n, m in sparse.masks.items() if "conv" in n}
    with pytest.raises(ValueError, match=r"kept for some outputs only.*InputChannel"):
        pack(model, kernels)
    with pytest.raises(ValueError, match=r"nodes.0_1.up.weight.* are no fusion convolutions"):
        pack(model, {n: m for n, m in sparse.masks.items() if "up" in n})
    name = "nodes.0_1.blocks.0.conv.weight"
    with pytest.raises(ValueError, match="a bool tensor of shape"):
        pack(model, {name: torch.ones(6, 12)})
    with pytest.raises(TypeError, match="E2ENet is needed"):
        pack(torch.nn.Linear(2, 2), {})
