"""Passes over the data of many members: the ``Passes`` of one member, run for one block of members
after the other.

A block is small enough to stay in a core's cache. A block without active members is left out:
members that are done cost nothing. These are the only programs of a batch that contain the
user's likelihood, one small program for each pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmle._types import Array, Function, Tree, TreeDef
from jaxmle.fitting.ending import CovarianceParts, robust_covariance
from jaxmle.fitting.objective import drop_user_scale
from jaxmle.fitting.passes import Passes, Problem, objective_of
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.histogram import uncounted
from jaxmle.likelihood.structure import count, linear_designs, sharing
from jaxmle.solvers.first_order import approach
from jaxmle.solvers.state import Point


class Members(NamedTuple):
    """The members of a batch as leaves, each with a leading axis over members or shared by all."""

    loglik: Tree  # a likelihood whose leaves (weights, held values) may differ between members
    base: Array  # (p,) values of the entries that do not move
    data: Tree
    codes: tuple[Array, ...]


class Form(NamedTuple):
    """How ``Members`` are put together from flat leaves; static."""

    treedef: TreeDef
    shared: tuple[bool, ...]  # for each leaf whether all members share it

    def member(self, per_member: Sequence[Array], common: Sequence[Array]) -> Members:
        """One member, from its own leaves and the shared ones."""
        shared = iter(common)
        varying = iter(per_member)
        leaves = [next(shared) if is_shared else next(varying) for is_shared in self.shared]
        return jax.tree.unflatten(self.treedef, leaves)

    def designs(self, per_member: Sequence[Array], common: Sequence[Array]) -> list[int]:
        """Which of a member's own leaves are designs, which are stored by columns."""
        member = self.member(per_member, common)
        flags = iter(jax.tree.leaves(linear_designs(member.loglik, member.data)))
        start = len(jax.tree.leaves((member.loglik, member.base)))
        stop = start + len(jax.tree.leaves(member.data))
        is_design = [next(flags) if start <= i < stop else False for i in range(len(self.shared))]
        places = [i for i, is_shared in enumerate(self.shared) if not is_shared]
        return [place for place, i in enumerate(places) if is_design[i]]

    def whole(
        self, per_member: Sequence[Array], common: Sequence[Array], by_columns: list[int]
    ) -> Members:
        """One member, from leaves in which designs are stored by columns; a regression is marked
        with the designs that all members share.
        """
        leaves = [leaf.T if i in by_columns else leaf for i, leaf in enumerate(per_member)]
        member = self.member(leaves, common)
        start = len(jax.tree.leaves((member.loglik, member.base)))
        stop = start + len(jax.tree.leaves(member.data))
        same = jax.tree.unflatten(jax.tree.structure(member.data), self.shared[start:stop])
        return member._replace(loglik=sharing(member.loglik, member.data, same))


def single(per_member: Sequence[Array], axes: int) -> list[Tree]:
    """The leaves of one member, as shapes."""
    return [jax.ShapeDtypeStruct(leaf.shape[axes:], leaf.dtype) for leaf in per_member]


def over_blocks(
    run: Function,
    form: Form,
    per_member: Sequence[Array],
    common: Sequence[Array],
    active: Array,
    args: Tree,
) -> Tree:
    """``run(member, *args)`` for the active members of (blocks, block_size), as (..., blocks ×
    block_size); zeros in blocks without any.

    Args:
        per_member: leaves (blocks, block_size, ...), designs by columns.
        common: the leaves that all members share.
        active: (blocks, block_size) whether a member takes part.
        args: a tuple of further trees with the same two leading axes.
    """
    # a design is one whichever way its axes are laid out
    by_columns = form.designs(single(per_member, 2), common)

    def run_member(leaves: Tree, args: Tree) -> Tree:
        return run(form.whole(leaves, common, by_columns), *args)

    run_block = jax.vmap(run_member, out_axes=-1)

    def block_of(tree: Tree, i: Tree) -> Tree:
        return jax.tree.map(
            lambda leaf: jax.lax.dynamic_index_in_dim(leaf, i, keepdims=False), tree
        )

    def computed(i: Tree) -> Tree:
        # cut out in here: a block that is left out is not copied
        return run_block(block_of(per_member, i), block_of(args, i))

    blocks, block_size = active.shape
    shapes = jax.eval_shape(lambda: computed(0))
    zeros = jax.tree.map(lambda s: jnp.zeros((*s.shape[:-1], blocks * block_size), s.dtype), shapes)
    asked = jnp.cumsum(jnp.any(active, axis=1))  # how many blocks are up to this one

    def one_more(done: Array, whole: Tree) -> Tree:
        i = jnp.sum(asked <= done)
        return jax.tree.map(
            lambda leaf, part: jax.lax.dynamic_update_slice_in_dim(leaf, part, i * block_size, -1),
            whole,
            computed(i),
        )

    return jax.lax.fori_loop(0, asked[-1], one_more, zeros)


def over_slots(
    run: Function,
    form: Form,
    per_member: Sequence[Array],
    common: Sequence[Array],
    active: Array,
    args: Tree,
) -> Tree:
    """``over_blocks`` for a flat axis of slots: active (b,) and args (b, ...). Slots without data
    get zeros. In the result the axis of slots is last.
    """
    blocks, block_size = per_member[0].shape[:2]
    with_data = blocks * block_size
    empty = active.shape[0] - with_data

    def fold(leaf: Tree) -> Tree:
        return leaf[:with_data].reshape(blocks, block_size, *leaf.shape[1:])

    def longer(leaf: Tree) -> Tree:
        return jnp.pad(leaf, [(0, 0)] * (leaf.ndim - 1) + [(0, empty)]) if empty else leaf

    folded = jax.tree.map(fold, args)
    return jax.tree.map(longer, over_blocks(run, form, per_member, common, fold(active), folded))


# ---------------------------------------------------------------- the passes


def _for_each_member(run: Function) -> Function:
    """Turn a pass for one member, (problem, member, *args), into a pass over all slots, (problem,
    form, per_member, common, active, args).
    """
    return lambda problem, form, per_member, common, active, args: over_slots(
        partial(run, problem), form, per_member, common, active, args
    )


def _passes(problem: Problem, member: Members) -> Passes:
    problem = replace(problem, loglik=member.loglik)
    return Passes.traced(problem, member.base, member.data, member.codes)


def point_at(problem: Problem, member: Members, z: Array) -> Point:
    """Value, score and Hessian at z (k,)."""
    return drop_user_scale(problem.chart, _passes(problem, member).evaluate(z))


evaluate = _for_each_member(point_at)


def evaluate_in_float32(
    problem: Problem,
    form: Form,
    per_member: Sequence[Array],
    common: Sequence[Array],
    active: Array,
    args: tuple[Array],
) -> Tree:
    """``evaluate`` for leaves and z (b, k) in single precision; what all members share is converted
    too.
    """

    def evaluate_member(problem: Problem, member: Members, z: Array) -> Tree:
        point = point_at(problem, member, z)._replace(z=z, aux=None, curvature=None)
        return _in_float32(point)

    run = _for_each_member(evaluate_member)
    return run(problem, form, per_member, _in_float32(common), active, args)


def _in_float32(tree: Tree) -> Tree:
    """The floating-point leaves in single precision."""
    return jax.tree.map(
        lambda leaf: (
            jnp.asarray(leaf).astype(jnp.float32)
            if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
            else leaf
        ),
        tree,
    )


@_for_each_member
def covariance_parts(
    problem: Problem, member: Members, point: Tree, verdict: Tree
) -> CovarianceParts:
    """The covariance at the end, if it takes another pass over the data."""
    return robust_covariance(_passes(problem, member), point, verdict)


@_for_each_member
def first_bad(problem: Problem, member: Members, z: Array) -> Array:
    """The first term that is not finite."""
    return _passes(problem, member).first_bad(problem.chart.to_user(z, member.base))


@_for_each_member
def first_rough(problem: Problem, member: Members, z: Array) -> Array:
    """The first row of which a term or a derivative is not finite."""
    return _passes(problem, member).first_rough(problem.chart.to_user(z, member.base))


@_for_each_member
def counted(problem: Problem, member: Members) -> Array:
    """The number of observations; NaN if a likelihood without data returns a single number."""

    def terms() -> float:
        params = problem.layout.unravel(member.base)
        shape = jax.eval_shape(
            lambda: terms_of(uncounted(member.loglik), params, member.data)
        ).shape
        return shape[0] if shape else jnp.nan

    return jnp.asarray(count(member.loglik, member.data, terms), member.base.dtype)


@_for_each_member
def approached(problem: Problem, member: Members, z: Array) -> tuple[Array, Array]:
    """A point near the maximum, reached by a first-order method, and the number of its steps."""
    problem = replace(problem, loglik=member.loglik)
    objective = objective_of(problem, member.base, member.data)
    return approach(problem.solver, objective.value, objective, objective.curvatures, z)
