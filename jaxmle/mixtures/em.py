"""``em``: mixtures by the EM algorithm from many starts, ended by Newton steps on the
likelihood itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import jax
import numpy as np

from jaxmle._types import Array, Key, Params, Tree, ndarray
from jaxmle.fitting.fit import fit_with
from jaxmle.fitting.options import Options
from jaxmle.likelihood.checks import check_coding, check_start, host_data, host_params
from jaxmle.likelihood.combinators import Weights, check_weights_given, penalize
from jaxmle.likelihood.contract import data_length
from jaxmle.likelihood.information.covariance import Kind
from jaxmle.mixtures.gaussian_em import Path
from jaxmle.mixtures.gaussian_mixture import GaussianMixture
from jaxmle.mixtures.mixture_of import MixtureOf
from jaxmle.parameters.arguments import check_count, check_number, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import layout_of
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import portable_tree, precision
from jaxmle.runtime.jax_state import host_only
from jaxmle.runtime.keys import seed_of
from jaxmle.runtime.opaque import Opaque
from jaxmle.solvers.status import Status

Model = GaussianMixture | MixtureOf

# rows of a block of the Newton finish, where there are four times as many
ROWS_A_NEWTON_BLOCK = 16_384
MAX_ENDS_TRIED = 3  # ends of EM that Newton may try, the highest first, until one converges
# log-likelihood: ends nearer than this to the highest count as the same, since EM stops short of
# each
MAX_GAP_OF_EQUAL_ENDS = 0.1


MAX_STARTS = 100_000


@dataclass(frozen=True, eq=False, repr=False)
class EM:
    """The result of ``em``: the fitted mixture, and where EM ended from each start.

    Attributes:
        fit: the fit of the mixture after the Newton finish: status, standard errors, witness.
            UNBOUNDED if every start collapsed.
        path: ℓ at each step of the start that ``fit`` came from (with a variance floor, ℓ plus the
            penalty); it does not fall.
        logliks: where EM ended from each start, (s,); NaN if a component collapsed.
        collapsed: for each start the component whose variance went to zero, −1 for none, (s,).
        rows: for each start the rows of the collapsed component.

    >>> import numpy as np
    >>> from jaxmle.mixtures.em import em
    >>> from jaxmle.mixtures.gaussian_mixture import gaussian_mixture
    >>> y = np.concatenate([np.linspace(-1, 1, 20), np.linspace(4, 8, 30)])
    >>> found = em(gaussian_mixture(2), data=y, starts=2)
    >>> found.reached, found.collapsed.tolist(), bool(np.all(np.diff(found.path) > -1e-9))
    (2, [-1, -1], True)
    """

    fit: Fit
    path: ndarray = field(repr=False)
    logliks: ndarray
    collapsed: ndarray
    rows: tuple[ndarray, ...] = field(repr=False)

    @property
    def params(self) -> Tree:
        """The estimates, with components in the order defined by the model."""
        return self.fit.params

    @property
    def reached(self) -> int:
        """The number of starts that ended within 0.1 log-likelihood of the highest."""
        finite = self.logliks[np.isfinite(self.logliks)]
        return int(np.sum(finite > finite.max() - MAX_GAP_OF_EQUAL_ENDS)) if finite.size else 0

    def explain(self) -> str:
        """An explanation of the verdict, and what happened to the starts."""
        sentences = [self.fit.explain()]
        starts = len(self.logliks)
        lost = np.flatnonzero(self.collapsed >= 0)
        for s in lost[:1]:
            rows = self.rows[s]
            listed = ", ".join(map(str, rows[:6])) + (", …" if len(rows) > 6 else "")
            sentences.append(
                f"From start {s}, component {self.collapsed[s]} collapsed on "
                f"row{'s' * (len(rows) != 1)} {listed}, where the likelihood is unbounded."
            )
        if lost.size:
            end = "." if lost.size == starts else "; the estimates are a local maximum."
            sentences.append(
                f"{lost.size} of {starts} starts ended like this{end} A penalty on small "
                "variances prevents this (variance_floor= of a Gaussian mixture)."
            )
        if self.reached:
            sentences.append(f"{self.reached} of {starts} starts reached this log-likelihood.")
        return " ".join(sentences)

    def __repr__(self) -> str:
        return f"{self.fit!r}\n{self.explain()}"


@with_keyword_hints
def em(
    model: Model,
    start: Tree = None,
    data: Tree = None,
    *,
    starts: int = 10,
    key: Key = 0,
    weights: Weights | None = None,
    variance_floor: float = 0.0,
    tolerance: float = 1e-3,
    max_steps: int = 500,
    newton_steps: int = 200,
    vcov: Kind | None = "auto",
) -> EM:
    """Fit a mixture by EM, from one start or many, and finish with Newton steps.

    The E-step computes the responsibilities r_ij = w_j f_j(y_i)/Σ_l w_l f_l(y_i), the M-step
    maximises Σ r_ij log w_j f_j(y_i), in closed form or by weighted fits. ℓ never falls, apart from
    rounding. EM stops when the geometric decrease of its gains predicts that less than
    ``tolerance`` is left. ``jaxmle.fit`` then continues from there, so status and standard errors
    (from the observed information) are those of any other fit.

    Components are sorted, so that labels do not depend on the start: Gaussian components by the
    first coordinate of their mean, then the second, and so on; others by weight, the largest first.
    The likelihood of a Gaussian mixture with free variances is unbounded if a component covers too
    few rows: a start that ends there is dropped and reported, and the estimate is the highest of
    the local maxima.

    Args:
        model: ``gaussian_mixture(…)`` or ``mixture_of(…)``.
        start: parameters to start from, a list of these, or None to draw ``starts`` of them: by
            k-means++ for observations in one array, otherwise from random subsets of the rows.
        data: the observations; a tree of arrays that share the leading axis n.
        starts: how many starts to draw.
        key: the seed of the draws, an integer or a jax key.
        weights: ``frequency(w)`` or ``sampling(w)``, w (n,).
        variance_floor: strength a of the penalty −a Σ_j {log det Σ_j + tr(S Σ_j⁻¹)}, S the
            covariance of all rows. The fit is then a MAP fit, and its ``mode`` says so. Only for
            Gaussian mixtures.
        tolerance: the gain in log-likelihood that EM may leave to Newton; 0 to run ``max_steps``.
        max_steps: of EM.
        newton_steps: the largest number of evaluations of the finish; 0 for a verdict on the end of
            EM as it is.
        vcov: as in ``fit``.

    Returns:
        An ``EM``.

    Raises:
        ValueError, TypeError: for mistakes visible in shapes and types, NaN in the data, or a start
            outside its bounds.

    Source: Dempster, Laird & Rubin (1977), JRSS B 39, 1–38; McLachlan & Peel (2000), Finite Mixture
    Models, chapters 2 and 3.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle.mixtures.em import em
    >>> from jaxmle.mixtures.gaussian_mixture import gaussian_mixture
    >>> y = np.concatenate([np.linspace(-1, 1, 20), np.linspace(4, 8, 30)])
    >>> found = em(gaussian_mixture(2), data=y, starts=2)
    >>> (
    ...     bool(found.fit.converged),
    ...     found.params["loc"].round(3).ravel().tolist(),
    ...     found.params["weights"].round(3).tolist(),
    ... )
    (True, [0.0, 6.0], [0.4, 0.6])
    """
    _check(model, starts, key, weights, variance_floor, tolerance, max_steps, newton_steps)
    data = host_data(data, np.float64)
    check_coding(model.loglik, data)
    n = data_length(data)
    w = None if weights is None else _checked_weights(weights, n)
    with precision(np.float64), np.errstate(all="ignore"):
        if start is None:
            first = model.starts(data, starts, np.random.default_rng(seed_of(key)))
        else:
            first = start if isinstance(start, list) and start else [start]
        first = [_checked_start(model, params, data) for params in first]
        path = model.run_em(first, data, w, float(variance_floor), float(tolerance), max_steps)
    loglik = model.loglik
    if variance_floor:
        floor = model.floor(data, variance_floor, w)  # type: ignore[union-attr]
        loglik = penalize(model.loglik, floor)
    blocks = ROWS_A_NEWTON_BLOCK if n is not None and n > 4 * ROWS_A_NEWTON_BLOCK else None
    options = Options(constraints=model.constraints, weights=weights, vcov=vcov, block_rows=blocks)
    return _finished(
        model,
        path,
        data,
        lambda params, steps: fit_with(loglik, params, data, replace(options, max_steps=steps)),
        newton_steps,
    )


def _check(
    model: object,
    starts: object,
    key: Key,
    weights: object,
    variance_floor: object,
    tolerance: object,
    max_steps: object,
    newton_steps: object,
) -> None:
    host_only("em", "; inside a trace, use jaxmle.fit to maximise the likelihood of the mixture")
    if not isinstance(model, Model):
        raise TypeError(
            "em needs a model made by gaussian_mixture(…) or mixture_of(…); got "
            f"{type(model).__name__}"
        )
    check_count("starts", starts, 1, MAX_STARTS)
    seed_of(key)
    check_count("max_steps", max_steps, 1)
    check_count("newton_steps", newton_steps)
    check_number("variance_floor", variance_floor, low=0.0, closed=True)
    check_number("tolerance", tolerance, low=0.0, closed=True)
    if variance_floor and not isinstance(model, GaussianMixture):
        raise ValueError(
            "variance_floor is a penalty on covariance matrices and only for "
            "gaussian_mixture; penalise the components' parameters in a fit of "
            "model.loglik instead"
        )
    if weights is not None:
        check_weights_given(weights)


def _checked_weights(weights: Weights, n: int | None) -> ndarray:
    w = np.asarray(weights.values, float)
    if w.shape != (n,) or not np.all(np.isfinite(w)) or np.any(w < 0) or not np.any(w > 0):
        raise ValueError(
            f"weights must be finite and non-negative, one for each of {n} rows; got "
            f"shape {w.shape}"
        )
    return w


def _checked_start(model: Model, start: Tree, data: Tree) -> Tree:
    params = host_params(start, np.float64, "start")
    if not isinstance(params, dict) or "weights" not in params:
        raise ValueError(
            f"start must be a dictionary of parameters with an entry 'weights'; got {shown(start)}"
        )
    layout = layout_of(params, model.constraints)
    check_start(layout, params)
    if len(params["weights"]) != model.components:
        raise ValueError(
            f"the start has {len(params['weights'])} weights, but the model has "
            f"{model.components} components"
        )
    try:
        shape = jax.eval_shape(_log_joint(model), params, data).shape
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise ValueError(f"the start does not fit the model and the data: {error}") from None
    if len(shape) != 2 or shape[1] != model.components:
        raise ValueError(
            f"the start does not fit the model: {model.components} components, but the "
            f"log densities have shape {shape}"
        )
    return params


def _finished(
    model: Model, path: Path, data: Tree, run_em: Callable[[Params, int], Fit], newton_steps: int
) -> EM:
    """The highest end that Newton confirms; where every start collapsed, the record that says
    so.
    """
    s = np.arange(len(path.params))
    ends = np.where(path.steps > 0, path.logliks[s, np.maximum(path.steps - 1, 0)], np.nan)
    ends = np.where(path.collapsed >= 0, np.nan, ends)
    rows = tuple(
        _rows(model, params, data, int(j))
        for params, j in zip(path.params, path.collapsed, strict=True)
    )
    finite = [int(i) for i in np.argsort(-ends, kind="stable") if np.isfinite(ends[i])]
    if not finite:
        lost = int(np.argmax(path.collapsed >= 0))
        fitted = run_em(path.params[lost], 0)
        component = int(path.collapsed[lost])
        if component >= 0:
            vanishing = model.vanishing(fitted.names, component)
            fitted = _unbounded(fitted, vanishing, rows[lost])
        return EM(fitted, path.logliks[lost][: path.steps[lost]], ends, path.collapsed, rows)
    fits: list[tuple[int, Fit]] = []
    for place in finite[:MAX_ENDS_TRIED]:
        fits.append((place, _in_order(model, run_em, path.params[place], newton_steps)))
        if fits[-1][1].converged or not newton_steps:
            break
    which, fitted = next((pair for pair in fits if pair[1].converged), fits[0])
    return EM(fitted, path.logliks[which][: path.steps[which]], ends, path.collapsed, rows)


def _in_order(
    model: Model, run_em: Callable[[Params, int], Fit], params: Tree, newton_steps: int
) -> Fit:
    """The fit from an end of EM, with components in order; again from there where the finish
    changed the order.
    """
    fitted = run_em(model.ordered(params), newton_steps)
    if not fitted.converged:
        return fitted
    again = model.ordered(fitted.params)
    same = all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(fitted.params), strict=True)
    )
    return fitted if same else run_em(again, newton_steps)


def _log_joint(model: Model) -> Callable[[Tree, Tree], Array]:
    """log w_j f_j(y_i), (n, k), by a copy of what the user gave."""
    return portable_tree(Opaque(model.log_joint)).function


def _rows(model: Model, params: Tree, data: Tree, component: int) -> ndarray:
    """The rows that belong to a collapsing component by more than a half."""
    if component < 0:
        return np.array([], int)
    with precision(np.float64), np.errstate(all="ignore"):
        joint = np.asarray(_log_joint(model)(params, data))
    r = np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))
    return np.flatnonzero(r[:, component] > 0.5)


def _unbounded(fitted: Fit, vanishing: list[int], rows: ndarray) -> Fit:
    """The record of a likelihood without a maximum: no estimate, and the variances that go to
    zero for a direction.
    """

    def nothing(tree: Tree) -> Tree:
        return jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), tree)

    direction = np.zeros(len(fitted.names))
    direction[[i for i in vanishing if fitted.bounds[i][0] == 0]] = -1.0
    none = fitted.witness
    # NumPy's scalars, which are arrays without axes.
    nan: Tree = np.float64(np.nan)
    infinite: Tree = np.float64(np.inf)
    row: Tree = np.int32(rows[0] if rows.size else -1)
    status: Tree = np.int32(Status.UNBOUNDED)
    witness = replace(
        none,
        direction=direction,
        row=row,
        vcov=np.full_like(none.vcov, np.nan),
        gain=infinite,
        distance=nan,
    )
    return replace(
        fitted,
        params=nothing(fitted.params),
        stderr=nothing(fitted.stderr),
        vcov=np.full_like(fitted.vcov, np.nan),
        hessian=np.full_like(fitted.hessian, np.nan),
        score=np.full_like(fitted.score, np.nan),
        decrement=nan,
        loglik=infinite,
        status=status,
        witness=witness,
    )


@with_keyword_hints
def em_steps(
    model: Model, start: Tree, data: Tree, steps: int, *, weights: Weights | None = None
) -> tuple[Tree, ndarray]:
    """A given number of EM steps from one start, without a verdict: the parameters after them, and
    ℓ before each, (steps,).

    The path has fewer entries if a component collapsed.

    Returns:
        The parameters after the last step, in the tree of ``start``, and ℓ before each step,
        (steps,).

    Raises:
        ValueError, TypeError: as ``em`` does.

    >>> import numpy as np
    >>> from jaxmle.mixtures.gaussian_mixture import gaussian_mixture
    >>> two = gaussian_mixture(2, "spherical")
    >>> start = {
    ...     "weights": np.array([0.5, 0.5]),
    ...     "loc": np.array([[0.0], [3.0]]),
    ...     "variance": np.array([1.0, 1.0]),
    ... }
    >>> params, path = em_steps(two, start, np.array([0.0, 1.0, 3.0, 4.0, 5.0]), 20)
    >>> len(path), bool(np.all(np.diff(path) > -1e-12))
    (20, True)
    """
    _check(model, 1, 0, weights, 0.0, 0.0, steps, 0)
    data = host_data(data, np.float64)
    check_coding(model.loglik, data)
    w = None if weights is None else _checked_weights(weights, data_length(data))
    with precision(np.float64), np.errstate(all="ignore"):
        path = model.run_em([_checked_start(model, start, data)], data, w, 0.0, 0.0, steps)
    return path.params[0], path.logliks[0][: path.steps[0]]
