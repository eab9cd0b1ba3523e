"""The crossing: its ways, its lines, and those that are left out."""

from itertools import product

import numpy as np
import pytest

from regrow.motion.scene import LINES
from regrow.motion.simulator.crossing import (
    ARM,
    BIKE,
    CROSSING,
    LANE,
    TURNS,
    Road,
    along,
    corner,
    map_lines,
    pavement,
    towards,
    way,
)

OPEN = (Road(),) * 4


@pytest.mark.parametrize(("arm", "turn", "side"), list(product(range(4), range(3), (LANE, BIKE))))
def test_a_way_keeps_to_the_right_and_turns_as_told(arm, turn, side):
    line = way(arm, turn, side)
    length = np.linalg.norm(np.diff(line, axis=0), axis=1).sum()
    places, headings = along(line, np.linspace(0, length - 1e-6, 400))
    turned = np.unwrap(headings)
    assert turned[-1] - turned[0] == pytest.approx((np.pi / 2, 0, -np.pi / 2)[turn])
    assert np.abs(np.diff(turned)).max() < 0.25  # no kink
    for end in (0, -1):  # the middle of the road is to the left
        left = np.array([-np.sin(headings[end]), np.cos(headings[end])])
        assert places[end] @ left == pytest.approx(-side)
    assert np.abs(places[0]).max() == pytest.approx(ARM)
    assert places[0] @ towards(arm) == pytest.approx(ARM)


def test_all_intents_share_one_way_up_to_the_crossing():
    for arm, side in product(range(4), (LANE, BIKE)):
        ways = [
            along(way(arm, turn, side), np.linspace(0, ARM - CROSSING, 50)) for turn in (0, 1, 2)
        ]
        for places, headings in ways[1:]:
            np.testing.assert_allclose(places, ways[0][0], atol=1e-9)
            np.testing.assert_allclose(np.cos(headings - ways[0][1])[:-1], 1)


@pytest.mark.parametrize(("arm", "side", "turn"), list(product(range(4), (-1, 1), (0, 2))))
def test_one_turn_on_foot_leads_over_the_crosswalk_and_the_other_around_the_corner(arm, side, turn):
    line = pavement(arm, side, turn)
    crossed = np.abs(along(line, np.linspace(0, 100, 2000))[0] @ towards(arm + 1)).min() < 0.1
    assert crossed == ((turn == 0) == (side == 1))
    places, _ = along(line, np.linspace(0, ARM - 12, 20))
    apart = [np.linalg.norm(places - corner(k), axis=1).min() for k in range(4)]
    assert np.argmin(apart) == (arm if side == 1 else (arm - 1) % 4)


def test_points_of_lines_are_no_further_apart_than_mtr_allows():
    for _, line in map_lines(OPEN):
        steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
        assert steps.min() > 0
        assert steps.max() < 1


def test_what_is_not_open_is_not_on_the_map():
    whole = [kind for kind, _ in map_lines(OPEN)]
    assert whole.count(LINES["crosswalk"]) == 4
    assert whole.count(LINES["street"]) == whole.count(LINES["bike lane"]) == 4 * (2 + 3)
    one = (Road(turn=2, crosswalk=False), *OPEN[1:])
    left = [kind for kind, _ in map_lines(one)]
    assert left.count(LINES["crosswalk"]) == 3
    assert left.count(LINES["street"]) == left.count(LINES["bike lane"]) == 4 * (2 + 3) - 2
    assert Road(turn=2).turns == (2,)
    assert len(TURNS) == len(Road().turns) == 3


def test_a_crosswalk_leads_from_one_edge_of_the_road_to_the_other():
    for k, line in enumerate(
        [line for kind, line in map_lines(OPEN) if kind == LINES["crosswalk"]]
    ):
        np.testing.assert_allclose(line[0], line[-1])
        across, out = line @ towards(k + 1), line @ towards(k)
        assert (across.min(), across.max()) == (-5, 5)
        assert out.min() > 5
        assert out.max() < CROSSING
