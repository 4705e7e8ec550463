"""What a user writes, for a type checker: each assertion is what an editor knows behind the dot. test_checker.py runs it too."""

import warnings
from typing import assert_type

import jax
import jax.numpy as jnp
import numpy as np

import jaxmle as jm

Y = np.array([1.0, 3.0, 2.0, 6.0, 0.5, 4.0])
X = np.column_stack([np.ones(6), [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]])


def exponential(params: dict[str, jax.Array], data: np.ndarray) -> jax.Array:
    return jnp.log(params["rate"]) - params["rate"] * data


def one_fit() -> jm.Fit:
    fit = jm.fit(exponential, {"rate": 1.0}, Y, constraints={"rate": jm.positive})
    assert_type(fit, jm.Fit)
    assert_type(fit.verdict, jm.Status)
    assert_type(fit.summary(), str)
    assert_type(fit.explain(), str)
    assert_type(fit.names, tuple[str, ...])
    assert_type(fit.df, int)
    assert fit.verdict is jm.Status.CONVERGED
    print(fit.params["rate"], fit.stderr["rate"], fit.se.shape, fit.interval(0.9), fit.check().aic)
    return fit


def many_fits() -> jm.Fit:
    fits = jm.fit_batch(exponential, {"rate": 1.0}, np.stack([Y, 2 * Y]), progress=False)
    assert_type(fits, jm.Fit)
    assert_type(fits[0], jm.Fit)
    assert_type(len(fits), int)
    return fits


def filtered() -> None:
    for kind in (
        jm.DerivativeRuleWarning,
        jm.DiscoveryWarning,
        jm.EmptyLevelWarning,
        jm.BroadcastWarning,
        jm.MeanLikelihoodWarning,
        jm.MissingRowsWarning,
        jm.UnwatchedClosureWarning,
    ):
        warnings.simplefilter("ignore", kind)


def inference(fit: jm.Fit) -> None:
    profile = jm.profile(exponential, fit, Y, which="rate")
    assert_type(profile, jm.Profile)
    assert_type(profile.interval(), np.ndarray)
    assert_type(profile.names, tuple[str, ...])
    assert_type(profile.level, float)
    assert_type(jm.wald_test(fit, {"rate": 1.0}), jm.Test)
    resampled = jm.bootstrap(exponential, fit, Y, key=jax.random.key(0), replicates=19)
    assert_type(resampled, jm.Bootstrap)
    assert_type(jm.influence(exponential, fit, Y), jm.Influence)


def ready_models() -> None:
    poisson = jm.models.poisson()
    assert_type(poisson, jm.models.Model)
    assert_type(poisson.name, str)
    data = {"x": X, "y": np.array([1.0, 3.0, 2.0, 6.0, 0.0, 4.0])}
    fit = jm.fit(poisson, None, data)
    assert_type(fit, jm.Fit)
    assert_type(jm.families.gamma, jm.families.Family)
    best = jm.best_family(Y, [jm.families.gamma, jm.families.exponential], key=jax.random.key(0))
    assert_type(best, jm.FamilyRanking)


def formulas() -> None:
    frame = jm.from_formula("y ~ x", {"y": Y, "x": X[:, 1]})
    assert_type(frame, jm.Frame)
