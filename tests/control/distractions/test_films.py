"""Films: what is shown beside each other, and that files hold it."""

import sys

import numpy as np
import pytest

from regrow.control.distractions import Videos, side_by_side, write_film


def test_frame_mask_and_masked_frame_are_beside_each_other():
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)
    masks = random.random((3, 5, 4))
    shown = side_by_side(frames, masks)
    left, middle, right = np.split(shown, 3, 2)
    assert np.array_equal(left, frames)
    assert np.abs(middle - 255 * masks[..., None]).max() <= 0.5 + 1e-9
    assert np.abs(right - frames * masks[..., None]).max() <= 0.5 + 1e-9
    ones = side_by_side(frames, np.ones_like(masks))
    assert np.array_equal(ones[:, :, 8:], frames) and (ones[:, :, 4:8] == 255).all()


def test_a_gif_has_each_frame(tmp_path):
    image = pytest.importorskip("PIL.Image")
    greys = np.array([0, 60, 120, 250], dtype=np.uint8)
    write_film(tmp_path / "film.gif", greys[:, None, None, None].repeat(6, 1).repeat(7, 2)
               .repeat(3, 3), enlarged=2, fps=10)  # fmt: skip
    with image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 4 and film.size == (14, 12) and film.info["duration"] == 100
        for number, grey in enumerate(greys):
            film.seek(number)
            shown = np.asarray(film.convert("RGB")).astype(int)
            assert (shown == shown[0, 0, 0]).all() and abs(shown[0, 0, 0] - int(grey)) <= 2


@pytest.mark.parametrize(("fps", "milliseconds"), [(25, 40), (3, 330), (200, 20)])
def test_a_gif_is_as_fast_as_asked_within_what_gifs_can_say(tmp_path, fps, milliseconds):
    image = pytest.importorskip("PIL.Image")
    write_film(
        tmp_path / "film.gif", np.arange(2 * 48, dtype=np.uint8).reshape(2, 4, 4, 3), fps=fps
    )
    with image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 2 and film.info["duration"] == milliseconds


def test_a_mask_is_grey_in_a_gif_among_many_colours(tmp_path):
    """Nothing of a mask may look coloured, or be far from what it was, however rare."""
    image = pytest.importorskip("PIL.Image")
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    masks = np.zeros((2, 40, 40))
    masks[:, 20, :11] = np.linspace(0, 1, 11)  # a few pixels of each grey
    write_film(tmp_path / "film.gif", side_by_side(frames, masks))
    with image.open(tmp_path / "film.gif") as film:
        seen = np.asarray(film.convert("RGB")).astype(int)[:, 40:80]
    assert np.abs(seen - 255 * masks[0][..., None]).max() < 4
    assert (seen.max(-1) == seen.min(-1)).all()


def test_an_mp4_is_read_again_also_of_odd_sides(tmp_path):
    pytest.importorskip("av")
    frames = np.full((9, 33, 45, 3), (200, 90, 40), dtype=np.uint8)
    write_film(tmp_path / "film.mp4", frames)
    seen = Videos(tmp_path / "film.mp4", 32)[0]
    assert len(seen) == 9 and np.abs(seen.astype(int) - (200, 90, 40)).max() < 8


def test_what_cannot_be_filmed_is_told_and_the_old_film_stays(tmp_path, monkeypatch):
    frames, path = np.zeros((2, 4, 4, 3), np.uint8), tmp_path / "film.gif"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"films end in \.gif or \.mp4"):
        write_film(tmp_path / "film.webm", frames)
    for wrong in (frames[:0], frames[0], frames.astype(float), frames[..., :1]):
        with pytest.raises(ValueError, match=r"uint8, \(n, h, w, 3\) is needed"):
            write_film(path, wrong)
    for wrong in ({"fps": 0}, {"enlarged": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            write_film(path, frames, **wrong)
    with pytest.raises(ValueError, match="masks of shape"):
        side_by_side(frames, np.zeros((2, 4, 5)))
    with pytest.raises(ValueError, match=r"must be in 0\.\.1"):
        side_by_side(frames, np.full((2, 4, 4), 255.0))
    for name, ending in (("PIL", "gif"), ("av", "mp4")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=r"\.\[pixels\]"):
            write_film(path.with_suffix(f".{ending}"), frames)
    assert path.read_bytes() == b"old" and [file.name for file in tmp_path.iterdir()] == [
        "film.gif"
    ]
