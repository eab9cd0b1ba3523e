"""What the tests on a GPU share."""

import contextlib
import warnings

import pytest
import torch


@contextlib.contextmanager
def _waiting_is(what):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # asking for the mode warns, too
        torch.cuda.set_sync_debug_mode(what)
        try:
            yield caught
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def waiting_is():
    """A context in which PyTorch warns or raises whenever the host waits for the device."""
    return _waiting_is


@pytest.fixture
def host_waits():
    """Count how often the host waits for the device in a call."""

    def count(call):
        with _waiting_is("warn") as caught:
            call()
        return sum("called a synchronizing" in str(warning.message) for warning in caught)

    return count
