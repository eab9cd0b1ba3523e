"""Small recordings: tones, which say nothing, but have a length and a place."""

import numpy as np
import pytest

from tests.speech.recordings import tone, write


@pytest.fixture
def recording(tmp_path):
    """Write a tone of so many seconds, and return its path."""

    def make(name="a.wav", seconds=1.0, rate=16_000, hertz=440.0, **how):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, tone(seconds, rate, hertz), rate, **how)
        return path

    return make


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(size=16_000).astype(np.float32) * 0.1
