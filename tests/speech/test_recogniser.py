"""The network: what is beside an utterance never matters; sizes; relative positions."""

import math
from dataclasses import replace

import pytest
import torch

from regrow.speech import SIZES, Recogniser, Shape
from regrow.speech.attention import RelativeAttention, distances, shifted
from regrow.speech.conformer import steps_of
from regrow.speech.specaugment import SpecAugment

SMALL = Shape(32, 2, 4, 5, 8, decoder=1)


def heard(model, lengths, labels, seed=0):
    draw = torch.Generator().manual_seed(seed)
    frames = [torch.randn(n, 80, generator=draw) for n in lengths]
    padded = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)
    return frames, model(padded, torch.tensor(lengths), labels)


@pytest.mark.parametrize("training", [False, True])
def test_padding_and_neighbours_never_change_an_utterance(training):
    """In training, too: a loss must be that of the utterance, not of its batch."""
    torch.manual_seed(0)
    model = Recogniser(7, SMALL, dropout=0.0, augment=False).train(training)
    labels = torch.tensor([[1, 2, 3, 0, 0], [5, 5, 4, 4, 2], [6, 0, 0, 0, 0]])
    frames, together = heard(model, [37, 91, 8], labels)
    for i, (one, n) in enumerate(zip(frames, (3, 5, 1), strict=True)):
        alone = model(one[None], torch.tensor([len(one)]), labels[i : i + 1, :n])
        steps = int(alone.steps)
        assert steps == int(together.steps[i]) == math.ceil(len(one) / 4)
        torch.testing.assert_close(
            together.log_probs[i, :steps], alone.log_probs[0], atol=1e-5, rtol=0
        )
        torch.testing.assert_close(together.scores[i, : n + 1], alone.scores[0], atol=1e-5, rtol=0)


def test_what_lies_beyond_the_end_does_not_matter():
    model = Recogniser(7, SMALL, augment=False).eval()
    frames = torch.randn(2, 40, 80)
    lengths = torch.tensor([40, 21])
    first = model(frames, lengths).log_probs
    frames[1, 21:] = 1e3
    second = model(frames, lengths).log_probs
    torch.testing.assert_close(first[0], second[0])
    torch.testing.assert_close(first[1, :6], second[1, :6])


def test_scores_are_probabilities_and_the_decoder_does_not_look_ahead():
    model = Recogniser(7, SMALL, augment=False).eval()
    labels = torch.tensor([[1, 2, 3, 4]])
    _, out = heard(model, [50], labels)
    torch.testing.assert_close(out.log_probs.exp().sum(2), torch.ones(1, 13))
    assert out.scores.shape == (1, 5, 7)
    _, other = heard(model, [50], torch.tensor([[1, 2, 6, 6]]))
    torch.testing.assert_close(out.scores[:, :3], other.scores[:, :3])
    assert not torch.allclose(out.scores[:, 3:], other.scores[:, 3:])


def test_sizes_have_the_parameters_that_their_names_say():
    for name, shape in SIZES.items():
        if name == "tiny":
            continue
        with torch.device("meta"):
            model = Recogniser(5049 if name == "243m" else 30, shape)
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        assert round(millions) == int(name[:-1])


def test_scores_by_distance_are_scores_by_position():
    """Against the definition, and twice as long a sequence."""
    for n in (1, 2, 5):
        by_distance = torch.arange(n - 1, -n, -1).float().expand(3, n, -1)
        place = torch.arange(n)
        assert (shifted(by_distance) == (place[:, None] - place).float()).all()


def test_attention_is_its_formula():
    torch.manual_seed(0)
    layer = RelativeAttention(8, 2)
    torch.nn.init.normal_(layer.content_bias)
    torch.nn.init.normal_(layer.distance_bias)
    x, far = torch.randn(1, 5, 8), distances(5, 8)
    inside = torch.tensor([[True, True, True, True, False]])
    q, k, v = (one(x)[0].unflatten(1, (2, 4)) for one in (layer.query, layer.key, layer.value))
    r = layer.distance(far).unflatten(1, (2, 4))
    out = torch.zeros(5, 2, 4)
    for h in range(2):
        for i in range(5):
            said = torch.stack([
                (q[i, h] + layer.content_bias[h, 0]) @ k[j, h]
                + (q[i, h] + layer.distance_bias[h, 0]) @ r[4 - (i - j), h]
                for j in range(4)
            ])  # fmt: skip
            out[i, h] = (said / 2).softmax(0) @ v[:4, h]
    torch.testing.assert_close(layer(x, far, inside)[0], layer.out(out.flatten(1)))


def test_the_same_sound_later_is_heard_the_same():
    """Positions are relative: a step far from both ends does not know where it is."""
    torch.manual_seed(0)
    model = Recogniser(5, Shape(16, 1, 2, 3, 4), augment=False).eval()
    torch.nn.init.zeros_(model.encoder.blocks[0].attention.out.weight)  # which looks everywhere
    sound = torch.randn(1, 40, 80)
    late = torch.cat([torch.zeros(1, 40, 80), sound, torch.zeros(1, 40, 80)], dim=1)
    later = torch.cat([torch.zeros(1, 60, 80), sound, torch.zeros(1, 20, 80)], dim=1)
    one, two = (model(x, torch.tensor([120])).log_probs for x in (late, later))
    torch.testing.assert_close(one[:, 12:18], two[:, 17:23])


def test_specaugment_hides_bands_and_stretches_in_training_only():
    torch.manual_seed(0)
    augment = SpecAugment(bands=1, widest_band=20, stretches=2, longest_stretch=0.2)
    frames, lengths = torch.ones(50, 100, 80), torch.full((50,), 100)
    hidden = augment(frames, lengths) == 0
    bands, times = hidden.all(1), hidden.all(2)
    assert bands.sum(1).max() <= 20 and 6 < float(bands.sum(1).float().mean()) < 14
    assert times.sum(1).max() <= 40 and times.any()
    assert (hidden == (bands[:, None] | times[..., None])).all()
    assert augment.eval()(frames, lengths) is frames


@pytest.mark.parametrize("frames", range(1, 13))
def test_a_step_is_four_frames(frames):
    model = Recogniser(5, Shape(16, 1, 2, 3, 4), augment=False)
    found = model(torch.zeros(1, frames, 80), torch.tensor([frames]))
    assert found.log_probs.shape[1] == int(found.steps) == int(steps_of(torch.tensor(frames)))


def test_the_middle_is_what_half_of_the_blocks_would_say():
    torch.manual_seed(0)
    shape = Shape(32, 3, 4, 5, 8)
    whole = Recogniser(7, shape, dropout=0.0, augment=False, middle=True)
    half = Recogniser(7, replace(shape, layers=2), dropout=0.0, augment=False)
    kept = half.state_dict()
    half.load_state_dict({name: whole.state_dict()[name] for name in kept})
    _, found = heard(whole, [50, 31], None)
    torch.testing.assert_close(found.middle, heard(half, [50, 31], None)[1].log_probs)
    assert heard(whole.eval(), [50], None)[1].middle is None  # only training learns from it
    assert heard(half.train(), [50], None)[1].middle is None
    found.middle.sum().backward()
    for number, block in enumerate(whole.encoder.blocks):
        grads = [p.grad for p in block.parameters()]
        assert all(g is None for g in grads) if number == 2 else grads[0].abs().sum() > 0


def test_gradients_reach_every_weight():
    model = Recogniser(7, SMALL, augment=False)
    out = heard(model, [37, 60], torch.tensor([[1, 2], [3, 0]]))[1]
    weigh = torch.randn_like(out.log_probs)
    ((out.log_probs * weigh).sum() + (out.scores * torch.randn_like(out.scores)).sum()).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in idle if not name.endswith("key.bias")]


def test_shapes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="width=30"):
        Recogniser(5, Shape(30, 1, 4))
    with pytest.raises(ValueError, match="kernel=4"):
        Recogniser(5, Shape(32, 1, 4, 4))
