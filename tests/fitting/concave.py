"""Six likelihoods with a supremum that may lie at infinity, declared and opaque, and samples of four kinds for each."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, logsumexp

import jaxmle as jm
from jaxmle.special import log_sigmoid, softplus
from tests.likelihoods import multinomial_intercepts

N = 60
CASES = ("complete", "quasi", "collinear", "scaled")
BIG = 1e3  # a cut point beyond every other


def logit(eta, row):
    return row["y"] * eta["mu"] - softplus(eta["mu"])


def probit(eta, row):
    return jnp.where(row["y"] > 0, log_ndtr(eta["mu"]), log_ndtr(-eta["mu"]))


def poisson(eta, row):
    return row["y"] * eta["mu"] - jnp.exp(eta["mu"])


def ordinal(eta, row):
    """log(F(b) − F(a)) = log F(b) + log F(−a) + log(1 − e^{a − b}) for the logistic F; the outer cells have one end each."""
    k, cut, last = row["y"].astype(int), eta["cut"], eta["cut"].shape[0]
    end = jnp.full(1, BIG, cut.dtype)
    low, high = (
        jnp.concatenate([-end, cut])[k] - eta["mu"],
        jnp.concatenate([cut, end])[k] - eta["mu"],
    )
    inner = (k > 0) & (k < last)
    between = jnp.where(inner, jnp.log(-jnp.expm1(jnp.where(inner, low - high, -1.0))), 0.0)
    return (
        jnp.where(k < last, log_sigmoid(high), 0.0)
        + jnp.where(k > 0, log_sigmoid(-low), 0.0)
        + between
    )


def cox(params, data):
    """One term an event, over its risk set."""
    eta = data["x"] @ params["beta"]
    at_risk = data["time"][None, :] >= data["time"][:, None]
    return data["event"] * (eta - logsumexp(jnp.where(at_risk, eta[None, :], -jnp.inf), axis=1))


def opaque(density):
    def loglik(params, data):
        mu = data["x"] @ params["beta"]
        eta = {"mu": mu} | (
            {"cut": jnp.broadcast_to(params["cut"], (len(mu), 2))} if "cut" in params else {}
        )
        return jax.vmap(density)(eta, data)

    return loglik


DENSITIES = {
    "logit": logit,
    "probit": probit,
    "poisson": poisson,
    "multinomial": multinomial_intercepts,
    "ordinal": ordinal,
}
OPAQUE = {name: opaque(density) for name, density in DENSITIES.items()} | {"cox": cox}
DECLARED = {
    name: jm.regression(
        density, eta={"mu": jm.linear("x", "beta")} | ({"cut": "cut"} if name == "ordinal" else {})
    )
    for name, density in DENSITIES.items()
}
FORMS = [("declared", name) for name in DECLARED] + [("opaque", name) for name in OPAQUE]


def likelihood(form, name):
    return (DECLARED if form == "declared" else OPAQUE)[name]


def start(name):
    """Parameters of two regressors, beside an intercept where there are no cut points and no baseline."""
    if name == "ordinal":
        return {"beta": np.zeros(2), "cut": np.array([-0.5, 0.5])}
    return {"beta": np.zeros({"multinomial": (3, 2), "cox": 2}.get(name, 3))}


def constraints(name):
    return {"cut": jm.ordered} if name == "ordinal" else None


def response(name, eta, rng):
    """One response a row, with the linear predictor eta (n,)."""
    if name == "poisson":
        return rng.poisson(np.exp(0.3 + 0.5 * eta)).astype(float)
    if name == "multinomial":
        scores = np.stack([0 * eta, eta, -0.5 * eta], axis=1)
        return np.argmax(scores + rng.gumbel(size=scores.shape), axis=1).astype(float)
    if name == "ordinal":
        return (
            ((eta + rng.logistic(size=len(eta)))[:, None] > np.array([-0.7, 0.7]))
            .sum(axis=1)
            .astype(float)
        )
    noise = rng.normal(size=len(eta)) if name == "probit" else rng.logistic(size=len(eta))
    return (eta + noise > 0).astype(float)


def sample(name, case, seed=7, integers=False):
    """A data set of one of the four kinds, or a sound one; ``integers`` has small whole numbers for the first regressor."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(N, 2))
    z[:, 0] = rng.integers(-2, 3, N) if integers else z[:, 0]
    dummy = (np.arange(N) < 15).astype(float)
    if case == "quasi":
        z[:, 1] = dummy
    eta = 0.8 * z[:, 0] - (0.0 if case == "quasi" else 0.5) * z[:, 1]
    if case == "collinear":
        z[:, 1] = 2 * z[:, 0]
    unit = np.array([1.0, 1e6 if case == "scaled" else 1.0])
    if name == "cox":
        time, event = rng.exponential(np.exp(-eta)), (rng.random(N) < 0.8).astype(float)
        if case == "complete":
            time, event = np.argsort(np.argsort(-z[:, 0])) + 1.0, np.ones(N)
        return {
            "x": z * unit,
            "time": time,
            "event": np.where((case == "quasi") & (dummy == 1), 0.0, event),
        }
    y = response(name, eta, rng)
    thirds = (z[:, 0] > 0.4) * 1.0 + (z[:, 0] > -0.4)
    if case == "complete":
        y = {"poisson": 0 * y, "multinomial": thirds, "ordinal": thirds}.get(
            name, (z[:, 0] > 0) * 1.0
        )
    if case == "quasi":
        y = np.where(
            dummy == 1, {"poisson": 0.0, "multinomial": 2.0, "ordinal": 2.0}.get(name, 1.0), y
        )
    x = z * unit
    return {"x": x if name == "ordinal" else np.column_stack([np.ones(N), x]), "y": y}
