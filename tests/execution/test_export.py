"""Trained networks leave whole: every way out leads back to the same weights."""

import io
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import regrow
from regrow.engine.patterns import Block
from regrow.execution.block import linear as block
from regrow.execution.csr.layer import CsrLayer
from regrow.execution.export import (
    _places,
    csr_state_dict,
    dense_state_dict,
    inference_module,
    load_packed,
    save_packed,
)


def build():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 16, 32),
        nn.ReLU(),
        nn.Linear(32, 4),
    )


def trained(execution="masked", method=None):
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    method = method or regrow.RigL(density=0.1, update_every=2)
    include = ["0.weight", "4.weight"] if execution == "csr" else ["4.weight"]
    sparse = regrow.sparsify(
        model, optimizer, method, total_steps=8, include=include, execution=execution
    )
    for seed in range(8):
        optimizer.zero_grad()
        generator = torch.Generator().manual_seed(seed)
        model(torch.randn(5, 3, 8, 8, generator=generator)).square().mean().backward()
        optimizer.step()
    return model.eval(), sparse


MODELS = {
    "masked": lambda: trained("masked"),
    "csr": lambda: trained("csr"),
    "block": lambda: trained("block", regrow.RigL(density=0.25, update_every=2, pattern=Block(16))),
}


@pytest.fixture(scope="module", params=MODELS)
def model_and_masks(request):
    model, sparse = MODELS[request.param]()
    return model, sparse.masks


@pytest.fixture
def image():
    return torch.randn(6, 3, 8, 8)


def test_the_dense_state_is_the_dense_models(model_and_masks, image):
    model, masks = model_and_masks
    dense = build().eval()
    state = dense_state_dict(model)
    assert set(state) == set(dense.state_dict())
    dense.load_state_dict(state)
    torch.testing.assert_close(dense(image), model(image))
    for name, mask in masks.items():
        assert not (state[name] != 0)[~mask].any()


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_compressed_rows_are_torchs(model_and_masks):
    model, masks = model_and_masks
    dense, state = dense_state_dict(model), csr_state_dict(model)
    for name, mask in masks.items():
        made = torch.sparse_csr_tensor(
            state[f"{name}.crow_indices"],
            state[f"{name}.col_indices"],
            state[f"{name}.values"],
            dense[name].flatten(1).shape,
            check_invariants=True,
        )
        assert made.to_dense().reshape(tuple(state[f"{name}.shape"])).equal(dense[name])
        assert len(state[f"{name}.values"]) <= mask.sum()
        assert name not in state


def test_packed_files_give_everything_back_and_are_small(model_and_masks, tmp_path, image):
    model, masks = model_and_masks
    path = tmp_path / "model.safetensors"
    save_packed(model, path)
    expected = dense_state_dict(model)
    found = load_packed(path)
    assert found.keys() == expected.keys()
    assert all(found[name].equal(expected[name]) for name in expected)
    assert all(found[name].dtype == expected[name].dtype for name in expected)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    dense = build().eval()
    dense.load_state_dict(found)
    torch.testing.assert_close(dense(image), model(image))
    with safe_open(str(path), framework="pt") as file:
        for name, mask in masks.items():
            values, places = (file.get_tensor(f"{name}.{part}") for part in ("values", "places"))
            assert len(values) <= mask.sum()
            assert places.nbytes <= mask.numel() / 8 + 1


def test_inference_computes_nonzeros_and_leaves_the_model_alone(model_and_masks, image):
    model, _ = model_and_masks
    model.train()
    fast = inference_module(model, below=0.5)
    assert model.training and not fast.training
    model.eval()
    torch.testing.assert_close(fast(image), model(image))
    assert not any(p.requires_grad for p in fast.parameters())
    stored = [m for m in fast.modules() if isinstance(m, CsrLayer) or hasattr(m, "dense_weight")]
    assert stored
    assert any(p.requires_grad for p in model.parameters())


@given(st.lists(st.booleans(), min_size=1, max_size=300), st.integers(0, 3))
def test_places_lead_back_to_where_they_came_from(kept, stretch):
    nonzero = torch.zeros(len(kept) * 50**stretch if len(kept) < 20 else len(kept), dtype=bool)
    nonzero[: len(kept)] = torch.tensor(kept)
    nonzero = nonzero.roll(len(nonzero) // 2)
    places = _places(nonzero)
    if places.dtype == torch.uint8:
        found = np.flatnonzero(np.unpackbits(places.numpy(), bitorder="little"))
        assert places.nbytes == -(-len(nonzero) // 8)
    else:
        found = places.numpy().astype(np.int64).cumsum() - 1
        assert len(places) == int(nonzero.sum())
    assert found[found < len(nonzero)].tolist() == nonzero.nonzero().flatten().tolist()


def test_gaps_too_wide_for_two_bytes_take_four():
    nonzero = torch.zeros(200_000, dtype=torch.bool)
    nonzero[[5, 199_999]] = True
    assert _places(nonzero).dtype == torch.int32
    nonzero[60_000::60_000] = True
    assert _places(nonzero).dtype == torch.uint16


def test_values_that_became_zero_cost_nothing_and_survive(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4))
    nn.init.zeros_(model[0].weight)
    save_packed(model, tmp_path / "zeros.safetensors")
    assert load_packed(tmp_path / "zeros.safetensors")["0.weight"].equal(torch.zeros(4, 4))


def test_other_files_are_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(ValueError, match="not written by save_packed"):
        load_packed(tmp_path / "other.safetensors")


def test_a_damaged_file_is_an_error_and_not_another_model(tmp_path):
    path = tmp_path / "model.safetensors"
    save_packed(trained("masked")[0], path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged \(.*header"):
        load_packed(path)


PLACES = torch.tensor([1, 2], dtype=torch.int32)  # gaps: the first and the third of four


@pytest.mark.parametrize(
    ("shape", "values", "places", "said"),
    [
        ("-2,-2", torch.ones(2), PLACES, "shape '-2,-2'"),
        ("2,x", torch.ones(2), PLACES, "shape '2,x'"),
        ("", torch.ones(2), PLACES, "shape ''"),
        ("٢,2", torch.ones(2), PLACES, "shape '٢,2'"),
        ("100000,100000", torch.ones(2), PLACES, "unpacks to 40,000,000,000"),
        ("2,2", torch.ones(1), PLACES, r"\(1,\) values for 2 places"),
        ("2,2", torch.ones(3), PLACES, r"\(3,\) values for 2 places"),
        ("2,2", torch.ones(2, 1), PLACES, r"\(2, 1\) values for 2 places"),
        ("1,2", torch.ones(2), PLACES, "places that are none of 2"),
        ("2,2", torch.ones(2), PLACES * 0, "places that are none of 4"),
        ("2,2", torch.ones(2), -PLACES, "places that are none of 4"),
        ("2,2", torch.ones(2), PLACES.long(), "places of torch.int64"),
        ("2,2", torch.ones(2), PLACES.float(), "places of torch.float32"),
        ("2,2", torch.ones(2), PLACES.reshape(1, 2), "with 2 dimensions"),
        ("2,2", torch.ones(2), torch.tensor([7], dtype=torch.uint8), "values for 3 places"),
        ("2,2", torch.ones(2), torch.tensor([3, 0], dtype=torch.uint8), "hold no mask"),
        ("2,2", torch.ones(2), None, "w.places"),
        ("2,2", None, PLACES, "w.values"),
    ],
)
def test_parts_that_do_not_fit_are_named(tmp_path, shape, values, places, said):
    parts = {"w.values": values, "w.places": places, "b": torch.ones(1)}
    tensors = {name: part for name, part in parts.items() if part is not None}
    save_file(tensors, tmp_path / "m", metadata={"regrow": "1", "w": shape})
    with pytest.raises(ValueError, match=f"/m, w.*{said}"):
        load_packed(tmp_path / "m")


def test_parts_that_fit_are_read(tmp_path):
    tensors = {"w.values": torch.tensor([5.0, 6.0]), "w.places": PLACES}
    save_file(tensors, tmp_path / "m", metadata={"regrow": "1", "w": "2,2"})
    assert load_packed(tmp_path / "m")["w"].tolist() == [[5, 0], [6, 0]]


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none: no such file"):
        load_packed(tmp_path / "none")
    with pytest.raises(ValueError, match="is a folder"):
        load_packed(tmp_path)


def test_a_full_disk_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    model = trained("masked")[0]
    save_packed(model, path)
    before = path.read_bytes()

    def full(tensors, name, metadata):
        from pathlib import Path

        Path(name).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_packed(model, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    for module in ("safetensors", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install '\.\[export\]'"):
        save_packed(torch.nn.Linear(2, 2), tmp_path / "x")


class TestBlocks:
    """Layers of blocks, which are plain torch but for one operator."""

    @pytest.mark.parametrize("strict", [True, False])
    def test_torch_exports_them(self, image, strict):
        model, _ = MODELS["block"]()
        exported = torch.export.export(model, (image,), strict=strict)
        assert "regrow" in str(exported.graph)
        assert torch.equal(exported.module()(image), model(image))

    def test_onnx_gets_a_dense_product_of_the_same_weights(self, image, monkeypatch):
        """It knows no products of blocks, and an exporter's error says nothing of the way out."""
        model, _ = MODELS["block"]()
        monkeypatch.setattr(block, "_for_onnx", lambda: True)
        exported = torch.export.export(model, (image,), strict=False)
        assert "regrow" not in str(exported.graph)
        monkeypatch.undo()
        torch.testing.assert_close(exported.module()(image), model(image))

    # What the exporters and their packages have to say is not ours.
    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("dynamo", [True, False])
    def test_onnx_computes_the_same(self, image, dynamo):
        pytest.importorskip("onnxscript", reason="torch needs it for this")
        runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
        model, _ = MODELS["block"]()
        file = io.BytesIO()
        torch.onnx.export(model, (image,), file, dynamo=dynamo, external_data=False)
        session = runtime.InferenceSession(file.getvalue())
        (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), model(image))
