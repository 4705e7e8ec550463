"""Choosing between models: Takeuchi's criterion, and a table of fits to the same data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import is_traced, namespace
from jaxmle._types import Array, Axes, Loglik, Tree
from jaxmle.inference.again import again, inverse_root, tangent
from jaxmle.inference.hypotheses.likelihood_ratio import has_supremum, lr_test, same_data
from jaxmle.inference.hypotheses.record import Test
from jaxmle.likelihood.combinators import Weights
from jaxmle.likelihood.evaluate import sums
from jaxmle.likelihood.terms import term_rows
from jaxmle.parameters.arguments import check_choice, check_flag, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.solvers.status import Status

MODEL_CRITERIA = ("aic", "aicc", "bic")


@partial(jax.tree_util.register_dataclass, data_fields=["value", "penalty"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Takeuchi:
    """Takeuchi's criterion: ``value`` = −2ℓ + 2·``penalty``, ``penalty`` = tr(J⁻¹K), which is the
    number of parameters if the model is right.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle.inference.selection.compare import tic
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> normal = lambda params, data: -0.5 * (data - params["mean"]) ** 2
    >>> result = jm.fit(normal, {"mean": 0.0}, y)
    >>> found = tic(normal, result, y)
    >>> round(float(found.penalty), 6), round(float(found.value), 6)  # var(y)/1 = 3.5, 14 + 2·3.5
    (3.5, 21.0)
    """

    value: Array
    penalty: Array


@with_keyword_hints
def tic(
    loglik: Loglik,
    fit: Fit,
    data: Tree = None,
    *,
    weights: Weights | None = None,
    in_axes: Axes = 0,
) -> Takeuchi:
    """Takeuchi's information criterion −2ℓ + 2 tr(J⁻¹K): AIC without the assumption that the model
    is right.

    J is the observed information and K the sum of the outer products of scores (Takeuchi 1976,
    Suri-Kagaku 153, 12–18; Konishi & Kitagawa 2008, *Information Criteria and Statistical
    Modeling*, section 3.4.3). The trace does not depend on the parametrisation. It is noisy: for a
    normal sample its mean is 2 − 3/(n + 1).

    Args:
        loglik, fit, data: a likelihood with one term per observation, its fit (one or a batch), and
            the data of the fit.
        weights: those of the fit.
        in_axes: as in ``score_test``.

    Returns:
        ``Takeuchi`` with ``value`` and ``penalty``; NaN for MAP fits, with sampling weights, and
        for fits without a regular maximum.

    Raises:
        ValueError: for data or weights that are not those of the fit, or a likelihood without
            terms.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.selection.compare import tic
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> found = tic(
    ...     exponential, jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive}), y
    ... )
    >>> (
    ...     round(float(found.penalty), 4),
    ...     round(float(found.value), 4),
    ... )  # for an exponential, var(y)/mean(y)²
    (0.3889, 17.5667)
    """
    given = again(loglik, fit, data, weights=weights, in_axes=in_axes, what="tic")
    layout = fit.layout
    penalty = given.evaluate("tic", lambda ll, x, rows, codes: _trace(ll, layout, x, rows))
    regular = (
        (fit.status == int(Status.CONVERGED)) & (fit.mode == "ML") & (fit.weighting != "sampling")
    )
    penalty = namespace(penalty).where(regular, penalty, np.nan)
    return Takeuchi(-2 * fit.loglik + 2 * penalty, penalty[()])


def _trace(loglik: Loglik, layout: Layout, x: Array, data: Tree) -> Array:
    """tr(J⁻¹K) = Σ |U's_i|² over the terms, J⁻¹ = UU'."""
    lift = jnp.asarray(tangent(loglik, layout).lift, x.dtype)
    rows = term_rows(loglik, layout, x, data)
    root = inverse_root(-(lift.T @ sums(loglik, layout, x, data).hessian @ lift))
    return jnp.sum(rows.meat[:, None] * (rows.scores @ lift @ root) ** 2)


# ---------------------------------------------------------------- many models


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["status", "df", "n", "loglik", "aic", "aicc", "bic", "delta", "weight", "lr"],
    meta_fields=["names", "by", "notes"],
)
@dataclass(frozen=True, eq=False)
class Comparison:
    """A comparison of models fitted to the same data.

    The last axis of every leaf runs over the models, in the order given.

    ``delta`` is the distance of the criterion ``by`` from its smallest value, ``weight`` is
    exp(−delta/2) scaled to sum to one; ``lr`` is the likelihood-ratio test of each model against
    the one before, if they were declared nested.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle.inference.selection.compare import compare
    >>> d = {"x": np.array([-1.0, 0.0, 0.0, 1.0]), "y": np.array([0.0, 2.0, 2.0, 4.0])}
    >>> line = lambda p, d: -0.5 * (d["y"] - p["a"] - p["b"] * d["x"]) ** 2
    >>> flat, start = jm.fix(line, {"b": 0.0}), {"a": 0.0, "b": 0.0}
    >>> found = compare(jm.fit(flat, start, d), jm.fit(line, start, d), names=["flat", "line"])
    >>> found.best, found.delta.round(6).tolist()  # 2Δℓ − 2 = b² Σx² − 2
    ('line', [6.0, 0.0])
    >>> found.weight.round(6).tolist()  # as exp(−3) to 1
    [0.047426, 0.952574]
    """

    status: Array
    df: Array
    n: Array
    loglik: Array
    aic: Array
    aicc: Array
    bic: Array
    delta: Array
    weight: Array
    lr: tuple[Test, ...]
    names: tuple[str, ...]
    by: str
    notes: tuple[str, ...]

    @property
    def best(self) -> Tree:
        """The name of the model with the smallest criterion; for a batch an array of names."""
        lost = np.all(np.isnan(self.delta), axis=-1)
        place = np.argmin(np.where(np.isnan(self.delta), np.inf, self.delta), axis=-1)
        best = np.where(lost, "", np.array(self.names)[place])
        return str(best) if not best.ndim else best

    def __repr__(self) -> str:
        if is_traced(self.loglik):
            return f"Comparison({', '.join(self.names)})"
        if np.ndim(self.loglik) > 1:
            return _batch_table(self)
        return _table(self)

    __str__ = __repr__


@with_keyword_hints
def compare(
    *fits: Fit, names: Sequence[str] | None = None, by: str = "aic", nested: bool = False
) -> Comparison:
    """A table of models fitted to the same data: criteria, their differences and weights, and
    likelihood-ratio tests of nested models.

    Args:
        fits: at least two fits of the same data, or batches of the same shape.
        names: of the models; by default numbers from 0.
        by: the criterion behind differences and weights: ``"aic"``, ``"aicc"`` or ``"bic"``.
        nested: whether each model is nested in the next, which the fits cannot show. Each is then
            tested against the one before.

    Returns:
        A ``Comparison``, printed as a table. A model whose log-likelihood is not a supremum has NaN
        and no weight.

    Raises:
        ValueError: for fits of different data, n or weights, whose criteria are not comparable.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.selection.compare import compare
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> gamma = lambda p, d: (
    ...     (p["k"] - 1) * jnp.log(d)
    ...     - p["rate"] * d
    ...     + p["k"] * jnp.log(p["rate"])
    ...     - jm.special.gammaln(p["k"])
    ... )
    >>> start, bounds = {"k": 1.0, "rate": 1.0}, {"k": jm.positive, "rate": jm.positive}
    >>> small = jm.fit(jm.fix(gamma, {"k": 1.0}), start, y, constraints=bounds)
    >>> print(
    ...     compare(
    ...         small,
    ...         jm.fit(gamma, start, y, constraints=bounds),
    ...         names=["exponential", "gamma"],
    ...         nested=True,
    ...     )
    ... )
    exponential has the smallest AIC
    n = 4
    <BLANKLINE>
                 status     df  log-likelihood     AIC    AICc     BIC  delta  weight     LR      p
    exponential  CONVERGED   1          -8.394  18.789  20.789  18.175  0.000   0.547
    gamma        CONVERGED   2          -7.584  19.168  31.168  17.941  0.379   0.453  1.621  0.203
    """
    if len(fits) == 1 and isinstance(fits[0], list | tuple | dict):
        raise TypeError(
            f"compare takes the fits one by one, compare(a, b, names=['a', 'b']); got "
            f"{shown(fits[0])}"
        )
    if len(fits) < 2:
        raise ValueError(f"compare takes at least two fits; got {len(fits)}")
    check_choice("by", by, MODEL_CRITERIA)
    check_flag("nested", nested)
    same_data(fits)
    labels = _labels(names, len(fits))
    xp = namespace(fits[0].loglik)

    def stack(values: Tree) -> Tree:
        return xp.stack([xp.asarray(value) for value in values], axis=-1)

    sound = stack([has_supremum(fit) for fit in fits])
    criteria = {
        name: xp.where(sound, stack([getattr(fit, name) for fit in fits]), xp.nan)
        for name in MODEL_CRITERIA
    }
    delta, weight = _weights(criteria[by])
    lr = (
        tuple(lr_test(small, full) for small, full in zip(fits[:-1], fits[1:], strict=True))
        if nested
        else ()
    )
    df = xp.broadcast_to(xp.asarray([fit.df for fit in fits]), sound.shape)
    status, n, loglik = (
        stack([getattr(fit, leaf) for fit in fits]) for leaf in ("status", "n", "loglik")
    )
    return Comparison(
        status,
        df,
        n,
        loglik,
        **criteria,
        delta=delta,
        weight=weight,
        lr=lr,
        names=labels,
        by=by,
        notes=_notes(fits),
    )


def _labels(names: Sequence[str] | None, number: int) -> tuple[str, ...]:
    """A name for each model."""
    if names is None:
        return tuple(f"model {i}" for i in range(number))
    listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not listed or len(names) != number or len(set(names)) != number:
        raise ValueError(
            f"names must be {number} different strings, one for each fit; got {shown(names)}"
        )
    return tuple(names)


def _weights(criterion: Array) -> tuple[Array, Array]:
    """Differences from the smallest and Akaike weights; NaN models take no part."""
    xp = namespace(criterion)
    known = ~xp.isnan(criterion)
    lowest = xp.min(xp.where(known, criterion, xp.inf), axis=-1, keepdims=True)
    lowest = xp.where(xp.isfinite(lowest), lowest, 0.0)
    delta = criterion - lowest
    share = xp.where(known, xp.exp(-0.5 * xp.where(known, delta, 0.0)), 0.0)
    total = xp.sum(share, axis=-1, keepdims=True)
    return delta, xp.where(known, share / xp.where(total > 0, total, 1.0), xp.nan)


def _notes(fits: Sequence[Fit]) -> tuple[str, ...]:
    remarks = (
        (
            any(fit.mode != "ML" for fit in fits),
            "A penalised fit does not maximise the log-likelihood, so it has no "
            "information criteria.",
        ),
        (
            any(fit.weighting == "sampling" for fit in fits),
            "With sampling weights the weighted sum is not a log-likelihood, so there "
            "are no information criteria.",
        ),
    )
    return tuple(sentence for holds, sentence in remarks if holds)


def _table(comparison: Comparison) -> str:
    """The comparison of one data set: a row for each model."""
    from jaxmle.tables.layout import Grid, Page, text
    from jaxmle.tables.numerals import count

    columns = ("status", "df", "log-likelihood", "AIC", "AICc", "BIC", "delta", "weight")
    header = ("", *columns, *(("LR", "p") if comparison.lr else ()))
    rows = tuple(_row(comparison, i) for i in range(len(comparison.names)))
    title = {"aic": "AIC", "aicc": "AICc", "bic": "BIC"}[comparison.by]
    head = f"no model has an {title}"
    if comparison.best:
        head = f"{comparison.best} has the smallest {title}"
    untested = tuple(
        f"{comparison.names[i + 1]} against {comparison.names[i]}: no p-value: {test.reason}"
        for i, test in enumerate(comparison.lr)
        if int(test.code)
    )
    unsound = tuple(
        f"{name} ended {Status(int(s)).name}: its maximum or its number of parameters is "
        "not known, so it has no information criteria."
        for name, s, v in zip(comparison.names, comparison.status, comparison.aic, strict=True)
        if np.isnan(v) and not comparison.notes
    )
    return text(
        Page(
            head,
            True,
            (("n", count(float(comparison.n[0]))),),
            (Grid(header, rows, words=(0, 1)),),
            (*comparison.notes, *unsound, *untested),
        )
    )


def _row(comparison: Comparison, i: int) -> tuple[str, ...]:
    """The cells of model i."""
    from jaxmle.tables.numerals import fixed, likelihood, p_value

    numbers = (
        comparison.loglik[i],
        comparison.aic[i],
        comparison.aicc[i],
        comparison.bic[i],
        comparison.delta[i],
    )
    cells = (
        comparison.names[i],
        Status(int(comparison.status[i])).name,
        str(int(comparison.df[i])),
        *(likelihood(float(number)) for number in numbers),
        fixed(float(comparison.weight[i]), 3),
    )
    if not comparison.lr:
        return cells
    if i == 0:
        return (*cells, "", "")
    test = comparison.lr[i - 1]
    return (*cells, likelihood(float(test.statistic)), p_value(float(test.pvalue)))


def _batch_table(comparison: Comparison) -> str:
    """How often each model is the best."""
    from jaxmle.tables.layout import Grid, Page, text
    from jaxmle.tables.numerals import fixed

    best = np.asarray(comparison.best).reshape(-1)
    weight = np.nanmean(
        np.where(np.isnan(comparison.weight), 0.0, comparison.weight).reshape(
            -1, len(comparison.names)
        ),
        axis=0,
    )
    rows = tuple(
        (
            name,
            str(int(np.sum(best == name))),
            fixed(100 * float(np.mean(best == name)), 2),
            fixed(float(w), 3),
        )
        for name, w in zip(comparison.names, weight, strict=True)
    )
    return text(
        Page(
            f"{best.size} comparisons of {len(rows)} models by "
            f"{comparison.by.upper().replace('AICC', 'AICc')}",
            True,
            (),
            (Grid(("", "best in", "%", "mean weight"), rows),),
            comparison.notes,
        )
    )
