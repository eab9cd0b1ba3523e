"""Real tracks with made-up bodies: what is read, what is known when, what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest

from regrow.motion.simulator.crowds import Crowd, read_tracks
from regrow.reading import UnreadableError


def _write(path, people, columns=4):
    """Write tracks: for each person a first frame and places."""
    lines = [
        f"{first + 10 * k} {person} {x} {y}"
        if columns == 4
        else f"{first + 10 * k} {person} {x} 0 {y} 0.5 0 0.5"
        for person, (first, places) in people.items()
        for k, (x, y) in enumerate(places)
    ]
    path.write_text("\n".join(lines))
    return path


def _walk(start, step, count):
    return [(start[0] + k * step[0], start[1] + k * step[1]) for k in range(count)]


@pytest.fixture
def crowd(tmp_path):
    people = {
        1: (0, _walk((0, 0), (0.5, 0), 40)),
        2: (50, _walk((3, 4), (-0.4, 0.2), 20)),
        3: (0, _walk((6, 6), (0, 0), 40)),
    }
    return Crowd(_write(tmp_path / "square.txt", people))


@pytest.mark.parametrize("columns", [4, 8])
def test_both_forms_of_files_are_read(tmp_path, columns):
    tracks = read_tracks(_write(tmp_path / "a.txt", {7: (10, [(1, 2), (3, 5)])}, columns))
    assert {person: track.tolist() for person, track in tracks.items()} == {
        7: [[0.4, 1, 2], [0.8, 3, 5]]
    }


def test_people_walk_as_in_the_file(crowd):
    scene = crowd[3]
    one = int(np.flatnonzero(scene.ids == 1)[0])
    assert scene.valid[one].all()
    np.testing.assert_allclose(scene.states[one, :, 7:], [[1.25, 0]] * 91, atol=1e-6)
    np.testing.assert_allclose(np.diff(scene.states[one, :, 0]), 0.125)
    np.testing.assert_allclose(scene.states[one, :, 6], 0, atol=1e-9)
    assert scene.points.counts[list(scene.targets).index(one)].min() > 0


def test_who_is_not_there_yet_is_no_target(crowd):
    scene = crowd[0]
    assert 2 not in scene.ids[scene.targets]
    later = int(np.flatnonzero(scene.ids == 2)[0])
    assert not scene.valid[later, : scene.now + 1].any()
    assert scene.valid[later].any()
    assert (scene.states[later][~scene.valid[later]] == 0).all()


def test_one_seed_is_one_crowd_in_any_order(crowd):
    again = Crowd(crowd.path)
    assert len(again) == len(crowd) > 3
    for index in (3, 1, -1):
        one, other = crowd[index].arrays(), again[index].arrays()
        assert all(np.array_equal(one[name], other[name]) for name in one)
    assert [scene.name for scene in crowd[1:3]] == [crowd[1].name, crowd[2].name]


def test_nothing_up_to_now_knows_of_what_comes(tmp_path):
    """Two files that differ after now only give the same inputs, points included."""
    straight, turned = _walk((0, 0), (0.5, 0), 30), _walk((0, 0), (0.5, 0), 30)
    turned[13:] = _walk((6.0, 0.5), (0, 0.5), 17)
    one, other = (
        Crowd(_write(tmp_path / f"{name}.txt", {1: (0, places)}))
        for name, places in (("a", straight), ("b", turned))
    )
    # The turn comes at the 13th point, at 5.2 seconds.
    index = next(i for i in range(len(one)) if abs(float(one[i].name[2:]) - 3.2) < 1e-6)
    inputs = [scene.arrays() for scene in (one[index], other[index])]
    seen = one[index].now + 1
    assert np.array_equal(inputs[0]["states"][:, :seen], inputs[1]["states"][:, :seen])
    assert np.array_equal(inputs[0]["points_values"], inputs[1]["points_values"])
    assert not np.array_equal(inputs[0]["states"], inputs[1]["states"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it holds no tracks"),
        ("0 1 2 3\n0 1 x 3", "line 2: '0 1 x 3' holds no numbers"),
        ("0 1 2", "line 1: '0 1 2' is not frame"),
        ("0 1 2 nan", "line 1"),
        ("0 1 2 3\n0 1 4 5", "person 1 is in two places"),
    ],
)
def test_damaged_files_are_refused(tmp_path, text, said):
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(UnreadableError, match=f"bad.txt is damaged.*{said}"):
        read_tracks(path)


def test_arguments_out_of_bounds_are_refused(tmp_path):
    path = _write(tmp_path / "a.txt", {1: (0, _walk((0, 0), (0.5, 0), 30))})
    for options, said in (
        ({"seed": -1}, "seed=-1"),
        ({"every": 0.5}, "every=0.5"),
        ({"near": 40.0}, "near=40.0"),
    ):
        with pytest.raises(ValueError, match=said):
            Crowd(path, **options)
    with pytest.raises(FileNotFoundError):
        Crowd(tmp_path / "none.txt")
    short = _write(tmp_path / "short.txt", {1: (0, _walk((0, 0), (0.5, 0), 3))})
    with pytest.raises(ValueError, match=r"short.txt: nobody is there"):
        Crowd(short)


DATA = Path(os.environ.get("REGROW_DATA", "none"))
REAL = [
    (DATA / "eth-ucy" / "crowds_zara01.txt", 148),
    (DATA / "eth-ucy" / "biwi_hotel.txt", 389),
    (DATA / "ucy" / "zara01" / "obsmat.txt", 148),
]


@pytest.mark.parametrize(("path", "people"), REAL, ids=lambda value: str(value).split("/")[-1])
def test_real_crowds_are_read_and_seen(path, people):
    if not path.is_file():
        pytest.skip(f"{path} is not there: set REGROW_DATA to a folder with eth-ucy and ucy")
    assert len(read_tracks(path)) == people
    crowd = Crowd(path)
    scene = crowd[len(crowd) // 2]
    assert len(scene.targets) > 0
    counts = scene.points.counts[:, -1]
    assert (counts > 5).mean() > 0.5  # others may be in the way
    speeds = np.linalg.norm(scene.states[..., 7:], axis=-1)[scene.valid]
    assert 0 <= np.median(speeds) < 2.5
