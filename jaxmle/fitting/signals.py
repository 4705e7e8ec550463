"""What is known about a fit beyond its verdict: that the log-likelihood is a mean instead of a sum,
that a derivative rule is wrong, or that the maximum is the only one.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
from jax.extend.core import Jaxpr, Literal

from jaxmle._types import Atom, DType, Foreign, Loglik, Tree
from jaxmle.closures.copies import viewed
from jaxmle.likelihood.codes import called
from jaxmle.likelihood.combinators import Fix, Penalize, Pool, Tie, Weight, WithResponse
from jaxmle.likelihood.discovery.derivative_rules import Verdict
from jaxmle.likelihood.discovery.mean_of_rows import is_mean_of_rows
from jaxmle.likelihood.priors import NormalPrior, Ridge
from jaxmle.likelihood.regression import Linear, Regression
from jaxmle.likelihood.structure import core_of, program_of_terms, shapes_of, term_shape
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.runtime.calls import aval_of
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


class BroadcastWarning(UserWarning):
    """A column of shape (n, 1) meets an array of shape (n,) in the likelihood: the result is a
    table of n × n numbers, and the log-likelihood sums over all of them.

    >>> import warnings, numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> def sum_of_squares(b, d):  # without [None], jax may be configured to refuse it
    ...     return -jnp.sum((d["y"] - b * d["x"][None]) ** 2)
    >>> y, x = np.arange(3.0)[:, None], np.ones(3)
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     fit = jm.fit(sum_of_squares, 0.0, {"y": y, "x": x})
    >>> caught[0].category is jm.BroadcastWarning
    True
    """


def with_signals(fit: Fit, user_loglik: Loglik, tree: Loglik, data: Tree) -> Fit:
    """A fit, of one data set or of a batch, marked with whether its maximum is known to be the only
    one and whether the likelihood is a mean. Warns of a mean, and of a column that broadcasts.

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
    warn_of_broadcast(tree, fit.layout, data, fit.dtype)
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


# ---------------------------------------------------------------- a column that broadcasts


def warn_of_broadcast(tree: Loglik, layout: Layout, data: Tree, dtype: DType) -> None:
    """Warn where a leaf of shape (n, 1) and an array of shape (n,) make an array (n, n)."""
    core = core_of(tree)
    columns = [
        "data" + jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(data)
        if np.ndim(leaf) == 2 and np.shape(leaf)[1] == 1 < np.shape(leaf)[0]
    ]
    if not columns or not isinstance(core, Opaque):
        return
    rows = jax.tree.map(viewed, data)
    with precision(dtype):
        program = program_of_terms(core, layout, np.zeros(layout.p), rows)
    _, *leaves = program.jaxpr.invars
    if _has_table_of_pairs(program.jaxpr, {leaf for leaf in leaves if _is_column(leaf)}):
        warn_caller(
            f"{' and '.join(columns)} of shape (n, 1) meets an array of shape (n,), which makes "
            "n × n numbers, and the log-likelihood sums over all of them. For one number for each "
            "row write a column as y[:, 0]; if all pairs of rows are meant, write y[:, 0][:, None]",
            BroadcastWarning,
        )


def _is_column(atom: Atom) -> bool:
    shape = aval_of(atom).shape
    return len(shape) == 2 and shape[1] == 1 < shape[0]


def _has_table_of_pairs(jaxpr: Jaxpr, columns: set[Atom]) -> bool:
    """Whether an operation makes (n, n) of a column and of an array (n,) that was given one more
    axis in front. ``columns`` are leaves (n, 1) of the data, and what has their shape because of
    them is added.
    """
    in_front: set[Atom] = set()
    for equation in jaxpr.eqns:
        arguments = [atom for atom in equation.invars if not isinstance(atom, Literal)]
        column = next((atom for atom in arguments if atom in columns), None)
        inner = called(equation)
        if inner is not None and column is not None:
            pairs = zip(inner.jaxpr.invars, equation.invars, strict=True)
            given = {
                inside
                for inside, atom in pairs
                if not isinstance(atom, Literal) and atom in columns
            }
            if _has_table_of_pairs(inner.jaxpr, given):
                return True
        out = equation.outvars[0]
        shape = aval_of(out).shape
        spread = equation.params.get("broadcast_dimensions")
        is_in_front = len(shape) == 2 and shape[0] == 1 < shape[1]
        if (spread == (1,) and len(shape) == 2 and shape[1] > 1) or (
            is_in_front and any(atom in in_front for atom in arguments)
        ):
            in_front.add(out)
        if column is None:
            continue
        n = aval_of(column).shape[0]
        if shape == (n, n) and any(atom in in_front for atom in arguments):
            return True
        if _is_column(out) or (spread == (0, 1) and shape == (n, n)):
            columns.add(out)
    return False
