"""Models built without memory for their weights: what is drawn later, and what is refused."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.patterns import Block
from regrow.execution.empty import Unmade

SIZE = 400


def stored(model, density=0.25, execution="csr", **options):
    optimizer = torch.optim.Adam(model.parameters())
    method = regrow.SET(density=density)
    if execution == "block":
        method = regrow.DynamicBlock(density=density, pattern=Block(32))
    regrow.sparsify(
        model, optimizer, method, total_steps=1000, execution=execution, seed=1, **options
    )
    return model, optimizer


INITIALISED = {
    "as torch does": lambda w: None,
    "kaiming_normal_": nn.init.kaiming_normal_,
    "xavier_uniform_": nn.init.xavier_uniform_,
    "trunc_normal_": lambda w: nn.init.trunc_normal_(w, std=0.5, a=-0.4, b=0.4),
    "constant_": lambda w: nn.init.constant_(w, 0.3),
    "data.normal_": lambda w: w.data.normal_(1.0, 0.1),
    "scaled": lambda w: w.data.normal_().mul_(0.2).add_(1).clamp_(max=1.1),
}


@pytest.mark.parametrize("name", INITIALISED)
@pytest.mark.parametrize("execution", ["csr", "block"])
def test_active_weights_are_distributed_as_in_a_model_built_plainly(name, execution):
    def build():
        model = nn.Sequential(nn.Linear(SIZE, SIZE))
        with torch.no_grad():
            INITIALISED[name](model[0].weight)
        return model

    torch.manual_seed(0)
    with regrow.empty():
        late = build()
    assert late[0].weight.is_meta and not late[0].bias.is_meta
    late, plain = (stored(model, execution=execution)[0][0] for model in (late, build()))
    assert torch.equal(late.positions, plain.positions)
    inside = plain.dense_weight() != 0
    a, b = (layer.dense_weight()[inside].sort().values for layer in (late, plain))
    # The largest distance of two distributions of n numbers each (Kolmogorov-Smirnov, p = 0.001).
    grid = torch.cat([a, b])
    distance = (torch.searchsorted(a, grid) - torch.searchsorted(b, grid)).abs().max() / len(a)
    assert name == "constant_" or distance < 1.95 * (2 / len(a)) ** 0.5
    assert name != "constant_" or torch.equal(a, b)
    assert late.bias.detach().abs().max() <= SIZE**-0.5


def test_all_but_large_weights_is_made_as_always_and_what_stays_dense_gets_its_values():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(8)
            self.first, self.last = nn.Linear(8, 64), nn.Linear(64, 3)
            self.conv = nn.Conv1d(1, 4, 3)
            self.register_buffer("table", torch.arange(8.0))
            self.apply(self.start)

        def start(self, module):
            if isinstance(module, nn.Linear):
                nn.init.constant_(module.weight, 0.5)
                nn.init.constant_(module.bias, 0.25)

    with regrow.empty():
        model = Net()
    assert [n for n, p in model.named_parameters() if p.is_meta] == [
        "first.weight",
        "last.weight",
        "conv.weight",
    ]
    assert model.table.tolist() == list(range(8))
    model, optimizer = stored(model, exclude=["last.weight", "conv.weight"])
    assert model.first.weight.eq(0.5).all() and len(model.first.weight) == 128
    assert model.first.bias.eq(0.25).all()
    assert type(model.last.weight) is nn.Parameter and model.last.weight.eq(0.5).all()
    assert 0 < model.conv.weight.abs().max() <= 3**-0.5
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (nn.init.orthogonal_, "copy_"),
        (nn.init.eye_, "whole"),
        (lambda w: nn.init.sparse_(w, 0.5), "whole"),
        (lambda w: w.data.copy_(torch.ones(8, 8)), "copy_"),
        (lambda w: w.data[0].zero_(), "zero_"),
        (lambda w: w.data.mul_(torch.ones(8)), "mul_"),
    ],
)
@pytest.mark.parametrize("exclude", [None, "0.weight"])
def test_what_needs_a_whole_weight_is_refused_by_name_and_changes_nothing(write, said, exclude):
    with regrow.empty():
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
        write(model[0].weight)
    optimizer = torch.optim.Adam(model.parameters())
    before = [id(p) for p in model.parameters()]
    with pytest.raises(ValueError, match=rf"0\.weight: it was made under.*{said}"):
        regrow.sparsify(
            model,
            optimizer,
            regrow.SET(density=0.5),
            total_steps=1000,
            execution="csr",
            exclude=exclude,
        )
    assert [id(p) for p in model.parameters()] == before
    assert type(model[1]) is nn.Linear


@pytest.mark.parametrize(
    "write",
    [
        lambda model: nn.init.normal_(model[0].weight),
        lambda model: model.load_state_dict(nn.Sequential(nn.Linear(8, 8)).state_dict()),
    ],
)
@pytest.mark.filterwarnings("ignore:.*no-op")
def test_what_is_written_afterwards_would_be_lost_and_is_refused(write):
    with regrow.empty():
        model = nn.Sequential(nn.Linear(8, 8))
    write(model)
    with pytest.raises(ValueError, match="initialise inside the context"):
        stored(model)
    with pytest.raises(ValueError, match="meta device"):
        regrow.sparsify(
            model,
            torch.optim.SGD(model.parameters(), lr=0.1),
            regrow.SET(density=0.5),
            total_steps=1000,
        )


def test_copies_know_what_originals_do_and_files_are_refused():
    with regrow.empty():
        model = nn.Sequential(nn.Linear(8, 8))
        nn.init.constant_(model[0].weight, 2.0)
        inside = copy.deepcopy(model)
        nn.init.constant_(inside[0].weight, 3.0)
    after = copy.deepcopy(inside)
    for made, value in ((model, 2.0), (inside, 3.0), (after, 3.0)):
        assert isinstance(made[0].weight, Unmade)
        assert stored(made)[0][0].weight.eq(value).all()
    with regrow.empty():
        model = nn.Sequential(nn.Linear(8, 8))
    with pytest.raises(TypeError, match=r"call regrow\.sparsify"):
        pickle.dumps(model)


def test_ties_and_weights_that_are_given_stay():
    with regrow.empty():
        model = nn.Sequential(nn.Embedding(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
        model[0].weight = model[1].weight
        model[2].weight = nn.Parameter(torch.ones(8, 8))
    assert not model[2].weight.is_meta
    model, _ = stored(model, include="2.weight")
    assert model[0].weight is model[1].weight and not model[0].weight.is_meta
    assert model[2].weight.eq(1).all()


def test_the_context_leaves_no_trace():
    before = nn.Linear.__init__
    with pytest.raises(KeyboardInterrupt), regrow.empty():
        assert is_empty(nn.Linear(2, 2))
        with regrow.empty():
            assert is_empty(nn.Linear(2, 2))
        assert is_empty(nn.Linear(2, 2))
        assert not is_empty(nn.Linear(2, 2, device="cpu"))
        raise KeyboardInterrupt
    assert nn.Linear.__init__ is before
    assert "register_parameter" not in vars(nn.Linear)
    assert not is_empty(nn.Linear(2, 2))


def test_other_threads_build_as_always():
    with regrow.empty(), ThreadPoolExecutor(1) as pool:
        assert not is_empty(pool.submit(nn.Linear, 2, 2).result())


def is_empty(layer):
    return layer.weight.device.type == "meta" and layer.bias.device.type == "cpu"


@pytest.mark.parametrize(
    ("make", "shape"),
    [(lambda: nn.Linear(4, 2, bias=False), (3, 4)), (lambda: nn.Conv2d(1, 2, 2), (1, 1, 4, 4))],
)
def test_a_weight_without_values_computes_nothing(make, shape):
    """torch returns what lies in memory when a weight on the meta device meets real inputs."""
    with regrow.empty():
        layer = make()
    with pytest.raises(RuntimeError, match=r"no values yet.*sparsify\(\) first"):
        layer(torch.ones(shape))
    if layer.bias is None:
        assert layer(torch.ones(shape, device="meta")).device.type == "meta"  # shapes may be asked


def test_a_model_may_be_sent_to_where_it_is_and_nowhere_else():
    with regrow.empty():
        model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 4))
    assert model.to("cpu").float()[0].weight.device.type == "meta"
    for wrong in (lambda: model.to(torch.float64), lambda: model.to("cuda")):
        with pytest.raises((NotImplementedError, RuntimeError, AssertionError), match="regrow"):
            wrong()
    optimizer = torch.optim.Adam(model.parameters())
    regrow.sparsify(model, optimizer, regrow.SET(density=0.1), total_steps=10, execution="csr")
    assert model(torch.ones(1, 64)).shape == (1, 4)
