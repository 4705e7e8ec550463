"""log Γ kept to positive arguments in a user's function.

``lgamma`` of jax is log |Γ(x)|, which is finite between the poles at 0, −1, −2, …. No density means
that: in a negative binomial with a raw size r, or a capture model with a raw number N, it makes a
second, often unbounded, likelihood beyond the pole, and a long step may land there. In a function
kept to its domain it is NaN there, as ``jaxmle.special.gammaln`` is, and such a step is refused. At
the poles it stays +∞, which binomial coefficients use for impossible counts.
"""

from __future__ import annotations

import types
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from jaxmle._types import Array, Foreign, Function, Loglik, Tree
from jaxmle.likelihood.codes import called
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.structure import program_of_terms
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.calls import aval_of, programs_in, results_of
from jaxmle.runtime.compile import compiled, remembered, rewrite
from jaxmle.runtime.opaque import map_functions

LOG_GAMMA = "lgamma"
LOOPS = ("scan", "while", "cond")


def keep_log_gamma_to_its_domain(loglik: Loglik, layout: Layout, base: Array, data: Tree) -> None:
    """Keep log Γ to positive arguments in what is compiled of a likelihood from now on, if any
    depend on the parameters and all are positive at the start ``base`` (p,). A function that takes
    log |Γ| of negative numbers there, on purpose, is left as it is.
    """

    def depends(loglik: Loglik) -> bool:
        jaxpr = program_of_terms(loglik, layout, base, data).jaxpr
        return _depends_on_log_gamma(jaxpr, jaxpr.invars[:1])

    if not remembered(loglik, ("log gamma", layout), depends):
        return
    rewrite(loglik, None)

    def make(loglik: Loglik) -> Function:
        return partial(_value_on_domain, loglik, layout)

    if np.isfinite(compiled(loglik, ("value on its domain", layout), make)(base, data)):
        rewrite(loglik, _on_its_domain)


def restricted_under_trace(loglik: Loglik, layout: Layout, base: Array, data: Tree) -> Loglik:
    """A likelihood whose log Γ is kept to positive arguments, if any depend on the parameters and,
    which only the running program knows, all are positive at the start ``base`` (p,).
    """
    jaxpr = program_of_terms(loglik, layout, base, data).jaxpr
    if not _depends_on_log_gamma(jaxpr, jaxpr.invars[:1]):
        return loglik
    holds = jnp.isfinite(_value_on_domain(loglik, layout, base, data))
    return map_functions(loglik, partial(_on_its_domain, holds=holds))


def _value_on_domain(loglik: Loglik, layout: Layout, x: Array, data: Tree) -> Array:
    """ℓ at x (p,), with log Γ kept to its domain."""
    restricted = map_functions(loglik, _on_its_domain)
    return jnp.sum(terms_of(restricted, layout.unravel(x), data))


def _depends_on_log_gamma(jaxpr: Jaxpr, inputs: Iterable[Tree]) -> bool:
    """Whether a program computes log Γ of anything that depends on some of its ``inputs``. Every
    input of an inner program counts as depending on them if one does.
    """
    moving = set(inputs)
    for equation in jaxpr.eqns:
        if not any(not isinstance(atom, Literal) and atom in moving for atom in equation.invars):
            continue
        moving.update(equation.outvars)
        if equation.primitive.name == LOG_GAMMA:
            return True
        if any(_depends_on_log_gamma(inner, inner.invars) for inner in programs_in(equation)):
            return True
    return False


def _on_its_domain(function: Function, holds: Array | bool = True) -> Function:
    """A user's function kept to its domain where a condition ``holds`` (). Those of this package
    are, and other callables may have methods that are read.
    """
    inner = function.func if isinstance(function, partial) else function
    is_plain = isinstance(inner, types.FunctionType | types.MethodType)
    is_ours = (getattr(inner, "__module__", None) or "").startswith("jaxmle.")
    return OnItsDomain(function, holds) if is_plain and not is_ours else function


@dataclass(frozen=True, eq=False)
class OnItsDomain:
    """A user's function of trees of arrays in which log Γ of a negative number is NaN, where a
    condition ``holds`` ().
    """

    function: Function
    holds: Array | bool = True

    def __call__(self, *arguments: Tree) -> Tree:
        program, shape = jax.make_jaxpr(self.function, return_shape=True)(*arguments)
        outs = _run(program, jax.tree.leaves(arguments), self.holds)
        return jax.tree.unflatten(jax.tree.structure(shape), outs)


def _run(program: ClosedJaxpr, arguments: Iterable[Array], holds: Array | bool) -> list[Array]:
    """The results of a program, with log Γ kept to its domain where a condition ``holds`` ()."""
    jaxpr = program.jaxpr
    table: dict[Tree, Array] = dict(zip(jaxpr.constvars, program.consts, strict=True))
    table |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Foreign) -> Array:
        return atom.val if isinstance(atom, Literal) else table[atom]

    for equation in jaxpr.eqns:
        values = [read(atom) for atom in equation.invars]
        table |= dict(zip(equation.outvars, _applied(equation, values, holds), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _applied(equation: JaxprEqn, values: list[Array], holds: Array | bool) -> list[Array]:
    """The results of one operation."""
    name = equation.primitive.name
    if name == LOG_GAMMA:
        (result,) = results_of(equation, values)
        return [jnp.where(holds & (values[0] < 0) & jnp.isfinite(result), jnp.nan, result)]
    if not any(map(_has_log_gamma, programs_in(equation))):
        return results_of(equation, values)
    if name in LOOPS:
        params = {key: _restricted(entry, holds) for key, entry in equation.params.items()}
        return results_of(equation.replace(params=params), values)
    program = None if name.startswith("custom") else called(equation)
    return results_of(equation, values) if program is None else _run(program, values, holds)


def _restricted(entry: Foreign, holds: Array | bool) -> Foreign:
    """A parameter of a loop, with log Γ kept to its domain where it is a program."""
    if type(entry) is tuple:
        return tuple(_restricted(inner, holds) for inner in entry)
    if not isinstance(entry, ClosedJaxpr) or not _has_log_gamma(entry.jaxpr):
        return entry
    shapes = [
        jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)
        for aval in map(aval_of, entry.jaxpr.invars)
    ]
    return jax.make_jaxpr(lambda *arguments: _run(entry, arguments, holds))(*shapes)


def _has_log_gamma(jaxpr: Jaxpr) -> bool:
    return any(
        equation.primitive.name == LOG_GAMMA or any(map(_has_log_gamma, programs_in(equation)))
        for equation in jaxpr.eqns
    )
