"""A program that does each of its operations once.

Derivatives of derivatives repeat the operations of the function they are taken of. XLA finds most
of what is the same, but not what it has rewritten in two ways before it looks: the second
derivatives of a Gaussian peak along its width took a second exponential of every pixel.
"""

from __future__ import annotations

from collections.abc import Hashable

import jax
import numpy as np
from jax.core import eval_jaxpr
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from jaxmle._types import Atom, Function, Tree


def without_repeats(function: Function) -> Function:
    """``function`` of trees of arrays, its operations on the same arguments done once. For use
    under a trace: it is traced at each call.
    """

    def call(*args: Tree) -> Tree:
        program, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        outs = eval_jaxpr(_merged(program.jaxpr), program.consts, *jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), outs)

    return call


def _merged(jaxpr: Jaxpr) -> Jaxpr:
    """The program without operations that come a second time."""
    same: dict[Atom, Atom] = {}  # from a variable to the earlier one that holds the same
    done: dict[Hashable, list[Var]] = {}
    distinct = []

    def first(atom: Atom) -> Atom:
        return atom if isinstance(atom, Literal) else same.get(atom, atom)

    for equation in jaxpr.eqns:
        equation = equation.replace(invars=[first(atom) for atom in equation.invars])
        key = _key(equation)
        if key in done:
            same.update(zip(equation.outvars, done[key], strict=True))
            continue
        distinct.append(equation)
        if key is not None:
            done[key] = equation.outvars
    return jaxpr.replace(eqns=distinct, outvars=[first(atom) for atom in jaxpr.outvars])


def _key(equation: JaxprEqn) -> Hashable | None:
    """A key, equal for equations with equal results; None for one that is not compared."""
    atoms = tuple(
        (str(atom.aval), np.asarray(atom.val).tobytes()) if isinstance(atom, Literal) else atom
        for atom in equation.invars
    )
    key = (equation.primitive, atoms, tuple(sorted(equation.params.items())))
    try:
        hash(key)
    except TypeError:  # a parameter without a hash
        return None
    return None if equation.effects else key
