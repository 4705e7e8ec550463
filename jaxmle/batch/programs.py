"""Passes over the data of many members: what one member's ``Passes`` does, for blocks of members,
one block after the other.

A block is small enough to stay in a core's cache. A block in which nobody wants the pass is left
out: members that are done cost nothing. These are the only programs of a batch that contain the
user's likelihood, one small program for each pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmle._types import Array, Tree
from jaxmle.fitting.objective import drop_user_scale
from jaxmle.fitting.passes import Passes, Problem, objective_of, robust_covariance
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.histogram import uncounted
from jaxmle.likelihood.recession import Ways, ways
from jaxmle.likelihood.regression import linear_designs, sharing
from jaxmle.likelihood.structure import count
from jaxmle.solvers.first_order import approach
from jaxmle.solvers.float32_start import sprint


class Members(NamedTuple):
    """What the members of a batch are made of: each leaf with a leading axis, or shared by all."""

    loglik: Tree  # a likelihood whose leaves (weights, held values) may differ between members
    base: Array  # (p,) values of the entries that do not move
    data: Tree
    codes: tuple[Array, ...]


class Form(NamedTuple):
    """How flat leaves make up ``Members``: static."""

    treedef: Any
    shared: tuple[bool, ...]  # for each leaf whether all members share it

    def member(self, own: Sequence[Array], common: Sequence[Array]) -> Members:
        ours = iter(common)
        theirs = iter(own)
        return jax.tree.unflatten(
            self.treedef, [next(ours) if one else next(theirs) for one in self.shared]
        )

    def designs(self, own: Sequence[Array], common: Sequence[Array]) -> list[int]:
        """Which of one member's own leaves are designs, to be laid out by columns."""
        alone = self.member(own, common)
        flags = iter(jax.tree.leaves(linear_designs(alone.loglik, alone.data)))
        start = len(jax.tree.leaves((alone.loglik, alone.base)))
        stop = start + len(jax.tree.leaves(alone.data))
        marked = [next(flags) if start <= i < stop else False for i in range(len(self.shared))]
        return [
            place
            for place, i in enumerate(i for i, one in enumerate(self.shared) if not one)
            if marked[i]
        ]

    def whole(self, own: Sequence[Array], common: Sequence[Array], turned: list[int]) -> Members:
        """One member from leaves laid out by columns where they are designs; a regression is
        told which designs all members share.
        """
        found = self.member([leaf.T if i in turned else leaf for i, leaf in enumerate(own)], common)
        start = len(jax.tree.leaves((found.loglik, found.base)))
        same = jax.tree.unflatten(
            jax.tree.structure(found.data),
            self.shared[start : start + len(jax.tree.leaves(found.data))],
        )
        return found._replace(loglik=sharing(found.loglik, found.data, same))


def single(own: Sequence[Array], axes: int) -> list[Any]:
    """The shapes of one member's leaves."""
    return [jax.ShapeDtypeStruct(leaf.shape[axes:], leaf.dtype) for leaf in own]


def over_blocks(
    one: Callable[..., Any],
    form: Form,
    own: Sequence[Array],
    common: Sequence[Array],
    wanted: Array,
    args: Any,
) -> Any:
    """``one(member, *args)`` for members (blocks, lanes), where ``wanted``; zeros in blocks where
    nobody wants it.

    Args:
        own: leaves (blocks, lanes, ...), designs by columns.
        args: a tuple of further trees with the same two leading axes.
    """
    turned = form.designs(single(own, 2), common)  # a design is one whichever way it is turned
    call = jax.vmap(lambda own, args: one(form.whole(own, common, turned), *args))

    def at(tree: Any, i: Any) -> Any:
        return jax.tree.map(
            lambda leaf: jax.lax.dynamic_index_in_dim(leaf, i, keepdims=False), tree
        )

    shapes = jax.eval_shape(lambda: call(at(own, 0), at(args, 0)))

    def block(i: Array) -> Any:
        # cut out in here: a block that is left out is not copied
        def taken(i: Array) -> Any:
            return call(at(own, i), at(args, i))

        return jax.lax.cond(
            jnp.any(wanted[i]),
            taken,
            lambda i: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes),
            i,
        )

    return jax.lax.map(block, jnp.arange(wanted.shape[0]))


def over_seats(
    one: Callable[..., Any],
    form: Form,
    own: Sequence[Array],
    common: Sequence[Array],
    wanted: Array,
    args: Any,
) -> Any:
    """The same for seats in one row, (b, ...), of which the last may be without data: those get
    zeros.
    """
    blocks, lanes = own[0].shape[:2]
    empty = wanted.shape[0] - blocks * lanes

    def fold(leaf: Any) -> Any:
        return leaf[: blocks * lanes].reshape(blocks, lanes, *leaf.shape[1:])

    def unfold(leaf: Any) -> Any:
        return jnp.pad(leaf.reshape(-1, *leaf.shape[2:]), [(0, empty)] + [(0, 0)] * (leaf.ndim - 2))

    return jax.tree.map(
        unfold, over_blocks(one, form, own, common, fold(wanted), jax.tree.map(fold, args))
    )


# ---------------------------------------------------------------- the passes


def _of_each(one: Callable[..., Any]) -> Callable[..., Any]:
    """A pass over all seats, (problem, form, own, common, wanted, args), from what it does for
    one member, (problem, member, *args).
    """
    return lambda problem, form, own, common, wanted, args: over_seats(
        partial(one, problem), form, own, common, wanted, args
    )


def _passes(problem: Problem, member: Members) -> Passes:
    problem = replace(problem, loglik=member.loglik)
    return Passes.traced(problem, member.base, member.data, member.codes)


def point_at(problem: Problem, member: Members, z: Array) -> Any:
    """Value, score and Hessian at z (k,)."""
    return drop_user_scale(problem.chart, _passes(problem, member).evaluate(z))


evaluate = _of_each(point_at)


def sprinted(
    problem: Problem,
    form: Form,
    own: Sequence[Array],
    common: Sequence[Array],
    wanted: Array,
    args: tuple[Array, Array],
) -> tuple[Array, Array, Array]:
    """First steps in single precision: from starts z (b, k) and the evaluations that each may have
    (b,) to what ``sprint`` finds.

    Args:
        own: leaves in single precision.
    """
    common = _halved(common)

    def rough(member: Members, z: Array) -> Any:
        return _halved(point_at(problem, member, z)._replace(z=z, aux=None, curvature=None))

    return sprint(
        lambda z, asking: over_seats(rough, form, own, common, asking, (z,)),
        args[0],
        wanted,
        args[1],
    )


def _halved(tree: Tree) -> Tree:
    """The floating-point leaves in single precision."""
    return jax.tree.map(
        lambda leaf: (
            jnp.asarray(leaf).astype(jnp.float32)
            if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
            else leaf
        ),
        tree,
    )


@_of_each
def further(problem: Problem, member: Members, point: Any, verdict: Any) -> Any:
    """The sandwich or the expected information at the end."""
    return robust_covariance(_passes(problem, member), point, verdict)


@_of_each
def first_bad(problem: Problem, member: Members, z: Array) -> Array:
    """The first term that is not finite."""
    return _passes(problem, member).first_bad(problem.chart.to_user(z, member.base))


@_of_each
def first_rough(problem: Problem, member: Members, z: Array) -> Array:
    """The first row of which a term or a derivative is not finite."""
    return _passes(problem, member).first_rough(problem.chart.to_user(z, member.base))


@_of_each
def recession(problem: Problem, member: Members) -> Ways:
    """The gradients of the terms at many points."""
    return ways(uncounted(member.loglik), problem.layout, member.base, member.data)


@_of_each
def counted(problem: Problem, member: Members) -> Array:
    """n; NaN where a likelihood without data returns one number."""

    def terms() -> float:
        params = problem.layout.unravel(member.base)
        shape = jax.eval_shape(
            lambda: terms_of(uncounted(member.loglik), params, member.data)
        ).shape
        return shape[0] if shape else jnp.nan

    return jnp.asarray(count(member.loglik, member.data, terms), member.base.dtype)


@_of_each
def approached(problem: Problem, member: Members, z: Array) -> Any:
    """The neighbourhood of the maximum by a first-order method, and its steps."""
    problem = replace(problem, loglik=member.loglik)
    objective = objective_of(problem, member.base, member.data)
    return approach(problem.solver, objective.value, objective, objective.curvatures, z)
