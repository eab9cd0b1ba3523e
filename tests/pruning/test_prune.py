"""`regrow.prune` on models with attention, convolutional, recurrent: exact; nothing else moves."""

from __future__ import annotations

import copy
import random
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import regrow
from regrow.engine.patterns import NM, Block, Element, FanIn, Kernel
from regrow.engine.saliency import LargestWeights
from regrow.engine.undisturbed import evaluating
from regrow.pruning.rules import Rule


class Attention(nn.Module):
    """As in timm: one projection for queries, keys and values."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(n, tokens, width))


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, 2)
        self.mlp = nn.Sequential(nn.Linear(width, 24), nn.GELU(), nn.Linear(24, width))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(12, 4)  # defined first, called last
        self.patches = nn.Conv2d(3, 12, 4, stride=4)
        self.blocks = nn.Sequential(*(Layer(12) for _ in range(3)))
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.drop(self.blocks(x)).mean(1))


class Reader(nn.Module):
    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.memory = kind(8, 12, 2, bidirectional=True, batch_first=True, dropout=0.3)
        self.head = nn.Linear(24, 4)

    def forward(self, x):
        return self.head(self.memory(self.words(x))[0][:, -1])


def images():
    return torch.randn(6, 3, 8, 8)


def convolutional():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def encoder():
    layer = nn.TransformerEncoderLayer(12, 2, 24, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


MODELS = {
    "attention": (ViT, images),
    "torch's transformer": (encoder, lambda: torch.randn(6, 5, 12)),
    "convolutional": (convolutional, images),
    "recurrent": (Reader, lambda: torch.randint(20, (6, 5))),
    "gated": (lambda: Reader(nn.GRU), lambda: torch.randint(20, (6, 5))),
}
RULES = {
    "Wanda": regrow.Wanda(density=0.4),
    "SparseGPT": regrow.SparseGPT(density=0.4),
    "OMP": regrow.OMP(density=0.4),
    "OMP by row": regrow.OMP(density=0.4, scope="layer", pattern=FanIn()),
}


def given(rule, batches):
    return batches if isinstance(rule, Rule) else None


@pytest.fixture(params=MODELS)
def case(request):
    torch.manual_seed(0)
    make, draw = MODELS[request.param]
    return make(), [draw() for _ in range(2)]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_counts_are_exact_and_only_what_is_pruned_moves(case, rule):
    model, batches = case
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pruned = regrow.prune(model, rule, given(rule, batches))
    after = model.state_dict()
    assert pruned.names
    for layer in pruned.plan.layers:
        weight, mask = after[layer.name], pruned.masks[layer.name]
        assert torch.equal(weight != 0, mask)
        assert int(mask.sum()) == layer.initial == pruned.kept[layer.name]
        if not isinstance(rule, regrow.SparseGPT):
            assert torch.equal(weight[mask], before[layer.name][mask])
    total = sum(before[name].numel() for name in pruned.names)
    assert pruned.density == sum(pruned.kept.values()) / total
    assert pruned.density == pytest.approx(0.4, abs=0.05)
    for name in after.keys() - set(pruned.names):
        assert torch.equal(after[name], before[name]), name


def test_modes_buffers_gradients_hooks_and_random_states_stay(case):
    model, batches = case
    model.train()
    (next(m for m in model.modules() if not any(True for _ in m.children()))).eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    modes = [module.training for module in model.modules()]
    buffers = {name: one.clone() for name, one in model.named_buffers()}
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    fast = torch.backends.mha.get_fastpath_enabled()

    def states():
        return torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002

    def shuffled():
        for batch in batches:
            random.random()
            np.random.rand()  # noqa: NPY002
            yield batch[torch.randperm(len(batch))]

    torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002
    expected = states()
    for rule in RULES.values():
        torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002
        regrow.prune(model, rule, given(rule, shuffled()))
        assert states() == expected
        assert [module.training for module in model.modules()] == modes
        assert torch.is_grad_enabled()
        assert torch.backends.mha.get_fastpath_enabled() == fast
        for name, one in model.named_buffers():
            assert torch.equal(one, buffers[name])
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter.grad, grads[name])
            assert parameter.requires_grad
        assert not [m for m in model.modules() if m._forward_pre_hooks or m._forward_hooks]


def test_what_a_module_writes_into_its_buffers_is_taken_back():
    class Counting(nn.Linear):
        def __init__(self):
            super().__init__(4, 4)
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("last", torch.zeros(4))

        def forward(self, x):
            self.calls += 1
            self.last = x[0]
            return super().forward(x)

    model = Counting()
    calls, last = model.calls, model.last
    regrow.prune(model, regrow.Wanda(density=0.5), [torch.randn(3, 4)])
    assert model.calls is calls
    assert model.last is last
    assert not model.calls
    assert not model.last.any()


@pytest.mark.parametrize("rule", [regrow.Wanda(density=0.5), regrow.SparseGPT(density=0.5)])
def test_each_layer_is_pruned_by_what_it_sees_behind_the_pruned_ones(rule):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 12), nn.Tanh())
    x = torch.randn(50, 20) * torch.linspace(0, 2, 20)
    by_hand = copy.deepcopy(model)
    with torch.no_grad():
        for place in (0, 2):
            seen = by_hand[:place](x)
            products = (seen.T @ seen).unsqueeze(0)
            sums = products if rule.products else products.diagonal(dim1=1, dim2=2)
            layer = by_hand[place]
            layer.weight.copy_(
                rule.prune(layer.weight.detach(), sums, layer.weight.numel() // 2)[0]
            )
    parts = copy.deepcopy(model)
    regrow.prune(model, rule, [x])
    regrow.prune(parts, rule, x.split(7))  # however the samples are batched
    for place in (0, 2):
        torch.testing.assert_close(model[place].weight, by_hand[place].weight)
        assert torch.equal(parts[place].weight != 0, model[place].weight != 0)
        torch.testing.assert_close(parts[place].weight, model[place].weight)


def test_a_block_is_one_stage_and_the_order_is_that_of_the_calls():
    torch.manual_seed(0)
    model, seen = ViT(), []
    model.head.register_forward_pre_hook(lambda *_: seen.append(None))
    pruned = regrow.prune(model, regrow.Wanda(density=0.5), [images()])
    # Once to look, then a time each for the patches, three blocks and the head.
    assert len(seen) == 6
    names = list(pruned.masks)
    assert names[0] == "patches.weight"
    assert names[-1] == "head.weight"
    assert set(names) == {layer.name for layer in pruned.plan.layers}


def test_sparsegpt_moves_outputs_less_than_magnitude():
    """On inputs of few directions, as activations are, the others make up for what goes."""
    for make, draw in MODELS.values():
        torch.manual_seed(1)
        model, batch = make().eval(), draw()
        outputs = model(batch).detach()
        errors = {}
        for rule in (
            regrow.SparseGPT(density=0.5),
            regrow.OMP(density=0.5, scope="layer", allocation=regrow.Wanda(density=0.5).allocation),
        ):
            twin = copy.deepcopy(model)
            regrow.prune(twin, rule, given(rule, [batch]))
            errors[rule.name] = float((twin(batch).detach() - outputs).square().mean())
        assert errors["SparseGPT"] < errors["OMP"], make


class TestPatterns:
    @pytest.mark.parametrize("rule", [regrow.Wanda, regrow.SparseGPT])
    @pytest.mark.parametrize("pattern", [NM(2, 4), Block(4), Kernel(), Element(), FanIn()])
    def test_units_are_those_of_the_engine(self, rule, pattern):
        torch.manual_seed(0)
        model = convolutional()
        pruned = regrow.prune(
            model, rule(density=0.5, pattern=pattern), [images()], exclude="0.weight"
        )
        assert pruned.names == ["3.weight", "7.weight"]
        for layer in pruned.plan.layers:
            mask = pruned.masks[layer.name]
            units = pattern.reduce(mask.float()) > 0
            assert int(units.sum()) == layer.initial == pattern.kept(0.5, layer.shape)
            assert torch.equal(pattern.expand(units, layer.shape), mask)
            assert pattern.allows(units)

    def test_densities_by_glob(self):
        model = ViT()
        rule = regrow.SparseGPT(density={"blocks.*.mlp.*": 0.25, "head.*": 1.0, "*": 0.5})
        before = model.head.weight.clone()
        pruned = regrow.prune(model, rule, [images()])
        assert pruned.kept["blocks.1.mlp.0.weight"] == 12 * 24 // 4
        assert pruned.kept["blocks.1.attn.qkv.weight"] == 12 * 36 // 2
        assert torch.equal(model.head.weight, before)


class TestSharedAndHidden:
    def test_a_shared_weight_is_pruned_by_what_both_layers_see(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
        model[2].weight = model[0].weight
        x = torch.randn(40, 8)
        weight = model[0].weight.detach().clone()
        with torch.no_grad():
            both = torch.cat([x, model[:2](x)])
        expected, _ = regrow.SparseGPT(density=0.5).prune(weight, (both.T @ both)[None], 32)
        pruned = regrow.prune(model, regrow.SparseGPT(density=0.5), [x])
        assert pruned.names == ["0.weight"]
        torch.testing.assert_close(model[0].weight, expected, atol=1e-5, rtol=1e-4)
        assert model[2].weight is model[0].weight

    def test_a_layer_called_twice_sees_both_calls(self):
        torch.manual_seed(0)
        layer = nn.Linear(6, 6)
        twice, x = nn.Sequential(layer, nn.Tanh(), layer), torch.randn(30, 6)
        weight = layer.weight.detach().clone()
        with torch.no_grad():
            both = torch.cat([x, twice[:2](x)])
        _, mask = regrow.Wanda(density=0.5).prune(weight, both.square().sum(0)[None], 18)
        pruned = regrow.prune(twice, regrow.Wanda(density=0.5), [x])
        assert torch.equal(pruned.masks["0.weight"], mask)

    def test_tied_to_an_embedding_it_stays_dense_and_is_refused_if_named(self):
        model = nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 6), nn.Linear(6, 10, bias=False))
        model[2].weight = model[0].weight
        ids = [torch.randint(10, (4, 3))]
        assert regrow.prune(model, regrow.Wanda(density=0.5), ids).names == ["1.weight"]
        with pytest.raises(ValueError, match=r"0.weight is held by a Embedding, as 0.weight.*OMP"):
            regrow.prune(model, regrow.SparseGPT(density=0.5), ids, include="*")

    @pytest.mark.parametrize("layer", [nn.ConvTranspose1d(4, 4, 2), nn.LSTM(4, 6, proj_size=3)])
    def test_what_is_not_understood_is_named(self, layer):
        with pytest.raises(ValueError, match=r"is held by a (Conv|LSTM).*known to Wanda.*exclude"):
            regrow.prune(layer, regrow.Wanda(density=0.5), [torch.randn(2, 4, 4)])
        assert regrow.prune(layer, regrow.OMP(density=0.5)).density == pytest.approx(0.5, abs=0.01)

    def test_weights_of_frozen_models_are_pruned_too(self):
        model = convolutional().requires_grad_(requires_grad=False)
        assert len(regrow.prune(model, regrow.Wanda(density=0.5), [images()]).names) == 3
        assert not any(p.requires_grad for p in model.parameters())


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    @pytest.mark.parametrize("rule", [regrow.Wanda(density=0.5), regrow.SparseGPT(density=0.5)])
    def test_other_dtypes(self, dtype, rule):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8))
        x = torch.randn(40, 16)
        exact = copy.deepcopy(model)
        regrow.prune(exact, rule, [x])
        low = copy.deepcopy(model).to(dtype)
        values = {name: one.clone() for name, one in low.named_parameters()}
        pruned = regrow.prune(low, rule, [x.to(dtype)])
        for name in pruned.names:
            weight, mask = low.get_parameter(name), pruned.masks[name]
            assert weight.dtype == dtype
            assert int(mask.sum()) == mask.numel() // 2
            assert not weight[~mask].any()
            same = (mask == (exact.get_parameter(name) != 0)).float().mean()
            assert same > (0.999 if dtype == torch.float64 else 0.9)
            if isinstance(rule, regrow.Wanda):
                assert torch.equal(weight[mask], values[name][mask])

    def test_sums_are_taken_in_float32_under_autocast(self):
        torch.manual_seed(0)
        x = torch.randn(64, 16) + 30  # bfloat16 would lose what is small beside the mean
        model = nn.Sequential(nn.Linear(16, 8))
        twin = copy.deepcopy(model)

        def forward(model, batch):
            with torch.autocast("cpu", torch.bfloat16):
                model(batch)

        regrow.prune(model, regrow.SparseGPT(density=0.5), [x])
        regrow.prune(twin, regrow.SparseGPT(density=0.5), [x], forward=forward)
        torch.testing.assert_close(model[0].weight, twin[0].weight)


class TestRefused:
    """Whatever is wrong is said before a weight changes."""

    @pytest.fixture
    def model(self):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4))

    @pytest.fixture(autouse=True)
    def _unchanged(self, model):
        before = copy.deepcopy(model.state_dict())
        yield
        for name, value in model.state_dict().items():
            bad = value.isnan()
            assert torch.equal(value[~bad], before[name][~bad])

    @pytest.mark.parametrize(
        ("method", "data", "error", "said"),
        [
            ("Wanda", None, TypeError, r"method='Wanda'.*regrow.Wanda\(density=0.5\)"),
            (regrow.Wanda(density=0.5), None, TypeError, r"data: Wanda looks at activations"),
            (regrow.Wanda(density=0.5), torch.ones(3, 6), TypeError, r"\[batch\] for a single"),
            (regrow.Wanda(density=0.5), {"x": 1}, TypeError, r"data is a dict: an iterable"),
            (regrow.Wanda(density=0.5), 3, TypeError, r"data is a int: an iterable"),
            (regrow.Wanda(density=0.5), [], ValueError, r"data has no batch"),
            (regrow.Wanda(density=0.5), ["a"], TypeError, r"a batch is a str.*forward=lambda"),
            (
                regrow.Wanda(density=0.5),
                [[torch.ones(2, 6), torch.ones(2)]],
                TypeError,
                r"a batch is a list: .*forward=lambda",
            ),
            (regrow.OMP(density=0.5), [torch.ones(2, 6)], TypeError, r"data: OMP reads no calib"),
            (regrow.RigL(density=0.5), None, ValueError, r"method=RigL.*drawn at random"),
            (regrow.Dense(), None, ValueError, r"method=Dense.*drawn at random"),
            (
                regrow.Wanda(density=0.5, pattern=NM(2, 4)),
                [torch.ones(2, 6)],
                ValueError,
                "exclude",
            ),
            (
                regrow.SparseGPT(density=0.5),
                [torch.full((2, 6), torch.nan)],
                FloatingPointError,
                r"what 0.weight, 2.weight multiplies is NaN or infinite",
            ),
        ],
    )
    def test_arguments(self, model, method, data, error, said):
        with pytest.raises(error, match=said):
            regrow.prune(model, method, data)
        assert all(module.training for module in model.modules())

    def test_globs_models_and_forward(self, model):
        rule, data = regrow.Wanda(density=0.5), [torch.ones(2, 6)]
        with pytest.raises(ValueError, match=r"exclude='lm_head.\*' matches no parameter"):
            regrow.prune(model, rule, data, exclude="lm_head.*")
        with pytest.raises(TypeError, match=r"model=dict: a torch.nn.Module is needed"):
            regrow.prune({}, rule, data)
        with pytest.raises(TypeError, match="forward=3: a function is needed"):
            regrow.prune(model, rule, data, forward=3)
        with pytest.raises(TypeError, match="seed='a': an integer"):
            regrow.prune(model, rule, data, seed="a")
        with pytest.raises(ValueError, match="on the meta device"):
            regrow.prune(nn.Linear(2, 2, device="meta"), rule, data)

    def test_a_layer_that_no_data_reach(self, model):
        with pytest.raises(ValueError, match=r"no calibration data reached 2.weight.*exclude"):
            regrow.prune(
                model, regrow.Wanda(density=0.5), [torch.ones(2, 6)], forward=lambda m, x: m[0](x)
            )

    def test_weights_that_are_not_finite(self, model):
        with torch.no_grad():
            model[2].weight[0, 0] = torch.nan
        for rule in RULES.values():
            with pytest.raises(FloatingPointError, match=r"2.weight holds NaN"):
                regrow.prune(model, rule, given(rule, [torch.ones(2, 6)]))

    def test_a_model_under_a_sparsifier(self, model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sparse = regrow.sparsify(model, optimizer, regrow.Static(density=1.0), total_steps=10)
        with pytest.raises(ValueError, match=r"sparse already.*remove\(\)"):
            regrow.prune(model, regrow.OMP(density=0.5))
        sparse.remove()

    def test_a_rule_given_to_sparsify(self, model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pytest.raises(TypeError, match=r"regrow.prune\(model, rule, data\) first"):
            regrow.sparsify(model, optimizer, regrow.Wanda(density=0.5), total_steps=10)

    def test_eight_bits(self):
        model = nn.Linear(4, 4).to(torch.float8_e4m3fn)
        with pytest.raises(ValueError, match="8-bit weights cannot be masked"):
            regrow.prune(model, regrow.OMP(density=0.5))


def test_an_error_in_the_middle_names_what_is_pruned_already():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4))
    calls = []

    def forward(model, batch):
        calls.append(batch)
        if len(calls) == 3:
            raise KeyboardInterrupt
        model(batch)

    second = model[2].weight.clone()
    with pytest.raises(KeyboardInterrupt) as caught:
        regrow.prune(model, regrow.Wanda(density=0.5), [torch.randn(9, 6)], forward=forward)
    assert caught.value.__notes__ == ["pruned already, so load them again: 0.weight"]
    assert int((model[0].weight != 0).sum()) == 18
    assert torch.equal(model[2].weight, second)
    assert model.training
    assert not model[0]._forward_pre_hooks


def test_batches_may_be_tuples_dicts_lists_of_one_or_come_from_a_generator():
    torch.manual_seed(0)
    start = nn.Bilinear(5, 6, 4)
    x, y = torch.randn(30, 5), torch.randn(30, 6)
    found = []
    for data, forward in (
        ([(x, y)], None),
        ([{"input1": x, "input2": y}], None),
        ((batch for batch in [(x[:20], y[:20]), (x[20:], y[20:])]), None),
        ([[x, y]], lambda model, batch: model(*batch)),
    ):
        model = copy.deepcopy(start)
        regrow.prune(model, regrow.Wanda(density=0.5), data, forward=forward)
        found.append(model.weight != 0)
    assert all(torch.equal(one, found[0]) for one in found)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), 7, shuffle=True)
    assert regrow.prune(nn.Linear(5, 2), regrow.Wanda(density=0.4), loader).density == 0.4


def test_a_model_pruned_already_keeps_its_zeros_or_says_so(caplog):
    torch.manual_seed(0)
    model, x = nn.Linear(16, 8), [torch.randn(30, 16)]
    regrow.prune(model, regrow.Wanda(density=0.5), x)
    first = model.weight != 0
    regrow.prune(model, regrow.SparseGPT(density=0.25), x)
    assert not (first.logical_not() & (model.weight != 0)).any()
    assert not caplog.records
    regrow.prune(model, regrow.Wanda(density=0.5), x)
    assert "keeps weights that were zero before, of weight" in caplog.text


def test_magnitudes_are_chosen_without_a_copy_of_the_model(monkeypatch):
    monkeypatch.setattr(copy, "deepcopy", None)
    model = convolutional()
    for scope in ("global", "layer"):
        regrow.prune(model, regrow.OMP(density=0.5, scope=scope))


def test_starts_prune_as_they_start():
    torch.manual_seed(0)
    model, batch = convolutional(), images()

    def loss(model):
        return model(batch).square().mean()

    for method in (
        regrow.SNIP(density=0.3, loss=loss),
        regrow.GraSP(density=0.3, loss=loss),
        regrow.SynFlow(density=0.3, inputs=batch, rounds=3),
        regrow.RigL(density=0.3, start=LargestWeights(scope="layer")),
    ):
        one, other = copy.deepcopy(model), copy.deepcopy(model)
        pruned = regrow.prune(one, method)
        optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
        sparse = regrow.sparsify(other, optimizer, method, total_steps=1000)
        for name, mask in sparse.masks.items():
            assert torch.equal(pruned.masks[name], mask)
            assert torch.equal(one.get_parameter(name), other.get_parameter(name))


class TestFineTuning:
    @pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
    @pytest.mark.parametrize("moving", [False, True])
    def test_sparsify_picks_the_topology_up(self, case, rule, moving):
        model, batches = case
        if moving and not any(p.ndim == 2 for p in model.parameters()):
            return
        pruned = regrow.prune(model, rule, given(rule, batches))
        before = {name: one.clone() for name, one in model.named_parameters()}
        kind = regrow.RigL if moving else regrow.Static
        options = {"update_every": 2} if moving else {}
        method = kind(density=pruned.density, start=pruned.start, **options)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=8, include=pruned.names)
        for name, one in model.named_parameters():
            assert torch.equal(one, before[name])
        assert {n: int(m.sum()) for n, m in sparse.masks.items()} == dict(pruned.kept)
        for _ in range(4):
            optimizer.zero_grad()
            model(batches[0]).square().mean().backward()
            optimizer.step()
        assert {n: int(m.sum()) for n, m in sparse.masks.items()} == dict(pruned.kept)
        moved = [n for n, m in sparse.masks.items() if not torch.equal(m, pruned.masks[n])]
        assert bool(moved) == moving
        for name, mask in sparse.masks.items():
            assert not model.get_parameter(name)[~mask].any()

    def test_weights_kept_at_zero_are_kept(self):
        model = nn.Linear(4, 4)
        with torch.no_grad():
            model.weight[:, 2:] = 0
        pruned = regrow.prune(model, regrow.Wanda(density=0.75), [torch.ones(2, 4)])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = regrow.Static(density=pruned.density, start=pruned.start)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=1)
        assert int(sparse.masks["weight"].sum()) == 12

    def test_two_of_four_go_on_as_two_of_four(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
        x = torch.randn(20, 8)
        pruned = regrow.prune(model, regrow.SparseGPT(density=0.5, pattern=NM(2, 4)), [x])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = regrow.DynamicNM(start=pruned.start, update_every=1)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=9)
        for _ in range(3):
            model(x).square().mean().backward()
            optimizer.step()
        for mask in sparse.masks.values():
            assert (mask.reshape(-1, 4).sum(1) == 2).all()


def test_wrapped_models_are_looked_into():
    torch.manual_seed(0)
    inner, x = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4)), torch.randn(9, 6)
    twin = copy.deepcopy(inner)
    pruned = regrow.prune(torch.compile(inner, backend="eager"), regrow.Wanda(density=0.5), [x])
    other = regrow.prune(twin, regrow.Wanda(density=0.5), [x])
    assert pruned.names == other.names
    assert all(torch.equal(pruned.masks[name], other.masks[name]) for name in other.names)


def test_evaluating_puts_back_after_errors():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    with pytest.raises(RuntimeError), evaluating(model):
        model[0].running_mean += 1
        raise RuntimeError
    assert model.training
    assert not model[0].running_mean.any()


@pytest.mark.parametrize("before", [0.0, torch.finfo().max, torch.inf, torch.nan, 1j])
@pytest.mark.parametrize("written", [torch.nan, torch.inf, -torch.inf, 0.0])
def test_evaluating_puts_back_whatever_was_written(before, written):
    model = nn.Module()
    model.register_buffer("seen", torch.tensor([before]))
    kept = model.seen.clone()
    with evaluating(model):
        model.seen.fill_(written)
    assert str(model.seen) == str(kept)


def test_the_table_tells_what_was_done():
    pruned = regrow.prune(convolutional(), regrow.OMP(density=0.5), exclude=["0.*"])
    lines = str(pruned).splitlines()
    assert lines[0].split() == ["weight", "shape", "kept", "of", "density"]
    assert lines[1].split()[:2] == ["3.weight", "8×4×3×3"]
    assert "dense: 0.weight (excluded)" in lines
    assert lines[-1].startswith("dense: 1.weight, 1.bias, 3.bias and 1 more (fewer than two")


def test_a_model_of_several_ranks_is_pruned_before_it_is_wrapped(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(nn.Linear(4, 4))
        with pytest.raises(ValueError, match=r"DistributedDataParallel.*prune the module first"):
            regrow.prune(model, regrow.OMP(density=0.5))
        assert model.module.weight.all()
    finally:
        torch.distributed.destroy_process_group()


def test_one_stage_of_sums_lives_at_a_time(monkeypatch):
    """Beside the model: the sums of one block; those before it are gone."""
    from regrow.pruning import prune as module

    sums, alive = module.sums, []

    def watched(*args, **options):
        assert not any(one() is not None for one in alive)
        found = sums(*args, **options)
        alive.extend(weakref.ref(one) for one in found.values())
        return found

    monkeypatch.setattr(module, "sums", watched)
    pruned = regrow.prune(ViT(), regrow.SparseGPT(density=0.5), [images()])
    assert len(alive) == len(pruned.names)
    assert sum(bits.nbytes for bits, _ in pruned.masks._packed.values()) < 1300
