"""One likelihood, many hands: however it is written, and on whichever road it is fitted, status, estimates and standard errors are the
same. ``many_hands`` holds the forms and the answers; a failure lists form, road and what was seen how often."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from .answers import two_derivatives
from .many_hands import FORMS, faults_of, table, written
from .many_limits import LIKELIHOODS

# One of each kind, in the two forms that most people write, from one start on the host.
REPRESENTATIVES = (
    "normal",
    "quasi_separation",
    "no_events",
    "product",
    "cubic",
    "dose_response",
    "equal_values",
    "quotient_of_itself",
)
WITH_MAXIMUM = [
    name
    for name, likelihood in LIKELIHOODS.items()
    if likelihood.kind in ("regular", "inflection", "plateau")
]


def test_there_are_thirty_likelihoods_of_eight_kinds_in_six_forms():
    kinds = {likelihood.kind for likelihood in LIKELIHOODS.values()}
    assert (len(LIKELIHOODS), len(kinds), len(FORMS)) == (30, 8, 6)


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_a_likelihood_of_each_kind_is_right_declared_and_inside(name):
    faults = faults_of(name, forms=("declared", "inside"), roads=("alone",), starts=1)
    assert not faults, "\n" + table(faults)


def test_equal_values_as_a_quotient_were_climbed_to_the_limit_of_steps():
    """Mean and deviation bend away from one another: a step follows them a hundredth of the way."""
    faults = faults_of("equal_values", forms=("quotient",), roads=("alone",))
    assert not faults, "\n" + table(faults)


@pytest.mark.thorough
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_likelihood_is_the_same_in_every_form_alone_and_in_a_batch(name):
    faults = faults_of(name, roads=("alone", "batch"))
    assert not faults, "\n" + table(faults)


@pytest.mark.thorough
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_likelihood_is_the_same_under_jit_of_vmap(name):
    """In the forms that most people write: each program takes seconds to compile, and the other forms differ by their likelihood only."""
    faults = faults_of(name, forms=("declared", "inside"), roads=("traced",))
    assert not faults, "\n" + table(faults)


@pytest.mark.parametrize("name", WITH_MAXIMUM)
def test_the_stated_maximum_is_one(name):
    """By the derivatives of jax: the score vanishes there and the inverse information is the stated covariance."""
    likelihood = LIKELIHOODS[name]
    right = likelihood.answer()
    with jax.enable_x64(True):

        def value(q):
            return jnp.sum(likelihood.terms(tuple(q), likelihood.data))

        hessian, score = two_derivatives(value)(right.estimate)
    stderr = np.sqrt(np.diag(right.vcov))
    # Within a hundredth of the tolerance of the fits.
    assert_allclose(right.vcov @ score / stderr, 0, atol=1e-8)
    assert_allclose(np.linalg.inv(-hessian), right.vcov, rtol=1e-7, atol=1e-9 * stderr.max() ** 2)


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_of_one_likelihood_agree_at_its_start(form):
    """The same number by every way of writing."""
    for name, likelihood in LIKELIHOODS.items():
        as_written = written(name, form)
        if as_written is not None:
            start = likelihood.starts[0]
            with jax.enable_x64(True):
                plain = jnp.sum(likelihood.terms(tuple(map(float, start)), likelihood.data))
                value = jnp.sum(as_written.loglik(as_written.start(start), likelihood.data))
            assert_allclose(value, plain, rtol=1e-12)
