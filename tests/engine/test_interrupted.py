"""All or nothing: whatever interrupts, a state is the old one or the new one, bit for bit."""

import copy
import gc
import random

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import regrow
from regrow.engine.patterns import Block
from tests.fuzz.faults import Fault

pytestmark = pytest.mark.usefixtures("uncompiled")

BUDGET = 24  # operators at which each case is interrupted, drawn anew with every seed


class NoMemory(TorchDispatchMode):
    """Lets no operator make a new tensor from the n-th that does so on; counts them."""

    def __init__(self, n=None):
        super().__init__()
        self.n, self.count = n, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(
            one.alias_info is None and "Tensor" in str(one.type) for one in function._schema.returns
        ):
            self.count += 1
            if self.n is not None and self.count >= self.n:
                raise MemoryError(f"{function}")
        return function(*args, **(kwargs or {}))


def _flat(value, path=""):
    """Tensors, numbers and strings by path, whatever they lie in."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        return {path: value.detach().clone() if isinstance(value, torch.Tensor) else value}
    return {k: v for key, part in parts for k, v in _flat(part, f"{path}/{key}").items()}


def _state(model, optimizer, sparse=None):
    held = {id(p): name for name, p in model.named_parameters()}
    return _flat(
        {
            "model": _flat(dict(model.state_dict())),  # as it is, before it may be mended
            "modules": {name: type(module).__name__ for name, module in model.named_modules()},
            "optimizer": optimizer.state_dict(),
            "holds": [held.get(id(p)) for group in optimizer.param_groups for p in group["params"]],
            "hooks": [len(optimizer._optimizer_step_pre_hooks)],
            "sparse": {} if sparse is None else sparse.state_dict(),
        }
    )


def _same(a, b):
    return a.keys() == b.keys() and all(
        torch.equal(x, b[key]) if isinstance(x, torch.Tensor) else x == b[key]
        for key, x in a.items()
    )


def _dense(steps=2):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 32)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        _step(model, optimizer)
    return model, optimizer


def _step(model, optimizer):
    optimizer.zero_grad()
    model(torch.ones(3, 2, 6, 6)).square().sum().backward()
    optimizer.step()


KINDS = {
    "SET": ("masked", regrow.SET(density=0.3, update_every=3)),
    "mean": ("masked", regrow.SET(density=0.3, update_every=3, on_grow="mean")),
    "SRigL": ("masked", regrow.SRigL(density=0.3, update_every=3)),
    "TopKAST": ("masked", regrow.TopKAST(density=0.3)),
    "csr": ("csr", regrow.SET(density=0.3, update_every=3)),
    "block": ("block", regrow.SET(density=0.3, pattern=Block(8), update_every=3)),
}


# State held in fewer bits; the largest weight, of 2,048, is quantised.
LOW_BIT = {
    "bitsandbytes AdamW8bit": ("bitsandbytes.optim", "AdamW8bit", {"min_8bit_size": 1}),
    "torchao AdamW8bit": ("torchao.optim", "AdamW8bit", {"block_size": 32}),
    "torchao AdamW4bit": ("torchao.optim", "AdamW4bit", {"block_size": 32}),
    "torchao AdamWFp8": ("torchao.optim", "AdamWFp8", {"block_size": 32}),
}

# And those whose updates write more than that.
STARVED = {
    **KINDS,
    "Rprop": ("masked", regrow.SET(density=0.3, update_every=3)),
    "Adagrad, mean": ("masked", regrow.SET(density=0.3, update_every=3, on_grow="mean")),
    "held": ("masked", regrow.SET(density=0.3, update_every=3)),
    "frozen": ("masked", regrow.SET(density=0.3, update_every=3)),
    "csr, mean": ("csr", regrow.SET(density=0.3, update_every=3, on_grow="mean")),
    "RigL": ("masked", regrow.RigL(density=0.3, update_every=3)),
    **dict.fromkeys(LOW_BIT, ("masked", regrow.SET(density=0.3, update_every=3, on_grow="mean"))),
}


def _sparse(kind, *, steps=2):
    execution, method = STARVED[kind]
    model, optimizer = _dense()
    if kind == "Rprop":
        optimizer = torch.optim.Rprop(model.parameters(), lr=0.01)
    if kind.startswith("Adagrad"):
        optimizer = torch.optim.Adagrad(model.parameters(), 0.01, initial_accumulator_value=0.1)
    if kind in LOW_BIT:
        package, name, options = LOW_BIT[kind]
        library = pytest.importorskip(package, reason=f"needs the package {package.split('.')[0]}")
        optimizer = getattr(library, name)(model.parameters(), lr=0.01, **options)
    include = ["4.weight"] if kind == "block" else None
    some = torch.arange(64 * 32).reshape(32, 64) % 3 > 0
    more = {"held": {"available": {"4.weight": some}}, "frozen": {"frozen": {"4.weight": some}}}
    sparse = regrow.sparsify(
        model,
        optimizer,
        method,
        total_steps=100,
        include=include,
        execution=execution,
        **more.get(kind, {}),
    )
    for _ in range(steps):
        _step(model, optimizer)
    return model, optimizer, sparse


def _interrupted(make, act, seed):
    """Interrupt an act on copies at drawn operators; return the states that are neither.

    Args:
        make: builds what is acted on; the same every time.
        act: changes it; returns the sparsifier where it makes one.
        seed: draws the operators, beside the first and the last.
    """
    parts = make()
    old = _state(*parts)
    fault = Fault()
    with fault:
        made = act(*parts)
    new = _state(*parts[:2], made or (parts[2] if len(parts) > 2 else None))
    assert not _same(old, new)
    last = fault.count
    drawn = random.Random(seed).sample(range(1, last + 1), min(BUDGET, last))
    torn = []
    for i, n in enumerate(sorted({1, last, *drawn})):
        error, after = ((MemoryError, KeyboardInterrupt)[i % 2], bool(i // 2 % 2))
        parts = make()
        with pytest.raises(error), Fault(n, error, after=after):
            act(*parts)
        now = _state(*parts)
        if not _same(now, old) and not _same(now, new):
            torn.append((n, last, error.__name__, after))
    return torn


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_is_made_whole_or_not_at_all(kind, seed=0):
    def update(model, optimizer, sparse):
        sparse.update_()

    assert _interrupted(lambda: _sparse(kind), update, seed) == []


def _starved(make, act, seed=0):
    """Act on copies while memory ends, early or late; return the states that are neither.

    One fault is not enough: a write is tried again, which only helps if it needs no memory.
    """
    parts = make()
    old, memory = _state(*parts), NoMemory()
    with memory:
        act(*parts)
    new, torn = _state(*parts), []
    last = memory.count  # writes come last: there every operator is tried, before them some
    drawn = random.Random(seed).sample(range(1, last + 1), min(6, last))
    for n in sorted({*drawn, *range(max(1, last - 15), last + 1)}):
        parts = make()
        with pytest.raises(MemoryError) as raised, NoMemory(n):
            act(*parts)
        now = _state(*parts)
        if not _same(now, old) and not _same(now, new):
            torn.append((n, last, str(raised.value)))
    return torn


@pytest.mark.parametrize("kind", STARVED)
def test_an_update_without_memory_left_is_made_whole_or_not_at_all(kind):
    """Means of squares, first values and held weights were computed between two writes."""
    assert _starved(lambda: _sparse(kind), lambda *parts: parts[2].update_()) == []


@pytest.mark.parametrize("kind", STARVED)
def test_a_state_is_loaded_without_memory_left_whole_or_not_at_all(kind):
    donor = _sparse(kind, steps=8)[2].state_dict()
    assert _starved(lambda: _sparse(kind), lambda *parts: parts[2].load_state_dict(donor)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_loaded_whole_or_not_at_all(kind, seed=0):
    donor = _sparse(kind, steps=8)[2].state_dict()

    def load(model, optimizer, sparse):
        sparse.load_state_dict(copy.deepcopy(donor))

    assert _interrupted(lambda: _sparse(kind), load, seed) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_made_sparse_whole_or_not_at_all(kind, seed=0):
    execution, method = KINDS[kind]
    include = ["4.weight"] if kind == "block" else None

    def sparsify(model, optimizer):
        return regrow.sparsify(
            model,
            optimizer,
            method,
            total_steps=100,
            include=include,
            execution=execution,
            rescale=True,
        )

    assert _interrupted(_dense, sparsify, seed) == []


def test_what_was_interrupted_can_be_called_again():
    model, optimizer = _dense()
    method = regrow.SET(density=0.3)
    for n in (3, 12, 24):
        with pytest.raises(KeyboardInterrupt), Fault(n, KeyboardInterrupt):
            regrow.sparsify(model, optimizer, method, total_steps=500, rescale=True)
    gc.collect()
    regrow.sparsify(model, optimizer, method, total_steps=500, rescale=True)
    kept = sum(int(torch.count_nonzero(model[i].weight)) for i in (0, 4))
    assert kept == round(0.3 * (72 + 64 * 32))


def test_a_step_whose_update_is_interrupted_makes_it_once():
    """In a step the update is made and recorded, or comes with the next step."""
    reference = _sparse("SET", steps=3)
    for n in (10, 30, 60):
        model, optimizer, sparse = _sparse("SET", steps=2)
        optimizer.zero_grad()
        model(torch.ones(3, 2, 6, 6)).square().sum().backward()
        update = sparse._topology.update_

        def faulty(*args, update=update, n=n, **kwargs):
            with Fault(n, KeyboardInterrupt):
                return update(*args, **kwargs)

        sparse._topology.update_ = faulty
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
        sparse._topology.update_ = update
        assert len(sparse.history) in (0, 1)
        if sparse.history:
            assert _same(_state(model, optimizer, sparse), _state(*reference))
        _step(model, optimizer)
        assert len(sparse.history) == 1
