"""A short run of the fuzzer of readers; make fuzz is the long one."""

import pytest

from tests.fuzz.budget import run

pytest.importorskip("pyarrow")
pytest.importorskip("safetensors")
pytest.importorskip("nibabel")


def test_malformed_files_are_refused_or_read_rightly():
    from tests.fuzz.readers import case

    assert run(case, 0, range(40))[1] == []
