"""A layout, its chart and what they compute of themselves are those of all fits of one form."""

import pickle
from typing import NamedTuple

import numpy as np
import pytest

import jaxmle as jm
from jaxmle.parameters.tree import MAX_ENTRIES_OF_SHARED_LAYOUT, Layout, layout_of


def start(size=2):
    return {"beta": np.zeros(size), "sigma": np.ones(())}


def test_parameters_of_one_form_share_a_layout_and_its_charts():
    layout = layout_of(start(), {"sigma": jm.positive})
    again = layout_of({"sigma": np.array(7.0), "beta": np.ones(2)}, {"sigma": jm.positive})
    assert again is layout
    assert layout.chart((False, False, True)) is layout.chart((False, False, True))
    assert layout.chart((False, False, True)).k == 2
    assert layout.chart((False,) * 3).k == 3


@pytest.mark.parametrize(
    "params, constraints",
    [
        (start(), None),
        (start(), {"sigma": jm.interval(0.0, 1.0)}),
        (start(3), {"sigma": jm.positive}),
        ({"beta": np.zeros(2), "tau": np.ones(())}, {"tau": jm.positive}),
        ({"beta": np.zeros((2, 1)), "sigma": np.ones(())}, {"sigma": jm.positive}),
    ],
)
def test_another_form_or_constraint_is_another_layout(params, constraints):
    assert layout_of(params, constraints) != layout_of(start(), {"sigma": jm.positive})


class Parameters(NamedTuple):
    beta: np.ndarray


def test_what_keeps_a_users_class_or_much_memory_is_not_shared():
    for params in (Parameters(np.zeros(2)), {"w": np.zeros(MAX_ENTRIES_OF_SHARED_LAYOUT + 1)}):
        assert layout_of(params) == layout_of(params)
        assert layout_of(params) is not layout_of(params)


def test_a_pickled_layout_takes_nothing_along_that_was_computed():
    """Strings hash otherwise in another process, and a dictionary would not find the layout."""
    layout = layout_of(start(), {"sigma": jm.positive})
    hash(layout)
    assert layout.names == ("beta[0]", "beta[1]", "sigma")
    copy = pickle.loads(pickle.dumps(layout))
    assert set(vars(copy)) == {"treedef", "leaves"}
    assert copy == layout
    assert isinstance(copy, Layout)


def test_a_mistake_in_the_parameters_is_said_each_time():
    for _ in range(2):
        with pytest.raises(ValueError, match="every leaf is empty"):
            layout_of({"beta": np.zeros(0)})
