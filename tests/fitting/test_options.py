"""One door: what is wrong with a start or an option is refused in the same words by every procedure that takes it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmle as jm
from jaxmle import models
from jaxmle.fitting.options import Options
from jaxmle.inference.diagnostics.bias_reduction import mean_br
from jaxmle.plots.search_path import path_of
from jaxmle.stochastic.stochastic import fit_stochastic

Y = np.array([1.0, 3.0, 2.0, 6.0, 0.0, 2.0])
START = {"log_rate": 0.5}


def poisson(params, y):
    return y * params["log_rate"] - jnp.exp(params["log_rate"])


def stochastic(loglik, start, y, **options):
    return fit_stochastic(
        loglik, start, y, optimizer=optax.sgd(0.1), batch_size=3, epochs=1, **options
    )


def batch(loglik, start, y, **options):
    return jm.fit_batch(loglik, start, [y, y[:4]], **options)


DOORS = {
    "fit": jm.fit,
    "fit_batch": batch,
    "fit_stochastic": stochastic,
    "mean_br": mean_br,
    "lint": jm.lint,
    "path_of": path_of,
}


def words(door, *args, **options):
    with pytest.raises((ValueError, TypeError)) as error:
        DOORS[door](*args, **options)
    return str(error.value)


@pytest.mark.parametrize("door", DOORS)
def test_a_missing_start_is_refused_in_the_words_of_fit(door):
    assert words(door, poisson, None, Y) == words("fit", poisson, None, Y)
    assert words(door, poisson, None, Y).startswith("params0 is missing: give start values")


def test_missing_starts_are_refused_by_the_name_of_their_argument():
    with pytest.raises(ValueError, match="starts is missing: give start values or a sampler"):
        jm.multistart(poisson, None, Y)


@pytest.mark.parametrize("door", sorted(set(DOORS) - {"fit"}))  # which evaluates it there
def test_a_likelihood_without_free_parameters_is_refused_in_the_words_of_fit(door):
    fixed = jm.fix(poisson, {"log_rate": 0.0})
    assert words(door, fixed, START, Y) == "every parameter is fixed: there is nothing to estimate"


@pytest.mark.parametrize("door", sorted(set(DOORS) - {"lint", "path_of"}))
def test_an_unknown_precision_is_refused_in_the_words_of_fit(door):
    assert words(door, poisson, START, Y, dtype="int32") == (
        "dtype must be float64 or float32; got 'int32'"
    )


@pytest.mark.parametrize("door", ["fit", "fit_batch", "mean_br", "path_of"])
@pytest.mark.parametrize("steps", [-1, 2.5, True, "many"])
def test_a_number_of_steps_that_is_none_is_refused_in_the_words_of_fit(door, steps):
    message = words(door, poisson, START, Y, max_steps=steps)
    assert message.startswith("max_steps must be a whole number, zero or more; got")


@pytest.mark.parametrize("door", ["lint", "path_of"])
def test_a_ready_model_brings_its_start_to_every_procedure(door):
    """lint and path_of once took no model without a start."""
    x = np.column_stack([np.ones(6), [0.1, 0.9, 0.4, 1.5, -0.5, 0.3]])
    result = DOORS[door](models.poisson(), None, {"x": x, "y": Y})
    assert result.ok if door == "lint" else len(result.x) > 1


@pytest.mark.parametrize("procedure", [jm.fit, mean_br])
def test_truth_values_for_parameters_are_refused_under_a_trace(procedure):
    with pytest.raises(TypeError, match=r"params\['log_rate'\] has dtype bool"):
        jax.jit(lambda y: procedure(poisson, {"log_rate": True}, y).loglik)(Y)


def test_options_are_plain_values_after_the_check():
    options = Options(max_steps=np.int64(7), block_rows=jnp.asarray(3), dtype="float32")
    assert (options.max_steps, options.block_rows) == (7, 3)
    assert type(options.max_steps) is int and type(options.block_rows) is int
    assert options.dtype == np.dtype(np.float32)


def test_a_matrix_of_no_entries_beside_a_parameter_was_an_error_of_numpy():
    start = {"a": 0.0, "none": np.zeros((0, 3)), "nothing": None}
    fit = jm.fit(lambda p, d: -((d - p["a"]) ** 2) - p["none"].sum(), start, np.arange(4.0))
    assert fit.params["a"] == 1.5
    assert fit.params["none"].shape == (0, 3)
    assert fit.params["nothing"] is None
