"""What the tests on a GPU share."""

import contextlib
import warnings
from pathlib import Path

import pytest
import torch

# Said once a thread, of backward passes that torch runs on threads of its own; the context is made.
_NO_CONTEXT = "ignore:Attempting to run cuBLAS, but there was no current CUDA context:UserWarning"
# Said by torch.compile of torch 2.11 itself, of a function that it looks into.
_LOOKED_INTO = "ignore:.*should not be instantiated:DeprecationWarning"


def pytest_collection_modifyitems(items):
    """Let the tests of this folder pass where torch remarks on what it does itself."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for remark in (_NO_CONTEXT, _LOOKED_INTO):
                item.add_marker(pytest.mark.filterwarnings(remark))


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
