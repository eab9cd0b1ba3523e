"""What tests of GPU kernels by Triton's interpreter share: make interpret."""

import os

import pytest

from regrow.engine.narrowing import available

interpreted = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1" or not available,
    reason="needs triton, and TRITON_INTERPRET=1 when Python starts: make interpret",
)
