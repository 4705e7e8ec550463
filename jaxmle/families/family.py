"""A family of distributions: a frozen record of pure functions of parameters and values.

``Law`` holds the mathematics, functions of parameters already read and converted. ``Family`` is
what users hold: it reads parameters and data, reports what is wrong with them, and is itself a
log-likelihood with start values and constraints.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Concatenate, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, FunctionTo, Key, NamedParams, Tree
from jaxmle.closures.recipes import reduced
from jaxmle.families.coding import Ends, check_values, in_row
from jaxmle.families.moments import finite_start
from jaxmle.parameters.constraints import Constraint
from jaxmle.parameters.keywords import missing_name
from jaxmle.runtime.calls import marked
from jaxmle.runtime.compile import to_numpy
from jaxmle.runtime.jax_state import exact, precision, tracing
from jaxmle.runtime.keys import typed_key
from jaxmle.special.gamma import real

Rest = ParamSpec("Rest")


def _values(y: Tree) -> Tree:
    """The values, in the precision of the parameters."""
    return y if tracing() else exact(y)


def _traced_or_in_numpy(
    method: Callable[Concatenate[Family, NamedParams, Rest], Tree],
) -> Callable[Concatenate[Family, NamedParams, Rest], Tree]:
    """A method that is plain JAX under tracing, and on the host runs in float64 and returns NumPy
    arrays; the types do not show which.
    """

    @functools.wraps(method)
    def run(self: Family, params: NamedParams, *args: Rest.args, **options: Rest.kwargs) -> Tree:
        if tracing():
            return method(self, params, *args, **options)
        with precision(np.float64):
            return to_numpy(method(self, exact(params), *args, **options))

    return run


@dataclass(frozen=True, eq=False)
class Law:
    """The functions of a family; None for those that it does not have. Parameters ``p`` are
    floating-point arrays that broadcast with the values.

    Functions of a value are called with (p, y), ``quantile`` with (p, q), ``sample`` with (p, key,
    shape) and the others with p alone. ``log_tails`` returns (log_cdf, log_sf), for families that
    compute both at once. ``information`` returns a dictionary from pairs of names to entries, in
    which absent entries are zero, or a whole matrix.

    >>> from jaxmle import families
    >>> float(families.exponential.law.mean({"rate": 4.0}))
    0.25
    """

    log_prob: Callable[[NamedParams, Tree], Array]
    support: Callable[[NamedParams], Ends]
    guess: Callable[[Tree, NamedParams], NamedParams]
    log_cdf: Tree = None
    log_sf: Tree = None
    log_tails: Tree = None
    quantile: Tree = None
    sample: Tree = None
    mean: Tree = None
    variance: Tree = None
    information: Tree = None


# What SciPy, numpyro and statsmodels call what a family has, or what is done with one.
ASKED_OF_A_FAMILY = {
    "fit": "jaxmle.fit(family, data=y)",
    **dict.fromkeys(("logpdf", "logpmf", "log_pdf"), "family.log_prob(params, y)"),
    **dict.fromkeys(("pdf", "pmf", "prob"), "jnp.exp(family.log_prob(params, y))"),
    **dict.fromkeys(("cdf", "logcdf"), "family.log_cdf(params, y)"),
    **dict.fromkeys(("sf", "logsf", "survival"), "family.log_sf(params, y)"),
    **dict.fromkeys(("ppf", "icdf", "inverse_cdf"), "family.quantile(params, q)"),
    **dict.fromkeys(("rvs", "random", "draw"), "family.sample(params, key, shape)"),
    **dict.fromkeys(("var", "std"), "family.variance(params)"),
}


@dataclass(frozen=True, eq=False)
class Family:
    """A family of distributions, and a log-likelihood: ``family(params, data)`` returns the terms
    (n,).

    ``params`` is a dictionary of the names in ``constraints``; its values broadcast with the values
    y, so that a parameter may differ from row to row. Called on the host, a family's functions run
    in float64 and return NumPy arrays; under a trace they are plain JAX. You can pass a family
    directly to ``jaxmle.fit``, because it knows its start and its constraints. All functions are
    differentiable.

    Attributes:
        name: its name.
        constraints: the constraint of each parameter, as in ``jaxmle.fit``.
        law: the functions below, without checks of their arguments.
        known: constants such as the number of trials, with their default (None: must be given).
            They are given with the parameters in ``params``, or with the values in ``data``:
            ``{"y": y, "trials": trials}``.
        fields: the leaves that ``data`` may have instead of y, if values are observed in another
            form (``censored``).
        discrete: whether the values are integers and ``log_prob`` is a log probability.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle.families import gamma
    >>> y = np.array([1.0, 2.0, 4.0, 3.0])
    >>> fit = jm.fit(gamma, data=y)
    >>> bool(fit.converged), {name: round(float(value), 4) for name, value in fit.params.items()}
    (True, {'rate': 1.7062, 'shape': 4.2654})
    """

    name: str
    constraints: dict[str, Constraint | Tree]
    law: Law
    known: Mapping[str, float | None] = field(default_factory=dict)
    fields: tuple[tuple[str, ...], ...] = ()
    discrete: bool = False

    if not TYPE_CHECKING:  # a checker finds the names that are not there by itself

        def __getattr__(self, name: str) -> object:
            public = [known for known in dir(type(self)) if not known.startswith("_")]
            raise missing_name("a family", name, public, ASKED_OF_A_FAMILY.get(name, ""))

    def __reduce__(self) -> tuple[Tree, ...]:
        return reduced(self, "jaxmle.families")

    def __call__(self, params: NamedParams, data: Tree) -> Array:
        """The log-likelihood terms (n,) of ``data``: the values y (n,), or a dictionary of them
        and of known constants.
        """
        if not tracing():
            self.check_data(data)
        y, known = self.parts(marked(self.check_data, data))
        return self.log_prob({**params, **known}, y)

    def start(self, data: Tree) -> NamedParams:
        """Start values from moments of ``data``, NumPy arrays for NumPy data; inside the
        constraints even for constant data.
        """
        y, known = self.parts(data)
        constants = {**self.known, **known}
        missing = [name for name, value in constants.items() if value is None]
        if missing:
            raise ValueError(
                f"{self.name} needs {missing[0]!r}: give data={{'y': …, {missing[0]!r}: …}}"
            )
        return finite_start(self.law.guess(y, constants), self.constraints)

    def check_data(self, data: Tree, place: Callable[[tuple[int, ...]], str] = in_row) -> None:
        """Raise a ValueError for a value in the wrong coding: a value that is impossible in a
        discrete family, an event that is not 0 or 1, ends out of order.

        A value with density 0 is not an error here: the fit is then NONFINITE and names the row.
        """
        check_values(self, data, place, support=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters in the order of a fit's matrices, which is alphabetical."""
        return tuple(sorted(self.constraints))

    @_traced_or_in_numpy
    def log_prob(self, params: NamedParams, y: Tree) -> Array:
        """Log density, or log probability of a discrete value, at y; −inf outside the support,
        with finite derivatives.
        """
        return self.law.log_prob(self.read(params), jax.tree.map(real, _values(y)))

    @_traced_or_in_numpy
    def log_cdf(self, params: NamedParams, y: Tree) -> Array:
        """log P(Y ≤ y), accurate in the lower tail."""
        return self._have("log_cdf")(self.read(params), real(_values(y)))

    @_traced_or_in_numpy
    def log_sf(self, params: NamedParams, y: Tree) -> Array:
        """log P(Y > y), accurate in the upper tail."""
        return self._have("log_sf")(self.read(params), real(_values(y)))

    @_traced_or_in_numpy
    def quantile(self, params: NamedParams, q: Tree) -> Array:
        """The smallest y with P(Y ≤ y) ≥ q; the ends of the support at 0 and 1, NaN outside [0,
        1].
        """
        p = self.read(params)
        q = real(_values(q))
        low, high = self.law.support(p)
        inside = (q > 0) & (q < 1)
        value = self._have("quantile")(p, jnp.where(inside, q, 0.5))
        return jnp.where(inside, value, jnp.where(q == 0, low, jnp.where(q == 1, high, jnp.nan)))

    @_traced_or_in_numpy
    def sample(self, params: NamedParams, key: Key, shape: tuple[int, ...] = ()) -> Array:
        """Independent draws of shape ``shape``, with which the parameters broadcast; a vector or a
        category counts as one draw. ``key`` is an integer or a jax key.
        """
        size = (shape,) if isinstance(shape, int) else tuple(shape)
        return self._have("sample")(self.read(params), typed_key(key), size)

    @_traced_or_in_numpy
    def mean(self, params: NamedParams) -> Array:
        """The mean E Y; infinite or NaN if it is infinite or does not exist."""
        return self._have("mean")(self.read(params))

    @_traced_or_in_numpy
    def variance(self, params: NamedParams) -> Array:
        """The variance Var Y, a covariance matrix for vectors; infinite or NaN if it is infinite or
        does not exist.
        """
        return self._have("variance")(self.read(params))

    @_traced_or_in_numpy
    def support(self, params: NamedParams) -> Ends:
        """The lowest and the highest value."""
        return self.law.support(self.read(params))

    @_traced_or_in_numpy
    def information(self, params: NamedParams) -> Array | None:
        """Expected (Fisher) information of one observation, (…, k, k) in the order of
        ``names``; None if it has no closed form.
        """
        if self.law.information is None:
            return None
        information = self.law.information(self.read(params))
        if not isinstance(information, dict):
            return information
        entries: list[list[Tree]] = [
            [information.get((a, b), information.get((b, a), 0.0)) for b in self.names]
            for a in self.names
        ]
        flat = jnp.broadcast_arrays(*(real(entry) for row in entries for entry in row))
        k = len(self.names)
        return jnp.stack(flat, axis=-1).reshape(*flat[0].shape, k, k)

    def parts(self, data: Tree) -> tuple[Tree, NamedParams]:
        """The values, and the constants given with them."""
        if not isinstance(data, dict):
            if self.fields:
                raise ValueError(
                    f"{self.name} needs data as a dictionary of {self._forms()}; got "
                    f"{type(data).__name__}"
                )
            return data, {}
        known = {key: data[key] for key in self.known if key in data}
        rest = {key: value for key, value in data.items() if key not in known}
        if set(rest) in map(set, self.fields):
            return rest, known
        if self.fields or set(rest) != {"y"}:
            raise ValueError(
                f"{self.name} takes {'' if self.fields else 'the values (n,), or '}a dictionary "
                f"of {self._forms()}; got {sorted(map(str, data))}"
            )
        return rest["y"], known

    def read(self, params: NamedParams) -> NamedParams:
        """The parameters and known constants as floating-point arrays."""
        if not isinstance(params, Mapping):
            raise TypeError(
                f"the parameters of {self.name} are a dictionary of {list(self.names)}; got "
                f"{type(params).__name__}"
            )
        p = {**self.known, **params}
        missing = [name for name in self.names if name not in params] + [
            name for name in self.known if p[name] is None
        ]
        if missing:
            where = (
                f": give data={{'y': …, {missing[0]!r}: …}}, or params[{missing[0]!r}]"
                if missing[0] in self.known
                else ""
            )
            raise ValueError(
                f"{self.name} needs {missing[0]!r}{where}; params has {sorted(map(str, params))}"
            )
        unknown = [
            name for name in params if name not in self.constraints and name not in self.known
        ]
        if unknown:
            raise ValueError(
                f"{self.name} has no parameter {unknown[0]!r}; it has {[*self.names, *self.known]}"
            )
        return jax.tree.map(real, p)

    def _forms(self) -> str:
        """The dictionaries that ``data`` can be."""
        also = f", and of {' and '.join(map(repr, self.known))} where known" if self.known else ""
        return (
            " or ".join(" and ".join(map(repr, form)) for form in self.fields or (("y",),)) + also
        )

    def _have(self, what: str) -> FunctionTo[Array]:
        function = getattr(self.law, what)
        if function is None:
            raise ValueError(f"{self.name} has no {what}: it has no closed form, or none was given")
        return function


def masked(
    y: Array,
    low: float | Array,
    high: float | Array,
    spare: float | Array,
    inside: Callable[[Array], Array],
    below: float,
    above: float,
) -> Array:
    """``inside(y)`` strictly between low and high, constants at and beyond them; NaN stays NaN.

    Outside, ``inside`` is evaluated at ``spare``, so that its derivatives are finite before they
    are discarded.
    """
    under = y <= low
    over = y >= high
    value = inside(jnp.where(under | over, spare, y))
    return jnp.where(under, below, jnp.where(over, above, value))


def edge(power: Array, value: Array) -> Array:
    """The log of c·dᵖ as the distance d to the end of the support goes to 0, where log c =
    ``value``.
    """
    return jnp.where(power == 0, value, jnp.where(power > 0, -jnp.inf, jnp.inf))


def uniform(key: Array, shape: tuple[int, ...]) -> Array:
    """Uniform on the open interval (0, 1)."""
    return jax.random.uniform(key, shape, minval=jnp.finfo(jnp.result_type(float)).tiny)


def by_quantile(
    quantile: Callable[[NamedParams, Array], Array],
) -> Callable[[NamedParams, Array, tuple[int, ...]], Array]:
    """The sampler that inverts a distribution function."""
    return lambda p, key, shape: quantile(p, uniform(key, shape))


def document(family: Family, text: str) -> None:
    """Give a family its own docstring, shown by ``help`` and notebooks."""
    object.__setattr__(family, "__doc__", inspect.cleandoc(text))
