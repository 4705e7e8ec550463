# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # 1. Likelihood and log-likelihood
#
# A likelihood is the probability of the data, read as a function of the parameter. From that one function come the estimate (where it is highest),
# the standard error (how sharply it curves there) and the interval (where it has not yet fallen too far). This notebook takes these one at a time, on
# two small classic data sets, and checks each against a formula that can be worked out with pencil and paper.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import scipy

import jaxmle as jm
from jaxmle import families

aircondit = jm.datasets.load("aircondit")
hours = aircondit.data["hours"]
print(aircondit)
print(hours)

# %% [markdown]
# ## One formula, two readings
#
# Suppose that the hours between failures are exponential, $f(y;\theta)=\theta e^{-\theta y}$, with $\theta$ the number of failures per hour.
#
# - With $\theta$ fixed, it is a **density** of $y$: its integral over $y$ is 1.
# - With $y$ fixed, it is a **likelihood** of $\theta$, $L(\theta)$: its integral over $\theta$ need not be 1. Here it is $1/y^2$.
#
# So a likelihood is not a distribution of $\theta$. Only ratios $L(\theta_1)/L(\theta_2)$ are meaningful.


# %%
def density(y, theta):
    return theta * np.exp(-theta * y)


fig, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
y_grid, theta_grid = np.linspace(0, 400, 300), np.linspace(0, 0.06, 300)
for theta, dash in ((0.005, "-"), (0.01, "--"), (0.02, ":")):
    axes[0].plot(y_grid, density(y_grid, theta), "k" + dash, label=rf"$\theta$ = {theta}")
for y, dash in ((50.0, "-"), (100.0, "--"), (200.0, ":")):
    axes[1].plot(theta_grid, density(y, theta_grid), "k" + dash, label=f"y = {y:.0f} h")
axes[0].set(title="density: area 1", xlabel="y (hours)", ylabel=r"$f(y;\theta)$")
axes[1].set(title=r"likelihood: area $1/y^2$", xlabel=r"$\theta$ (failures per hour)", ylabel=r"$L(\theta)$")
for ax in axes:
    ax.legend(frameon=False)

over_y = scipy.integrate.quad(density, 0, np.inf, args=(0.01,))[0]
over_theta = scipy.integrate.quad(lambda theta: density(100.0, theta), 0, np.inf)[0]
print(f"integral over y, at theta = 0.01: {over_y:.10f}\nintegral over theta, at y = 100:  {over_theta:.10f}")
assert abs(over_y - 1) < 1e-8 and abs(over_theta - 1 / 100**2) < 1e-8 / 100**2

# %% [markdown]
# ## A product that underflows, a sum that does not
#
# Independent observations multiply, $L(\theta)=\prod_i f(y_i;\theta)$, and on a computer this product underflows even with few data. The second data
# set has 280 counts of deaths by horse kick; treat them as Poisson with their mean.

# %%
deaths = jm.datasets.load("horsekicks").data["deaths"]
rate = deaths.mean()
with jax.enable_x64(True):  # a family called by itself is plain JAX, which is float32 unless told otherwise; jm.fit and its kin need no telling
    terms = np.asarray(families.poisson.log_prob({"rate": rate}, deaths))  # log f(y_i), one number per row
each = np.exp(terms)

rows = [
    ("product, float32, 280 rows", np.prod(each.astype(np.float32))),
    ("product, float64, 280 rows", np.prod(each)),
    ("product, float64, three such armies", np.prod(np.tile(each, 3))),
    ("sum of logs, 280 rows", terms.sum()),
    ("sum of logs, three such armies", np.tile(terms, 3).sum()),
]
for what, value in rows:
    print(f"{what:<37}{value:.6g}")
assert rows[0][1] == 0 and rows[1][1] > 0 and rows[2][1] == 0
assert abs(np.log(rows[1][1]) - rows[3][1]) < 1e-10  # if the product does not underflow, its logarithm is the sum

# %% [markdown]
# The smallest number above zero is about $10^{-45}$ in float32 and $5\cdot10^{-324}$ in float64. Once the product is 0 at every $\theta$,
# there is nothing left to maximise. The logarithm is increasing, so the maximum stays where it was, and the sum of logarithms is an ordinary number:
#
# $$\ell(\theta)=\sum_i \log f(y_i;\theta).$$
#
# In jaxmle a model *is* this sum before summation: a function `loglik(params, data)` that returns one term per observation.


# %%
def loglik(params, data):
    return jnp.log(params["rate"]) - params["rate"] * data


fit = jm.fit(loglik, {"rate": 1.0}, hours, constraints={"rate": jm.positive})
print(fit)

# %% [markdown]
# ## Score, Hessian, curvature
#
# The first derivative of $\ell$ is the **score**, and the maximum is where it is zero: $\ell'(\theta)=n/\theta-\sum y_i=0$, so
# $\hat\theta=1/\bar y$. The second derivative, $\ell''(\theta)=-n/\theta^2$, says how sharply $\ell$ curves. Its negative is the **information** $J$,
# and the standard error is $1/\sqrt{J(\hat\theta)}=\hat\theta/\sqrt n$.
#
# `jm.score`, `jm.hessian` and `jm.information` take the log-likelihood and return functions of `(params, data)`, in float64.

# %%
n, total = len(hours), hours.sum()
print("   theta      score    n/theta - sum y     Hessian     -n/theta^2")
for theta in (0.004, 0.008, 1 / hours.mean(), 0.016):
    at = {"rate": theta}
    score, hessian = float(jm.score(loglik)(at, hours)["rate"]), float(jm.hessian(loglik)(at, hours)[0, 0])
    print(f"{theta:8.5f} {score:10.3f} {n / theta - total:18.3f} {hessian:11.0f} {-n / theta**2:14.0f}")
    assert abs(hessian + n / theta**2) < 1e-12 * n / theta**2 and abs(score - (n / theta - total)) < 1e-12 * total

estimate, stderr = float(fit.params["rate"]), float(fit.stderr["rate"])
assert abs(estimate * hours.mean() - 1) < 1e-12
assert abs(stderr * np.sqrt(n) / estimate - 1) < 1e-12
print(f"\nestimate {estimate:.8f} = 1/mean, standard error {stderr:.8f} = estimate/sqrt(n)")

# %% [markdown]
# `jm.plots.likelihood_curve` draws $\ell$ minus its maximum, with the parabola that has the same curvature there. Four times the data (each row
# counted four times) give four times the information, half the standard error, and a curve half as wide. The curve is skewed to the right: the
# parabola, and everything built on it, is an approximation that improves with n.

# %%
four = jm.fit(loglik, {"rate": 1.0}, hours, constraints={"rate": jm.positive}, weights=jm.frequency(np.full(n, 4)))
fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
jm.plots.likelihood_curve(loglik, fit, hours, "rate", span=(0.002, 0.022), ax=axes[0])
jm.plots.likelihood_curve(loglik, four, hours, "rate", span=(0.002, 0.022), weights=jm.frequency(np.full(n, 4)), ax=axes[1])
axes[0].set(title=f"n = 12, standard error {stderr:.5f}", ylim=(-6, 0.5))
axes[1].set(title=f"n = 48, standard error {float(four.stderr['rate']):.5f}", ylabel="")
axes[1].get_legend().remove()
for ax in axes:
    ax.set_xticks([0.005, 0.01, 0.015, 0.02])
assert abs(2 * float(four.stderr["rate"]) / stderr - 1) < 1e-10

# %% [markdown]
# ## The climb
#
# With more than one parameter the maximum is found by iteration. A Newton step goes to the top of the parabola, $\theta+J(\theta)^{-1}\ell'(\theta)$;
# far from the top, a trust region shortens it. `jm.plots.path_of` records the steps that `fit` takes. Here it is used for a gamma distribution of the
# same hours (shape 1 is the exponential), from a bad start: after a few steps across the contours, the number of correct digits doubles at each step
# until only rounding error is left.

# %%
bad_start = {"rate": 0.05, "shape": 3.0}
gamma = jm.fit(families.gamma, bad_start, hours)
path = jm.plots.path_of(families.gamma, bad_start, hours)
fig, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
jm.plots.likelihood_surface(families.gamma, gamma, hours, ("shape", "rate"), path, ax=axes[0])
jm.plots.trace(path, top=float(gamma.loglik), ax=axes[1])
print(path)
print(gamma)
assert gamma.converged and abs(path.x[-1] / gamma.x - 1).max() < 1e-9

# %% [markdown]
# The score equations characterise the maximum. For the gamma they are $\hat\mu=\bar y$ and $\log\hat k-\psi(\hat k)=\log\bar y-\overline{\log y}$: no
# closed form, but easy to check.

# %%
shape = float(gamma.params["shape"])
left = np.log(shape) - scipy.special.digamma(shape)
right = np.log(hours.mean()) - np.log(hours).mean()
print(f"log k - digamma(k) = {left:.12f}\nlog mean - mean log = {right:.12f}")
assert abs(left - right) < 1e-11
assert abs(shape / float(gamma.params["rate"]) / hours.mean() - 1) < 1e-11

# %% [markdown]
# ## Closed forms are found again
#
# For four families the maximum is known exactly. `jm.fit` does not use these formulas; it searches from the start given here and arrives at the same
# numbers. It stops when the remaining step is below about $10^{-9}$ standard errors, which is the unit of the last column. (A family of `jm.families`
# knows its bounds and a start: `jm.fit(families.poisson, data=deaths)` would be enough.)

# %%
births = jm.datasets.load("birthwt").data
known = {
    "bernoulli: share": (families.bernoulli, births["low"], {"prob": 0.5}, {"prob": births["low"].mean()}),
    "poisson: mean": (families.poisson, deaths, {"rate": 3.0}, {"rate": deaths.mean()}),
    "exponential: 1/mean": (families.exponential, hours, {"rate": 1.0}, {"rate": 1 / hours.mean()}),
    "normal: mean, sd with n": (families.normal, births["age"], {"loc": 30.0, "scale": 20.0}, {"loc": births["age"].mean(), "scale": births["age"].std()}),
}
print(f"{'family: closed form':<25}{'parameter':<11}{'closed form':<20}{'jm.fit':<20}{'difference':<12}in standard errors")
for what, (family, data, start, exact) in known.items():
    found = jm.fit(family, start, data)
    for name, value in exact.items():
        here, unit = float(found.params[name]), float(found.stderr[name])
        print(f"{what:<25}{name:<11}{value:<20.15g}{here:<20.15g}{abs(here - value):<12.0e}{abs(here - value) / unit:.0e}")
        assert abs(here - value) < 2e-9 * unit and abs(here - value) < 1e-11 * value

# %% [markdown]
# The normal's $\hat\sigma$ divides by $n$, not by $n-1$: that is the maximum-likelihood estimate, and its small bias vanishes as $1/n$.
#
# ## Observed and expected information
#
# The **observed** information $J(\hat\theta)=-\ell''(\hat\theta)$ is the curvature of the likelihood of *these* data. The **expected**
# (Fisher) information $I(\hat\theta)$ is its mean over data drawn from the model. For the exponential the two are equal at the maximum; in general
# they differ, by an amount that is negligible relative to $n$ in large samples. For a Weibull distribution of the twelve hours:

# %%
weibull = jm.fit(families.weibull, data=hours)
observed = jm.information(families.weibull)(weibull.params, hours)
expected = n * np.asarray(families.weibull.information(weibull.params), float)
print("standard errors of", weibull.names)
print("   observed", np.sqrt(np.diag(np.linalg.inv(observed))).round(5))
print("   expected", np.sqrt(np.diag(np.linalg.inv(expected))).round(5))
assert np.allclose(np.sqrt(np.diag(np.linalg.inv(observed))), weibull.se, rtol=1e-10)  # the default of jm.fit is the observed one
assert abs(np.linalg.inv(expected)[0, 0] / weibull.vcov[0, 0] - 1) > 1e-3
assert abs(n / estimate**2 / -float(fit.hessian[0, 0]) - 1) < 1e-12  # the exponential: I = n/theta^2 = J

# %% [markdown]
# jaxmle reports the observed one by default: it does not need the distribution of the response, and it is the curvature of the curve in the figure.
#
# ## Two intervals
#
# The **Wald** interval is $\hat\theta\pm1.96$ standard errors: where the parabola has fallen by 1.92. The **likelihood** interval is where
# $\ell$ itself has fallen by 1.92, half the 95 % point of $\chi^2_1$. With twelve observations they differ visibly. By default jaxmle computes the
# Wald interval of a positive parameter on the log scale; `scale="user"` gives the symmetric one.

# %%
profile = jm.profile(loglik, fit, hours)
print(profile, "\n")
cut = scipy.special.chdtri(1, 0.05) / 2  # 1.92
ends = {
    "Wald, symmetric": fit.interval(0.95, scale="user")[0],
    "Wald, log scale": fit.interval(0.95)[0],
    "likelihood": profile.conf_int()["rate"],
}
ax = jm.plots.likelihood_curve(loglik, fit, hours, "rate", span=(0.003, 0.0185))
ax.axhline(-cut, color="grey", linewidth=0.8)
ax.annotate("1.92 below the top", (0.0095, -cut), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=9)
for height, (what, (low, high)) in zip((-2.45, -2.85, -3.25), ends.items(), strict=True):
    ax.plot([low, high], [height, height], "k|-", linewidth=1.2)
    ax.annotate(what, (0.0095, height), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=9)
ax.set(ylim=(-3.6, 0.4))
ax.legend(frameon=False, loc="upper right", fontsize=9)

at_the_ends = [-float(jm.nll(loglik)({"rate": end}, hours)) - float(fit.loglik) for end in ends["likelihood"]]
print("log-likelihood less its maximum at the ends of the likelihood interval:", np.round(at_the_ends, 10))
assert np.allclose(at_the_ends, -cut, atol=1e-8)

# %% [markdown]
# Which is better? Here the answer needs no simulation. $\theta\sum y_i$ has a gamma distribution with shape $n$ whatever $\theta$ is, and all
# three intervals are $\hat\theta$ times constants, so the probability that they miss on each side is a value of the incomplete gamma function.


# %%
def misses(low, high):
    """P(interval above theta), P(interval below theta), exactly: theta/estimate = theta * sum(y)/n."""
    return scipy.special.gammainc(n, n * low / estimate), scipy.special.gammaincc(n, n * high / estimate)


print(f"{'interval':<20}{'lower':<10}{'upper':<10}{'misses: theta below':<21}{'theta above':<13}covers")
for what, (low, high) in ends.items():
    below, above = misses(low, high)
    print(f"{what:<20}{low:<10.5f}{high:<10.5f}{100 * below:<21.2f}{100 * above:<13.2f}{100 * (1 - below - above):.2f} %")

sides = {what: misses(*end) for what, end in ends.items()}
assert abs(sum(sides["likelihood"]) - 0.05) < 0.002
assert abs(sum(sides["likelihood"]) - 0.05) < abs(sum(sides["Wald, symmetric"]) - 0.05)
uneven = {what: abs(below - above) for what, (below, above) in sides.items()}
assert uneven["likelihood"] < uneven["Wald, log scale"] and uneven["likelihood"] < uneven["Wald, symmetric"]

# %% [markdown]
# All three have a coverage close to 95 %. They differ in balance: 2.5 % should be missed on each side.
#
# ## Invariance
#
# The same model in terms of the mean $\mu=1/\theta$: the maximum of the likelihood does not depend on the parametrisation, so $\hat\mu=1/\hat\theta$,
# and the likelihood interval has the reciprocal ends in reverse order. The symmetric Wald interval is not invariant.

# %%
by_mean = lambda params, data: -jnp.log(params["mean"]) - data / params["mean"]  # noqa: E731
again = jm.fit(by_mean, {"mean": 50.0}, hours, constraints={"mean": jm.positive})
low, high = jm.profile(by_mean, again, hours).conf_int()["mean"]
assert abs(float(again.params["mean"]) * estimate - 1) < 1e-12 and abs(float(again.loglik - fit.loglik)) < 1e-10
assert abs(low * ends["likelihood"][1] - 1) < 1e-8 and abs(high * ends["likelihood"][0] - 1) < 1e-8
assert np.allclose(1 / again.interval()[0][::-1], ends["Wald, log scale"], rtol=1e-10)  # on the log scale a reciprocal is a change of sign
wald = again.interval(scale="user")[0]
print(f"mean                      {float(again.params['mean']):.3f} hours = 1/{estimate:.7f}")
print(f"likelihood interval       {low:.2f} to {high:.2f};   reciprocals of that of the rate: {1 / ends['likelihood'][1]:.2f} to {1 / ends['likelihood'][0]:.2f}")
print(f"symmetric Wald interval   {wald[0]:.2f} to {wald[1]:.2f};   reciprocals of that of the rate: {1 / ends['Wald, symmetric'][1]:.2f} to {1 / ends['Wald, symmetric'][0]:.2f}")

# %% [markdown]
# ## What to remember
#
# - A likelihood is the density of the data read as a function of the parameter. It is not a distribution of the parameter.
# - Work with the sum of logs. With a few hundred observations the product is zero on a computer.
# - At the maximum the score is zero. The standard error is one over the square root of the curvature there, observed or expected.
# - An interval may follow the parabola (Wald) or the curve itself (likelihood). The latter is invariant and better balanced in small samples.
#
# Next: `02_gaussian_and_laplace`, where squared and absolute errors turn out to be log-likelihoods.
