"""A sweep that is killed a few times ends with the numbers of one that was left alone."""

import pytest

from tests.fuzz.budget import run
from tests.fuzz.kills import case


@pytest.mark.slow
def test_kills_lose_nothing_and_leave_nothing_half():
    assert run(case, 1, range(2))[1] == []
