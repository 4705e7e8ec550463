"""One function alone, under jit, under vmap and in a Python loop; members of a batch do not know each other."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import jaxmle as jm
from jaxmle import Status
from tests.likelihoods import logit

from .models import BETA, logistic_data

B = 300


def run(data):
    return jm.fit(logit, BETA, data)


@pytest.fixture(scope="module")
def samples():
    return logistic_data(100, B)


@pytest.fixture(scope="module")
def loop(samples):
    return [run({"x": samples["x"][i], "y": samples["y"][i]}) for i in range(B)]


@pytest.fixture(scope="module")
def compiled():
    """One compiled batch of fits for the module; the context belongs to the key of jax's cache."""
    batched = jax.jit(jax.vmap(run))

    def call(data):
        with jax.enable_x64(True):
            return jax.tree.map(np.asarray, batched(data))

    return call


def test_a_batch_equals_a_python_loop(samples, loop, compiled):
    """One nano standard error: both end by the same Newton steps, which stop at 1.4e-9 SE."""
    fits = compiled(samples)
    assert fits.batch_shape == (B,)
    assert fits.dtype == np.float64
    x, se = np.stack([fit.x for fit in loop]), np.stack([fit.se for fit in loop])
    status = np.array([fit.status for fit in loop])
    assert (status == Status.CONVERGED).mean() > 0.95
    assert_array_equal(fits.status, status)
    sound = status == Status.CONVERGED
    assert np.max(np.abs(fits.x - x)[sound] / se[sound]) < 1e-9
    assert_allclose(fits.se[sound], se[sound], rtol=1e-9)
    assert_allclose(fits.loglik, [fit.loglik for fit in loop], rtol=1e-12)
    # A step more or less: the last decides nothing beyond 1e-9 SE, and rounding decides whether it is taken.
    assert np.max(np.abs(fits.steps[sound] - [fit.steps for fit in loop if fit.converged])) <= 1


def test_jit_equals_the_host(samples, loop):
    """Under jit alone, data closed over and data passed in."""
    data = {"x": samples["x"][0], "y": samples["y"][0]}
    with jax.enable_x64(True):
        passed = jax.tree.map(np.asarray, jax.jit(run)(data))
    assert passed.verdict == loop[0].verdict
    assert np.max(np.abs(passed.x - loop[0].x) / loop[0].se) < 1e-9
    assert_allclose(passed.se, loop[0].se, rtol=1e-9)
    assert passed.names == loop[0].names


@pytest.mark.thorough
def test_with_float64_off_a_batch_is_float32_and_says_so(samples, loop):
    few = {name: leaf[:40] for name, leaf in samples.items()}
    fits = jax.jit(jax.vmap(run))(few)
    assert fits.dtype == np.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(fits.params)} == {np.dtype(np.float32)}
    sound = np.array([fit.converged for fit in loop[:40]])
    assert_array_equal(np.asarray(fits.status)[sound], int(Status.CONVERGED))
    x, se = np.stack([fit.x for fit in loop[:40]]), np.stack([fit.se for fit in loop[:40]])
    assert np.max(np.abs(np.asarray(fits.x) - x)[sound] / se[sound]) < 1e-3
    assert_allclose(np.asarray(fits.se)[sound], se[sound], rtol=1e-3)


@pytest.mark.parametrize("row", [0, 59])
def test_a_nan_member_changes_no_bit_of_the_others(samples, compiled, row):
    spoilt = {"x": samples["x"].copy(), "y": samples["y"]}
    spoilt["x"][7, row, 1] = np.nan
    before, after = compiled(samples), compiled(spoilt)
    others = np.arange(B) != 7
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert old[others].tobytes() == new[others].tobytes()
    member = after[7]
    assert member.verdict == Status.NONFINITE
    assert int(member.witness.row) == row
    assert f"row {row}" in member.explain()
    assert np.isnan(member.x).all()
    assert np.isnan(member.se).all()


def test_a_hard_member_changes_no_bit_of_the_others(samples, compiled):
    """A separated member makes the loop run on; those that are done stay as they are."""
    hard = {"x": samples["x"], "y": samples["y"].copy()}
    hard["y"][7] = samples["x"][7, :, 1] > 0
    before, after = compiled(samples), compiled(hard)
    others = np.arange(B) != 7
    assert after[7].verdict == Status.SEPARATED
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert old[others].tobytes() == new[others].tobytes()


def test_members_of_a_batch_are_fits(samples, loop, compiled):
    fits = compiled(samples)
    assert len(fits) == B
    member = fits[3]
    assert member.batch_shape == ()
    assert_allclose(member.x, loop[3].x, rtol=1e-9)
    assert fits[10:20].batch_shape == (10,)
    assert_allclose(
        fits.conf_int()["beta"],
        np.stack([fit.conf_int()["beta"] for fit in loop])[:, :, :],
        rtol=1e-6,
        atol=1e-8,
        equal_nan=True,
    )
    assert_allclose(fits.aic, [fit.aic for fit in loop], rtol=1e-12)
    assert_allclose(fits.bic, [fit.bic for fit in loop], rtol=1e-12)
    for read in ("zvalues", "pvalues", "corr"):
        assert_allclose(getattr(fits, read)[3], getattr(loop[3], read), rtol=1e-6, atol=1e-9)
    assert fits.converged.shape == (B,)
    with pytest.raises(ValueError, match="each member"):
        _ = fits.verdict


def test_a_batch_prints_one_screen(samples, compiled):
    text = str(compiled(samples))
    assert str(B) in text
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.thorough
def test_starts_weights_and_clusters_may_be_batched_too():
    data = logistic_data(7)
    starts = np.stack([np.zeros(3), np.full(3, 0.1), np.array([1.0, -1.0, 0.5])])
    counts = np.random.default_rng(0).integers(0, 3, size=(3, 60)).astype(float)

    def one(start, w):
        return jm.fit(logit, {"beta": start}, data, weights=jm.frequency(w))

    with jax.enable_x64(True):
        fits = jax.tree.map(np.asarray, jax.vmap(one)(starts, counts))
    for i in range(3):
        alone = jm.fit(logit, {"beta": starts[i]}, data, weights=jm.frequency(counts[i]))
        repeated = jm.fit(
            logit,
            {"beta": starts[i]},
            {name: np.repeat(leaf, counts[i].astype(int), axis=0) for name, leaf in data.items()},
        )
        assert fits[i].verdict == alone.verdict == repeated.verdict
        assert fits.n[i] == alone.n == repeated.n == counts[i].sum()
        assert_allclose(fits[i].x, repeated.x, rtol=0, atol=1e-8 * repeated.se.min())
        assert_allclose(fits[i].se, repeated.se, rtol=1e-8)
        assert_allclose(alone.bic, repeated.bic, rtol=1e-12)
