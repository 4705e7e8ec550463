"""A block of fits as one program: every member climbs to a cap of steps in one loop, and those that are done are judged at once.

The first round judges members whose climb has ended and that need no excursion. The last round takes the others, gathered, from the
state where they stopped: it climbs on, explores and judges. Blocks follow one another inside a program, each with a loop of its own, so
that a slow member holds up its own block only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmle.fitting.diagnosis import Limit, explore, needs_excursion, unexplored
from jaxmle.fitting.engine import Engine, Problem, complete, engine_of, verdict_of
from jaxmle.fitting.record import Fit
from jaxmle.likelihood.anatomy import count
from jaxmle.likelihood.regression import linear_designs, sharing
from jaxmle.solvers.approach import approach
from jaxmle.solvers.loop import NOT_FINITE, State, is_running, maximise, resume
from jaxmle.solvers.methods import LBFGS, Optax

Array = Any
Tree = Any


class Members(NamedTuple):
    """What the members of a batch are made of: each leaf with a leading axis, or shared by all."""

    loglik: Tree  # a likelihood whose leaves (weights, held values) may differ between members
    base: Array  # (p,) the start
    data: Tree
    codes: tuple[Array, ...]
    data_id: Array


class Round(NamedTuple):
    """What one round of a member gives."""

    fit: Fit
    state: State
    open: Array  # it needs the last round


def blocks_of(problem: Problem, treedef: Any, shared: tuple[bool, ...], own: list[Array], common: list[Array], steps: Array, states: State | None) -> Any:
    """One round of (blocks, lanes) members, a block after the other: the first, capped at ``steps``, or the last, from ``states``.

    Args:
        treedef: of ``Members``.
        shared: for each leaf of it whether all members share it.
        own: the leaves (blocks, lanes, ...) that differ.
        common: the leaves that all share.
    """

    def assembled(own: list[Array]) -> Members:
        ours, theirs = iter(common), iter(own)
        return jax.tree.unflatten(treedef, [next(ours) if one else next(theirs) for one in shared])

    def block(args: tuple[list[Array], State | None]) -> Any:
        single = jax.eval_shape(lambda own: assembled([leaf[0] for leaf in own]), args[0])
        designs = jax.tree.leaves(linear_designs(single.loglik, single.data))
        start = len(jax.tree.leaves((single.loglik, single.base)))
        one_for_all = shared[start : start + len(designs)]
        turned = [start + i for i, (design, same) in enumerate(zip(designs, one_for_all, strict=True)) if design and not same]

        def member(own: list[Array], common: list[Array]) -> Members:
            leaves = jax.tree.leaves(assembled(own))
            back = jax.tree.unflatten(treedef, [leaf.T if i in turned else leaf for i, leaf in enumerate(leaves)])
            same = jax.tree.unflatten(jax.tree.structure(back.data), one_for_all)
            return back._replace(loglik=sharing(back.loglik, back.data, same))

        places = [i for i, one in enumerate(shared) if not one]
        laid = [jnp.swapaxes(leaf, -1, -2) if i in turned else leaf for i, leaf in zip(places, args[0], strict=True)]
        if states is None:
            return jax.vmap(lambda own: _first(problem, member(own, common), steps))(laid)
        return jax.vmap(lambda own, state: _last(problem, member(own, common), state, steps))(laid, args[1])

    return jax.lax.map(block, (own, states))


def _engine(problem: Problem, member: Members) -> Engine:
    return engine_of(problem, member.loglik, member.base, member.data, member.codes)


def _first(problem: Problem, member: Members, cap: Array) -> Round:
    problem = replace(problem, loglik=member.loglik)
    engine = _engine(problem, member)._replace(first_bad=lambda x: jnp.asarray(-1))  # the last round looks for it
    z, extra = problem.chart.to_free(member.base), jnp.zeros((), jnp.int32)
    if isinstance(problem.solver, LBFGS | Optax):
        objective = engine.evaluate
        z, extra = approach(problem.solver, objective.value, objective, objective.curvatures, z)
    state = maximise(engine.evaluate, z, cap)
    wants = is_running(state, problem.max_steps) | needs_excursion(state) | (state.outcome == NOT_FINITE)
    return Round(_settle(problem, engine, member, state, unexplored(state), extra), state, wants)


def _last(problem: Problem, member: Members, state: State, max_steps: Array) -> Fit:
    problem = replace(problem, loglik=member.loglik)
    engine = _engine(problem, member)
    state = resume(engine.evaluate, state, max_steps)
    return _settle(problem, engine, member, state, explore(engine.evaluate, state), jnp.zeros((), jnp.int32))


def _settle(problem: Problem, engine: Engine, member: Members, state: State, limit: Limit, extra: Array) -> Fit:
    verdict, reached = verdict_of(problem, member.base, state, limit)
    n = jnp.asarray(count(member.loglik, member.data, lambda: 1), member.base.dtype)
    return complete(problem, engine, member.base, verdict, reached, verdict.point, n, member.data_id, extra)
