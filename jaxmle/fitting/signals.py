"""What is known about a fit beyond its verdict: that the log-likelihood is a mean instead of a sum,
that a derivative rule is wrong, or that the maximum is the only one.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np

from jaxmle._types import DType, Foreign, Loglik, Tree
from jaxmle.closures.copies import viewed
from jaxmle.likelihood.combinators import Fix, Penalize, Pool, Tie, Weight, WithResponse
from jaxmle.likelihood.discovery.derivative_rules import Verdict
from jaxmle.likelihood.discovery.mean_of_rows import is_mean_of_rows
from jaxmle.likelihood.priors import NormalPrior, Ridge
from jaxmle.likelihood.regression import Linear, Regression
from jaxmle.likelihood.structure import core_of, shapes_of, term_shape
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import is_contradicted, precision, remembered
from jaxmle.runtime.opaque import Opaque
from jaxmle.runtime.user_code import warn_caller
from jaxmle.solvers.status import (
    CONCAVE_FLAG,
    HESSIAN_CONTRADICTED,
    MEAN,
    MEAN_OF_ROWS,
    SCORE_CONTRADICTED,
    SCORE_IS_NO_DERIVATIVE,
)


class DerivativeRuleWarning(UserWarning):
    """A derivative rule in the likelihood does not match its values.

    >>> import warnings, numpy as np, jax, jaxmle as jm
    >>> @jax.custom_jvp
    ... def square(x):
    ...     return x * x
    >>> square.defjvps(lambda tangent, out, x: 3.0 * x * tangent)  # 2x would be right
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     fit = jm.fit(lambda p, d: -square(d - p["a"]), {"a": 0.0}, np.arange(5.0))
    >>> caught[0].category is jm.DerivativeRuleWarning
    True
    """


class MeanLikelihoodWarning(UserWarning):
    """A log-likelihood that returns one number is a mean over the rows instead of a sum, so
    standard errors are √n times too large.

    >>> import warnings, numpy as np, jaxmle as jm
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     fit = jm.fit(lambda p, d: -((d - p["a"]) ** 2).mean(), {"a": 0.0}, np.arange(9.0))
    >>> caught[0].category is jm.MeanLikelihoodWarning
    True
    """


def with_signals(fit: Fit, user_loglik: Loglik, tree: Loglik, data: Tree) -> Fit:
    """A fit, of one data set or of a batch, marked with whether its maximum is known to be the only
    one and whether the likelihood is a mean. Warns of a mean.

    Args:
        user_loglik: the likelihood as the user gave it; a built-in model says more than its tree.
        tree: the likelihood as a tree.
        data: of one data set.
    """
    is_a_mean = _is_mean(tree, fit.layout, data, fit.dtype)
    if is_a_mean:
        warn_caller(
            MEAN_OF_ROWS[0].upper() + MEAN_OF_ROWS[1:],
            MeanLikelihoodWarning,
        )
    code = CONCAVE_FLAG * has_one_maximum(user_loglik) + MEAN * is_a_mean
    return _marked(fit, code) if code else fit


def with_rules(fit: Fit, loglik: Loglik, rules: Verdict) -> Fit:
    """A fit marked with the result of checking the derivative rules in its likelihood. Warns of a
    wrong rule.
    """
    code = HESSIAN_CONTRADICTED * is_contradicted(loglik) + SCORE_CONTRADICTED * rules.score
    if rules.score:
        sentence = f"{', '.join(rules.names)}: {SCORE_IS_NO_DERIVATIVE}"
        warn_caller(sentence, DerivativeRuleWarning)
    return _marked(fit, code) if code else fit


def _marked(fit: Fit, code: int) -> Fit:
    """The fit, with a flag added to the certificate if it has converged."""
    old = fit.witness.certificate
    added = np.where(fit.converged, old | code, old).astype(np.int32)[()]
    return replace(fit, witness=replace(fit.witness, certificate=added))


# ---------------------------------------------------------------- one maximum


def has_one_maximum(user_loglik: Loglik) -> bool:
    """Whether the likelihood is known to have one maximum at most: a regression that is declared
    concave, also weighted, restricted, pooled with others or with a concave prior; Cox's partial
    likelihood; a normal regression, concave in β/σ and 1/σ (Burridge 1981, JRSS B 43, 41).
    """
    inner = getattr(user_loglik, "likelihood", None)
    if isinstance(inner, Penalize | Pool):  # what a combinator made of a built-in model
        return has_one_maximum(inner)
    if isinstance(user_loglik, Penalize):
        return isinstance(user_loglik.prior, Ridge | NormalPrior) and _is_concave(
            user_loglik.loglik
        )
    if isinstance(user_loglik, Pool):
        return all(_is_concave(member) for member in user_loglik.members)
    return _is_concave(user_loglik) or (
        getattr(user_loglik, "name", "") == "normal"
        and hasattr(user_loglik, "likelihood")
        and "sigma" in (getattr(user_loglik, "constraints", None) or {})
    )


def _is_concave(user_loglik: Loglik) -> bool:
    """Concave in its parameters as they are: sums of such likelihoods, and restrictions of
    them, are too.
    """
    if isinstance(user_loglik, Weight | Fix | Tie | WithResponse):
        return _is_concave(user_loglik.loglik)
    if isinstance(user_loglik, Regression):
        linear = all(isinstance(form, Linear | str) for form in user_loglik.forms)
        return user_loglik.concave and linear
    model: Foreign = user_loglik
    if hasattr(model, "likelihood") and hasattr(model, "name"):
        return model.name == "cox" or _is_concave(model.likelihood)
    return False


# ---------------------------------------------------------------- a mean over rows


def _is_mean(tree: Loglik, layout: Layout, data: Tree, dtype: DType) -> bool:
    """Whether the likelihood returns one number in which all that depends on the data is
    divided by the number of rows.
    """
    core = core_of(tree)
    if not isinstance(core, Opaque):
        return False
    rows = jax.tree.map(viewed, data)
    with precision(dtype):
        if term_shape(core, layout, np.zeros(layout.p), rows) != ():
            return False
        key = ("mean of rows", layout, *shapes_of(rows))
        return bool(remembered(core, key, lambda held: is_mean_of_rows(held, layout, rows)))
