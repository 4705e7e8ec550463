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
# # Ten thousand data sets
#
# A simulation study, a model for every shop, a bootstrap: each is one likelihood maximised on many data sets. `jm.fit_batch` fits them in one call
# and returns one `Fit` whose arrays have a leading axis. Among ten thousand fits some always go wrong; each failure must then be detected and named,
# and must not affect the others. Here some data sets are spoiled on purpose.

# %% tags=["parameters"]
MEMBERS = 10_000  # data sets
STUDY = 10_000  # data sets of the coverage study
GROUPS = 10_000  # shops

# %%
import tempfile
import time
from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxmle as jm

# %% [markdown]
# ## The data
#
# A logistic regression with a constant and three covariates, 100 rows each. Eight members are spoiled: in five the first covariate
# separates the responses, in one every response is 0, one has a NaN, one has the same column twice.

# %%
ROWS, TRUTH = 100, np.array([-0.5, 1.0, -0.5, 0.25])


def responses(rng, x):
    return (rng.random(x.shape[:-1]) < 1 / (1 + np.exp(-x @ TRUTH))).astype(float)


rng = np.random.default_rng(1)
x = np.concatenate([np.ones((MEMBERS, ROWS, 1)), rng.normal(size=(MEMBERS, ROWS, 3))], axis=-1)
y = responses(rng, x)

separated = 7 + np.arange(5) * (MEMBERS // 5)
y[separated] = x[separated, :, 1] > 0
y[11] = 0.0
x[23, 4, 2] = np.nan
x[31, :, 3] = x[31, :, 2]
spoiled = np.array([*separated, 11, 23, 31])

# %% [markdown]
# ## One call
#
# The first call compiles (about twenty seconds here: some members fail, and the programs that find out why are compiled too); the second shows the
# time of the fits themselves. Printing a batch gives a summary.

# %%
model, start = jm.models.logistic(), {"beta": np.zeros(4)}
data = {"x": x, "y": y}

for attempt in ("first", "second"):
    began = time.perf_counter()
    fits = jm.fit_batch(model, start, data, progress=False)
    seconds = time.perf_counter() - began
    print(f"{attempt} call: {seconds:.2f} s, {1e6 * seconds / MEMBERS:.0f} µs a fit")
print()
print(fits)

# %% [markdown]
# Exactly the spoiled members failed, each for its own reason.

# %%
failed = np.flatnonzero(~fits.converged)
assert np.array_equal(failed, np.sort(spoiled))
assert np.all(fits.status[[*separated, 11]] == jm.Status.SEPARATED)
assert fits.status[23] == jm.Status.NONFINITE and fits.status[31] == jm.Status.UNIDENTIFIED

for member in (7, 11, 23, 31):
    print(f"[{member}] {fits[member].verdict.name}: {fits[member].explain()}\n")

# %% [markdown]
# Estimates that the data do not determine have no standard error, and are infinite or NaN if they do not exist; the others are kept. In member 31 two
# columns are identical. Their coefficients have no standard error: only their sum is determined, and `delta` finds it. The other coefficients have
# the standard errors of a fit without the duplicate column.

# %%
single = jm.fit(model, data={"x": x[31][:, :3], "y": y[31]})
assert np.isnan(fits.se[31, 2:]).all() and np.allclose(fits.se[31, :2], single.se[:2], rtol=1e-6)
assert fits.x[7, 1] == np.inf and np.isnan(fits.x[23]).all()
both = jm.delta(lambda params: params["beta"][2] + params["beta"][3], fits[31])
assert np.isclose(both.estimate, single.x[2], rtol=1e-6) and np.isclose(both.stderr, single.se[2], rtol=1e-6)
print("member 31:", fits.x[31].round(4), "±", fits.se[31].round(4), f"  sum of the last two {both.estimate:.4f} ± {both.stderr:.4f}")

# %% [markdown]
# In a program, use `check()`: it returns the fits, or raises an error that names the members that failed.

# %%
try:
    fits.check()
except jm.FitError as error:
    print(error)
else:
    raise AssertionError("check() let spoiled members pass")

# %% [markdown]
# ## A plot of all members
#
# The estimates of one coefficient by member; failures are larger and hollow. Infinite estimates are at the edge, missing ones are ticks.

# %%
_ = jm.plots.batch_map(fits, "beta[1]", truth=TRUTH[1])

# %% [markdown]
# The 10 000 fits are a study of the estimator. With $R$ fits, the mean of an estimate is known to SD$/\sqrt R$, so even the small bias of maximum
# likelihood is visible: estimates are too far from zero, by about 6% at 100 rows. This bias is known to order $1/n$ (Cox & Snell 1968),
# `jm.cox_snell` computes it for one data set, and the mean of the estimates agrees with it up to order $1/n^2$.

# %%
good = fits.converged
x_hat, se = fits.x[good], fits.se[good]
bias, error = x_hat.mean(axis=0) - TRUTH, x_hat.std(axis=0) / np.sqrt(good.sum())
bias_of = jm.cox_snell(jm.with_response(model, jm.enumeration("y", [0.0, 1.0])))  # the values that a response can take
first_order = np.mean([bias_of({"beta": TRUTH}, {"x": x[i], "y": y[i]})["beta"] for i in range(40, 60)], axis=0)
print("bias        ", bias.round(4), "±", error.round(4))
print("first order ", first_order.round(4))
assert bias[1] > 4 * error[1]
assert np.all(np.abs(bias - first_order) < 0.3 * np.abs(first_order) + 4 * error)

# %% [markdown]
# The standardised errors $(\hat\beta_j - \beta_j)/\mathrm{SE}$ should be standard normal, and nearly are.

# %%
z = (x_hat - TRUTH) / se
grid = np.linspace(-4, 4, 161)
fig, axes = plt.subplots(1, 4, figsize=(10, 2.8), sharey=True, layout="constrained")
for j, ax in enumerate(axes):
    ax.hist(z[:, j], bins=40, range=(-4, 4), density=True, color="0.8", edgecolor="white", lw=0.4)
    ax.plot(grid, np.exp(-0.5 * grid**2) / np.sqrt(2 * np.pi), color="black", lw=1.2)
    ax.set(title=fits.names[j], xlabel="(estimate − truth) / SE")
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("density")

inside = (np.abs(z) < 1.959963984540054).mean(axis=0)
spread = np.sqrt(0.95 * 0.05 / good.sum())
print("coverage of Wald's 95% intervals, in %:", (100 * inside).round(2), f"± {100 * spread:.2f}")
assert np.all(np.abs(inside - 0.95) < 0.01 + 4 * spread)  # the normal approximation errs by less than a point at 100 rows

# %% [markdown]
# Inference also takes a batch. Here is the power of the Wald test of $\beta_3 = 0$, with all tests in one call:

# %%
test = jm.wald_test(fits, "beta[3]")
power = np.mean(test.pvalue[good] < 0.05)
print(f"power at beta[3] = {TRUTH[3]}: {100 * power:.1f}%; p-values that are NaN: {np.isnan(test.pvalue).sum()}")
assert np.isnan(test.pvalue[[23, 31]]).all() and np.isfinite(test.pvalue[good]).all()

# %% [markdown]
# ## A likelihood of your own
#
# `jm.models.logistic()` is *declared*: it says that the likelihood is a density of a linear predictor, so its derivatives are products of matrices. A
# plain function does not say so, but the program that jax traces from it does: with this many rows jaxmle reads the program and finds `data["x"] @
# params["beta"]`. The results are the same, and the speed nearly so.


# %%
def binary(params, data):
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jnp.logaddexp(0.0, eta)


plain = jm.fit_batch(binary, start, data, progress=False)
began = time.perf_counter()
plain = jm.fit_batch(binary, start, data, progress=False)
print(f"a plain function: {1e6 * (time.perf_counter() - began) / MEMBERS:.0f} µs a fit")
apart = np.max(np.abs(plain.x[good] - x_hat) / se)
print(f"largest difference: {apart:.1e} standard errors")
assert np.array_equal(plain.status, fits.status) and apart < 1e-6

# %% [markdown]
# The results do not depend on the rest of the batch. Here are twenty members fitted one by one, with `jm.fit`:

# %%
some = np.setdiff1d(np.arange(100), spoiled)[:20]
began = time.perf_counter()
alone = [jm.fit(model, start, {"x": x[i], "y": y[i]}) for i in some]
seconds = time.perf_counter() - began
print(f"one by one: {1e6 * seconds / 20:.0f} µs a fit, compilation included")
for i, fit in zip(some, alone, strict=True):
    assert np.max(np.abs(fits.x[i] - fit.x) / fit.se) < 1e-8 and np.max(np.abs(fits.se[i] / fit.se - 1)) < 1e-8

# %% [markdown]
# ## One design, many responses
#
# Often the members share a leaf. `in_axes` says so, as in `jax.vmap`: the design is stored once.

# %%
shared = jm.fit_batch(
    model, start, {"x": x[0], "y": responses(rng, np.broadcast_to(x[0], x.shape))}, in_axes={"x": None, "y": 0}, progress=False
)
print(f"{int(shared.converged.sum()):,} of {MEMBERS:,} converged; standard deviation of the estimates {shared.x.std(axis=0).round(3)}")
assert shared.converged.mean() > 0.99

# %% [markdown]
# A coverage study is one call: `calibrate` simulates from the model at a given truth, refits, and compares. It also gives the size of the three
# classical tests of the whole parameter vector, and compares the variance with the Cramér–Rao bound. Here the Wald test rejects too rarely. ("User
# scale" differs from the first only for parameters with bounds, whose default interval is symmetric on a log or logit scale.)

# %%
fit = jm.fit(model, start, {"x": x[0], "y": y[0]})
study = jm.calibrate(model, fit, {"x": x[0], "y": y[0]}, key=1, replicates=STUDY, truth={"beta": TRUTH}, progress=False)
print(study)
size, size_error = np.array([study.size(name) for name in ("wald", "lr", "score")]).T
assert np.all(np.abs(study.coverage("wald") - 0.95) < 0.012 + 4 * study.coverage_error("wald"))
assert size[0] < size[1]  # Wald's test and the likelihood ratio's, on the same data sets
assert abs(size[1] - 0.05) < 0.01 + 4 * size_error[1]

# %%
_ = jm.plots.coverage(study)

# %% [markdown]
# ## Unequal lengths
#
# Pass data sets of different length as a list. Shorter ones are padded with rows of weight zero, which change nothing.

# %%
lengths = rng.integers(40, 161, GROUPS)
shops = []
for length in lengths:
    design = np.column_stack([np.ones(length), rng.normal(size=(length, 3))])
    shops.append({"x": design, "y": responses(rng, design)})
shops[5]["x"][2, 1] = np.nan
ragged = jm.fit_batch(model, start, shops, progress=False)
few, many = (ragged.converged & (lengths < 70)), (ragged.converged & (lengths > 130))
print(f"{int(ragged.converged.sum()):,} of {GROUPS:,} converged")
print(f"median SE of beta[1]: {np.median(ragged.se[few, 1]):.3f} below 70 rows, {np.median(ragged.se[many, 1]):.3f} above 130")
one = int(np.argmin(np.where(ragged.converged, lengths, 1000)))  # the shortest that converged, and so the most padded
assert np.array_equal(ragged.n, lengths)
assert np.max(np.abs(ragged.x[one] - jm.fit(model, start, shops[one]).x) / ragged.se[one]) < 1e-6

# %% [markdown]
# More often the data come as one long table with a column that says to which group a row belongs, in any order. For these use `fit_groups`: results
# are indexed by key, and `reasons()` says what went wrong in which group.

# %%
shop = np.repeat([f"shop {i:05d}" for i in range(GROUPS)], lengths)
order = rng.permutation(len(shop))
long = {
    "x": np.concatenate([one["x"] for one in shops])[order],
    "y": np.concatenate([one["y"] for one in shops])[order],
    "shop": shop[order],
}
groups = jm.fit_groups(model, start, long, by="shop", progress=False)
print(groups["shop 00042"])
print()
print(groups.reasons())
known = groups.fits.converged
assert list(groups.reasons()) == ["shop 00005"] and np.isnan(long["x"][groups["shop 00005"].witness.row]).any()  # a row of the long table
assert list(groups.keys["shop"]) == sorted(set(shop)) and np.array_equal(groups.n, lengths)
assert np.max(np.abs(groups.fits.x[known] - ragged.x[known]) / ragged.se[known]) < 1e-6  # the order of the rows does not matter

# %%
groups.to_frame().head(6)

# %% [markdown]
# ## A run that was killed
#
# With `checkpoint=` finished work is saved in a folder, and the same call resumes. Here a run is "killed" by deleting half of what it had saved; the
# second call reads the rest, computes what is missing, and gives bitwise identical results.

# %%
with tempfile.TemporaryDirectory() as place:
    folder = Path(place) / "run"
    whole = jm.fit_batch(model, start, data, checkpoint=folder, progress=False)
    pieces = sorted(folder.glob("*.npz"))
    for piece in pieces[len(pieces) // 2 :]:
        piece.unlink()
    resumed = jm.fit_batch(model, start, data, checkpoint=folder, progress=False)
    print(f"{len(pieces)} pieces kept, {len(pieces) - len(pieces) // 2} lost and made again")
    try:
        jm.fit_batch(model, start, {"x": x, "y": 1 - y}, checkpoint=folder, progress=False)
    except ValueError as error:
        refusal = str(error)
assert np.array_equal(whole.x, resumed.x, equal_nan=True) and np.array_equal(whole.status, resumed.status)
print("with other data:", refusal.replace(str(folder), "run"))
assert "differs in its data" in refusal

# %% [markdown]
# ## What to remember
#
# - `fit_batch` for many data sets, a list for unequal lengths, `fit_groups` for a long table: the same `Fit`, with a leading axis.
# - Read `fits.status` before the numbers; `fits.check()` stops a program that would continue with bad fits.
# - Failures are isolated: no member changes because another one failed.
# - Use `in_axes` for shared leaves, `calibrate` for coverage, and `checkpoint` for long runs.
#
# Next: [10 A research fit](10_research_fit.ipynb), one data set from the frame to the table.
