"""Every file of a study's folder, damaged in every way, once; and others at random."""

import random

import pytest

from tests.fuzz.budget import run
from tests.fuzz.records import FILES, case, check, kinds


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in FILES for kind in kinds(name)])
def test_what_is_damaged_is_named_and_the_rest_goes_on(name, kind):
    check(name, kind, random.Random(0))


def test_damage_at_random_places():
    assert run(case, 1, range(10))[1] == []
