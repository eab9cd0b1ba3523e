"""Sizes of every block, switches of what is mended, compiling, exporting, half precision."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from regrow.motion import LIMTR, SIZES, LidarShape, MotionTransformer, Shape
from regrow.motion.attention import EncoderLayer
from regrow.motion.decoder import DenseFuture, MotionDecoder
from regrow.motion.encoder import ContextEncoder, last_valid
from regrow.motion.export import export_onnx
from regrow.motion.layers import PointNet
from regrow.motion.lidar import PointNetLinear, TemporalPointNet
from regrow.motion.queries import DecoderLayer
from regrow.motion.scene import LINES
from tests.motion.made import inputs

ENCODER = (29, 256, 8, 6, 16, 256, 64, 0.1)
DECODER = (256, 512, 256, 8, 6, 64, 80, 256, 128, 0.1)

BLOCKS = {
    "agents": (lambda: PointNet(30, [256], [256] * 2, 256), 337_408),
    "map": (lambda: PointNet(9, [64] * 3, [64] * 2, 256), 42_496),
    "encoder layer": (lambda: EncoderLayer(256, 8, 0.1), 789_760),
    "encoder": (lambda: ContextEncoder(*ENCODER, mtr_compat=True), 5_118_464),
    "object layer": (lambda: DecoderLayer(512, 8, 0.1, first=False), 5_517_312),
    "map layer": (lambda: DecoderLayer(256, 8, 0.1, first=True), 1_382_400),
    "dense": (lambda: DenseFuture(512, 80), 3_342_384),
    "decoder": (lambda: MotionDecoder(*DECODER), 60_662_870),
    "mtr": (lambda: MotionTransformer(Shape(mtr_compat=True)), 65_781_334),
    "points": (lambda: PointNetLinear(7, 256).points, 3_886_848),
    "time": (lambda: PointNetLinear(7, 256).time, 17_588_736),
    "lidar": (lambda: PointNetLinear(7, 256), 21_475_584),
    "lidar of 10": (lambda: PointNetLinear(9, 256, layers=10), 18_716_416),
    "limtr": (lambda: MotionTransformer(Shape(mtr_compat=True, lidar=LIMTR)), 87_387_990),
}


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_have_as_many_parameters_as_published(name):
    make, wanted = BLOCKS[name]
    with torch.device("meta"):
        assert count(make()) == wanted


def test_one_hot_kinds_of_lines_are_all_that_mending_adds():
    with torch.device("meta"):
        added = count(MotionTransformer(Shape())) - 65_781_334
    assert added == (len(LINES) - 1) * 64


def test_center_projection_of_limtr_is_wider_by_its_token():
    beside = replace(LIMTR, token=False, keys=False)
    with torch.device("meta"):
        both = MotionTransformer(Shape(lidar=beside)), MotionTransformer(Shape(lidar=LIMTR))
        plain = count(MotionTransformer(Shape()))
    assert count(both[0]) == count(both[1]) == plain + 21_475_584 + 131_072


def test_small_encoders_and_networks_are_small():
    assert count(TemporalPointNet(9, 256)) < 1_000_000
    assert 1_000_000 < count(MotionTransformer(SIZES["small"])) < 3_000_000


def network(seed=0, **changes):
    torch.manual_seed(seed)
    model = MotionTransformer(replace(SIZES["tiny"], decoder_layers=2, dropout=0.0, **changes))
    model.decoder.intentions.normal_(0, 20)
    return model


def forward(model, given):
    with torch.no_grad():
        return model.eval()(given)


def differs(one, two):
    return not all(torch.allclose(a, b, atol=1e-4) for a, b in zip(one, two, strict=True))


def test_kinds_of_lines_are_categories_unless_compat():
    """One-hot: unknown numbers are one kind. As a number: twice as much is twice as much."""
    given = inputs()

    def tokens(model, number):
        given["map"][..., 6] = number
        return model.eval().encoder.line_tokens(given["map"], given["map_valid"]).features

    mended, compat = network(), network(mtr_compat=True)
    assert torch.equal(tokens(mended, -1.0), tokens(mended, 14.0))  # none of the kinds
    assert not torch.equal(tokens(mended, 17.0), tokens(mended, 18.0))
    assert not torch.equal(tokens(compat, -1.0), tokens(compat, 14.0))


def test_positions_embed_as_in_mtr_only_if_compat():
    mended, compat = network(), network(mtr_compat=True)
    assert mended.encoder.mtr_compat is mended.decoder.mtr_compat is False
    assert compat.encoder.mtr_compat is compat.decoder.mtr_compat is True
    x = torch.tensor([[1.0, 2.0]])
    metre = x + torch.tensor([1.0, 1.0])
    # The shortest period of MTR is a metre, so whole metres leave its channels alone.
    first = slice(0, 2)
    one, two = (compat.decoder._embedded(p, 32)[..., first] for p in (x, metre))
    torch.testing.assert_close(one, two, atol=1e-4, rtol=0)
    one, two = (mended.decoder._embedded(p, 32)[..., first] for p in (x, metre))
    assert (one - two).abs().max() > 0.5


def test_what_is_not_valid_changes_nothing():
    given = inputs(lidar=(3, 6, 9))
    other = {name: x.clone() for name, x in given.items()}
    for name in ("agents", "map", "lidar"):
        other[name][~given[f"{name}_valid"]] = 3.0
    model = network(lidar=LidarShape(hidden=16))
    assert not differs(forward(model, given), forward(model, other))


def test_more_padding_changes_nothing():
    given = inputs(n=2, agents=5, polylines=24)
    wide = {
        name: torch.nn.functional.pad(x, (0, 0) * (x.ndim - 2) + (0, 7))
        if name.startswith(("agents", "map"))
        else x
        for name, x in given.items()
    }
    model = network()
    one, two = forward(model, given), forward(model, wide)
    for name in ("scores", "trajectories"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.dense, two.dense[:, :5], atol=1e-4, rtol=1e-4)


def test_targets_do_not_hang_on_their_batch_in_evaluation():
    given = inputs(n=4)
    whole, model = None, network()
    whole = forward(model, given)
    for i in range(4):
        alone = forward(model, {name: x[i : i + 1] for name, x in given.items()})
        torch.testing.assert_close(alone.scores, whole.scores[:, i : i + 1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("nothing", ["map", "neighbours", "both"])
def test_no_map_and_no_neighbours_give_finite_outputs_and_gradients(nothing):
    given = inputs(n=3)
    if nothing in ("map", "both"):
        given["map_valid"][1] = False
        given["map"][1] = 0
    if nothing in ("neighbours", "both"):
        alone = torch.zeros_like(given["agents_valid"][1])
        alone[given["centre"][1], -1] = True
        given["agents_valid"][1] = alone
        given["agents"][1] *= alone[..., None]
    model = network().train()
    found = model(given)
    assert all(x.isfinite().all() for x in found)
    sum(x.sum() for x in found[:3]).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_every_parameter_has_a_gradient_but_those_that_mtr_does_not_use():
    """Training on several ranks waits for all of them."""
    model = network(lidar=LidarShape(hidden=16)).train()
    found = model(inputs(lidar=(3, 6, 9)))
    sum(x.square().sum() for x in found[:3]).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    layers = ("agent_layers.1", "map_layers.1")
    assert without == {
        f"decoder.{layer}.query_position.{part}" for layer in layers for part in ("weight", "bias")
    }


class _Made(TorchDispatchMode):
    """Sees tensors that are made of numbers: on a GPU the host waits until they are there."""

    found = False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.found |= function is torch.ops.aten.lift_fresh.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("compat", [False, True])
def test_a_pass_makes_no_tensor_of_numbers(compat):
    model = network(lidar=LidarShape(hidden=16), mtr_compat=compat).train()
    given = inputs(lidar=(3, 6, 9))
    with _Made() as passes:
        found = model(given)
        sum(x.square().sum() for x in found[:3]).backward()
    assert not passes.found
    with _Made() as made:
        given["agents"].new_tensor([30.0, 0.0])
    assert made.found


def test_last_valid_value():
    values, valid = torch.randn(4, 3, 6, 2), torch.rand(4, 3, 6) < 0.5
    values = values * valid[..., None]
    found = last_valid(values, valid)
    for i in np.ndindex(4, 3):
        steps = valid[i].nonzero().flatten().tolist()
        wanted = values[i][steps[-1]] if steps else torch.zeros(2)
        assert torch.equal(found[i], wanted)


def test_bfloat16_is_near_and_positions_stay_float32():
    model, given = network(lidar=LidarShape(hidden=16)), inputs(lidar=(3, 6, 9))
    whole = forward(model, given)
    with torch.autocast("cpu", torch.bfloat16):
        half = forward(model, given)
        trained = model.train()(given)
        loss = trained.trajectories.square().mean() + trained.scores.square().mean()
    loss.backward()
    assert half.trajectories.dtype == half.dense.dtype == torch.float32
    scale = whole.trajectories.std()
    assert (half.trajectories - whole.trajectories).abs().max() < 0.1 * scale
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in grads)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # of torch, by torch
@pytest.mark.parametrize("training", [False, True])
def test_network_is_one_graph(training):
    model, given = network(lidar=LidarShape(hidden=16, hide=0.3)), inputs(lidar=(3, 6, 9))
    model.train(training)
    torch._dynamo.reset()
    found = torch._dynamo.explain(model)(given)
    assert found.graph_break_count == 0, found.break_reasons
    assert found.graph_count == 1


@pytest.mark.long
def test_onnx_file_agrees_on_scenes_of_other_sizes(tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install '.[onnx]'")
    import onnxruntime

    model = network(lidar=LidarShape(hidden=16)).eval()
    export_onnx(model, inputs(lidar=(3, 6, 9)), tmp_path / "net.onnx", keep=3)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    assert [one.name for one in session.get_outputs()] == ["trajectories", "probabilities"]
    given = inputs(n=6, agents=9, seed=5, lidar=(3, 11, 9), valid=0.5)
    given["lidar_valid"][2] = False
    found = session.run(None, {name: x.numpy() for name, x in given.items()})
    from regrow.motion.modes import modes

    for one, two in zip(found, modes(forward(model, given), 3), strict=True):
        np.testing.assert_allclose(one, two.numpy(), atol=1e-4, rtol=1e-4)


def test_shapes_out_of_range_are_refused():
    for changes, said in (
        ({"width": 20, "heads": 8}, "width=20"),
        ({"layers": 0}, "layers=0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"future": 4, "every": 5}, "every=5"),
    ):
        with pytest.raises(ValueError, match=said):
            Shape(**changes)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("lidar", [None, LidarShape(hidden=16)])
def test_whole_network_is_mtrs_own_way(lidar, training):
    """Picked out, gathered, sorted without duplicates: the same predictions and gradients."""
    from benchmarks.motion_gathered import gathered

    given = inputs(n=3, agents=6, polylines=40, lidar=None if lidar is None else (3, 6, 9))
    given = {name: x.double() if x.is_floating_point() else x for name, x in given.items()}
    found, grads = [], []
    for own in (False, True):
        model = network(lidar=lidar).train(training).double()
        # Few polylines and near ones must be chosen, by paths that lead to where they are.
        model.decoder.intentions.copy_(torch.randn(4, 16, 2, generator=torch.manual_seed(1)) * 5)
        with gathered(model) if own else torch.enable_grad():
            predicted = model(given)
            sum(x.square().mean() for x in predicted[:3]).backward()
        found.append(predicted)
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name])
