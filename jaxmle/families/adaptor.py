"""Distributions from other libraries as families: anything made from parameters that has
``log_prob``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from jaxmle._types import Array, Foreign, FunctionTo, NamedParams, Tree
from jaxmle.closures.recipes import with_recipe
from jaxmle.families import bounded, counts, location_scale, positive
from jaxmle.families.family import Family, Law
from jaxmle.families.moments import moments
from jaxmle.parameters.constraints import (
    Constraint,
    Interval,
    correlation,
    covariance,
    free,
    interval,
    ordered,
    simplex,
)
from jaxmle.parameters.constraints import (
    positive as above_zero,
)

# Constraints and bijectors by the name of their class: numpyro.distributions.constraints,
# tfp.bijectors.
NAMED: dict[str, Constraint] = {
    "Real": free, "RealVector": free, "RealMatrix": free, "Simplex": simplex,
    "OrderedVector": ordered, "CorrMatrix": correlation, "PositiveDefinite": covariance,
    "Identity": free, "Softplus": above_zero, "Exp": above_zero, "SoftmaxCentered": simplex,
}  # fmt: skip
CENTRES = ("loc", "mean", "mu")
SPREADS = ("scale", "stddev", "sigma")


def translated(name: str, foreign: Foreign) -> Constraint:
    """The jaxmle constraint that corresponds to another library's."""
    while hasattr(foreign, "base_constraint"):  # several event axes, all with the same constraint
        foreign = foreign.base_constraint
    kind = type(foreign).__name__.lstrip("_")  # numpyro has dropped the underscores
    if kind in NAMED:
        return NAMED[kind]
    if kind == "Sigmoid":
        low = getattr(foreign, "low", None)
        high = getattr(foreign, "high", None)
        return interval(0.0 if low is None else float(low), 1.0 if high is None else float(high))
    low = getattr(foreign, "lower_bound", None)
    high = getattr(foreign, "upper_bound", None)
    if (low is None and high is None) or getattr(foreign, "is_discrete", False):
        raise ValueError(
            f"{name} has a constraint of kind {kind}, which has no counterpart here: give "
            f"constraints={{{name!r}: …}}, or known={{{name!r}: …}} if it is not a "
            "parameter"
        )
    return Interval(
        -math.inf if low is None else float(low), math.inf if high is None else float(high)
    )


def _declared(distribution: Foreign) -> NamedParams:
    """The constraints that the distribution itself declares, by parameter: numpyro's
    ``arg_constraints`` or TFP's ``parameter_properties``.
    """
    declared = getattr(distribution, "arg_constraints", None)
    if isinstance(declared, Mapping):
        return dict(declared)
    properties = getattr(distribution, "parameter_properties", None)
    if properties is None:
        return {}
    return {
        name: declaration.default_constraining_bijector_fn
        for name, declaration in properties().items()
        if declaration.is_preferred
    }


def _constraint(name: str, declared: Foreign) -> Constraint:
    return translated(
        name, declared() if inspect.isfunction(declared) or inspect.ismethod(declared) else declared
    )


def _asked(
    distribution: FunctionTo[Foreign], constraints: Mapping[str, Tree], known: Mapping[str, Tree]
) -> dict[str, Constraint]:
    """The constraint of every parameter: those given, then those declared for arguments without
    default.
    """
    declared = _declared(distribution)
    arguments = inspect.signature(distribution).parameters
    wanted = [
        name
        for name, argument in arguments.items()
        if name in declared and (argument.default is not None or name in constraints)
    ]
    all_constraints = dict(constraints)
    for name in wanted:
        if name not in all_constraints and name not in known:
            all_constraints[name] = _constraint(name, declared[name])
    if not all_constraints:
        raise ValueError(
            f"{getattr(distribution, '__name__', distribution)} declares no constraints: give "
            "one for each parameter, such as constraints={'loc': jaxmle.free, 'scale': "
            "jaxmle.positive}"
        )
    return all_constraints


def _value(made: Foreign, *names: str) -> Tree:
    """The first attribute with one of these names, called if it is a method without arguments."""
    for name in names:
        if hasattr(made, name):
            value = getattr(made, name)
            return value() if callable(value) else value
    raise ValueError(f"{type(made).__name__} has no {' or '.join(names)}")


def _draw(made: Foreign, key: Array, shape: tuple[int, ...]) -> Array:
    """numpyro: sample(key, shape); distrax and TFP: sample(seed=, sample_shape=); distreqx:
    sample(key), one draw.
    """
    arguments = inspect.signature(made.sample).parameters
    if "seed" in arguments:
        return made.sample(seed=key, sample_shape=shape)
    if "sample_shape" in arguments:
        return made.sample(key, sample_shape=shape)
    keys = jax.random.split(key, math.prod(shape))
    drawn = jax.vmap(made.sample)(keys)
    return drawn.reshape(*shape, *drawn.shape[1:])


# ---------------------------------------------------------------- what is ours under another name

DISTRIBUTION_LIBRARIES = ("numpyro", "distrax", "distreqx", "tensorflow_probability")
PLACED: dict[str, tuple[str, ...]] = {"loc": ("loc",), "scale": ("scale",)}
# By the name of the class: the same distribution as a family, and which attribute is each of its
# parameters.
COUNTERPARTS: dict[str, tuple[Family, dict[str, tuple[str, ...]]]] = {
    "Normal": (location_scale.normal, PLACED), "Cauchy": (location_scale.cauchy, PLACED),
    "Laplace": (location_scale.laplace, PLACED), "Logistic": (location_scale.logistic, PLACED),
    "Gumbel": (location_scale.gumbel, PLACED),
    "StudentT": (location_scale.student_t, {"df": ("df",), **PLACED}),
    "Exponential": (positive.exponential, {"rate": ("rate",)}),
    "Gamma": (positive.gamma, {"shape": ("concentration",), "rate": ("rate",)}),
    "InverseGamma": (
        positive.inverse_gamma,
        {"shape": ("concentration",), "scale": ("rate", "scale")},
    ),
    "Weibull": (positive.weibull, {"shape": ("concentration",), "scale": ("scale",)}),
    "LogNormal": (positive.lognormal, {"meanlog": ("loc",), "sdlog": ("scale",)}),
    "Beta": (
        bounded.beta,
        {"shape1": ("concentration1", "alpha"), "shape2": ("concentration0", "beta")},
    ),
    "Poisson": (counts.poisson, {"rate": ("rate",)}),
    "BinomialProbs": (counts.binomial, {"prob": ("probs",), "trials": ("total_count",)}),
    "GeometricProbs": (counts.geometric, {"prob": ("probs",)}),
    "Bernoulli": (counts.bernoulli, {"prob": ("probs",)}),
    "BernoulliProbs": (counts.bernoulli, {"prob": ("probs",)}),
}  # fmt: skip


def _counterpart(made: Foreign) -> tuple[Family, NamedParams] | None:
    """The family of ours equivalent to this object, with its parameters; None if there is none.

    It is computed instead of the library's, whose densities have NaN derivatives far out and at the
    ends, whose upper tails are 1 − F, and whose gamma, beta and Student's t have no second
    derivatives in the shapes.
    """
    kind = type(made)
    if (
        kind.__module__.split(".")[0] not in DISTRIBUTION_LIBRARIES
        or kind.__name__ not in COUNTERPARTS
    ):
        return None
    family, attributes = COUNTERPARTS[kind.__name__]
    parameters = {}
    for name, choices in attributes.items():
        known = [getattr(made, choice) for choice in choices if hasattr(made, choice)]
        if not known or known[0] is None:
            return None
        parameters[name] = jnp.asarray(known[0], jnp.result_type(float))
    return family, parameters


# ---------------------------------------------------------------- values outside, and tails


def _bounds(made: Foreign) -> tuple[Tree, Tree]:
    support = getattr(made, "support", None)
    if support is None and (counterpart := _counterpart(made)) is not None:
        return counterpart[0].law.support(counterpart[1])
    low = getattr(support, "lower_bound", None)
    high = getattr(support, "upper_bound", None)
    return -jnp.inf if low is None else low, jnp.inf if high is None else high


def _inside(made: Foreign, low: Array, high: Array) -> Array:
    """A value at which the object's functions are well behaved, to stand in for those outside: its
    mean, else its median, else a point of the support.
    """
    spare = jnp.where(
        jnp.isinf(low),
        jnp.where(jnp.isinf(high), 0.0, high - 1.0),
        jnp.where(jnp.isinf(high), low + 1.0, 0.5 * (low + high)),
    )
    for ask in (
        lambda: _quantile(made, 0.5),
        lambda: _value(made, "median"),
        lambda: _value(made, "mean"),
    ):
        try:
            candidate = jnp.asarray(ask(), spare.dtype)
        except Exception:  # another library's method may raise anything: try the next
            continue
        spare = jnp.where(
            jnp.isfinite(candidate) & (candidate > low) & (candidate < high), candidate, spare
        )
    return jax.lax.stop_gradient(spare)


def _masked(
    made: Foreign,
    y: Array,
    function: Callable[[Array], Array],
    below: float,
    above: float,
    *,
    closed: bool,
) -> Array:
    """``function`` inside the support; constants outside and at infinity. An end of the support
    counts as inside if ``closed``.
    """
    low, high = _bounds(made)
    under = (y < low) if closed else (y <= low)
    over = (y > high) if closed else (y >= high)
    under = under | jnp.isneginf(y)
    over = over | jnp.isposinf(y)
    spare = _inside(made, low, high)
    inside = jnp.where(under | over, spare, y)
    # Where a library's function itself reaches such a constant, outside a support that the object
    # does not report or where a tail has run out, its derivatives may be NaN, and one such row
    # makes those of a mixture or of a truncated distribution NaN.
    value = jax.lax.stop_gradient(function(inside))
    at_end = (value == below) | (value == above)
    value = jnp.where(at_end, value, function(jnp.where(at_end, spare, inside)))
    return jnp.where(under, below, jnp.where(over, above, value))


def _log_prob(made: Foreign, y: Array) -> Array:
    counterpart = _counterpart(made)
    if counterpart is not None:
        return counterpart[0].law.log_prob(counterpart[1], y)
    if getattr(getattr(made, "support", None), "event_dim", 0) != 0 or _is_vector(made):
        return made.log_prob(y)
    if "Categorical" in type(made).__name__:  # a code is an index
        code = jnp.where(jnp.isfinite(y), y, 0.0).astype(int)
        return made.log_prob(code) + jnp.where(jnp.isnan(y), y, 0.0)
    return _masked(made, y, made.log_prob, -jnp.inf, -jnp.inf, closed=True)


def _is_vector(made: Foreign) -> bool:
    shape = getattr(made, "event_shape", ())
    return not callable(shape) and len(tuple(shape)) > 0


def _called(made: Foreign, *names: str) -> Callable[[Array], Array] | None:
    """The first of these methods that the object itself defines."""

    def answers(name: str) -> bool:
        try:
            jax.eval_shape(getattr(made, name), jnp.zeros(()))
        except (AttributeError, NotImplementedError):  # the name without the method
            return False
        return True

    return next((getattr(made, name) for name in names if answers(name)), None)


def _cdf(made: Foreign) -> Callable[[Array], Array]:
    """The distribution function, under either name."""
    plain = _called(made, "cdf")
    logarithm = _called(made, "log_cdf")
    if plain is not None:
        return plain
    if logarithm is not None:
        return lambda y: jnp.exp(logarithm(y))
    raise ValueError(
        f"{type(made).__name__} has no cdf or log_cdf: censored, truncated and rounded "
        "need one. Give a class that has one, or a family of jaxmle.families"
    )


def _log_cdf(made: Foreign, y: Array) -> Array:
    counterpart = _counterpart(made)
    if counterpart is not None:
        return counterpart[0].law.log_cdf(counterpart[1], y)
    function = _called(made, "log_cdf") or _log_of_cdf(made)
    return _masked(made, y, function, -jnp.inf, 0.0, closed=_is_discrete(made))


def _log_sf(made: Foreign, y: Array) -> Array:
    counterpart = _counterpart(made)
    if counterpart is not None:
        return counterpart[0].law.log_sf(counterpart[1], y)
    function = _called(made, "log_survival_function") or _log_of_complement(made)
    return _masked(made, y, function, 0.0, -jnp.inf, closed=_is_discrete(made))


def _log_of_cdf(made: Foreign) -> Callable[[Array], Array]:
    """log F of an object that has only F; −∞ where F = 0, without a NaN derivative there."""
    function = _cdf(made)

    def log_cdf(y: Array) -> Array:
        cdf = function(y)
        return jnp.where(cdf > 0, jnp.log(jnp.where(cdf > 0, cdf, 0.5)), -jnp.inf)

    return log_cdf


def _log_of_complement(made: Foreign) -> Callable[[Array], Array]:
    """log(1 − F) of an object that has only F; −∞ where F = 1, without a NaN derivative there."""
    function = _cdf(made)

    def log_sf(y: Array) -> Array:
        cdf = function(y)
        return jnp.where(cdf < 1, jnp.log1p(-jnp.where(cdf < 1, cdf, 0.5)), -jnp.inf)

    return log_sf


def _is_discrete(made: Foreign) -> bool:
    return bool(getattr(made, "is_discrete", False))


def _quantile(made: Foreign, q: float | Array) -> Array:
    return made.icdf(q) if hasattr(made, "icdf") else made.quantile(q)


def _guess(constraints: Mapping[str, Constraint], y: Array) -> NamedParams:
    """Moments for parameters named as a location or a scale; NaN, later moved inside the bounds,
    for the others.
    """
    mean, variance, xp = moments(y)
    table: NamedParams = {
        **dict.fromkeys(CENTRES, mean),
        **dict.fromkeys(SPREADS, xp.sqrt(variance)),
    }
    whole = [
        name
        for name, kind in constraints.items()
        if name not in table and not isinstance(kind, Interval)
    ]
    if whole:
        raise ValueError(f"{whole[0]} has no start: give from_distribution(start=…), or params0")
    return {name: table.get(name, jnp.nan) for name in constraints}


def _maker(
    distribution: FunctionTo[Foreign], names: tuple[str, ...]
) -> Callable[[NamedParams], Foreign]:
    """The function that makes the distribution's object from parameters."""

    def make(p: NamedParams) -> Foreign:
        made = distribution(**{name: p[name] for name in names})
        if not hasattr(made, "log_prob"):
            raise TypeError(
                f"{getattr(distribution, '__name__', 'distribution')} must return an object with "
                f"log_prob; got {type(made).__name__}"
            )
        return made

    return make


@with_recipe
def from_distribution(
    distribution: FunctionTo[Foreign],
    constraints: Mapping[str, Tree] | None = None,
    *,
    known: Mapping[str, float | None] | None = None,
    start: Callable[[Tree], NamedParams] | None = None,
    discrete: bool = False,
) -> Family:
    """A family from a distribution of numpyro, distrax, TensorFlow Probability (on JAX) or
    distreqx, or from any similar object.

    Args:
        distribution: a class or function that takes parameters by name and returns an object with
            ``log_prob(y)``. If the object has ``log_cdf``, ``cdf``, ``log_survival_function``,
            ``icdf``, ``quantile``, ``sample``, ``mean`` or ``variance``, the family has them too.
        constraints: a jaxmle constraint for each parameter. Missing ones are read from the class:
            numpyro's ``arg_constraints``, TFP's ``parameter_properties()``. distrax and distreqx
            declare none, so give them all.
        known: arguments that are not parameters, with a default, or None if the data must have
            them: ``{"total_count": None}``.
        start: a function of the values that returns start values; by default moments for a location
            and a scale, and otherwise 1, 1/2 or 0.
        discrete: whether values are integers.

    If a distribution of these libraries is also in ``jaxmle.families`` (Normal, Gamma, StudentT,
    Poisson, …), the jaxmle family is used, with its accurate tails. For others log_prob is −inf
    outside the declared support and otherwise what the library returns; tails are computed from
    ``log_cdf``, ``cdf`` or ``log_survival_function``, and a log_sf computed from ``cdf`` loses
    digits in the upper tail. ``censored`` and ``truncated`` need the tails.

    Raises:
        ValueError: for a parameter without a constraint, neither declared by the class nor given
            here.

    >>> import jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.families import from_distribution
    >>> class Rayleigh:
    ...     def __init__(self, scale):
    ...         self.scale = scale
    ...
    ...     def log_prob(self, y):
    ...         return jnp.log(y) - 2 * jnp.log(self.scale) - 0.5 * (y / self.scale) ** 2
    >>> rayleigh = from_distribution(Rayleigh, {"scale": jm.positive})
    >>> round(float(rayleigh.log_prob({"scale": 2.0}, 1.0)), 6)
    -1.511294
    """
    if not callable(distribution):
        raise TypeError(
            "from_distribution takes a class or a function that returns an object with "
            f"log_prob, not an instance; got {type(distribution).__name__}"
        )
    known = dict(known or {})
    all_constraints = _asked(distribution, constraints or {}, known)
    make = _maker(distribution, (*all_constraints, *known))
    law = Law(
        log_prob=lambda p, y: _log_prob(make(p), y),
        log_cdf=lambda p, y: _log_cdf(make(p), y),
        log_sf=lambda p, y: _log_sf(make(p), y),
        quantile=lambda p, q: _quantile(make(p), q),
        sample=lambda p, key, shape: _draw(make(p), key, shape),
        mean=lambda p: _value(make(p), "mean"),
        variance=lambda p: _value(make(p), "variance", "covariance"),
        support=lambda p: _bounds(make(p)),
        guess=lambda y, constants: _guess(all_constraints, y) if start is None else start(y),
    )
    name = getattr(distribution, "__name__", "distribution")
    return Family(name, all_constraints, law, known=known, discrete=discrete)
