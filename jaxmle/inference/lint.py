"""``lint``: the usual mistakes in a log-likelihood, looked for one by one and told in a sentence each, with the remedy.

Everything is seen from outside: the likelihood is evaluated near the start, on rows that are permuted, replaced or doubled, on other
values of its response, and on data from its own simulator. The measure of a step is the *row unit* 0.3/√(|∂²ℓ/∂z²|/n): a step on the
free scale z that bends one term by about 0.05, whatever the scale of the columns and however many rows there are.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from jaxmle.fitting.objective import Objective
from jaxmle.inference.mass import Density, change_of_variable, log_mass
from jaxmle.likelihood.anatomy import has, parts_of, roots_of
from jaxmle.likelihood.checks import check_fixed, check_start, check_weights, host_data, host_params
from jaxmle.likelihood.combinators import Fix, Penalize, Pool, Tie, WithResponse
from jaxmle.likelihood.contract import as_tree, data_length, terms_of
from jaxmle.likelihood.host import compiled, precision, to_numpy, tracing
from jaxmle.likelihood.response import Enumeration, Simulation
from jaxmle.parameters.constraints import Interval
from jaxmle.parameters.tree import Chart, layout_of, path_name
from jaxmle.solvers.loop import SETTLED, Point, maximise

Array = Any
Tree = Any

CHECKS = ("finite", "shape", "sum", "rows", "derivatives", "scores", "normalised", "support", "sign", "parameters", "precision")
LEVEL, CONFIRM = 1e-4, 1e-2  # of the test of mean scores, and of its repetition on fresh data: together one sound likelihood in a million
MASS = 1e-5  # what a mass may differ from one: ten times the error asked of the quadrature
ROUGH = 1e-9  # relative noise of a term: float64 leaves 1e-16 to 1e-12, float32 some 3e-8
LOOK, HEAD = 5, 512  # rows whose density is integrated, among the first so many
WIDTH = 100


@dataclass(frozen=True)
class Finding:
    """What one check found: ``passed`` is None where it could not be checked; ``note`` marks something to know of a sound likelihood."""

    check: str
    passed: bool | None
    sentence: str
    evidence: dict[str, Any] = field(default_factory=dict)
    note: bool = False

    @property
    def mark(self) -> str:
        return "–" if self.passed is None else "✗" if not self.passed else "!" if self.note else "✓"


@dataclass(frozen=True)
class LintReport:
    """The findings of ``lint``, in the order of its checks; ``ok`` where no check failed."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return all(finding.passed is not False for finding in self.findings)

    def __getitem__(self, check: str) -> Finding:
        for finding in self.findings:
            if finding.check == check:
                return finding
        raise KeyError(f"no check is called {check!r}; the checks are {', '.join(CHECKS)}")

    def __repr__(self) -> str:
        failed = [finding.check for finding in self.findings if finding.passed is False]
        head = f"lint: {len(failed)} of {len(self.findings)} checks failed ({', '.join(failed)})" if failed else "lint: no mistake found"
        legend = "✓ passed   ✗ failed   ! to know   – not checked"
        return "\n".join([head, *(line for finding in self.findings for line in _lines(finding)), legend])


def _lines(finding: Finding) -> list[str]:
    """One finding as text, its sentence wrapped beside the name of the check."""
    told = textwrap.wrap(finding.sentence, WIDTH - 15)
    return [f"{finding.mark} {finding.check:<12} {told[0]}", *(" " * 15 + line for line in told[1:])]


def lint(
    loglik: Any,
    params0: Tree,
    data: Tree = None,
    sample: Callable[[Array, Tree, Tree], Tree] | None = None,
    *,
    response: str | None = None,
    support: Any = None,
    constraints: Tree = None,
    key: Any = 0,
) -> LintReport:
    """Look for the usual mistakes in a log-likelihood, at the start and near it.

    Args:
        loglik: ``loglik(params, data)``, a declared ``regression``, or any combinator of these.
        params0: start values, inside their constraints.
        data: tree of arrays sharing the leading axis n. A few dozen rows are enough.
        sample: the likelihood's own simulator ``sample(key, params, data) -> data``, called some 64 times; scores must average to zero on it.
        response: name of the leaf of ``data`` that holds the response; not needed where ``data`` is one array.
        support: its values: ``"counts"``, ``"binary"``, ``"real"``, ``"positive"``, ``"unit"``, ``interval(a, b)``, or an array of values. A
            likelihood that carries the law of its response needs neither these nor ``sample``.
        constraints: as for ``fit``.
        key: seed, or a ``jax.random`` key, of the simulations and of the points tried.

    Returns:
        A ``LintReport``: ``ok``, and one ``Finding`` per check. What cannot be checked is said, and why; it is never a pass. A report
        without mistakes proves nothing: it says that none of these was seen.

    Raises:
        ValueError, TypeError: for mistakes in the other arguments, as ``fit`` does; under a trace.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> forgotten = lambda params, data: -0.5 * ((data - params["mu"]) / params["sigma"]) ** 2  # where is -log(sigma)?
    >>> report = jm.lint(forgotten, {"mu": 2.5, "sigma": 2.0}, y, support="real", constraints={"sigma": jm.positive})
    >>> report.ok, [finding.check for finding in report.findings if finding.passed is False]
    (False, ['normalised'])
    """
    if tracing():
        raise ValueError("lint looks at values: call it on the host, outside jit, vmap and grad")
    constraints = getattr(loglik, "constraints", None) if constraints is None else constraints
    tree, start = as_tree(loglik), host_params(params0, np.float64, "params0")
    layout = layout_of(start, constraints)
    check_start(layout, start)
    check_fixed(tree, layout)
    data = host_data(data, np.float64)
    check_weights(tree, data)
    moving = roots_of(tree, layout) == np.arange(layout.p)
    if not np.any(moving):
        raise ValueError("every parameter is fixed: there is nothing to estimate and nothing to check")
    law_sample, law_response, law_support = _law(tree)
    response, support = (response, support) if support is not None else (response or law_response, law_support)
    leaf = _response_leaf(response, support, tree, data)
    with precision(np.float64), np.errstate(all="ignore"):
        chart = Chart(layout, tuple(bool(still) for still in ~moving))
        data = jax.tree.map(jnp.asarray, data)
        probe = _prepare(tree, chart, np.asarray(layout.ravel(start)), data, sample or law_sample, leaf, support, key)
        return LintReport(tuple(_findings(probe)))


# ---------------------------------------------------------------- what the checks look at


class _Member(NamedTuple):
    """One likelihood below weights, priors and pools, with its own data."""

    loglik: Any
    data: Tree
    terms: Callable[[np.ndarray, Tree], np.ndarray]  # of x (p,)


@dataclass(frozen=True)
class _Probe:
    """The likelihood as the checks see it: functions of the free scale z (k,), and a few points."""

    chart: Chart
    base: np.ndarray
    data: Tree
    whole: Callable[[np.ndarray, Tree], Point]  # with its prior
    bare: Callable[[np.ndarray, Tree], Point]  # without it
    members: tuple[_Member, ...]
    sample: Any
    leaf: int | None  # which leaf of data is the response
    support: Any
    key: Array
    rng: np.random.Generator
    z: np.ndarray
    trouble: str = ""  # why it cannot be differentiated
    n: int = 1
    unit: np.ndarray = field(default_factory=lambda: np.zeros(0))  # the row unit of each coordinate
    near: tuple[np.ndarray, ...] = ()
    generic: tuple[np.ndarray, ...] = ()  # those of them at which everything is finite
    noise: float = 0.0  # of the worst term, relative to 1 + |term|

    def x(self, z: np.ndarray) -> np.ndarray:
        return np.asarray(self.chart.to_user(z, self.base))

    def rows(self, z: np.ndarray) -> list[np.ndarray]:
        """The terms of each member, (n,) or ()."""
        return [member.terms(self.x(z), member.data) for member in self.members]

    def place(self, k: int, row: int) -> str:
        return f"row {row}" if len(self.members) == 1 else f"row {row} of member {k}"

    def names(self, j: int) -> str:
        """The printed entries that free coordinate j moves."""
        return ", ".join(np.array(self.chart.layout.names)[self.chart.incidence[:, j]][:3])


def _law(loglik: Any) -> tuple[Any, str | None, Any]:
    """Simulator, response and support, where the likelihood carries the law of its response."""
    while not isinstance(loglik, Pool | WithResponse) and parts_of(loglik):
        loglik = parts_of(loglik)[0]
    law = getattr(loglik, "law", getattr(loglik, "response", None))
    if isinstance(law, Enumeration):
        return None, law.leaf, np.asarray(law.values)
    return (law.sampler if isinstance(law, Simulation) else None), None, None


SUPPORTS: dict[str, Any] = {
    "counts": "counts",
    "binary": np.array([0.0, 1.0]),
    "real": Interval(),
    "positive": Interval(0.0, np.inf),
    "unit": Interval(0.0, 1.0),
}


def _response_leaf(response: str | None, support: Any, tree: Any, data: Tree) -> int | None:
    """The position of the response among the leaves of data; None where none is named."""
    if response is None and support is None:
        return None
    if support is None:
        raise ValueError(f"response={response!r} needs its support: {', '.join(map(repr, SUPPORTS))}, interval(a, b) or an array of values")
    if isinstance(support, str) and support not in SUPPORTS:
        raise ValueError(f"support must be one of {', '.join(map(repr, SUPPORTS))}, interval(a, b) or an array of values; got {support!r}")
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(data)]
    if has(tree, Pool):
        return None
    if response is None and len(names) == 1:
        return 0
    if response not in names:
        raise ValueError(f"response must name a leaf of data, one of {names}; got {response!r}")
    return names.index(response)


def _members(loglik: Any, data: Tree) -> list[tuple[Any, Tree]]:
    """Each likelihood with its data: fix and tie stay above it; weights, priors and pools are taken off."""
    if isinstance(loglik, Pool):
        return [found for member, part in zip(loglik.members, data, strict=True) for found in _members(member, part)]
    if isinstance(loglik, Fix | Tie):
        return [(replace(loglik, loglik=member), part) for member, part in _members(loglik.loglik, data)]
    return _members(loglik.loglik, data) if parts_of(loglik) else [(loglik, data)]


def _without_prior(loglik: Any) -> Any:
    if isinstance(loglik, Penalize):
        return _without_prior(loglik.loglik)
    if isinstance(loglik, Pool):
        return Pool(tuple(map(_without_prior, loglik.members)))
    return replace(loglik, loglik=_without_prior(loglik.loglik)) if parts_of(loglik) else loglik


def _prepare(tree: Any, chart: Chart, base: np.ndarray, data: Tree, sample: Any, leaf: int | None, support: Any, key: Any) -> _Probe:
    layout = chart.layout

    def terms(member: Any) -> Callable[[np.ndarray, Tree], np.ndarray]:
        piece = compiled(member, ("lint terms", layout), lambda ll: lambda x, data: terms_of(ll, layout.unravel(x), data))
        return lambda x, data: np.asarray(piece(x, data))

    def second_order(loglik: Any) -> Callable[[np.ndarray, Tree], Point]:
        piece = compiled(loglik, ("lint point", chart), lambda ll: lambda z, base, data: Objective(ll, chart, base, data)(z))
        return lambda z, data: to_numpy(piece(z, base, data))

    whole = second_order(tree)
    bare = second_order(_without_prior(tree)) if has(tree, Penalize) else whole
    members = tuple(_Member(member, part, terms(member)) for member, part in _members(tree, data))
    key = jax.random.key(int(key)) if isinstance(key, int | np.integer) else key
    raw = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    rng = np.random.default_rng(np.asarray(raw).ravel().tolist())
    support = SUPPORTS[support] if isinstance(support, str) else support
    return _Probe(chart, base, data, whole, bare, members, sample, leaf, support, key, rng, np.asarray(chart.to_free(base)))


def _with_points(probe: _Probe) -> _Probe:
    """The probe with its row unit, two pairs of points about the start (each coordinate 0.7 to 1 row unit away), and its noise."""
    z = probe.z
    n = sum(data_length(member.data) or terms.size for member, terms in zip(probe.members, probe.rows(z), strict=True))
    try:
        first, trouble = probe.whole(z, probe.data), ""
        probe.bare(z, probe.data)
    except (TypeError, ValueError, NotImplementedError) as error:
        first, trouble = None, _first_line(error)
    unit = 0.1 * np.where(z == 0, 1.0, np.abs(z)) if first is None else _row_unit(z, probe.base, first, n)
    moves = [unit * probe.rng.choice([-1.0, 1.0], z.size) * probe.rng.uniform(0.7, 1.0, z.size) for _ in range(2)]
    near = tuple(z + sign * move for move in moves for sign in (1.0, -1.0))
    found = [at for at in near if all(np.all(np.isfinite(terms)) for terms in probe.rows(at))]
    if not trouble:
        found = [at for at in found if _is_finite(probe.whole(at, probe.data))]
    probe = replace(probe, trouble=trouble, n=n, unit=unit, near=near, generic=tuple(found or [z]))
    return replace(probe, noise=min(_roughness(probe, at) for at in probe.generic[:3]))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160]}"


def _is_finite(point: Point) -> bool:
    return bool(np.isfinite(point.value) and np.all(np.isfinite(point.score)) and np.all(np.isfinite(point.hessian)))


def _row_unit(z: np.ndarray, x: np.ndarray, point: Point, n: int) -> np.ndarray:
    """0.3/√(|∂²ℓ/∂z²|/n) or 0.3/|mean score|, the smaller; no printed entry other than zero moves by more than 30 %, so that a scale
    without a constraint stays positive."""
    bend = np.maximum(np.abs(np.diagonal(point.hessian)), point.score**2 / n)
    bent = np.isfinite(bend) & (bend > 0)
    unit = np.where(bent, 0.3 / np.sqrt(np.where(bent, bend, 1.0) / n), 0.1)
    slope = np.abs(point.aux.jacobian)
    felt = (slope > 0) & (x[:, None] != 0)
    room = np.where(felt, 0.3 * np.abs(x)[:, None] / np.where(slope > 0, slope, 1.0), np.inf).min(axis=0)
    return np.minimum(unit, np.minimum(room, 1.0))


def _roughness(probe: _Probe, z: np.ndarray) -> float:
    """Rounding noise of the worst term, relative to 1 + |term|.

    Fourth differences of a smooth function at steps h vanish as h⁴; of independent noise their root mean square is √70 times the noise's.
    """
    steps = [probe.rows(z + 1e-4 * step * probe.unit) for step in range(-4, 5)]
    worst = 0.0
    for member in zip(*steps, strict=True):
        terms = np.stack(member).astype(float)
        rough = np.sqrt(np.mean(np.diff(terms, n=4, axis=0) ** 2, axis=0) / 70) / (1 + np.abs(terms[4]))
        worst = max(worst, float(np.max(np.where(np.isfinite(rough), rough, 0.0))))
    return worst


# ---------------------------------------------------------------- the checks in their order


def _findings(probe: _Probe) -> list[Finding]:
    found = [_shape(probe)]
    if found[0].passed is False:
        return _filled(found, "not checked: the shape comes first")
    probe = _with_points(probe)
    found.append(_finite(probe))
    if found[1].evidence.get("at") == "the start":
        return _filled(found, "not checked: the log-likelihood must first be finite at the start")
    total = _over_members(probe, _sum)
    draws = _simulate(probe) if probe.sample is not None and not probe.trouble else None
    scores = _scores(probe, draws)
    if scores.passed is False and _scores(probe, _simulate(probe, 1)).evidence.get("p", 0.0) > CONFIRM:
        scores = replace(scores, passed=True, sentence="scores average to zero on simulated data, seen on a second set")
    rows = _over_members(probe, _rows)
    mass = _normalised(probe, total, rows, scores)
    found += [
        *(total, rows, _derivatives(probe), scores, mass),
        *(_support(probe, draws, mass), _sign(probe, draws, mass), _parameters(probe), _precision(probe)),
    ]
    return _filled(found, "not checked")


def _filled(found: list[Finding], reason: str) -> list[Finding]:
    """One finding for every check, in order."""
    known = {finding.check: finding for finding in found}
    return [known.get(check, Finding(check, None, reason)) for check in CHECKS]


def _over_members(probe: _Probe, check: Callable[[_Probe, _Member], Finding]) -> Finding:
    """The finding of the member in which most is wrong."""
    found = [check(probe, member) for member in probe.members]
    worst = min(range(len(found)), key=lambda k: (found[k].passed is not False, found[k].passed is not None, not found[k].note))
    told = found[worst]
    return told if len(found) == 1 else replace(told, sentence=f"member {worst}: {told.sentence}", evidence=told.evidence | {"member": worst})


def _shape(probe: _Probe) -> Finding:
    """One term per observation, or one scalar."""
    try:
        shapes = [terms.shape for terms in probe.rows(probe.z)]
    except (TypeError, ValueError) as error:
        told = " ".join(str(error).split()).split(" The error occurred")[0].split(" For more information")[0][:400]
        hint = " Use jnp.where or jax.lax.cond instead of Python's if, int or float." if isinstance(error, jax.errors.ConcretizationTypeError) else ""
        return Finding("shape", False, f"it cannot be evaluated: {told}{hint}", {"error": type(error).__name__})
    if () in shapes:
        said = "it returns one scalar: right for dependent rows, but then rows have no scores and cannot be weighted, clustered or resampled"
        return Finding("shape", True, said, {"shapes": shapes}, note=True)
    return Finding("shape", True, "one term per observation", {"shapes": shapes})


def _finite(probe: _Probe) -> Finding:
    """Terms, score and Hessian are numbers, at the start and near it. Terms of −inf near the start are the business of ``support``."""
    for number, z in enumerate((probe.z, *probe.near)):
        at = "a point near the start" if number else "the start"
        for k, terms in enumerate(probe.rows(z)):
            bad = ~np.isfinite(terms) if not number else np.isnan(terms) | (terms == np.inf)
            if np.any(bad):
                row = int(np.flatnonzero(np.atleast_1d(bad))[0])
                value = float(np.atleast_1d(terms)[row])
                what = f"the term of {probe.place(k, row)}" if terms.ndim else "the log-likelihood"
                remedy = "give a constraint or a start at which the model is defined" if number else "look at that row, and at logs and roots there"
                return Finding("finite", False, f"{what} is {value} at {at}: {remedy}", {"at": at, "row": row, "params": probe.x(z)})
        if not probe.trouble and all(np.all(np.isfinite(terms)) for terms in probe.rows(z)):
            point = probe.whole(z, probe.data)
            for what, part in (("score", point.score), ("Hessian", np.diagonal(point.hessian))):
                if not np.all(np.isfinite(part)):
                    name = probe.names(int(np.flatnonzero(~np.isfinite(part))[0]))
                    said = f"the value is finite but the {what} in {name} is not, at {at}: where() differentiates both branches, so make the branch not taken safe too"
                    return Finding("finite", False, said, {"near": at, "parameter": name, "params": probe.x(z)})
    return Finding("finite", True, f"value, score and Hessian are finite at the start and at {len(probe.near)} points near it")


def _twice(data: Tree) -> Tree:
    return jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), data)


def _sum(probe: _Probe, member: _Member) -> Finding:
    """Every row twice: a sum doubles, a mean stays, a sum over (n, n) quadruples; and the terms of the first copy stay."""
    n, x = data_length(member.data), probe.x(probe.generic[0])
    if n is None:
        return Finding("sum", None, "not checked: the rows are closed over; pass them as data")
    once = member.terms(x, member.data)
    try:
        doubled = member.terms(x, _twice(member.data))
    except (TypeError, ValueError):
        return Finding("sum", None, "not checked: it does not take a data set of another length, so an array is closed over")
    doubled = doubled if once.ndim == 0 else doubled[:n]
    close = 1e-8 + 100 * probe.noise
    fits = lambda factor: bool(np.all(np.abs(doubled - factor * once) <= close * (1 + np.abs(once))))  # noqa: E731
    ratio = float(np.sum(doubled) / np.sum(once))
    told = {"ratio": ratio}
    if once.ndim:
        if fits(0.5) and not fits(1.0):
            return Finding("sum", False, "its terms are divided by the number of rows: return the terms themselves, or every standard error is √n too large", told)
        said = "terms do not depend on how many rows there are" if fits(1.0) else "not decidable: terms depend on other rows"
        return Finding("sum", fits(1.0) or None, said, told)
    if fits(2.0) and fits(1.0):
        return Finding("sum", None, "not decidable: the log-likelihood is zero", told)
    if fits(2.0):
        return Finding("sum", True, "the scalar is a sum over rows: it doubles when every row is given twice. Return its terms instead", told, note=True)
    if fits(1.0):
        return Finding("sum", False, "the scalar is a mean over rows: return the sum, or better the terms; standard errors and AIC of a mean are wrong", told)
    if fits(4.0):
        said = "the scalar is a sum over n × n pairs of rows: a column of shape (n, 1) against a vector (n,) broadcasts; flatten the column"
        return Finding("sum", False, said, told)
    said = f"not decidable: giving every row twice multiplies the scalar by {ratio:.4g}, as for dependent rows, a prior inside or a closed-over n"
    return Finding("sum", None, said, told)


def _rows(probe: _Probe, member: _Member) -> Finding:
    """Term i looks at row i alone; or at some other rows, as in a series; or at all of them."""
    n, x = data_length(member.data), probe.x(probe.generic[0])
    terms = member.terms(x, member.data)
    if terms.ndim == 0 or n is None or n < 4:
        return Finding("rows", None, "not checked: a scalar has no terms" if terms.ndim == 0 else "not checked: it needs data of four rows or more")
    close = max(1e-9, 100 * probe.noise)
    same = lambda a, b: (a == b) | (np.abs(a - b) <= close * (1 + np.abs(b)))  # noqa: E731
    order = probe.rng.permutation(n)
    moves_along = bool(np.all(same(member.terms(x, jax.tree.map(lambda leaf: leaf[order], member.data)), terms[order])))
    extreme = [int(pick(leaf)) for leaf in jax.tree.leaves(member.data) if leaf.ndim == 1 for pick in (np.argmin, np.argmax)]
    felt = []  # for each replaced row, the other rows whose terms noticed
    for j in np.unique([*np.linspace(1, n - 2, 6).astype(int), *extreme[:12]]):
        other = (j + n // 2) % n
        changed = ~same(member.terms(x, jax.tree.map(lambda leaf, j=j, other=other: leaf.at[j].set(leaf[other]), member.data)), terms)
        changed[j] = False
        felt.append((int(j), changed))
    most = max(felt, key=lambda found: int(found[1].sum()))
    told = {"row": most[0], "felt_by": int(most[1].sum()), "permutes": moves_along}
    # A series feels a replaced row in later terms only, however far.
    if any(changed.sum() >= 0.9 * (n - 1) and changed[:j].any() and changed[j:].any() for j, changed in felt):
        said = (
            f"every term changes when row {most[0]} does: a mean, maximum or other statistic of the whole sample is inside. Compute it "
            "beforehand and pass it as data; only a partial likelihood means this"
        )
        return Finding("rows", False, said, told)
    if told["felt_by"]:
        said = "terms look at other rows, as in a series: rows cannot be resampled, weighted or permuted singly; use a block bootstrap or HAC errors"
        return Finding("rows", True, said, told, note=True)
    if not moves_along:
        said = "terms depend on the position of their row: an array of one entry per row is closed over. Pass it in data, or rows cannot be resampled"
        return Finding("rows", True, said, told, note=True)
    return Finding("rows", True, "each term depends on its own row only", told)


# ---------------------------------------------------------------- derivatives


def _slopes(probe: _Probe, z: np.ndarray, j: int, h: float) -> tuple[Any, Any, Any, Any]:
    """Central differences of ℓ and of the score in coordinate j, by Richardson, each with the change from its own last refinement."""
    step = np.zeros_like(z)
    step[j] = h
    ends = [(probe.whole(z + scale * step, probe.data), probe.whole(z - scale * step, probe.data)) for scale in (1.0, 0.5)]
    out = []
    for part in ("value", "score"):
        coarse, fine = ((getattr(up, part) - getattr(down, part)) / (2 * scale * h) for (up, down), scale in zip(ends, (1.0, 0.5), strict=True))
        best = (4 * fine - coarse) / 3
        out += [best, np.abs(best - fine)]
    return out[0], out[1], out[2], out[3]


def _derivatives(probe: _Probe) -> Finding:
    """Score and Hessian against central differences, in row units, at two points: a kink that lies within one step is not at both."""
    if probe.trouble:
        said = f"it cannot be differentiated twice ({probe.trouble}): use jax functions, and jax.custom_jvp for rules of your own"
        return Finding("derivatives", False, said, {"error": probe.trouble})
    points = [z for z in probe.generic if _is_finite(probe.whole(z, probe.data))][:2]
    if not points:
        return Finding("derivatives", None, "not checked: the score or the Hessian is not finite")
    k, unit = probe.z.size, probe.unit
    columns = np.arange(k) if k <= 30 else np.sort(probe.rng.choice(k, 30, replace=False))
    excess = np.full((len(points), k, 2), 0.0)  # how many times its tolerance each error is
    worst: dict[str, Any] = {}
    for at, z in enumerate(points):
        point = probe.whole(z, probe.data)
        grain = 1e5 * (probe.noise + 1e-15) * (probe.n + float(point.absolute))  # 100 times the noise, over the step of 1e-3 row units
        for j in columns:
            slope, slope_error, bend, bend_error = _slopes(probe, z, int(j), 1e-3 * unit[j])
            off = abs(slope - point.score[j]) * unit[j]
            allowed = slope_error * unit[j] + grain + 1e-7 * (abs(point.score[j]) * unit[j] + probe.n)
            curve = np.abs(bend - point.hessian[:, j]) * unit[j] * unit
            room = bend_error * unit[j] * unit + grain + 1e-6 * (np.abs(point.hessian[:, j]) * unit[j] * unit + probe.n)
            excess[at, j] = off / allowed, np.max(curve / room)
            i = int(np.argmax(curve / room))
            if off > allowed:
                worst = {"quantity": "score", "parameter": probe.names(int(j)), "given": float(point.score[j]), "differences": float(slope)}
            elif curve[i] > room[i] and not worst:
                names = f"{probe.names(i)} and {probe.names(int(j))}"
                worst = {"quantity": "Hessian", "parameter": names, "given": float(point.hessian[i, j]), "differences": float(bend[i])}
    if not np.any(np.all(excess > 1, axis=0)):
        return Finding("derivatives", True, "score and Hessian agree with finite differences", {"largest": float(excess.max())})
    said = (
        f"the {worst['quantity']} in {worst['parameter']} is {worst['given']:.6g}, finite differences give {worst['differences']:.6g} (free scale): "
        "look for stop_gradient, a custom rule, a cast to integers, or a special function without that derivative"
    )
    return Finding("derivatives", False, said, worst)


def _parameters(probe: _Probe) -> Finding:
    """No coordinate has a score of exactly zero everywhere."""
    if probe.trouble:
        return Finding("parameters", None, "not checked: it cannot be differentiated")
    z, points = probe.z, [probe.bare(z, probe.data) for z in (probe.z, *probe.generic)]

    def moved(j: int, size: float) -> bool:
        """Whether ℓ changes when coordinate j alone moves by ``size``, either way."""
        step = np.where(np.arange(z.size) == j, size * max(1.0, abs(z[j])), 0.0)
        values = [float(probe.bare(z + sign * step, probe.data).value) for sign in (1.0, -1.0)]
        return any(np.isfinite(value) and value != float(points[0].value) for value in values)

    dead = [int(j) for j in np.flatnonzero(np.all([point.score == 0 for point in points], axis=0))]
    moves = [any(moved(j, size) for size in (0.1, 0.3, 1.0)) for j in dead]
    unused = [probe.names(j) for j, does in zip(dead, moves, strict=True) if not does]
    jumps = [probe.names(j) for j, does in zip(dead, moves, strict=True) if does and not moved(j, 1e-6)]
    told = {"unused": unused, "jumps": jumps}
    if unused:
        said = f"{', '.join(unused)} changes nothing on these data: leave it out, hold it with fix, or look for the place where it was to be used"
        return Finding("parameters", False, said, told)
    if jumps:
        said = f"the value moves with {', '.join(jumps)} in jumps, and its score is zero: a cast to integers, round or floor inside; it has no maximum to find"
        return Finding("parameters", False, said, told)
    return Finding("parameters", True, "every parameter has a say", told)


def _precision(probe: _Probe) -> Finding:
    """Terms are smooth down to the grain of float64."""
    told = {"noise": probe.noise}
    kinds = {terms.dtype.name for terms in probe.rows(probe.z)}
    if kinds != {"float64"} or probe.noise > ROUGH:
        said = (
            f"terms are rough at a relative level of {probe.noise:.0e}, where float64 leaves 1e-16 to 1e-12: a cast to float32 inside, an iteration "
            "that stops early, or a difference of large numbers; standard errors lose digits"
        )
        return Finding("precision", False, said, told | {"dtypes": sorted(kinds)})
    return Finding("precision", True, "terms are smooth down to float64", told)


# ---------------------------------------------------------------- its own simulator


class _Draws(NamedTuple):
    """Scores (R, k) and the mean Hessian (k, k) on data simulated at z, and a few of the data sets."""

    z: np.ndarray
    scores: np.ndarray
    hessian: np.ndarray
    kept: list[Tree]


def _simulate(probe: _Probe, fold: int = 0) -> _Draws:
    z = probe.generic[0]
    params = jax.tree.map(jnp.asarray, probe.chart.layout.unravel(probe.x(z)))
    shapes = jax.tree.map(jnp.shape, probe.data)
    points: list[Point] = []
    kept: list[Tree] = []
    for key in jax.random.split(jax.random.fold_in(probe.key, fold), max(64, 4 * z.size + 16)):
        drawn = probe.sample(key, params, probe.data)
        if jax.tree.map(jnp.shape, drawn) != shapes:
            raise ValueError("sample(key, params, data) must return data of the same tree and shapes as the data it is given")
        drawn = jax.tree.map(lambda new, old: jnp.asarray(new).astype(old.dtype), drawn, probe.data)
        points.append(probe.bare(z, drawn))
        kept = [*kept, drawn][:8]
    return _Draws(z, np.stack([point.score for point in points]), np.mean([point.hessian for point in points], axis=0), kept)


def _scores(probe: _Probe, draws: _Draws | None) -> Finding:
    """Hotelling's test of E[score] = 0. With V = Σ s s'/R about zero, T = R m'V⁻¹m has T/R ~ Beta(k/2, (R − k)/2) under normal scores."""
    if draws is None:
        return Finding("scores", None, "not checked: give its simulator, sample(key, params, data) -> data" if not probe.trouble else "not checked: it cannot be differentiated")
    s = draws.scores
    if not np.all(np.isfinite(s)):
        said = "data simulated at some parameters have no finite score at the same parameters: density and simulator disagree"
        return Finding("scores", False, said)
    size = np.sqrt(np.mean(s**2, axis=0))
    s = s[:, size > 0] / size[size > 0]
    mean, (r, k) = s.mean(axis=0), s.shape
    if not k:
        return Finding("scores", None, "not decidable: every score is zero")
    values, vectors = np.linalg.eigh(s.T @ s / r)
    held = values > 1e-10 * values[-1]
    share = min(1.0, float(np.sum((vectors[:, held].T @ mean) ** 2 / values[held])))
    p = float(scipy.special.betainc((r - held.sum()) / 2, held.sum() / 2, 1.0 - share))
    error = np.sqrt(np.maximum(1 - mean**2, 1e-30) / r)
    j = int(np.flatnonzero(size > 0)[np.argmax(np.abs(mean / error))])
    told = {"p": p, "draws": r, "parameter": probe.names(j), "z": float(np.max(np.abs(mean / error)))}
    if p >= LEVEL:
        return Finding("scores", True, f"scores average to zero on {r} simulated data sets (p = {p:.2g})", told)
    said = (
        f"the score in {told['parameter']} does not average to zero on its own simulated data ({told['z']:.1f} Monte-Carlo errors): density and "
        "simulator differ, or a part of the density that depends on a parameter is missing or wrong"
    )
    return Finding("scores", False, said, told)


def _support(probe: _Probe, draws: _Draws | None, mass: Finding) -> Finding:
    """A row that is possible at one point is possible at its neighbours."""
    start = probe.rows(probe.z)
    for z in probe.near:
        for k, terms in enumerate(probe.rows(z)):
            lost = np.atleast_1d(np.isneginf(terms) & np.isfinite(start[k]))
            if np.any(lost):
                return _moving(probe, probe.place(k, int(np.flatnonzero(lost)[0])) if terms.ndim else "the data", z)
    if draws is not None:
        for z in (probe.z, *probe.near):
            if any(np.isneginf(probe.bare(z, drawn).value) and np.isfinite(probe.bare(draws.z, drawn).value) for drawn in draws.kept):
                return _moving(probe, "data simulated near the start", z)
    if mass.evidence.get("moves"):
        return _moving(probe, "some response", probe.near[0])
    return Finding("support", True, "no row becomes impossible near the start")


def _moving(probe: _Probe, what: str, z: np.ndarray) -> Finding:
    said = (
        f"{what} can have density zero close to parameters at which it has not: the support moves with the parameters, where the usual standard errors "
        "do not hold; or a density underflows before its log is taken (use log densities and logsumexp)"
    )
    return Finding("support", False, said, {"params": probe.x(z)})


def _sign(probe: _Probe, draws: _Draws | None, mass: Finding) -> Finding:
    """ℓ rather than −ℓ: by its mass, by the mean Hessian at simulated truth, or by where it has an inner maximum."""
    wrong = "its sign is turned: this is a negative log-likelihood; return +ℓ, jaxmle maximises"
    if mass.evidence.get("turned"):
        return Finding("sign", False, wrong, {"by": "exp(-term) has mass one"})
    if mass.passed:
        return Finding("sign", True, "exp(term) is a density", {"by": "mass"})
    if probe.trouble:
        return Finding("sign", None, "not checked: it cannot be differentiated")
    if draws is not None and np.all(np.isfinite(draws.hessian)):
        low, high = _curvatures(draws.hessian)
        if low >= -0.05 and high > 0.1:
            return Finding("sign", False, wrong, {"by": "the mean Hessian at simulated truth is positive definite"})
        if high <= 0.05 and low < -0.1:
            return Finding("sign", True, "the mean Hessian at simulated truth is negative definite", {"by": "simulation"})
    if _has_inner_maximum(probe, 1.0):
        return Finding("sign", True, "it has a maximum inside", {"by": "climbing"})
    if _has_inner_maximum(probe, -1.0):
        return Finding("sign", False, wrong, {"by": "it has a minimum inside and no maximum"})
    return Finding("sign", None, "not decidable: no inner maximum or minimum was found from this start; response and support, or sample, would tell")


def _curvatures(hessian: np.ndarray) -> tuple[float, float]:
    """The extreme eigenvalues of a Hessian scaled to a unit diagonal."""
    scale = np.sqrt(np.abs(np.diagonal(hessian)))
    scale = np.where(scale > 0, scale, 1.0)
    values = np.linalg.eigvalsh(0.5 * (hessian + hessian.T) / np.outer(scale, scale))
    return float(values[0]), float(values[-1])


def _has_inner_maximum(probe: _Probe, sign: float) -> bool:
    def evaluate(z: np.ndarray) -> Point:
        at = probe.bare(z, probe.data)
        return Point(z, sign * at.value, at.absolute, sign * at.score, sign * at.hessian)

    state = maximise(evaluate, probe.z, 100)
    return int(state.outcome) == SETTLED and bool(np.all(np.isfinite(state.point.hessian))) and _curvatures(state.point.hessian)[1] < -1e-6


# ---------------------------------------------------------------- the mass of the density


Base = Callable[[np.ndarray], Any]  # values of the response to the log of a factor of it alone


def _density(probe: _Probe, member: _Member, leaf: int, scalar: bool, alone: bool) -> tuple[Callable[[np.ndarray], Density], np.ndarray]:
    """For parameters z, the log density of a few rows at other values of their response; and those responses.

    Where terms look at their own row ``alone``, the rows are changed together; else one at a time, and a scalar is given one row only.
    """
    data = member.data
    if (data_length(data) or 0) > HEAD:
        data = jax.tree.map(lambda array: array[:HEAD], data)
        try:
            member.terms(probe.base, data)
        except (TypeError, ValueError):
            data = member.data  # an array of n rows is closed over
    leaves, treedef = jax.tree.flatten(data)
    if isinstance(probe.support, Interval):
        leaves[leaf] = leaves[leaf].astype(float)
    held = np.asarray(leaves[leaf])
    rows = np.unique(np.linspace(0, len(held) - 1, min(LOOK, len(held))).astype(int))

    def together(z: np.ndarray, values: np.ndarray) -> np.ndarray:
        new = held.copy()
        new[rows] = values
        return member.terms(probe.x(z), jax.tree.unflatten(treedef, [*leaves[:leaf], new, *leaves[leaf + 1 :]]))[rows]

    density = together if alone else _one_by_one(probe, member, jax.tree.unflatten(treedef, leaves), leaf, scalar, rows)
    return lambda z: lambda values: density(z, values), held.astype(float)[rows]


def _one_by_one(probe: _Probe, member: _Member, data: Tree, leaf: int, scalar: bool, rows: np.ndarray) -> Callable[..., np.ndarray]:
    """The same by a program of its own, in which each row looked at is changed in a copy of the data."""
    layout = probe.chart.layout

    def make(loglik: Any) -> Callable[..., Array]:
        def one(x: Array, data: Tree, row: Array, value: Array) -> Array:
            leaves, treedef = jax.tree.flatten(data)
            if scalar:
                leaves, row = [jax.lax.dynamic_slice_in_dim(array, row, 1) for array in leaves], 0
            leaves[leaf] = leaves[leaf].at[row].set(value.astype(leaves[leaf].dtype))
            terms = terms_of(loglik, layout.unravel(x), jax.tree.unflatten(treedef, leaves))
            return terms if scalar else terms[row]

        return lambda x, data, rows, values: jax.vmap(one, in_axes=(None, None, 0, 0))(x, data, rows, values)

    piece = compiled(member.loglik, ("lint density", layout, leaf, scalar), make)
    return lambda z, values: np.asarray(piece(probe.x(z), data, rows, np.asarray(values, dtype=float)))


def _normalised(probe: _Probe, total: Finding, rows: Finding, scores: Finding) -> Finding:
    """Σ or ∫ of exp(term) over the response is one, at two points."""
    if probe.leaf is None:
        why = "name the response and its support" if len(probe.members) == 1 else "lint the members of a pool one by one"
        return Finding("normalised", None, f"not checked: {why}")
    member = probe.members[0]
    scalar = member.terms(probe.base, member.data).ndim == 0
    if scalar and not total.passed:
        return Finding("normalised", None, "not checked: the density of one row cannot be read from a scalar that is no sum")
    at, observed = _density(probe, member, probe.leaf, scalar, bool(rows.passed) and not rows.note)
    shape = observed.shape[1:]
    if shape != (() if isinstance(probe.support, str | Interval) else np.shape(probe.support)[1:]):
        return Finding("normalised", None, f"not checked: one response has shape {shape}, which is not the shape of a value of its support")
    wide = _across(probe, at, observed)
    if wide.size and np.all(wide[0] == wide[0, 0]):
        return Finding("normalised", None, "not checked: terms do not change with the response that was named; is another array closed over?")
    points = (probe.z, probe.generic[0])

    def masses(sign: float, base: Base) -> list[tuple[np.ndarray, bool]]:
        """At each point, of the density to the power ``sign`` times a factor of the response alone."""
        return [log_mass(_tilted(at(z), sign, base), probe.support, observed) for z in points]

    found = masses(1.0, lambda v: 0.0)
    logs = np.stack([log for log, _ in found])
    told = {"mass": np.exp(logs), "moves": bool(np.any(np.isneginf(wide[1:]) & (wide[0] > -50)))}  # possible at the start, and not near it
    if all(settled for _, settled in found) and np.all(np.abs(np.expm1(logs)) < MASS):
        return Finding("normalised", True, "exp(term) has mass one over the response", told)
    turned = masses(-1.0, lambda v: 0.0)
    if all(settled and np.all(np.abs(np.expm1(log)) < MASS) for log, settled in turned):
        return Finding("normalised", None, "exp(-term) has mass one, exp(term) has not: see sign", told | {"turned": True})
    for said, base in _left_out(probe.support):
        if all(settled and np.all(np.abs(np.expm1(log)) < MASS) for log, settled in masses(1.0, base)):
            return Finding("normalised", True, f"{said} is left out: estimates and standard errors are right, AIC across models is not", told, note=True)
    if not all(settled for _, settled in found):
        return Finding("normalised", None, "not decidable: the mass over this support has not settled (heavy tail, pole, or values beyond the support)", told)
    return _mass_finding(logs, told, scores)


def _across(probe: _Probe, at: Callable[[np.ndarray], Density], observed: np.ndarray) -> np.ndarray:
    """Terms at the start and at two points near it (3, values, rows), for values all over an interval; nothing for other supports."""
    if not isinstance(probe.support, Interval):
        return np.zeros((3, 0, len(observed)))
    values = change_of_variable(probe.support, observed)[0](np.linspace(-12.0, 12.0, 121))  # closer than the least move of a scale, 0.7 · 0.3
    return np.array([[at(z)(np.full(len(observed), value)) for value in values] for z in (probe.z, *probe.near[:2])])


def _tilted(density: Density, sign: float, base: Base) -> Density:
    return lambda v: sign * density(v) + base(v)


def _mass_finding(logs: np.ndarray, told: dict[str, Any], scores: Finding) -> Finding:
    """What masses (points, rows) that are not all one mean."""
    first, second = np.exp(logs)[:, int(np.argmax(np.abs(logs[0])))]
    whole = np.all(np.abs(np.expm1(logs)) < MASS, axis=0)
    if np.any(whole):
        said = "exp(term) has mass one in some rows and not in others: look at the others, unless they are censored or weighted"
        return Finding("normalised", None, said, told)
    if np.all(np.abs(logs[0] - logs[1]) < MASS):
        said = f"exp(term) has mass {first:.6g} whatever the parameters: a constant is missing; estimates and standard errors are right, AIC across models is not"
        return Finding("normalised", True, said, told, note=True)
    said = f"the mass of exp(term) depends on the parameters ({first:.6g} at the start, {second:.6g} near it)"
    if scores.passed:
        said += ", yet scores average to zero: a factor of the data alone is left out; estimates are right, AIC across models is not"
        return Finding("normalised", True, said, told, note=True)
    said += ": a part of the density that holds a parameter is missing, such as -log(sigma), and estimates are wrong; unless all that is missing is of the data alone"
    return Finding("normalised", False, said, told)


def _left_out(support: Any) -> list[tuple[str, Base]]:
    """Factors of the response alone that are often left out on purpose."""
    if isinstance(support, str):
        return [("-log y!", lambda v: -scipy.special.gammaln(v + 1))]
    if support == SUPPORTS["positive"]:
        return [("-log y", lambda v: -np.log(v))]
    if support == SUPPORTS["unit"]:
        return [("-log y(1 - y)", lambda v: -np.log(v) - np.log1p(-v))]
    return []
