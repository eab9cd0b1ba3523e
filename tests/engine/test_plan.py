"""The plan: which weights become sparse, and why the others do not."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import regrow
from regrow.engine.allocation import Uniform
from regrow.engine.patterns import NM, Block, Channel, Element, FanIn, InputChannel, Kernel
from regrow.engine.plan import make_plan
from regrow.engine.wrappers import unwrap

HALF = regrow.Static(density=0.5, allocation=Uniform())


def sparse_names(model, **globs):
    return [layer.name for layer in make_plan(model, HALF, **globs).layers]


def net():
    return nn.ModuleDict(
        {
            "table": nn.Embedding(10, 4),
            "conv": nn.Conv2d(3, 8, 3),
            "norm": nn.BatchNorm2d(8),
            "head": nn.Linear(8, 2),
        }
    )


class TestDefaultChoice:
    @pytest.mark.parametrize(
        ("module", "names"),
        [
            (nn.Linear(3, 2), ["weight"]),
            (nn.Bilinear(3, 2, 4), ["weight"]),
            (nn.RNNCell(3, 2), ["weight_ih", "weight_hh"]),
            (nn.GRUCell(3, 2), ["weight_ih", "weight_hh"]),
            (nn.LSTMCell(3, 2), ["weight_ih", "weight_hh"]),
            (nn.Conv1d(3, 2, 3), ["weight"]),
            (nn.Conv3d(3, 2, 3), ["weight"]),
            (nn.ConvTranspose2d(3, 2, 3), ["weight"]),
            (nn.LSTM(3, 2, proj_size=1), ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0"]),
            (nn.MultiheadAttention(4, 2), ["in_proj_weight", "out_proj.weight"]),
            (
                nn.MultiheadAttention(4, 2, add_bias_kv=True),
                ["in_proj_weight", "out_proj.weight"],
            ),
            (nn.Embedding(3, 2), []),
            (nn.LayerNorm((3, 2)), []),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_weights_that_connect_units_to_units(self, module, names):
        if names:
            assert sparse_names(module) == names
        else:
            with pytest.raises(ValueError, match="no weight is left to be sparse"):
                sparse_names(module)

    def test_every_parameter_is_either_sparse_or_explained(self):
        model = net()
        model["head"].weight.requires_grad_(False)
        plan = make_plan(model, HALF)
        assert [layer.name for layer in plan.layers] == ["conv.weight"]
        assert {layer.name for layer in plan.layers} | plan.skipped.keys() == dict(
            model.named_parameters()
        ).keys()
        assert plan.skipped["head.weight"] == "requires no gradient"
        assert plan.skipped["conv.bias"] == "fewer than two dimensions"
        assert "include it by name" in plan.skipped["table.weight"]

    def test_tied_weights_count_once_under_their_first_name(self):
        model = nn.ModuleDict({"encode": nn.Linear(4, 4), "decode": nn.Linear(4, 4)})
        model["decode"].weight = model["encode"].weight
        assert sparse_names(model) == ["encode.weight"]

    def test_a_head_tied_to_an_embedding_stays_dense_unless_it_is_included(self):
        model = nn.ModuleDict({"table": nn.Embedding(5, 4), "head": nn.Linear(4, 5)})
        model["head"].weight = model["table"].weight
        with pytest.raises(ValueError, match="no weight is left"):
            sparse_names(model)
        assert sparse_names(model, include="table.*") == ["table.weight"]

    @pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
    def test_a_weight_norm_whose_scales_passed_for_a_layer(self):
        """Of 16 scales, (16, 1), 3 were kept; and an output without weights is divided by 0."""
        model = nn.Sequential(nn.utils.weight_norm(nn.Linear(12, 16)), nn.Linear(16, 8))
        plan = make_plan(model, regrow.Static(density=0.2, allocation=Uniform()))
        assert [layer.name for layer in plan.layers] == ["1.weight"]
        for part in ("0.weight_g", "0.weight_v"):
            assert plan.skipped[part].startswith("part of a weight norm")
        assert sparse_names(model, include="0.weight_v") == ["0.weight_v"]
        with torch.no_grad():
            model[0].weight_v[3] = 0
        assert model[0](torch.ones(1, 12))[0, 3].isnan()

    def test_a_weight_norm_by_a_parametrization_is_told_alike(self):
        model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(12, 16)))
        model.append(nn.Linear(16, 8))
        plan = make_plan(model, regrow.Static(density=0.2))
        inside = "0.parametrizations.weight.original"
        for part in (f"{inside}0", f"{inside}1"):
            assert plan.skipped[part].startswith("part of a weight norm")
        with torch.no_grad():
            model.get_parameter(f"{inside}1")[3] = 0
        assert model[0](torch.ones(1, 12))[0, 3].isnan()


class TestGlobs:
    @pytest.mark.parametrize(
        ("globs", "names"),
        [
            ({"exclude": "head.*"}, ["conv.weight"]),
            ({"exclude": ["head.*"]}, ["conv.weight"]),
            ({"include": "*"}, ["table.weight", "conv.weight", "head.weight"]),
            ({"include": ("table.weight", "head*")}, ["table.weight", "head.weight"]),
            ({"include": "*", "exclude": ["conv*", "table*"]}, ["head.weight"]),
        ],
        ids=str,
    )
    def test_choose(self, globs, names):
        assert sparse_names(net(), **globs) == names

    def test_reasons_name_the_glob_that_decided(self):
        assert make_plan(net(), HALF, exclude="head.*").skipped["head.weight"] == "excluded"
        assert make_plan(net(), HALF, include="conv.*").skipped["head.weight"] == "not included"

    @pytest.mark.parametrize("argument", ["include", "exclude"])
    @pytest.mark.parametrize("glob", ["nothing*", ["conv*", "nothing*"], "Conv.weight"])
    def test_one_that_matches_nothing_is_refused(self, argument, glob):
        bad = glob if isinstance(glob, str) else glob[1]
        with pytest.raises(ValueError, match=rf"{argument}='{bad[:3]}.*matches no parameter.*head"):
            make_plan(net(), HALF, **{argument: glob})

    @pytest.mark.parametrize(
        ("argument", "globs"),
        [("include", []), *((a, g) for a in ("include", "exclude") for g in ([3], 3))],
    )
    def test_what_is_no_glob_is_refused(self, argument, globs):
        with pytest.raises(TypeError, match=rf"{argument}=.*3?.*glob"):
            make_plan(net(), HALF, **{argument: globs})

    def test_nothing_left_is_refused_with_every_reason(self):
        with pytest.raises(ValueError, match=r"weight: excluded; bias: fewer.*widen include"):
            make_plan(nn.Linear(2, 2), HALF, exclude="weight")


class TestCounts:
    def test_units_before_and_after_rounding(self):
        method = regrow.Dynamic(density=0.3, initial_density=0.6, allocation=Uniform())
        (layer,) = make_plan(nn.Linear(5, 3), method).layers
        assert (layer.units, layer.initial, layer.final) == (15, 9, 5)  # 4.5 rounds up
        assert (layer.initial_density, layer.final_density) == (0.6, 0.3)

    @pytest.mark.parametrize(
        ("pattern", "units"), [(Kernel(), 24), (Channel(), 8), (Block(4), 2 * 7), (Block(99), 1)]
    )
    def test_units_of_a_convolution(self, pattern, units):
        method = regrow.Static(density=0.5, pattern=pattern)
        (layer,) = make_plan(nn.Conv2d(3, 8, 3), method).layers
        assert layer.units == units
        assert layer.final == max(units // 2, 1)

    def test_a_layer_of_one_unit_keeps_it(self):
        (layer,) = make_plan(nn.Linear(1, 1), regrow.Static(density=0.01)).layers
        assert layer.final == layer.units == 1


class TestRefuses:
    def test_a_weight_without_a_shape(self):
        with pytest.raises(ValueError, match=r"0.weight has no shape yet: run one batch"):
            make_plan(nn.Sequential(nn.LazyLinear(3)), HALF)

    def test_no_pattern_of_a_transposed_convolution(self):
        for pattern in (
            Element(),
            Kernel(),
            Block(2),
            Channel(),
            InputChannel(),
            FanIn(),
            NM(2, 4),
        ):
            make_plan(nn.ConvTranspose2d(4, 2, 3), regrow.Static(density=0.5, pattern=pattern))

    @pytest.mark.parametrize(
        ("density", "message"),
        [
            ({"head*": 0.5, "*": 0.1, "nothing": 0.1}, "'nothing' matches none"),
            ({"head*": 0.5}, "matches 'conv.weight': add"),
        ],
    )
    def test_densities_by_glob_that_do_not_cover_the_model(self, density, message):
        with pytest.raises(ValueError, match=message):
            make_plan(net(), regrow.Static(density=density))


def test_planning_changes_nothing(assert_same):
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    make_plan(model, HALF)
    assert_same(dict(model.state_dict()), before)


def test_the_table_names_every_weight_and_counts_the_others():
    model = net()
    table = str(make_plan(model, HALF))
    assert all(name in table for name, p in model.named_parameters() if p.ndim > 1)
    assert f"{sum(p.ndim < 2 for p in model.parameters())} parameters (fewer than two" in table
    assert "8×3×3×3" in table


@pytest.mark.parametrize(
    "wrap",
    [
        lambda module: module,
        nn.DataParallel,
        AveragedModel,
        lambda module: torch.compile(module, backend="eager"),
        lambda module: nn.DataParallel(torch.compile(module, backend="eager")),
    ],
    ids=["plain", "DataParallel", "AveragedModel", "compiled", "both"],
)
def test_unwrap_finds_the_users_module(wrap):
    inner = nn.Linear(2, 3)
    found = unwrap(wrap(inner))
    assert type(found) is nn.Linear
    assert found.weight.equal(inner.weight)
