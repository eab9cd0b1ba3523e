"""Wanda and SparseGPT against truth tables, the papers' formulas and exact least squares."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.engine.patterns import NM, Block, Channel, Element, FanIn, InputChannel, Kernel
from regrow.pruning.obs import inverse_factor, prune_columns
from regrow.pruning.rules import SparseGPT, Wanda


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def correlated(n, features, seed=0):
    """Inputs that tell of one another, as activations do."""
    return draw(n, features, seed=seed) @ draw(features, features, seed=seed + 1)


def error(weight, new, x):
    return float((x @ (weight - new).T).square().sum())


class TestWanda:
    def test_truth_table(self):
        """Rows choose for themselves: by |w| alone the second row would lose other weights."""
        weight = torch.tensor([[4.0, 0, 1, -1], [3, -2, -1, -3], [-3, 1, 0, 2]])
        norms = torch.tensor([1.0, 2, 8, 3])
        new, mask = Wanda(density=0.5).prune(weight, norms.square().unsqueeze(0), 6)
        # |w|·‖x‖ = [4 0 8 3], [3 4 8 9], [3 2 0 6]
        assert mask.int().tolist() == [[1, 0, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]]
        assert new.tolist() == [[4, 0, 1, 0], [0, 0, -1, -3], [-3, 0, 0, 2]]
        by_layer = Wanda(density=0.5, pattern=Element())
        _, mask = by_layer.prune(weight, norms.square().unsqueeze(0), 6)
        assert mask.int().tolist() == [[1, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 1]]
        _, mask = Wanda(density=0.5, pattern=NM(1, 2)).prune(weight, norms.square()[None], 6)
        assert mask.int().tolist() == [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 0, 1]]

    def test_parts_see_inputs_of_their_own(self):
        weight = torch.ones(4, 2)
        seen = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
        _, mask = Wanda(density=0.5).prune(weight, seen, 4)
        assert mask.int().tolist() == [[0, 1], [0, 1], [1, 0], [1, 0]]

    def test_of_a_sparse_input_it_is_the_first_order_effect_on_the_output(self):
        """‖w·x‖₂ over the data is what leaves the output if one weight goes."""
        weight, x = draw(3, 5), draw(20, 5, seed=1)
        lost = torch.stack(
            [torch.stack([x[:, j] * weight[i, j] for j in range(5)]).norm(dim=1) for i in range(3)]
        )
        _, mask = Wanda(density=0.4, pattern=Element()).prune(weight, (x * x).sum(0)[None], 6)
        assert lost[mask].min() > lost[~mask].max()


def one_by_one(weight, h, gone):
    """SparseGPT's step from the paper's equation, every inverse computed anew."""
    weight = weight.clone()
    for i in range(weight.shape[1]):
        inverse = torch.linalg.inv(h[i:, i:])
        change = weight[:, i : i + 1] / inverse[0, 0] * inverse[0]
        weight[:, i:] -= change * gone[:, i : i + 1]
    return weight * ~gone


class TestSparseGPT:
    @pytest.mark.parametrize("at_once", [1, 3, 128])
    @pytest.mark.parametrize("columns", [1, 3, 4, 100])
    def test_follows_the_papers_equation_however_columns_are_worked_off(self, columns, at_once):
        weight, x = draw(4, 10), correlated(30, 10)
        gone = torch.rand(4, 10, generator=torch.Generator().manual_seed(3)) < 0.5
        h = x.T @ x
        damped = h + 0.01 * h.diagonal().mean() * torch.eye(10)
        at = iter(range(0, 10, columns))

        def choose(cost):
            start = next(at)
            return ~gone[:, start : start + cost.shape[1]]

        new, kept = prune_columns(weight[None], h[None], choose, columns, 0.01, at_once)
        assert kept[0].equal(~gone)
        torch.testing.assert_close(new[0], one_by_one(weight, damped, gone))

    def test_is_the_exact_least_squares_solution_if_what_goes_comes_first(self):
        """Columns pruned before those that stay: nothing is frozen too early, all can adapt."""
        weight, x = draw(6, 12), correlated(40, 12)
        h, damping = x.T @ x, 0.05
        ridge = damping * h.diagonal().mean() * torch.eye(12)
        gone = torch.zeros(6, 12, dtype=torch.bool)
        for row in range(6):
            gone[row, : row + 3] = True
        new, _ = prune_columns(weight[None], h[None], lambda _: ~gone, 12, damping, 12)
        for row in range(6):
            kept = ~gone[row]
            # Of |Xw - Xv|² + λ|w - v|² over v with zeros: the normal equations of the kept.
            left = (h + ridge)[kept][:, kept]
            right = ((h + ridge) @ weight[row])[kept]
            torch.testing.assert_close(new[0, row][kept], torch.linalg.solve(left, right))
            assert not new[0, row][~kept].any()

    def test_cost_of_the_first_columns_is_the_error_that_pruning_one_weight_leaves(self):
        weight, x = draw(3, 8), correlated(50, 8)
        h = x.T @ x
        found = []

        def choose(cost):
            found.append(cost)
            return torch.ones_like(cost, dtype=torch.bool)

        prune_columns(weight[None], h[None], choose, 1, 1e-12, 8)
        for row in range(3):
            # Least squares for the rest, weight j being zero and those before it as they are.
            for j in range(8):
                target = x[:, j:] @ weight[row, j:]
                rest = x[:, j + 1 :]
                if j < 7:
                    target = target - rest @ torch.linalg.lstsq(rest, target).solution
                assert found[j][row].item() == pytest.approx(target.square().sum().item(), rel=1e-6)

    def test_leaves_less_error_than_wanda_and_magnitude(self):
        for seed in range(5):
            weight, x = draw(16, 24, seed=100 + seed), correlated(200, 24, seed=seed)
            h, keep = (x.T @ x)[None], 192
            ours, _ = SparseGPT(density=0.5).prune(weight, h, keep)
            wanda, _ = Wanda(density=0.5).prune(weight, h.diagonal(dim1=1, dim2=2), keep)
            largest = weight * Element().best(keep, weight.abs())
            at_once, _ = SparseGPT(density=0.5, columns=24).prune(weight, h, keep)
            errors = [error(weight, new, x) for new in (ours, wanda, largest, at_once)]
            assert errors[0] < 0.9 * min(errors[1:]), errors

    def test_of_two_inputs_that_are_one_it_loses_nothing(self):
        x = draw(30, 4)
        x = torch.cat([x, x], 1)
        weight = draw(5, 8, seed=2)
        new, mask = SparseGPT(density=0.5, damping=1e-9, columns=8).prune(
            weight, (x.T @ x)[None], 20
        )
        assert int(mask.sum()) == 20
        assert error(weight, new, x) < 1e-9 * float((x @ weight.T).square().sum())

    @pytest.mark.parametrize("columns", [1, 2, 4, 6])
    @pytest.mark.parametrize("pattern", [Element(), FanIn()])
    def test_inputs_that_were_always_zero_go_first(self, columns, pattern):
        x = correlated(30, 6)
        x[:, 1:4] = 0
        rule = SparseGPT(density=0.5, columns=columns, pattern=pattern)
        _, mask = rule.prune(draw(4, 6), (x.T @ x)[None], 12)
        assert mask[:, [0, 4, 5]].all()
        assert int(mask.sum()) == 12

    def test_inputs_that_were_always_zero_keep_what_is_not_to_go(self):
        x = correlated(30, 6)
        x[:, :2] = 0
        weight = draw(4, 6) + 10
        new, mask = SparseGPT(density=0.9).prune(weight, (x.T @ x)[None], 22)
        assert int((~mask[:, :2]).sum()) == 2
        assert int(mask.sum()) == 22
        # Nobody makes up for a weight that did nothing.
        assert torch.equal(new[mask], weight[mask])
        new, mask = SparseGPT(density=0.5).prune(weight, torch.zeros(1, 6, 6).double(), 12)
        assert int(mask.sum()) == 12

    def test_groups_are_chosen_with_what_was_changed_before_them(self):
        """As in the released code: of each group of m, the n cheapest, when it is reached."""
        weight, x = draw(3, 8), correlated(40, 8)
        h = x.T @ x
        damped = h + 0.01 * h.diagonal().mean() * torch.eye(8)
        gone = torch.zeros(3, 8, dtype=torch.bool)
        for start in (0, 4):
            now = one_by_one(weight, damped, gone) + 0  # zeros lie before start only
            costs = torch.stack(
                [
                    now[:, j].square() / torch.linalg.inv(damped[j:, j:])[0, 0]
                    for j in range(start, start + 4)
                ],
                1,
            )
            gone[:, start : start + 4] = costs.argsort(1).argsort(1) < 2
        new, mask = SparseGPT(density=0.5, pattern=NM(2, 4)).prune(weight, h[None], 12)
        assert mask.equal(~gone)
        torch.testing.assert_close(new, one_by_one(weight, damped, gone))

    def test_what_cannot_be_inverted_is_refused(self):
        bad = torch.tensor([[[1.0, 5.0], [5.0, 1.0]]])  # no sum of x·xᵀ
        with pytest.raises(ValueError, match=r"damping=0.01: .* cannot be inverted; raise it"):
            inverse_factor(bad, 0.01)

    def test_factor_holds_the_inverses_of_all_that_is_left(self):
        x = correlated(30, 7)
        h = x.T @ x
        factor, dead = inverse_factor(h[None], 0.02)
        damped = h + 0.02 * h.diagonal().mean() * torch.eye(7)
        assert not dead.any()
        for j in range(7):
            inverse = torch.linalg.inv(damped[j:, j:])
            torch.testing.assert_close(factor[0, j, j:] * factor[0, j, j], inverse[0])

    def test_single_precision_that_fails_is_tried_again_in_double(self):
        x = correlated(400, 30)
        x[:, 1] = x[:, 0] + 1e-5 * x[:, 1]
        h = (x.T @ x)[None]
        single, _ = inverse_factor(h.float(), 1e-9)
        assert single.dtype == torch.float32
        assert single.isfinite().all()

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"damping": 0}, "damping=0: must be above 0"),
            ({"damping": float("nan")}, "damping=nan: must be above 0"),
            ({"columns": 0}, "columns=0: must be at least 1"),
            ({"density": 0.0}, r"density=0.0: must lie in \(0, 1\]"),
            ({"pattern": NM(1, 4)}, r"density=0.5: with pattern=NM\(n=1, m=4\) it is 0.25"),
        ],
    )
    def test_options_out_of_range_are_refused(self, options, said):
        with pytest.raises(ValueError, match=said):
            SparseGPT(**{"density": 0.5, **options})


PATTERNS = [Element(), FanIn(), Kernel(), Channel(), InputChannel(), Block(2), Block(3), NM(2, 4)]


@given(
    rule=st.sampled_from([Wanda, SparseGPT]),
    pattern=st.sampled_from(PATTERNS),
    kernel=st.sampled_from([(), (3,), (2, 2)]),
    parts=st.sampled_from([1, 2]),
    density=st.sampled_from([0.05, 0.3, 0.5, 0.77, 1.0]),
    columns=st.sampled_from([None, 1, 5, 128]),
    seed=st.integers(0, 5),
)
def test_counts_are_exact_and_units_whole(rule, pattern, kernel, parts, density, columns, seed):
    shape = (4 * parts, 8, *kernel)
    weight = draw(*shape, seed=seed)
    features = weight[0].numel()
    x = torch.stack([correlated(12, features, seed=seed + part) for part in range(parts)])
    products = x.transpose(1, 2) @ x
    options = {"columns": columns} if rule is SparseGPT else {}
    if isinstance(pattern, NM):
        density = pattern.density
    keep = pattern.kept(density, shape)
    made = rule(density=density, pattern=pattern, **options)
    seen = products if rule is SparseGPT else products.diagonal(dim1=1, dim2=2)
    new, mask = made.prune(weight, seen, keep)
    assert not new[~mask].any()
    assert new.shape == mask.shape == shape
    units = pattern.reduce(mask.double()) > 0
    assert int(units.sum()) == keep
    assert pattern.allows(units)
    assert torch.equal(pattern.expand(units, shape), mask)
    if density == 1:
        assert torch.equal(new, weight)
    if rule is Wanda:
        assert torch.equal(new[mask], weight[mask])


def test_parts_are_problems_of_their_own():
    """Two convolutions side by side in one of two groups: the weights change as in each alone."""
    weight, x = draw(6, 5), [correlated(20, 5, seed=s) for s in (1, 2)]
    products = torch.stack([one.T @ one for one in x])
    rule = SparseGPT(density=0.4, pattern=FanIn())
    both, _ = rule.prune(weight, products, 12)
    for part in (0, 1):
        alone, _ = rule.prune(weight[3 * part : 3 * part + 3], products[part : part + 1], 6)
        torch.testing.assert_close(both[3 * part : 3 * part + 3], alone)
