"""Prepared cases are kept on disk: the same numbers, never stale, whoever was killed."""

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from regrow.segmentation import kept_cases, survey
from regrow.segmentation.data import open_fold
from regrow.segmentation.samples import places_of_classes
from tests.segmentation.phantoms import phantom, save

pytest.importorskip("nibabel", reason="needs the extra regrow[segmentation]")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Return where a test's own cache is."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "regrow"


@pytest.fixture
def unread(monkeypatch):
    """Let nothing be read but from the cache, once this is called."""

    def forbid():
        def fail(case, folder):
            raise AssertionError(f"{case.name} is read again")

        for module in (kept_cases, survey):
            monkeypatch.setattr(module, "read", fail)

    return forbid


def samples(volumes):
    return {case.name: case for case in (*volumes.training, *volumes.held_out)}


def same(one, other):
    one, other = samples(one), samples(other)
    return one.keys() == other.keys() and all(
        one[name].image.equal(other[name].image)
        and one[name].label.equal(other[name].label)
        and all(map(torch.equal, one[name].places, other[name].places))
        for name in one
    )


def test_the_second_time_no_file_is_read_and_the_numbers_are_the_same(decathlon, unread, tmp_path):
    first = open_fold(decathlon, 0)
    unread()
    second = open_fold(decathlon, 0)
    assert same(first, second) and first.told == second.told
    for case in second.training:
        assert all(map(torch.equal, case.places, places_of_classes(case.label)))
    # Nor is the truth, by which cases are judged.
    case = second.held_out[0]
    scores = torch.nn.functional.one_hot(case.label.long(), 3).movedim(-1, 0).float()
    figures = second.judge(case, scores, tmp_path)
    assert {name: of["dice"] for name, of in figures.items()} == {"front": 1.0, "back": 1.0}


def test_another_preparation_is_another_entry(decathlon, cache):
    open_fold(decathlon, 0)
    before = len(list((cache / "volumes").glob("organ*")))
    open_fold(decathlon, 1)  # CT: other training cases are another normalisation
    assert len(list((cache / "volumes").glob("organ*"))) == 2 * before
    assert len(list((cache / "volumes-facts").glob("organ*"))) == before


def test_a_changed_file_is_prepared_anew(decathlon):
    first = samples(open_fold(decathlon, 0))
    image, _ = phantom(77)
    save(decathlon / "imagesTr" / "organ_003.nii.gz", image)
    second = samples(open_fold(decathlon, 0))
    assert not second["organ_003"].image.equal(first["organ_003"].image)


def test_a_damaged_entry_is_made_anew(decathlon, cache):
    first = open_fold(decathlon, 0)
    images = {name: case.image.clone() for name, case in samples(first).items()}
    kinds = ["image.npy", "classes.npy", "truth.npy"]
    for i, folder in enumerate(sorted((cache / "volumes").glob("organ*"))[:3]):
        path = folder / kinds[i]
        path.write_bytes(path.read_bytes()[:-5])
    second = samples(open_fold(decathlon, 0))
    assert all(second[name].image.equal(image) for name, image in images.items())


def test_without_a_cache_cases_are_prepared_each_time(decathlon, tmp_path, monkeypatch):
    first = open_fold(decathlon, 0)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert same(open_fold(decathlon, 0), first)


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_cases_take_no_open_files(decathlon):
    fds = Path("/proc/self/fd")
    before = len(list(fds.iterdir()))
    volumes = open_fold(decathlon, 0)
    assert len(list(fds.iterdir())) == before
    assert np.isfinite(volumes.training[0].image.numpy()).all()


def _hang_at_the_third(path):
    """Prepare two cases, and begin a third."""
    write, images = np.save, []

    def hang(file, array, **options):
        images.extend([file] if file.name == "image.npy" else [])
        write(file, array[:0] if len(images) == 3 else array, **options)
        if len(images) == 3:
            time.sleep(60)

    np.save = hang
    open_fold(path, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork, no kill")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_was_killed_leaves_nothing_behind_that_harms(
    decathlon, cache, tmp_path, monkeypatch
):
    process = multiprocessing.get_context("fork").Process(
        target=_hang_at_the_third, args=(decathlon,)
    )
    process.start()
    deadline = time.monotonic() + 60
    while not list((cache / "volumes").glob(".organ_002*/image.npy")):
        assert time.monotonic() < deadline and process.is_alive()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert len(list((cache / "volumes").glob("organ*"))) == 2
    found = open_fold(decathlon, 0)
    assert len([path for path in (cache / "volumes").iterdir() if path.is_dir()]) == 6
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert same(found, open_fold(decathlon, 0))
