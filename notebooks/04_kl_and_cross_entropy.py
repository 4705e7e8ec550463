# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # 4. Kullback–Leibler divergence and cross-entropy
#
# What does maximum likelihood do when the model is wrong, as it always is to some extent? It converges to the member of the model that is closest to
# the truth, as measured by the Kullback–Leibler divergence. This notebook computes entropies and divergences, shows what each direction of the
# divergence favours, and follows a wrong model to its limit: where it goes, how fast, with which standard errors, and how AIC is related.

# %% tags=["parameters"]
DATASETS = 1000

# %%
import matplotlib.pyplot as plt
import numpy as np
import scipy
from scipy.special import digamma, polygamma

import jaxmle as jm
from jaxmle import families

# %% [markdown]
# ## Three quantities
#
# For a distribution $p$ and a model $q$, in nats:
#
# $$H(p)=-E_p\log p(Y),\qquad H(p,q)=-E_p\log q(Y),\qquad \mathrm{KL}(p\,\|\,q)=E_p\log\frac{p(Y)}{q(Y)} = H(p,q)-H(p)\ \ge 0 .$$
#
# A distribution is written as a pair of a family and its parameters. The result has its value, its error, and the method: a closed form if there is
# one, quadrature or a sum over counts, the supports alone if $q$ is zero where $p$ is not, and simulation for vectors.

# %%
gamma = (families.gamma, {"shape": 2.0, "rate": 1.0})
lognormal = (families.lognormal, {"meanlog": 0.4, "sdlog": 0.8})
pairs = {
    "normal to normal": ((families.normal, {"loc": 0.0, "scale": 1.0}), (families.normal, {"loc": 1.0, "scale": 2.0})),
    "gamma to lognormal": (gamma, lognormal),
    "gamma to normal": (gamma, (families.normal, {"loc": 2.0, "scale": 1.4})),
    "normal to gamma": ((families.normal, {"loc": 2.0, "scale": 1.4}), gamma),
    "Poisson to neg. binomial": ((families.poisson, {"rate": 3.0}), (families.negative_binomial, {"mean": 3.0, "dispersion": 0.5})),
    "Cauchy to normal": ((families.cauchy, {"loc": 0.0, "scale": 1.0}), (families.normal, {"loc": 0.0, "scale": 1.7})),
}
print(f"{'':<26}{'H(p)':>9}{'H(p, q)':>10}{'KL':>10}   KL found by")
for name, (p, q) in pairs.items():
    own, cross, divergence = jm.entropy(p), jm.cross_entropy(p, q), jm.kl_divergence(p, q)
    print(f"{name:<26}{own.value:9.5f}{cross.value:10.5f}{divergence.value:10.5f}   {divergence.method}")
    assert np.isinf(divergence.value) if np.isinf(cross.value) else abs(cross.value - own.value - divergence.value) < 1e-12
    assert divergence.value >= 0

# %% [markdown]
# Two are infinite: a normal variable can be negative, which is impossible for a gamma; and Cauchy tails are too heavy for a normal model, although
# both are on the whole line. The first row can be done by hand,
# $\log\frac{\sigma_q}{\sigma_p}+\frac{\sigma_p^2+(\mu_p-\mu_q)^2}{2\sigma_q^2}-\frac12$, and the second is an integral:

# %%
by_hand = np.log(2.0) + (1 + 1) / 8 - 0.5
truth, model = scipy.stats.gamma(2.0), scipy.stats.lognorm(0.8, scale=np.exp(0.4))
integral = scipy.integrate.quad(lambda v: truth.pdf(v) * (truth.logpdf(v) - model.logpdf(v)), 0, np.inf, epsabs=1e-12)[0]
print(jm.kl_divergence(*pairs["normal to normal"]).value, "by hand ", by_hand)
print(jm.kl_divergence(gamma, lognormal).value, "by scipy", integral)
assert abs(jm.kl_divergence(*pairs["normal to normal"]).value - by_hand) < 1e-14
assert abs(jm.kl_divergence(gamma, lognormal).value - integral) < 1e-9

# %% [markdown]
# ## It is not symmetric: covering and seeking
#
# Let $p$ have two modes and $q$ be a single normal distribution. $\mathrm{KL}(p\|q)$ penalises $q$ for being small where $p$ is not, so its minimum
# **covers** both modes; it is the normal with the mean and the variance of $p$. $\mathrm{KL}(q\|p)$ penalises $q$ for being large where $p$ is small,
# so each of its minima **seeks** one mode. Maximum likelihood is of the first kind. (Variational approximations are usually the second.)

# %%
two_normals = families.mixture(families.normal, families.normal)
humps = {"weights": np.array([0.6, 0.4]), "components": ({"loc": -2.5, "scale": 0.7}, {"loc": 2.5, "scale": 0.7})}
two = (two_normals, humps)


def one(v):
    return (families.normal, {"loc": v[0], "scale": np.exp(v[1])})


def nearest(divergence, start):
    return scipy.optimize.minimize(divergence, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-12})


forward = nearest(lambda v: jm.kl_divergence(two, one(v)).value, [1.0, 0.0])
reverse = [nearest(lambda v: jm.kl_divergence(one(v), two).value, [at, -0.5]) for at in (-2.5, 2.5)]
mean, sd = float(two_normals.mean(humps)), float(np.sqrt(two_normals.variance(humps)))
print(f"forward: N({forward.x[0]:.4f}, {np.exp(forward.x[1]):.4f}), KL {forward.fun:.4f}; mean and sd of the two humps: {mean:.4f}, {sd:.4f}")
for found in reverse:
    print(f"reverse: N({found.x[0]:.4f}, {np.exp(found.x[1]):.4f}), KL {found.fun:.4f}")
assert abs(forward.x[0] - mean) < 1e-4 and abs(np.exp(forward.x[1]) - sd) < 1e-4
assert all(abs(found.x[0] - at) < 0.02 and abs(np.exp(found.x[1]) - 0.7) < 0.02 for found, at in zip(reverse, (-2.5, 2.5), strict=True))
assert reverse[0].fun < reverse[1].fun  # the mode with more weight; both are local minima, near -log 0.6 and -log 0.4
assert np.allclose([found.fun for found in reverse], -np.log([0.6, 0.4]), atol=1e-3)

grid = np.linspace(-7, 7, 400)
normal_density = lambda v: scipy.stats.norm.pdf(grid, v[0], np.exp(v[1]))  # noqa: E731
fig, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
ax.fill_between(grid, np.exp(two_normals.log_prob(humps, grid)), color="0.85", label="p, two humps")
ax.plot(grid, normal_density(forward.x), "k-", label="least KL(p ‖ q): covers")
ax.plot(grid, normal_density(reverse[0].x), "k--", label="least KL(q ‖ p): seeks a mode")
ax.plot(grid, normal_density(reverse[1].x), "k:", label="the other local minimum of KL(q ‖ p)")
ax.set(xlabel="y", ylabel="density", ylim=(0, 0.85))
legend = ax.legend(frameon=False, loc="upper center", fontsize=9, ncols=2)

# %% [markdown]
# ## Least cross-entropy to the data is maximum likelihood
#
# Replace $p$ by the data, each row with weight $1/n$: $H(\text{data},q_\theta)=-\frac1n\sum\log q_\theta(y_i)=-\ell(\theta)/n$. Minimising it over
# $\theta$ is maximum likelihood. With counts the data are themselves a distribution, so the divergence from the data to the model also exists;
# multiplied by $2n$ it is the $G^2$ statistic against the saturated model.

# %%
deaths = jm.datasets.load("horsekicks").data["deaths"]
fit = jm.fit(families.poisson, data=deaths)
rates = np.linspace(0.4, 1.1, 57)
cross = np.array([jm.cross_entropy(deaths, (families.poisson, {"rate": rate})).value for rate in rates])
at_best = jm.cross_entropy(deaths, (families.poisson, fit.params))
print(at_best)
assert abs(at_best.value + float(fit.loglik) / len(deaths)) < 1e-13 and at_best.value <= cross.min()

counts = np.unique(deaths, return_counts=True)[1]
own = -np.sum(counts / 280 * np.log(counts / 280))
expected = 280 * scipy.stats.poisson.pmf(np.arange(len(counts)), deaths.mean())
g2 = 2 * np.sum(counts * np.log(counts / expected))
print(f"entropy of the data {own:.6f}, divergence to the Poisson {at_best.value - own:.6f}, times 2n {2 * 280 * (at_best.value - own):.4f}; G2 {g2:.4f}")
assert abs(2 * 280 * (at_best.value - own) - g2) < 1e-9

fig, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
ax.plot(rates, cross, "k", label="cross-entropy to the data")
ax.axhline(own, color="grey", linestyle="--", linewidth=1, label="entropy of the data")
ax.plot([fit.params["rate"]], [at_best.value], "ko", label="maximum likelihood: the mean")
ax.set(xlabel="rate (deaths a year in a corps)", ylabel="nats")
legend = ax.legend(frameon=False, fontsize=9)

# %% [markdown]
# ## A wrong model goes to the nearest member
#
# Draw from a gamma distribution with shape 2, and fit a lognormal. As $n$ grows, the cross-entropy to the data tends to $H(p,q_\theta)$, and its
# minimum to the minimum of that, which is also the minimum of $\mathrm{KL}(p\|q_\theta)$. For the lognormal it is known: mean and variance of $\log
# Y$, $\mu^*=\psi(2)$ and $\sigma^{*2}=\psi'(2)$.

# %%
star = {"meanlog": float(digamma(2.0)), "sdlog": float(np.sqrt(polygamma(1, 2.0)))}
least = jm.kl_divergence(gamma, (families.lognormal, star))
sds = np.linspace(0.6, 1.1, 41)
around = np.array([jm.kl_divergence(gamma, (families.lognormal, {**star, "sdlog": sd})).value for sd in sds])
print("nearest lognormal:", star, "at", least)
search = nearest(lambda v: jm.kl_divergence(gamma, (families.lognormal, {"meanlog": v[0], "sdlog": np.exp(v[1])})).value, [0.0, 0.0])
assert least.value > 0 and around.min() >= least.value
assert abs(search.x[0] - star["meanlog"]) < 1e-4 and abs(np.exp(search.x[1]) - star["sdlog"]) < 1e-4

# %% [markdown]
# Now simulate many data sets of three sizes, each batch fitted in one call of `fit_batch`. Because the model is wrong, the default standard error of
# $\sigma$, $\sigma^*/\sqrt{2n}$, is also wrong: the standard deviation is $\sigma^*\sqrt{(\kappa-1)/4n}$ with $\kappa=3+\psi'''(2)/\psi'(2)^2$ the
# kurtosis of $\log Y$, which is 26 % larger. The sandwich (`vcov="HC0"`) estimates this correctly.

# %%
rng = np.random.default_rng(4)
kurtosis = 3 + polygamma(3, 2.0) / polygamma(1, 2.0) ** 2
sizes = (50, 200, 800)
fits, samples = {}, {n: rng.gamma(2.0, size=(DATASETS, n)) for n in sizes}
for n, y in samples.items():
    fits[n] = jm.fit_batch(families.lognormal, None, y, vcov="HC0", progress=False)
    assert fits[n].converged.all()

print("sdlog:  n    bias     spread   spread * sqrt(n)   HC0     default    (means of reported standard errors)")
limit = star["sdlog"] * np.sqrt((kurtosis - 1) / 4)
for n, batch in fits.items():
    found = batch.params["sdlog"]
    default = np.sqrt(1 / -batch.hessian[:, 1, 1])  # the two entries are orthogonal at the maximum
    print(f"{n:10d}{found.mean() - star['sdlog']:9.4f}{found.std():10.4f}{found.std() * np.sqrt(n):15.4f}{batch.stderr['sdlog'].mean():13.4f}{default.mean():10.4f}")
print(f"theory, n large{'':17}{limit:15.4f}")
assert np.abs(fits[sizes[0]].hessian[:, 0, 1]).max() < 1e-6 * np.abs(fits[sizes[0]].hessian[:, 1, 1]).min()

n, batch = sizes[-1], fits[sizes[-1]]
found, error = batch.params["sdlog"], 1 / np.sqrt(DATASETS)
spread_error = np.sqrt(0.5) * error  # relative Monte-Carlo error of a standard deviation
assert abs(batch.params["meanlog"].mean() - star["meanlog"]) < 4 * batch.params["meanlog"].std() * error
assert abs(found.mean() - star["sdlog"]) < 4 * found.std() * error + 2 / n  # a bias of the order 1/n
assert abs(found.std() * np.sqrt(n) / limit - 1) < 4 * spread_error + 0.02
assert abs(batch.stderr["sdlog"].mean() / found.std() - 1) < 4 * spread_error + 0.02
assert np.sqrt(1 / -batch.hessian[:, 1, 1]).mean() / found.std() < 0.9

# %%
fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
axes[0].plot(sds, around, "k")
axes[0].plot([star["sdlog"]], [least.value], "ko")
axes[0].axhline(0, color="grey", linewidth=0.8)
axes[0].set(title="KL(gamma ‖ lognormal)", xlabel=r"$\sigma$ of the lognormal", ylabel="nats", ylim=(-0.01, None))
for (n, batch), dash in zip(fits.items(), (":", "--", "-"), strict=True):
    heights, edges = np.histogram(batch.params["sdlog"], bins=np.linspace(0.5, 1.15, 53), density=True)
    axes[1].stairs(heights, edges, color="k", linestyle=dash, label=f"n = {n}")
axes[1].axvline(star["sdlog"], color="grey", linewidth=1)
axes[1].set(title=f"{DATASETS} estimates each; nearest member grey", xlabel=r"$\hat\sigma$", ylabel="density")
legend = axes[1].legend(frameon=False)

# %% [markdown]
# With more data the estimate gets closer to $\sigma^*$, never to the truth: the divergence of the closest member does not vanish. In a single sample,
# two standard errors that disagree suggest that the model is wrong (`jm.information_matrix_test` is a test of this). Those of the mean of $\log Y$
# always agree: a wrong shape does not affect a mean.

# %%
one_sample = jm.fit(families.lognormal, data=samples[800][0])
robust = jm.fit(families.lognormal, data=samples[800][0], vcov="HC0")
print("standard errors of", one_sample.names, "default", one_sample.se.round(5), "HC0", robust.se.round(5))
assert abs(robust.stderr["meanlog"] / one_sample.stderr["meanlog"] - 1) < 1e-8

# %% [markdown]
# ## AIC estimates a divergence
#
# How good is a fitted model for *new* data? By its cross-entropy $H(p,q_{\hat\theta})$. The in-sample $-\ell(\hat\theta)/n$ is too small, because $\hat\theta$ was chosen to make it
# small. The optimism is $\mathrm{tr}(J^{-1}K)/n$ on average, with $J$ the information and $K$ the variance of the score; if the model is right, $J=K$
# and the trace is $k$, the number of parameters. So
#
# $$\mathrm{AIC}/2n=-\ell(\hat\theta)/n+k/n\ \approx\ H(p,q_{\hat\theta}) = H(p)+\mathrm{KL}(p\,\|\,q_{\hat\theta}),$$
#
# and since $H(p)$ is the same for all models of the same data, differences of AIC estimate differences of divergence. Takeuchi's criterion, `jm.tic`, estimates the trace itself. For
# the wrong lognormal it is $1+(\kappa-1)/2=2.59$ and not 2. In the batch with $n=200$ the truth is known, so the optimism can be measured:

# %%
n, batch = 200, fits[200]
m, s = batch.params["meanlog"], batch.params["sdlog"]
log_y = np.log(samples[n])


def out_of_sample(m, s):
    """H(p, q) of the gamma truth and a lognormal, from the mean and variance of log Y."""
    return np.log(s) + 0.5 * np.log(2 * np.pi) + star["meanlog"] + (star["sdlog"] ** 2 + (m - star["meanlog"]) ** 2) / (2 * s**2)


at_star = -np.mean(scipy.stats.norm.logpdf(log_y, star["meanlog"], star["sdlog"]) - log_y, axis=1)  # -l/n of each data set at the nearest member
control = at_star - out_of_sample(star["meanlog"], star["sdlog"])  # has mean zero and removes most of the noise
optimism = n * (out_of_sample(m, s) + batch.loglik / n + control)
trace, error = 1 + (kurtosis - 1) / 2, optimism.std() / np.sqrt(DATASETS)
print(f"n times the optimism: {optimism.mean():.2f}, Monte-Carlo error {error:.2f}; theory {trace:.2f}; AIC supposes 2")
print("one data set:", jm.tic(families.lognormal, one_sample, samples[800][0]), " AIC", float(one_sample.aic))

first = (families.lognormal, {"meanlog": m[0], "sdlog": s[0]})
assert abs(jm.cross_entropy(gamma, first).value - out_of_sample(m[0], s[0])) < 1e-10
assert abs(optimism.mean() - trace) < 4 * error + 15 / n  # the next term is of the order 1/n

# %% [markdown]
# On the twelve waiting times of notebook 1, four models:

# %%
hours = jm.datasets.load("aircondit").data["hours"]
candidates = {name: jm.fit(getattr(families, name), data=hours) for name in ("exponential", "gamma", "weibull", "lognormal")}
table = jm.compare(*candidates.values(), names=list(candidates))
print(table)
assert min(candidates, key=lambda name: float(candidates[name].aic)) == "exponential"

# %% [markdown]
# Differences below two are small relative to their sampling error: twelve numbers cannot distinguish these four models, and the smallest AIC proves
# nothing.
#
# ## What to remember
#
# - $H(p,q)=H(p)+\mathrm{KL}(p\|q)$. Minimising cross-entropy to the data is maximum likelihood.
# - The divergence is not symmetric. Maximum likelihood covers the data; the reverse direction seeks a mode.
# - A wrong model converges to its member closest to the truth. Its standard errors then need the sandwich.
# - AIC estimates the divergence up to a constant common to all models, and assumes that the model is approximately right.
#
# Next: `05_theorems`, the same statements as theorems, each checked by simulation.
