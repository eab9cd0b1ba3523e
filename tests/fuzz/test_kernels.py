"""A short run of the kernels' fuzzer; a worker that dies is a case that went wrong."""

import pytest

from tests.fuzz import kernels
from tests.fuzz.budget import run


@pytest.fixture(autouse=True)
def no_worker_is_left():
    yield
    kernels.WORKER.end()


def test_a_short_run():
    kinds, wrong = run(kernels.case, 0, range(50))
    assert wrong == []
    assert len(kinds) > 5


def test_a_crash_and_a_hang_are_wrong_and_the_next_case_runs(monkeypatch):
    worker, select = kernels.WORKER, kernels.select.select

    def dying(*streams):
        worker.process.kill()
        return select(*streams)

    monkeypatch.setattr(kernels.select, "select", dying)
    with pytest.raises(AssertionError, match=r"the worker died: exit -9"):
        worker.ask(1)
    monkeypatch.setattr(kernels.select, "select", lambda *_: ([], [], []))
    with pytest.raises(AssertionError, match="had not ended"):
        worker.ask(1)
    monkeypatch.undo()
    assert "wrong" not in worker.ask(1)
