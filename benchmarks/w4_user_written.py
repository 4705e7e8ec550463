"""W4: four log-likelihoods as a user writes them, n = 1e5, with standard errors; one core, from NumPy arrays.

    python benchmarks/w4_user_written.py [n]

Each is one elementwise density, given to jaxmle as an opaque function and in the declared form, and to statsmodels'
``GenericLikelihoodModel`` in NumPy and SciPy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yardstick  # isort: skip  (pins, so before NumPy)

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from scipy import special

import jaxmle as jm
from jaxmle import models

BETA = np.array([1.0, 0.5, -0.5, 0.25])
Q = len(BETA)


@dataclass(frozen=True)
class Case:
    """One model: what jaxmle gets, what ``GenericLikelihoodModel`` gets, and its peers.

    The flat parameters are those of ``start`` in the order of jaxmle's names: ``beta``, then the others, which follow it in the alphabet.
    """

    name: str
    density: Callable[[dict, dict], jax.Array]  # elementwise in eta and row
    scalars: tuple[str, ...]  # parameters besides beta, in alphabetical order
    start: dict[str, Any]
    constraints: dict[str, Any]
    data: dict[str, np.ndarray]
    by_numpy: Callable[[np.ndarray, dict], np.ndarray]  # (flat parameters, data) → terms (n,)


def opaque(case: Case) -> Callable[[dict, dict], jax.Array]:
    density, scalars = (
        case.density,
        case.scalars,
    )  # what a function closes over is compared at each call: not the data

    def loglik(params: dict, data: dict) -> jax.Array:
        return density(
            {"mu": data["x"] @ params["beta"]} | {name: params[name] for name in scalars}, data
        )

    return loglik


def declared(case: Case) -> Any:
    return jm.regression(
        case.density, eta={"mu": jm.linear("x", "beta")} | {name: name for name in case.scalars}
    )


# ---------------------------------------------------------------- the four models


def weibull(x: np.ndarray, rng: np.random.Generator) -> Case:
    """Accelerated failure times, log T = x'β + σ·(least extreme value), censored on the right."""
    times = np.exp(x @ BETA + 0.7 * np.log(rng.exponential(size=len(x))))
    limits = 6.0 * rng.exponential(size=len(x)) + 0.1
    data = {
        "x": x,
        "logt": np.log(np.minimum(times, limits)),
        "event": (times <= limits).astype(float),
    }

    def density(eta: dict, row: dict) -> jax.Array:
        z = (row["logt"] - eta["mu"]) / eta["sigma"]
        return row["event"] * (z - jnp.log(eta["sigma"]) - row["logt"]) - jnp.exp(z)

    def by_numpy(theta: np.ndarray, data: dict) -> np.ndarray:
        z = (data["logt"] - data["x"] @ theta[:Q]) / theta[Q]
        return data["event"] * (z - np.log(theta[Q]) - data["logt"]) - np.exp(z)

    return Case(
        "Weibull, censored",
        density,
        ("sigma",),
        {"sigma": 1.0},
        {"sigma": jm.positive},
        data,
        by_numpy,
    )


def negative_binomial(x: np.ndarray, rng: np.random.Generator) -> Case:
    """Counts with mean exp(x'β) and variance μ + κμ²."""
    mu = np.exp(x @ BETA)
    data = {"x": x, "y": rng.poisson(mu * rng.gamma(2.0, 0.5, size=len(x))).astype(float)}

    def density(eta: dict, row: dict) -> jax.Array:
        size, y = 1 / eta["kappa"], row["y"]
        total = jnp.logaddexp(eta["mu"], jnp.log(size))
        return (
            gammaln(y + size)
            - gammaln(size)
            - gammaln(y + 1)
            + size * (jnp.log(size) - total)
            + y * (eta["mu"] - total)
        )

    def by_numpy(theta: np.ndarray, data: dict) -> np.ndarray:
        size, y, eta = 1 / theta[Q], data["y"], data["x"] @ theta[:Q]
        total = np.logaddexp(eta, np.log(size))
        gammas = special.gammaln(y + size) - special.gammaln(size) - special.gammaln(y + 1)
        return gammas + size * (np.log(size) - total) + y * (eta - total)

    return Case(
        "negative binomial",
        density,
        ("kappa",),
        {"kappa": 1.0},
        {"kappa": jm.positive},
        data,
        by_numpy,
    )


def student(x: np.ndarray, rng: np.random.Generator) -> Case:
    """A linear model with Student-t errors of unknown scale and degrees of freedom."""
    data = {"x": x, "y": x @ BETA + 0.5 * rng.standard_t(5.0, size=len(x))}

    def density(eta: dict, row: dict) -> jax.Array:
        nu, sigma = eta["nu"], eta["sigma"]
        z = (row["y"] - eta["mu"]) / sigma
        return (
            gammaln((nu + 1) / 2)
            - gammaln(nu / 2)
            - 0.5 * jnp.log(nu * jnp.pi)
            - jnp.log(sigma)
            - (nu + 1) / 2 * jnp.log1p(z**2 / nu)
        )

    def by_numpy(theta: np.ndarray, data: dict) -> np.ndarray:
        nu, sigma = theta[Q], theta[Q + 1]
        z = (data["y"] - data["x"] @ theta[:Q]) / sigma
        constant = (
            special.gammaln((nu + 1) / 2)
            - special.gammaln(nu / 2)
            - 0.5 * np.log(nu * np.pi)
            - np.log(sigma)
        )
        return constant - (nu + 1) / 2 * np.log1p(z**2 / nu)

    positive = {"nu": jm.positive, "sigma": jm.positive}
    return Case(
        "Student t", density, ("nu", "sigma"), {"nu": 10.0, "sigma": 1.0}, positive, data, by_numpy
    )


def inflated_poisson(x: np.ndarray, rng: np.random.Generator) -> Case:
    """Poisson counts, each turned into a zero with probability logistic(ζ)."""
    counts = rng.poisson(np.exp(x @ BETA)) * (rng.random(len(x)) > 0.3)
    data = {"x": x, "y": counts.astype(float)}

    def density(eta: dict, row: dict) -> jax.Array:
        y, rate, zeta = row["y"], jnp.exp(eta["mu"]), eta["zeta"]
        some = y * eta["mu"] - rate - gammaln(y + 1)
        return jnp.where(y == 0, jnp.logaddexp(zeta, -rate), some) - jax.nn.softplus(zeta)

    def by_numpy(theta: np.ndarray, data: dict) -> np.ndarray:
        y, eta = data["y"], data["x"] @ theta[:Q]
        some = y * eta - np.exp(eta) - special.gammaln(y + 1)
        return np.where(y == 0, np.logaddexp(theta[Q], -np.exp(eta)), some) - np.logaddexp(
            0.0, theta[Q]
        )

    return Case("zero-inflated Poisson", density, ("zeta",), {"zeta": 0.0}, {}, data, by_numpy)


# ---------------------------------------------------------------- the reference


def reference(case: Case, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Plain Newton on the user's own scale with ``jax.hessian``, from an estimate nearby, to a step below 1e-12 SE."""

    def total(theta: jax.Array) -> jax.Array:
        params = {"beta": theta[:Q]} | {name: theta[Q + i] for i, name in enumerate(case.scalars)}
        return jnp.sum(opaque(case)(params, case.data))

    with jax.enable_x64(True):
        both = jax.jit(lambda theta: (jax.grad(total)(theta), -jax.hessian(total)(theta)))
        theta = np.asarray(start, float)
        for _ in range(30):
            score, information = map(np.asarray, both(theta))
            step = np.linalg.solve(information, score)
            theta = theta + step
            if step @ information @ step < 1e-24:
                break
        return theta, np.sqrt(np.diag(np.linalg.inv(np.asarray(both(theta)[1]))))


# ---------------------------------------------------------------- the contests


def ours(case: Case) -> dict[str, Callable[[], jm.Fit]]:
    start = {"beta": np.zeros(Q)} | case.start
    runs = {}
    for form, make in (("opaque", opaque), ("declared", declared)):
        loglik = make(case)
        runs[f"jaxmle {form}"] = lambda loglik=loglik: jm.fit(
            loglik, start, case.data, constraints=case.constraints
        )
        runs[f"jaxmle {form}, block_rows=4096"] = lambda loglik=loglik: jm.fit(
            loglik, start, case.data, constraints=case.constraints, block_rows=4096
        )
    if case.name == "negative binomial":  # with its own start, as statsmodels' has
        runs["jaxmle.models"] = lambda: jm.fit(models.negative_binomial(), data=case.data)
    return runs


def generic(case: Case) -> Callable[[], Any] | None:
    """statsmodels' GenericLikelihoodModel by BFGS: numerical scores and Hessian, as its documentation shows it."""
    base = yardstick.optional("statsmodels.base.model")
    if base is None:
        return None

    class Model(base.GenericLikelihoodModel):
        def loglikeobs(self, params: np.ndarray) -> np.ndarray:
            return case.by_numpy(params, case.data)

    start = np.concatenate([np.zeros(Q), [case.start[name] for name in case.scalars]])
    endog = case.data.get("y", case.data.get("logt"))
    return lambda: Model(endog, case.data["x"], extra_params_names=list(case.scalars)).fit(
        start_params=start, method="bfgs", maxiter=200, disp=0
    )


def lifelines_weibull(case: Case) -> Callable[[], yardstick.Reading] | None:
    lifelines, pandas = yardstick.optional("lifelines"), yardstick.optional("pandas")
    if lifelines is None:
        return None

    def run() -> yardstick.Reading:
        columns = {f"x{j}": case.data["x"][:, j] for j in range(1, Q)}
        frame = pandas.DataFrame(
            columns | {"t": np.exp(case.data["logt"]), "event": case.data["event"]}
        )
        fitted = lifelines.WeibullAFTFitter().fit(frame, "t", "event")

        def at(values):
            return [
                values["lambda_", "Intercept"],
                *(values["lambda_", f"x{j}"] for j in range(1, Q)),
            ]

        sigma = np.exp(-fitted.params_["rho_", "Intercept"])
        return np.array([*at(fitted.params_), sigma]), np.array(
            [*at(fitted.standard_errors_), sigma * fitted.standard_errors_["rho_", "Intercept"]]
        )

    return run


def statsmodels_own(case: Case) -> tuple[str, Callable[[], yardstick.Reading]] | None:
    """The built-in model of statsmodels, where it has one."""
    discrete = yardstick.optional("statsmodels.discrete.count_model")
    x, y = case.data["x"], case.data.get("y")
    if discrete is None or case.name not in ("negative binomial", "zero-inflated Poisson"):
        return None
    if case.name == "negative binomial":
        from statsmodels.discrete.discrete_model import NegativeBinomial

        def run() -> yardstick.Reading:
            fitted = NegativeBinomial(y, x).fit(disp=0, maxiter=200)
            return fitted.params, fitted.bse

        return "statsmodels NegativeBinomial", run

    def run_inflated() -> yardstick.Reading:
        fitted = discrete.ZeroInflatedPoisson(y, x).fit(disp=0, maxiter=200)
        order = [*range(1, Q + 1), 0]  # statsmodels prints the inflation first
        return np.asarray(fitted.params)[order], np.asarray(fitted.bse)[order]

    return "statsmodels ZeroInflatedPoisson", run_inflated


def _ordered(fit: jm.Fit, case: Case) -> yardstick.Reading:
    """Estimates and standard errors with β first."""

    def of(tree):
        return np.concatenate(
            [
                np.ravel(leaf)
                for name, leaf in sorted(tree.items(), key=lambda item: item[0] != "beta")
            ]
        )

    return of(fit.params), of(fit.stderr)


def contest(case: Case) -> None:
    n = len(case.data["x"])
    runs = ours(case)
    near = next(iter(runs.values()))()
    board = yardstick.Board(
        f"W4: {case.name}, n = {n}, {len(near.x)} parameters", reference(case, near.x)
    )
    for name, run in ours(case).items():
        board.time(
            name,
            run,
            lambda fit: _ordered(fit, case),
            compiles=True,
            budget=6.0,
            note=lambda fit: f"{fit.verdict.name}, {int(fit.steps)} steps",
        )
    found = []
    if run := generic(case):

        def told(r):
            return "converged" if r.mle_retvals["converged"] else "did not converge"

        board.time(
            "GenericLikelihoodModel",
            run,
            lambda r: (r.params, r.bse),
            repeats=3,
            budget=5.0,
            note=told,
        )
        found += [yardstick.Target(name, "GenericLikelihoodModel", 0.35) for name in runs]
    if case.name.startswith("Weibull") and (run := lifelines_weibull(case)):
        board.time("lifelines WeibullAFTFitter", run, lambda r: r, repeats=3, budget=5.0)
        found += [yardstick.Target(name, "lifelines WeibullAFTFitter", 0.15) for name in runs]
    if peer := statsmodels_own(case):
        board.time(peer[0], peer[1], lambda r: r, repeats=3, budget=5.0)
        if case.name == "negative binomial":
            found += [yardstick.Target(name, peer[0], None, 1.0) for name in runs]
    board.turns(found)
    board.report(found)


def main(n: int) -> None:
    print(yardstick.versions("jax", "numpy", "scipy", "statsmodels", "lifelines"))
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(n), rng.standard_normal((n, Q - 1))])
    with np.errstate(all="ignore"):  # BFGS tries scales below zero
        for model in (negative_binomial, weibull, student, inflated_poisson):
            contest(model(x, rng))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
