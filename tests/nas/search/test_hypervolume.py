"""The dominated area against counting small squares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import ConfigError
from nas.search.hypervolume import hypervolume

SIDE = 8
points = st.lists(st.tuples(st.integers(0, SIDE + 2), st.integers(0, SIDE + 2)), max_size=12)


@settings(max_examples=200, deadline=None)
@given(points)
def test_it_is_the_area_that_is_dominated(found):
    covered = sum(any(x <= i and y <= j for x, y in found) for i in range(SIDE) for j in range(SIDE))
    costs = np.array(found, float).reshape(-1, 2)
    assert hypervolume(costs, np.array([SIDE, SIDE], float)) == covered


def test_three_objectives_are_refused():
    with pytest.raises(ConfigError, match="two objectives"):
        hypervolume(np.zeros((2, 3)), np.zeros(3))
