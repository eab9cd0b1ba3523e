"""MONAI's networks: the published sizes, and volumes of any sides."""

import builtins

import pytest
import torch

from regrow.measure.layers import layer_costs
from regrow.segmentation.rivals import monai_unet, seg_res_net


@pytest.mark.parametrize(
    ("make", "options", "parameters", "gflop"),
    [
        (monai_unet, {}, 4.83, 59),
        (seg_res_net, {}, 1.18, 74),
        (seg_res_net, {"width": 32}, 18.80, 1160),
    ],
)
def test_sizes_are_the_published_ones(make, options, parameters, gflop):
    pytest.importorskip("monai", reason="needs the extra regrow[segmentation]")
    costs = layer_costs(make(1, 16, **options), (1, 1, 128, 128, 128))
    assert sum(c.parameters for c in costs) / 1e6 == pytest.approx(parameters, abs=0.006)
    assert 2 * sum(c.macs for c in costs) / 1e9 == pytest.approx(gflop, abs=0.6)


@pytest.mark.parametrize("make", [monai_unet, seg_res_net])
def test_sides_are_padded_and_cut_back(make):
    pytest.importorskip("monai", reason="needs the extra regrow[segmentation]")
    model = make(2, 3)
    assert model(torch.zeros(1, 2, 17, 9, 20)).shape == (1, 3, 17, 9, 20)
    assert model.loss_weights == (1.0,)


@pytest.mark.parametrize("make", [monai_unet, seg_res_net])
def test_without_monai_one_is_told_how_to_install_it(make, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **options):
        if name.startswith("monai"):
            raise ImportError("No module named 'monai'")
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install monai, or pip install '.\[segmentation\]'"):
        make(1, 2)
