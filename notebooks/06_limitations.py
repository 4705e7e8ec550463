# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # 6. The limits of maximum likelihood
#
# The maximum may not exist, there may be many, the likelihood may be infinite, the model may be wrong, and the highest maximum may be the wrong one.
# Each case is shown below on simulated data, with a figure and a number, and each time we look at what the program reports. A failure that looks like
# a number is worse than a failure with a name.

# %%
import math

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import scipy

import jaxmle as jm
from jaxmle import Status

# %% tags=["parameters"]
DATASETS = 1000  # simulated data sets of a setting

# %%
rng = np.random.default_rng(6)
Z95 = scipy.special.ndtri(0.975)


def share(hits):
    p = np.mean(hits, axis=0)
    return p, np.sqrt(np.maximum(p * (1 - p), 0.25 / len(hits)) / len(hits))


def agree(found, exact, error, times=4):
    return bool(np.all(np.abs(np.asarray(found) - exact) < times * np.asarray(error)))


def logistic(params, data):
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jnp.logaddexp(0.0, eta)


# %% [markdown]
# ## 1. No maximum: separation
#
# If some line separates all successes from all failures, the logistic likelihood keeps rising as the slope grows: there is no estimate. In small
# samples this is common. If the labels are fair coins, the probability is known exactly: $n$ points in general position have
# $2\sum_{k<p}\binom{n-1}{k}$ separable labellings out of $2^n$ (Cover, 1965); here $p = 2$, an intercept and one regressor.

# %%
COUNTS, EACH = [4, 5, 6, 8, 10, 12, 16], DATASETS // 4


def binary(n, slope):
    x = np.column_stack([np.ones(n), rng.normal(size=n)])
    return {"x": x, "y": (rng.random(n) < scipy.special.expit(slope * x[:, 1])).astype(float)}


slopes = (0.0, 2.0)
data = [binary(n, slope) for slope in slopes for n in COUNTS for _ in range(EACH)]
fits = jm.fit_batch(logistic, {"beta": np.zeros(2)}, data, progress=False)
separated, error = (part.reshape(2, len(COUNTS)) for part in share((fits.status == Status.SEPARATED).reshape(-1, EACH).T))
cover = [2 * sum(math.comb(n - 1, k) for k in range(2)) / 2**n for n in COUNTS]

figure, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
ax.plot(COUNTS, 100 * np.array(cover), color="grey", label="Cover's count, labels by coin")
for k, (mark, label) in enumerate((("o", "labels by coin"), ("s", "slope 2: the regressor matters"))):
    ax.errorbar(COUNTS, 100 * separated[k], 200 * error[k], fmt=mark + ":" * k, color="black", mfc="white", capsize=3, label=label)
ax.set(xlabel="observations n", ylabel="SEPARATED, in % of data sets", ylim=(0, None))
ax.legend(frameon=False)
plt.show()
assert agree(separated[0], cover, error[0])
assert np.mean(separated[1] - separated[0]) > 4 * np.sqrt(np.mean(error**2) / len(COUNTS))
assert set(fits.status.tolist()) <= {Status.SEPARATED, Status.CONVERGED}

# %% [markdown]
# The stronger the effect, the more likely the failure: it is not a sign of bad data. The fit says what happened and reports infinity with its sign,
# without a standard error. An optimiser that stops when the gradient is small enough reports a large finite slope with a huge standard error here.

# %%
x = np.arange(11.0) - 5
apart = {"x": np.column_stack([np.ones(11), x]), "y": (x > 0).astype(float)}
lost = jm.fit(logistic, {"beta": np.zeros(2)}, apart)
print(lost)
assert lost.verdict == Status.SEPARATED and lost.params["beta"][1] == np.inf and np.isnan(lost.se).all()

# %% [markdown]
# With a prior there is always an estimate. It is labelled MAP, and it depends on the prior as much as on the data: halve the strength of the prior
# and it changes.

# %%
for strength in (1.0, 0.5):
    bayes = jm.fit(jm.penalize(logistic, jm.ridge(strength)), {"beta": np.zeros(2)}, apart)
    print(f"ridge({strength}): {bayes.verdict.name}, mode {bayes.mode}, slope {bayes.params['beta'][1]:.3f}, AIC {bayes.aic}")
    assert bayes.mode == "MAP" and bayes.converged and np.isnan(bayes.aic)

# %% [markdown]
# ## 2. Many maxima
#
# Consider the location of a Cauchy sample: each outlying observation may have its own local maximum. Newton's method finds the one nearby and reports
# CONVERGED, which is a statement about *a* maximum, not about the highest.

# %%
def cauchy(params, y):
    return -jnp.log1p((y - params["centre"]) ** 2) - jnp.log(jnp.pi)


y = np.array([-20.0, -8.0, 0.0, 1.5, 5.0, 17.0])
climbs = [jm.fit(cauchy, {"centre": start}, y) for start in (*y, float(np.median(y)))]
ends = np.array([float(climb.params["centre"]) for climb in climbs])
for start, climb, end in zip((*y, "median"), climbs, ends, strict=True):
    print(f"start {start!s:>6}: {climb.verdict.name} at {end:8.4f}, log-likelihood {climb.loglik:.3f}")

line = np.linspace(-24, 24, 800)
figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
ax.plot(line, -np.log1p((y[:, None] - line) ** 2).sum(axis=0) - 6 * np.log(np.pi), color="black")
ax.plot(ends, [climb.loglik for climb in climbs], "o", color="black", mfc="white", zorder=3, label="CONVERGED")
ax.plot(y, np.full(6, -39.5), "|", color="black", markersize=12, label="observations")
ax.set(xlabel="centre", ylabel="log-likelihood", ylim=(-40.5, -24.5))
ax.legend(frameon=False)
plt.show()
assert all(climb.converged for climb in climbs) and len(np.unique(ends.round(6))) >= 3
assert climbs[-1].loglik == max(climb.loglik for climb in climbs)  # the median is a good start

# %% [markdown]
# How often does this happen in Cauchy samples? The number of additional maxima tends to a Poisson distribution with mean $1/\pi$ (Reeds, 1985), so
# about one sample in four has a false one. Here they are counted as downward zero crossings of the score, in samples of 30:

# %%
def maxima(y):
    grid = np.unique(np.concatenate([np.linspace(y.min() - 1, y.max() + 1, 2001), (y[:, None] + np.linspace(-3, 3, 201)).ravel()]))
    score = np.sum((y[:, None] - grid) / (1 + (y[:, None] - grid) ** 2), axis=0)
    return np.sum((score[:-1] > 0) & (score[1:] <= 0))


further = np.array([maxima(y) for y in rng.standard_cauchy((DATASETS, 30))]) - 1
print(f"further maxima: {further.mean():.3f} ± {further.std() / np.sqrt(DATASETS):.3f} a sample, 1/π = {1 / np.pi:.3f}; none in {100 * np.mean(further == 0):.0f}%")
assert agree(further.mean(), 1 / np.pi, np.sqrt(1 / np.pi / DATASETS))

# %% [markdown]
# There are two more forms of this problem. Components of a mixture have no names, so every maximum occurs once for each order of the labels; in
# `jm.multistart`, `symmetric=[("mu",)]` counts these as one. And the data may determine the sum of two parameters but not each of them: the
# likelihood is a ridge, and the fit says which combination is undetermined.

# %%
def mixture(params, y):
    """Two normal components, half and half, of standard deviation one."""
    return jax.scipy.special.logsumexp(-0.5 * (y[:, None] - params["mu"][None, :]) ** 2, axis=1) - 0.5 * jnp.log(8 * jnp.pi)


y = np.concatenate([rng.normal(-1.5, 1, 30), rng.normal(1.5, 1, 30)])
twins = [jm.fit(mixture, {"mu": np.array(start)}, y) for start in ([-1.0, 1.0], [1.0, -1.0])]
for twin in twins:
    print(f"mu = {twin.params['mu'].round(4)}, log-likelihood {twin.loglik:.6f}")

ridge_like = jm.fit(lambda params, y: -0.5 * (y - params["a"] - params["b"]) ** 2, {"a": 0.0, "b": 0.0}, y)
total = jm.delta(lambda params: params["a"] + params["b"], ridge_like)
print(f"\n{ridge_like.verdict.name}: {ridge_like.explain()}\na + b = {total.estimate:.3f}, standard error {total.stderr:.3f}")
assert np.allclose(twins[0].params["mu"], twins[1].params["mu"][::-1], rtol=1e-8) and np.isclose(twins[0].loglik, twins[1].loglik, rtol=1e-12)
assert ridge_like.verdict == Status.UNIDENTIFIED and np.isnan(ridge_like.se).all()
assert np.isclose(total.stderr, 1 / np.sqrt(60), rtol=1e-8)

# %% [markdown]
# ## 3. The best fit is not the best model
#
# Polynomials of growing degree, fitted to 25 points of a sine with normal noise of known size. On the data of the fit the log-likelihood can only
# rise. On new data from the same source it rises and then falls. With a prior on the coefficients the fit is slightly worse and the prediction much
# better.

# %%
n, NOISE = 25, 0.4


def polynomial(params, data):
    return -0.5 * ((data["y"] - data["x"] @ params["beta"]) / NOISE) ** 2 - jnp.log(NOISE) - 0.5 * jnp.log(2 * jnp.pi)


def sine(count):
    u = rng.uniform(-1, 1, count)
    return u, np.sin(3 * u) + rng.normal(0, NOISE, count)


rng = np.random.default_rng(63)
(u, y), (u_new, y_new) = sine(n), sine(20_000)
DEGREES = (1, 2, 3, 5, 8, 11)
curves = {"own data": [], "fresh data": [], "own data, with prior": [], "fresh data, with prior": []}
shapes = {}
for degree in DEGREES:
    design, fresh = (np.polynomial.legendre.legvander(v, degree) for v in (u, u_new))
    for loglik, suffix in ((polynomial, ""), (jm.penalize(polynomial, jm.ridge(2.0)), ", with prior")):
        fit = jm.fit(loglik, {"beta": np.zeros(degree + 1)}, {"x": design, "y": y})
        assert fit.converged and fit.mode == ("MAP" if suffix else "ML")
        shapes[degree, suffix] = fit.params["beta"]
        for key, x, response in (("own data", design, y), ("fresh data", fresh, y_new)):
            curves[key + suffix].append(np.mean(-0.5 * ((response - x @ fit.params["beta"]) / NOISE) ** 2) - np.log(NOISE) - 0.5 * np.log(2 * np.pi))

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for (key, values), style in zip(curves.items(), ("o-", "s-", "o--", "s--"), strict=True):
    left.plot(DEGREES, values, style, color="black" if "prior" not in key else "0.55", mfc="white", label=key)
truth = -0.5 - np.log(NOISE) - 0.5 * np.log(2 * np.pi)
left.axhline(truth, color="black", linewidth=0.8, linestyle=":", label="the true curve, fresh data")
left.set(xlabel="degree of the polynomial", ylabel="mean log-likelihood of an observation", ylim=(truth - 1.4, truth + 0.5))
left.legend(frameon=False, loc="lower right", fontsize="small")
line = np.linspace(-1, 1, 300)
right.plot(u, y, "o", color="black", markersize=4, label="data")
for suffix, style, color in (("", "-", "black"), (", with prior", "--", "0.5")):
    right.plot(line, np.polynomial.legendre.legval(line, shapes[11, suffix]), style, color=color, label="degree 11" + suffix)
right.plot(line, np.sin(3 * line), ":", color="black", label="truth")
right.set(ylim=(-2.2, 2.2), xlabel="u", ylabel="y")
right.legend(frameon=False, fontsize="small")
plt.show()
own, fresh, held, shrunk = (np.array(values) for values in curves.values())
assert np.all(np.diff(own) > -1e-12) and fresh[-1] < fresh[2]  # nested models: never lower
assert np.all(held <= own + 1e-12) and shrunk[-1] > fresh[-1]

# %% [markdown]
# The difference can be calculated. With $p$ coefficients the log-likelihood at the estimate is on average $p/2$ too high on the data of the fit and
# $p/2$ too low on new responses: AIC subtracts the difference, $p$. Measured with degree 1:

# %%
design = np.polynomial.legendre.legvander(u, 1)
middle = design @ [0.5, 1.0]
responses = middle + rng.normal(0, NOISE, (2, 4 * DATASETS, n))
lines = jm.fit_batch(polynomial, {"beta": np.zeros(2)}, {"x": design, "y": responses[0]}, in_axes={"x": None, "y": 0}, progress=False)
excess = -0.5 * (np.sum((responses - lines.params["beta"] @ design.T) ** 2, axis=2) - np.sum((responses - middle) ** 2, axis=2)) / NOISE**2
gain, error = excess.mean(axis=1), excess.std(axis=1) / np.sqrt(4 * DATASETS)
print(f"own data {gain[0]:+.3f} ± {error[0]:.3f}, fresh responses {gain[1]:+.3f} ± {error[1]:.3f}; the law says +1 and -1")
assert agree(gain, [1, -1], error)

# %% [markdown]
# ## 4. The model is wrong: what the sandwich corrects
#
# Counts with a variance larger than Poisson by a factor $\varphi$ (negative binomial) are fitted as Poisson. The estimates are valid. The model-based
# standard errors are too small by $\sqrt\varphi$, so a 95 % interval has coverage $2\Phi(1.96/\sqrt\varphi) - 1$. `vcov="HC0"`, the sandwich, takes
# the variance from the residuals instead of the model.

# %%
def poisson(params, data):
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jnp.exp(eta) - jax.scipy.special.gammaln(data["y"] + 1)


ROWS, MEAN, PHI = 200, 4.0, np.array([1.0, 1.5, 2.0, 3.0, 5.0])
size = np.repeat(MEAN / np.maximum(PHI - 1, 1e-9), DATASETS)[:, None]
rates = np.where(size < 1e6, rng.gamma(np.minimum(size, 1e6), MEAN / np.minimum(size, 1e6), (5 * DATASETS, ROWS)), MEAN)
counts = {"x": np.column_stack([np.ones(ROWS), np.arange(ROWS) % 2]), "y": rng.poisson(rates).astype(float)}
held = {}
for kind in ("observed", "HC0"):
    fits = jm.fit_batch(poisson, {"beta": np.array([1.0, 0.0])}, counts, in_axes={"x": None, "y": 0}, vcov=kind, progress=False)
    assert fits.converged.all()
    covers = np.abs(fits.params["beta"][:, 1]) <= Z95 * fits.stderr["beta"][:, 1]  # the two groups do not differ: the truth is 0
    held[kind] = share(covers.reshape(5, DATASETS).T)

line = np.linspace(1, 5, 100)
figure, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
for (kind, (p, error)), mark in zip(held.items(), "os", strict=True):
    ax.errorbar(PHI, 100 * p, 200 * error, fmt=mark, color="black", mfc="white", capsize=3, label={"observed": "model-based", "HC0": "sandwich, HC0"}[kind])
ax.plot(line, 100 * (2 * scipy.special.ndtr(Z95 / np.sqrt(line)) - 1), color="grey", label=r"$2\Phi(1.96/\sqrt{\varphi}) - 1$")
ax.axhline(95, color="black", linewidth=0.8, linestyle=":")
ax.set(xlabel=r"overdispersion $\varphi$", ylabel="coverage of 95% intervals, in %", ylim=(55, 100))
ax.legend(frameon=False, loc="lower left")
plt.show()
law = 2 * scipy.special.ndtr(Z95 / np.sqrt(PHI)) - 1
for phi, *row in zip(PHI, *held["observed"], *held["HC0"], strict=True):
    print(f"φ = {phi:.1f}: model-based {100 * row[0]:.1f} ± {100 * row[1]:.1f} %, sandwich {100 * row[2]:.1f} ± {100 * row[3]:.1f} %")
assert agree(held["observed"][0], law, held["observed"][1] + 0.002)
assert agree(held["HC0"][0], 0.95, held["HC0"][1] + 0.0025)

# %% [markdown]
# The sandwich corrects the standard error of the quantity that is estimated. It does not correct the quantity itself: a wrong mean is still a wrong
# mean.
#
# ## 5. Squared error for a yes or no
#
# For a binary response $-(y - p)^2$ is often used as if it were a log-likelihood. Row by row its gradient is that of the log-likelihood times
# $2p(1-p)$: nearly zero exactly where the model is confident and wrong. The figure goes from the truth ($t = -1$) to its opposite and beyond.

# %%
def squared(params, data):
    return -((data["y"] - jax.nn.sigmoid(data["x"] @ params["beta"])) ** 2)


rng = np.random.default_rng(65)
x = np.column_stack([np.ones(40), rng.normal(size=40)])
beta = np.array([0.3, 1.5])
data = {"x": x, "y": (rng.random(40) < scipy.special.expit(x @ beta)).astype(float)}
walk = np.linspace(-1, 16, 60)
with jax.enable_x64(True):  # plain JAX is float32 otherwise
    slopes = {}
    for name, loglik in (("log-likelihood", logistic), ("minus squared error", squared)):
        gradients = jax.vmap(lambda t, loglik=loglik: jm.score(loglik)({"beta": -t * beta}, data)["beta"])(walk)
        slopes[name] = np.linalg.norm(gradients, axis=1)
    p = scipy.special.expit(x @ (-4 * beta))
    rows = [np.asarray(jm.scores(loglik)({"beta": -4 * beta}, data)) for loglik in (logistic, squared)]
assert np.allclose(rows[1], (2 * p * (1 - p))[:, None] * rows[0], rtol=1e-9, atol=1e-14)

figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
for (name, values), dash in zip(slopes.items(), ("-", "--"), strict=True):
    ax.plot(walk, values, dash, color="black", label=name)
ax.set(yscale="log", xlabel=r"$t$, parameters at $-t$ times the truth", ylabel="length of the gradient")
ax.legend(frameon=False)
plt.show()
assert slopes["log-likelihood"][-1] > 30 * slopes["minus squared error"][-1]

# %% [markdown]
# The square is not concave either: below, 64 data sets are each fitted from the truth, from nine starts of scale 3 and nine of scale 10. (The
# log-likelihood is concave: every start leads to the same maximum.) And it is not a log-likelihood: $e^{-(0-p)^2} + e^{-(1-p)^2}$ is not 1, so its
# curvature is not an information, and standard errors computed from it are meaningless.

# %%
design = np.stack([np.ones((64, 40)), rng.normal(size=(64, 40))], axis=-1)
response = (rng.random((64, 40)) < scipy.special.expit(design @ beta)).astype(float)
start = beta + rng.normal(size=(64, 19, 2)) * np.repeat([0.0, 3.0, 10.0], [1, 9, 9])[None, :, None]
many = {"x": np.repeat(design, 19, axis=0), "y": np.repeat(response, 19, axis=0)}
climbs = jm.fit_batch(squared, {"beta": start.reshape(-1, 2)}, many, params_axis=0, progress=False)
height = np.where(climbs.converged, climbs.loglik, -np.inf).reshape(64, 19)
there = (height > height.max(axis=1, keepdims=True) - 1e-6)[np.isfinite(height[:, 0])]
arrived = {scale: share(there[:, part].ravel()) for scale, part in ((3, slice(1, 10)), (10, slice(10, 19)))}
for scale, (q, error) in arrived.items():
    print(f"starts of scale {scale:2}: {100 * q:.1f} ± {100 * error:.1f} % reach the best maximum")
assert arrived[10][0] < arrived[3][0] and arrived[10][0] + 8 * arrived[10][1] < 1

proper, other = (jm.fit(loglik, {"beta": np.zeros(2)}, data) for loglik in (logistic, squared))
robust = jm.fit(squared, {"beta": np.zeros(2)}, data, vcov="HC0")
print(f"\nslope by likelihood {proper.params['beta'][1]:.2f}, SE {proper.stderr['beta'][1]:.2f}; by squares {other.params['beta'][1]:.2f}, SE {other.stderr['beta'][1]:.2f} from curvature, {robust.stderr['beta'][1]:.2f} by the sandwich")
print("mass of its 'density' at p = 0.5:", round(2 * np.exp(-0.25), 3))
print()
report = jm.lint(squared, {"beta": np.array([0.1, 0.2])}, data, response="y", support="binary")
print(report)
assert report["normalised"].passed is False

# %% [markdown]
# `jm.lint` can sum the density because it was told which values the response takes; without `support=` that check is marked –, not passed.
#
# ## 6. An infinite likelihood
#
# Mix a normal component with weight one half and $N(0, 3^2)$. Put its mean on any one observation and let $\sigma \to 0$: the likelihood is infinite.
# There is no maximum-likelihood estimate, but there is a sensible *local* maximum. Which of the two a search finds depends on its start.

# %%
def beside_background(params, y):
    r = (y - params["mu"]) / params["sigma"]
    return jnp.logaddexp(-0.5 * r**2 - jnp.log(params["sigma"]), -0.5 * (y / 3) ** 2 - jnp.log(3.0))


rng = np.random.default_rng(66)
y = np.concatenate([rng.normal(0, 3, 20), rng.normal(2, 0.7, 20)])
widths = np.geomspace(1e-4, 3, 30)
starts = {"mu": np.repeat(y, 30), "sigma": np.tile(widths, 40)}
hills = jm.multistart(beside_background, starts, y, constraints={"sigma": jm.positive}, params_axis=0, progress=False)
print(hills)
fallen = (hills.fits.status == Status.UNBOUNDED).reshape(40, 30)

told = np.flatnonzero(hills.fits.witness.row >= 0)
member = hills.fits[int(told[0])]
print(f"\n{member.verdict.name}: {member.explain()}")
assert np.isnan(hills.fits.x[fallen.ravel()]).all() and np.all(hills.fits.loglik[fallen.ravel()] == np.inf)
narrow = told[told % 30 < 15]
assert np.mean(hills.fits.witness.row[narrow] == narrow // 30) > 0.9  # narrow starts collapse onto their own observation, a few onto a neighbour

# %%
def height(mu, sigma):
    r = (y[:, None] - mu) / sigma
    return np.logaddexp(-0.5 * r**2 - np.log(sigma), (-0.5 * (y / 3) ** 2 - np.log(3.0))[:, None]).sum(axis=0)


fine = np.geomspace(1e-30, 5, 400)
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
left.plot(fine, height(float(hills.best.params["mu"]), fine), color="black", label="mean at the local maximum")
left.plot(fine, height(y[7], fine), "--", color="black", label="mean on observation 7")
left.set(xscale="log", xlabel=r"$\sigma$", ylabel="log-likelihood", ylim=(-75, 5))
left.legend(frameon=False, loc="upper right", fontsize="small")
right.plot(widths, 100 * fallen.mean(axis=0), "o-", color="black", mfc="white")
right.set(xscale="log", xlabel=r"$\sigma$ at the start, mean on an observation", ylabel="UNBOUNDED, in % of starts")
plt.show()
assert fallen[:, 0].all() and fallen[:, -1].mean() < 0.2
assert hills.best.converged and hills.unbounded == fallen.sum()

# %% [markdown]
# Start wide, declare a lower bound for $\sigma$ (`jm.lower(0.1)`), or put a prior on it.
#
# ## What to remember
#
# - Read the status before the numbers. SEPARATED, UNIDENTIFIED and UNBOUNDED are facts about model and data, not about the optimiser.
# - CONVERGED means *a* maximum. If the likelihood may have several, use `jm.multistart`, which fits from many starts and counts the maxima.
# - On the data of the fit the log-likelihood is too high by half the number of parameters. Judge a model on new data, or by AIC; a prior helps, and
#   is labelled MAP.
# - Standard errors assume that the model is right, except those of `vcov="HC0"`, which cost little.
# - Use the likelihood of the response you have: for yes or no that is cross-entropy.
#
# Next: `07_mixtures_and_em`, where label switching and collapse are common.
