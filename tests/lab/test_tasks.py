"""Statistics over tasks, against scipy and against their meaning."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from regrow.lab.statistics import interquartile_mean
from regrow.lab.tasks import (
    interquartile_interval,
    mean_over_tasks,
    probability_of_improvement,
)

grid = st.integers(-3, 3).map(float)  # few values, so that ties occur
runs = st.lists(grid, min_size=1, max_size=8)
names = ("a", "b", "c")


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30))
def test_the_interquartile_mean_is_a_trimmed_mean(values):
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25), abs=1e-9)


@given(runs, runs)
def test_one_tasks_probability_of_improvement_is_the_u_statistic(x, y):
    found = probability_of_improvement({"a": x}, {"a": y}, resamples=10)
    u = stats.mannwhitneyu(x, y, method="asymptotic").statistic if len(set(x + y)) > 1 else None
    expected = 0.5 if u is None else u / (len(x) * len(y))
    assert found.mean == pytest.approx(expected)
    assert found.n == min(len(x), len(y))


@given(st.lists(st.tuples(runs, runs), min_size=1, max_size=3))
def test_over_tasks_it_is_the_mean_and_the_other_side_has_the_rest(pairs):
    x = {name: pair[0] for name, pair in zip(names, pairs, strict=False)}
    y = {name: pair[1] for name, pair in zip(names, pairs, strict=False)}
    found = probability_of_improvement(x, y, resamples=50)
    single = [probability_of_improvement({t: x[t]}, {t: y[t]}, resamples=5).mean for t in x]
    assert found.mean == pytest.approx(np.mean(single))
    assert found.mean + probability_of_improvement(y, x, resamples=5).mean == pytest.approx(1)
    assert 0 <= found.low <= found.high <= 1


def test_intervals_cover_as_often_as_they_can():
    """A percentile bootstrap of few runs is a little narrow; with 10 runs of 4 tasks, a little."""
    rng = np.random.default_rng(0)
    hits = {"middle": 0, "improvement": 0}
    repetitions = 300
    truth = stats.norm.cdf(0.5 / np.sqrt(2))
    for i in range(repetitions):
        x, y = ({t: list(rng.normal(m, 1, 10)) for t in "abcd"} for m in (0.5, 0.0))
        middle = interquartile_interval(y, resamples=400, seed=i)
        improvement = probability_of_improvement(x, y, resamples=400, seed=i)
        hits["middle"] += not middle.excludes(0)
        hits["improvement"] += not improvement.excludes(truth)
    assert all(0.90 < hit / repetitions < 0.98 for hit in hits.values()), hits


def test_runs_are_drawn_inside_their_task():
    """Tasks far apart, runs alike: drawing tasks, too, would make a wide interval."""
    tasks = {name: [level, level + 0.1, level - 0.1] for name, level in (("a", 0.0), ("b", 100.0))}
    found = interquartile_interval(tasks)
    assert found.mean == pytest.approx(50)
    assert found.half_width < 1


def test_the_seed_decides_the_draw():
    tasks = {"a": [1.0, 2.0, 4.0, 8.0], "b": {0: 1.0, 1: 3.0, 2: 5.0, 3: 9.0}}
    assert interquartile_interval(tasks) == interquartile_interval(tasks)
    assert interquartile_interval(tasks) != interquartile_interval(tasks, seed=1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: interquartile_interval({}), "tasks is empty"),
        (lambda: interquartile_interval({"a": [1.0], "b": [1.0, 2.0]}), "a 1, b 2"),
        (lambda: interquartile_interval({"a": [1.0, np.nan]}), r"tasks\['a'\] holds nan"),
        (lambda: probability_of_improvement({"a": [1.0]}, {"b": [1.0]}), "a, b: only one side"),
        (lambda: probability_of_improvement({"a": []}, {"a": [1.0]}), r"ours\['a'\] is empty"),
    ],
)
def test_bad_input_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_without_overlap_it_is_students_interval_and_with_it_wider():
    values = {0: 1.0, 1: 2.5, 2: 2.0, 3: 4.0, 4: 1.5}
    plain = mean_over_tasks({"a": values})
    numbers = list(values.values())
    expected = stats.t.interval(0.95, 4, np.mean(numbers), stats.sem(numbers))
    assert (plain.low, plain.high) == pytest.approx(expected)
    wider = mean_over_tasks({"a": values}, overlap=3 / 7)
    assert wider.half_width / plain.half_width == pytest.approx(np.sqrt((1 / 5 + 3 / 7) * 5))
    assert wider.mean == plain.mean and wider.n == 5


def test_intervals_of_resampled_splits_cover_the_truth_only_when_corrected():
    """Nadeau and Bengio's setting: accuracies of overlapping halves of one sample."""
    rng = np.random.default_rng(0)
    covered = {0.0: 0, 3 / 7: 0}
    for _ in range(150):
        X = np.sort(rng.normal(size=60)) + 0.0
        splits = {}
        for split in range(5):
            order = rng.permutation(60)
            test = X[order[:18]]  # an estimate of the mean of X's distribution, 0
            splits[split] = float(test.mean())
        for overlap in covered:
            found = mean_over_tasks({"a": splits}, overlap=overlap)
            covered[overlap] += found.low <= 0 <= found.high
    assert covered[0.0] < covered[3 / 7] and covered[3 / 7] / 150 > 0.85


def test_tasks_weigh_the_same_however_many_runs():
    found = mean_over_tasks({"a": {0: 0.0, 1: 0.0}, "b": dict.fromkeys(range(9), 3.0)})
    assert (found.mean, found.low, found.high, found.n) == (1.5, 1.5, 1.5, 2)
