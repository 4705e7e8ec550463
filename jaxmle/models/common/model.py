"""A built-in model: a log-likelihood that also knows where to start, how its parameters are
bounded, and what it predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, ArrayLike, FunctionTo, Key, Loglik, Tree
from jaxmle.closures.recipes import note_recipe, reduced
from jaxmle.families.family import Family
from jaxmle.likelihood.checks import check_coding, host_data, host_params, traced_data
from jaxmle.likelihood.combinators import Fix, Tie
from jaxmle.likelihood.contract import as_tree, leaf_of
from jaxmle.likelihood.regression import Regression
from jaxmle.likelihood.structure import core_of
from jaxmle.models.common.censoring import Censoring
from jaxmle.models.common.coding import Rule, coded, uncoded
from jaxmle.models.common.name_hints import missing_of_model
from jaxmle.models.common.options import written
from jaxmle.models.common.pooled import Member, Pooled
from jaxmle.models.common.response_laws import PredictiveLaw
from jaxmle.parameters.arguments import check_choice, shown
from jaxmle.parameters.frames import columns_of_frame, is_frame
from jaxmle.parameters.tree import layout_of
from jaxmle.runtime.compile import compiled, precision, to_numpy, tracing
from jaxmle.runtime.keys import typed_key

ROWS_FOR_START = 20_000  # enough for errors of a hundredth or less
RESIDUAL_KINDS = ("response", "pearson", "deviance", "quantile")

# Models whose log density is concave in its predictors: canonical links, and links with a
# log-concave distribution (Pratt 1981, JASA 76, 103).
CONCAVE_MODELS = frozenset(
    {"logistic", "probit", "cloglog", "binomial", "poisson", "multinomial", "ordinal"}
)


@jax.tree_util.register_static
@dataclass(frozen=True, eq=False)
class Model:
    """A log-likelihood ``(params, data) -> (n,)`` with start values, constraints, and the
    distribution of its response.

    ``fit(model, data=data)`` and ``fit_batch(model, None, datasets)`` need no start values. Every
    method is a function of ``params`` and ``data``. Under a trace it is pure, so ``delta(lambda
    params: model.predict(params, data), fit)`` gives standard errors; on the host it runs in
    float64 and returns NumPy arrays.

    Attributes:
        name: the name of the model in messages.
        likelihood: the declared regression, or a function if it is not a regression; this is what
            is differentiated.
        begin: ``begin(data)``, start values from cleaned arrays.
        constraints: bounds of the parameters, a tree prefix of them.
        natural: ``natural(params, data)``, the parameters of the distribution of each row, a tuple
            of arrays (n, …).
        law: mean, variance, distribution function, quantile and sampler of that distribution.
        outcome: the leaf of the data that holds the response.
        coding: the values that the response and other leaves may have.
        censoring: how responses that are not observed exactly are recorded; None if all are
            observed.
        maker, options: the name of the public function that made it, and its arguments.
        unread: options that name a leaf of the data and were not given.

    >>> import numpy as np
    >>> from jaxmle import models
    >>> poisson = models.poisson()
    >>> data = {"x": np.ones((2, 1)), "y": np.array([0.0, 1.0])}
    >>> poisson({"beta": np.zeros(1)}, data).tolist()  # −1 − log y!
    [-1.0, -1.0]
    >>> poisson.predict({"beta": np.zeros(1)}, data).tolist()
    [1.0, 1.0]
    """

    name: str
    likelihood: Loglik
    begin: Callable[[Tree], Tree]
    constraints: Tree
    natural: Callable[[Tree, Tree], tuple[Array, ...]]
    law: PredictiveLaw
    outcome: str = "y"
    coding: tuple[Rule, ...] = ()
    censoring: Censoring | None = None
    maker: str = ""
    options: Mapping[str, Tree] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        likelihood = coded(self.likelihood, self.name, self.coding)
        if self.name in CONCAVE_MODELS and isinstance(likelihood, Regression):
            likelihood = replace(likelihood, concave=True)
        object.__setattr__(self, "likelihood", likelihood)

    def __call__(self, params: Tree, data: Tree) -> Array:
        """The log-likelihood terms (n,), or one scalar for dependent data; on the host in
        float64 and as a NumPy array.
        """
        if tracing():
            return self.likelihood(params, data)
        with precision(np.float64):
            params = host_params(params, np.float64)
            real = host_data(data, np.float64, nan=True)
            self.check(real)
            terms = compiled(as_tree(self.likelihood), "terms", lambda loglik: loglik)
            return to_numpy(terms(params, real))

    def with_likelihood(self, tree: Loglik) -> Model:
        """The model with the likelihood that a combinator made from it: what ``fix``, ``tie``,
        ``penalize`` and ``weight`` return. Held and tied entries are filled in before predictions.
        """
        natural = self.natural
        if isinstance(tree, Fix | Tie):

            def substituted(params: Tree, data: Tree) -> tuple[Array, ...]:
                layout = layout_of(params)
                x = jnp.asarray(tree.substitute(layout, jnp.asarray(layout.ravel(params))))
                return self.natural(layout.unravel(x), data)

            natural = substituted

        made = replace(self, likelihood=tree, natural=natural, coding=())
        note_recipe(made, made_with, (self, tree), {})
        return made

    def pooled_with(self, members: tuple[Member, ...], tree: Loglik) -> Loglik:
        """The pool of built-in models that starts with this one."""
        return Pooled(members, tree)

    def check(self, data: Tree) -> None:
        """Raise a ValueError if the response, or another leaf, is not coded as the model expects.
        The message says what was given, what is expected, and how to recode it.

        ``fit`` and everything else that takes data on the host calls this first.
        """
        check_coding(self, data)

    @property
    def call(self) -> str:
        """The call that makes this model, as text; "" if it cannot be written as text."""
        return written(self.maker, self.options)

    def __repr__(self) -> str:
        return f"models.{self.name}"

    def __reduce__(self) -> tuple[Tree, ...]:
        return reduced(self)

    def start(self, data: Tree) -> Tree:
        """Start values from the data, by a least-squares step or moments; finite for any finite
        data.

        Args:
            data: one data set; or data sets stacked on a leading axis, for starts with that axis. A
                design may be shared.
        """
        data = columns_of_frame(data) if is_frame(data) else data
        self._check_form(data)
        if tracing():
            return self.begin(jax.tree.map(jnp.asarray, data))
        with np.errstate(all="ignore"):
            rows = jax.tree.map(np.asarray, host_data(data, np.float64, nan=True))
            self.check(rows)
            is_regression = isinstance(core_of(as_tree(self.likelihood)), Regression)
            return self.begin(_thinned(rows, self._response(rows)) if is_regression else rows)

    def _check_form(self, data: Tree) -> None:
        """Data are one array, or a dictionary of them."""
        if not isinstance(data, dict) and not hasattr(data, "ndim"):
            raise TypeError(
                f"{self!r} reads a dictionary of arrays, such as {{'x': design, "
                f"{self.outcome!r}: response}}; got {shown(data)}"
            )

    def starts(self, data: Tree) -> Tree:
        """``start`` for data sets stacked on a leading axis: start values with that axis."""
        core = core_of(as_tree(self.likelihood))
        if not isinstance(uncoded(getattr(core, "function", core)), Family):
            return self.start(data)
        members = range(jax.tree.leaves(data)[0].shape[0])  # a family knows one column
        return jax.tree.map(
            lambda *leaves: np.stack(leaves),
            *(self.start(jax.tree.map(lambda leaf, i=i: leaf[i], data)) for i in members),
        )

    def predict(self, params: Tree, data: Tree) -> Array:
        """The mean of each response given the parameters, (n,); class probabilities (n, K) for a
        categorical response.
        """
        return self._evaluate("mean", params, data)

    def variance(self, params: Tree, data: Tree) -> Array:
        """The variance of each response given the parameters, (n,)."""
        return self._evaluate("variance", params, data)

    def quantile(self, params: Tree, data: Tree, level: ArrayLike) -> Array:
        """The ``level`` quantile of each response given the parameters, (n,): two of them are a
        prediction interval.

        For a discrete response it is the smallest value whose distribution function is at least
        ``level``.
        """
        return self._evaluate("quantile", params, data, level)

    def cdf(self, params: Tree, data: Tree) -> Array:
        """The distribution function of each row at its response, (n,)."""
        return self._evaluate("cdf", params, data, self._response(data))

    def survival(self, params: Tree, data: Tree, times: ArrayLike) -> Array:
        """The probability of no event by each of ``times`` given the parameters, (n, m) for times
        (m,), (n,) for one. ``jaxmle.survival.survival`` adds bands, and also works for Cox models.
        """
        return self._evaluate("survival", params, data, times)

    def cumulative_hazard(self, params: Tree, data: Tree, times: ArrayLike) -> Array:
        """−log of the survival function at each of ``times``, (n, m), or (n,) for one time."""
        return self._evaluate("cumulative_hazard", params, data, times)

    def hazard(self, params: Tree, data: Tree, times: ArrayLike) -> Array:
        """The density divided by the survival function at each of ``times``, (n, m), or (n,) for
        one time.
        """
        return self._evaluate("hazard", params, data, times)

    def sample(self, key: Key, params: Tree, data: Tree) -> Tree:
        """``data`` with a new response drawn from the model; the sampler for ``simulation`` and a
        parametric bootstrap.

        Args:
            key: an integer or a jax key.
        """
        fresh = self._evaluate("sample", params, data, typed_key(key))
        if not isinstance(data, dict):
            return fresh
        return {**data, **(fresh if isinstance(fresh, dict) else {self.outcome: fresh})}

    def residuals(
        self, params: Tree, data: Tree, kind: str = "response", *, key: Key | None = None
    ) -> Array:
        """Residuals (n,).

        Args:
            kind: ``"response"`` y − mean; ``"pearson"`` that divided by the standard deviation;
                ``"deviance"`` signed √(2(ℓ_saturated − ℓ)) for exponential families; ``"quantile"``
                Φ⁻¹(F(y)), standard normal under the model.
            key: an integer or a jax key, for quantile residuals of a discrete response, drawn
                uniformly over its step of F (Dunn & Smyth 1996, JCGS 5, p. 236), and of a censored
                response, drawn over the known interval. With late entry, F is conditional on entry.

        Raises:
            ValueError: if a key is needed and not given; for any but quantile residuals of rows
                that are censored or entered late.

        >>> import numpy as np
        >>> from jaxmle.models import poisson
        >>> data = {"x": np.ones((2, 1)), "y": np.array([1.0, 3.0])}
        >>> poisson().residuals({"beta": np.log([2.0])}, data, "pearson").round(4).tolist()
        [-0.7071, 0.7071]
        """
        check_choice("kind", kind, RESIDUAL_KINDS)
        key = None if key is None else typed_key(key)
        y = self._response(data)
        if self.censoring is not None:
            self.censoring.refuse(kind, data, key)
            if kind == "quantile":
                name = ("censored residual", self.censoring.ends)
                return self._evaluated(name, self._censored_residual, params, data, key)
        if kind == "response":
            return self._evaluate("response_residual", params, data, y)
        if kind == "quantile" and self.law.discrete and key is None:
            raise ValueError(
                "quantile residuals of a discrete response are drawn at random within "
                "its step, so give key=0"
            )
        extra = () if kind != "quantile" else (key,)
        return self._evaluate(f"{kind}_residual", params, data, y, *extra)

    def _response(self, data: Tree) -> Array:
        return leaf_of(data, self.outcome) if isinstance(data, dict) else data

    def _evaluate(self, what: str, params: Tree, data: Tree, *args: Tree) -> Tree:
        """One function of the distribution at the natural parameters: pure under tracing, compiled
        and in float64 on the host.
        """
        of = self.law.function(what, self.name)
        natural = self.natural

        def run(params: Tree, data: Tree, *args: Tree) -> Tree:
            return of(*args, *natural(params, data))

        return self._evaluated((what, natural, of), run, params, data, *args)

    def _censored_residual(self, params: Tree, data: Tree, key: Array | None) -> Array:
        return self.censoring.residual(key, params, data)  # type: ignore[union-attr]

    def _evaluated(
        self, name: Tree, run: FunctionTo[Array], params: Tree, data: Tree, *args: Tree
    ) -> Tree:
        """``run(params, data, *args)``: inline under tracing, compiled in float64 on the host."""
        if hasattr(params, "params") and hasattr(params, "vcov"):
            raise TypeError(f"{self!r} takes parameters: give fit.params, not the fit")
        if tracing():
            return run(params, traced_data(data), *args)
        with precision(np.float64):
            params = host_params(params, np.float64)
            real = host_data(data, np.float64, nan=True)
            args = tuple(
                a if a is None or _is_key(a) else np.asarray(a, dtype=np.float64) for a in args
            )
            return to_numpy(
                compiled(as_tree(self.likelihood), name, lambda _: run)(params, real, *args)
            )


Model.__getattr__ = missing_of_model  # type: ignore[attr-defined]  # a checker finds typos without


def _thinned(rows: Tree, response: Array) -> Tree:
    """At most about 20 000 evenly spaced rows of a long data set: enough for a good start."""
    step = response.shape[0] // ROWS_FOR_START if response.ndim == 1 else 0
    return jax.tree.map(lambda leaf: leaf[::step], rows) if step > 1 else rows


def _is_key(value: object) -> bool:
    """Whether a value is a jax random key, new style or raw."""
    return isinstance(value, jax.Array) and (
        jnp.issubdtype(value.dtype, jax.dtypes.prng_key) or value.dtype == jnp.uint32
    )


def made_with(model: Model, tree: Loglik) -> Model:
    """The model with another likelihood; used to pickle what a combinator made of it."""
    return model.with_likelihood(tree)
