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


SYMBOLS = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in modules()
    for name in getattr(module, "__all__", ())
}
CALLABLES = {
    name: symbol
    for name, symbol in SYMBOLS.items()
    if inspect.isclass(symbol) or inspect.isfunction(symbol)
}
# A sentence says all there is to say about these, or running them is not for a doctest.
NO_EXAMPLE = {"Method", "Pattern", "Score", "Random", "Schedule", "Sparsifier", "Update"}


@pytest.mark.parametrize("module", list(modules()), ids=lambda module: module.__name__)
def test_modules_say_what_they_are_and_what_is_public(module):
    assert module.__doc__
    is_package = hasattr(module, "__path__")
    assert is_package or hasattr(module, "__all__"), f"{module.__name__} lacks __all__"


@pytest.mark.parametrize("name", CALLABLES)
def test_public_symbols_are_documented(name):
    assert inspect.getdoc(CALLABLES[name])


@pytest.mark.parametrize("name", CALLABLES)
def test_every_parameter_is_named_in_the_docstring(name):
    symbol = CALLABLES[name]
    text = (
        "".join(c.__doc__ or "" for c in inspect.getmro(symbol) if c.__module__[:6] == "regrow")
        if inspect.isclass(symbol)
        else inspect.getdoc(symbol)
    )
    if "Args:" not in text:
        return
    parameters = inspect.signature(symbol).parameters
    missing = [p for p in parameters if p not in ("self", "args", "kwargs") and p not in text]
    assert not missing


@pytest.mark.parametrize("name", sorted(set(regrow.__all__) - NO_EXAMPLE - {"METHODS"}))
def test_the_public_face_shows_itself_at_work(name):
    assert ">>>" in inspect.getdoc(getattr(regrow, name))
