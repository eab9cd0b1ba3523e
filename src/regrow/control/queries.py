"""Which pairs of segments a teacher is asked about, and the asking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from regrow.control.checks import checked_answers
from regrow.control.draws import RunDraws
from regrow.control.replay import Replay
from regrow.control.reward import RewardModels
from regrow.control.setting import QueryKind, Setting
from regrow.control.teachers import Query, Teacher

__all__ = ["ask_", "choose", "disagreement", "entropy", "k_center", "pairs"]

Chances = Callable[[Tensor], Tensor]


def pairs(
    replay: Replay, models: RewardModels, setting: Setting, draws: RunDraws, features: int, *,
    first: bool,
) -> Tensor:  # fmt: skip
    """Choose which segments are compared; return where they start, (runs, queries, 2).

    Args:
        replay: that they lie in.
        models: of the reward, whose doubts and earlier comparisons count.
        setting: how many, and how they are chosen.
        draws: for candidates.
        features: how many of the numbers in an observation are seen, the first ones.
        first: whether nothing was compared before: all candidates are then as good.

    Raises:
        ValueError: a run has no episode of a segment's length.
    """
    kind = "uniform" if first else setting.query
    count = setting.queries * (1 if kind == "uniform" else setting.candidates)
    drawn = draws.uniform(2 * count)
    starts: Tensor = replay.starts(drawn, setting.segment, setting.recent)
    starts = starts.unflatten(1, (count, 2))
    if kind == "uniform":
        return starts
    clips = replay.segments(starts, setting.segment, "inputs")
    known = models.clips[:, : int(models.count.max())]
    count, known_of = setting.queries, models.count
    chosen = choose(kind, clips, known, features, models.chances, count, known_of)
    return starts.gather(1, chosen[..., None].expand(-1, -1, 2))


def ask_(
    teacher: Teacher, models: RewardModels, replay: Replay, setting: Setting,
    draws: Mapping[str, RunDraws], features: int, recent: Sequence[float], episode: int, *,
    first: bool,
) -> Tensor:  # fmt: skip
    """Ask a teacher, and let models keep what was answered; return where it was, (runs, Q).

    Args:
        teacher: who is asked.
        models: of the reward; comparisons are added to theirs.
        replay: that segments lie in.
        setting: how many are compared, and how they are chosen.
        draws: for "segments", and the teacher's "chance".
        features: how many of the numbers in an observation the teacher sees, the first ones.
        recent: the mean return of each run's latest episodes; NaN counts as 0.
        episode: steps of an episode.
        first: whether nothing was compared before.

    Raises:
        TypeError: an answer is none.
        ValueError: there are too few segments, or answers do not fit; nothing was kept.
    """
    starts = pairs(replay, models, setting, draws["segments"], features, first=first)
    length, margin = setting.segment, models.margin
    wide = replay.segments(starts, length, "inputs", margin=margin)
    inside = replay.inside(starts, length, margin)
    clips = wide[:, :, :, margin : margin + length]
    late = torch.tensor(recent, dtype=torch.float32, device=starts.device)
    ages = (replay.added - 1 - starts) % replay.capacity
    query = Query(
        rewards=replay.segments(starts, length, "rewards"),
        observations=clips[..., :features],
        actions=clips[..., replay.observations :],
        steps=replay.added - 1 - ages,
        recent_return=late.nan_to_num(),
        episode=episode,
        chance=draws["chance"].uniform(setting.queries, 2),
    )
    answers = checked_answers(teacher(query), query, starts.device)
    models.add_(wide, answers.labels, answers.answered, inside, starts)
    return answers.answered


def choose(
    kind: QueryKind, clips: Tensor, known: Tensor, features: int, chances: Chances, count: int,
    counts: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Choose which candidates are asked about.

    Centres are those of what is seen in the two segments; actions do not count. Mixtures with
    k-center take it among the half of the candidates of the highest disagreement or entropy.

    Args:
        kind: how.
        clips: candidates (runs, C, 2, segment, D + A).
        known: comparisons that were answered before, (runs, L, 2, segment, D + A); for k-center.
        features: D, how many of these numbers are seen.
        chances: gives every member's P[1 ≻ 0], (runs, members, C).
        count: how many of each run, at most C.
        counts: how many of the known ones there are in each run, (runs, 1); None: all.

    Returns:
        Indices of candidates, int64, (runs, count).

    Source: B-Pref, feed types 0 to 5.
    """
    if kind == "uniform":
        return torch.arange(count, device=clips.device).expand(len(clips), -1)
    seen, before = clips[..., :features].flatten(2), known[..., :features].flatten(2)
    if kind == "k-center":
        return k_center(seen, before, count, counts)
    score = disagreement if kind.endswith("disagreement") else entropy
    wanted = count if kind in ("disagreement", "entropy") else max(count, clips.shape[1] // 2)
    order = score(chances(clips)).argsort(dim=1, descending=True, stable=True)[:, :wanted]
    if wanted == count:
        return order
    rows = torch.arange(len(clips), device=clips.device)[:, None]
    return order.gather(1, k_center(seen[rows, order], before, count, counts))


def disagreement(chances: Tensor) -> Tensor:
    """Return the standard deviation over members of P[1 ≻ 0], (runs, C).

    Example:
        >>> disagreement(torch.tensor([[[0.0, 0.5], [1.0, 0.5]]])).tolist()
        [[0.5, 0.0]]
    """
    return chances.std(1, correction=0)


def entropy(chances: Tensor) -> Tensor:
    """Return the mean of the members' entropies in nats, (runs, C).

    Example:
        >>> entropy(torch.tensor([[[0.0, 1.0]]])).tolist()
        [[0.0, 0.0]]
    """
    both: Tensor = torch.special.entr(chances) + torch.special.entr(1 - chances)
    return both.mean(1)


def k_center(points: Tensor, known: Tensor, count: int, counts: Tensor | None = None) -> Tensor:
    """Choose one point after another, each the farthest from all that are known or chosen.

    Args:
        points: (runs, C, n).
        known: (runs, L, n); without any, the first point comes first.
        count: how many, at most C.
        counts: how many of the known ones there are in each run, (runs, 1); None: all.

    Returns:
        Indices of points, int64, (runs, count).

    Example:
        >>> points = torch.tensor([[[0.0], [1.0], [5.0], [9.0]]])
        >>> k_center(points, torch.zeros(1, 1, 1), 2).tolist()
        [[3, 2]]
    """
    nearest = torch.full(points.shape[:2], torch.inf, device=points.device)
    if known.shape[1]:
        # By a product of matrices, rounding would hang on how many are known in other runs.
        apart = torch.cdist(points, known, compute_mode="donot_use_mm_for_euclid_dist")
        if counts is not None:
            missing = torch.arange(known.shape[1], device=known.device) >= counts
            apart = apart.masked_fill(missing[:, None], torch.inf)
        nearest = apart.amin(2)
    chosen = []
    for _ in range(count):
        place = nearest.argmax(1, keepdim=True)
        chosen.append(place)
        point = points.gather(1, place[..., None].expand(-1, -1, points.shape[2]))
        nearest = torch.minimum(nearest, (points - point).norm(dim=2)).scatter(1, place, -1.0)
    return torch.cat(chosen, 1)
