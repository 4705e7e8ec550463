"""Weibull failure times with late entry: coefficients, survival curves, medians and residuals."""

import pandas as pd

import jaxmle as jm

table = pd.read_csv("stays.csv")
new = pd.DataFrame({"age": [50, 70], "sex": [1, 2], "ecog": [0, 2]})
frame = jm.from_formula("Surv(entered, time, death) ~ age + sex + ecog", table)
model = jm.models.aft("weibull", entry="entry")
fit = frame.fit(model)
curves = jm.survival.survival(model, fit, frame, [180.0, 365.0, 730.0], new=new)
median = jm.survival.quantile(model, fit, frame, new=new)
residuals = jm.survival.residuals(model, fit, frame, "cox-snell")
print(fit, curves.to_frame(), median.to_frame(), sep="\n")
jm.plots.survival(curves)
answers = {
    "beta": fit.params["beta"],
    "beta_se": fit.stderr["beta"],
    "curves": curves.estimate,
    "median": median.estimate[:, 0],
    "residuals": residuals,
}
