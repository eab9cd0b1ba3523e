"""Folders of clips: their order, what is kept, and what is wrong with them."""

import sys

import numpy as np
import pytest

from regrow.control.distractions import Videos, make, write_film


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A clip of 12 frames, each of one grey that is brighter than the last, 64×40."""
    pytest.importorskip("av")
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    greys = np.linspace(30, 220, 12).round().astype(np.uint8)
    write_film(path, np.broadcast_to(greys[:, None, None, None], (12, 40, 64, 3)))
    return path, greys


def test_a_clip_is_read_in_order_and_resized(film, tmp_path):
    path, greys = film
    frames = Videos(path, 32)[0]
    assert frames.shape == (12, 32, 32, 3) and frames.dtype == np.uint8
    assert np.abs(frames.mean((1, 2, 3)) - greys).max() < 4  # H.264 is not exact
    few = Videos(path, 32, frames=5)[0]
    assert np.array_equal(few, frames[:5])


def test_colours_keep_their_places(tmp_path):
    pytest.importorskip("av")
    frame = np.zeros((9, 64, 64, 3), np.uint8)
    frame[:, :32, :, 0], frame[:, 32:, :, 2] = 230, 230  # red above blue
    write_film(tmp_path / "two.mp4", frame)
    seen = Videos(tmp_path, 16)[0][4].astype(int)
    assert (seen[:6, :, 0] > 190).all() and (seen[:6, :, 2] < 60).all()
    assert (seen[10:, :, 2] > 190).all() and (seen[10:, :, 0] < 60).all()


def test_images_are_clips_that_stand_still_and_folders_of_them_move(stills, tmp_path):
    videos = Videos(stills, 48)
    assert [len(videos[i]) for i in range(len(videos))] == [8, 9, 11]
    assert videos[0] is videos[0]
    one = Videos(stills / "clip9", 48)
    assert len(one) == 8 and one[3].shape == (1, 48, 48, 3)
    assert np.array_equal(np.concatenate([one[i] for i in range(8)]), videos[0])


def test_of_decoded_clips_as_many_are_kept_as_may_be(stills):
    one = 8 * 48 * 48 * 3
    videos = Videos(stills, 48, keep=int(2.5 * one))
    first = videos[0]
    second = videos[1]
    assert videos[0] is first
    videos[2]  # drops both: it is long
    assert videos[1] is not second and np.array_equal(videos[1], second)
    with pytest.raises(IndexError):
        videos[3]


def test_published_clips_are_read(real_data):
    pytest.importorskip("av")
    from pathlib import Path

    folder = Path(real_data) / "distraction-videos"
    if not folder.is_dir():
        pytest.skip("REGROW_DATA has no distraction-videos")
    videos = Videos(folder, 24, frames=20)
    assert videos.clips[0].name == "easy-video0.mp4" and videos[0].shape == (20, 24, 24, 3)


def test_a_folder_without_clips_is_told(tmp_path):
    (tmp_path / "readme.txt").write_text("no clip")
    (tmp_path / "empty").mkdir()
    (tmp_path / "._hidden.mp4").write_bytes(b"of macOS")
    with pytest.raises(ValueError, match=r"holds no clip: files in \.mp4.*folders of images"):
        Videos(tmp_path, 32)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        Videos(tmp_path / "nowhere", 32)


def test_a_damaged_clip_is_named_before_anything_is_learnt(film, tmp_path):
    content = film[0].read_bytes()
    for name, written in (("half.mp4", content[: len(content) // 2]), ("text.mp4", b"no film")):
        (tmp_path / name).write_bytes(written)
        with pytest.raises(ValueError, match=f"{name} is damaged.*get it again"):
            Videos(tmp_path / name, 32)
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    with pytest.raises(ValueError, match=r"list\.mp4 is damaged"):
        Videos(tmp_path / "list.mp4", 32)


def test_a_clip_that_breaks_off_is_named_when_it_is_read(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "short.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("h264", rate=25)
        stream.height = stream.width = 64
        for picture in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    videos = Videos(path, 32)  # its head and first frame are whole
    with pytest.raises(ValueError, match=r"short\.mp4 is damaged"):
        videos[0]


def test_a_clip_of_three_frames_is_told(tmp_path):
    pytest.importorskip("av")
    write_film(tmp_path / "three.mp4", np.zeros((3, 64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match=r"three\.mp4 has 3 frames, of which .* at least 8"):
        Videos(tmp_path, 32)
    assert len(Videos(tmp_path, 32, frames=3)[0]) == 3  # where no more are shown
    with pytest.raises(ValueError, match=r"three\.mp4 has 3 frames"):
        Videos(tmp_path, 32, frames=5)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": 32, "frames": 0}])
def test_numbers_out_of_range_are_told(stills, wrong):
    with pytest.raises(ValueError, match="=0: must be at least 1"):
        Videos(stills, **wrong)


def test_a_clip_of_few_pixels_is_told(film):
    with pytest.raises(ValueError, match=r"film\.mp4 has 64×40 pixels, for frames of 84×84: give"):
        Videos(film[0], 84)


def test_clips_of_another_size_are_not_taken(gl, stills):
    with pytest.raises(ValueError, match="videos of 32 pixels, where 48 are needed"):
        make("cartpole-balance", [0], mode="video_hard", videos=Videos(stills, 32), size=48)


def test_without_pyav_the_extra_is_named(film, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install av, or pip install '\.\[pixels\]'"):
        Videos(film[0], 32)
