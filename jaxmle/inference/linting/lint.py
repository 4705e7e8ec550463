"""``lint``: look for the usual mistakes in a log-likelihood one by one, and report each with its
remedy.

The likelihood is treated as a black box: it is evaluated near the start, on rows that are permuted,
replaced or doubled, on other values of its response, and on data from its own simulator. The
measure of a step is the *row unit* 0.3/√(|∂²ℓ/∂z²|/n): a step on the free scale z that changes one
term by about 0.05 through curvature, whatever the scale of the columns and the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Key, Loglik, Tree
from jaxmle.fitting.options import Options, read
from jaxmle.inference.linting.derivatives import check_derivatives, check_parameters
from jaxmle.inference.linting.normalisation import check_normalised
from jaxmle.inference.linting.probe import (
    MemberInputs,
    Probe,
    law_of,
    prepare,
    response_leaf,
    with_points,
)
from jaxmle.inference.linting.report import CHECKS, Finding, LintReport
from jaxmle.inference.linting.simulation import check_scores, check_sign, check_support, simulate
from jaxmle.inference.linting.terms import (
    check_finite,
    check_precision,
    check_rows,
    check_shape,
    check_sum,
)
from jaxmle.parameters.arguments import check_function, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.runtime.compile import precision, tracing
from jaxmle.runtime.keys import typed_key

# level of the test of mean scores on new data; together with the first level, one correct
# likelihood in a million fails both
LEVEL_TO_CONFIRM_SCORE_TEST = 1e-2


@with_keyword_hints
def lint(
    loglik: Loglik,
    params0: Tree,
    data: Tree = None,
    sample: Callable[[jax.Array, Tree, Tree], Tree] | None = None,
    *,
    response: str | None = None,
    support: object = None,
    constraints: Tree = None,
    key: Key = 0,
) -> LintReport:
    """Look for the usual mistakes in a log-likelihood, at the start and near it.

    Args:
        loglik: ``loglik(params, data)``, a declared ``regression``, or any combinator of these.
        params0: start values, inside their constraints.
        data: tree of arrays sharing the leading axis n. A few dozen rows are enough.
        sample: a simulator of the likelihood, ``sample(key, params, data) -> data``, which is
            called about 64 times; scores must average to zero on simulated data. Built-in models
            have one.
        response: name of the leaf of ``data`` that holds the response; not needed if ``data`` is
            one array.
        support: the values of the response: ``"counts"``, ``"binary"``, ``"real"``, ``"positive"``,
            ``"unit"``, ``interval(a, b)``, or an array of values. A likelihood that knows the
            distribution of its response needs neither these nor ``sample``.
        constraints: as for ``fit``.
        key: seed, or a ``jax.random`` key, for the simulations and the test points.

    Returns:
        A ``LintReport``: ``ok``, and one ``Finding`` per check. A check that cannot be made is
        marked as such, with the reason; it never counts as passed. A report without mistakes is not
        a proof: it says only that none was found.

    Raises:
        ValueError, TypeError: for mistakes in the other arguments, as in ``fit``; under a trace.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> forgotten = lambda params, data: (
    ...     -0.5 * ((data - params["mu"]) / params["sigma"]) ** 2
    ... )  # where is -log(sigma)?
    >>> report = jm.lint(
    ...     forgotten,
    ...     {"mu": 2.5, "sigma": 2.0},
    ...     y,
    ...     support="real",
    ...     constraints={"sigma": jm.positive},
    ... )
    >>> report.ok, [finding.check for finding in report.findings if finding.passed is False]
    (False, ['normalised'])
    """
    if tracing():
        raise ValueError("lint needs values: call it outside jit, vmap and grad")
    if sample is not None:
        check_function("sample", sample, "lambda key, params, data: {**data, 'y': …}")
    if response is not None and not isinstance(response, str):
        raise TypeError(f"response must be the name of a leaf of data; got {shown(response)}")
    key = typed_key(key)
    posed = read(loglik, params0, data, Options(constraints=constraints))
    tree = posed.loglik
    law_sample, law_response, law_support = law_of(tree)
    response, support = (
        (response, support) if support is not None else (response or law_response, law_support)
    )
    leaf = response_leaf(response, support, tree, posed.data)
    with precision(np.float64), np.errstate(all="ignore"):
        data = jax.tree.map(jnp.asarray, posed.data)
        probe = prepare(
            tree,
            posed.chart,
            np.asarray(posed.layout.ravel(posed.params)),
            data,
            sample or law_sample or getattr(loglik, "sample", None),
            leaf,
            support,
            key,
        )
        return LintReport(tuple(_findings(probe)))


def _findings(probe: Probe) -> list[Finding]:
    findings = [check_shape(probe)]
    if findings[0].passed is False:
        return _filled(findings, "not checked: correct the shape first")
    probe = with_points(probe)
    findings.append(check_finite(probe))
    if findings[1].evidence.get("at") == "the start":
        return _filled(
            findings, "not checked: the log-likelihood must first be finite at the start"
        )
    total = _over_members(probe, check_sum)
    draws = simulate(probe) if probe.sample is not None and not probe.obstacle else None
    scores = check_scores(probe, draws)
    if (
        scores.passed is False
        and check_scores(probe, simulate(probe, 1)).evidence.get("p", 0.0)
        > LEVEL_TO_CONFIRM_SCORE_TEST
    ):
        scores = replace(
            scores,
            passed=True,
            sentence="scores average to zero on simulated data, confirmed on a second set",
        )
    rows = _over_members(probe, check_rows)
    mass = check_normalised(probe, total, rows, scores)
    findings += [
        *(total, rows, check_derivatives(probe), scores, mass),
        *(
            check_support(probe, draws, mass),
            check_sign(probe, draws, mass),
            check_parameters(probe),
            check_precision(probe),
        ),
    ]
    return _filled(findings, "not checked")


def _filled(findings: list[Finding], reason: str) -> list[Finding]:
    """One finding for every check, in order; ``reason`` for those that were not made."""
    known = {finding.check: finding for finding in findings}
    return [known.get(check, Finding(check, None, reason)) for check in CHECKS]


def _over_members(probe: Probe, check: Callable[[Probe, MemberInputs], Finding]) -> Finding:
    """The worst finding among the members."""
    findings = [check(probe, member) for member in probe.members]
    worst = min(
        range(len(findings)),
        key=lambda k: (
            findings[k].passed is not False,
            findings[k].passed is not None,
            not findings[k].note,
        ),
    )
    finding = findings[worst]
    return (
        finding
        if len(findings) == 1
        else replace(
            finding,
            sentence=f"member {worst}: {finding.sentence}",
            evidence=finding.evidence | {"member": worst},
        )
    )
