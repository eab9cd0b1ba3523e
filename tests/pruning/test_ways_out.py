"""A pruned model leaves: each file is opened by who reads such files, and answers as the model."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import regrow
from regrow.execution.export import csr_state_dict, load_packed, save_packed


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.memory, self.head = nn.LSTM(6, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.memory(x)[0][:, -1])


def attention():
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def convolutional():
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(16, 4),
    )


MODELS = {
    "attention": (attention, (5, 16)),
    "convolutional": (convolutional, (3, 8, 8)),
    "recurrent": (Recurrent, (7, 6)),
}


@pytest.fixture(params=MODELS)
def case(request):
    """A model pruned and trained on for a few steps under masks, and inputs."""
    torch.manual_seed(0)
    make, shape = MODELS[request.param]
    model, x = make(), torch.randn(4, *shape)
    pruned = regrow.prune(model, regrow.SparseGPT(density=0.3), [x])
    optimizer = torch.optim.Adam(model.parameters())
    method = regrow.RigL(density=pruned.density, start=pruned.start, update_every=2)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=6, include=pruned.names)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return model.eval(), x, sparse.masks


def zeros(arrays, masks):
    """Every mask finds its weight among arrays, whatever names they have, by size and zeros."""
    flat = [np.asarray(one).reshape(-1) for one in arrays]
    return all(
        any(len(a) == mask.numel() and np.count_nonzero(a) == int(mask.sum()) for a in flat)
        for mask in masks.values()
    )


def test_packed_files_are_smaller_and_load_as_they_were(case, tmp_path):
    model, x, masks = case
    save_packed(model, tmp_path / "packed.safetensors")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    twin.load_state_dict(load_packed(tmp_path / "packed.safetensors"))
    assert torch.equal(twin(x), model(x))
    for name, mask in masks.items():
        assert torch.equal(twin.get_parameter(name) != 0, mask)
    torch.save(model.state_dict(), tmp_path / "dense.pt")
    packed, dense = (
        (tmp_path / name).stat().st_size for name in ("packed.safetensors", "dense.pt")
    )
    assert packed < 0.7 * dense
    rows = csr_state_dict(model)
    assert sum(len(v) for k, v in rows.items() if k.endswith(".values")) == sum(
        int(mask.sum()) for mask in masks.values()
    )


def test_torch_export_is_loaded_and_run_by_torch(case):
    model, x, masks = case
    batch = torch.export.Dim("batch", min=2, max=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own LSTM
        program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file)
    more = torch.cat([x, x + 1])
    torch.testing.assert_close(loaded.module()(more), model(more))
    assert zeros([v.detach() for v in loaded.state_dict.values()], masks)


@pytest.mark.parametrize("dynamo", [False, True])
def test_onnx_is_loaded_and_run_by_onnxruntime(case, dynamo, tmp_path):
    onnx = pytest.importorskip("onnx", reason="pip install '.[onnx]'")
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install '.[onnx]'")
    pytest.importorskip("onnxscript", reason="pip install '.[onnx]'")
    model, x, masks = case
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), path, dynamo=dynamo, input_names=["x"], verbose=False)
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {"x": x.numpy()})
    np.testing.assert_allclose(found, model(x).detach().numpy(), atol=1e-5)
    weights = [onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer]
    if not isinstance(model, Recurrent):  # whose gates ONNX has in another order, in one tensor
        assert zeros(weights, masks)
    sizes = {mask.numel() for mask in masks.values()}
    assert all(np.count_nonzero(w) < 0.4 * w.size for w in weights if w.size in sizes)
