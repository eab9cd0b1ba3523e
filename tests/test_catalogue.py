"""What is told of a method is what the method is."""

import dataclasses

import pytest
import torch

import regrow
from regrow.catalogue import describe, listing, signature
from regrow.engine import allocation, criteria, links, patterns, schedules, scores

NAMES = {
    name: getattr(module, name)
    for module in (regrow, allocation, criteria, links, patterns, schedules, scores)
    for name in module.__all__
}
NEEDED = {"density": 0.1, "loss": print, "inputs": torch.zeros(1), "trained": {}}
LONG = {"ACDC": {"density_path": "Steps(…)"}}
CHOICES = {"drop", "grow", "drop_fraction", "update_every", "stop_at", "allocation"}


def takes(kind):
    return {field.name: field.default for field in dataclasses.fields(kind) if field.init}


def given(kind):
    return {name: value for name, value in NEEDED.items() if name in takes(kind)}


@pytest.mark.parametrize("kind", regrow.METHODS.values(), ids=regrow.METHODS)
def test_what_is_printed_can_be_typed_and_is_the_method(kind):
    """Differences from Dynamic alone were printed: of RigL nothing but replaces_step."""
    text = signature(kind)
    for name in given(kind):
        assert f"{name}=..." in text
        text = text.replace(f"{name}=...", f"{name}=NEEDED[{name!r}]")
    for name, elided in LONG.get(kind.__name__, {}).items():
        assert f"{name}={elided}" in text
        text = text.replace(elided, f"{kind.__name__}(density=0.1).{name}")
    assert eval(text, NAMES | {"NEEDED": NEEDED}) == kind(**given(kind))
    assert max(map(len, text.splitlines())) < 130


@pytest.mark.parametrize("kind", regrow.METHODS.values(), ids=regrow.METHODS)
def test_all_that_a_method_chooses_is_printed_whoever_it_is_from(kind):
    shown = set(signature(kind).replace("(", "=").replace(" ", "=").split("="))
    chosen = CHOICES & takes(kind).keys()
    if "density" not in takes(kind):
        chosen -= {"allocation"}
    assert chosen <= shown


def test_the_listing_names_every_method_with_its_source():
    entries = listing().split("\n\n")
    assert len(entries) == len(regrow.METHODS) + 1
    for name, entry in zip(regrow.METHODS, entries, strict=False):
        assert entry.startswith(f"{name}(")
        assert any(word in entry for word in ("arXiv", "et al.", "a control"))


@pytest.mark.parametrize(
    ("name", "found"),
    [("RigL", "RigL"), ("rigl", "RigL"), ("random", "RandomWalk"), ("snf", "SNFS"), ("cht", "CHT")],
)
def test_a_method_is_found_by_a_beginning_of_its_own(name, found):
    assert describe(name).startswith(f"{found}(")


@pytest.mark.parametrize(
    ("name", "offered"),
    [("rig", "RigL, RigLITOP"), ("dynamic", "DynamicNM, DynamicBlock"), ("x", "Dense, Static")],
)
def test_others_are_offered_where_none_or_several_begin_so(name, offered):
    with pytest.raises(ValueError, match=f"method '{name}': must be one of {offered}"):
        describe(name)
