"""``calibrate``: whether intervals and tests have their nominal levels on data simulated from the
fitted model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import jax
import numpy as np

from jaxmle._types import Array, Clusters, Function, Key, Loglik, Tree, ndarray
from jaxmle.fitting.options import MAX_STEPS, Options
from jaxmle.inference.again import check_fit, tangent
from jaxmle.inference.refit import Refit, chunks, known, refit_of
from jaxmle.inference.resampling.calibration import Calibration
from jaxmle.inference.resampling.jackknife import inverse_root_of
from jaxmle.inference.resampling.simulator import Sample, Simulator, simulator_of
from jaxmle.likelihood.checks import check_start, host_params
from jaxmle.likelihood.contract import as_tree
from jaxmle.likelihood.evaluate import sums
from jaxmle.likelihood.information.covariance import CLUSTER_KINDS, VCOV_KINDS
from jaxmle.likelihood.structure import roots_of
from jaxmle.parameters.arguments import check_choice, check_count, check_level, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import layout_of
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import compiled, precision
from jaxmle.runtime.keys import typed_key
from jaxmle.runtime.progress import Progress
from jaxmle.solvers.methods import Solver
from jaxmle.solvers.status import Status

Interval = Callable[[Fit], tuple[Array, Array]]

TESTS = ("wald", "lr", "score")


@with_keyword_hints
def calibrate(
    loglik: Loglik,
    fit: Fit,
    data: Tree = None,
    sample: Sample | None = None,
    *,
    key: Key,
    replicates: int = 2000,
    truth: Tree = None,
    level: float = 0.95,
    vcov: str | None = None,
    clusters: Clusters = None,
    intervals: Mapping[str, Interval] | None = None,
    tests: tuple[str, ...] = TESTS,
    constraints: Tree = None,
    params0: Tree = None,
    solver: Solver | None = None,
    max_steps: int = MAX_STEPS,
    progress: bool | None = None,
) -> Calibration:
    """Simulate from the fitted model, refit, and compare the results with the known truth.

    Args:
        loglik, data: those of the fit; leaves that ``sample`` does not change are shared by all
            simulated data sets.
        fit: the result of ``jaxmle.fit``; its estimate is the truth unless ``truth`` is given.
        sample: ``sample(key, params, data)``, which returns data with a new response; built-in
            models have one.
        key: an integer or a jax key. Data set i depends only on the key and on i.
        replicates: R. The Monte Carlo standard error of a coverage of 95 % is 0.22/√R.
        truth: parameters to simulate from instead of the estimate. Every refit starts at the truth.
        level: coverage of the intervals; tests are at 1 − level.
        vcov: kind of covariance of the refits; None for the kind of the fit.
        clusters: labels (n,), if the kind needs them.
        intervals: additional kinds: a dictionary from names to functions that map the batch of
            refits to ends (lower, upper), each (b, p). ``"wald"`` (on the free scale of each entry)
            and ``"wald, user scale"`` are always included.
        tests: tests of the whole true parameter vector: ``"wald"`` (θ̂ − θ)'V⁻¹(θ̂ − θ), ``"lr"``
            2(ℓ(θ̂) − ℓ(θ)), ``"score"`` s'J⁻¹s at the truth with the observed information.
        constraints: those of the fit; may be left out.
        params0: start of the refits if they should not start at the truth.
        solver, max_steps, progress: as in ``fit_batch``.

    Returns:
        A ``Calibration``. Its Cramér–Rao bound is the inverse of the mean observed information at
        the truth.

    Raises:
        ValueError, TypeError: for mistakes visible in shapes and types; for a fit with weights, or
            with an estimate that is infinite or on a bound.

    >>> import jax, numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.resampling.calibrate import calibrate
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, y: jnp.log(params["rate"]) - params["rate"] * y
    >>> sample = lambda key, params, y: jax.random.exponential(key, y.shape) / params["rate"]
    >>> result = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> study = calibrate(exponential, result, y, sample, key=0, replicates=500)
    >>> bool(
    ...     abs(study.bias[0] - (1 / 3) / 3) < 4 * study.bias_error[0]
    ... )  # E[rate] = n/(n − 1) times the truth
    True
    """
    total = check_count("replicates", replicates, 2)
    level = check_level(level)
    key = typed_key(key)
    tests = _checked_tests(tests)
    check_fit("calibrate", fit, alone=True)
    if fit.weighting != "none":
        raise ValueError(
            f"the fit has {fit.weighting} weights, but a simulation makes one response "
            "for each row: repeat the rows and fit without weights"
        )
    if truth is not None:
        fit = _moved_to(fit, truth)
    options = Options(
        constraints=constraints, solver=solver, max_steps=max_steps, progress=progress
    )
    refit = refit_of("calibrate", loglik, fit, data, params0, options)
    if not np.all(np.isfinite(fit.x)) or np.any(fit.witness.bound != 0):
        raise ValueError(
            f"the fit is {fit.verdict.name}: data cannot be simulated at an estimate that "
            "is infinite or on its bound"
        )
    kinds = _checked_intervals(intervals)
    simulate = simulator_of("calibrate", loglik, sample, fit.params, refit.data)
    study = _Study(refit, fit, simulate, _kind(vcov, fit, clusters), clusters, level, kinds, tests)
    return _gathered(
        study,
        key,
        total,
        Progress(total, progress, f"{total:,} simulated data sets", "calibrate"),
    )


def _moved_to(fit: Fit, truth: Tree) -> Fit:
    """The fit as if its estimate were the truth, which must lie inside the bounds."""
    truth = host_params(truth, fit.dtype, "truth")
    if (
        jax.tree.structure(truth) != fit.layout.treedef
        or layout_of(truth).names != layout_of(fit.params).names
    ):
        raise ValueError(
            "truth must be a tree like the parameters of the fit, with the entries "
            f"{', '.join(fit.names[:20])}"
        )
    check_start(fit.layout, truth)
    return replace(
        fit,
        params=truth,
        loglik=np.asarray(np.nan),  # is not that of the fit
        status=np.asarray(int(Status.CONVERGED)),
        witness=replace(fit.witness, bound=np.zeros_like(fit.witness.bound)),
    )


def _checked_tests(tests: object) -> tuple[str, ...]:
    if isinstance(tests, str):
        tests = (tests,)
    if not isinstance(tests, tuple | list):
        raise TypeError(f"tests must be a tuple of {', '.join(TESTS)}; got {shown(tests)}")
    return tuple(check_choice("each of tests", test, TESTS) for test in tests)


def _checked_intervals(intervals: object) -> dict[str, Interval]:
    if intervals is None:
        return {}
    if not isinstance(intervals, Mapping) or not all(
        isinstance(name, str) and callable(kind) for name, kind in intervals.items()
    ):
        raise TypeError(
            "intervals must be a dictionary from names to functions of the batch of "
            "refits, such as {'t': lambda fits: (lower, upper)}"
        )
    return dict(intervals)


def _kind(vcov: str | None, fit: Fit, clusters: Clusters) -> str:
    """The kind of covariance of the refits."""
    kind_of_fit = fit.vcov_kind.split(" ")[0]
    if vcov is not None:
        check_choice("vcov", vcov, VCOV_KINDS)
    kind = vcov if vcov is not None else kind_of_fit if kind_of_fit in VCOV_KINDS else "observed"
    if kind in CLUSTER_KINDS and clusters is None:
        raise ValueError(
            f"the covariance {kind!r} needs clusters=, one label for each row; "
            "vcov='observed' does not"
        )
    return kind


@dataclass(frozen=True)
class _Study:
    """Everything static about a calibration."""

    refit: Refit
    fit: Fit
    simulate: Simulator
    kind: str
    clusters: Clusters
    level: float
    kinds: dict[str, Interval]
    tests: tuple[str, ...]

    def __call__(
        self, key: Array, index: ndarray
    ) -> tuple[Fit, dict[str, ndarray], dict[str, ndarray], ndarray]:
        """One chunk: refits, ends of intervals, test statistics, and the observed information
        at the truth, (b, p, p).
        """
        data = self.simulate(key, index)
        fits = self.refit(data, self.simulate.in_axes, None, self.kind, self.clusters)
        ends: dict[str, Tree] = {
            "wald": fits.interval(self.level),
            "wald, user scale": fits.interval(self.level, "user"),
        }
        for name, kind in self.kinds.items():
            ends[name] = _ends(name, kind(fits), fits)
        value, score, information = at_truth(self.refit.loglik, self.fit, data, self.simulate.fresh)
        return fits, ends, self._statistics(fits, value, score, information), information

    def _statistics(
        self, fits: Fit, value: ndarray, score: ndarray, information: ndarray
    ) -> dict[str, ndarray]:
        moves = tangent(as_tree(self.refit.loglik), self.fit.layout)
        free = moves.places
        t = moves.lift
        tests: dict[str, Callable[[], Tree]] = {
            "wald": lambda: quadratic(
                (fits.x - self.fit.x)[:, free], fits.vcov[:, free][:, :, free]
            ),
            "lr": lambda: 2 * (fits.loglik - value),
            "score": lambda: quadratic(score @ t, t.T @ information @ t),
        }
        return {test: tests[test]() for test in self.tests}


def _ends(name: str, pair: Tree, fits: Fit) -> ndarray:
    low, high = (np.asarray(end, dtype=float) for end in pair)
    if low.shape != fits.x.shape or high.shape != fits.x.shape:
        raise ValueError(
            f"intervals[{name!r}] must return (lower, upper), each of shape {fits.x.shape}; got "
            f"{low.shape} and {high.shape}"
        )
    return np.stack([low, high], axis=-1)


def _gathered(study: _Study, key: Array, total: int, bar: Progress) -> Calibration:
    parts: list[Tree] = []
    information = np.zeros((study.refit.layout.p,) * 2)
    usable = 0
    for index, count in chunks(total, study.simulate.bytes_each):
        fits, ends, statistics, local = study(key, index)
        parts.append(
            jax.tree.map(
                lambda leaf, count=count: np.asarray(leaf)[:count],
                (known(fits), fits.se, np.asarray(fits.status), ends, statistics),
            )
        )
        sound = local[:count][np.all(np.isfinite(local[:count]), axis=(1, 2))]
        information = information + sound.sum(axis=0)
        usable = usable + len(sound)
        bar.add(count)
    bar.close()
    x, se, status, ends, statistics = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    information /= max(usable, 1)
    fit = study.fit
    return Calibration(
        np.asarray(fit.x),
        x,
        se,
        status,
        ends,
        statistics,
        information,
        cramer_rao(study.refit.loglik, fit, information),
        fit.df,
        study.level,
        study.kind,
        fit.names,
    )


# ---------------------------------------------------------------- at the truth


def at_truth(
    loglik: Loglik, fit: Fit, data: Tree, fresh: tuple[bool, ...]
) -> tuple[ndarray, ndarray, ndarray]:
    """ℓ (b,), score (b, p) and observed information (b, p, p) of each simulated data set at the
    estimate that it was simulated from.
    """
    layout = fit.layout
    structure = jax.tree.structure(data)

    def make(portable: Loglik) -> Function:
        def all_of(x: Array, fresh_leaves: list[Array], shared_leaves: list[Array]) -> Tree:
            def of_data_set(drawn: list[Array]) -> tuple[Array, Array, Array]:
                fresh_part = iter(drawn)
                shared_part = iter(shared_leaves)
                sums_at_truth = sums(
                    portable,
                    layout,
                    x,
                    jax.tree.unflatten(
                        structure, [next(fresh_part) if new else next(shared_part) for new in fresh]
                    ),
                )
                return sums_at_truth.value, sums_at_truth.score, -sums_at_truth.hessian

            return jax.lax.map(of_data_set, fresh_leaves, batch_size=16)

        return all_of

    leaves = jax.tree.leaves(data)
    fresh_leaves = [leaf for leaf, new in zip(leaves, fresh, strict=True) if new]
    shared_leaves = [leaf for leaf, new in zip(leaves, fresh, strict=True) if not new]
    with precision(fit.dtype), np.errstate(all="ignore"):
        program = compiled(as_tree(loglik), ("truth", layout, structure, fresh), make)
        parts = program(fit.x, fresh_leaves, shared_leaves)
        return tuple(np.asarray(part) for part in parts)  # type: ignore[return-value]


def quadratic(v: Array, m: Array) -> ndarray:
    """v'm⁻¹v for each member, (b,); NaN if m is not positive definite."""
    scale = np.sqrt(
        np.where(np.diagonal(m, axis1=1, axis2=2) > 0, np.diagonal(m, axis1=1, axis2=2), np.nan)
    )
    sound = np.all(np.isfinite(m), axis=(1, 2)) & np.all(np.isfinite(scale), axis=1)
    unit = np.where(
        sound[:, None, None], m / (scale[:, :, None] * scale[:, None, :]), np.eye(m.shape[1])
    )
    values, q = np.linalg.eigh(unit)
    sound &= values[:, 0] > 0
    turned = np.einsum("bji,bj->bi", q, np.where(sound[:, None], v / scale, 0.0))
    return np.where(
        sound, np.sum(turned**2 / np.where(sound[:, None], values, 1.0), axis=1), np.nan
    )


def cramer_rao(loglik: Loglik, fit: Fit, information: ndarray) -> ndarray:
    """The diagonal of L(L'IL)⁻¹L', (p,), with L the directions that constraints, ``fix`` and
    ``tie`` leave free; NaN if an entry is fixed or the information is singular.
    """
    tree = as_tree(loglik)
    lift = tangent(tree, fit.layout).lift
    roots = roots_of(tree, fit.layout)
    variance = np.sum((lift @ inverse_root_of(lift.T @ information @ lift)) ** 2, axis=1)
    return np.where(roots >= 0, variance[np.maximum(roots, 0)], np.nan)
