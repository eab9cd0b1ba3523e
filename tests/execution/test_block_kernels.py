"""The Triton kernels of block-sparse layers, by Triton's interpreter on the CPU: make interpret."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.execution.block import BlockIndex, reference
from tests.interpreted import interpreted

pytestmark = [interpreted, pytest.mark.usefixtures("whole_numbers")]


@st.composite
def layers(draw):
    """Sizes that blocks need not divide; no, some or all blocks; tokens from none to many tiles."""
    b = draw(st.sampled_from([32, 64]))
    out, into = (draw(st.sampled_from([b, 2 * b, 2 * b + 8, 3 * b - 5])) for _ in range(2))
    cells = -(-out // b) * -(-into // b)
    positions = torch.tensor(sorted(draw(st.sets(st.integers(0, cells - 1)))), dtype=torch.int64)
    return BlockIndex.build(positions, (out, into), b), draw(st.sampled_from([0, 1, 37, 128, 1100]))


@pytest.mark.parametrize("fetched", ["in tiles", "by address"])
@settings(max_examples=20, deadline=None)
@given(
    layers(), st.booleans(), st.sampled_from(["half", "tf32", "ieee"]), st.sampled_from([1, 2, 4])
)
def test_the_kernels_compute_what_plain_torch_computes(fetched, layer, biased, arithmetic, group):
    from regrow.execution.block import abilities, launch, outer

    index, n_tokens = layer
    out, into = index.shape
    x, g = torch.randn(n_tokens, into), torch.randn(n_tokens, out)
    weight = torch.randn(index.n_blocks, index.block, index.block)
    bias = torch.randn(out) if biased else None
    launch.forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(abilities, "has_tma", lambda device: fetched == "in tiles")
        patch.setattr(abilities, "precision", lambda dtype: arithmetic)
        patch.setattr(outer, "_COPIED", 1 << 16)  # so that some layers take several pieces
        patch.setattr(outer, "together", lambda *_: group if arithmetic == "half" else 1)
        found = (
            launch.forward(x, weight, bias, index),
            launch.input_gradient(g, weight, index),
            launch.weight_gradient(g, x, index),
        )
    expected = (
        reference.forward(x, weight, bias, index),
        reference.input_gradient(g, weight, index),
        reference.weight_gradient(g, x, index),
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
