"""The check that exp(term) is a density: its integral over the response, at two points."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import scipy

from jaxmle._types import Array, FunctionTo, Loglik, Tree, ndarray
from jaxmle.inference.linting.mass import Density, change_of_variable, log_mass
from jaxmle.inference.linting.probe import SUPPORTS, MemberInputs, Probe
from jaxmle.inference.linting.report import Finding
from jaxmle.likelihood.contract import data_length, terms_of
from jaxmle.parameters.constraints import Interval
from jaxmle.runtime.compile import compiled

MASS_TOLERANCE = 1e-5  # of an integral from one: ten times the error of the quadrature
# number of rows whose density is integrated, among this many first rows
ROWS_INTEGRATED = 5
ROWS_LOOKED_AT = 512

# From values of the response to the log of a factor that depends only on them.
Base = Callable[[ndarray], Tree]


def _density(
    probe: Probe, member: MemberInputs, leaf: int, scalar: bool, alone: bool
) -> tuple[Callable[[ndarray], Density], ndarray]:
    """For parameters z, the log density of a few rows at other values of their response; and those
    responses.

    If terms depend only on their own row (``alone``), the rows are changed together; otherwise one
    at a time, and a scalar likelihood gets a single row.
    """
    leaves, treedef = jax.tree.flatten(_head(probe, member))
    if isinstance(probe.support, Interval):
        leaves[leaf] = leaves[leaf].astype(float)
    held = np.asarray(leaves[leaf])
    rows = np.unique(np.linspace(0, len(held) - 1, min(ROWS_INTEGRATED, len(held))).astype(int))

    def together(z: ndarray, values: ndarray) -> ndarray:
        new = held.copy()
        new[rows] = values
        return member.terms(
            probe.x(z), jax.tree.unflatten(treedef, [*leaves[:leaf], new, *leaves[leaf + 1 :]])
        )[rows]

    density = (
        together
        if alone
        else _one_by_one(probe, member, jax.tree.unflatten(treedef, leaves), leaf, scalar, rows)
    )
    return lambda z: lambda values: density(z, values), held.astype(float)[rows]


def _head(probe: Probe, member: MemberInputs) -> Tree:
    """The first rows of the data, if they can be evaluated alone."""
    if (data_length(member.data) or 0) <= ROWS_LOOKED_AT:
        return member.data
    head = jax.tree.map(lambda array: array[:ROWS_LOOKED_AT], member.data)
    try:
        member.terms(probe.base, head)
    except (TypeError, ValueError):
        return member.data  # the likelihood closes over an array of n rows
    return head


def _one_by_one(
    probe: Probe, member: MemberInputs, data: Tree, leaf: int, scalar: bool, rows: ndarray
) -> FunctionTo[ndarray]:
    """The log density of a few rows by a program that changes each row in a copy of the data."""
    layout = probe.chart.layout

    def make(loglik: Loglik) -> FunctionTo[Array]:
        def log_density(x: Array, data: Tree, row: Tree, value: Array) -> Array:
            leaves, treedef = jax.tree.flatten(data)
            if scalar:
                leaves = [jax.lax.dynamic_slice_in_dim(array, row, 1) for array in leaves]
                row = 0
            leaves[leaf] = leaves[leaf].at[row].set(value.astype(leaves[leaf].dtype))
            terms = terms_of(loglik, layout.unravel(x), jax.tree.unflatten(treedef, leaves))
            return terms if scalar else terms[row]

        return lambda x, data, rows, values: jax.vmap(log_density, in_axes=(None, None, 0, 0))(
            x, data, rows, values
        )

    piece = compiled(member.loglik, ("lint density", layout, leaf, scalar), make)
    return lambda z, values: np.asarray(
        piece(probe.x(z), data, rows, np.asarray(values, dtype=float))
    )


def check_normalised(probe: Probe, total: Finding, rows: Finding, scores: Finding) -> Finding:
    """Check that the sum or integral of exp(term) over the response is one, at two points."""
    if probe.leaf is None:
        why = (
            "name the response and its support, lint(…, response='y', support='real'); of one "
            "array give only the support"
            if len(probe.members) == 1
            else "check the members of a pool one by one"
        )
        return Finding("normalised", None, f"not checked: {why}")
    member = probe.members[0]
    scalar = member.terms(probe.base, member.data).ndim == 0
    if scalar and not total.passed:
        return Finding(
            "normalised",
            None,
            "not checked: the density of one row cannot be recovered from a scalar that "
            "is not a sum",
        )
    density_at, observed = _density(
        probe, member, probe.leaf, scalar, bool(rows.passed) and not rows.note
    )
    shape = observed.shape[1:]
    if shape != (() if isinstance(probe.support, str | Interval) else np.shape(probe.support)[1:]):
        return Finding(
            "normalised",
            None,
            f"not checked: one response has shape {shape}, which is not the shape of a value of "
            "its support",
        )
    wide = _across(probe, density_at, observed)
    if wide.size and np.all(wide[0] == wide[0, 0]):
        return Finding(
            "normalised",
            None,
            "not checked: terms do not change with the named response; does the "
            "likelihood close over another array?",
        )
    return _mass_verdict(probe, density_at, observed, wide, scores)


def _mass_verdict(
    probe: Probe,
    density_at: Callable[[ndarray], Density],
    observed: ndarray,
    wide: ndarray,
    scores: Finding,
) -> Finding:
    """The finding from the integrals at two points; if they are not one, from the integral of the
    inverted density, of the term itself, and with a factor of the response added.
    """

    def masses(sign: float, base: Base) -> list[tuple[ndarray, bool]]:
        """At each point, of the density to the power ``sign`` times a factor of the response
        alone.
        """
        return [
            log_mass(_tilted(density_at(z), sign, base), probe.support, observed)
            for z in (probe.z, probe.regular_points[0])
        ]

    integrals = masses(1.0, lambda v: 0.0)
    logs = np.stack([log for log, _ in integrals])
    evidence = {
        "mass": np.exp(logs),
        # whether a value is possible at the start, but not near it
        "moves": bool(np.any(np.isneginf(wide[1:]) & (wide[0] > -50))),
    }
    if _are_one(integrals):
        return Finding(
            "normalised", True, "exp(term) integrates to one over the response", evidence
        )
    if _are_one(masses(-1.0, lambda v: 0.0)):
        sentence = "exp(-term) integrates to one, exp(term) does not: see sign"
        return Finding("normalised", None, sentence, evidence | {"turned": True})
    plain = [
        log_mass(_logged(density_at(z)), probe.support, observed)
        for z in (probe.z, probe.regular_points[0])
    ]
    if _are_one(plain):
        sentence = (
            "the term itself integrates to one over the response: it is the density, not "
            "its logarithm; return its jnp.log, or a log density"
        )
        return Finding("normalised", False, sentence, evidence | {"density": True})
    for omitted, base in _left_out(probe.support):
        if _are_one(masses(1.0, base)):
            sentence = (
                f"{omitted} is left out: estimates and standard errors are right, AIC across "
                "models is not"
            )
            return Finding("normalised", True, sentence, evidence, note=True)
    if not all(settled for _, settled in integrals):
        sentence = (
            "undecided: the integral over this support did not converge (heavy tail, "
            "pole, or values outside the support)"
        )
        return Finding("normalised", None, sentence, evidence)
    return _mass_finding(logs, evidence, scores)


def _are_one(masses: list[tuple[ndarray, bool]]) -> bool:
    return all(
        settled and bool(np.all(np.abs(np.expm1(log)) < MASS_TOLERANCE)) for log, settled in masses
    )


def _across(probe: Probe, density_at: Callable[[ndarray], Density], observed: ndarray) -> ndarray:
    """Terms at the start and at two points near it (3, values, rows), for values throughout an
    interval; nothing for other supports.
    """
    if not isinstance(probe.support, Interval):
        return np.zeros((3, 0, len(observed)))
    # Steps of 0.2, less than the smallest change of a scale, 0.7 · 0.3.
    values = change_of_variable(probe.support, observed)[0](np.linspace(-12.0, 12.0, 121))
    return np.array(
        [
            [density_at(z)(np.full(len(observed), value)) for value in values]
            for z in (probe.z, *probe.near[:2])
        ]
    )


def _tilted(density: Density, sign: float, base: Base) -> Density:
    return lambda v: sign * density(v) + base(v)


def _logged(density: Density) -> Density:
    """The log of a density."""

    def log(v: ndarray) -> ndarray:
        with np.errstate(all="ignore"):
            value = density(v)
            return np.where(value > 0, np.log(np.where(value > 0, value, 1.0)), -np.inf)

    return log


def _mass_finding(logs: ndarray, evidence: dict[str, Tree], scores: Finding) -> Finding:
    """The finding if the integrals (points, rows) are not all one."""
    first, second = np.exp(logs)[:, int(np.argmax(np.abs(logs[0])))]
    whole = np.all(np.abs(np.expm1(logs)) < MASS_TOLERANCE, axis=0)
    if np.any(whole):
        sentence = (
            "exp(term) integrates to one in some rows and not in others: check the "
            "others, unless they are censored or weighted"
        )
        return Finding("normalised", None, sentence, evidence)
    if np.all(np.abs(logs[0] - logs[1]) < MASS_TOLERANCE):
        sentence = (
            f"exp(term) integrates to {first:.6g} whatever the parameters: a constant is "
            "missing; estimates and standard errors are right, AIC across models is not"
        )
        return Finding("normalised", True, sentence, evidence, note=True)
    sentence = (
        f"the integral of exp(term) depends on the parameters ({first:.6g} at the start, "
        f"{second:.6g} near it)"
    )
    if scores.passed:
        sentence += (
            ", but the scores average to zero: a factor that depends only on the data is "
            "missing; estimates are right, AIC across models is not"
        )
        return Finding("normalised", True, sentence, evidence, note=True)
    sentence += (
        ": a part of the density that depends on a parameter is missing, such as "
        "-log(sigma), and estimates and standard errors are wrong, unless the missing "
        "part depends only on the data"
    )
    return Finding("normalised", False, sentence, evidence)


def _left_out(support: object) -> list[tuple[str, Base]]:
    """Factors that depend only on the response and are often left out on purpose."""
    if isinstance(support, np.ndarray):
        return []  # a listed support: every factor is visible
    if isinstance(support, str):
        return [("-log y!", lambda v: -scipy.special.gammaln(v + 1))]
    if support == SUPPORTS["positive"]:
        return [("-log y", lambda v: -np.log(v))]
    if support == SUPPORTS["unit"]:
        return [("-log y(1 - y)", lambda v: -np.log(v) - np.log1p(-v))]
    return []
