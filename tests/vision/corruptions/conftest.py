"""What the tests of corruptions share: images with structure, and an independent implementation."""

import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional


def _drawn(side: int, count: int) -> Tensor:
    """Draw colour gradients, stripes of several widths and disks, float32 in [0, 1]."""
    generator = torch.Generator().manual_seed(3)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
    images = []
    for _ in range(count):
        a = torch.rand(3, 8, 1, 1, generator=generator)
        slope = 0.5 + 0.3 * (a[:, 0] - 0.5) * x + 0.3 * (a[:, 1] - 0.5) * y
        waves = 0.15 * torch.sin(3 + 25 * a[:1, 2] * (x * a[:1, 3] + y * (1 - a[:1, 3])))
        disk = ((x - a[:1, 4] + 0.5) ** 2 + (y - a[:1, 5] + 0.5) ** 2) < 0.3 * a[:1, 6]
        images.append((slope + waves + 0.7 * (a[:, 7] - 0.5) * disk).clamp(0, 1))
    return torch.stack(images)


@pytest.fixture(scope="session")
def drawn():
    return _drawn


@pytest.fixture(scope="session")
def photographs(real_data):
    """Test images of CIFAR-10 at any size, uint8."""
    from regrow.vision.data import load_data

    images = load_data("cifar10", data_dir=real_data, download=False).test_inputs

    def enlarged(side: int, count: int) -> Tensor:
        some = images[:count].float()
        some = functional.interpolate(some, (side, side), mode="bicubic", align_corners=False)
        return some.round().clamp(0, 255).to(torch.uint8)

    return enlarged


@pytest.fixture(scope="session")
def reference():
    """The package imagecorruptions, with what newer versions of its own needs have lost."""
    for needed in ("imagecorruptions", "cv2", "skimage", "scipy"):
        if not any(Path(where, needed).is_dir() for where in sys.path):
            pytest.skip(f"{needed} is not installed: the independent implementation needs it")
    here = types.SimpleNamespace(
        resource_filename=lambda name, file: str(Path(sys.modules[name].__file__).parent / file)
    )
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import scipy.ndimage
        from skimage.filters import gaussian

        patch.setitem(sys.modules, "pkg_resources", here)
        patch.setitem(sys.modules, "scipy.ndimage.interpolation", scipy.ndimage)
        patch.setattr(np, "float_", np.float64, raising=False)
        import imagecorruptions
        from imagecorruptions import corruptions

        def as_before(image, sigma, multichannel=False, **more):
            return gaussian(image, sigma, channel_axis=-1 if multichannel else None, **more)

        patch.setattr(corruptions, "gaussian", as_before)
        yield imagecorruptions
