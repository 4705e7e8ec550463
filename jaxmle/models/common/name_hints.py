"""What other software calls a model, and asks of one: the hint of a name that is not there."""

from __future__ import annotations

from difflib import get_close_matches

from jaxmle._types import Foreign

MODELS_OF_OTHER_SOFTWARE = {
    "normal()": ("linear", "lm", "ols", "gaussian", "linear_regression", "least_squares", "wls"),
    "logistic(), models.poisson() or another response": ("glm", "gee"),
    "logistic()": ("logit", "bernoulli", "logistic_regression"),
    "binomial()": ("beta_binomial", "trials"),
    "poisson()": ("count", "poisson_regression"),
    "negative_binomial()": ("negbin", "glm_nb", "nb", "nb2", "nbreg"),
    "multinomial(classes)": ("mnlogit", "multinom", "mlogit", "softmax"),
    "ordinal(classes)": ("polr", "ologit", "oprobit", "ordered_model", "clm"),
    "cox()": ("coxph", "stcox", "phreg", "cox_ph", "coxphfitter"),
    "aft(family)": ("survreg", "weibull", "weibull_aft", "lognormal_aft", "streg"),
    "zero_inflated(model)": ("zip", "zeroinfl", "zinb"),
    "student_t()": ("t", "robust", "rlm"),
    "quantile(level)": ("quantreg", "rq"),
}
MODEL_HINTS = {name: ours for ours, names in MODELS_OF_OTHER_SOFTWARE.items() for name in names}
ASKED_OF_A_MODEL = {
    "fit": "jaxmle.fit(model, data={'x': x, 'y': y}), or frame.fit(model) for a formula",
    "fit_transform": "jaxmle.fit(model, data={'x': x, 'y': y})",
    "fit_regularized": "jaxmle.fit(jaxmle.penalize(model, jaxmle.ridge(0.1)), data=data)",
    "summary": "print the result of jaxmle.fit(model, data=data)",
    "params": "jaxmle.fit(model, data=data).params",
    "coef_": "jaxmle.fit(model, data=data).params",
    "loglike": "jaxmle.evaluate(model, params, data)",
    "score": "jaxmle.score(model)",
    "hessian": "jaxmle.hessian(model)",
}


def missing_model(name: str, known: list[str]) -> AttributeError:
    """The error for a name that ``models`` has not."""
    near = get_close_matches(name, known, n=1)
    ours = MODEL_HINTS.get(name.lower()) or (near[0] if near else "")
    hint = f"write models.{ours}" if ours else f"there are {', '.join(known)}"
    return AttributeError(f"jaxmle.models has no {name!r}: {hint}")


def missing_of_model(model: Foreign, name: str) -> Foreign:
    """Raise for an attribute that a model has not, with what to call instead.

    Raises:
        AttributeError: always.
    """
    hint = ASKED_OF_A_MODEL.get(name)
    if hint is None:
        known = [word for word in dir(type(model)) if not word.startswith("_")]
        near = [] if name.startswith("_") else get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see help(jaxmle.models.Model)"
    raise AttributeError(f"a model has no {name!r}: {hint}", name=name, obj=model)
