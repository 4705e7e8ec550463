"""Hints for attributes that a ``Fit`` does not have but other software does."""

from __future__ import annotations

from difflib import get_close_matches
from typing import NoReturn

from jaxmle._types import Foreign

PREDICT = "frame.predict(fit, new) for a formula, or model.predict(fit.params, data)"
NAMES_OF_OTHER_SOFTWARE = {
    "fit.params": ("coef", "coef_", "coefs", "coefficients", "beta", "estimate", "estimates", "x0"),
    "fit.stderr": (
        "bse",
        "sd",
        "std",
        "std_err",
        "std_errors",
        "standard_errors_",
        "stderrs",
        "errors",
    ),
    "fit.vcov": ("cov", "cov_params", "covariance", "covariance_", "hess_inv", "variance_matrix_"),
    "fit.loglik": ("llf", "log_likelihood", "log_likelihood_", "loglikelihood", "fun", "fval"),
    "fit.zvalues": ("tvalues", "zvalue", "z"),
    "fit.pvalues": ("pvalue", "p_values", "p"),
    "fit.conf_int()": (
        "ci",
        "confint",
        "confidence_interval",
        "confidence_intervals_",
        "intervals",
    ),
    "fit.n": ("nobs", "n_obs"),
    "fit.converged and fit.explain()": ("success", "message", "mle_retvals", "convergence"),
    "fit.summary(), or print(fit)": ("summary2", "print_summary", "report"),
    "fit.to_frame()": ("to_df", "to_pandas", "summary_frame", "tidy"),
    PREDICT: ("predict", "fittedvalues", "fitted_values", "predict_proba", "get_prediction"),
    "model.residuals(fit.params, data)": ("resid", "residuals", "resid_response", "resid_pearson"),
    "jaxmle.margins(fit, frame)": ("get_margeff", "margins", "margeff"),
    "jaxmle.wald_test(fit, 'age = 0')": ("wald_test", "t_test", "f_test"),
    "jaxmle.bootstrap(loglik, fit, data, key=jax.random.key(0))": ("bootstrap", "boot"),
    "jaxmle.profile(loglik, fit, data)": ("profile", "conf_int_profile", "minos"),
    "jaxmle.lr_test(restricted, fit)": ("lr_test", "lrtest", "compare_lr_test", "anova"),
    "jaxmle.plots.forest(fit), or another function of jaxmle.plots": ("plot", "plots", "draw"),
    "fit.to_frame(), which has its own to_csv(…)": ("to_csv", "to_excel", "to_parquet"),
    "fit.params and fit.stderr are dictionaries": ("to_dict", "as_dict", "to_json", "asdict"),
    "fit.n - fit.df": ("df_resid", "df_residual"),
    "a likelihood has none; compare fit.loglik or fit.aic": ("rsquared", "r2", "rsquared_adj"),
}
HINTS = {name: hint for hint, names in NAMES_OF_OTHER_SOFTWARE.items() for name in names}


def missing_attribute(fit: Foreign, name: str) -> NoReturn:
    """Raise for an attribute that a ``Fit`` does not have, with its name here.

    Raises:
        AttributeError: always.
    """
    if name.startswith("_"):
        raise AttributeError(f"a Fit has no {name!r}", name=name, obj=fit)
    public = [known for known in dir(type(fit)) if not known.startswith("_")]
    near = get_close_matches(name, [*type(fit).__dataclass_fields__, *public], n=1)
    if name.lower() in public:
        near = [name.lower()]
    hint = HINTS.get(name.lower()) or (
        f"did you mean fit.{near[0]}?" if near else "see help(jaxmle.Fit)"
    )
    raise AttributeError(f"a Fit has no {name!r}: {hint}")
