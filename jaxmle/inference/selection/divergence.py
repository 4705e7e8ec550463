"""Entropy, cross-entropy and Kullback–Leibler divergence between families, and from data: each
value with its error and its method.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import NamedParams, Tree
from jaxmle.families.family import Family
from jaxmle.inference.selection.averages import Information, average, log_ratio
from jaxmle.inference.selection.closed_forms import DIVERGENCES, ENTROPIES, closed_form
from jaxmle.inference.selection.laws import (
    check_comparable,
    check_host,
    distribution_of,
    is_pair,
    outside_support,
)
from jaxmle.likelihood.contract import terms_of
from jaxmle.parameters.arguments import check_count, check_seed
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.runtime.compile import precision

DIVERGENCE_DRAWS = 100_000


@with_keyword_hints
def entropy(
    p: tuple[Family, NamedParams], *, draws: int = DIVERGENCE_DRAWS, key: int = 0
) -> Information:
    """The entropy H(p) = −E_p log p(Y), in nats; for a continuous distribution the differential
    entropy.

    Args:
        p: a family and its parameters, ``(normal, {"loc": 0.0, "scale": 1.0})``: a single
            distribution, not one for each row.
        draws, key: number and seed of Monte Carlo draws, used only if there is no other method
            (multivariate distributions other than the normal).

    Returns:
        An ``Information``: in closed form if known; otherwise by quadrature for continuous and by a
        sum for discrete distributions.

    Raises:
        TypeError: for anything but a pair of a family and its parameters.
        ValueError: for parameters that are not finite.

    >>> from jaxmle.families import normal
    >>> found = entropy((normal, {"loc": 3.0, "scale": 2.0}))
    >>> round(found.value, 6), found.method
    (2.112086, 'closed form')
    """
    draws = check_count("draws", draws, 2)
    key = check_seed("key", key)
    law = distribution_of(p, "p")
    closed = ENTROPIES.get(law.family)
    with precision(np.float64), np.errstate(all="ignore"):
        if closed:
            return closed_form(closed(law.values))
        return average(law, lambda y: -law.log_prob(y), (law,), draws, key)


@with_keyword_hints
def cross_entropy(
    p: Tree,
    q: Tree,
    *,
    draws: int = DIVERGENCE_DRAWS,
    key: int = 0,
) -> Information:
    """The cross-entropy H(p, q) = −E_p log q(Y) = H(p) + KL(p ‖ q), in nats.

    Args:
        p: a family and its parameters; or data, with equal weight for each row: then it is −Σ log
            q(y_i)/n, the mean negative log-likelihood.
        q: a family and its parameters; with data also any log-likelihood and its parameters, such
            as ``(loglik, fit.params)``.
        draws, key: as in ``entropy``.

    Returns:
        An ``Information``; inf if q is zero where p is not.

    Raises:
        TypeError: for anything but a pair of a family and its parameters.
        ValueError: for parameters that are not finite, or if one distribution is discrete and the
            other continuous.

    >>> import numpy as np
    >>> from jaxmle.families import normal
    >>> standard = (normal, {"loc": 0.0, "scale": 1.0})
    >>> round(cross_entropy(np.array([-1.0, 1.0]), standard).value, 6)
    1.418939
    """
    draws = check_count("draws", draws, 2)
    key = check_seed("key", key)
    if not is_pair(p):
        return _of_sample(p, q, draws, key)
    first = distribution_of(p, "p")
    second = distribution_of(q, "q")
    check_comparable(first, second)
    with precision(np.float64), np.errstate(all="ignore"):
        if outside_support(first, second):
            return Information(math.inf, 0.0, "support")
        if (
            first.family is second.family
            and first.family in ENTROPIES
            and first.family in DIVERGENCES
        ):
            return closed_form(
                ENTROPIES[first.family](first.values)
                + DIVERGENCES[first.family](first.values, second.values)
            )
        return average(first, lambda y: -second.log_prob(y), (first, second), draws, key)


@with_keyword_hints
def kl_divergence(
    p: tuple[Family, NamedParams],
    q: tuple[Family, NamedParams],
    *,
    draws: int = DIVERGENCE_DRAWS,
    key: int = 0,
) -> Information:
    """The Kullback–Leibler divergence KL(p ‖ q) = E_p log(p(Y)/q(Y)) ≥ 0, in nats; not symmetric.

    A maximum-likelihood estimate in a family that does not contain the truth p converges to the
    member q that is closest in this sense.

    Args:
        p, q: families and their parameters, both discrete or both continuous.
        draws, key: as in ``entropy``.

    Returns:
        An ``Information``; inf if q is zero where p is not, or if its tails are too light for those
        of p.

    Raises:
        TypeError: for anything but a pair of a family and its parameters.
        ValueError: for data, parameters that are not finite, or if one distribution is discrete and
            the other continuous.

    Source: Kullback & Leibler (1951), Annals of Mathematical Statistics 22, 79–86; White (1982),
    Econometrica 50, 1–25.

    >>> from jaxmle.families import exponential
    >>> slow, fast = (exponential, {"rate": 1.0}), (exponential, {"rate": 2.0})
    >>> round(kl_divergence(slow, fast).value, 6), round(kl_divergence(fast, slow).value, 6)
    (0.306853, 0.193147)
    """
    draws = check_count("draws", draws, 2)
    key = check_seed("key", key)
    if not is_pair(p):
        raise ValueError(
            "the divergence from data needs the entropy of their distribution, which is "
            "unknown; cross_entropy(data, q) differs from it by that constant"
        )
    first = distribution_of(p, "p")
    second = distribution_of(q, "q")
    check_comparable(first, second)
    with precision(np.float64), np.errstate(all="ignore"):
        if outside_support(first, second):
            return Information(math.inf, 0.0, "support")
        if first.family is second.family and first.family in DIVERGENCES:
            return closed_form(DIVERGENCES[first.family](first.values, second.values))
        return average(
            first,
            lambda y: log_ratio(first.log_prob(y), second.log_prob(y)),
            (first, second),
            draws,
            key,
        )


def _numbers(data: Tree) -> Tree:
    """Data as arrays of numbers, a list of them as one array."""
    wanted = "p must be a family and its parameters, or numeric data such as an array (n,)"
    try:
        data = np.asarray(data) if isinstance(data, list) else jax.tree.map(np.asarray, data)
    except ValueError:
        raise TypeError(f"{wanted}; got lists of unequal lengths") from None
    leaves = jax.tree.leaves(data, is_leaf=lambda leaf: leaf is None)
    for leaf in leaves or [None]:
        if leaf is None or leaf.dtype.kind not in "fiub":
            kind = "nothing" if leaf is None else f"dtype {leaf.dtype}"
            raise TypeError(f"{wanted}; got {kind}")
    return data


def _of_sample(data: Tree, q: Tree, draws: int, key: int) -> Information:
    del draws, key
    check_host()
    if not is_pair(q):
        raise TypeError(
            f"q must be a family or a log-likelihood, with its parameters; got {type(q).__name__}"
        )
    data = _numbers(data)
    with precision(np.float64), np.errstate(all="ignore"):
        terms = np.asarray(
            terms_of(
                q[0],
                jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, float)), q[1]),
                jax.tree.map(jnp.asarray, data),
            )
        )
    if terms.ndim == 0:
        raise ValueError(
            "the cross-entropy of data needs one log-likelihood term per row; this "
            "log-likelihood returns one scalar"
        )
    if np.any(np.isnan(terms)):
        raise ValueError(
            f"log q is NaN in row {int(np.flatnonzero(np.isnan(terms))[0])} of the data"
        )
    error = (
        float(np.std(terms, ddof=1) / math.sqrt(len(terms)))
        if len(terms) > 1 and np.all(np.isfinite(terms))
        else math.nan
    )
    return Information(float(-np.mean(terms)), float(error), "sample")
