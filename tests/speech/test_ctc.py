"""CTC: a loss of each utterance; those that cannot be aligned are never easy; decoding."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from regrow.speech.ctc import ctc_losses, feasible, needed_steps, pad_labels
from regrow.speech.decode import beam, collapse, greedy
from regrow.speech.ngram import NGram


def scores(n=3, steps=12, units=5):
    return torch.randn(n, steps, units).log_softmax(2)


def test_losses_by_utterance_have_torchs_mean():
    log_probs, steps = scores(), torch.tensor([12, 9, 10])
    labels, lengths = pad_labels([[1, 2, 2], [4], [3, 1, 2, 4]])
    losses, known = ctc_losses(log_probs, steps, labels, lengths)
    assert losses.shape == (3,) and known.all()
    args = log_probs.transpose(0, 1), labels, steps, lengths
    none = functional.ctc_loss(*args, reduction="none")
    torch.testing.assert_close(losses / lengths, none / lengths)
    torch.testing.assert_close((losses / lengths).mean(), functional.ctc_loss(*args))


def paths(log_probs, labels):
    """ln p(labels), by all paths."""
    steps, units = log_probs.shape
    found = [
        sum(float(log_probs[t, u]) for t, u in enumerate(path))
        for path in itertools.product(range(units), repeat=steps)
        if collapse(path) == list(labels)
    ]
    return math.log(sum(map(math.exp, found))) if found else -math.inf


def test_a_loss_is_the_sum_over_all_paths():
    log_probs = scores(1, 5, 3).double()
    for labels in ([1], [1, 2], [1, 1], [2, 2, 1]):
        padded, lengths = pad_labels([labels])
        loss, _ = ctc_losses(log_probs, torch.tensor([5]), padded, lengths)
        assert float(loss) == pytest.approx(-paths(log_probs[0], labels))


@given(st.lists(st.integers(1, 2), min_size=1, max_size=5), st.integers(1, 6))
def test_needed_steps_are_where_paths_begin(labels, steps):
    padded, lengths = pad_labels([labels])
    possible = any(collapse(path) == labels for path in itertools.product(range(3), repeat=steps))
    assert bool(feasible(torch.tensor([steps]), padded, lengths)) == possible
    assert (steps >= int(needed_steps(padded, lengths))) == possible


def test_what_cannot_be_aligned_is_marked_and_has_no_gradient():
    """torch says 0, the lowest of all losses."""
    free = torch.randn(2, 5, 4, requires_grad=True)
    labels, lengths = pad_labels([[1, 1, 2, 2], [1, 2]])
    steps = torch.tensor([5, 5])
    args = free.log_softmax(2).transpose(0, 1), labels, steps, lengths
    assert functional.ctc_loss(*args, reduction="none", zero_infinity=True)[0] == 0
    losses, known = ctc_losses(free.log_softmax(2), steps, labels, lengths)
    assert known.tolist() == [False, True]
    losses.sum().backward()
    assert free.grad[0].abs().sum() == 0 and free.grad[1].abs().sum() > 0


def test_an_empty_transcript_is_not_known():
    labels, lengths = pad_labels([[], [1]])
    losses, known = ctc_losses(scores(2), torch.tensor([12, 12]), labels, lengths)
    assert known.tolist() == [False, True] and losses[0] == 0


def test_padding_of_labels_does_not_count():
    assert needed_steps(torch.tensor([[1, 1, 0, 0]]), torch.tensor([1])).tolist() == [1]
    assert needed_steps(torch.zeros(2, 0, dtype=torch.int64), torch.tensor([0, 0])).tolist() == [
        0,
        0,
    ]


def test_greedy_takes_the_best_path_of_each_length():
    path = torch.tensor([[0, 1, 1, 0, 1, 2], [2, 2, 0, 3, 3, 3]])
    log_probs = functional.one_hot(path, 4).float().log_softmax(2)
    assert greedy(log_probs, torch.tensor([6, 4])) == [[1, 1, 2], [2, 3]]


def all_texts(log_probs):
    found = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        of = sum(float(log_probs[t, u]) for t, u in enumerate(path))
        key = tuple(collapse(path))
        found[key] = found.get(key, 0.0) + math.exp(of)
    return found


@given(st.integers(0, 10_000))
def test_a_wide_beam_finds_the_best_text(seed):
    draw = torch.Generator().manual_seed(seed)
    log_probs = (2 * torch.randn(5, 3, generator=draw)).log_softmax(1).double()
    texts = all_texts(log_probs)
    best = tuple(beam(log_probs, 1000, least=0))
    assert texts[best] == pytest.approx(max(texts.values()))


@given(st.integers(0, 10_000))
def test_a_wide_beam_with_a_language_finds_the_best_of_both(seed):
    draw = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(4, 3, generator=draw).log_softmax(1).double()
    language = NGram([[1, 2, 1], [2]], units=3, order=2)

    def valued(text, p):
        said = sum(language(text[:i], unit) for i, unit in enumerate((*text, 0)))
        return math.log(p) + 0.7 * said + 0.2 * len(text)

    texts = {text: valued(text, p) for text, p in all_texts(log_probs).items()}
    best = beam(log_probs, 1000, language=language, weight=0.7, bonus=0.2, least=0)
    assert texts[tuple(best)] == pytest.approx(max(texts.values()))


def test_a_beam_beats_the_best_path_where_texts_have_many():
    log_probs = torch.tensor([[0.4, 0.6], [0.6, 0.4]]).log()
    even = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()  # "blank blank": 0.36, "1": 0.64
    assert greedy(even[None], torch.tensor([2])) == [[]] and beam(even) == [1]
    assert beam(log_probs) == [1]
    with pytest.raises(ValueError, match="width=0"):
        beam(log_probs, 0)
