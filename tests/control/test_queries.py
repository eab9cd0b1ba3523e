"""Which comparisons are asked for: against what brute force finds."""

import itertools

import pytest
import torch

from regrow.control.queries import choose, disagreement, entropy, k_center

KINDS = ("uniform", "disagreement", "entropy", "k-center", "k-center-disagreement",
         "k-center-entropy")  # fmt: skip


def candidates(n=12, runs=2):
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(runs, n, 2, 3, 4, generator=generator)
    chances = torch.rand(runs, 3, n, generator=generator)
    return clips, chances


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_are_chosen_as_asked_for_and_none_twice(kind):
    clips, chances = candidates()
    known = clips[:, :2] + 0.1

    def of(some):  # of a subset: by looking which candidates these are
        same = (some[:, :, None] == clips[:, None]).flatten(3).all(3)
        return chances.gather(2, same.long().argmax(2)[:, None].expand(-1, 3, -1))

    chosen = choose(kind, clips, known, 3, of, 5)
    assert chosen.shape == (2, 5)
    assert all(len(set(row)) == 5 and max(row) < 12 for row in chosen.tolist())


def test_the_most_disputed_and_the_most_uncertain_come_first():
    clips, _ = candidates(4, 1)
    disputed = torch.tensor([[[0.5, 0.1, 0.4, 0.5], [0.5, 0.9, 0.6, 0.5], [0.5, 0.5, 0.5, 0.9]]])
    chosen = choose("disagreement", clips, clips[:, :0], 4, lambda _: disputed, 2)
    assert chosen.tolist() == [[1, 3]]
    uncertain = torch.tensor([[[0.9, 0.5, 0.01, 0.6]]])
    chosen = choose("entropy", clips, clips[:, :0], 4, lambda _: uncertain, 3)
    assert chosen.tolist() == [[1, 3, 0]]


def test_k_center_is_no_worse_than_twice_the_best_cover():
    """The greedy rule is a 2-approximation (Gonzalez 1985): checked against all choices."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(10):
        points = torch.randn(1, 8, 2, generator=generator)
        distances = torch.cdist(points[0], points[0])

        def radius(centres, distances=distances):
            return float(distances[:, list(centres)].amin(1).max())

        greedy = radius(k_center(points, points[:, :0], 3)[0].tolist())
        best = min(radius(some) for some in itertools.combinations(range(8), 3))
        assert greedy <= 2 * best + 1e-6


def test_what_other_runs_know_is_nothing_to_a_run():
    """Places that a run has not filled hold zeros, which are not known."""
    points = torch.tensor([[[0.0], [0.1], [5.0]]]).expand(2, -1, -1)
    known = torch.tensor([[[5.0], [0.0]], [[5.0], [0.1]]])
    chosen = k_center(points, known, 2, torch.tensor([[1], [2]]))
    assert chosen[0].tolist() == k_center(points[:1], known[:1, :1], 2)[0].tolist() == [0, 1]
    assert chosen[1].tolist() == k_center(points[1:], known[1:], 2)[0].tolist()
    nothing = k_center(points, known, 2, torch.tensor([[0], [0]]))
    assert nothing.tolist() == k_center(points, known[:, :0], 2).tolist()


def test_k_center_keeps_away_from_what_is_known():
    points = torch.tensor([[[0.0], [0.1], [5.0]]])
    assert k_center(points, torch.tensor([[[5.0]]]), 1).tolist() == [[0]]
    assert k_center(points, torch.tensor([[[0.0]]]), 1).tolist() == [[2]]


@pytest.mark.parametrize("kind", ["k-center", "k-center-disagreement", "k-center-entropy"])
def test_centres_are_those_of_what_is_seen(kind):
    """Actions, and shadows before them, do not count: of whatever size, the same are chosen."""
    clips, chances = candidates()
    known = clips[:, :2] + 0.1
    plain = choose(kind, clips, known, 3, lambda _: chances, 4)
    loud = clips.clone()
    loud[..., 3] *= 1000
    assert torch.equal(choose(kind, loud, known, 3, lambda _: chances, 4), plain)
    assert not torch.equal(choose(kind, loud, known, 4, lambda _: chances, 4), plain)


@pytest.mark.parametrize(("score", "kind"), [(disagreement, "disagreement"), (entropy, "entropy")])
def test_mixtures_take_centres_of_the_better_half(score, kind):
    """As in B-Pref's code: half of all candidates, whatever number is asked for."""
    clips, chances = candidates(20)
    known = clips[:, :1] - 3.0
    chosen = choose(f"k-center-{kind}", clips, known, 3, lambda _: chances, 2)
    for run in range(2):
        half = score(chances)[run].sort(descending=True, stable=True).indices[:10]
        points = clips[run, half, ..., :3].flatten(1)
        apart = torch.cdist(points, known[run, ..., :3].flatten(1))[:, 0]
        first = int(apart.argmax())
        second = int(torch.minimum(apart, (points - points[first]).norm(dim=1)).argmax())
        assert chosen[run].tolist() == half[[first, second]].tolist()


def test_a_population_asks_without_regard_to_shadows_and_actions(population, small, monkeypatch):
    """Shadows, which other arms of a population need, are no part of what is compared."""
    from dataclasses import replace

    from regrow.control import queries
    from regrow.control.setting import Arm

    widths = []

    def seen(points, *rest, own=queries.k_center):
        widths.append(points.shape[2])
        return own(points, *rest)

    monkeypatch.setattr(queries, "k_center", seen)
    runs = population([Arm()], [0], replace(small, query="k-center"))
    runs.run_to_(90)
    assert runs.features_shown > runs.noise.total
    assert widths == [2 * 5 * runs.noise.total]
