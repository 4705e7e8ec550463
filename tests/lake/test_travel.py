"""Likelihoods travel: what is pickled fits as before where it arrives, and takes no compiled program along."""

import copy
import pickle

import cloudpickle
import jax
import numpy as np
import pytest

import jaxmle as jm
from jaxmle import families, models
from jaxmle.likelihood.contract import as_tree
from jaxmle.runtime.compile import compiled, precision

OPTIONS = {
    "multinomial": (3,), "ordinal": (3,), "aft": ("weibull",), "quantile": (0.5,),
    "distribution": (families.gamma,),
}  # fmt: skip
READY = [name for name in models.__all__ if name not in ("Model", "collinear_columns")]
X = np.column_stack([np.ones(8), np.arange(8.0)])
DATA = {"x": X, "y": np.array([0.0, 0, 1, 0, 1, 0, 1, 1])}


def copied(thing):
    return pickle.loads(pickle.dumps(thing))


def keep_a_program(loglik):
    """What a fit leaves on a likelihood, without the time of compiling it."""
    with precision(np.float64):
        compiled(as_tree(loglik), "test", lambda copy: copy)


@pytest.mark.parametrize("name", READY)
def test_a_ready_model_is_the_same_object_where_it_arrives(name):
    """So whatever was compiled for it there is found, though it arrives forty times."""
    model = getattr(models, name)(*OPTIONS.get(name, ()))
    assert copied(model) is model
    keep_a_program(model)
    assert copied(model) is model


def combinators():
    logistic = models.logistic()
    return {
        "weight": jm.weight(logistic, jm.frequency(np.ones(8))),
        "penalize": jm.penalize(logistic, jm.ridge(0.1)),
        "normal prior": jm.penalize(logistic, jm.normal_prior(0.0, 1.0)),
        "jeffreys": jm.penalize(logistic, jm.jeffreys(logistic)),
        "pool": jm.pool(logistic, models.distribution(families.gamma)),
        "fix": jm.fix(logistic, {"beta[0]": 0.5}),
        "tie": jm.tie(logistic, ("beta[0]", "beta[1]")),
        "enumeration": jm.with_response(logistic, jm.enumeration("y", [0.0, 1.0])),
        "simulation": jm.with_response(
            logistic, jm.simulation(logistic.sample, key=jax.random.key(0))
        ),
        "opaque": jm.opaque(logistic),
        "mixture_of": jm.mixture_of(families.normal, 2),
        "gaussian_mixture": jm.gaussian_mixture(2),
        "censored": families.censored(families.gamma),
        "truncated": families.truncated(families.normal, 0.0),
        "rounded": families.rounded(families.normal),
        "mixture": families.mixture(families.normal, families.laplace),
        "zero_inflated": families.zero_inflated(families.poisson),
        "hurdle": families.hurdle(families.poisson),
    }


@pytest.mark.parametrize("name", combinators())
def test_a_combinator_travels_before_and_after_programs_are_kept_on_it(name):
    likelihood = combinators()[name]
    assert type(copied(likelihood)) is type(likelihood)
    keep_a_program(likelihood)
    assert type(copied(likelihood)) is type(likelihood)


def test_a_part_of_a_pool_is_the_likelihood_of_its_model():
    """The symptom: a pool holds the likelihoods of models, whose checks of coding are closures."""
    pool = jm.pool(models.logistic(), models.distribution(families.gamma))
    arrived = copied(pool)
    assert arrived.members[0] is pool.members[0]
    assert arrived.members[1] is pool.members[1]


@pytest.mark.parametrize("name", families.__all__)
def test_a_family_travels_by_its_name(name):
    family = getattr(families, name)
    assert copied(family) is family


def test_a_made_family_that_arrives_forty_times_is_one_object():
    text = pickle.dumps(families.truncated(families.normal, 0.0))
    assert len({id(pickle.loads(text)) for _ in range(40)}) == 1


def test_a_wrapper_of_a_ready_function_is_not_taken_for_it():
    """functools.wraps copies attributes, the record of how a function was made among them."""
    inner = as_tree(models.distribution(families.gamma)).function
    wrapper = ScaledCopy(inner)
    vars(wrapper).update(vars(inner))
    assert isinstance(copied(as_tree(wrapper)).function, ScaledCopy)


class ScaledCopy:
    def __init__(self, inner):
        self.inner = None

    def __call__(self, params, data):
        return -((data - params["a"]) ** 2)


def test_a_fitted_function_travels_without_what_was_compiled_of_it():
    """The symptom: 16 MB of closure became 32, with copies of its arrays for each precision."""
    array = np.zeros(2_000_000)

    def square(params, data):
        return -((data - params["a"] - array[0]) ** 2)

    y = np.array([1.0, 2.0, 6.0])
    first = jm.fit(square, {"a": 0.0}, y)
    sent = cloudpickle.dumps(square)
    assert len(sent) < 17e6
    assert float(jm.fit(cloudpickle.loads(sent), {"a": 0.0}, y).x[0]) == float(first.x[0])


def test_a_fit_and_its_groups_travel():
    fit = jm.fit(models.logistic(), data=DATA)
    arrived = copied(fit)
    assert arrived.names == fit.names
    np.testing.assert_array_equal(arrived.vcov, fit.vcov)
    assert copied(models.logistic()) is models.logistic()
    assert copy.deepcopy(fit).verdict is fit.verdict


def test_a_coded_frame_travels():
    table = {"y": DATA["y"], "g": np.repeat(["a", "b"], 4)}
    frame = jm.from_formula("y ~ C(g)", table)
    assert copied(frame).names == frame.names
