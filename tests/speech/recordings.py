"""Tones, written to files."""

import numpy as np
import pytest

soundfile = pytest.importorskip("soundfile")


def tone(seconds=1.0, rate=16_000, hertz=440.0):
    time = np.arange(int(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def write(path, samples, rate=16_000, **how):
    soundfile.write(path, samples, rate, **how)
