"""The record of a fit: estimates, their uncertainty, and the verdict. It holds no data and no
function.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import jax
import numpy as np
import scipy

from jaxmle._namespace import HOST, is_traced, namespace
from jaxmle._types import Array, DataFrame, DType, Foreign, Index, Key, Loglik, Tree
from jaxmle.likelihood.combinators import Weights
from jaxmle.likelihood.derivatives import FORWARD_OVER_REVERSE
from jaxmle.parameters.arguments import check_choice, check_level, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Layout, with_numbers
from jaxmle.record import serialization
from jaxmle.record.attribute_hints import missing_attribute
from jaxmle.record.check import check as check_record
from jaxmle.record.explain import explain as explain_record
from jaxmle.record.scales import wald_interval
from jaxmle.record.soundness import check_covariance
from jaxmle.record.witness import Witness
from jaxmle.solvers.status import Status, named
from jaxmle.tables import maketables
from jaxmle.tables.notes import printed

_FIT_LEAVES = [
    "params",
    "stderr",
    "vcov",
    "hessian",
    "loglik",
    "score",
    "decrement",
    "n",
    "status",
    "witness",
    "steps",
    "data_id",
    "response_id",
]
_STATIC = [
    "names",
    "bounds",
    "df",
    "vcov_kind",
    "mode",
    "weighting",
    "layout",
    "hessian_by",
    "evaluation",
    "model",
]


@partial(jax.tree_util.register_dataclass, data_fields=_FIT_LEAVES, meta_fields=_STATIC)
@dataclass(frozen=True, eq=False)
class Fit:
    """A maximum-likelihood fit, or a batch of them (every leaf then has leading axes).

    Leaves: ``params`` and ``stderr`` have the tree of the start values; ``vcov`` and ``hessian``
    (p, p) and ``score`` (p,) are flat, in the order of ``names``; ``loglik`` ℓ; ``decrement`` δ =
    s'J⁻¹s/2; ``n``, the number of observations; ``status`` an integer ``Status``; ``witness``;
    ``steps``; ``data_id`` a fingerprint of the data and their weights; ``response_id`` a
    fingerprint of the response and the weights only, zero if the response is not known. Static:
    ``names``, ``bounds`` (lower, upper) per printed entry, ``df`` free parameters, ``vcov_kind``,
    ``mode`` (ML or MAP), ``weighting`` (none, frequency, sampling), ``hessian_by``: how second
    derivatives were computed, "forward over reverse" or, if a part of the likelihood lacks a mode,
    "reverse over reverse", "forward over forward" or "differences of the score"; ``evaluation``:
    how the terms were summed, "declared" (a regression, a built-in model), "found" (a regression
    found in the program of a function) or "opaque" (a function, differentiated as a whole), for a
    pool those of its parts; followed by "head start" if the search started at the maximum of a
    sample of the rows, or "float32 start" if members of a batch took their first steps in single
    precision; "" if not known. ``model``: the call that makes the built-in model, such as
    "poisson(offset='offset')", from which predictions recreate it; "" for any other likelihood.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> result = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> [round(float(of["rate"]), 6) for of in (result.params, result.stderr)]  # 1/ȳ, rate/√n
    [0.333333, 0.166667]
    >>> result.verdict.name, round(float(result.loglik), 6)  # 4 log(1/3) − 4
    ('CONVERGED', -8.394449)
    """

    params: Tree
    stderr: Tree
    vcov: Array
    hessian: Array
    loglik: Array
    score: Array
    decrement: Array
    n: Array
    status: Array
    witness: Witness
    steps: Array
    data_id: Array
    names: tuple[str, ...]
    bounds: tuple[tuple[float, float], ...]
    df: int
    vcov_kind: str
    mode: str
    weighting: str
    layout: Layout
    hessian_by: str = FORWARD_OVER_REVERSE
    evaluation: str = ""
    model: str = ""
    # __post_init__ uses zeros if it is not given
    response_id: Array = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", named(self.status))
        object.__setattr__(self, "params", with_numbers(self.params))
        object.__setattr__(self, "stderr", with_numbers(self.stderr))
        if self.response_id is None and hasattr(self.data_id, "dtype"):
            zeros = namespace(self.data_id).zeros_like(self.data_id)
            object.__setattr__(self, "response_id", zeros)

    # ------------------------------------------------------------ flat views

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading axes: () for one fit, (b,) for a batch."""
        return np.shape(self.loglik)

    @property
    def dtype(self) -> DType:
        """The precision of the fit."""
        return np.dtype(self.vcov.dtype)

    def _flat(self, tree: Tree) -> Array:
        lead = len(self.batch_shape)
        pieces = []
        for leaf, value in zip(self.layout.leaves, jax.tree.leaves(tree), strict=True):
            places = np.array(leaf.entries, dtype=int).reshape(len(leaf.entries), len(leaf.shape)).T
            index = tuple(places) if leaf.shape else (None,)
            pieces.append(value[(slice(None),) * lead + index])
        return namespace(self.loglik).concatenate(pieces, axis=-1)

    def _tree(self, flat: Array) -> Tree:
        """Flat quantities (..., p, *rest) as a tree: rest follows each leaf's shape."""
        lead = flat.shape[: len(self.batch_shape)]
        rest = flat.shape[len(self.batch_shape) + 1 :]
        columns = flat.reshape(-1, len(self.names), *rest)
        xp = namespace(flat)
        flatter = xp.moveaxis(columns, 1, -1).reshape(-1, len(self.names))
        unravel = self.layout.unravel_entries
        trees = [unravel(row) for row in flatter] if xp is HOST else None
        stacked = (
            jax.vmap(unravel)(flatter)
            if trees is None
            else jax.tree.map(lambda *v: np.stack(v), *trees)
        )

        def shape(leaf: Array) -> Array:
            full = leaf.reshape((*lead, *rest, *leaf.shape[1:]))
            for _ in rest:
                full = xp.moveaxis(full, len(lead), -1)
            return full

        return jax.tree.map(shape, stacked)

    @property
    def x(self) -> Array:
        """Estimates, (p,), in the order of ``names``."""
        return self._flat(self.params)

    @property
    def se(self) -> Array:
        """Standard errors, (p,)."""
        return self._flat(self.stderr)

    # ------------------------------------------------------------ reading

    @property
    def verdict(self) -> Status:
        """The status of one fit, by name."""
        if self.batch_shape:
            raise ValueError(
                "a batch has one status for each member: use fit.status, or fit[i].verdict"
            )
        return Status(int(self.status))

    @property
    def converged(self) -> Array:
        """Whether the status is CONVERGED; a boolean, or an array of them."""
        return self.status == int(Status.CONVERGED)

    @with_keyword_hints
    def interval(self, level: float = 0.95, scale: str = "free") -> Array:
        """Wald interval of each printed entry, (p, 2).

        ``scale="free"`` computes the interval on the scale that the entry's bounds suggest (log,
        logit, Fisher's z; the identity if it is unbounded) and transforms it back, so that it
        respects the bounds; ``"user"`` is the symmetric interval estimate ± z·SE.
        """
        check_choice("scale", scale, ("free", "user"))
        level = check_level(level)
        z = float(scipy.special.ndtri(0.5 + level / 2))
        # Infinite estimates and those on a bound have infinite or NaN ends; that needs no warning.
        with np.errstate(all="ignore"):
            return wald_interval(self.x, self.se, self.bounds, z, scale)

    @with_keyword_hints
    def conf_int(self, level: float = 0.95, scale: str = "free") -> Tree:
        """Wald intervals as a tree like ``params``, each leaf with a last axis (lower, upper).
        See ``interval``.
        """
        return self._tree(self.interval(level, scale))

    @property
    def zvalues(self) -> Array:
        """Estimate over standard error, (p,); NaN if 0 is not inside the bounds, so that there is
        no test of 0.
        """
        inside = np.array([low < 0 < high for low, high in self.bounds])
        xp = namespace(self.loglik)
        return xp.where(
            inside & xp.isfinite(self.x), self.x / xp.where(self.se > 0, self.se, xp.nan), xp.nan
        )

    @property
    def pvalues(self) -> Array:
        """Two-sided normal p-values of ``zvalues``, (p,)."""
        from jax.scipy.special import ndtr

        z = self.zvalues
        return (
            2 * scipy.special.ndtr(-np.abs(z)) if isinstance(z, np.ndarray) else 2 * ndtr(-abs(z))
        )

    @property
    def corr(self) -> Array:
        """Correlation matrix of the estimates, (p, p)."""
        se = self.se
        return self.vcov / (se[..., :, None] * se[..., None, :])

    def _criterion(self, penalty: float | Array) -> Array:
        """−2ℓ + penalty; NaN for MAP fits, whose ℓ is not maximal, and with sampling weights, for
        which ℓ is not a likelihood.
        """
        value = -2 * self.loglik + penalty
        return value if self.mode == "ML" and self.weighting != "sampling" else value * np.nan

    @property
    def aic(self) -> Array:
        """Akaike's criterion −2ℓ + 2k."""
        return self._criterion(2 * self.df)

    @property
    def aicc(self) -> Array:
        """AIC with the small-sample term 2k(k + 1)/(n − k − 1); NaN if n ≤ k + 1."""
        xp = namespace(self.loglik)
        left = self.n - self.df - 1
        return self._criterion(
            2 * self.df
            + xp.where(left > 0, 2 * self.df * (self.df + 1) / xp.where(left > 0, left, 1), xp.nan)
        )

    @property
    def bic(self) -> Array:
        """Schwarz's criterion −2ℓ + k log n."""
        return self._criterion(self.df * namespace(self.loglik).log(self.n))

    def __getitem__(self, index: Index) -> Fit:
        """One member of a batch, or a part of it."""
        if not self.batch_shape:
            hint = "an estimate is fit.params['mu']"
            raise TypeError(f"this is a single fit, not a batch, and cannot be indexed: {hint}")
        try:
            np.empty(self.batch_shape, bool)[cast(int, index)]
        except (IndexError, TypeError, ValueError):
            if is_traced(index):
                pass
            else:
                raise IndexError(
                    f"a batch of {self.batch_shape} fits has no member {shown(index)}: index it "
                    "as an array"
                ) from None
        return jax.tree.map(lambda leaf: leaf[index], self)

    def __len__(self) -> int:
        if not self.batch_shape:
            raise TypeError("this is one fit, not a batch; whether it converged is fit.converged")
        return self.batch_shape[0]

    def with_vcov(self, vcov: Array, kind: str = "given") -> Fit:
        """The same fit with another covariance (p, p) and its standard errors. Entries without an
        estimate stay NaN.
        """
        xp = namespace(self.loglik)
        if not isinstance(kind, str):
            raise TypeError(
                f"kind must be a string, the name of the covariance in tables; got {shown(kind)}"
            )
        if not is_traced(vcov):
            vcov = check_covariance(vcov, self.vcov.shape, self.se)
        vcov = xp.asarray(vcov, dtype=self.vcov.dtype)
        if vcov.shape != self.vcov.shape:
            raise ValueError(
                f"the covariance must have shape {self.vcov.shape}, in the order of names; got "
                f"{vcov.shape}"
            )
        without_stderr = ~xp.isfinite(self.se)
        given = vcov
        vcov = xp.where(without_stderr[..., :, None] | without_stderr[..., None, :], xp.nan, vcov)
        variance = xp.diagonal(vcov, axis1=-2, axis2=-1)
        se = xp.sqrt(xp.where(variance > 0, variance, xp.nan))
        return replace(
            self,
            vcov=vcov,
            stderr=self._tree(se),
            vcov_kind=kind,
            witness=replace(self.witness, vcov=given),
        )

    # ------------------------------------------------------------ judging and keeping

    def check(self) -> Fit:
        """Return the fit if every member has converged; otherwise raise a ``FitError`` that says
        which have not, and why.
        """
        return check_record(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit to one npz file, whole or not at all; ``.npz`` is added if the name has no
        suffix.
        """
        serialization.save(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str], like: Tree = None) -> Fit:
        """The fit that ``save`` wrote, bit for bit. A tree with custom classes needs ``like``,
        parameters of that structure.
        """
        return serialization.load(path, like, Fit, Witness)

    # ------------------------------------------------------------ saying

    def explain(self) -> str:
        """An explanation of the verdict: which parameters are concerned and what to do."""
        return explain_record(self)

    @with_keyword_hints
    def summary(self, level: float = 0.95) -> str:
        """The table of one fit, or the digest of a batch."""
        from jaxmle.record.check import outside_of_traces
        from jaxmle.tables import digest, table

        outside_of_traces(self, "summary")
        level = check_level(level)
        return digest.digest(self, level) if self.batch_shape else table.summary(self, level)

    def __repr__(self) -> str:
        if not isinstance(self.status, np.ndarray | np.generic | jax.Array) or is_traced(
            self.status
        ):
            return (
                f"Fit({', '.join(map(printed, self.names[:6]))}; {type(self.status).__name__} "
                "leaves)"
            )
        return self.summary()

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return self.to_html()

    @with_keyword_hints
    def to_html(
        self,
        level: float = 0.95,
        *,
        exponentiate: bool = False,
        labels: Mapping[str, str] | None = None,
        terms: Sequence[str] | None = None,
    ) -> str:
        """The table in HTML; the options are those of ``to_frame``."""
        from jaxmle.tables import markup
        from jaxmle.tables.view import View

        return markup.html(self, View(level, exponentiate, labels, terms))

    @with_keyword_hints
    def to_latex(
        self,
        level: float = 0.95,
        *,
        exponentiate: bool = False,
        labels: Mapping[str, str] | None = None,
        terms: Sequence[str] | None = None,
    ) -> str:
        """The table in LaTeX (booktabs); the options are those of ``to_frame``."""
        from jaxmle.tables import markup
        from jaxmle.tables.view import View

        return markup.latex(self, View(level, exponentiate, labels, terms))

    @with_keyword_hints
    def to_markdown(
        self,
        level: float = 0.95,
        *,
        exponentiate: bool = False,
        labels: Mapping[str, str] | None = None,
        terms: Sequence[str] | None = None,
    ) -> str:
        """The table in Markdown; the options are those of ``to_frame``."""
        from jaxmle.tables import markup
        from jaxmle.tables.view import View

        return markup.markdown(self, View(level, exponentiate, labels, terms))

    @with_keyword_hints
    def to_frame(
        self,
        level: float = 0.95,
        backend: str | None = None,
        *,
        exponentiate: bool = False,
        labels: Mapping[str, str] | None = None,
        terms: Sequence[str] | None = None,
    ) -> DataFrame:
        """The table as a tidy data frame: term, estimate, std_error, statistic, p_value,
        conf_low, conf_high.

        Args:
            level: coverage of the Wald intervals.
            backend: "pandas", "polars" or "pyarrow"; None for the first that is installed.
            exponentiate: exponentiate the estimates and intervals of unbounded parameters: odds
                ratios, rate ratios, hazard ratios. As in R's broom, standard errors, z and p do not
                change.
            labels: a dictionary from names to labels, ``{"age": "Age (years)"}``.
            terms: the names to show, in this order; a factor's name means its levels.
        """
        from jaxmle.tables import frame
        from jaxmle.tables.view import View

        return frame.frame(self, View(level, exponentiate, labels, terms), backend)

    # what maketables.ETable looks for: its plug-in format
    __maketables_coef_table__ = property(maketables.coefficients)
    __maketables_stat__ = maketables.statistic
    __maketables_default_stat_keys__ = property(maketables.default_statistics)
    __maketables_stat_labels__ = maketables.STATISTIC_LABELS
    __maketables_depvar__ = ""  # a record does not know what its response is called

    def to_arviz(
        self,
        loglik: Loglik | None = None,
        data: Tree = None,
        *,
        weights: Weights | None = None,
        draws: int = 1000,
        key: Key = 0,
        bootstrap: Tree = None,
    ) -> Foreign:
        """Draws for ArviZ, with the log-likelihood of each row: an ``InferenceData``, or a
        ``DataTree`` from ArviZ 1.0.

        The draws are from the asymptotic normal distribution of the estimate on the free scale, so
        that they respect constraints, or they are the replicates of a bootstrap. Neither is a
        posterior, although ArviZ calls the group that; for a MAP fit the former is Laplace's
        approximation to it.

        Args:
            loglik, data, weights: those of the fit; without them there is no log-likelihood.
            draws: number of draws, if no bootstrap is given.
            key: an integer or a jax key for the draws.
            bootstrap: a ``Bootstrap`` of the parameters, whose replicates are used instead.

        Raises:
            ValueError: for a fit that has not converged or has no covariance, or data that are not
                those of the fit.

        >>> import numpy as np, jaxmle as jm
        >>> normal = lambda params, y: -0.5 * (y - params["mean"]) ** 2
        >>> y = np.array([1.0, 3.0, 2.0, 6.0])
        >>> result = jm.fit(normal, {"mean": 0.0}, y)
        >>> converted = result.to_arviz(normal, y, draws=50)
        >>> converted["posterior"]["mean"].shape, converted["log_likelihood"]["terms"].shape
        ((1, 50), (1, 50, 4))
        """
        from jaxmle.record import inference_data

        return inference_data.inference_data(self, (loglik, data, weights), draws, key, bootstrap)


Fit.__getattr__ = missing_attribute  # type: ignore[attr-defined]  # a checker finds typos without
__all__ = ["Fit", "Witness", "wald_interval"]
