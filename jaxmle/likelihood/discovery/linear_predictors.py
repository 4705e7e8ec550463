"""The predictors of a user's function: if its rows are independent and its program multiplies
designs by coefficients, it is a regression.

``data["x"] @ params["beta"]`` is one operation of the program that jax traces. The rest of the
program, with the product as an input, is the density of one row as a function of its predictors: a
regression that was found instead of declared. Nothing is guessed: parameters outside such products
enter as constants, and if the program for a few rows differs from that for all rows, it is not a
regression.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from jaxmle._types import Array, Function, Loglik, Tree, TreeDef
from jaxmle.closures.kinds import unwrapped
from jaxmle.likelihood.combinators import Fix, Penalize, Tie, Weight
from jaxmle.likelihood.contract import data_length, leaf_of, terms_of
from jaxmle.likelihood.regression import Linear, OfRows, Predictor, Regression
from jaxmle.likelihood.structure import jeffreys_of
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.calls import aval_of
from jaxmle.runtime.compile import remembered
from jaxmle.runtime.opaque import ById, LikelihoodTree, Opaque

ROWS_OF_SECOND_TRACE = 24  # rows of the second trace
MAX_SCALAR_PREDICTORS = 8  # scalar predictors; the program is traced for each pair of them
# number of parameters if there is no product to gain from: five parameters and 81 rows take half
# the time of the general method
MAX_SCALARS_WITHOUT_PRODUCT = 6
FORWARD = (((1,), (0,)), ((), ()))  # design (n, q) times coefficients (q,) or (q, K)
BACKWARD = (((0,), (1,)), ((), ()))  # coefficients (q,) times design (n, q)
# Parameters of an operation that do not depend on the number of rows.
SHAPED = (
    "axes",
    "axis",
    "broadcast_dimensions",
    "dimension",
    "dimension_numbers",
    "dimensions",
    "permutation",
    "y",
)


class UnlikePrograms(RuntimeError):
    """The program of a function for some of the rows differs from its program for all rows."""


class Product(NamedTuple):
    """A design times its coefficients."""

    design: int  # the leaf of the data
    param: int  # the leaf of the parameters


class TracedPredictors(NamedTuple):
    """Products of designs and coefficients in a program, and parameters that are constants."""

    products: tuple[Product, ...]
    constants: tuple[int, ...]  # leaves of the parameters that enter as constants


def as_regression(loglik: Loglik, layout: Layout, base: Array, data: Tree) -> Tree:
    """The likelihood with the user's function replaced by an equivalent ``Regression``, if its
    program is the density of linear predictors; otherwise unchanged.

    Args:
        loglik: a likelihood for which ``is_rowwise`` holds.
    """
    if isinstance(loglik, Opaque):
        regression = _regression(loglik, layout, base, data) if loglik.discover else None
        return loglik if regression is None else regression
    if isinstance(loglik, Weight | Fix | Tie) or (
        isinstance(loglik, Penalize) and jeffreys_of(loglik) is None
    ):
        inner = as_regression(loglik.loglik, layout, base, data)
        return loglik if inner is loglik.loglik else dataclasses.replace(loglik, loglik=inner)
    return loglik


def _regression(loglik: Opaque, layout: Layout, base: Array, data: Tree) -> Regression | None:
    names = _names(data)
    shapes = tuple(
        jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype) for leaf in jax.tree.leaves(data)
    )
    key = (
        "predictors",
        layout,
        jax.tree.structure(data),
        tuple((leaf.shape, str(leaf.dtype)) for leaf in shapes),
    )
    program: TracedPredictors | None = remembered(
        loglik,
        key,
        lambda function: _traced_predictors(
            function, layout, base, jax.tree.unflatten(jax.tree.structure(data), shapes)
        ),
    )
    if (
        program is None
        or any(names[product.design] is None for product in program.products)
        or not all(leaf.path for leaf in layout.leaves)
    ):
        return None
    paths = [leaf.path for leaf in layout.leaves]
    forms: dict[str, Predictor] = {
        f"{names[design]} @ {paths[param]}": Linear(str(names[design]), paths[param])
        for design, param in program.products
    }
    forms |= {paths[param]: paths[param] for param in program.constants}
    density = Density(
        ById(unwrapped(loglik.function)),
        layout.treedef,
        tuple(leaf.shape for leaf in layout.leaves),
        program,
        tuple(forms),
    )
    return Regression(density, tuple(forms), tuple(forms.values()))


def _names(data: Tree) -> list[str | None]:
    """The name of each leaf of the data in ``linear``; None if it has none."""
    names: list[str | None] = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        name = ".".join(
            str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path
        )
        try:
            names.append(name if leaf_of(data, name) is leaf else None)
        except (ValueError, TypeError):  # ``linear`` cannot name this leaf
            names.append(None)
    return names


# ---------------------------------------------------------------- the rest of the program


@dataclass(frozen=True)
class Density(OfRows, LikelihoodTree):
    """The log density of rows by a user's function, given their predictors."""

    function: ById
    treedef: TreeDef  # of the parameters
    shapes: tuple[tuple[int, ...], ...]  # of their leaves
    traced: TracedPredictors
    names: tuple[str, ...]  # of the predictors: products, then constants

    def __call__(self, eta: Mapping[str, Array], rows: Tree) -> Array:
        values = [jnp.asarray(eta[name]) for name in self.names]
        products = dict(zip(self.traced.products, values, strict=False))
        constants = dict(zip(self.traced.constants, values[len(products) :], strict=True))
        params = [
            constants.get(i, jnp.zeros(shape, values[0].dtype))
            for i, shape in enumerate(self.shapes)
        ]
        program = _program(self.function.value, jax.tree.unflatten(self.treedef, params), rows)
        products_here = _products(program, len(params))
        if not {product for _, product in products_here} >= set(products):
            raise UnlikePrograms(
                "for some of its rows, the log-likelihood lacks a product of a design "
                "and coefficients that it has for all rows, so it cannot be summed as a "
                "regression. Do not let it depend on the number of rows, or use "
                "jaxmle.opaque(loglik); and please report this to jaxmle"
            )
        known = {var: products[product] for var, product in products_here if product in products}
        rest = [
            equation for equation in program.jaxpr.eqns if known.keys().isdisjoint(equation.outvars)
        ]
        density = program.jaxpr.replace(invars=[*known, *program.jaxpr.invars], eqns=rest)
        return eval_jaxpr(
            density, program.consts, *known.values(), *params, *jax.tree.leaves(rows)
        )[0]


def _program(function: Function, params: Tree, rows: Tree) -> ClosedJaxpr:
    """The program of the terms, with an argument for each leaf of the parameters and of the
    data.
    """
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), (params, rows)
    )
    return jax.make_jaxpr(lambda params, rows: terms_of(function, params, rows))(*shapes)


def _products(program: ClosedJaxpr, leaves: int) -> list[tuple[Tree, Product]]:
    """The products of designs and coefficients in a program, each with its variable."""
    places = {var: place for place, var in enumerate(program.jaxpr.invars)}
    products = []
    for equation in program.jaxpr.eqns:
        if equation.primitive.name != "dot_general" or any(
            isinstance(atom, Literal) for atom in equation.invars
        ):
            continue
        left, right = (places.get(atom, -1) for atom in equation.invars)
        numbers = equation.params["dimension_numbers"]
        flat = len(aval_of(equation.invars[0]).shape) == 1
        if (
            0 <= right < leaves <= left
            and numbers == FORWARD
            and len(aval_of(equation.invars[0]).shape) == 2
        ):
            products.append((equation.outvars[0], Product(left - leaves, right)))
        elif (
            0 <= left < leaves <= right
            and numbers == BACKWARD
            and flat
            and len(aval_of(equation.invars[1]).shape) == 2
        ):
            products.append((equation.outvars[0], Product(right - leaves, left)))
    return products


# ---------------------------------------------------------------- all rows


def _traced_predictors(
    function: Function, layout: Layout, base: Array, data: Tree
) -> TracedPredictors | None:
    """The products and constants of a function; None if it is no such regression."""
    params = jax.eval_shape(layout.unravel, base)
    fewer = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((ROWS_OF_SECOND_TRACE, *leaf.shape[1:]), leaf.dtype), data
    )
    whole = _program(function, params, data)
    try:
        part = _program(function, params, fewer)
    except Exception:  # the user's function may raise anything at another number of rows
        return None
    predictors = _parted(whole, len(layout.leaves))
    return (
        predictors
        if _same(whole, part, data_length(data)) and _is_worth_it(predictors, layout)
        else None
    )


def _parted(program: ClosedJaxpr, leaves: int) -> TracedPredictors:
    """Which leaves of the parameters enter only through products, and which as constants."""
    products = _products(program, leaves)
    others = [
        equation
        for equation in program.jaxpr.eqns
        if dict(products).keys().isdisjoint(equation.outvars)
    ]
    used = {
        atom for equation in others for atom in equation.invars if not isinstance(atom, Literal)
    }
    constants = tuple(i for i, var in enumerate(program.jaxpr.invars[:leaves]) if var in used)
    return TracedPredictors(
        tuple(dict.fromkeys(product for _, product in products if product.param not in constants)),
        constants,
    )


def _is_worth_it(predictors: TracedPredictors, layout: Layout) -> bool:
    """Whether a regression covers everything that enters and saves work: a product of at least two
    columns, or few parameters.
    """
    leaves = layout.leaves
    plain = all(
        len(leaves[i].entries) == int(np.prod(leaves[i].shape))
        for i in (*predictors.constants, *(product.param for product in predictors.products))
    )
    scalars = [int(np.prod(leaves[product.param].shape[1:])) for product in predictors.products] + [
        int(np.prod(leaves[i].shape)) for i in predictors.constants
    ]
    wide = any(leaves[product.param].shape[0] > 1 for product in predictors.products)
    small = not predictors.products and 0 < len(predictors.constants) <= MAX_SCALARS_WITHOUT_PRODUCT
    return (
        plain
        and (wide or small)
        and sum(scalars) <= MAX_SCALAR_PREDICTORS
        and all(len(leaves[i].shape) <= wide for i in predictors.constants)
    )


def _same(whole: Tree, part: Tree, n: int | None) -> bool:
    """Whether the programs for n rows and for ``FEW`` rows are the same: the same operations,
    numbers and axes, except for the number of rows.
    """
    pairs = list(zip(whole.consts, part.consts, strict=True))
    if any(np.asarray(a).tobytes() != np.asarray(b).tobytes() for a, b in pairs) or len(
        whole.jaxpr.eqns
    ) != len(part.jaxpr.eqns):
        return False
    return all(
        _same_operation(a, b, n) for a, b in zip(whole.jaxpr.eqns, part.jaxpr.eqns, strict=True)
    )


def _same_operation(a: JaxprEqn, b: JaxprEqn, n: int | None) -> bool:
    inner = [
        (a.params[name], b.params[name])
        for name in ("jaxpr", "call_jaxpr", "fun_jaxpr")
        if hasattr(a.params.get(name), "consts")
    ]
    numbers = [
        [np.asarray(atom.val).tobytes() for atom in equation.invars if isinstance(atom, Literal)]
        for equation in (a, b)
    ]
    shapes = [
        [aval_of(atom).shape for atom in (*equation.invars, *equation.outvars)]
        for equation in (a, b)
    ]
    if (
        a.primitive is not b.primitive
        or numbers[0] != numbers[1]
        or any(a.params.get(name) != b.params.get(name) for name in SHAPED)
    ):
        return False
    alike = all(
        len(s) == len(t)
        and all(u == v or (u, v) == (n, ROWS_OF_SECOND_TRACE) for u, v in zip(s, t, strict=True))
        for s, t in zip(*shapes, strict=True)
    )
    return alike and all(_same(*both, n) for both in inner)
