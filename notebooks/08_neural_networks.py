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
# # A neural network is a likelihood
#
# A classifier that outputs class probabilities and is trained by cross-entropy is a categorical regression fitted by maximum likelihood, with
# a flexible predictor. So the tools are the same: a log-likelihood with one term per row and any optimiser. Afterwards come the questions a
# statistician asks: how good is the fit on new rows, and how precise is that number? Are the probabilities right? Which parameters have a standard
# error at all? We train a small network on real images of digits and answer them.

# %% tags=["parameters"]
EPOCHS = 100  # at most
WANTED = 0.965  # accuracy on rows never seen
DRAWS = 2000  # simulations of the calibration error

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import jaxmle as jm

# %% [markdown]
# ## The data
#
# 1,797 images of handwritten digits, 8 by 8 pixels, shipped with scikit-learn. A fifth of each class is set aside for a single test at the end. A
# tenth of the rest is held out from training and decides when to stop.

# %%
images, digit = load_digits(return_X_y=True)
x, x_test, y, y_test = train_test_split((images / 16).astype(np.float32), digit, test_size=0.2, random_state=0, stratify=digit)
x, x_held, y, y_held = train_test_split(x, y, test_size=0.1, random_state=0, stratify=y)
train, held = {"images": x, "digit": y}, {"images": x_held, "digit": y_held}
fig, axes = plt.subplots(1, 10, figsize=(8, 1.2), layout="constrained")
for ax, image, label in zip(axes, x, y, strict=False):
    ax.imshow(image.reshape(8, 8), cmap="gray_r")
    ax.set(title=str(label), xticks=[], yticks=[])

# %% [markdown]
# ## The model
#
# One hidden layer of 40 units; parameters are a plain dictionary, without any framework. The output is ten scores $s_{ik}$, and the log-likelihood of
# one image is the categorical one, $\ell_i = s_{i,y_i} - \log\sum_k e^{s_{ik}}$.

# %%
HIDDEN, CLASSES = 40, 10


def features(params, images):
    return jax.nn.relu(images @ params["w1"] + params["b1"][None, :])


def scores(params, images):
    return features(params, images) @ params["w2"] + params["b2"][None, :]


def loglik(params, data):
    s = scores(params, data["images"])
    return jnp.take_along_axis(s, data["digit"][:, None], axis=1)[:, 0] - jax.nn.logsumexp(s, axis=1)


rng = np.random.default_rng(0)
start = {"w1": rng.normal(size=(64, HIDDEN)) * np.sqrt(2 / 64), "b1": np.zeros(HIDDEN), "w2": rng.normal(size=(HIDDEN, CLASSES)) * np.sqrt(1 / HIDDEN), "b2": np.zeros(CLASSES)}  # fmt: skip
weights = {name: jnp.asarray(value, jnp.float32) for name, value in start.items()}
print(sum(leaf.size for leaf in weights.values()), "parameters,", len(y), "images to train on")

# %% [markdown]
# `jm.nll(loglik, reduction="mean")` is the training loss. It equals the cross-entropy that optax computes, and can be used like any loss: under
# `jax.grad`, or in your own loop.

# %%
loss = jm.nll(loglik, reduction="mean")
cross_entropy = optax.softmax_cross_entropy_with_integer_labels(scores(weights, x), y).mean()
assert np.isclose(loss(weights, train), cross_entropy, rtol=1e-6)

adam = optax.adam(1e-2)


@jax.jit
def step(weights, state):
    value, gradient = jax.value_and_grad(loss)(weights, train)
    moves, state = adam.update(gradient, state)
    return optax.apply_updates(weights, moves), state, value


trained, state, values = weights, adam.init(weights), []
for _ in range(50):
    trained, state, value = step(trained, state)
    values.append(float(value))
print(
    f"loss at the start {values[0]:.3f} (log 10 = {np.log(10):.3f}, knowing nothing), after 50 steps of Adam on all rows {values[-1]:.3f}"
)
assert values[-1] < 0.2 * values[0]

# %% [markdown]
# ## Mini-batches
#
# `jm.fit_stochastic` is such a loop with everything else that is needed: a new permutation of the rows for each epoch, the loss on held-out rows, the
# parameters of the best epoch, a stop when that loss has not fallen for 15 epochs, and optional checkpoints. (`held_out=0.1` draws the rows
# automatically.)

# %%
found = jm.fit_stochastic(
    loglik, start, train, optimizer=optax.adamw(3e-3, weight_decay=1e-2), batch_size=64, epochs=EPOCHS, key=0, held_out=held, patience=15, dtype="float32", progress=False,
)  # fmt: skip
print(f"stopped by {found.stopped!r} after {found.epochs} epochs; the parameters are those of epoch {found.best_epoch}")
assert found.path.shape == (found.epochs + 1, 2) and found.best_epoch == np.argmin(found.path[:, 1])

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(found.path[:, 0], color="black", label="rows trained on")
ax.plot(found.path[:, 1], "--", color="0.45", label="rows held out")
ax.plot(found.best_epoch, found.path[found.best_epoch, 1], "o", color="black", mfc="white", label="best epoch")
ax.set(yscale="log", xlabel="epoch", ylabel="mean negative log-likelihood")
ax.spines[["top", "right"]].set_visible(False)
_ = ax.legend(frameon=False)

# %% [markdown]
# The training loss keeps falling. Once every training image is classified correctly, multiplying the last layer by a large number brings the loss
# arbitrarily close to zero: the likelihood is separated and its supremum lies at infinity. With 3,010 parameters and 1,293 images no
# maximum-likelihood estimate exists; early stopping makes the estimate useful.

# %%
final = {name: jnp.asarray(value, jnp.float32) for name, value in found.params.items()}
right = np.argmax(scores(final, x), axis=1) == y
louder = {**final, "w2": 20 * final["w2"], "b2": 20 * final["b2"]}
seen = {"images": x[right], "digit": y[right]}
print(
    f"{right.sum()} of {len(y)} training images are read right; their loss {float(loss(final, seen)):.4f}, with a last layer 20 times as large {float(loss(louder, seen)):.1e}"
)
assert right.mean() > 0.99 and loss(louder, seen) < 0.1 * loss(final, seen)

# %% [markdown]
# ## How good is it, and how precise is that number?
#
# Accuracy on the test rows is a binomial proportion, with its standard error. The threshold set in the parameters, at least 96.5% correct, is for
# this one split; another split gives another number.

# %%
probability = np.asarray(jax.nn.softmax(scores(final, x_test), axis=1), float)
guess = probability.argmax(axis=1)
accuracy = np.mean(guess == y_test)
error = np.sqrt(accuracy * (1 - accuracy) / len(y_test))
test_loss = -np.mean(np.log(probability[np.arange(len(y_test)), y_test]))
print(f"accuracy {100 * accuracy:.1f}% ± {100 * error:.1f}, mean negative log-likelihood {test_loss:.3f}, on {len(y_test)} images")
assert accuracy >= WANTED
assert np.isclose(test_loss, loss(final, {"images": x_test, "digit": y_test}), rtol=1e-4)

wrong = np.flatnonzero(guess != y_test)[:8]
fig, axes = plt.subplots(1, len(wrong), figsize=(1.1 * len(wrong), 1.7), layout="constrained", squeeze=False)
for ax, row in zip(axes[0], wrong, strict=True):
    ax.imshow(x_test[row].reshape(8, 8), cmap="gray_r")
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"{y_test[row]} read\nas {guess[row]}", fontsize=9)

# %% [markdown]
# ## Are the probabilities right?
#
# Of the images that the network calls a seven with probability 0.8, four in five should be sevens. The reliability diagram compares the mean
# confidence of a group of images with the proportion that was classified correctly. With about 360 images all groups but the last are small, so the
# error bars matter more than the points. The expected calibration error (Guo, Pleiss, Sun & Weinberger 2017) is the mean distance of the points from
# the diagonal, weighted by their numbers. It is not zero even if the probabilities are right; its size by chance alone is simulated, with classes
# drawn from the probabilities themselves.

# %%
EDGES = np.array([0.0, 0.5, 0.7, 0.85, 0.95, 1.0])


def groups(right, confidence):
    """Mean confidence, share right and number of images in each group of confidences."""
    place = np.clip(np.searchsorted(EDGES, confidence, side="left") - 1, 0, len(EDGES) - 2)
    number = np.bincount(place, minlength=len(EDGES) - 1)
    mean = [np.bincount(place, values, minlength=len(EDGES) - 1) / np.maximum(number, 1) for values in (confidence, right)]
    return *mean, number


def calibration_error(right, confidence):
    mean, share, number = groups(right, confidence)
    return np.sum(number * np.abs(share - mean)) / number.sum()


confidence = probability.max(axis=1)
ece = calibration_error(guess == y_test, confidence)
chance = np.array([calibration_error(rng.random(len(y_test)) < confidence, confidence) for _ in range(DRAWS)])
print(
    f"calibration error {ece:.4f}; of right probabilities {chance.mean():.4f} on average, below {np.quantile(chance, 0.99):.4f} in 99% of samples"
)

mean, share, number = groups(guess == y_test, confidence)
scale = 1 + 4 / number  # Wilson's interval at 2 standard errors
low, high = ((share + 2 / number + sign * 2 * np.sqrt(share * (1 - share) / number + 1 / number**2)) / scale for sign in (-1, 1))
fig, ax = plt.subplots(figsize=(5.5, 4.3), layout="constrained")
ax.axline((0, 0), slope=1, color="0.6", lw=1)
ax.vlines(mean, low, high, color="black", lw=1.2)
ax.plot(mean, share, "o", color="black")
for at, top, count in zip(mean, high, number, strict=True):
    ax.annotate(str(count), (at, top), xytext=(0, 3), textcoords="offset points", ha="center", fontsize="small")
ax.set(xlabel="mean confidence", ylabel="share read right", xlim=(0.3, 1.04), ylim=(0, 1.12))
ax.spines[["top", "right"]].set_visible(False)
assert number.sum() == len(y_test) and ece < np.quantile(chance, 0.999)

# %% [markdown]
# With early stopping, there is no sign that the network is overconfident. Networks trained to a smaller loss often are, and the usual remedy is to
# divide all scores by a *temperature* $T$ (Guo et al.). That is a likelihood with one parameter on the held-out rows, which `jm.fit` and `jm.profile`
# handle like any other. Here the interval contains 1, so there is no reason to change the probabilities.


# %%
def cooled(params, data):
    s = data["scores"] / params["temperature"]
    return jnp.take_along_axis(s, data["digit"][:, None], axis=1)[:, 0] - jax.nn.logsumexp(s, axis=1)


rows = {"scores": np.asarray(scores(final, x_held), float), "digit": y_held}
heat = jm.fit(cooled, {"temperature": 1.0}, rows, constraints={"temperature": jm.positive})
interval = jm.profile(cooled, heat, rows)
print(interval)
assert heat.converged and interval.lower[0] < 1 < interval.upper[0]

# %% [markdown]
# ## Standard errors, where they exist
#
# The individual parameters of the network are not identified: hidden units can be exchanged, and ten classes need only nine sets of scores. But given
# the features of the hidden layer, the last layer is a multinomial regression; `polish_over` moves only that layer to its exact maximum, with the
# verdict of `jm.fit`. Without a prior it has no maximum, because the training images are separated. A ridge prior (`mode` is MAP) gives 410 estimates
# with standard errors, conditional on the features.

# %%
ridge = jm.penalize(loglik, jm.ridge(1.0))
last = jm.fit_stochastic(
    ridge, found.params, train, optimizer=optax.sgd(0.0), batch_size=64, epochs=0, dtype="float32", polish="newton", polish_over=("w2", "b2"), progress=False,
).fit  # fmt: skip
print(f"{last.verdict.name}, mode {last.mode}, {len(last.se)} standard errors from {last.se.min():.2f} to {last.se.max():.2f}")
assert last.converged and last.mode == "MAP" and np.isfinite(last.se).all()

# %% [markdown]
# They can be used for quantities that are identified, such as the probabilities of one image. Here for the image about which the network is least
# certain, by the delta method, on the logit scale so that the interval stays inside (0, 1):

# %%
row = np.argmin(confidence)
hidden = np.asarray(features(final, x_test[[row]])[0], float)


def logits(params):
    p = jax.nn.softmax(hidden @ params["w2"] + params["b2"])
    return jnp.log(p) - jnp.log1p(-p)


unsure = jm.delta(logits, last)
ends = 1 / (1 + np.exp(-unsure.conf_int(0.95)))
centre = 1 / (1 + np.exp(-unsure.estimate))
fig, axes = plt.subplots(1, 2, figsize=(7, 3), width_ratios=(1, 2.4), layout="constrained")
axes[0].imshow(x_test[row].reshape(8, 8), cmap="gray_r")
axes[0].set(title=f"a {y_test[row]}", xticks=[], yticks=[])
axes[1].vlines(np.arange(10), *ends.T, color="black", lw=1.4)
axes[1].plot(np.arange(10), centre, "o", color="black")
axes[1].set(xlabel="class", ylabel="probability", xticks=np.arange(10), ylim=(0, 1), title="95% intervals given the features")
axes[1].spines[["top", "right"]].set_visible(False)
assert np.isclose(centre.sum(), 1) and np.all((ends[:, 0] < centre) & (centre < ends[:, 1]))

# %% [markdown]
# ## When a maximum exists
#
# If a model has a maximum, mini-batches only lead close to it: `polish="newton"` does the rest, and the result is that of `jm.fit` on all rows. A
# logistic regression on 189 births, columns standardised:

# %%
births = jm.datasets.load("birthwt").data
columns = np.column_stack([births[name] for name in ("age", "lwt", "black", "other", "smoke", "ptl", "ht", "ui")])
table = {"x": np.column_stack([np.ones(189), (columns - columns.mean(axis=0)) / columns.std(axis=0)]), "y": births["low"]}


def logistic(params, data):
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jnp.logaddexp(0.0, eta)


zero = {"beta": np.zeros(9)}
batches = jm.fit_stochastic(
    logistic, zero, table, optimizer=optax.sgd(0.1), batch_size=32, epochs=30, key=0, polish="newton", progress=False
)
full = jm.fit(logistic, zero, table)
before = np.abs(batches.params["beta"] - full.x) / full.se
after = np.abs(batches.fit.x - full.x) / full.se
print(f"distance from the maximum, in standard errors: mini-batches {before.max():.2f}, after the polish {after.max():.0e}")
assert after.max() < 1e-8 < before.max() and batches.fit.converged
assert np.allclose(batches.fit.se, full.se, rtol=1e-8)

# %% [markdown]
# With a constant learning rate, mini-batches end somewhere around the maximum, a noticeable part of a standard error away: close enough for
# prediction, but not for inference. That is why only the polish has standard errors.
#
# ## What to remember
#
# - Cross-entropy is the negative categorical log-likelihood; `jm.nll(loglik, reduction="mean")` is the loss.
# - The proportion of correct answers is an estimate: give its standard error. Calibration is a separate question.
# - An overparametrised network has no maximum and no standard errors of its weights. The last layer under a labelled prior has some,
#   conditional on the features.
# - If a maximum exists, `polish="newton"` reaches it from wherever mini-batches ended.
#
# Next: [09 Ten thousand data sets](09_ten_thousand_datasets.ipynb).
