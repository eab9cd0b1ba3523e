"""Cannistraci-Hebb training against literal path counting, and its chains by hand."""

from __future__ import annotations

import dataclasses
import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import regrow
from regrow.engine.criteria import Running
from regrow.engine.links import LinkPrediction, RelativeImportance, Soft
from regrow.engine.patterns import Channel, Kernel
from regrow.engine.scores import Gradient, Magnitude, Signals
from regrow.engine.selection import seeded_generator
from regrow.engine.update import Moves

fast = settings(max_examples=60, deadline=None)


@st.composite
def networks(draw):
    """A bipartite network: outputs by inputs."""
    rows, columns = draw(st.integers(2, 6)), draw(st.integers(2, 6))
    links = draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
    return torch.tensor(links).reshape(rows, columns)


def missing_links(mask):
    return [(u, t) for u, t in product(*map(range, mask.shape)) if not mask[u, t]]


def by_paths(mask, rule, u, t):
    """Walk all paths u-w-v-t; internal and external degrees by the definition of CH2 and CH3."""
    outputs, inputs = map(range, mask.shape)
    paths = [(w, v) for w in inputs for v in outputs if mask[u, w] and mask[v, w] and mask[v, t]]
    inner_inputs, inner_outputs = {w for w, _ in paths}, {v for _, v in paths}

    def degrees(neighbours, community, end):
        inside = len(neighbours & community)
        return inside, len(neighbours - community - {end})

    score = 0.0
    for w, v in paths:
        inside_w, outside_w = degrees({x for x in outputs if mask[x, w]}, inner_outputs, u)
        inside_v, outside_v = degrees({x for x in inputs if mask[v, x]}, inner_inputs, t)
        top = (1 + inside_w) * (1 + inside_v) if rule == "CH2" else 1
        score += math.sqrt(top / ((1 + outside_w) * (1 + outside_v)))
    return score


def by_nodes(mask, rule, u, t):
    """Sum over the inner nodes instead of the paths."""
    outputs, inputs = map(range, mask.shape)
    score = 0.0
    for v in outputs:
        shared = sum(bool(mask[u, x] and mask[v, x]) for x in inputs)
        if mask[v, t] and shared:
            others = int(mask[v].sum()) - shared
            score += (1 + shared if rule == "CH2" else 1) / max(others, 1)
    for w in inputs:
        shared = sum(bool(mask[x, w] and mask[x, t]) for x in outputs)
        if mask[u, w] and shared:
            others = int(mask[:, w].sum()) - shared
            score += (1 + shared if rule == "CH2" else 1) / max(others, 1)
    return score


class TestLinkPrediction:
    @fast
    @given(networks(), st.sampled_from(["CH2", "CH3"]), st.sampled_from(["path", "node"]))
    def test_equals_a_literal_count(self, mask, rule, by):
        found = LinkPrediction(rule, by=by).worth(Signals(torch.zeros(mask.shape), mask=mask))
        literal = by_paths if by == "path" else by_nodes
        for u, t in missing_links(mask):
            assert float(found[u, t]) == pytest.approx(literal(mask, rule, u, t), rel=1e-5)

    def test_grows_the_link_that_closes_most_paths(self, choose):
        """Two outputs share two inputs, and only one of them reads the third."""
        mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)
        for rule, by in product(("CH2", "CH3"), ("path", "node")):
            score = LinkPrediction(rule, by=by)
            assert choose(score, "grow", 1, weight=torch.zeros(2, 4), mask=mask) == [2]

    def test_kernels_of_a_convolution_are_links(self, choose):
        mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)
        options = {
            "weight": torch.zeros(2, 4, 3, 3),
            "mask": mask[..., None, None].expand(2, 4, 3, 3),
            "pattern": Kernel(),
        }
        assert choose(LinkPrediction(), "grow", 1, **options) == [2]

    def test_soft_draws_in_proportion_to_the_score(self, p_value):
        score, draws = LinkPrediction("CH2", by="node", soft=True), 3000
        worth, generator = torch.tensor([[0.5, 1.5, 3.0, 0.0]]), seeded_generator("links")
        among = torch.tensor([[True, True, True, False]])
        grown = sum(
            score.highest(worth, 1, among, 3, generator).long().flatten() for _ in range(draws)
        )
        assert grown[3] == 0
        assert p_value(grown[:3], draws * torch.tensor([0.1, 0.3, 0.6])) > 1e-3

    def test_a_pattern_without_inputs_is_refused_at_once(self):
        with pytest.raises(ValueError, match="output and an input"):
            regrow.CHT(density=0.5, pattern=Channel())

    @pytest.mark.parametrize(("argument", "value"), [("rule", "CH4"), ("by", "walk")])
    def test_other_rules_are_refused(self, argument, value):
        with pytest.raises(ValueError, match=rf"{argument}='{value}': must be one of"):
            LinkPrediction(**{argument: value})


def test_relative_importance_weighs_by_input_and_by_output(choose):
    """Rows sum to 4 and 10, columns to 4, 4, 4 and 2: .5 1 0 .75 and 1.05 .7 1.4 .6."""
    weight = torch.tensor([[1.0, -2.0, 0.0, 1.0], [-3.0, 2.0, 4.0, 1.0]])
    order = [2, 0, 7, 5, 3, 1, 4, 6]
    for k in range(9):
        assert choose(RelativeImportance(), "drop", k, weight=weight) == sorted(order[:k])


def test_soft_needs_scores_it_can_draw_by(weights, step_by_hand):
    """A running average made soft either works or is refused; it does not fail at an update."""
    try:
        method = regrow.CHTs(density=0.5, drop=Soft(Running(Magnitude())), update_every=2)
    except ValueError:
        return
    model = weights([(6, 8)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=20, include="*")
    for step in range(5):
        step_by_hand(model, optimizer, "normal", step)
    assert len(sparse.history) == 2


class TestChains:
    """Two inputs, three and three hidden units, two outputs; weights of layers are out × in."""

    MASKS = (
        torch.tensor([[1, 0], [1, 1], [0, 1]]),
        torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1]]),
        torch.tensor([[1, 1, 0], [0, 0, 1]]),
    )

    @pytest.fixture
    def proposed(self, layer, proposal):
        """proposed(lightest): masks after the named link, the lightest, was dropped."""

        def propose(lightest, **options):
            method = regrow.CHT(density=0.5, grow=Gradient(), **options)
            layers, signals, moves = [], {}, {}
            for name, mask in zip("abc", self.MASKS, strict=True):
                layers.append(
                    layer(tuple(mask.shape), int(mask.sum()), name=name, mask=mask.bool())
                )
                before = layers[-2].name if len(layers) > 1 else None
                layers[-1].planned = dataclasses.replace(layers[-1].planned, after=before)
                weight = mask.float()
                if name == lightest[0]:
                    weight[lightest[1]] = 0.1
                    moves[name] = Moves(exchange=1)
                # Whatever is grown is grown at the front.
                signals[name] = {"weight": weight, "gradient": -torch.arange(9.0)[: mask.numel()]}
                signals[name]["gradient"] = (10 + signals[name]["gradient"]).reshape(mask.shape)
            moves = {name: moves.get(name, Moves()) for name in "abc"}
            found = proposal(method, layers, signals, moves)
            return [units.int().tolist() for units in found.values()]

        return propose

    def test_what_nobody_reads_is_taken_out_backwards(self, proposed):
        """The last output lets go of the third unit, which lets go of the third before it."""
        assert proposed(("c", (1, 2)), regrow_dropped=False) == [
            [[1, 1], [1, 1], [0, 0]],
            [[1, 1, 0], [1, 1, 0], [0, 0, 0]],
            [[1, 1, 1], [0, 0, 0]],
        ]

    def test_what_reads_nothing_is_taken_out_forwards(self, proposed):
        """The first unit loses its input, the first after it what it read, and its reader it."""
        assert proposed(("a", (0, 0)), regrow_dropped=False) == [
            [[0, 1], [1, 1], [0, 1]],
            # Both links from the first unit went; the first two free places follow.
            [[0, 1, 1], [0, 1, 0], [0, 0, 1]],
            [[0, 1, 1], [0, 0, 1]],
        ]

    def test_nothing_else_goes_without_chain_removal(self, proposed):
        first, second, third = (mask.tolist() for mask in self.MASKS)
        found = proposed(("c", (1, 2)), regrow_dropped=False, chain_removal=False)
        assert found == [first, second, [[1, 1, 1], [0, 0, 0]]]
        assert third != found[2]

    @pytest.mark.parametrize("seed", range(6, 10))
    @pytest.mark.parametrize("middle", ["dense", "excluded"])
    def test_layers_with_another_between_them_are_no_chain(self, middle, seed):
        model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        density = {"1.weight": 1.0, "*": 0.15} if middle == "dense" else {"*": 0.15}
        method = regrow.CHT(density=density, drop_fraction=0.3, update_every=1)
        exclude = "1.weight" if middle == "excluded" else None
        sparse = regrow.sparsify(
            model, optimizer, method, total_steps=9, exclude=exclude, seed=seed
        )
        assert not sparse.masks["2.weight"].any(0).all()  # some unit there is not read
        model(torch.ones(1, 8)).sum().backward()
        optimizer.step()
        change = sparse.history[0].layers["0.weight"]
        assert change.dropped <= math.floor(0.3 * change.active)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([regrow.CHT, regrow.CHTs]), st.floats(0.02, 0.98), st.booleans())
def test_counts_hold_at_every_density_whatever_chains_break(kind, density, regrow_dropped):
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = kind(density=density, drop_fraction=0.5, update_every=1, regrow_dropped=regrow_dropped)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=9)
    counts = [int(mask.sum()) for mask in sparse.masks.values()]
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.ones(3, 6)).square().sum().backward()
        optimizer.step()
        assert [int(mask.sum()) for mask in sparse.masks.values()] == counts


def test_redistribution_is_done_or_refused(mlp, train):
    try:
        method = regrow.CHT(density=0.3, redistribute="gradient", update_every=2)
    except ValueError:
        return
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=20)
    before = [int(mask.sum()) for mask in sparse.masks.values()]
    train(model, optimizer, range(8))
    after = [int(mask.sum()) for mask in sparse.masks.values()]
    assert sum(after) == sum(before)
    assert after != before
