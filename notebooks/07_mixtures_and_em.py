# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Mixtures and the EM algorithm
#
# Old Faithful erupts for about two minutes or for about four. If the kind of each eruption were known, the fit would consist of two means and two
# variances; it is not known, so the likelihood is that of a mixture. EM (Dempster, Laird & Rubin 1977) replaces what is missing by its expectation
# and repeats the easy fit. It is short, the likelihood never falls, and it ends near a maximum. But it does not say whether that maximum is the
# highest, how precise the estimates are, or whether there is a maximum at all: mixtures have several, and some have none.

# %% tags=["parameters"]
NULLS = 10_000  # simulated samples for the distribution of the likelihood ratio

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
from scipy.special import ndtr
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture

import jaxmle as jm

y = jm.datasets.load("faithful").data["eruptions"]  # minutes, 272 eruptions

# %% [markdown]
# ## EM by hand
#
# $$\ell(\theta) = \sum_i \log \sum_j w_j\, \phi(y_i;\, \mu_j, \sigma_j^2)$$
#
# The E-step gives each eruption a probability for each component, its *responsibility* $r_{ij} = w_j\phi_j(y_i)/\sum_l w_l\phi_l(y_i)$; the M-step
# computes the weighted mean, variance and proportion. Ten lines:

# %%
weight, mean, variance = np.array([0.5, 0.5]), np.array([2.0, 3.0]), np.array([1.0, 1.0])
path = []
for _ in range(60):
    density = weight * np.exp(-0.5 * (y[:, None] - mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
    path.append(np.log(density.sum(axis=1)).sum())
    r = density / density.sum(axis=1, keepdims=True)  # E
    count = r.sum(axis=0)  # M, and the two lines below
    weight, mean = count / len(y), (r * y[:, None]).sum(axis=0) / count
    variance = (r * (y[:, None] - mean) ** 2).sum(axis=0) / count
path = np.array(path)
print("weights", weight.round(4), " means", mean.round(4), " standard deviations", np.sqrt(variance).round(4), " ℓ", path[-1].round(6))
rounding = 4 * np.finfo(float).eps * np.abs(path[0]) * len(y)
assert np.all(np.diff(path) > -rounding)  # the ascent

# %% [markdown]
# `jm.em_steps` takes the same steps with jaxmle's model, equal to the last digits.

# %%
two = jm.gaussian_mixture(2, "spherical")
start = {"weights": np.array([0.5, 0.5]), "loc": np.array([[2.0], [3.0]]), "variance": np.array([1.0, 1.0])}
params, theirs = jm.em_steps(two, start, y, 60)
assert np.allclose(theirs, path, rtol=1e-12) and np.allclose(params["loc"][:, 0], mean, rtol=1e-9)

# %% [markdown]
# Why it cannot fall: for any responsibilities, $\sum_{ij} r_{ij}\log\{w_j\phi_j(y_i)/r_{ij}\} \le \ell(\theta)$ by Jensen's inequality, with
# equality at the responsibilities of the E-step, and the M-step raises the left side. How fast it rises is another matter: near the end the distance
# to the maximum shrinks by a constant factor, the fraction of missing information. Newton steps on the same likelihood, from the same start, are
# slower at first, where the likelihood is not concave, and then double the number of correct digits with each step. So `jm.em` begins with EM and
# ends with Newton.

# %%
newton = jm.plots.path_of(two.loglik, start, y, constraints=two.constraints)
top = newton.loglik.max()
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
jm.plots.trace(path, top, label="EM", ax=ax)
jm.plots.trace(newton, top, label="Newton", ax=ax)
ax.spines[["top", "right"]].set_visible(False)
gap = top - path
factor = gap[18:22] / gap[17:21]
print("factor by which the distance of EM shrinks, steps 18 to 21:", factor.round(3))
assert np.ptp(factor) < 0.02 * factor.mean()  # linear convergence
assert len(newton) < 20 and abs(newton.loglik[-1] - top) < 1e-9

# %% [markdown]
# ## The fit
#
# `jm.em` draws starts by k-means++, runs EM from each, and passes the best result to `jm.fit`: the status, the standard errors from the observed
# information and the intervals are those of any other fit. R's mixtools, refined by Newton steps, gives these numbers.

# %%
found = jm.em(two, data=y)
found

# %%
R = {"w": (0.348404634014853, 0.0291889990628097), "mu1": (2.01860781706296, 0.026074209496346), "sd1": (0.235621771456735, 0.0230914036227772), "mu2": (4.27334342119188, 0.034109795381795), "sd2": (0.437063146222843, 0.0271130202322301)}  # fmt: skip
ours = jm.delta(
    lambda p: jax.numpy.stack([p["weights"][0], p["loc"][0, 0], p["variance"][0] ** 0.5, p["loc"][1, 0], p["variance"][1] ** 0.5]),
    found.fit,
)
estimate, se = np.array(list(R.values())).T
assert np.max(np.abs(ours.estimate - estimate) / se) < 1e-8 and np.max(np.abs(ours.stderr / se - 1)) < 1e-8
assert abs(found.fit.loglik - -276.360040495734) < 1e-9

profile = jm.profile(two.loglik, found.fit, y, "weights[0]")
assert np.allclose(profile.interval()[0], [0.292882314807659, 0.406926522167209], atol=1e-7)  # R, by bisection
print(profile)

# %%
_ = jm.plots.mixture(y, found.params["weights"], found.params["loc"][:, 0], found.params["variance"], names="minutes", bins=30)

# %% [markdown]
# ## Labels
#
# The likelihood does not know which component is called 0. Exchanging them gives another maximum of the same height, and a fit that starts there ends
# there. `jm.em` sorts Gaussian components by their means. Quantities that do not depend on labels, such as the probability that an eruption is longer
# than three minutes, are the same for any order.

# %%
swapped = jax.tree.map(lambda leaf: leaf[::-1], found.params)
other = jm.fit(two.loglik, swapped, y, constraints=two.constraints)


def long_share(p):
    return 1 - np.sum(p["weights"] * ndtr((3.0 - p["loc"][:, 0]) / np.sqrt(p["variance"])))


assert abs(other.loglik - found.fit.loglik) < 1e-9 and other.params["loc"][0, 0] > other.params["loc"][1, 0]
assert np.isclose(long_share(found.params), long_share(other.params), rtol=1e-9)
print(f"means {other.params['loc'][:, 0].round(3)}; share above three minutes {long_share(found.params):.4f} with either labels")

# %% [markdown]
# ## Many maxima
#
# Four measurements of 150 irises, three components with free covariance matrices, 44 parameters. One start in ten ends at a lower maximum.
# The highest is the one that scikit-learn finds with the same number of starts and enough iterations. (`jm.multistart` counts maxima for any
# likelihood, and `symmetric=` merges those that differ only in labels.)

# %%
iris = load_iris()
flowers = jm.em(jm.gaussian_mixture(3), data=iris.data, starts=10)
ends, times = np.unique(flowers.logliks.round(1), return_counts=True)
print("where EM ended: ", ",  ".join(f"ℓ = {end:.1f} from {k} starts" for end, k in zip(ends, times, strict=True)))
print(flowers.explain())
sklearn = GaussianMixture(3, n_init=10, tol=1e-10, max_iter=5000, reg_covar=0, random_state=0).fit(iris.data)
assert flowers.fit.converged and flowers.fit.df == 44
assert abs(flowers.fit.loglik - sklearn.score(iris.data) * 150) < 1e-4
assert flowers.logliks.min() < flowers.fit.loglik - 1 and flowers.reached >= 5

# %% [markdown]
# The figure shows two of the four coordinates: the marginal of a normal mixture is the mixture of the marginals. The components were found without
# the species, but nearly agree with them.

# %%
at = np.array([2, 3])
covariance = np.array([matrix[np.ix_(at, at)] for matrix in flowers.params["covariance"]])
jm.plots.mixture(
    iris.data[:, at], flowers.params["weights"], flowers.params["loc"][:, at], covariance, names=["petal length (cm)", "petal width (cm)"]
)
with jax.enable_x64(True):  # plain JAX computes in float32 unless told otherwise; the library's own calls need no such line
    component = np.argmax(np.asarray(jm.gaussian_mixture(3).log_joint(flowers.params, iris.data)), axis=1)
agree = np.mean(component == iris.target)
print(f"flowers whose component is their species: {100 * agree:.1f}%")
assert agree > 0.95  # both are in the order of the sepal's length

# %% [markdown]
# ## No maximum at all
#
# If a component covers a single value and its variance goes to zero, the likelihood goes to infinity. This holds for every mixture of normals with
# free variances: its so-called maximum-likelihood estimate is a local maximum. A start close to such a singularity has the status `UNBOUNDED`, and
# the row is named. Seven eruptions share that value, 1.833 minutes.

# %%
hole = {"weights": np.array([0.5, 0.5]), "loc": np.array([[y[10]], [3.5]]), "variance": np.array([1e-6, 1.0])}
collapsed = jm.em(two, hole, y)
print(collapsed.explain())
assert collapsed.fit.verdict is jm.Status.UNBOUNDED and np.isnan(collapsed.fit.x).all()
assert collapsed.fit.witness.row in np.flatnonzero(y == y[10]) and np.array_equal(collapsed.rows[0], np.flatnonzero(y == y[10]))

# %% [markdown]
# There are two solutions: let the components share their variance (`"tied"`), which bounds the likelihood, or add a weak penalty on small variances
# (Chen & Tan 2009). The second is no longer maximum likelihood, and the fit says so: its `mode` is MAP and it has no AIC. From the same bad start it
# finds the estimates above, shifted by a small fraction of a standard error.

# %%
floored = jm.em(two, hole, y, variance_floor=1 / len(y))
moved = np.abs(floored.fit.x - found.fit.x) / found.fit.se
print(f"mode {floored.fit.mode}, AIC {floored.fit.aic}, largest move {moved.max():.3f} standard errors")
assert floored.fit.converged and floored.fit.mode == "MAP" and np.isnan(floored.fit.aic) and moved.max() < 0.05

# %% [markdown]
# ## Mixtures of anything
#
# `jm.mixture_of` mixes any likelihood with itself; its M-step is a weighted fit of every component. Two simulated regression lines, without any
# information on which point belongs to which line:

# %%
n = 200
rng = np.random.default_rng(0)
x = rng.uniform(-2, 2, n)
first = rng.random(n) < 0.4
data = {"x": np.column_stack([np.ones(n), x]), "y": np.where(first, 1 + 1.5 * x, -0.5 - x) + 0.4 * rng.normal(size=n)}
lines = jm.mixture_of(jm.models.normal(), 2)
fitted = jm.em(lines, data=data, starts=5, key=1)
truth = np.array([-0.5, -1.0, 0.4, 1.0, 1.5, 0.4, 0.6, 0.4])  # the heavier component comes first
z = (fitted.fit.x - truth) / fitted.fit.se
print(fitted.fit)
assert fitted.fit.converged and np.max(np.abs(z)) < 4

with jax.enable_x64(True):
    joint = np.asarray(lines.log_joint(fitted.params, data))
share = 1 / (1 + np.exp(joint[:, 1] - joint[:, 0]))
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
points = ax.scatter(x, data["y"], c=share, cmap="gray", vmin=0, vmax=1, edgecolor="black", linewidth=0.6, s=28)
for j, dash in ((0, "-"), (1, "--")):
    constant, slope = fitted.params["components"][j]["beta"]
    ax.plot(
        [-2, 2],
        [constant - 2 * slope, constant + 2 * slope],
        dash,
        color="black",
        label=f"component {j}, weight {fitted.params['weights'][j]:.2f}",
    )
fig.colorbar(points, label="responsibility of component 0")
ax.set(xlabel="x", ylabel="y")
_ = ax.legend(frameon=False, loc="upper center")

# %% [markdown]
# ## How many components?
#
# Information criteria count parameters. For Old Faithful, with one to four components:

# %%
fits = [found.fit if k == 2 else jm.em(jm.gaussian_mixture(k, "spherical"), data=y).fit for k in (1, 2, 3, 4)]
table = jm.compare(*fits, names=["1 component", "2 components", "3 components", "4 components"], by="bic")
print(table)
narrow = fits[3].params["variance"].min() ** 0.5
print(
    f"narrowest of four: mean {fits[3].params['loc'][np.argmin(fits[3].params['variance']), 0]:.3f}, standard deviation {narrow:.3f} minutes"
)
assert fits[0].bic - fits[1].bic > 100 and abs(fits[1].bic - fits[2].bic) < 1 and narrow < 0.1

# %% [markdown]
# BIC sees no difference between two and three, and then prefers four: the fourth component is a spike of three seconds around 1.83 minutes, where
# many rounded times coincide. A criterion rewards anything that the density can describe, including rounding. How many *kinds of eruption* there are
# is another question.
#
# Why not the likelihood-ratio test? Without a second component its weight is zero, on the boundary of the parameter space, and its location is not
# identified under the hypothesis. So $2\Delta\ell$ is not $\chi^2$ with the difference in parameters. The smallest example (Hartigan 1985): is a
# sample of $N(0, 1)$ contaminated by some $N(\mu, 1)$, $(1 - w)\,\phi(y) + w\,\phi(y - \mu)$, both $w$ and $\mu$ unknown? Simulated without
# contamination, the largest likelihood over a grid:

# %%
ROWS, CUT = 100, 5.991464547107979  # the 95% quantile of χ²(2)
null = rng.normal(size=(NULLS, ROWS))
ratio = np.zeros(NULLS)
for mu in np.linspace(-3, 3, 31):
    excess = np.expm1(mu * null - mu**2 / 2)  # φ(y − μ)/φ(y) − 1
    for w in np.linspace(0, 1, 26)[1:-1] ** 2:
        np.maximum(ratio, 2 * np.log1p(w * excess).sum(axis=1), out=ratio)

rejected, error = np.mean(ratio > CUT), np.sqrt(0.05 * 0.95 / NULLS)
print(f"χ²(2) rejects in {100 * rejected:.1f}% of the samples, not in 5% (± {100 * error:.1f})")
assert rejected < 0.05 - 2 * error

grid = np.linspace(0, 12, 200)
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.step(np.sort(ratio), 1 - np.arange(1, NULLS + 1) / NULLS, color="black", label="simulated, no second component")
ax.plot(grid, np.exp(-grid / 2), "--", color="0.45", label=r"$\chi^2_2$")
ax.set(xlabel=r"$2\Delta\ell$", ylabel="probability of more", yscale="log", ylim=(3e-3, 1.2), xlim=(0, 12))
ax.spines[["top", "right"]].set_visible(False)
_ = ax.legend(frameon=False)

# %% [markdown]
# Here the χ² test rejects too rarely; in other cases it may reject too often. A valid p-value comes from simulation under the smaller model, with
# each sample fitted by both models (a parametric bootstrap, McLachlan 1987), and the two fits of a real sample must come from enough starts.
#
# ## What to remember
#
# - EM never lowers the likelihood, but is slow at the end; `jm.em` lets Newton finish, and the standard errors are those of the likelihood.
# - Use many starts and look at where they end. Labels are arbitrary; quantities that do not depend on them are not.
# - A normal mixture with free variances has no global maximum: `UNBOUNDED` names the row, and a tied variance or a penalty avoids it.
# - The number of components cannot be found by a χ² test; simulate the likelihood ratio, and ask what a component represents.
#
# Next: [08 Neural networks](08_neural_networks.ipynb), where there are many maxima and it does not matter.
