"""Modes of differentiation that a function does not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def no_mode(what: str) -> NotImplementedError:
    """The error by which ``first_that_exists`` goes on to the next road."""
    return NotImplementedError(f"differentiation rule for {what} not implemented")


@jax.custom_jvp
def _identity(tree: Any) -> Any:
    """The tree itself, of which no derivative may be taken."""
    return tree


@_identity.defjvp
def _no_second_derivative(primals: Any, tangents: Any) -> Any:
    raise no_mode("a rule that is correct only for first derivatives")


def without_second_derivative(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of one tree with its derivative, in reverse mode or else in forward mode, and no
    further one.
    """

    def once(tree: Any) -> Any:
        return (_reverse_once if _has_reverse(function, tree) else _forward_once)(function)(tree)

    return once


def _has_reverse(function: Callable[[Any], Any], tree: Any) -> bool:
    def pulled_back(tree: Any) -> Any:
        out, pull_back = jax.vjp(function, tree)
        return pull_back(out)

    try:
        jax.eval_shape(pulled_back, tree)
    except (TypeError, ValueError, NotImplementedError):
        return False  # what is no question of the mode is raised again in the other
    return True


def _reverse_once(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @jax.custom_vjp
    def once(tree: Any) -> Any:
        return function(tree)

    def forward(tree: Any) -> tuple[Any, Any]:
        return jax.vjp(function, _identity(tree))

    def backward(pull_back: Any, slope: Any) -> Any:
        return pull_back(slope)

    once.defvjp(forward, backward)
    return once


def _forward_once(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @jax.custom_jvp
    def once(tree: Any) -> Any:
        return function(tree)

    @once.defjvp
    def forward(primals: Any, tangents: Any) -> Any:
        return jax.jvp(function, (_identity(primals[0]),), tangents)

    return once
