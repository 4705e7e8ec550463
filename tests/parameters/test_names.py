"""The printed entries of a parameter tree: names, bounds, and the way from tree to vector and back."""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import jaxmle as jm
from jaxmle.parameters import Chart, layout_of


class Line(NamedTuple):
    slope: np.ndarray
    sigma: np.ndarray


@partial(jax.tree_util.register_dataclass, data_fields=["shift", "scale"], meta_fields=["label"])
@dataclass(frozen=True)
class Scale:
    shift: np.ndarray
    scale: np.ndarray
    label: str = "metres"


TREES = {
    "dict": (
        {"sigma": np.array(1.0), "beta": np.array([2.0, 3.0])},
        ("beta[0]", "beta[1]", "sigma"),
    ),
    "nested dict": (
        {"b": {"v": np.array([[3.0, 4.0]]), "u": np.array(2.0)}, "a": np.array(1.0)},
        ("a", "b.u", "b.v[0,0]", "b.v[0,1]"),
    ),
    "named tuple": (Line(np.array([1.0, 2.0]), np.array(3.0)), ("slope[0]", "slope[1]", "sigma")),
    "dataclass": (Scale(np.array(1.0), np.array([2.0])), ("shift", "scale[0]")),
    "dataclass in dict": (
        {"law": Scale(np.array(1.0), np.array(2.0)), "c": np.array(0.5)},
        ("c", "law.shift", "law.scale"),
    ),
    "list": ([np.array(1.0), np.array([2.0, 3.0])], ("[0]", "[1][0]", "[1][1]")),
    "list in dict": ({"layer": [np.array(1.0), np.array(2.0)]}, ("layer[0]", "layer[1]")),
    "bare scalar": (np.array(1.0), ("theta",)),
    "bare vector": (np.array([1.0, 2.0]), ("theta[0]", "theta[1]")),
    "bare matrix": (np.array([[1.0, 2.0]]), ("theta[0,0]", "theta[0,1]")),
}


@pytest.mark.parametrize("case", TREES)
def test_names_follow_the_tree(case):
    tree, names = TREES[case]
    assert layout_of(tree).names == names


@pytest.mark.parametrize("case", TREES)
def test_ravel_and_unravel_are_inverse(case):
    tree, names = TREES[case]
    layout = layout_of(tree)
    flat = layout.ravel(tree)
    assert flat.shape == (len(names),)
    assert_array_equal(flat, np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]))
    back = layout.unravel(flat)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    jax.tree.map(assert_array_equal, back, tree)


def test_names_and_bounds_have_one_entry_per_printed_number():
    tree = {
        "r": np.eye(3),
        "s": np.eye(2),
        "w": np.full(2, 0.5),
        "cut": np.array([0.0, 1.0]),
        "p": np.array(0.2),
    }
    layout = layout_of(
        tree,
        {
            "r": jm.correlation,
            "s": jm.covariance,
            "w": jm.simplex,
            "cut": jm.ordered,
            "p": jm.interval(0, 1),
        },
    )
    assert layout.names == (
        "cut[0]",
        "cut[1]",
        "p",
        "r[1,0]",
        "r[2,0]",
        "r[2,1]",
        "s[0,0]",
        "s[1,0]",
        "s[1,1]",
        "w[0]",
        "w[1]",
    )
    real = (-math.inf, math.inf)
    assert layout.bounds == (
        real,
        real,
        (0, 1),
        *[(-1, 1)] * 3,
        (0, math.inf),
        real,
        (0, math.inf),
        (0, 1),
        (0, 1),
    )


def test_structural_entries_carry_no_standard_error():
    layout = layout_of({"r": np.eye(2), "s": np.eye(2)}, {"r": jm.correlation, "s": jm.covariance})
    worn = layout.unravel_entries(np.array([0.1, 0.2, 0.3, 0.4]))
    assert_array_equal(worn["r"], [[np.nan, 0.1], [0.1, np.nan]])
    assert_array_equal(worn["s"], [[0.2, 0.3], [0.3, 0.4]])


def test_free_coordinates_are_counted_by_dimension():
    """A simplex of m has m − 1, a correlation matrix k(k − 1)/2, a covariance k(k + 1)/2; a fixed entry none."""
    tree = {"r": np.eye(4), "s": np.eye(3), "w": np.full((2, 3), 1 / 3), "b": np.zeros(2)}
    layout = layout_of(tree, {"r": jm.correlation, "s": jm.covariance, "w": jm.simplex})
    assert Chart(layout, (False,) * layout.p).k == 2 + 6 + 6 + 2 * 2
    still = tuple(name == "b[1]" for name in layout.names)
    assert Chart(layout, still).k == 1 + 6 + 6 + 2 * 2


def test_find_takes_an_entry_or_a_whole_leaf():
    layout = layout_of({"a": np.zeros(2), "s": np.eye(2)}, {"s": jm.covariance})
    assert layout.find("a") == [0, 1]
    assert layout.find("a[1]") == [1]
    assert layout.find("s") == [2, 3, 4]
    with pytest.raises(ValueError, match=r"no parameter is called 'b'; the parameters are a\[0\]"):
        layout.find("b")


PREFIXES = {
    "one for all": (Line(np.ones(2), np.ones(())), jm.positive, [(0, math.inf)] * 3),
    "by field": (
        Line(np.ones(2), np.ones(())),
        {"sigma": jm.positive},
        [(-math.inf, math.inf)] * 2 + [(0, math.inf)],
    ),
    "tuple like the tree": (
        Line(np.ones(2), np.ones(())),
        Line(None, jm.positive),
        [(-math.inf, math.inf)] * 2 + [(0, math.inf)],
    ),
    "subtree": (
        {"a": {"b": np.ones(1), "c": np.ones(1)}, "d": np.ones(1)},
        {"a": jm.positive},
        [(0, math.inf)] * 2 + [(-math.inf, math.inf)],
    ),
    "nested": (
        {"a": {"b": np.ones(1), "c": np.ones(1)}},
        {"a": {"c": jm.upper(2)}},
        [(-math.inf, math.inf), (-math.inf, 2)],
    ),
    "list": (
        [np.ones(()), np.ones(())],
        [None, jm.lower(0.5)],
        [(-math.inf, math.inf), (0.5, math.inf)],
    ),
    "dataclass": (
        Scale(np.array(1.0), np.array(2.0)),
        {"scale": jm.positive},
        [(-math.inf, math.inf), (0, math.inf)],
    ),
}


@pytest.mark.parametrize("case", PREFIXES)
def test_constraints_are_a_tree_prefix(case):
    tree, constraints, bounds = PREFIXES[case]
    assert layout_of(tree, constraints).bounds == tuple(bounds)


def test_a_misspelt_constraint_is_refused_by_name():
    with pytest.raises(
        ValueError,
        match=r"constraints name 'sgima', but params has no such entry; it has \['beta', 'sigma'\]",
    ):
        layout_of({"beta": np.zeros(2), "sigma": np.ones(())}, {"sgima": jm.positive})
    with pytest.raises(ValueError, match="constraints name 'scal'"):
        layout_of({"law": Line(np.ones(1), np.ones(()))}, {"law": {"scal": jm.positive}})


def test_what_is_not_a_constraint_is_refused():
    with pytest.raises(
        TypeError, match="the constraint for sigma must be one of jaxmle's constraints"
    ):
        layout_of({"sigma": np.ones(())}, {"sigma": "positive"})


def test_a_tree_without_parameters_is_refused():
    with pytest.raises(ValueError, match="params has no leaves"):
        layout_of({})
    with pytest.raises(ValueError, match="every leaf is empty"):
        layout_of({"beta": np.zeros(0)})


def test_a_matrix_constraint_needs_a_square_matrix():
    with pytest.raises(
        ValueError, match=r"covariance constraint needs a square matrix; got shape \(2, 3\)"
    ):
        _ = layout_of({"s": np.ones((2, 3))}, {"s": jm.covariance}).names


def sum_of_squares(params, data):
    return (
        -sum(jnp.sum((leaf - 1) ** 2) for leaf in jax.tree.leaves(params)) / data.shape[0]
        - 0 * data
    )


STARTS = {
    "positive": ({"s": np.array([1.0, 0.0])}, jm.positive, "strictly between 0 and inf"),
    "negative": ({"s": np.array(0.5)}, jm.negative, "strictly between -inf and 0"),
    "interval": ({"s": np.array(2.5)}, jm.interval(0, 2), "strictly between 0 and 2"),
    "lower": ({"s": np.array(1.0)}, jm.lower(1), "strictly between 1 and inf"),
    "upper": ({"s": np.array(3.0)}, jm.upper(1), "strictly between -inf and 1"),
    "simplex sum": ({"s": np.array([0.5, 0.6])}, jm.simplex, "positive and summing to one"),
    "simplex sign": ({"s": np.array([-0.5, 1.5])}, jm.simplex, "positive and summing to one"),
    "ordered": ({"s": np.array([0.0, 0.0])}, jm.ordered, "strictly increasing"),
    "correlation diagonal": (
        {"s": np.array([[2.0, 0.1], [0.1, 1.0]])},
        jm.correlation,
        "unit diagonal",
    ),
    "correlation definite": (
        {"s": np.array([[1.0, 1.5], [1.5, 1.0]])},
        jm.correlation,
        "positive definite",
    ),
    "covariance symmetric": (
        {"s": np.array([[2.0, 0.5], [0.1, 1.0]])},
        jm.covariance,
        "symmetric positive definite",
    ),
    "covariance definite": (
        {"s": np.array([[1.0, 2.0], [2.0, 1.0]])},
        jm.covariance,
        "positive definite",
    ),
}


@pytest.mark.parametrize("case", STARTS)
def test_a_start_outside_its_bound_is_refused(case):
    start, constraint, told = STARTS[case]
    with pytest.raises(ValueError, match=f"the start of s must be .*{told}"):
        jm.fit(sum_of_squares, start, np.zeros(4), constraints={"s": constraint})
