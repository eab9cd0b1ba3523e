"""The tests of data: nothing outside them is read or written."""

import pytest


@pytest.fixture(autouse=True)
def _alone(alone):
    pass
