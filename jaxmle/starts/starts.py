"""Where ``multistart`` begins: starts that were given, drawn by a sampler, or drawn about one."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import is_traced
from jaxmle._types import Array, Axes, Loglik, Tree, ndarray
from jaxmle.fitting.options import Options, check_has_start
from jaxmle.likelihood.checks import check_fixed, check_start, host_params
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.structure import chart_of, roots_of, substituted
from jaxmle.parameters.arguments import first_line, shown
from jaxmle.parameters.tree import Chart, Layout, layout_of
from jaxmle.runtime.compile import portable_tree, to_numpy
from jaxmle.runtime.opaque import Opaque
from jaxmle.starts.symmetry import Group, blocks_of

STDDEV_OF_DRAWN_STARTS = 2.0  # standard deviation of drawn starts on the free scale
# of a drawn step that rounding carries onto a bound; the last is below the precision of the start
MAX_HALVINGS_OF_A_DRAW = 60
# what a likelihood raises for parameters of another shape
START_ERRORS = (ValueError, TypeError, IndexError, AttributeError, KeyError)


def start_values(
    loglik: Loglik,
    tree: Tree,
    starts: Tree,
    data: Tree,
    options: Options,
    number: int,
    key: Array,
    groups: tuple[Group, ...],
    axis: Axes,
) -> tuple[Layout, Tree]:
    """The layout of one start, and all of them (s, …)."""
    if starts is None:
        check_has_start(loglik, "starts", "start values or a sampler(key) of them")
        starts = loglik.start(data)  # type: ignore[attr-defined]  # a model, as seen above
        axis = None
    constraints = options.constraints
    dtype = options.host_dtype
    if _is_sampler(starts):
        params = host_params(_sampled(starts, key, number), dtype, "starts")
        many = True
    else:
        params = host_params(starts, dtype, "starts")
        many = _are_many(tree, params, data, constraints, groups, axis)
    start = _first(params) if many else params
    layout = layout_of(start, constraints)
    if many:
        return layout, params
    check_start(layout, start)
    check_fixed(tree, layout)
    return layout, drawn_about(tree, layout, start, number, key)


def _first(params: Tree) -> Tree:
    return jax.tree.map(lambda leaf: leaf[0], params)


def _is_sampler(starts: object) -> bool:
    """A function; a tree of parameters may be callable too, but has arrays for leaves."""
    leaves = jax.tree.leaves(starts)
    if isinstance(starts, type):
        raise TypeError(f"starts must be parameters or a function of a key; got {shown(starts)}")
    return callable(starts) and (
        isinstance(starts, jax.tree_util.Partial) or not leaves or leaves[0] is starts
    )


def _are_many(
    loglik: Loglik,
    params: Tree,
    data: Tree,
    constraints: Tree,
    groups: tuple[Group, ...],
    axis: Axes,
) -> bool:
    """Whether ``starts`` has a leading axis over starts, rather than being one start."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
    lengths = {shape[:1] for shape in shapes}
    possible = len(lengths) == 1 and lengths not in ({()}, {(0,)})
    if axis == 0 and not possible:
        raise ValueError(
            f"all leaves of starts must have the same leading axis over starts; got shapes {shapes}"
        )
    if axis != "auto":
        return axis == 0
    alone = _complaint(loglik, params, data, constraints, groups)
    if not possible:
        if alone is not None and shapes and all(shapes):
            raise ValueError(
                "all leaves of starts must have the same leading axis over starts; got "
                f"shapes {shapes}. They cannot be a single start either: "
                f"{first_line(alone)}"
            )
        return False  # where it does not run, the error is that of the likelihood
    apart = _complaint(loglik, _first(params), data, constraints, groups)
    if alone is not None and repr(alone) == repr(apart):
        raise alone  # it does not depend on how starts are read
    if alone is not None and apart is not None:
        raise ValueError(
            f"the likelihood accepts starts neither as one start ({first_line(alone)}) "
            f"nor as {shapes[0][0]} of them ({first_line(apart)})"
        )
    if alone is None and apart is None:
        raise ValueError(
            f"starts could be one start or {shapes[0][0]} starts: give params_axis=None "
            "(one start, around which others are drawn) or params_axis=0"
        )
    return apart is None


def _complaint(
    loglik: Loglik, params: Tree, data: Tree, constraints: Tree, groups: tuple[Group, ...]
) -> Exception | None:
    """What is wrong with ``params`` as one start, by shapes, bounds and symmetric groups; None
    where nothing is.
    """
    terms = partial(terms_of, portable_tree(loglik))
    try:
        layout = layout_of(params, constraints)
        jax.eval_shape(terms, params, data)
        check_start(layout, params)
        blocks_of(layout, groups)
    except START_ERRORS as error:
        return error
    return None


def _keys(key: Array, number: int) -> Array:
    """One key for each start, the same whatever their number."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(number, dtype=jnp.uint32))


def _sampled(sampler: Tree, key: Array, number: int) -> Tree:
    """``number`` starts of a sampler, (number, …): vmapped where every leaf depends on the key by
    way of jax, else one by one.

    A leaf that does not depend on it may come from a generator of the sampler's own, which a
    vmapped sampler would ask once only.
    """
    keys = _keys(key, number)
    sampler = portable_tree(Opaque(sampler)).function
    traced: list[bool] = []

    def watched(key: Array) -> Tree:
        start = sampler(key)
        traced.extend(is_traced(leaf) for leaf in jax.tree.leaves(start))
        return start

    try:
        drawn = jax.vmap(watched)(keys)
    except Exception:  # a sampler that cannot be traced may raise anything
        pass  # if it cannot be called either, the last line says why
    else:
        if traced and all(traced):
            return to_numpy(drawn)
    return _stacked([jax.tree.map(np.asarray, sampler(keys[i])) for i in range(number)])


def _stacked(drawn: list[Tree]) -> Tree:
    forms = [
        (jax.tree.structure(start), [leaf.shape for leaf in jax.tree.leaves(start)])
        for start in drawn
    ]
    odd = next((i for i, form in enumerate(forms) if form != forms[0]), None)
    if odd is not None:
        raise ValueError(
            f"the sampler's start {odd} does not have the structure and shapes of its "
            f"first: {forms[odd][1]} and {forms[0][1]}"
        )
    return jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)


def drawn_about(loglik: Loglik, layout: Layout, params: Tree, number: int, key: Array) -> Tree:
    """``params`` itself, then normal draws about it on the free scale; (number, …)."""
    roots = roots_of(loglik, layout)
    chart = chart_of(loglik, layout)
    base = np.asarray(substituted(loglik, layout, layout.ravel(params)))
    follow = np.where(roots >= 0, roots, np.arange(layout.p))
    steps = np.asarray(
        jax.vmap(lambda key: jax.random.normal(key, (chart.k,), jnp.float64))(_keys(key, number))
    )
    centre = chart.to_free(base)
    others = [
        _inside(layout, chart, follow, base, centre, STDDEV_OF_DRAWN_STARTS * step)
        for step in steps[1:].astype(base.dtype)
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), layout.unravel(base), *others)


def _inside(
    layout: Layout,
    chart: Chart,
    follow: ndarray,
    base: ndarray,
    centre: Array,
    step: ndarray,
) -> Tree:
    """The parameters one step away; half as far each time that rounding puts them on a bound."""
    for _ in range(MAX_HALVINGS_OF_A_DRAW):
        params = layout.unravel(chart.to_user(centre + step, base)[follow])
        if all(
            leaf.constraint.violation(value) is None
            for leaf, value in zip(layout.leaves, layout.treedef.flatten_up_to(params), strict=True)
        ):
            return params
        step = 0.5 * step
    return layout.unravel(base)
