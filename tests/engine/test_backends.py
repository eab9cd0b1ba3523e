"""The registry of execution backends."""

import pytest
import torch

import regrow
from regrow.engine import backends
from regrow.engine.backends import Backend, find_backend, register


def refuse(model, optimizer, method, plan, seed, first, state):
    """Refuse every layer."""
    raise ValueError(f"asked for {[layer.execution for layer in plan.layers]}")


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(backends, "_BACKENDS", dict(backends._BACKENDS))


def sparsify(execution):
    model = torch.nn.Sequential(torch.nn.Linear(8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = regrow.SET(density=0.5)
    return regrow.sparsify(model, optimizer, method, total_steps=3, execution=execution)


def test_importing_the_package_registers_its_own():
    assert list(backends._BACKENDS) == ["csr", "block", "2:4", "auto"]
    assert sparsify("csr").plan.layers[0].execution == "csr"


def test_a_backend_is_asked_by_its_name():
    with pytest.raises(
        ValueError, match="'mine': must be one of 'masked', 'csr', 'block', '2:4', 'auto'"
    ):
        sparsify("mine")
    register("mine", Backend(refuse))
    with pytest.raises(ValueError, match=r"asked for \['mine'\]"):
        sparsify("mine")


def test_masks_are_no_backend():
    assert find_backend("masked") is None
    with pytest.raises(ValueError, match="name='masked'"):
        register("masked", Backend(refuse))
