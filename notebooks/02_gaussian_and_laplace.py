# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # 2. Gaussian and Laplace regression
#
# Squared error and absolute error are negative log-likelihoods: of a normal and of a Laplace distribution. Seen this way, a loss function says what
# it assumes about the noise, its scale can be estimated instead of guessed, and it provides standard errors. This notebook fits both to real data,
# asks what their standard errors mean, moves an outlier to see which fit follows it, and ends with noise whose size is not constant.

# %% tags=["parameters"]
DATASETS = 1000

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import scipy

import jaxmle as jm

# Stopping distances (feet) of cars at a speed (miles an hour), 50 rows. Ezekiel (1930), Methods of Correlation Analysis; R's datasets::cars.
speed = np.repeat([4.0, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 25], [2, 2, 1, 1, 3, 2, 4, 4, 4, 3, 2, 3, 4, 3, 5, 1, 1, 4, 1])
stops = "2 10 4 22 16 10 18 26 34 17 28 14 20 24 28 26 34 34 46 26 36 60 80 20 26 54 32 40 32 40 50 42 56 76 84 36 46 68 32 48 52 56 64 66 54 70 92 93 120 85"
distance = np.array(stops.split(), float)
cars = {"x": np.column_stack([np.ones(50), speed]), "y": distance}
n = len(distance)

# %% [markdown]
# ## Least squares is Gaussian maximum likelihood
#
# If $y_i = x_i\beta + \sigma\varepsilon_i$ with normal $\varepsilon_i$, then
#
# $$\ell(\beta,\sigma) = -\frac{1}{2\sigma^2}\sum_i (y_i-x_i\beta)^2 - n\log\sigma - \tfrac n2\log 2\pi .$$
#
# The maximum over $\beta$ is the least-squares solution, whatever $\sigma$ is; then $\hat\sigma^2 = \mathrm{RSS}/n$.

# %%
normal = jm.models.normal()
gaussian = jm.fit(normal, data=cars)
print(gaussian)

ols, rss = np.linalg.lstsq(cars["x"], distance, rcond=None)[:2]
print("\nleast squares:", ols, "  root of RSS/n:", np.sqrt(rss[0] / n))
assert np.allclose(gaussian.params["beta"], ols, rtol=1e-10)
assert abs(float(gaussian.params["sigma"]) / np.sqrt(rss[0] / n) - 1) < 1e-10
assert np.allclose(gaussian.stderr["beta"], np.sqrt(rss[0] / n * np.diag(np.linalg.inv(cars["x"].T @ cars["x"]))), rtol=1e-10)

# %% [markdown]
# Textbook regression divides by $n-q$, not by $n$; its standard errors are $\sqrt{n/(n-q)}$ times these, here 2 % larger. The
# maximum-likelihood $\hat\sigma$ is biased down by that factor; it matters if $q$ is not small relative to $n$.
#
# ## The Gaussian negative log-likelihood is the mean squared error
#
# With $\sigma$ fixed, $-\ell/n = \mathrm{MSE}/2\sigma^2 + \text{const}$: the same function up to a factor and a shift. `jm.nll` is the loss that an
# optimiser minimises; under `jax.grad` it is plain JAX, in float32 unless `jax.enable_x64` is set around it.

# %%
held = 5.0
loss = jm.nll(jm.fix(normal, {"sigma": held}), reduction="mean")
constant = np.log(held) + 0.5 * np.log(2 * np.pi)


def mse(beta):
    return jnp.mean((distance - cars["x"] @ beta) ** 2)


with jax.enable_x64(True):
    for beta in (np.array([0.0, 0.0]), np.array([5.0, 2.0]), ols):
        params = {"beta": beta, "sigma": held}
        value, squared = float(loss(params, cars)), float(mse(beta))
        gradient, slope = np.asarray(jax.grad(loss)(params, cars)["beta"]), np.asarray(jax.grad(mse)(beta))
        scale = np.abs(cars["x"] * (distance - cars["x"] @ beta)[:, None]).mean(0) / held**2  # of the numbers that are added up
        print(f"nll(mean) {value:.12f}   MSE/2s^2 + const {squared / (2 * held**2) + constant:.12f}   gradients {gradient.round(8)} {(slope / (2 * held**2)).round(8)}")
        assert abs(value - squared / (2 * held**2) - constant) < 1e-13 * value
        assert np.all(np.abs(gradient - slope / (2 * held**2)) < 1e-13 * scale)

# %% [markdown]
# So fitting by MSE *means* assuming normal noise of constant size. The likelihood adds $\sigma$: the MSE alone gives no standard errors and cannot
# compare two models.
#
# ## The Laplace negative log-likelihood is the mean absolute error
#
# With density $e^{-|y-\mu|/s}/2s$ the same step gives $-\ell/n = \mathrm{MAE}/s + \log 2s$. The best constant under squared error is the mean; under
# absolute error it is the median. The loss has a kink at every observation, and between the two middle ones it is flat.

# %%
hours = jm.datasets.load("aircondit").data["hours"]  # twelve waiting times; any value from 85 to 91 is a median
centres = np.linspace(40, 180, 400)
spread = np.abs(hours - 88.0).mean()
law = jm.families.laplace
laplace_loss = np.array([float(jm.nll(law, reduction="mean")({"loc": c, "scale": spread}, hours)) for c in (60.0, 88.0, 150.0)])
mae = np.array([np.abs(hours - c).mean() for c in (60.0, 88.0, 150.0)])
print("nll(mean)           ", laplace_loss, "\nMAE/s + log 2s      ", mae / spread + np.log(2 * spread))
assert np.allclose(laplace_loss, mae / spread + np.log(2 * spread), rtol=1e-13)

fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
axes[0].plot(centres, np.mean((hours[:, None] - centres) ** 2, axis=0), "k")
axes[0].axvline(hours.mean(), color="grey", linestyle=":", label=f"mean {hours.mean():.0f}")
axes[0].set(title="mean squared error", xlabel="constant (hours)", ylabel="squared hours")
axes[1].plot(centres, np.mean(np.abs(hours[:, None] - centres), axis=0), "k")
axes[1].axvspan(85, 91, color="0.85", label="medians, 85 to 91")
axes[1].plot(hours, np.mean(np.abs(hours[:, None] - hours), axis=0), "k|", markersize=9)
axes[1].set(title="mean absolute error, a corner at each hour", xlabel="constant (hours)", ylabel="hours", xlim=(40, 180), ylim=(81, 106))
for ax in axes:
    ax.legend(frameon=False)

# %% [markdown]
# A likelihood with a kink at its maximum has no curvature there, and the Hessian gives no standard error. jaxmle detects the kink, holds the estimate
# on it and, for families that know it, computes the standard error from the density at the kink, $1/(2 f(m) \sqrt n)$, which for the Laplace
# distribution is $s/\sqrt n$:

# %%
cornered = jm.fit(law, data=hours)
print(cornered)
assert cornered.converged and 85 <= float(cornered.params["loc"]) <= 91
assert np.isclose(cornered.stderr["loc"], cornered.params["scale"] / np.sqrt(len(hours)), rtol=1e-6)

# %% [markdown]
# `jm.models.laplace` smooths the kink over a width of `bandwidth` scales, so that its second derivative there estimates the density of the residuals
# at 0, on which the standard error of a median depends. The price is a small bias. Exact least absolute errors are a linear program; with a smaller
# bandwidth the fit approaches it, but the standard errors then depend on the few residuals inside the smoothed part and become unreliable.


# %%
def least_absolute(x, y):
    """One of the exact minimisers of the sum of |y - x b|, and that sum, as a linear program."""
    rows, q = x.shape
    cost, bounds = np.r_[np.zeros(q), np.ones(2 * rows)], [(None, None)] * q + [(0, None)] * (2 * rows)
    found = scipy.optimize.linprog(cost, A_eq=np.c_[x, np.eye(rows), -np.eye(rows)], b_eq=y, bounds=bounds)
    return found.x[:q], found.fun


exact, least = least_absolute(cars["x"], distance)
print(f"{'bandwidth':>10}  {'intercept':>9} {'slope':>8}  {'sum |r|':>8}   standard errors")
print(f"{'exact':>10}  {exact[0]:9.4f} {exact[1]:8.4f}  {least:8.3f}")
sums = []
for bandwidth in (0.25, 0.02):
    fit = jm.fit(jm.models.laplace(bandwidth=bandwidth), data=cars)
    sums.append(float(np.abs(distance - cars["x"] @ fit.params["beta"]).sum()))
    print(f"{bandwidth:10}  {fit.params['beta'][0]:9.4f} {fit.params['beta'][1]:8.4f}  {sums[-1]:8.3f}   {fit.stderr['beta'].round(3)}")
assert least <= sums[1] < sums[0] < 1.01 * least

# %% [markdown]
# ## What the standard errors mean
#
# The default standard error assumes the model: Laplace noise. `vcov="HC0"` (the sandwich) assumes only that the median is right. Theory says what
# happens with 200 rows if the noise is in fact normal: the variance is $1/4nf(0)^2$, the default reports $E|r|/2nf(0)$, and for a normal the root of
# their ratio is $\sqrt{2/\pi}=0.80$: a standard error 20 % too small. Simulation agrees:

# %%
rng = np.random.default_rng(2)
x = np.column_stack([np.ones(200), np.tile((speed - speed.mean()) / speed.std(), 4)])
laplace = jm.models.laplace()
noise = np.concatenate([rng.laplace(size=(DATASETS, 200)), rng.normal(size=(DATASETS, 200))])  # data sets by rows; the design is shared
fits = jm.fit_batch(laplace, None, {"x": x, "y": noise}, in_axes={"x": None, "y": 0}, vcov="HC0", progress=False)
assert fits.converged.all()
spread = fits.params["beta"][:, 1].reshape(2, DATASETS).std(1)
default = np.sqrt(np.linalg.inv(-fits.hessian)[:, 1, 1])  # what vcov="observed" reports
ratio = {}
for kind, reported in (("observed", default), ("HC0", fits.stderr["beta"][:, 1])):
    ratio["Laplace", kind], ratio["normal", kind] = reported.reshape(2, DATASETS).mean(1) / spread
monte_carlo = 1 / np.sqrt(2 * DATASETS)  # relative error of a standard deviation from so many draws
print(f"Slope: mean reported standard error over the spread of the estimates, {DATASETS} data sets each, Monte-Carlo error {monte_carlo:.3f}")
print("noise       default     HC0")
for name in ("Laplace", "normal"):
    print(f"{name:<12}{ratio[name, 'observed']:7.3f} {ratio[name, 'HC0']:7.3f}")
slack = 0.06 + 4 * monte_carlo  # 200 rows are not infinitely many, and the kink is smoothed: about 2 to 4 %
assert abs(ratio["Laplace", "observed"] - 1) < slack and abs(ratio["Laplace", "HC0"] - 1) < slack and abs(ratio["normal", "HC0"] - 1) < slack
assert abs(ratio["normal", "observed"] - np.sqrt(2 / np.pi)) < slack

# %% [markdown]
# ## One outlier
#
# Take the fastest car and vary its stopping distance. The normal fit follows without limit: its influence is linear. The Laplace fit stops following
# once the point is above the line (it still moves a little, because the smoothed part is proportional to the scale, which grows with the outlier).
# Student's t, here with 4 degrees of freedom, first follows and then returns.

# %%
moved = np.linspace(-100, 500, 201)
many = np.tile(distance, (201, 1))
many[:, -1] = moved
batch = {"x": cars["x"], "y": many}
models = {"normal": normal, "Laplace": laplace, "Student's t, df = 4": jm.models.student_t(df=4.0)}
slopes = {name: jm.fit_batch(model, None, batch, in_axes={"x": None, "y": 0}, progress=False).params["beta"][:, 1] for name, model in models.items()}
fig, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
for (name, slope), dash in zip(slopes.items(), ("-", "--", ":"), strict=True):
    ax.plot(moved, slope, "k" + dash, label=name)
ax.axvline(distance[-1], color="grey", linewidth=0.8)
ax.annotate("as measured", (distance[-1], 2.5), xytext=(4, 0), textcoords="offset points", fontsize=9)
ax.set(xlabel="stopping distance of the last car (feet)", ylabel="slope (feet per mile an hour)")
ax.legend(frameon=False)

far = moved > 200
change = {name: slope[-1] - slope[far][0] for name, slope in slopes.items()}
print("change of the slope as the distance goes from", moved[far][0], "to 500 feet:", {name: round(float(value), 3) for name, value in change.items()})
leverage = np.linalg.solve(cars["x"].T @ cars["x"], cars["x"][-1])[1]  # of least squares: d slope / d y
assert abs(change["normal"] - leverage * (500 - moved[far][0])) < 1e-8
assert abs(change["Laplace"]) < 0.05 * change["normal"] and change["Student's t, df = 4"] < 0

# %% [markdown]
# This protects against outliers in $y$. None of these fits is protected against outliers in $x$: a point with an extreme $x$ pulls the Laplace line
# too.
#
# ## Real outliers
#
# Telephone calls in Belgium, 1950 to 1973, in tens of millions. From 1964 to 1969 another quantity was recorded by mistake, the minutes of the calls;
# the adjacent years are partly affected. A third of the data is wrong.

# %%
# Rousseeuw & Leroy (1987), Robust Regression and Outlier Detection, p. 26; R's MASS::phones.
calls = np.array([4.4, 4.7, 4.7, 5.9, 6.6, 7.3, 8.1, 8.8, 10.6, 12.0, 13.5, 14.9, 16.1, 21.2, 119, 124, 142, 159, 182, 212, 43, 24, 27, 29])
year = np.arange(1950.0, 1974.0)
phones = {"x": np.column_stack([np.ones(24), year - 1960]), "y": calls}
student = jm.models.student_t()  # degrees of freedom estimated
fits = {"normal": jm.fit(normal, data=phones), "Laplace": jm.fit(laplace, data=phones), "Student's t": jm.fit(student, data=phones)}
fig, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
ax.plot(year, calls, "ko", markersize=4)
for (name, fit), dash in zip(fits.items(), ("-", "--", ":"), strict=True):
    ax.plot(year, phones["x"] @ fit.params["beta"], "k" + dash, label=f"{name}: {fit.params['beta'][1]:.2f} a year")
ax.set(xlabel="year", ylabel="calls")
ax.legend(frameon=False)
print(fits["Student's t"])

clean = (year < 1963) | (year > 1970)
trend = np.linalg.lstsq(phones["x"][clean], calls[clean], rcond=None)[0][1]
print(f"\nslope of the sixteen sound years alone: {trend:.3f}")
assert all(fit.converged for fit in fits.values())
assert float(fits["Student's t"].loglik) > float(fits["Laplace"].loglik) > float(fits["normal"].loglik)
assert abs(fits["Student's t"].params["beta"][1] - trend) < 0.5 < abs(fits["normal"].params["beta"][1] - trend)

# %% [markdown]
# Two of these fits are suspicious.
#
# - **Laplace.** The exact minimum is not a single line here but a whole set, as with the median of twelve numbers: slopes from 1.16 to 1.62 give the
#   same sum of absolute errors. The smoothed loss chooses a line near this set; because the outliers determine the scale, the smoothed part is
#   several units wide and the slope is above that range. Least absolute errors resist a third of bad data less well than the example with one outlier
#   suggests.
# - **Student's t.** With 0.36 degrees of freedom the tails are heavier than Cauchy's. Such a likelihood is unbounded for a line through two points
#   with a scale going to 0 and degrees of freedom below $q/(n-q)$ (Fernández & Steel 1999, Biometrika 86, p. 153); the reported fit is the sensible
#   local maximum. Its standard errors assume that the noise really has a t distribution.

# %%
_, least = least_absolute(phones["x"], calls)
ends = np.array([[13.95714286, 1.15714286], [16.33333333, 1.62222222]])  # intercept and slope at the ends of the set, by a second linear program
for beta in (*ends, ends.mean(0), fits["Laplace"].params["beta"]):
    print(f"intercept {beta[0]:.3f}, slope {beta[1]:.3f}: sum of absolute errors {np.abs(calls - phones['x'] @ beta).sum():.3f}")
assert all(abs(np.abs(calls - phones["x"] @ beta).sum() - least) < 1e-5 for beta in (*ends, ends.mean(0)))

# %% [markdown]
# ## Noise whose size changes
#
# Back to the cars: at higher speeds the distances vary more. There are two solutions. Either keep least squares and correct its standard errors: the
# sandwich `vcov="HC0"` is valid for any pattern of variances. Or model the scale too, $\log\sigma_i = \gamma_0+\gamma_1\,\text{speed}_i$, which also
# changes the estimate, because precise rows get more weight.

# %%
robust = jm.fit(normal, data=cars, vcov="HC0")
modelled = jm.models.normal(scale="x")
hetero = jm.fit(modelled, data=cars)
print(hetero)
even = jm.fit(jm.fix(modelled, {"gamma[1]": 0.0}), modelled.start(cars), cars)
print("\n", jm.lr_test(even, hetero), sep="")
print("\nspeed coefficient      estimate   std. error")
for name, fit in (("one sigma, default", gaussian), ("one sigma, HC0", robust), ("modelled sigma", hetero)):
    print(f"{name:<22}{fit.params['beta'][1]:9.4f}   {fit.stderr['beta'][1]:9.4f}")

# %% [markdown]
# Three checks follow. The estimates agree with those of R (package glmmTMB, and Newton's method on the same likelihood). The sandwich is White's
# formula $(X'X)^{-1}X'\mathrm{diag}(e^2)X(X'X)^{-1}$. And the model with $\gamma_1=0$ is the model with constant $\sigma$.

# %%
by_r = {"estimate": [-11.9191708138594, 3.52202845344786, 1.69543792830084, 0.0615004346926328], "se": [4.84280856476276, 0.37377126902628, 0.370252956487817, 0.0231488954429032]}
print("R       ", by_r["estimate"], "\njaxmle  ", hetero.x.tolist())
assert np.allclose(hetero.x, by_r["estimate"], rtol=1e-8) and np.allclose(hetero.se, by_r["se"], rtol=1e-7) and abs(float(hetero.loglik) + 203.074157788601) < 1e-9
bread, residual = np.linalg.inv(cars["x"].T @ cars["x"]), distance - cars["x"] @ ols
white = bread @ (cars["x"].T * residual**2) @ cars["x"] @ bread
assert np.allclose(robust.stderr["beta"], np.sqrt(np.diag(white)), rtol=1e-9)
assert abs(float(even.loglik - gaussian.loglik)) < 1e-9 and jm.lr_test(even, hetero).pvalue < 0.01

fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
line = np.linspace(4, 25, 50)
rows = {"x": np.column_stack([np.ones(50), line]), "y": line}
for ax, model, fit, title in ((axes[0], normal, gaussian, r"one $\sigma$"), (axes[1], modelled, hetero, r"$\sigma$ grows with speed")):
    mean, reach = model.predict(fit.params, rows), scipy.special.ndtri(0.95) * np.sqrt(model.variance(fit.params, rows))
    ax.fill_between(line, mean - reach, mean + reach, color="0.85", label="90 % of cars")
    ax.plot(line, mean, "k", label="mean")
    ax.plot(speed, distance, "ko", markersize=3)
    ax.set(title=f"{title}, AIC {float(fit.aic):.1f}", xlabel="speed (miles an hour)")
axes[0].set(ylabel="stopping distance (feet)")
legend = axes[0].legend(frameon=False, loc="upper left")

# %% [markdown]
# (Both bands include negative distances at low speeds: a normal model of a distance is not quite right there.)
#
# ## What to remember
#
# - MSE is the Gaussian negative log-likelihood, MAE the Laplace one, up to a factor and a constant. The likelihood also estimates the scale.
# - The Gaussian fit follows an outlier without limit, the Laplace fit up to a limit, and Student's t finally ignores it.
# - A default standard error assumes the model. The sandwich assumes only the mean (or the median); for Laplace regression with normal noise they
#   differ by 20 %.
# - If the size of the noise changes, either correct the standard errors or model the scale. A likelihood-ratio test shows whether it does.
#
# Next: `03_logistic_and_softmax`, the same for classes: cross-entropy.
