"""Every public symbol tells what it is, what it takes, and shows itself at work."""

import importlib
import inspect
import pkgutil

import pytest

import regrow


def modules():
    yield regrow
    for info in pkgutil.walk_packages(regrow.__path__, "regrow."):
        yield importlib.import_module(info.name)


MODULES = {module.__name__: module for module in modules()}


def public(name):
    """Classes and functions that a module says are public, by name."""
    module = MODULES[name]
    found = {symbol: getattr(module, symbol) for symbol in getattr(module, "__all__", ())}
    return {n: one for n, one in found.items() if inspect.isclass(one) or inspect.isfunction(one)}


# A sentence says all there is to say about these, or running them is not for a doctest.
NO_EXAMPLE = {"Method", "Pattern", "Score", "Random", "Schedule", "Sparsifier", "Update"}


@pytest.mark.parametrize("module", MODULES)
def test_modules_say_what_they_are_and_what_is_public(module):
    assert MODULES[module].__doc__
    is_package = hasattr(MODULES[module], "__path__")
    assert is_package or hasattr(MODULES[module], "__all__"), f"{module} lacks __all__"


@pytest.mark.parametrize("module", MODULES)
def test_public_symbols_are_documented(module):
    assert not [name for name, symbol in public(module).items() if not inspect.getdoc(symbol)]


def unnamed(symbol):
    """Parameters that the docstring of a class, of its bases or of a function does not name."""
    text = (
        "".join(c.__doc__ or "" for c in inspect.getmro(symbol) if c.__module__[:6] == "regrow")
        if inspect.isclass(symbol)
        else inspect.getdoc(symbol)
    )
    if "Args:" not in text:
        return []
    parameters = inspect.signature(symbol).parameters
    return [p for p in parameters if p not in ("self", "args", "kwargs") and p not in text]


@pytest.mark.parametrize("module", MODULES)
def test_every_parameter_is_named_in_the_docstring(module):
    missing = {name: unnamed(symbol) for name, symbol in public(module).items()}
    assert not {name: found for name, found in missing.items() if found}


@pytest.mark.parametrize("name", sorted(set(regrow.__all__) - NO_EXAMPLE - {"METHODS"}))
def test_the_public_face_shows_itself_at_work(name):
    assert ">>>" in inspect.getdoc(getattr(regrow, name))
