"""Thirty likelihoods as several people would write them: the answer to each in natural parameters, and six ways to write it.

A likelihood is a function of natural parameters and columns of data, elementwise, so that the same lines serve whole columns and one
row of a scan. Answers are closed forms, or optima of the same formula in mpmath at thirty digits; none comes from the library.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
from scipy import special

import jaxmle as jm

N = 20
NONE = np.nan
# What a parameter may be: its constraint (lower, upper), and the map from a free number with its inverse and their derivative.
BOUNDS = {
    "real": (-np.inf, np.inf),
    "positive": (0.0, np.inf),
    "unit": (0.0, 1.0),
    "correlation": (-1.0, 1.0),
}
INTO = {"real": lambda t: t, "positive": jnp.exp, "unit": jax.nn.sigmoid, "correlation": jnp.tanh}
FREE = {"real": lambda q: q, "positive": np.log, "unit": special.logit, "correlation": np.arctanh}
SLOPE = {
    "real": lambda q: 1.0,
    "positive": lambda q: 1 / q,
    "unit": lambda q: 1 / (q * (1 - q)),
    "correlation": lambda q: 1 / (1 - q**2),
}


@dataclass(frozen=True)
class Answer:
    """Status, estimates (NaN: not compared, or none) and covariance (NaN: no standard error) of the natural parameters."""

    status: str
    estimate: np.ndarray
    vcov: np.ndarray


@dataclass(frozen=True)
class Likelihood:
    """``terms(q, d)`` of a tuple of natural parameters and a tuple of columns; ``answer()`` is asked for once."""

    domains: dict
    terms: Any
    data: tuple
    starts: tuple
    answer: Any
    kind: str

    @property
    def names(self):
        return tuple(self.domains)


def answer(status, estimate, variances):
    """An answer whose covariance is diagonal, or given whole."""
    variances = np.asarray(variances, float)
    vcov = np.diag(variances) if variances.ndim == 1 else variances
    return Answer(status, np.asarray(estimate, float), vcov)


def optimum(value, start):
    """Newton's steps with derivatives of mpmath at thirty digits: the maximum and the inverse information."""
    size = len(start)
    with mpmath.workdps(30):
        x = mpmath.matrix([mpmath.mpf(float(v)) for v in start])

        def derivative(*orders):
            return mpmath.diff(lambda *q: value(q), tuple(x), orders)

        for _ in range(30):
            unit = np.eye(size, dtype=int)
            score = mpmath.matrix([derivative(*map(int, e)) for e in unit])
            hessian = mpmath.matrix(size, size)
            for i in range(size):
                for j in range(size):
                    hessian[i, j] = derivative(*map(int, unit[i] + unit[j]))
            step = mpmath.lu_solve(-hessian, score)
            x = x + step
            if mpmath.norm(step) < 1e-13:
                break
        vcov = (-hessian) ** -1
        columns = [[float(vcov[i, j]) for j in range(size)] for i in range(size)]
        return answer("CONVERGED", [float(v) for v in x], columns)


def logs(values):
    return [mpmath.mpf(float(v)) for v in values]


# ---------------------------------------------------------------- the six forms


@dataclass(frozen=True)
class Form:
    """A likelihood as written: ``loglik(params, data)``, a start from a natural one, constraints, and the answer in its terms."""

    loglik: Any
    start: Any
    constraints: Any
    statuses: frozenset
    estimate: np.ndarray
    stderr: np.ndarray
    names: tuple | None  # keys of a dict, None for a bare vector

    def read(self, fit):
        """Estimates and standard errors of a fit in the order of ``estimate``."""
        if self.names is None:
            return np.asarray(fit.x), np.asarray(fit.se)
        values = np.array([float(fit.params[name]) for name in self.names])
        return values, np.array([float(fit.stderr[name]) for name in self.names])


def _constraints(likelihood, units):
    ends = {name: BOUNDS[domain] for name, domain in likelihood.domains.items()}
    scaled = {name: (low * units[name], high * units[name]) for name, (low, high) in ends.items()}
    return {name: jm.interval(*pair) for name, pair in scaled.items() if np.isfinite(pair).any()}


def _named(likelihood, units, scalar=False):
    """A dictionary of the natural parameters, each in a unit of its own, with constraints."""
    names = likelihood.names

    def loglik(params, data):
        terms = likelihood.terms(tuple(params[name] / units[name] for name in names), data)
        return jnp.sum(terms) if scalar else terms

    right = likelihood.answer()
    scale = np.array([units[name] for name in names])
    return Form(
        loglik=loglik,
        start=lambda q: {name: v * units[name] for name, v in zip(names, q, strict=True)},
        constraints=_constraints(likelihood, units) or None,
        statuses=frozenset({right.status}),
        estimate=right.estimate * scale,
        stderr=np.sqrt(np.diag(right.vcov)) * scale,
        names=names,
    )


def declared(likelihood):
    return _named(likelihood, dict.fromkeys(likelihood.names, 1.0))


def scalar(likelihood):
    return _named(likelihood, dict.fromkeys(likelihood.names, 1.0), scalar=True)


def units(likelihood):
    """The first parameter in thousandths, the next in thousands, and so on in turn."""
    turn = {name: 1e3 if i % 2 == 0 else 1e-3 for i, name in enumerate(likelihood.names)}
    return _named(likelihood, turn)


def _bare(likelihood, sum_rows):
    """A bare vector with the transforms inside."""
    domains = list(likelihood.domains.values())

    def natural(theta):
        return tuple(INTO[domain](theta[i]) for i, domain in enumerate(domains))

    right = likelihood.answer()
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = np.array([FREE[d](q) for d, q in zip(domains, right.estimate, strict=True)])
        slopes = np.array([SLOPE[d](q) for d, q in zip(domains, right.estimate, strict=True)])
        stderr = np.sqrt(np.diag(right.vcov)) * slopes
    return Form(
        loglik=lambda theta, data: sum_rows(natural(theta), data),
        start=lambda q: np.array([FREE[d](v) for d, v in zip(domains, q, strict=True)], float),
        constraints=None,
        statuses=frozenset({"SEPARATED" if right.status == "BOUNDARY" else right.status}),
        estimate=estimate,
        stderr=stderr,
        names=None,
    )


def inside(likelihood):
    return _bare(likelihood, likelihood.terms)


def scan(likelihood):
    """Row after row by ``lax.scan``."""

    def sum_rows(q, data):
        def step(total, row):
            return total + likelihood.terms(q, row), None

        return jax.lax.scan(step, jnp.zeros_like(q[0]), data)[0]

    return _bare(likelihood, sum_rows)


# Where a quotient is not natural: of a ratio of rates it is the rate itself, and a mean is no multiple of degrees of freedom.
NOT_A_QUOTIENT = frozenset({"ratio", "light_tails"})


def quotient(likelihood):
    """The first parameter as a multiple of the last, (q₁/q_p, …, q_p) with the constraints that follow; of a single positive parameter
    its square root. None where the last parameter is not positive."""
    names = likelihood.names
    domains = likelihood.domains
    if domains[names[-1]] != "positive" or domains[names[0]] not in ("real", "positive"):
        return None
    single = len(names) == 1

    def natural(params):
        rest = tuple(params[name] for name in names[1:])
        other = params[names[0]] if single else params[names[-1]]
        return (params[names[0]] * other, *rest)

    def start(q):
        first = np.sqrt(q[0]) if single else q[0] / q[-1]
        return {name: float(v) for name, v in zip(names, (first, *q[1:]), strict=True)}

    right = likelihood.answer()
    estimate, stderr = _of_quotient(right, single)
    at_edge = right.status in ("BOUNDARY", "SEPARATED")
    return Form(
        loglik=lambda params, data: likelihood.terms(natural(params), data),
        start=start,
        constraints=_constraints(likelihood, dict.fromkeys(names, 1.0)) or None,
        statuses=frozenset({"BOUNDARY", "SEPARATED"} if at_edge else {right.status}),
        estimate=estimate,
        stderr=stderr,
        names=names,
    )


def _of_quotient(right, single):
    """Estimates and standard errors of (q₁/q_p, q₂, …), by the delta method."""
    q = right.estimate
    with np.errstate(divide="ignore", invalid="ignore"):
        jacobian = np.eye(len(q))
        if single:
            first = np.sqrt(q[0])
            jacobian[0, 0] = 0.5 / first
        else:
            first = q[0] / q[-1]
            jacobian[0, 0] = 1 / q[-1]
            jacobian[0, -1] = -q[0] / q[-1] ** 2
        known = ~np.isnan(np.diag(right.vcov))
        stderr = np.sqrt(np.diag(right.vcov))
        edges = [j for j in range(len(q)) if jacobian[0, j] != 0]
        if edges and known[edges].all():
            row = jacobian[0, edges]
            stderr[0] = np.sqrt(row @ right.vcov[np.ix_(edges, edges)] @ row)
        else:
            stderr[0] = NONE
    estimate = np.concatenate([[first], q[1:]])
    if not np.isfinite(q[-1]) or q[-1] == 0:
        estimate[0] = NONE  # 0 or ∞ with the last: left open
    return estimate, stderr


FORMS = {
    "declared": declared,
    "inside": inside,
    "scalar": scalar,
    "scan": scan,
    "units": units,
    "quotient": quotient,
}

# ---------------------------------------------------------------- the roads


def alone(form, starts, data):
    return [
        jm.fit(form.loglik, form.start(q), data, constraints=form.constraints, progress=False)
        for q in starts
    ]


def _stacked(form, starts):
    return jax.tree.map(lambda *v: np.stack([np.asarray(x) for x in v]), *map(form.start, starts))


def batch(form, starts, data):
    fits = jm.fit_batch(
        form.loglik,
        _stacked(form, starts),
        jax.tree.map(lambda column: np.stack([column] * len(starts)), data),
        constraints=form.constraints,
        params_axis=0,
        progress=False,
    )
    return [fits[i] for i in range(len(starts))]


def traced(form, starts, data):
    def fit(start, data):
        return jm.fit(form.loglik, start, data, constraints=form.constraints)

    with jax.enable_x64(True):
        fits = jax.jit(jax.vmap(fit, in_axes=(0, None)))(_stacked(form, starts), data)
        fits = jax.tree.map(np.asarray, fits)
    return [fits[i] for i in range(len(starts))]


ROADS = {"alone": alone, "batch": batch, "traced": traced}

# ---------------------------------------------------------------- what is wrong with a fit

# Estimates agree to 1e-6 standard errors, standard errors to 1e-5 of themselves (issue 19). An estimate without a standard error, and a
# limit that is approached and not solved for, is compared to 1e-5 of its size.
IN_STDERR = 1e-6
OF_STDERR = 1e-5
OF_SIZE = 1e-5


def fault(form, fit, signs_open=False):
    """ "" where status, estimates and standard errors are right, else what is not. ``signs_open`` lets NaN stand for ±∞, as it does inside
    a trace for the signs over a cone of several dimensions."""
    if fit.verdict.name not in form.statuses:
        return fit.verdict.name
    values, errors = form.read(fit)
    infinite = np.isinf(form.estimate)
    if signs_open:
        infinite = infinite & ~np.isnan(values)
    if not np.array_equal(values[infinite], form.estimate[infinite]):
        return "infinite estimate"
    finite = np.isfinite(form.estimate)
    if np.isinf(values[finite]).any():
        return "false infinity"
    right = form.estimate[finite]
    scale = OF_SIZE * np.maximum(1.0, np.abs(right))
    known = form.stderr[finite] > 0
    scale[known] = IN_STDERR * form.stderr[finite][known]
    if not np.all(np.abs(values[finite] - right) <= scale):
        return "estimate"
    if not np.allclose(errors, form.stderr, rtol=OF_STDERR, atol=0, equal_nan=True):
        return "stderr"
    return ""


@cache
def written(name, form):
    from .many_limits import LIKELIHOODS

    unnatural = form == "quotient" and name in NOT_A_QUOTIENT
    return None if unnatural else FORMS[form](LIKELIHOODS[name])


def faults_of(name, forms=tuple(FORMS), roads=tuple(ROADS), starts=3):
    """The faults of one likelihood: {(form, road): [fault of each start]}, right ones left out."""
    from .many_limits import LIKELIHOODS

    likelihood = LIKELIHOODS[name]
    faults = {}
    for form in forms:
        as_written = written(name, form)
        if as_written is None:
            continue
        for road in roads:
            fits = ROADS[road](as_written, likelihood.starts[:starts], likelihood.data)
            wrong = [fault(as_written, fit, signs_open=road == "traced") for fit in fits]
            if any(wrong):
                faults[form, road] = [entry for entry in wrong if entry]
    return faults


def table(faults):
    """Lines of form, road and how often each fault was seen."""
    lines = []
    for (form, road), entries in faults.items():
        counts = ", ".join(f"{entries.count(entry)} {entry}" for entry in sorted(set(entries)))
        lines.append(f"  {form:9s} {road:7s} {counts}")
    return "\n".join(lines)
