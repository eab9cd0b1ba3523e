"""Tracks of pedestrians, made up and real; nothing may tell of the future."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.motion.formats.pedestrians import SECONDS, read_pedestrians
from regrow.reading import UnreadableError

# One walks north-east at 1 m a frame, one stands and then walks, one comes late.
WALK = [(10 * n, 1, n, n) for n in range(25)]
STAND = [(10 * n, 2, -5, max(0, n - 10)) for n in range(25)]
LATE = [(10 * n, 3, 9, n) for n in range(15, 25)]


def write(path, rows):
    path.write_text("\n".join("\t".join(map(str, row)) for row in rows))
    return path


@pytest.fixture
def recording(tmp_path):
    return write(tmp_path / "zara.txt", [*WALK, *STAND, *LATE])


def test_scenes_are_windows_and_targets_are_there_throughout(recording):
    scenes = list(read_pedestrians(recording))
    assert len(scenes) == 6
    assert all(scene.ids[scene.targets].tolist() == [1, 2] for scene in scenes)
    assert [len(scene.ids) for scene in scenes] == [3] * 6
    first = scenes[0]
    assert (first.now, len(first.times), first.times[1]) == (7, 20, SECONDS)
    assert first.states[0, 7, :2].tolist() == [7, 7]
    np.testing.assert_allclose(first.states[0, 7, 6:], [np.pi / 4, 2.5, 2.5])
    assert first.states[1, 7, 6:].tolist() == [0, 0, 0]  # who stands
    assert len(list(read_pedestrians(recording, every=2))) == 3


def test_what_is_seen_does_not_change_with_the_future(tmp_path, recording):
    other = [(f, p, x + (f > 70) * 3.0, y) for f, p, x, y in [*WALK, *STAND, *LATE]]
    one = next(read_pedestrians(recording))
    two = next(read_pedestrians(write(tmp_path / "other.txt", other)))
    np.testing.assert_array_equal(one.states[:, :8], two.states[:, :8])
    assert not np.array_equal(one.states, two.states)


def test_obsmat_has_its_own_columns_and_its_velocities_are_not_read(tmp_path, recording):
    rows = [(f + 1, p, x, 0, y, 99, 99, 99) for f, p, x, y in [*WALK, *STAND, *LATE]]
    found = next(read_pedestrians(write(tmp_path / "obsmat.txt", rows)))
    np.testing.assert_array_equal(found.states, next(read_pedestrians(recording)).states)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "table of shape"),
        ("1 2 3", "must have 4 or 8 columns"),
        ("1 2 3 4\n1 2 3", "inhomogeneous"),
        ("1 2 3 tea", "could not convert"),
        ("1 2 3 nan", "not finite"),
        ("0 1 1 1\n1 1 1 1\n2 1 1 1\n9e6 1 1 1", "frames go to 9e+06"),
        ("0 1 1 1\n1e15 1 1 1", "beyond 10,000,000"),
        ("\n".join(f"{50 * n} {n} 1 1\n{50 * n + 1} {n} 1 1" for n in range(3000)), "takes"),
    ],
)
def test_damaged_files_are_named(tmp_path, text, said):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(UnreadableError, match=r"a\.txt (is damaged|takes)") as caught:
        list(read_pedestrians(tmp_path / "a.txt"))
    assert said in str(caught.value)
    with pytest.raises(ValueError, match="past=0"):
        list(read_pedestrians(tmp_path / "a.txt", past=0))


@given(st.binary(max_size=80))
def test_any_bytes_are_an_error_or_scenes(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "a.txt"
    path.write_bytes(content)
    try:
        list(read_pedestrians(path))
    except UnreadableError as error:
        assert "a.txt is damaged" in str(error)


# Trajectories to predict, as the field counts them (Trajectron++ and others): 364 in ETH, 1197 in
# Hotel, 2356 and 5910 in Zara.
@pytest.mark.parametrize(
    ("name", "people", "trajectories"),
    [
        ("biwi_eth", 360, 364),
        ("biwi_hotel", 389, 1197),
        ("crowds_zara01", 148, 2356),
        ("crowds_zara02", 204, 5910),
    ],
)
def test_real_recordings(name, people, trajectories):
    path = Path(os.environ.get("REGROW_DATA", "nowhere")) / "eth-ucy" / f"{name}.txt"
    if not path.is_file():
        pytest.skip(f"needs {name}.txt in $REGROW_DATA/eth-ucy")
    scenes = list(read_pedestrians(path))
    assert sum(len(scene.targets) for scene in scenes) == trajectories
    lines = path.read_text().split("\n")
    assert len({line.split()[1] for line in lines if line.strip()}) == people
    speeds = [np.hypot(*scene.states[scene.targets, 7, 7:].T) for scene in scenes]
    assert 0.3 < np.concatenate(speeds).mean() < 2.5
