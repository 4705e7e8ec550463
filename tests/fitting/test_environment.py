"""Fits under whatever a user has set: the same numbers, or an error that says what to do. And fits inside jax's own transformations."""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from numpy.testing import assert_allclose

import jaxmle as jm
from tests.likelihoods import logit

RNG = np.random.default_rng(12)
Y = RNG.exponential(2.0, size=24)
MANY = RNG.exponential(2.0, size=(4, 24))
X = np.column_stack([np.ones(12), np.linspace(-1.0, 1.0, 12)])
SEPARATED = {"x": X, "y": (X[:, 1] > 0).astype(float)}
RATE, ERROR = 1 / Y.mean(), 1 / (Y.mean() * np.sqrt(len(Y)))


def exponential(params, data):
    """Without its constraint: a trial step to a negative rate is NaN."""
    return jnp.log(params["rate"]) - params["rate"] * data


@contextlib.contextmanager
def setting(name, value):
    """A global setting of jax, put back afterwards."""
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


ENVIRONMENTS = {
    "debug_nans": partial(setting, "jax_debug_nans", True),
    "debug_infs": partial(setting, "jax_debug_infs", True),
    "debug_nans of a thread": partial(jax.debug_nans, True),
    "transfer_guard": partial(jax.transfer_guard, "disallow"),
    "strict promotion": partial(setting, "jax_numpy_dtype_promotion", "strict"),
    "no promotion of ranks": partial(setting, "jax_numpy_rank_promotion", "raise"),
    "tracer leaks": partial(setting, "jax_check_tracer_leaks", True),
    "x64": partial(setting, "jax_enable_x64", True),
    "device": lambda: jax.default_device(jax.devices()[0]),
    "low matmul precision": partial(setting, "jax_default_matmul_precision", "bfloat16"),
}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_fit_gives_its_numbers_whatever_is_set(environment):
    with ENVIRONMENTS[environment]():
        fit = jm.fit(exponential, {"rate": 8.0}, Y)
        apart = jm.fit(logit, {"beta": np.zeros(2)}, SEPARATED)
        batch = jm.fit_batch(exponential, {"rate": 0.3}, MANY, progress=False)
        interval = jm.profile(exponential, fit, Y).interval()
        hessian = jm.hessian(exponential)({"rate": 1.0}, Y)
    assert fit.converged and np.all(batch.converged)
    assert apart.verdict == jm.Status.SEPARATED
    assert_allclose([fit.params["rate"], fit.stderr["rate"]], [RATE, ERROR], rtol=1e-9)
    assert_allclose(batch.params["rate"], 1 / MANY.mean(axis=1), rtol=1e-9)
    assert_allclose(hessian, [[-len(Y)]], rtol=1e-12)
    assert np.all(interval[0] > [0, RATE]) and interval[0, 0] < RATE


def test_a_fit_without_jit_gives_its_numbers():
    with jax.disable_jit():
        fit = jm.fit(exponential, {"rate": 0.3}, Y)
    assert_allclose([fit.params["rate"], fit.stderr["rate"]], [RATE, ERROR], rtol=1e-9)


@pytest.mark.parametrize("name", ["jax_debug_nans", "jax_debug_infs"])
def test_an_alarm_that_a_user_sets_stays_set_for_the_user(name):
    with setting(name, True):
        jm.fit(exponential, {"rate": 8.0}, Y)
        assert getattr(jax.config, name)


# ---------------------------------------------------------------- inside other transformations


def rate_of(y):
    fit = jm.fit(exponential, {"rate": jnp.ones((), y.dtype)}, y)
    return fit.params["rate"]


def rate_and_status_of(y):
    fit = jm.fit(exponential, {"rate": jnp.ones((), y.dtype)}, y)
    return fit.params["rate"], fit.status


def over_shards(function, spec, check=False):
    return jax.shard_map(
        function,
        mesh=jax.sharding.Mesh(np.array(jax.devices()[:1]), ("rows",)),
        in_specs=spec,
        out_specs=PartitionSpec(),
        check_vma=check,
    )


ROWS, MEMBERS = PartitionSpec("rows"), PartitionSpec(None, "rows")
SHARDED = {
    "rows": (over_shards(rate_and_status_of, ROWS), Y),
    "rows, checked": (over_shards(rate_and_status_of, ROWS, check=True), Y),
    "rows, a jitted fit": (over_shards(jax.jit(rate_of), ROWS), Y),
    "rows, vmap outside": (jax.vmap(over_shards(rate_of, ROWS)), MANY),
    "rows, vmap inside": (over_shards(jax.vmap(rate_of), MEMBERS), MANY),
    "members, vmap inside": (over_shards(jax.vmap(rate_of), ROWS), MANY),
}


@pytest.mark.parametrize("jitted", [True, False])
@pytest.mark.parametrize("kind", SHARDED)
def test_a_fit_in_a_shard_map_is_refused_wherever_vmap_stands(kind, jitted):
    """The symptom: CONVERGED, one standard error off, since one shard of the rows was fitted; with
    vmap inside or around the shard_map too, where rows and members cannot be told apart.
    """
    function, data = SHARDED[kind]
    with jax.enable_x64(True), pytest.raises(ValueError, match="one shard of the axis 'rows'"):
        (jax.jit(function) if jitted else function)(data)


@pytest.mark.parametrize("spec", [ROWS, MEMBERS], ids=["members", "rows"])
def test_the_remedy_named_there_fits_sharded_members_and_rows_alike(spec):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("rows",))
    with jax.enable_x64(True):
        sharded = jax.device_put(MANY, jax.sharding.NamedSharding(mesh, spec))
        rates, statuses = jax.jit(jax.vmap(rate_and_status_of))(sharded)
    assert np.all(np.asarray(statuses) == jm.Status.CONVERGED)
    assert_allclose(rates, 1 / MANY.mean(axis=1), rtol=1e-9)


TRANSFORMED = {
    "scan": lambda y: jax.lax.scan(lambda c, y: (c, rate_of(y)), 0, y)[1],
    "cond": lambda y: jax.lax.cond(y[0, 0] > 0, lambda: rate_of(y[0]), lambda: y[0, 0])[None],
    "while": lambda y: jax.lax.while_loop(
        lambda c: c[0] < 1, lambda c: (c[0] + 1, rate_of(y[c[0]])), (0, y[0, 0])
    )[1][None],
    "checkpoint": lambda y: jax.checkpoint(rate_of)(y[0])[None],
    "map": lambda y: jax.lax.map(rate_of, y),
}


@pytest.mark.parametrize(
    "name",
    ["scan", *(pytest.param(name, marks=pytest.mark.thorough) for name in list(TRANSFORMED)[1:])],
)
def test_a_fit_in_the_body_of_a_transformation_is_the_fit(name):
    with jax.enable_x64(True):
        rates = np.asarray(jax.jit(TRANSFORMED[name])(MANY[:2]))
    assert_allclose(rates, 1 / MANY.mean(axis=1)[: len(rates)], rtol=1e-9)


def test_the_derivative_of_a_checkpointed_fit_is_that_of_the_fit():
    """1/ȳ moves by −1/(n ȳ²) with each observation."""
    with jax.enable_x64(True):
        slope = jax.jit(jax.grad(jax.checkpoint(rate_of)))(Y)
    assert_allclose(slope, -(RATE**2) / len(Y), rtol=1e-8)


def test_a_custom_jvp_around_a_fit_replaces_its_derivative():
    @jax.custom_jvp
    def rate(y):
        return rate_of(y)

    rate.defjvp(lambda y, dy: (rate(y[0]), 3.0 * jnp.sum(dy[0])))
    with jax.enable_x64(True):
        value, slope = jax.jit(jax.value_and_grad(rate))(jnp.asarray(Y))
    assert_allclose(value, RATE, rtol=1e-9)
    assert_allclose(slope, 3.0, rtol=1e-12)


@pytest.mark.thorough
def test_data_may_be_donated():
    with jax.enable_x64(True):
        rate = jax.jit(lambda y: (rate_of(y), y + 1), donate_argnums=0)(jnp.asarray(Y))[0]
    assert_allclose(rate, RATE, rtol=1e-9)
