"""Clips made on the spot, and environments that are skipped where nothing can be drawn."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def gl():
    """Skip where mujoco, dm_control or a GL library is missing."""
    pytest.importorskip("mujoco")
    pytest.importorskip("dm_control")
    from regrow.control.distractions.painter import painter

    try:
        return painter()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def stills(tmp_path_factory):
    """A folder of clips of 48 pixels, each a folder of images, so that no pixel is changed."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(0)
    for clip, length in (("clip9", 8), ("clip10", 9), ("clip11", 11)):
        (folder / clip).mkdir()
        for number in range(length):
            pixels = random.integers(0, 256, (48, 48, 3), dtype=np.uint8)
            image.fromarray(pixels).save(folder / clip / f"{number}.png")
    return folder


@pytest.fixture
def pixels(gl, stills):
    """Return a function that makes environments of 48 pixels, drawn fast."""
    from regrow.control.distractions import make

    def made(task="cartpole-swingup", seeds=(0,), mode="clean", **options):
        if mode.startswith("video") or mode == "distracting":
            options = {"videos": stills, **options}
        return make(task, list(seeds), mode=mode, **{"size": 48, "quality": "fast"} | options)

    return made
