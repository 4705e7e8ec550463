"""A user's function as a part of a tree, and the mark of the trees that are likelihoods."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from jaxmle._types import Array, Foreign, Function, Loglik, Tree
from jaxmle.closures.recipes import Recipe, recipe_of, remade
from jaxmle.runtime.modes import without_second_derivative
from jaxmle.runtime.user_code import explained


class LikelihoodTree:
    """What the likelihoods of jaxmle, their weights, priors and laws derive from: frozen
    dataclasses whose fields are arrays, functions and such trees again.
    """


@dataclass(frozen=True, eq=False)
class ById(LikelihoodTree):
    """A value that equals only itself: a user's callable may compare or hash in any way, or not
    at all.
    """

    value: Foreign

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ById) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Opaque(LikelihoodTree):
    """A user's function as a leafless tree, so that combinators over it are trees of arrays.

    ``discover`` is False where nothing may be read from its program: see ``jaxmle.opaque``.
    """

    function: Loglik
    discover: bool = True

    def tree_flatten(self) -> tuple[tuple[()], tuple[ById, bool]]:
        return (), (ById(self.function), self.discover)

    @classmethod
    def tree_unflatten(cls, held: tuple[ById, bool], leaves: Tree) -> Opaque:
        function, discover = held
        return cls(function.value, discover)

    def __reduce__(self) -> tuple[Tree, ...]:
        """The function and the flag; the function of a built-in model by the model."""
        recipe = recipe_of(self.function)
        if recipe is None or remade(*recipe) is not self.function:
            return Opaque, (self.function, self.discover)
        return _opaque_by_recipe, (recipe, self.discover)

    def __call__(self, params: Tree, data: Tree) -> Array:
        with explained(params, data):
            return self.function(params, data)


def _opaque_by_recipe(recipe: Recipe, discover: bool) -> Opaque:
    return Opaque(remade(*recipe), discover)


@partial(jax.tree_util.register_dataclass, data_fields=["loglik"], meta_fields=[])
@dataclass(frozen=True)
class OnceDifferentiable(LikelihoodTree):
    """A function or a regression whose second derivatives by jax contradict its score (``rules``):
    it has first ones only, and whoever needs a Hessian takes differences of the score.
    """

    loglik: Loglik

    def __call__(self, params: Tree, data: Tree) -> Array:
        return without_second_derivative(lambda params: self.loglik(params, data))(params)


def _is_likelihood_record(node: Tree) -> bool:
    is_record = dataclasses.is_dataclass(node) and not isinstance(node, type)
    return is_record and isinstance(node, LikelihoodTree)


def _map_fields(record: Tree, change: Callable[[Tree], Tree]) -> Tree:
    fields = {
        field.name: map_functions(getattr(record, field.name), change)
        for field in dataclasses.fields(record)
    }
    return dataclasses.replace(record, **fields)


def map_functions(node: Tree, change: Callable[[Tree], Tree]) -> Tree:
    """A likelihood tree with ``change`` applied to every user function in it."""
    if isinstance(node, Opaque):  # a Partial in it is the user's, and its arrays are no leaves
        return Opaque(change(node.function), node.discover)
    if isinstance(node, jax.tree_util.Partial):
        return jax.tree_util.Partial(change(node.func), *node.args, **node.keywords)
    if _is_likelihood_record(node):
        return _map_fields(node, change)
    if type(node) in (tuple, list):
        return type(node)(map_functions(inner, change) for inner in node)
    return (
        change(node)
        if callable(node)
        and not isinstance(node, type)
        and not isinstance(node, np.ndarray | jax.Array)
        else node
    )


def functions_of(loglik: Loglik) -> list[Function]:
    """Every user function in a likelihood tree, in the order in which ``map_functions`` meets
    them.
    """
    functions: list[Function] = []

    def note(function: Function) -> Function:
        functions.append(function)
        return function

    map_functions(loglik, note)
    return functions
