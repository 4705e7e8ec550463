"""Logistic regression with clusters: odds ratios, predictions and average marginal effects, in statsmodels."""

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf

table = pd.read_csv("births.csv").dropna()
new = pd.DataFrame({"age": [20, 30], "smoke": [0, 1], "race": ["white", "black"]})
model = smf.logit("low ~ age + smoke + race", table)
fit = model.fit(disp=0, tol=1e-14, cov_type="cluster", cov_kwds={"groups": table["clinic"]})
odds = np.exp(pd.concat([fit.params, fit.conf_int()], axis=1))
predicted = fit.get_prediction(new).summary_frame()
effects = fit.get_margeff()
print(odds, predicted, effects.summary().as_latex(), sep="\n")
answers = {
    "odds": odds.iloc[[0, 3, 4, 1, 2]],
    "predicted": predicted[["predicted", "se"]],
    "effects": effects.margeff[[2, 3]],
    "effects_se": effects.margeff_se[[2, 3]],
}
