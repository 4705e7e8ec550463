"""Logistic regression with clusters: odds ratios, predictions and average marginal effects for a paper."""

import pandas as pd

import jaxmle as jm

table = pd.read_csv("births.csv").dropna()
new = pd.DataFrame({"age": [20, 30], "smoke": [0, 1], "race": ["white", "black"]})
frame = jm.from_formula("low ~ age + smoke + race", table, clusters="clinic")
fit = frame.fit(jm.models.logistic(), vcov="CR1S")
odds = fit.to_frame(exponentiate=True)
predicted = frame.predict(fit, new)
effects = jm.margins(fit, frame, ["age", "smoke"])
print(odds, predicted, effects.to_latex(), sep="\n")
answers = {
    "odds": odds[["estimate", "conf_low", "conf_high"]],
    "predicted": predicted[["estimate", "std_error"]],
    "effects": effects.estimate,
    "effects_se": effects.stderr,
}
