"""Weibull failure times with late entry: coefficients, survival curves, medians and residuals, in lifelines."""

import numpy as np
import pandas as pd
from lifelines import WeibullAFTFitter

table = pd.read_csv("stays.csv")
new = pd.DataFrame({"age": [50, 70], "sex": [1, 2], "ecog": [0, 2]})
model = WeibullAFTFitter()
model._scipy_fit_method = "SLSQP"  # BFGS ends 1e-5 from the maximum
formula = "age + sex + ecog"
tight = {"ftol": 1e-16}
fit = model.fit(table, "time", "death", entry_col="entered", formula=formula, fit_options=tight)
curves = fit.predict_survival_function(new, times=[180.0, 365.0, 730.0])
median = fit.predict_median(new)
beta = fit.params_["lambda_"]
scale = np.exp(table.assign(Intercept=1.0)[beta.index] @ beta)
shape = np.exp(fit.params_["rho_"].iloc[0])
residuals = (table["time"] / scale) ** shape - (table["entered"] / scale) ** shape
print(fit.summary, curves, median, sep="\n")
curves.plot()
answers = {
    "beta": beta,
    "beta_se": fit.standard_errors_["lambda_"],
    "curves": curves.T,
    "median": median,
    "residuals": residuals,
}
