"""Sets of colours: drawn, written, read; nothing in a published file is run."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from regrow.control.distractions import draw_colours, read_colours, write_colours

KNOWN = [
    {"self_rgb": [0.1, 0.2, 0.3]},
    {"grid_texrepeat": [2.0, 3.0], "skybox_rgb": [0.0, 1.0, 0.5]},
]


@pytest.mark.parametrize("level, spread", [("easy", 0.1), ("hard", 0.2)])
def test_draws_are_spread_as_said_and_follow_the_seed(level, spread):
    drawn = draw_colours(level, count=4000, seed=1)
    sky = np.array([one["skybox_rgb"] for one in drawn])[:, 1]
    assert abs(sky.mean() - 0.6) < 0.02 and abs(sky.std() / spread - 1) < 0.06
    assert all(0 <= part <= 1 for one in drawn for rgb in one.values() for part in rgb)
    first, second = (np.array([one[f"grid_rgb{i}"] for one in drawn]) for i in (1, 2))
    np.testing.assert_allclose(second, np.minimum(first + 0.1, 1), atol=2e-4)
    assert drawn[:3] == draw_colours(level, count=3, seed=1) != draw_colours(level, count=3)
    with pytest.raises(ValueError, match="level='soft'"):
        draw_colours("soft")


def test_what_is_written_is_read(tmp_path):
    write_colours(tmp_path / "colours.json", KNOWN)
    assert read_colours(tmp_path / "colours.json") == KNOWN


@pytest.mark.parametrize("zipped", [False, True])
def test_published_files_are_read(tmp_path, zipped):
    """As torch.save writes lists of numpy arrays, in its old format and in its new one."""
    arrays = [{name: np.array(rgb) for name, rgb in one.items()} for one in KNOWN]
    path = tmp_path / "color_hard.pt"
    torch.save(arrays, path, _use_new_zipfile_serialization=zipped)
    assert zipfile.is_zipfile(path) == zipped
    assert read_colours(path) == KNOWN


class Evil:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("zipped", [False, True])
def test_what_a_file_asks_for_is_not_done(tmp_path, zipped):
    path, seen = tmp_path / "color_easy.pt", tmp_path / "seen"
    torch.save([{"self_rgb": Evil(seen)}], path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"color_easy\.pt asks for .*system.*nothing was run"):
        read_colours(path)
    assert not seen.exists()


@pytest.mark.parametrize(
    "written, said",
    [
        ("{", "is damaged"),
        ("[]", "at least one set"),
        ('{"self_rgb": [0, 0, 0]}', "a list of at least one"),
        ("[[1]]", "set 0 is no object"),
        ('[{"self": [0, 0, 0]}]', "set 0 has 'self'; known are skybox_rgb"),
        ('[{"self_rgb": [0, 0]}]', "'self_rgb': 3 numbers are needed"),
        ('[{"self_rgb": [0, 0, NaN]}]', "'self_rgb': 3 numbers are needed"),
        ('[{"self_rgb": [0, 0, 255]}]', r"colours are in 0\.\.1"),
        ('[{"self_rgb": ["a", 0, 0]}]', "could not convert"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, written, said):
    path = tmp_path / "colours.json"
    path.write_text(written)
    with pytest.raises(ValueError, match=rf"colours\.json is damaged .*{said}|colours.json {said}"):
        read_colours(path)
    if written.startswith("[{"):
        with pytest.raises(ValueError):
            write_colours(tmp_path / "other.json", json.loads(written))
        assert not (tmp_path / "other.json").exists()


def test_pickles_that_break_off_are_told(tmp_path):
    path = tmp_path / "color_easy.pt"
    path.write_bytes(b"".join(pickle.dumps(i) for i in range(3)) + pickle.dumps(KNOWN)[:-9])
    with pytest.raises(ValueError, match=r"color_easy\.pt is damaged"):
        read_colours(path)
