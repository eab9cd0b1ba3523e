"""Small volumes that nibabel alone has written, and a disk that is full."""

import contextlib

import numpy as np
import pytest


def affine_of(spacing=(1.0, 1.0, 1.0), axes=(0, 1, 2), signs=(1, 1, 1), origin=(-9.0, 4.0, 2.5)):
    """Return the affine of a file whose axis i runs along space's axes[i]."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    affine[:3, 3] = origin
    for axis, (to, sign, side) in enumerate(zip(axes, signs, spacing, strict=True)):
        affine[to, axis] = sign * side
    return affine


def save(path, array, affine=None):
    """Write with nibabel alone."""
    nibabel = pytest.importorskip("nibabel", reason="needs the extra regrow[segmentation]")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine_of() if affine is None else affine), path)
    return path


def phantom(seed, shape=(10, 12, 14)):
    """Return an image and its labels 0, 1, 2, in the file's order of axes."""
    labels = np.zeros(shape, np.uint8)
    labels[2:5, 3:8, 3:9] = 1
    labels[5:8, 3:8, 3:9] = 2
    noise = np.random.default_rng(seed).normal(size=shape)
    return (100 * labels + 10 + noise).astype(np.float32), labels


@contextlib.contextmanager
def full_disk(room):
    """Let no file grow beyond so many bytes, as on a disk that is full."""
    resource = pytest.importorskip("resource", reason="Windows has no limits of processes")
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, was[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
