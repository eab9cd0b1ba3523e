"""Attention, which computes with its weights themselves, beside layers that are stored."""

import torch
from torch import nn

import regrow


class TestAttention:
    """csr refused every transformer of torch's; its attention stays masked now, and is named."""

    def build(self, execution):
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        model = nn.TransformerEncoder(layer, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        method = regrow.RigL(density=0.3, update_every=2)
        return (
            model,
            optimizer,
            regrow.sparsify(model, optimizer, method, total_steps=20, execution=execution),
        )

    def test_what_can_be_stored_is_and_learns_what_masks_learn(self, caplog):
        (masked, *one), (stored, *other) = self.build("masked"), self.build("csr")
        assert "layers.0.self_attn.in_proj_weight stays under a mask" in caplog.text
        how = {layer.name: layer.execution for layer in other[1].plan.layers}
        assert {how[n] for n in how if "self_attn" in n} == {"masked"}
        assert {how[n] for n in how if "linear" in n} == {"csr"}
        for step in range(6):
            x = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(step))
            for model, optimizer in ((masked, one[0]), (stored, other[0])):
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
        torch.testing.assert_close(stored(x), masked(x), rtol=1e-4, atol=1e-5)
        for name, mask in one[1].masks.items():
            assert other[1].masks[name].equal(mask), name

    def test_inference_does_not_take_stored_weights_for_dense_ones(self):
        """Without gradients torch hands all weights of such a layer to one fused kernel."""
        model, _, _ = self.build("csr")
        x, padded = torch.randn(2, 5, 16), torch.zeros(2, 5, dtype=torch.bool)
        padded[0, 3:] = True
        model.eval()
        with torch.no_grad():
            fast = model(x, src_key_padding_mask=padded)
            one = model.layers[0](x)
        torch.testing.assert_close(fast, model(x, src_key_padding_mask=padded))
        torch.testing.assert_close(one, model.layers[0](x))

    def test_a_saved_run_goes_on(self):
        model, optimizer, sparse = self.build("csr")
        model(torch.randn(2, 5, 16)).sum().backward()
        optimizer.step()
        other, _, again = self.build("csr")
        other.load_state_dict(model.state_dict())
        again.load_state_dict(sparse.state_dict())
        model.eval(), other.eval()
        x = torch.randn(2, 5, 16)
        assert other(x).equal(model(x))
