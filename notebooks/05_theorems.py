# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # 5. The theorems of maximum likelihood, by simulation
#
# Textbooks list five properties of maximum likelihood: it is consistent, its estimates become normal, no other estimator does better in the limit, it
# does not depend on the parametrisation, and twice the log-likelihood ratio is $\chi^2$. All but one are about $n \to \infty$, and none says how
# large $n$ must be. A simulation can: thousands of data sets with known truth, fitted in one batch. Every number here has a simulation error, and
# wherever there is a closed form the two are compared in units of that error.

# %%
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import scipy
import scipy.stats
from jax.scipy.stats import norm

import jaxmle as jm

# %% tags=["parameters"]
DATASETS = 4000  # simulated data sets of a study

# %% [markdown]
# Two helpers: a mean and a proportion, each with its standard error. A correct number lies within four standard errors.

# %%
MU, SIGMA, Z95 = 1.0, 2.0, scipy.special.ndtri(0.975)


def mean(values):
    return np.mean(values, axis=0), np.std(values, axis=0, ddof=1) / np.sqrt(len(values))


def share(hits):
    p = np.mean(hits, axis=0)
    return p, np.sqrt(np.maximum(p * (1 - p), 0.25 / len(hits)) / len(hits))


def agree(found, exact, error, times=4):
    return bool(np.all(np.abs(np.asarray(found) - exact) < times * np.asarray(error)))


# %% [markdown]
# ## The data sets
#
# Normal samples of 10, 50, 400 and 3200 values, with $\mu = 1$ and $\sigma = 2$ both to be estimated. Data sets of unequal length are a list;
# one call fits them all, in float64.

# %%
def normal(params, y):
    return norm.logpdf(y, params["mu"], params["sigma"])


SIZES = {10: DATASETS, 50: DATASETS // 4, 400: DATASETS // 4, 3200: DATASETS // 4}
rng = np.random.default_rng(5)
samples = [rng.normal(MU, SIGMA, n) for n, times in SIZES.items() for _ in range(times)]
fits = jm.fit_batch(normal, {"mu": 0.5, "sigma": 1.5}, samples, constraints={"sigma": jm.positive}, progress=False)
print(fits)

size = np.array([len(y) for y in samples])
assert fits.converged.all()
assert np.allclose(fits.params["sigma"], [y.std() for y in samples], rtol=1e-9)  # √(Σ(y − ȳ)²/n), as the formula says

# %% [markdown]
# ## 1. Consistency
#
# The root mean squared error falls like $n^{-1/2}$: a straight line of slope $-\tfrac12$ on logarithmic axes. For a normal sample it is known
# at every $n$: $\sigma/\sqrt n$ for $\hat\mu$, and, since $\sqrt n\,\hat\sigma/\sigma$ has a $\chi_{n-1}$ distribution,
#
# $$E(\hat\sigma - \sigma)^2 = \sigma^2\Bigl(2 - \tfrac1n - 2\sqrt{\tfrac2n}\,\tfrac{\Gamma(n/2)}{\Gamma((n-1)/2)}\Bigr).$$

# %%
NS = np.array(list(SIZES))
errors = {name: [fits.params[name][size == n] - truth for n in NS] for name, truth in (("mu", MU), ("sigma", SIGMA))}


def rmse(e):
    square, error = mean(e**2)
    return np.sqrt(square), 0.5 * error / np.sqrt(square)


def slope(x, y, error):
    w = 1 / error**2
    centred = x - np.sum(w * x) / np.sum(w)
    return np.sum(w * centred * y) / np.sum(w * centred**2), np.sum(w * centred**2) ** -0.5


middle = np.sqrt(2 / NS) * np.exp(scipy.special.gammaln(NS / 2) - scipy.special.gammaln((NS - 1) / 2))
exact = {"mu": SIGMA / np.sqrt(NS), "sigma": SIGMA * np.sqrt(2 - 1 / NS - 2 * middle)}
found = {name: np.array([rmse(e) for e in errors[name]]).T for name in errors}
slopes = {name: slope(np.log(NS[1:]), np.log(found[name][0, 1:]), found[name][1, 1:] / found[name][0, 1:]) for name in errors}  # from n = 50 on
for name in errors:
    print(f"{name:5}: slope {slopes[name][0]:.3f} ± {slopes[name][1]:.3f}")
    assert agree(found[name][0], exact[name], found[name][1])
    assert agree(slopes[name][0], -0.5, slopes[name][1])

# %% [markdown]
# ## Where it is not consistent
#
# The proof needs a fixed number of parameters. Give each of $m$ pairs of observations its own mean, with one common $\sigma$ (Neyman and Scott,
# 1948). Then $\hat\sigma^2 = \sum_i (y_{i1} - y_{i2})^2/4m$, and $2m\hat\sigma^2/\sigma^2$ is $\chi^2_m$: its mean is $\sigma^2/2$, whatever $m$.
# With more pairs the estimate gets closer to the wrong value. One fit with all means as parameters confirms the formula.

# %%
def pairs(params, data):
    return norm.logpdf(data["y"], params["mean"][data["pair"]][:, None], params["sigma"]).sum(axis=1)


y = rng.normal(0, 5, (10, 1)) + rng.normal(0, SIGMA, (10, 2))
one = jm.fit(pairs, {"mean": np.zeros(10), "sigma": 1.0}, {"y": y, "pair": np.arange(10)}, constraints={"sigma": jm.positive})
assert one.converged and np.isclose(one.params["sigma"] ** 2, np.sum(np.diff(y) ** 2) / 40, rtol=1e-8)

MS = np.array([5, 20, 80, 320])
wrong = []
for m in MS:
    difference = rng.normal(0, SIGMA * np.sqrt(2), (DATASETS // 4, m))  # of the two observations: their mean has gone
    wrong.append(np.sum(difference**2, axis=1) / (4 * m))
    assert agree(mean(wrong[-1])[0], SIGMA**2 / 2, mean(wrong[-1])[1])

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
for name, mark, dash in (("mu", "o", "-"), ("sigma", "s", "--")):
    left.errorbar(NS, found[name][0], 2 * found[name][1], fmt=mark, color="black", mfc="white", capsize=3, label=rf"$\{name}$, slope {slopes[name][0]:.3f} ± {slopes[name][1]:.3f}")
    left.plot(NS, exact[name], dash, color="grey", linewidth=1)
left.set(xscale="log", yscale="log", xlabel="observations n", ylabel="root mean squared error", title="consistent (lines: exact)")
left.legend(frameon=False)
violins = right.violinplot(wrong, np.log10(MS), widths=0.4, showmeans=True, showextrema=False)
for body in violins["bodies"]:
    body.set(facecolor="0.6", alpha=1)
violins["cmeans"].set_color("black")
for level, label in ((SIGMA**2, r"true $\sigma^2$"), (SIGMA**2 / 2, r"$\sigma^2/2$")):
    right.axhline(level, color="black", linestyle="-" if level == SIGMA**2 else ":", linewidth=1, label=label)
right.set(xlabel="pairs m", ylabel=r"$\hat\sigma^2$", title="a mean for each pair: not consistent", ylim=(0, None))
right.set_xticks(np.log10(MS), [str(m) for m in MS])
right.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 2. Asymptotic normality
#
# $(\hat\theta - \theta)/\mathrm{SE}$ tends to $N(0, 1)$. At $n = 10$ it is still far from normal: $(\hat\sigma - \sigma)/\mathrm{SE} = \sqrt{2n}\,(1
# - \sigma/\hat\sigma)$ has a long left tail, because samples with a small $\hat\sigma$ also get a small standard error. `jm.plots.qq` draws a band
#   that a truly normal sample leaves once in twenty times.

# %%
studentised = {n: ((fits.params["sigma"] - SIGMA) / fits.stderr["sigma"])[size == n] for n in NS}
figure, panels = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
for ax, n in zip(panels, (10, 3200), strict=True):
    jm.plots.qq(studentised[n], ax=ax)
    ax.set(title=f"n = {n}", ylabel=r"$(\hat\sigma - \sigma)/$SE")
plt.show()


def normality(values):
    return scipy.stats.kstest(values, scipy.stats.norm.cdf).pvalue


chi = scipy.stats.chi(9)
for n, t in studentised.items():
    print(f"n = {n:4}: skewness {scipy.stats.skew(t):5.2f}, Kolmogorov-Smirnov test of normality p = {normality(t):.2g}")
assert normality(studentised[3200]) > 1e-3
assert normality(studentised[10]) < 1e-6
assert scipy.stats.kstest(studentised[10], lambda v: chi.cdf(np.sqrt(10) / (1 - v / np.sqrt(20)))).pvalue > 1e-3  # the exact distribution at n = 10

# %% [markdown]
# The effect on intervals: the proportion of 95 % intervals that contain the truth. `fit.interval()` is symmetric in $\log\sigma$, because the
# parameter is declared positive; `scale="user"` is symmetric in $\sigma$. The lines are exact, from the $\chi$ distribution.

# %%
def exact_coverage(n, scale):
    half = Z95 / np.sqrt(2 * n)
    low, high = (np.exp(-half), np.exp(half)) if scale == "free" else (1 / (1 + half), 1 / max(1 - half, 1e-9))
    law = scipy.stats.chi(n - 1)
    return law.cdf(np.sqrt(n) * high) - law.cdf(np.sqrt(n) * low)


grid = np.unique(np.geomspace(8, 4000, 60).astype(int))
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for scale, label, mark, dash, shift in (("free", r"symmetric in $\log\sigma$", "o", "-", 0.96), ("user", r"symmetric in $\sigma$", "s", "--", 1.04)):
    low, high = np.moveaxis(fits.interval(scale=scale)[:, 1], -1, 0)
    held = np.array([share(((low <= SIGMA) & (SIGMA <= high))[size == n]) for n in NS]).T
    assert agree(held[0], [exact_coverage(n, scale) for n in NS], held[1])
    ax.errorbar(NS * shift, 100 * held[0], 200 * held[1], fmt=mark, color="black", mfc="white", capsize=3, label=label)
    ax.plot(grid, [100 * exact_coverage(n, scale) for n in grid], dash, color="grey", linewidth=1)
print(f"exact at n = 10: {exact_coverage(10, 'free'):.3f} symmetric in log σ, {exact_coverage(10, 'user'):.3f} symmetric in σ")
ax.axhline(95, color="black", linewidth=0.8, linestyle=":")
ax.set(xscale="log", xlabel="observations n", ylabel="coverage of 95% intervals for σ, in %")
ax.legend(frameon=False, loc="lower right")
plt.show()

# %% [markdown]
# ## 3. Efficiency
#
# No unbiased estimator has a variance below the inverse of the Fisher information (Cramér and Rao), and the maximum-likelihood estimate attains it in
# the limit. `jm.calibrate` does the whole study for a model: it simulates, refits, and compares. Its column *efficiency* is the bound divided by the
# observed variance.

# %%
N = 400
design = np.column_stack([np.ones(N), np.random.default_rng(6).normal(size=N)])
data = {"x": design, "y": (np.arange(N) % 2).astype(float)}
logistic = jm.models.logistic()
fit = jm.fit(logistic, data=data)
study = jm.calibrate(logistic, fit, data, key=1, replicates=DATASETS, truth={"beta": np.array([0.0, 1.0])}, tests="lr", progress=False)
print(study)

p = scipy.special.expit(design @ [0.0, 1.0])
bound = np.diag(np.linalg.inv(design.T @ (design * (p * (1 - p))[:, None])))
assert np.allclose(study.bound, bound, rtol=1e-9)
assert np.all(np.abs(study.efficiency - 1) < 4 * np.sqrt(2 / DATASETS) + 10 / N)
assert np.all(np.abs(study.coverage() - 0.95) < 4 * study.coverage_error() + 0.002)

# %% [markdown]
# These efficiencies have a simulation error of $\sqrt{2/R}$, 2 % with 4000 data sets, and a true shortfall of order $1/n$.
#
# Other estimators have known, lower efficiencies: the median of normal data has $2/\pi = 64\,\%$ of the efficiency of the mean, and the shape of a
# gamma distribution by the method of moments, at $\alpha = 2$, has $1/\bigl(2(\alpha+1)(\alpha\psi'(\alpha)-1)\bigr) = 57\,\%$. The mean is not
# always better: for Laplace data the *median* is the maximum-likelihood estimate, and the mean has only half its efficiency.

# %%
def ratio(a, b):
    """var a / var b of estimates from the same data sets, and its simulation error."""
    square_a, square_b = (a - a.mean()) ** 2, (b - b.mean()) ** 2
    r = square_a.mean() / square_b.mean()
    return r, mean((square_a - r * square_b) / square_b.mean())[1]


def of_median(law, n):
    """The variance of the median of n (odd) values: the median of uniform values has a beta law."""
    u = scipy.stats.beta((n + 1) / 2, (n + 1) / 2).ppf((np.arange(20_000) + 0.5) / 20_000)
    return np.var(law.ppf(u))


ROWS, SHAPE = 401, 2.0
y = rng.normal(size=(DATASETS, ROWS))
median = ratio(y.mean(axis=1), np.median(y, axis=1))
y = rng.laplace(size=(DATASETS, ROWS))
average = ratio(np.median(y, axis=1), y.mean(axis=1))
y = rng.gamma(SHAPE, size=(max(DATASETS, 1100), ROWS))
gammas = jm.fit_batch(jm.models.distribution(jm.families.gamma), None, y, progress=False)
moments = ratio(gammas.params["shape"], y.mean(axis=1) ** 2 / y.var(axis=1))
limits = [2 / np.pi, 0.5, 1 / (2 * (SHAPE + 1) * (SHAPE * scipy.special.polygamma(1, SHAPE) - 1))]
theory = [1 / ROWS / of_median(scipy.stats.norm, ROWS), of_median(scipy.stats.laplace, ROWS) / (2 / ROWS), limits[2]]

labels = ["median,\nnormal data", "mean,\nLaplace data", "moments,\ngamma shape"]
figure, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
shares = np.array([median, average, moments])
ax.bar(labels, 100 * shares[:, 0], yerr=200 * shares[:, 1], color="0.8", edgecolor="black", capsize=5, width=0.5, label="simulated, ± 2 SE")
ax.hlines(100 * np.array(limits), np.arange(3) - 0.35, np.arange(3) + 0.35, color="black", linewidth=2, label="in the limit")
ax.axhline(100, color="black", linewidth=0.8, linestyle=":")
ax.set(ylabel="efficiency against maximum likelihood, in %", ylim=(0, 125))
ax.legend(frameon=False, loc="upper center", ncols=2)
plt.show()
for name, (r, error), known, limit in zip(("median", "mean", "moments"), shares, theory, limits, strict=True):
    print(f"{name:8} {r:.3f} ± {error:.3f}" + (f", exactly {known:.3f} with 401 values" if known != limit else "") + f", in the limit {limit:.3f}")
    assert agree(r, known, error)

# %% [markdown]
# ## 4. Invariance
#
# A rate and a mean waiting time describe the same exponential distribution. The estimate of one is the reciprocal of the other, and the same holds
# for likelihood intervals. It does not hold for the interval *estimate ± 1.96 SE*, which depends on the parametrisation.

# %%
hours = jm.datasets.load("aircondit").data["hours"]


def by_rate(params, y):
    return jnp.log(params["rate"]) - params["rate"] * y


def by_mean(params, y):
    return -jnp.log(params["mean"]) - y / params["mean"]


rate = jm.fit(by_rate, {"rate": 0.1}, hours, constraints={"rate": jm.positive})
wait = jm.fit(by_mean, {"mean": 50.0}, hours, constraints={"mean": jm.positive})
likelihood = jm.profile(by_rate, rate, hours).conf_int()["rate"], jm.profile(by_mean, wait, hours).conf_int()["mean"]
symmetric = rate.conf_int(scale="user")["rate"], wait.conf_int(scale="user")["mean"]

print(f"mean waiting time             {float(wait.params['mean']):8.2f} hours; 1/rate {1 / float(rate.params['rate']):8.2f}")
print(f"likelihood interval of it     {likelihood[1].round(2)}; from that of the rate {(1 / likelihood[0][::-1]).round(2)}")
print(f"symmetric Wald interval of it {symmetric[1].round(2)}; from that of the rate {(1 / symmetric[0][::-1]).round(2)}")
assert np.isclose(1 / rate.params["rate"], wait.params["mean"], rtol=1e-9)
assert np.allclose(1 / likelihood[0][::-1], likelihood[1], rtol=1e-7)
assert not np.allclose(1 / symmetric[0][::-1], symmetric[1], rtol=0.1)

# %% [markdown]
# ## 5. But it is biased
#
# Nothing in the list says *unbiased*. The maximum-likelihood variance divides by $n$: $E\hat\sigma^2 = \sigma^2(n-1)/n$. The bias is of order $1/n$,
# compared with a standard deviation of order $1/\sqrt n$, so it vanishes in the limit; at $n = 10$ it is 10 %.

# %%
for n in NS:
    bias, error = mean(fits.params["sigma"][size == n] ** 2 - SIGMA**2)
    print(f"n = {n:5}: bias {bias:+.4f} ± {error:.4f}, exact {-(SIGMA**2) / n:+.4f}")
    assert agree(bias, -(SIGMA**2) / n, error)

# %% [markdown]
# ## 6. Wilks: twice the log-likelihood ratio is $\chi^2$
#
# $2\{\ell(\hat\theta) - \ell(\theta)\}$ for the logistic regressions above, with two parameters, is compared with $\chi^2_2$, the distribution behind
# likelihood intervals and `jm.lr_test`.

# %%
lr = study.statistics["lr"]
law = scipy.stats.chi2(2)
rejected, error = study.size("lr")
figure, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
ax.hist(lr, bins=50, range=(0, 12.5), density=True, color="0.8", edgecolor="white", label=f"{len(lr):,} data sets")
x = np.linspace(0, 12.5, 200)
ax.plot(x, law.pdf(x), color="black", label=r"$\chi^2_2$")
ax.axvline(law.ppf(0.95), color="black", linestyle="--", linewidth=1, label=f"5% of χ² beyond: {100 * rejected:.1f} ± {100 * error:.1f}% are")
ax.set(xlabel=r"$2\{\ell(\hat\theta) - \ell(\theta)\}$", ylabel="density")
ax.legend(frameon=False)
plt.show()
assert scipy.stats.kstest(lr, law.cdf).pvalue > 1e-3
assert agree(rejected, 0.05, error)

# %% [markdown]
# ## What to remember
#
# - The theorems are limits, reached at different speeds: at $n = 10$ a symmetric 95 % interval for $\sigma$ contains the truth in 85 % of samples; at
#   3200 there is no visible difference.
# - They need a fixed number of parameters, a correct model, and a truth that is not on a bound. With a mean for each pair, $\hat\sigma^2$ goes to
#   half its value.
# - Efficiency is relative to other estimators *under this model*: the mean is best for normal data and poor for Laplace data.
# - Estimates and likelihood intervals follow a change of parameters; *estimate ± 1.96 SE* does not.
# - `jm.calibrate` measures all of it for your own model and your own $n$.
#
# Next: `06_limitations`, what happens if the conditions fail.
