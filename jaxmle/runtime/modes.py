"""Modes of differentiation that a function does not have."""

from __future__ import annotations

from collections.abc import Callable

import jax

from jaxmle._types import Tree


def no_mode(what: str) -> NotImplementedError:
    """The error on which ``first_that_exists`` tries the next method."""
    return NotImplementedError(f"differentiation rule for {what} not implemented")


@jax.custom_jvp
def _identity(tree: Tree) -> Tree:
    """The tree itself, of which no derivative may be taken."""
    return tree


@_identity.defjvp
def _no_second_derivative(primals: Tree, tangents: Tree) -> Tree:
    raise no_mode("a rule that is correct only for first derivatives")


def without_second_derivative(function: Callable[[Tree], Tree]) -> Callable[[Tree], Tree]:
    """A function of one tree with its derivative, in reverse mode or else in forward mode, and no
    further one.
    """

    def once_differentiable(tree: Tree) -> Tree:
        return (_reverse_once if _has_reverse(function, tree) else _forward_once)(function)(tree)

    return once_differentiable


def _has_reverse(function: Callable[[Tree], Tree], tree: Tree) -> bool:
    def pulled_back(tree: Tree) -> Tree:
        out, pull_back = jax.vjp(function, tree)
        return pull_back(out)

    try:
        jax.eval_shape(pulled_back, tree)
    except (TypeError, ValueError, NotImplementedError):
        return False  # what is no question of the mode is raised again in the other
    return True


def _reverse_once(function: Callable[[Tree], Tree]) -> Callable[[Tree], Tree]:
    @jax.custom_vjp
    def once_differentiable(tree: Tree) -> Tree:
        return function(tree)

    def forward(tree: Tree) -> tuple[Tree, Tree]:
        return jax.vjp(function, _identity(tree))

    def backward(pull_back: Tree, slope: Tree) -> Tree:
        return pull_back(slope)

    once_differentiable.defvjp(forward, backward)
    return once_differentiable


def _forward_once(function: Callable[[Tree], Tree]) -> Callable[[Tree], Tree]:
    @jax.custom_jvp
    def once_differentiable(tree: Tree) -> Tree:
        return function(tree)

    @once_differentiable.defjvp
    def forward(primals: Tree, tangents: Tree) -> Tree:
        return jax.jvp(function, (_identity(primals[0]),), tangents)

    return once_differentiable
