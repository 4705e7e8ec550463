"""The delta method: functions of the estimate and their covariance, by exact derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.flatten_util import ravel_pytree

from jaxmle._types import Array, DataFrame, Tree, ndarray
from jaxmle.inference.again import check_fit
from jaxmle.parameters.arguments import check_choice, check_function, check_level, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import path_name
from jaxmle.record.fit import Fit
from jaxmle.record.propagation import finite_point, propagated
from jaxmle.record.scales import INTERVAL_SCALES, interval_on
from jaxmle.runtime.compile import portable_copy, precision, to_numpy, tracing
from jaxmle.runtime.user_code import explained
from jaxmle.tables.estimates import Estimates, grid_of
from jaxmle.tables.frame import native
from jaxmle.tables.layout import Page, text
from jaxmle.tables.notes import BY_CONJUGATE_GRADIENTS

ONE_ARGUMENT = "g must be a function of one argument, params"


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["estimate", "stderr", "vcov", "leaks"],
    meta_fields=["names", "scale", "vcov_kind"],
)
@dataclass(frozen=True, eq=False, repr=False)
class Delta:
    """A function of the estimates, with its standard errors by the delta method.

    ``estimate`` and ``stderr`` have the tree structure of the function's value; ``vcov`` is (q, q).
    Static: ``names`` of the values, (q,); ``scale`` of the intervals: "identity", "log" or "logit";
    ``vcov_kind`` of the fit. ``leaks`` (q,): which values depend on parameters that the data do not
    determine.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.delta import delta
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> result = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> mean = delta(lambda params: 1 / params["rate"], result)
    >>> mean.conf_int(0.95).round(4).tolist()  # 3 ± 1.96·1.5
    [0.0601, 5.9399]
    >>> delta(lambda params: {"mean": 1 / params["rate"]}, result, scale="log")
    Function of the estimates
    vcov = observed    scale of intervals = log
    <BLANKLINE>
          estimate  std. error  lower 95%  upper 95%
    mean     3.000       1.500      1.126      7.993
    """

    estimate: Tree
    stderr: Tree
    vcov: Array
    leaks: Array | None = None
    names: tuple[str, ...] = ()
    scale: str = "identity"
    vcov_kind: str = ""

    def conf_int(self, level: float = 0.95) -> Tree:
        """Intervals, symmetric on ``scale``, with a last axis (lower, upper) on every leaf:
        estimate ± z·SE on the identity scale, estimate·exp(± z·SE/estimate) on the log scale.
        """
        level = check_level(level)
        z = float(scipy.special.ndtri(0.5 + level / 2))
        return jax.tree.map(
            lambda e, s: interval_on(self.scale, e, s, z), self.estimate, self.stderr
        )

    @property
    def reason(self) -> str:
        """Why standard errors are missing, as a sentence; "" if none are."""
        stderr = _flat(self.stderr)
        missing = ~np.isfinite(stderr)
        if stderr.ndim > 1:
            raise ValueError("this is a batch: index it first")
        if not missing.any():
            return ""
        if self.vcov_kind == "none":
            return "No standard errors: the fit has no covariance (vcov=None)."
        listed = ", ".join(name for name, gone in zip(self.names, missing, strict=True) if gone)
        if self.leaks is not None and np.any(np.asarray(self.leaks) & missing):
            return (
                f"No standard error for {listed}: it depends on parameters without a finite, "
                "unique estimate; fit.explain() names them."
            )
        if self.vcov_kind == BY_CONJUGATE_GRADIENTS:
            return (
                f"No standard error for {listed}: the information is singular or "
                "indefinite along a direction that changes it, or conjugate gradients "
                "did not converge within max_products."
            )
        return (
            f"No standard error for {listed}: it has no finite derivative at the "
            "estimate, or the fit has no covariance for the parameters it depends on."
        )

    def _estimates(self, level: float) -> Estimates:
        ends = np.stack([_flat(self._end(level, side)) for side in (0, 1)], axis=-1)
        estimate = _flat(self.estimate)
        if estimate.ndim > 1:
            raise ValueError("this is a batch: index it first")
        # A positive quantity is not tested against 0.
        tests = self.scale == "identity"
        return Estimates(self.names, estimate, _flat(self.stderr), ends, level, tests)

    def _end(self, level: float, side: int) -> Tree:
        return jax.tree.map(lambda ends: ends[..., side], self.conf_int(level))

    def to_frame(self, level: float = 0.95, backend: str | None = None) -> DataFrame:
        """A tidy data frame: term, estimate, std_error, statistic, p_value, conf_low, conf_high."""
        return native({"term": list(self.names)} | self._estimates(level).columns(), backend)

    def summary(self, level: float = 0.95) -> str:
        """The table as text."""
        estimates = self._estimates(check_level(level))
        scale = () if self.scale == "identity" else (("scale of intervals", self.scale),)
        facts = (("vcov", self.vcov_kind), *scale)
        notes = (self.reason,) if self.reason else ()
        title = "Function of the estimates"
        return text(Page(title, True, facts, (grid_of(estimates),), notes))

    def __repr__(self) -> str:
        leaves = jax.tree.leaves((self.estimate, self.stderr))
        plain = all(isinstance(leaf, np.ndarray | np.generic) for leaf in leaves)
        size = sum(np.size(leaf) for leaf in jax.tree.leaves(self.estimate)) if plain else 0
        if not plain or size != len(self.names):
            return f"Delta({', '.join(self.names[:6])}; {np.shape(self.vcov)} covariance)"
        return self.summary()


def _flat(tree: Tree) -> ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@with_keyword_hints
def delta(
    g: Callable[[Tree], Tree],
    fit: Fit,
    *,
    scale: str = "identity",
    names: Sequence[str] | None = None,
) -> Delta:
    """Estimate and covariance of ``g(params)``: G V G', G the Jacobian of ``g`` at the estimate.

    If the data do not determine some parameters, a function that they do determine still has a
    standard error; any other function gets NaN.

    Args:
        g: a function of the parameters that returns a number, an array or a tree of arrays.
        fit: one fit or a batch.
        scale: the scale on which intervals are symmetric: ``"identity"``, ``"log"`` for a positive
            quantity, ``"logit"`` for a probability.
        names: one name for each value; by default its position in the tree.

    Returns:
        A ``Delta``: ``estimate`` and ``stderr`` in the tree of ``g(params)``, ``vcov`` (q, q).

    Raises:
        TypeError: if ``g`` is not a function, or its value is not real.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.delta import delta
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> result = jm.fit(
    ...     lambda p, d: jnp.log(p["rate"]) - p["rate"] * d,
    ...     {"rate": 1.0},
    ...     y,
    ...     constraints={"rate": jm.positive},
    ... )
    >>> mean = delta(lambda params: 1 / params["rate"], result)
    >>> round(float(mean.estimate), 6), round(float(mean.stderr), 6)
    (3.0, 1.5)
    """
    check_fit("delta", fit)
    check_function("g", g, "lambda params: params['a'] / params['b']")
    check_choice("scale", scale, tuple(INTERVAL_SCALES))
    if fit.batch_shape:
        of_member = partial(delta, g, scale=scale, names=names)
        return (
            _stack([of_member(fit[i]) for i in range(fit.batch_shape[0])])
            if not tracing()
            else jax.vmap(of_member)(fit)
        )
    if tracing():
        return _delta(g, fit, scale, names)
    with precision(fit.dtype):
        return to_numpy(_delta(g, fit, scale, names))


def _delta(g: Callable[[Tree], Tree], fit: Fit, scale: str, names: Sequence[str] | None) -> Delta:
    g = portable_copy(g)

    def flat_g(x: Array) -> Array:
        return ravel_pytree(real_value("g", g(fit.layout.unravel(x))))[0]

    x = jnp.asarray(finite_point(fit))
    params = fit.layout.unravel(x)
    with explained(params, {}, ONE_ARGUMENT):
        value = real_value("g", g(params))
    flat, unravel = ravel_pytree(value)
    with explained(params, {}, ONE_ARGUMENT):
        jacobian = jax.jacfwd(flat_g)(x)
    moved: Tree = propagated(fit, jacobian)
    # A value outside the estimable space is the one at the estimate itself, which may be infinite.
    away = moved.leaks & jnp.any(x != jnp.asarray(fit.x))
    value = unravel(jnp.where(away, flat_g(jnp.asarray(fit.x)), flat).astype(flat.dtype))
    return Delta(
        value,
        unravel(moved.stderr.astype(flat.dtype)),
        moved.vcov,
        moved.leaks,
        _names_of(value, names),
        scale,
        fit.vcov_kind,
    )


def _names_of(value: Tree, names: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the values of a function: the given names, or positions in the tree."""
    size = sum(np.size(leaf) for leaf in jax.tree.leaves(value))
    if names is not None:
        given = [names] if isinstance(names, str) else list(names)
        if len(given) != size or not all(isinstance(name, str) for name in given):
            raise ValueError(
                f"names must be {size} strings, one for each value; got {shown(names)}"
            )
        return tuple(given)
    leaves, _ = jax.tree_util.tree_flatten_with_path(value)
    listed = []
    for path, leaf in leaves:
        stem = path_name(path) or "value"
        for entry in np.ndindex(*np.shape(leaf)):
            listed.append(f"{stem}[{','.join(map(str, entry))}]" if entry else stem)
    return tuple(listed)


def real_value(name: str, value: Tree) -> Tree:
    """The value of a user's function of the parameters, checked to be one or more numbers that can
    be differentiated.
    """
    leaves = jax.tree.leaves(value, is_leaf=lambda leaf: leaf is None)
    if not leaves:
        raise ValueError(f"{name} returns no numbers")
    if not all(_is_real(leaf) for leaf in leaves):
        kinds = sorted({_kind_of(leaf) for leaf in leaves if not _is_real(leaf)})
        raise TypeError(
            f"{name} must return floating-point numbers: a number, an array or a tree of "
            f"arrays; got {', '.join(kinds)}"
        )
    real = jnp.result_type(float)

    def as_float(leaf: Tree) -> Array:
        array = jnp.asarray(leaf)
        return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(real)

    return jax.tree.map(as_float, value)


def _kind_of(leaf: Tree) -> str:
    dtype = getattr(leaf, "dtype", None)
    return type(leaf).__name__ if dtype is None else f"an array of {dtype}"


def _is_real(leaf: Tree) -> bool:
    plain = isinstance(leaf, int | float) and not isinstance(leaf, bool)
    return plain or (
        isinstance(leaf, np.ndarray | np.generic | jax.Array)
        and (jnp.issubdtype(leaf.dtype, jnp.floating) or jnp.issubdtype(leaf.dtype, jnp.integer))
    )


def _stack(parts: list[Delta]) -> Delta:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)
