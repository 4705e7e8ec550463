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
# # A research fit, from the data frame to the table
#
# In 1986 a hospital in Massachusetts recorded, for 189 births, whether the child weighed less than 2.5 kg, and data about the mother (Hosmer &
# Lemeshow 1989). Which of these are associated with a low weight? We follow the steps of a paper: read the data frame, check the likelihood, fit, ask
# how far the standard errors can be trusted, test, look for influential rows, compare models, predict, and print the table. Wherever R gives a
# number, ours is compared with it and must agree.

# %% tags=["parameters"]
REPLICATES = 1999  # of the bootstrap

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import jaxmle as jm

# %% [markdown]
# ## The frame
#
# The data set holds numbers; the data frame of a study holds text. A pandas category keeps the order of its levels, and the first is the base.

# %%
raw = jm.datasets.load("birthwt")
births = pd.DataFrame(raw.data).drop(columns=["black", "other"])
race = np.select([raw.data["black"] == 1, raw.data["other"] == 1], ["black", "other"], "white")
births["race"] = pd.Categorical(race, categories=["white", "black", "other"])
births.head()

# %% [markdown]
# A formula codes the frame: it makes the design, names its columns, and says which rows it dropped. This table is complete; to show how missing
# values are treated, the weights of ten mothers are deleted in a copy. The rows are dropped, and the frame says how many and because of which column.
# With `missing="warn"`, the default, there is also a warning, and with `"refuse"` an error.

# %%
gappy = births.copy()
gappy.loc[gappy.index[::19], "lwt"] = np.nan
print(jm.from_formula("low ~ age + lwt + race", gappy, missing="drop"))

frame = jm.from_formula("low ~ age + lwt + race + smoke + ptl + ht + ui", births)
print()
print(frame)
assert frame.n == 189 and frame.dropped == 0

# %% [markdown]
# ## Check, then fit
#
# The model says $\Pr(\text{low}_i = 1) = 1/(1 + e^{-x_i'\beta})$. Before using the likelihood, check it with `lint`: does it return one term per row,
# are the terms logarithms of probabilities that sum to one over the response, do the derivatives agree with finite differences, does the score have
# mean zero if data come from the model?

# %%
model = jm.models.logistic()
report = jm.lint(model, model.start(frame.data), frame.data, response="y", support=(0, 1), sample=model.sample)
assert report.ok
report

# %%
fit = frame.fit(model)
fit

# %% [markdown]
# The status comes first: `CONVERGED` means that a Newton step would move no estimate by more than a thousandth of its standard error. R's
# `glm` gives the same numbers (R 4.2.2, data of MASS 7.3.58.2).

# %%
R_GLM = {  # estimate and standard error
    "Intercept": (0.636909664068401, 1.23031220236324), "age": (-0.037749642552998, 0.037810939590904), "lwt": (-0.0149102676586761, 0.00704045658383237),
    "race[T.black]": (1.2127419553198, 0.532488304201395), "race[T.other]": (0.804119399303705, 0.448444707878141), "smoke": (0.846402282824237, 0.408074558564437),
    "ptl": (1.22175078682561, 0.463015333118405), "ht": (1.83868722849451, 0.703252123308496), "ui": (0.711127761524248, 0.463119952254804),
}  # fmt: skip
theirs = np.array([R_GLM[name] for name in frame.names])
assert fit.converged
assert np.max(np.abs(fit.x - theirs[:, 0]) / theirs[:, 1]) < 1e-8
assert np.max(np.abs(fit.se / theirs[:, 1] - 1)) < 1e-8
assert abs(fit.loglik - -98.4168517646642) < 1e-9 and abs(fit.aic - 214.833703529328) < 1e-9

# %% [markdown]
# ## A fit without an estimate
#
# Studies often go wrong in subgroups. Among the 51 mothers under twenty, all who had an earlier premature labour had a light child. The model for
# this subgroup has no maximum, and the fit says so: it names the coefficient that goes to infinity and its direction, and the others remain valid.
# There is no table with a huge number and a huge standard error.

# %%
young = jm.from_formula("low ~ lwt + race + smoke + ptl + ht + ui", births[births["age"] < 20])
subgroup = young.fit(model)
print(subgroup)
ptl = young.names.index("ptl")
assert subgroup.verdict is jm.Status.SEPARATED and subgroup.x[ptl] == np.inf and np.isnan(subgroup.se[ptl])
assert np.isfinite(np.delete(subgroup.se, ptl)).all()

# %% [markdown]
# ## Are the standard errors right?
#
# The sandwich $J^{-1}\bigl(\sum_i s_i s_i'\bigr)J^{-1}$ does not rely on the model's variance. R's `sandwich` package gives the same HC0 numbers. For
# a 0/1 response the variance is a function of the mean, so a difference between the two columns means that the mean is wrong, or is due to chance:
# here they differ by less than a tenth.

# %%
robust = frame.fit(model, vcov="HC0")
R_HC0 = [1.26147047410604, 0.0359344738599463, 0.00742784420802945, 0.52426120826408, 0.441489866230113, 0.395573039837185, 0.451028553364248, 0.669339021710616, 0.498208912045774]  # fmt: skip
assert np.max(np.abs(robust.se / R_HC0 - 1)) < 1e-8
pd.DataFrame({"model": fit.se, "HC0": robust.se, "ratio": robust.se / fit.se}, index=frame.names).round(4)

# %% [markdown]
# Births in this table are not grouped. If rows come in groups, give the groups as clusters. A classic example: deaths by horse kick in fourteen corps
# of the Prussian army over twenty years (von Bortkiewicz 1898). The years of a corps are similar, so the standard error of the constant rises by two
# fifths if corps instead of corps-years count as independent, as in R's `vcovCL(type = "HC0", cadjust = FALSE)`.

# %%
kicks = pd.DataFrame(jm.datasets.load("horsekicks").data)
kicks["decades"] = (kicks["year"] - 1884.5) / 10
army = jm.from_formula("deaths ~ decades", kicks, clusters="corps")
clustered = army.fit(jm.models.poisson(), vcov="CR0")
plain = jm.fit(jm.models.poisson(), data=army.data)
print("independent rows:", plain.se.round(4), "  by corps:", clustered.se.round(4))
assert np.allclose(plain.se, [0.0718464488348802, 0.1243099682384376], rtol=1e-8)
assert np.allclose(clustered.se, [0.100298243873353, 0.111839062807767], rtol=1e-8)

# %% [markdown]
# ## Three tests of one hypothesis
#
# Do smoking and hypertension matter at all? The Wald test asks how far the estimates are from zero, the likelihood-ratio test how much
# log-likelihood the two columns bring, the score test how steep the likelihood is without them. They agree in large samples, but not for 189 births;
# R gives the same three numbers. `fix` holds coefficients by their position in `beta`.


# %%
def without(*names):
    """The same likelihood on the same data with some coefficients held at zero."""
    held = {f"beta[{frame.names.index(name)}]": 0.0 for name in names}
    return frame.fit(jm.fix(model, held), model.start(frame.data))


null = without("smoke", "ht")
wald = jm.wald_test(fit, ["smoke", "ht"])
ratio = jm.lr_test(null, fit)
rao = jm.score_test(model, null, frame.data)
print(wald, ratio, rao, sep="\n")
assert np.allclose(
    [wald.statistic, ratio.statistic, rao.statistic], [11.2878165576053, 11.8417102294589, 12.9977359242524], rtol=1e-8
)  # R's glm is accurate to about nine digits

# %% [markdown]
# A factor is one hypothesis, however many columns it has. `frame.terms` knows which columns belong together; `holm` keeps the probability of any
# false rejection among the seven tests below the level: of five terms with p < 0.05 none remains significant at 5%. With seven tests on 189 births
# that is to be expected.

# %%
tests = jm.joint_tests(fit, frame.terms)
adjusted = jm.holm(tests.pvalues)
print(tests)
print()
print("after Holm:", "  ".join(f"{term} {p:.3f}" for term, p in zip(tests.terms, adjusted, strict=True)))
assert np.isclose(tests["race"].statistic, 6.15753905834401, rtol=1e-8) and tests["race"].df == 2  # R: b'V⁻¹b of the two coefficients
assert (tests.pvalues < 0.05).sum() == 5 and (adjusted < 0.05).sum() == 0

# %% [markdown]
# ## Intervals: three answers
#
# The Wald interval, estimate ± 1.96 SE, is based on a parabola. The profile interval contains the values that the likelihood does not reject,
# $2\{\hat\ell - \ell_p(\beta_j)\} \le \chi^2_1(0.95)$; R's `confint` looks for the same ends on a coarse grid; the numbers here come from a bisection
# in R.

# %%
profile = jm.profile(model, fit, frame.data)
R_ENDS = np.array([[-1.74073496018458, 3.10344632551781], [-0.113903316209394, 0.0350281917789546], [-0.0295156014449547, -0.00176497226479792], [0.171027096141122, 2.27559481310295], [-0.0640662852128668, 1.70491009992643], [0.0564040877601772, 1.6664125030415], [0.323640660025561, 2.15190907769915], [0.494600995980862, 3.30523766073177], [-0.208166193095656, 1.62098825777098]])  # fmt: skip
assert np.max(np.abs(profile.interval() - R_ENDS) / fit.se[:, None]) < 1e-5
shown = [name for name in fit.names if name not in ("Intercept", "age", "lwt")]
ax = jm.plots.forest({"Wald": fit, "Wald, HC0": robust, "profile": profile}, shown)
_ = ax.set_xlabel("change in log odds of a low weight, 95% interval")

# %% [markdown]
# The bootstrap draws births with replacement. The bias-corrected and accelerated (BCa) interval needs neither symmetry nor a formula, but it does
# need replicates with an estimate. Twelve mothers had hypertension: seven children were light, five were not. A replicate without any of the five, or
# without any of the seven, sends the coefficient to ±∞, with probability $(1 - 5/189)^{189} + (1 - 7/189)^{189} \approx 0.007$. These replicates are
# neither hidden nor dropped: they have the status `SEPARATED`, keep their place in the order, and make the bootstrap standard error of `ht` infinite,
# as it should be. Most intervals here are wider than the profile intervals, and that of `smoke` now contains zero: with 189 births and nine
# coefficients the large-sample intervals are slightly too narrow.

# %%
boot = jm.bootstrap(model, fit, frame.data, key=1, replicates=REPLICATES, acceleration="influence", progress=False)
print(boot.table(kind="bca"))
chance = (1 - 5 / 189) ** 189 + (1 - 7 / 189) ** 189
ht = frame.names.index("ht")
expected = chance * REPLICATES
assert boot.failed.keys() <= {"SEPARATED"}
assert abs(boot.infinite[ht] - expected) < 4 * np.sqrt(expected)
print(f"\nreplicates with an infinite coefficient of ht: {boot.infinite[ht]}; expected {expected:.1f} ± {np.sqrt(expected):.1f}")

# %% [markdown]
# ## Influential births
#
# `influence` gives the effect of one row on the estimate, by one Newton step without it. The jackknife actually refits without each row, 189 fits in
# one batch. The figure compares the two changes of the coefficient of hypertension, in standard errors.

# %%
found = jm.influence(model, fit, frame.data)
deleted = jm.jackknife(model, fit, frame.data, progress=False).deleted
step, exact = found.dfbetas[:, ht], (fit.x[ht] - deleted[:, ht]) / fit.se[ht]
top = found.largest(3)
fig, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
axes[0].axline((0, 0), slope=1, color="0.6", lw=1)
axes[0].plot(exact, step, "o", color="black", ms=4, mfc="none")
axes[0].set(xlabel="refit without the birth", ylabel="one Newton step", title="change of ht, in standard errors")
axes[1].vlines(np.arange(189), 0, found.cook, color="black", lw=1)
for row in top:
    axes[1].annotate(str(row), (row, found.cook[row]), xytext=(0, 2), textcoords="offset points", ha="center", fontsize="small")
axes[1].set(xlabel="birth", ylabel="Cook's distance", title="change of all estimates together", ylim=(0, 1.1 * found.cook.max()))
for ax in axes:
    ax.spines[["top", "right"]].set_visible(False)
print(births.iloc[top].to_string())

# They differ by a second-order term, the square of the change.
assert np.max(np.abs(step - exact)) < 2 * np.max(np.abs(exact)) ** 2
assert np.isclose(found.leverage.sum(), fit.df)

# %% [markdown]
# These three births went against their predicted risks: two children of normal weight in spite of hypertension, or of smoking and an earlier
# premature labour, and a light child of a mother of 200 pounds. A Cook's distance of 0.05 is small: no single birth moves the whole result. Birth 12
# changes the coefficient of hypertension by 0.6 standard errors. Next, does the distribution fit? The quantile residual $\Phi^{-1}(u_i)$, with $u_i$
# drawn uniformly between $F(y_i - 1)$ and $F(y_i)$ because the response is discrete, is standard normal if the model is right (Dunn & Smyth 1996).

# %%
residuals = model.residuals(fit.params, frame.data, "quantile", key=jax.random.key(0))
jm.plots.qq(residuals)
gap = frame.data["y"] - model.predict(fit.params, frame.data)
assert np.max(np.abs(frame.data["x"].T @ gap)) < 1e-6  # the score equations: residuals are orthogonal to every column

# %% [markdown]
# With a 0/1 response each residual is mostly the random draw, so this figure has little power: it can only show gross errors. The comparison of
# models below is more informative.
#
# ## Other models
#
# We compare the same design with other links, and the same link with fewer terms. Criteria are comparable only on the same rows, and `compare`
# refuses anything else. Age improves the fit by less than its one degree of freedom costs; race by more than its two.

# %%
probit, cloglog = (frame.fit(link) for link in (jm.models.probit(), jm.models.cloglog()))
no_age, no_race = without("age"), without("race[T.black]", "race[T.other]")
table = jm.compare(fit, probit, cloglog, no_age, no_race, names=["logit", "probit", "cloglog", "logit, no age", "logit, no race"])
print(table)
assert np.allclose(table.aic[[3, 4]], [213.851569831741, 217.240289342921], rtol=1e-10)  # R's AIC()
assert table.best == "logit, no age" and np.isclose(table.weight.sum(), 1)

# %% [markdown]
# It would be the usual mistake to drop age because of this table and then to report the other p-values as if it had never been there. The model was
# chosen before the data were seen, so age stays.
#
# ## Predictions
#
# New rows are coded like the rows of the fit. An interval computed for the logit $x'\beta$ and transformed back stays between 0 and 1.

# %%
new = pd.DataFrame(
    {"age": 25, "lwt": np.tile(np.linspace(90, 200, 23), 2), "race": "white", "smoke": np.repeat([0, 1], 23), "ptl": 0, "ht": 0, "ui": 0}
)
x = frame.recode(new)["x"]
logit = jm.delta(lambda params: x @ params["beta"], fit)
risk = frame.predict(fit, new)["estimate"].to_numpy()
low, high = 1 / (1 + np.exp(-np.moveaxis(logit.conf_int(0.95), -1, 0)))
assert np.allclose(risk, 1 / (1 + np.exp(-logit.estimate))) and np.all((low > 0) & (low < risk) & (risk < high) & (high < 1))
assert np.allclose(logit.stderr, np.sqrt(np.sum((x @ fit.vcov) * x, axis=1)))  # √(x'Vx)

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for value, label, shade, dash in ((0, "does not smoke", "0.45", "--"), (1, "smokes", "0.0", "-")):
    who = new["smoke"].to_numpy() == value
    ax.fill_between(new["lwt"][who], low[who], high[who], color=shade, alpha=0.18, lw=0)
    ax.plot(new["lwt"][who], risk[who], dash, color=shade, label=label)
ax.set(xlabel="mother's weight (pounds)", ylabel="probability of a low birth weight", ylim=(0, 0.6))
ax.spines[["top", "right"]].set_visible(False)
_ = ax.legend(frameon=False, title="white, 25 years, no other risk")

# %% [markdown]
# ## The table
#
# Readers of a medical paper expect odds ratios. The profile interval of the exponential is the exponential of the profile interval, because its ends
# do not depend on the scale. The p-values are from likelihood-ratio tests, each with a fit without that column.

# %%
columns = frame.names[1:]
singles = [jm.lr_test(without(name), fit) for name in columns]
final = pd.DataFrame(
    {"odds ratio": np.exp(fit.x[1:]), "lower 95%": np.exp(profile.lower[1:]), "upper 95%": np.exp(profile.upper[1:]), "p (LR)": [float(test.pvalue) for test in singles]},
    index=pd.Index(columns, name="low birth weight"),
)  # fmt: skip
# A 95% profile interval excludes 1 exactly if the likelihood-ratio test rejects at 5%.
assert np.array_equal((final["lower 95%"] > 1) | (final["upper 95%"] < 1), final["p (LR)"] < 0.05)
final.round(3)

# %% [markdown]
# The fit itself can be printed as text, HTML, Markdown and LaTeX (booktabs), or converted to a data frame with `fit.to_frame()`:

# %%
print(fit.to_markdown())
print(fit.to_latex())

# %% [markdown]
# ## What to remember
#
# - `from_formula` → `lint` → `fit` → read the status first. A fit without an estimate says which coefficients are affected.
# - Robust, clustered, profile and bootstrap answers come from the same record; if they differ, the cause is usually a few rows.
# - Test a factor as a whole. A likelihood-ratio test needs fits of the same data, so hold coefficients with `jm.fix`.
# - Intervals are computed on an unbounded scale and transformed back.
#
# This is the last notebook. `README.md` gives an overview on one page.
