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
# # A research fit, from the frame to the table
#
# In 1986 a hospital in Massachusetts noted, for 189 births, whether the child weighed less than 2.5 kg and what was known of the mother
# (Hosmer & Lemeshow 1989). Which of these things go with a low weight? We take the way a paper takes: read the frame, check the likelihood,
# fit, ask how far the standard errors can be trusted, test, look for rows that carry the result, compare models, predict, and print the
# table. Wherever R publishes or prints a number, ours stands beside it and must agree.

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
# The data set holds numbers; a frame in a study holds words. A pandas category keeps the order of its levels, and the first is the base.

# %%
raw = jm.datasets.load("birthwt")
births = pd.DataFrame(raw.data).drop(columns=["black", "other"])
race = np.select([raw.data["black"] == 1, raw.data["other"] == 1], ["black", "other"], "white")
births["race"] = pd.Categorical(race, categories=["white", "black", "other"])
births.head()

# %% [markdown]
# A formula codes the frame: it makes the design, names its columns, and says which rows it left out. This table is complete; to see what
# happens to gaps, a copy loses the weights of ten mothers. The rows go, and the frame says how many and for which column. With
# `missing="warn"`, the default, the same sentence is a warning, and with `"refuse"` an error.

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
# The model says $\Pr(\text{low}_i = 1) = 1/(1 + e^{-x_i'\beta})$. `lint` looks at the likelihood before anybody trusts it: is it one
# term per row, are the terms log-probabilities that sum to one over the response, do the derivatives agree with differences, has the score
# mean zero when data come from the model?

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
# ## A fit that has no answer
#
# Subgroups are where studies go wrong. Among the 51 mothers under twenty, all who had an earlier premature labour had a light child. The
# model for them alone has no maximum, and the fit says so: it names the coefficient that runs away and its direction, and leaves the others
# usable. No table with a huge number and its huge error.

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
# The sandwich $J^{-1}\bigl(\sum_i s_i s_i'\bigr)J^{-1}$ needs no trust in the model's variance. R's `sandwich` package gives the same HC0
# numbers. For a 0/1 response the variance is a function of the mean, so that a gap between the two columns speaks of a wrong mean, or of
# chance: here they differ by less than a tenth.

# %%
robust = frame.fit(model, vcov="HC0")
R_HC0 = [1.26147047410604, 0.0359344738599463, 0.00742784420802945, 0.52426120826408, 0.441489866230113, 0.395573039837185, 0.451028553364248, 0.669339021710616, 0.498208912045774]  # fmt: skip
assert np.max(np.abs(robust.se / R_HC0 - 1)) < 1e-8
pd.DataFrame({"model": fit.se, "HC0": robust.se, "ratio": robust.se / fit.se}, index=frame.names).round(4)

# %% [markdown]
# Births in this table are not grouped. Where rows come in groups, the groups must be named. A classic that has them: deaths by horse kick
# in fourteen corps of the Prussian army over twenty years (von Bortkiewicz 1898). Within a corps the years are alike, so that the standard
# error of the constant rises by two fifths when corps and not corps-years count as independent, as R's `vcovCL(type = "HC0", cadjust = FALSE)` does it.

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
# log-likelihood the two columns bring, the score test how steep the likelihood is without them. They agree in large samples, not in 189
# births, and R's three numbers are ours. `fix` holds coefficients by their place in `beta`.


# %%
def without(*names):
    """The same likelihood on the same data with some coefficients held at zero."""
    held = {f"beta[{frame.names.index(name)}]": 0.0 for name in names}
    return frame.fit(jm.fix(model, held), model.start(frame.data))


null = without("smoke", "ht")
wald = jm.wald_test(fit, ["beta[smoke]", "beta[ht]"])
ratio = jm.lr_test(null, fit)
rao = jm.score_test(model, null, frame.data)
print(wald, ratio, rao, sep="\n")
assert np.allclose(
    [wald.statistic, ratio.statistic, rao.statistic], [11.2878165576053, 11.8417102294589, 12.9977359242524], rtol=1e-8
)  # R's glm carries some nine digits

# %% [markdown]
# A factor is one question, however many columns it takes. `frame.terms` knows which columns belong together; `holm` keeps the chance
# of any false finding among the seven below the level: of five terms with p < 0.05 none is left at 5%. Who asks seven questions of 189
# births must expect that.

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
# Wald's interval, estimate ± 1.96 SE, is a parabola's. The profile interval holds the values that the likelihood does not reject,
# $2\{\hat\ell - \ell_p(\beta_j)\} \le \chi^2_1(0.95)$; R's `confint` looks for the same ends on a coarse grid, and the numbers here are
# those of a bisection in R.

# %%
profile = jm.profile(model, fit, frame.data)
R_ENDS = np.array([[-1.74073496018458, 3.10344632551781], [-0.113903316209394, 0.0350281917789546], [-0.0295156014449547, -0.00176497226479792], [0.171027096141122, 2.27559481310295], [-0.0640662852128668, 1.70491009992643], [0.0564040877601772, 1.6664125030415], [0.323640660025561, 2.15190907769915], [0.494600995980862, 3.30523766073177], [-0.208166193095656, 1.62098825777098]])  # fmt: skip
assert np.max(np.abs(profile.interval() - R_ENDS) / fit.se[:, None]) < 1e-5
shown = [name for name in fit.names if name not in ("beta[Intercept]", "beta[age]", "beta[lwt]")]
ax = jm.plots.forest({"Wald": fit, "Wald, HC0": robust, "profile": profile}, shown)
_ = ax.set_xlabel("change in log odds of a low weight, 95% interval")

# %% [markdown]
# The bootstrap draws births with replacement. The bias-corrected and accelerated (BCa) interval needs no symmetry and no formula; it does
# need replicates that have an estimate. Twelve mothers had hypertension: seven children were light, five were not. A replicate without
# any of the five, or without any of the seven, sends the coefficient to ±∞, with probability
# $(1 - 5/189)^{189} + (1 - 7/189)^{189} \approx 0.007$. Those replicates are not hidden and not dropped: they have the status `SEPARATED`,
# keep their place in the order, and make the bootstrap standard error of `ht` infinite, which it is. Most intervals here are wider than the
# profile's, and that of `smoke` now holds zero: with 189 births and nine coefficients the large-sample answers are a little too sure.

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
# ## Which births carry the result
#
# `influence` says what one row does to the estimate, by one Newton step without it. The jackknife really refits without each row, 189 fits
# in one batch. The picture shows the change of the coefficient of hypertension in standard errors, one way against the other.

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

# The second order of the step is the square of the first.
assert np.max(np.abs(step - exact)) < 2 * np.max(np.abs(exact)) ** 2
assert np.isclose(found.leverage.sum(), fit.df)

# %% [markdown]
# The three births went against their risks: two children of normal weight in spite of hypertension, or of smoking and an earlier
# premature labour, and a light child of a mother of 200 pounds. A Cook's distance of 0.05 is small: no single birth moves the
# whole result. On the coefficient of hypertension alone, birth 12 pulls by 0.6 of a standard error. Next, does the law fit? The quantile residual $\Phi^{-1}(u_i)$, with $u_i$ drawn uniformly between
# $F(y_i - 1)$ and $F(y_i)$ since the response is discrete, is standard normal if the model is right (Dunn & Smyth 1996).

# %%
residuals = model.residuals(fit.params, frame.data, "quantile", key=jax.random.key(0))
jm.plots.qq(residuals)
gap = frame.data["y"] - model.predict(fit.params, frame.data)
assert np.max(np.abs(frame.data["x"].T @ gap)) < 1e-6  # the score equations: residuals are orthogonal to every column

# %% [markdown]
# With a 0/1 response each residual is mostly the random draw, so that this picture has little power: it can show a gross mistake and no
# more. The comparison of models below asks more.
#
# ## Other models
#
# The same design under other links, and the same link with less. Criteria only compare on the same rows, and `compare` refuses anything
# else. Age brings less than its one degree of freedom costs; race brings more than its two.

# %%
probit, cloglog = (frame.fit(link) for link in (jm.models.probit(), jm.models.cloglog()))
no_age, no_race = without("age"), without("race[T.black]", "race[T.other]")
table = jm.compare(fit, probit, cloglog, no_age, no_race, names=["logit", "probit", "cloglog", "logit, no age", "logit, no race"])
print(table)
assert np.allclose(table.aic[[3, 4]], [213.851569831741, 217.240289342921], rtol=1e-10)  # R's AIC()
assert table.best == "logit, no age" and np.isclose(table.weight.sum(), 1)

# %% [markdown]
# Dropping age because of this table and then quoting the other p-values as if it had never been there would be the usual mistake. The model
# was chosen before the data were seen; it stays.
#
# ## Predictions
#
# New rows go through the coding that the formula learned. An interval made for the logit $x'\beta$ and mapped back stays between 0 and 1.

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
# Readers of a medical paper expect odds ratios. The exponential of an estimate has the exponential of its profile interval: profile
# ends do not depend on the scale. The p-values are those of likelihood-ratio tests, each from a fit without its column.

# %%
columns = frame.names[1:]
singles = [jm.lr_test(without(name), fit) for name in columns]
final = pd.DataFrame(
    {"odds ratio": np.exp(fit.x[1:]), "lower 95%": np.exp(profile.lower[1:]), "upper 95%": np.exp(profile.upper[1:]), "p (LR)": [float(test.pvalue) for test in singles]},
    index=pd.Index(columns, name="low birth weight"),
)  # fmt: skip
# A 95% profile interval leaves 1 out exactly where the likelihood-ratio test rejects at 5%.
assert np.array_equal((final["lower 95%"] > 1) | (final["upper 95%"] < 1), final["p (LR)"] < 0.05)
final.round(3)

# %% [markdown]
# The record itself prints as text, HTML, Markdown and LaTeX (booktabs), and as a data frame with `fit.to_frame()`:

# %%
print(fit.to_markdown())
print(fit.to_latex())

# %% [markdown]
# ## What to remember
#
# - `from_formula` → `lint` → `fit` → read the status first. A fit without an answer says which coefficients have none.
# - Robust, clustered, profile and bootstrap answers come from the same record; where they differ, a few rows usually stand behind it.
# - A factor is one test, and a likelihood-ratio test needs fits of the same data: hold coefficients with `jm.fix`.
# - Intervals are made on a scale without bounds and mapped back.
#
# This is the last notebook. `README.md` has the whole shelf on one page.
