"""A short run of the fuzzer of motion data; make fuzz is the long one."""

import pytest

from tests.fuzz.budget import run

pytest.importorskip("pyarrow")
pytest.importorskip("nibabel")


def test_malformed_motion_data_is_refused_or_gives_sound_scenes():
    from tests.fuzz.scenes import case

    assert run(case, 0, range(40))[1] == []
