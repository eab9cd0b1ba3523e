"""What every test takes for granted."""

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

# One run of the suite is like another; HYPOTHESIS_PROFILE=explore searches where none has looked.
_SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much]
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=_SLOW)
settings.register_profile("explore", deadline=None, suppress_health_check=_SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

torch.set_num_threads(1)  # before the fixtures of modules, too: threads change the order of sums


@pytest.fixture(autouse=True)
def _one_thread_and_one_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> str:
    """The folder of real data sets; tests that need one are skipped without it."""
    folder = os.environ.get("REGROW_DATA")
    if not folder:
        pytest.skip("REGROW_DATA is not set: it names the folder that holds the data sets")
    return folder
