# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # 3. Logistic and softmax regression
#
# For classes the likelihood is simple: it is the probability that the model gave to what happened. Its negative logarithm is what machine learning
# calls cross-entropy. This notebook fits both forms to real data, compares with R and scikit-learn, and then deliberately does the wrong thing,
# squared error on a 0/1 outcome, to show what the likelihood provides: a gradient where the model is wrong, a single maximum, and standard errors.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

import jaxmle as jm

births = jm.datasets.load("birthwt")
print(births)

# %% [markdown]
# ## Logistic regression
#
# $P(y_i=1)=p_i=1/(1+e^{-\eta_i})$ with $\eta_i=x_i\beta$. One term of the log-likelihood is $y_i\log p_i+(1-y_i)\log(1-p_i) = y_i\eta_i-\log(1+e^{\eta_i})$.
# `from_formula` makes the design and keeps its names.

# %%
frame = jm.from_formula("low ~ age + lwt + black + other + smoke + ptl + ht + ui", births.data)
logistic = jm.models.logistic()
fit = frame.fit(logistic)
print(fit)

# %% [markdown]
# R's `glm` on the same rows, from R 4.2.2 with a final Newton step:

# %%
by_r = np.array([0.636909664068401, -0.037749642552998, -0.0149102676586761, 1.2127419553198, 0.804119399303705, 0.846402282824237, 1.22175078682561, 1.83868722849451, 0.711127761524248])
se_r = np.array([1.23031220236324, 0.037810939590904, 0.00704045658383237, 0.532488304201395, 0.448444707878141, 0.408074558564437, 0.463015333118405, 0.703252123308496, 0.463119952254804])
print("largest difference of an estimate, in standard errors:", np.max(np.abs(fit.x - by_r) / se_r))
print("largest relative difference of a standard error:      ", np.max(np.abs(fit.se / se_r - 1)))
assert np.max(np.abs(fit.x - by_r) / se_r) < 1e-8 and np.max(np.abs(fit.se / se_r - 1)) < 1e-7
assert abs(float(fit.loglik) + 98.4168517646642) < 1e-9

odds = jm.delta(lambda params: jnp.exp(params["beta"][5]), fit)
low, high = np.exp(fit.interval()[5])
print(f"odds ratio of smoking: {float(odds.estimate):.2f}, 95 % interval {low:.2f} to {high:.2f} (exp of the interval of the coefficient)")

# %% [markdown]
# ## Bernoulli is binary cross-entropy
#
# `jm.nll(..., reduction="mean")` is the loss that deep-learning libraries call binary cross-entropy *with logits*, and scikit-learn log loss.
# It should be computed from logits: the probability of a confident mistake rounds to 0 or 1, and its logarithm is lost.

# %%
entropy = float(jm.nll(logistic, reduction="mean")({"beta": fit.x}, frame.data))
p, y = logistic.predict({"beta": fit.x}, frame.data), frame.data["y"]
print(f"nll(mean) {entropy:.12f}\nlog_loss  {log_loss(y, p):.12f}")
assert abs(entropy - log_loss(y, p)) < 1e-12

confident = {"x": np.array([[40.0], [800.0]]), "y": np.zeros(2)}  # logits 40 and 800 for a class that was not observed
by_logit = [float(jm.nll(logistic)({"beta": np.ones(1)}, {"x": confident["x"][[i]], "y": np.zeros(1)})) for i in (0, 1)]
with np.errstate(divide="ignore"):
    by_probability = -np.log(1 - 1 / (1 + np.exp(-confident["x"][:, 0])))
print("loss at logits 40 and 800, from the logit:", by_logit, " through the probability:", by_probability)
assert by_logit == [40.0, 800.0] and np.all(np.isinf(by_probability))

# %% [markdown]
# ## Calibration
#
# The score equation is $\sum_i x_i(y_i-p_i)=0$. With a constant in the model the probabilities sum to the number of cases, also within every group
# that has an indicator. This is calibration in the large, and maximum likelihood gives it exactly on the data of the fit.

# %%
for name, rows in (("all", np.ones(189, bool)), ("smokers", births.data["smoke"] == 1), ("with hypertension", births.data["ht"] == 1)):
    print(f"{name:<18} {int(y[rows].sum()):3d} cases, probabilities add up to {p[rows].sum():.9f}")
    assert abs(y[rows].sum() - p[rows].sum()) < 1e-7

order = np.argsort(p).reshape(7, 27)  # seven groups of 27 women, by probability
share, expected = y[order].mean(1), p[order].mean(1)
error = np.sqrt((p * (1 - p))[order].sum(1)) / 27  # standard deviation of a proportion if the probabilities are right
fig, ax = plt.subplots(figsize=(4.6, 4.2), layout="constrained")
ax.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
ax.errorbar(expected, share, yerr=2 * error, fmt="ko", markersize=5, linewidth=1, label=r"share of cases $\pm$ 2 sd")
ax.set(xlabel="mean probability of the group", ylabel="share of low birth weight", xlim=(0, 0.9), ylim=(-0.05, 1))
ax.legend(frameon=False)
assert np.all(np.abs(share - expected) < 3 * error)

# %% [markdown]
# On new data it is not exact: large coefficients tend to be too large by chance. If the outcome is regressed on the fitted $\hat\eta$, the slope is 1
# by construction on the data of the fit, and usually less on the other half of the data.

# %%
half = np.random.default_rng(3).permutation(189) < 95
parts = [jax.tree.map(lambda leaf, rows=rows: leaf[rows], frame.data) for rows in (half, ~half)]
trained = jm.fit(logistic, data=parts[0])
slopes = []
for part in parts:
    eta = part["x"] @ trained.params["beta"]
    again = jm.fit(logistic, data={"x": np.column_stack([np.ones(len(eta)), eta]), "y": part["y"]})
    slopes.append(again)
    print(f"{len(eta)} women: calibration slope {again.params['beta'][1]:.3f}, standard error {again.stderr['beta'][1]:.3f}")
assert abs(slopes[0].params["beta"][1] - 1) < 1e-7 and slopes[1].params["beta"][1] < 1

# %% [markdown]
# ## Softmax
#
# With $K$ classes, $P(y=k)=e^{\eta_k}/\sum_j e^{\eta_j}$. There are two ways to write one term, with the class as an index or as a one-hot vector
# $t$:
#
# $$\eta_y-\log\sum_j e^{\eta_j} \qquad\text{and}\qquad \sum_k t_k\log\mathrm{softmax}(\eta)_k .$$
#
# Wines from three growers, by alcohol and colour:

# %%
wine = load_wine()
z = wine.data[:, [0, 9]]
centre, spread = z.mean(0), z.std(0)
x = np.column_stack([np.ones(len(z)), (z - centre) / spread])
wines = {"x": x, "y": wine.target.astype(float), "t": np.eye(3)[wine.target]}


def by_index(params, data):
    eta = data["x"] @ params["w"]
    chosen = jnp.take_along_axis(eta, data["y"].astype(int)[:, None], axis=1)[:, 0]
    return chosen - jax.nn.logsumexp(eta, axis=1)


def by_one_hot(params, data):
    return jnp.sum(data["t"] * jax.nn.log_softmax(data["x"] @ params["w"], axis=1), axis=1)


anywhere = {"w": np.random.default_rng(4).normal(size=(3, 3))}
values = [float(jm.nll(form, reduction="mean")(anywhere, wines)) for form in (by_index, by_one_hot)]
reference = log_loss(wine.target, np.exp(x @ anywhere["w"]) / np.exp(x @ anywhere["w"]).sum(1, keepdims=True))
print("cross-entropy by index, by one-hot, by scikit-learn:", *values, reference)
assert np.allclose(values, reference, rtol=1e-12)

# %% [markdown]
# A column of coefficients for every class is one column too many: adding the same vector to all of them changes nothing. Gradient descent stops
# somewhere regardless. But there are no standard errors, and jaxmle says what is not identified:

# %%
loose = jm.fit(by_index, {"w": np.zeros((3, 3))}, wines)
print(loose.verdict.name, "-", loose.explain())
assert loose.verdict == jm.Status.UNIDENTIFIED and np.isnan(loose.se).all()

# %% [markdown]
# `jm.models.multinomial` sets the first class to 0 and estimates the others relative to it. The likelihood and the probabilities are the same, and
# there are standard errors.

# %%
softmax = jm.models.multinomial(3)
classes = {"x": x, "y": wines["y"]}
fit3 = jm.fit(softmax, data=classes)
print(fit3)
probabilities = softmax.predict(fit3.params, classes)
eta = x @ loose.params["w"]
assert abs(float(fit3.loglik - loose.loglik)) < 1e-9
assert np.allclose(probabilities, np.exp(eta) / np.exp(eta).sum(1, keepdims=True), atol=1e-7)

theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(x[:, 1:], wine.target)  # C = inf: no penalty
print("\nlog loss: jaxmle", -float(fit3.loglik) / len(x), " scikit-learn", log_loss(wine.target, theirs.predict_proba(x[:, 1:])))
print("largest difference of a probability:", np.abs(theirs.predict_proba(x[:, 1:]) - probabilities).max())
assert np.abs(theirs.predict_proba(x[:, 1:]) - probabilities).max() < 1e-4
assert -float(fit3.loglik) / len(x) <= log_loss(wine.target, theirs.predict_proba(x[:, 1:])) + 1e-12

# %%
across, up = np.meshgrid(np.linspace(-2.6, 2.6, 120), np.linspace(-1.9, 3.6, 120))
grid = {"x": np.column_stack([np.ones(across.size), across.ravel(), up.ravel()])}
likely = softmax.predict(fit3.params, grid)
fig, ax = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
ax.contourf(centre[0] + spread[0] * across, centre[1] + spread[1] * up, likely.max(1).reshape(across.shape), levels=[0.33, 0.5, 0.7, 0.9, 1.0], colors=["0.6", "0.72", "0.85", "0.97"])
for k, mark in enumerate("o^x"):
    ax.plot(*z[wine.target == k].T, "k" + mark, markersize=4.5, markerfacecolor="none" if mark == "o" else "k", label=f"grower {k}")
ax.set(xlabel="alcohol (%)", ylabel="colour intensity", title="darker: the model is less sure")
legend = ax.legend(loc="upper left")

# %% [markdown]
# ## The squared-error pitfall
#
# It is tempting to train a classifier by $\sum(y_i-p_i)^2$. The gradients with respect to $\beta$ are
#
# $$\text{cross-entropy: } \sum (p_i-y_i)\,x_i \qquad\qquad \text{squared error: } \sum 2\,p_i(1-p_i)(p_i-y_i)\,x_i .$$
#
# The factor $p(1-p)$ is the problem: if the model is confident and wrong, $p(1-p)\approx0$, and there is almost no gradient to correct it. Take
# mother's weight and smoking, and start at an intercept of 12, which gives everybody a probability of 0.99999. Both losses are minimised by plain
# gradient steps, the squared error at twice the rate, so that both have equal steps at $p=\frac12$.

# %%
weight = births.data["lwt"]
data = {"x": np.column_stack([np.ones(189), (weight - weight.mean()) / weight.std(), births.data["smoke"]]), "y": births.data["low"]}
cross_entropy = jm.nll(logistic, reduction="mean")


def squared(params, data):
    return jnp.mean((data["y"] - jax.nn.sigmoid(data["x"] @ params["beta"])) ** 2)


def descend(loss, rate, steps=400):
    def move(beta, _):
        gradient = jax.grad(loss)({"beta": beta}, data)["beta"]
        return beta - rate * gradient, (beta, jnp.linalg.norm(gradient))

    with jax.enable_x64(True):
        return [np.asarray(seen) for seen in jax.lax.scan(move, jnp.array([12.0, 0.0, 0.0]), length=steps)[1]]


sound = jm.fit(logistic, data=data)
paths = {"cross-entropy": descend(cross_entropy, 1.0), "squared error": descend(squared, 2.0)}
intercepts = np.linspace(-15, 15, 301)
at = data["x"] @ np.array([[0.0], [sound.params["beta"][1]], [sound.params["beta"][2]]]) + intercepts
chance = 1 / (1 + np.exp(-at))
curves = {"cross-entropy": np.mean(np.logaddexp(0, at) - data["y"][:, None] * at, axis=0), "squared error": np.mean((data["y"][:, None] - chance) ** 2, axis=0)}

fig, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
for (name, curve), (beta, gradient), dash in zip(curves.items(), paths.values(), ("-", "--"), strict=True):
    axes[0].plot(intercepts, (curve - curve.min()) / (curve - curve.min()).max(), "k" + dash, label=name)
    axes[1].plot(beta[:, 0], "k" + dash)
    axes[2].plot(gradient, "k" + dash)
axes[0].set(title="loss along the intercept", xlabel="intercept", ylabel="share of its range")
axes[1].set(title="intercept", xlabel="gradient step")
axes[1].axhline(sound.params["beta"][0], color="grey", linewidth=0.8)
axes[2].set(title="length of the gradient", xlabel="gradient step", yscale="log")
axes[0].legend(frameon=False, loc="upper left", fontsize=9)

(ce, ce_gradient), (se, se_gradient) = paths.values()
print(f"first gradient: cross-entropy {ce_gradient[0]:.2g}, squared error {se_gradient[0]:.2g}, their ratio {se_gradient[0] / ce_gradient[0]:.1e}")
print(f"after 400 steps: intercept {ce[-1][0]:.4f} and {se[-1][0]:.4f}; the maximum-likelihood estimate is {sound.params['beta'][0]:.4f}")
certain = 1 / (1 + np.exp(-12.0))
assert abs(se_gradient[0] / ce_gradient[0] / (2 * certain * (1 - certain)) - 1) < 1e-9  # all rows have the same p there, so the ratio is 2p(1 - p)
assert np.all(np.abs(ce[-1] - sound.x) < 0.01 * sound.se) and se[-1][0] > 11.9

# %% [markdown]
# Cross-entropy is convex: its curvature $\sum p_i(1-p_i)x_ix_i'$ is never negative in any direction. Squared error is not: beyond the valley it
# curves the other way and becomes flat, so local minima and plateaus are possible. `jm.fit` follows negative curvature and recovers from this start,
# with more steps. That is luck with a good method, not a property of the loss.

# %%
bend = {name: np.diff(curve, 2) / 0.1**2 for name, curve in curves.items()}
print("smallest second derivative along the intercept:", {name: f"{b.min():.1e}" for name, b in bend.items()})
assert bend["cross-entropy"].min() > 0 > bend["squared error"].min()


def brier(params, data):
    return -((data["y"] - jax.nn.sigmoid(data["x"] @ params["beta"])) ** 2)


far, near = {"beta": np.array([12.0, 0.0, 0.0])}, {"beta": np.zeros(3)}
steps = {name: (jm.plots.path_of(loss, far, data), jm.plots.path_of(loss, near, data)) for name, loss in (("likelihood", logistic), ("squared error", brier))}
for name, (long, short) in steps.items():
    print(f"{name:<14} {len(long) - 1:3d} steps of jm.fit from an intercept of 12, {len(short) - 1} from 0; ends {np.abs(long.x[-1] - short.x[-1]).max():.0e} apart")
assert np.all(np.abs(steps["likelihood"][0].x[-1] - sound.x) < 1e-7 * sound.se)

# %% [markdown]
# ## Squared error is not a log-likelihood
#
# For a normal $y$ of known variance it was one (notebook 2). For $y\in\{0,1\}$ the numbers $e^{-(y-p)^2}$ for $y=0$ and $y=1$ do not sum to one, and
# the difference depends on $p$. `jm.lint` looks for this kind of mistake:

# %%
report = jm.lint(brier, {"beta": np.zeros(3)}, data, response="y", support="binary")
print(report)
assert report["normalised"].passed is False and jm.lint(logistic, {"beta": np.zeros(3)}, data, response="y", support="binary").ok

# %% [markdown]
# What follows from this? The *estimate* from squared error is usable: the Brier score is proper, so with many data its minimum is at the true
# probabilities if the model contains them. But its curvature is not an information. The default standard errors below depend on the unit of the loss:
# twice the squared error is an equally good loss, and its "standard errors" are smaller by $\sqrt2$. Only the sandwich is valid. If the model is
# right, no such estimator beats maximum likelihood in large samples; here both slopes are less precise (the two standard errors of the intercept are
# estimates of different kinds and happen to be in the opposite order). The report above cannot know that the score is proper; it only says that
# $e^{-(y-p)^2}$ is not a probability.

# %%
default, sandwich = (jm.fit(brier, {"beta": np.zeros(3)}, data, vcov=kind) for kind in ("observed", "HC0"))
doubled = jm.fit(jm.weight(brier, jm.frequency(np.full(189, 2))), {"beta": np.zeros(3)}, data)
print("standard errors           intercept  weight   smoke")
for name, se in (("squared error, default", default.se), ("twice the squared error", doubled.se), ("squared error, HC0", sandwich.se), ("maximum likelihood", sound.se)):
    print(f"{name:<26}{se[0]:8.3f}{se[1]:9.3f}{se[2]:8.3f}")
assert np.allclose(default.se / doubled.se, np.sqrt(2), rtol=1e-6) and np.allclose(default.x, doubled.x, rtol=1e-6)
assert np.all(sandwich.se[1:] > sound.se[1:])

# %% [markdown]
# ## Separation, in brief
#
# If some linear combination of the columns separates the classes, the likelihood keeps rising as the coefficients go to infinity. Let every smoker
# count as a case:

# %%
separated = jm.fit(logistic, data={**data, "y": np.maximum(data["y"], data["x"][:, 2])})
print(separated.verdict.name, "-", separated.explain())
assert separated.verdict == jm.Status.SEPARATED and np.isposinf(separated.params["beta"][2]) and np.isnan(separated.stderr["beta"][2])

# %% [markdown]
# An optimiser that stops when the gradient is small reports some large number here, with an even larger standard error. Notebook 6 is about this and
# other failures, and what to do about them.
#
# ## What to remember
#
# - Bernoulli and categorical negative log-likelihoods are the cross-entropies. Compute them from logits.
# - Softmax with a column for every class has one column too many: probabilities are fine, but coefficients are not identified.
# - With a constant, the fitted probabilities sum to the number of cases, also in every group with an indicator.
# - Squared error on a 0/1 outcome has no gradient where it is most wrong, is not convex, and gives no standard errors. Use the likelihood.
#
# Next: `04_kl_and_cross_entropy`, what cross-entropy measures.
