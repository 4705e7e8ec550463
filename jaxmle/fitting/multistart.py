"""``multistart``: one data set climbed from many starts, as one batch; the distinct maxima that they find, counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle.fitting.batch import fit_batch
from jaxmle.fitting.fit import MAX_STEPS, check_options, host_dtype
from jaxmle.fitting.keys import typed_key
from jaxmle.fitting.record import Fit
from jaxmle.likelihood.anatomy import has, roots_of, substituted
from jaxmle.likelihood.checks import check_fixed, check_start, check_weights, host_data, host_params
from jaxmle.likelihood.combinators import Weight, weight
from jaxmle.likelihood.contract import Opaque, as_tree, rows_of, terms_of
from jaxmle.likelihood.host import precision, remembered, to_numpy, tracing
from jaxmle.parameters.tree import Chart, Layout, layout_of
from jaxmle.solvers.status import Status

Array = Any
Tree = Any

SPREAD = 2.0  # standard deviation of drawn starts on the free scale
SAME_SE = 1e-3  # standard errors; climbs end 1.4e-9 of them from their maximum, and no data tell maxima this near apart
SAME_LOGLIK = 1e-6  # of max(1, |ℓ|)
SHOWN = 20  # maxima in the table
HALVINGS = 60  # of a drawn step that rounding carries onto a bound; the last is below the precision of the start
ERRORS = (ValueError, TypeError, IndexError, AttributeError, KeyError)  # what a likelihood says to parameters of another shape


def multistart(
    loglik: Any,
    starts: Any = None,
    data: Tree = None,
    *,
    number: int = 50,
    key: Any = 0,
    constraints: Tree = None,
    solver: Any = None,
    vcov: str | None = "auto",
    clusters: Any = None,
    weights: Any = None,
    dtype: Any = None,
    max_steps: int = MAX_STEPS,
    symmetric: Any = (),
    params_axis: int | str | None = "auto",
    progress: bool | None = None,
) -> Multistart:
    """Maximise one log-likelihood on one data set from many starts, and count the maxima that they find.

    Args:
        loglik, data, constraints, solver, vcov, clusters, weights, dtype, max_steps: as in ``fit``.
        starts: start values with a leading axis (s, …) on every leaf; or ``sampler(key)``, which returns one start for a jax key and is
            called ``number`` times; or one start, which is the first of ``number``: the others are drawn about it, normally with
            standard deviation 2 on the free scale, which keeps them inside the constraints; or None for a model with a method
            ``start(data)``, in place of one start.
        number: how many starts to draw. The first ten of fifty are those of ``number=10``.
        key: a whole number or a jax key.
        symmetric: groups of parameters whose labels may be exchanged. ``[("mu", "sigma", "weight")]`` names leaves whose leading axis runs
            over components, which are permuted jointly; ``[(("mu_1", "sigma_1"), ("mu_2", "sigma_2"))]`` names the blocks one by one.
            Maxima that differ by labels only are then one.
        params_axis: 0 says that ``starts`` has a leading axis over starts, None that it is one start; ``"auto"`` finds out where only one
            reading fits the likelihood.
        progress: as in ``fit_batch``.

    Returns:
        A ``Multistart``. A start at which the likelihood is not finite fails alone, with the status NONFINITE.

    Raises:
        ValueError, TypeError: for what is visible in shapes and types, a start outside its bounds, an unknown name.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> cauchy = lambda params, y: -jnp.log1p((y - params["centre"]) ** 2)
    >>> found = jm.multistart(cauchy, {"centre": np.array([-9.0, -6.0, 0.5, 8.0, 9.0])}, np.array([-6.0, 0.0, 1.0, 8.0]))
    >>> [(round(float(m.fit.params["centre"]), 3), round(m.gap, 3), m.share) for m in found.maxima]
    [(0.479, 0.0, 0.6), (-5.5, 4.383, 0.2), (7.59, 4.984, 0.2)]
    """
    if tracing():
        raise TypeError("multistart schedules its work from the host and cannot run inside jit or vmap; there, jax.vmap(lambda start: jaxmle.fit(loglik, start, data)) fits from many starts")
    check_options(vcov, clusters, max_steps, None)
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
        raise ValueError(f"number must be a whole number of starts, 1 or more; got {number!r}")
    constraints, real = getattr(loglik, "constraints", None) if constraints is None else constraints, host_dtype(dtype)
    if has(as_tree(loglik), Weight):
        raise ValueError("weights inside the likelihood cannot be shared by a batch: give them to multistart(weights=…)")
    tree = as_tree(loglik) if weights is None else weight(loglik, weights)
    data = _checked_data(tree, data, clusters, real)
    groups = _checked_groups(symmetric)
    with precision(np.float64), np.errstate(all="ignore"):
        layout, params = _starts(loglik, tree, starts, data, constraints, int(number), typed_key(key), groups, params_axis, real)
    blocks = _blocks(layout, groups)
    fits = fit_batch(
        loglik, params, data, constraints=constraints, solver=solver, vcov=vcov, clusters=clusters, weights=weights, dtype=real,
        max_steps=max_steps, in_axes=None, params_axis=0, progress=progress,
    )  # fmt: skip
    maxima = _census(fits, blocks)
    return Multistart(maxima[0].fit if maxima else fits[_least_bad(fits)], fits, params, maxima)


@dataclass(frozen=True, eq=False)
class Maximum:
    """A maximum of the likelihood, and the starts that end there.

    ``fit`` is the highest of their fits, ``gap`` ≥ 0 how far its ``loglik`` lies below the best, ``share`` the share of all starts that
    end there, ``members`` (m,) their places among the starts.
    """

    fit: Fit = field(repr=False)
    loglik: float
    gap: float
    share: float
    members: np.ndarray = field(repr=False)


@dataclass(frozen=True, eq=False, repr=False)
class Multistart:
    """What many starts found.

    ``best``: the CONVERGED fit with the largest log-likelihood. Where none converged it is an UNBOUNDED one if there is any, else the one
    whose status comes last in the order of ``Status``; ``best.status`` says it. ``fits``: all fits, a leading axis over starts.
    ``starts``: the start values, a leading axis on every leaf. ``maxima``: the distinct maxima of the converged fits, the highest first.
    Two ends are the same maximum where every entry differs by less than 0.001 standard errors and ℓ by less than 1e-6·max(1, |ℓ|).
    """

    best: Fit
    fits: Fit
    starts: Tree
    maxima: tuple[Maximum, ...]

    @property
    def counts(self) -> dict[Status, int]:
        """How many starts ended in each status that occurs."""
        codes, times = np.unique(self.fits.status, return_counts=True)
        return {Status(code): times for code, times in zip(codes.tolist(), times.tolist(), strict=True)}

    @property
    def unbounded(self) -> int:
        """How many starts climbed without end. With any, the likelihood has no maximum, and ``best`` is at most a local one."""
        return self.counts.get(Status.UNBOUNDED, 0)

    def __repr__(self) -> str:
        from jaxmle.report.layout import Page, text

        total, converged = len(self.fits), self.counts.get(Status.CONVERGED, 0)
        found = f"{_many(len(self.maxima), 'maximum', 'maxima')} from {_many(total, 'start')}, {converged} CONVERGED"
        shared = (("n", f"{float(self.best.n):g}"), ("df", str(self.best.df)), ("vcov", self.best.vcov_kind))
        return text(Page(found, bool(self.maxima), shared, _grids(self), _notes(self)))


# ---------------------------------------------------------------- what the user gives


def _checked_data(loglik: Any, data: Tree, clusters: Any, dtype: np.dtype) -> Tree:
    """The data as one data set: ``fit_batch`` would read a list as many, and rows of NaN as a matter of one member."""
    data = host_data(tuple(data) if isinstance(data, list) else data, dtype)
    rows_of(loglik, data)
    check_weights(loglik, data)
    if clusters is not None and np.ndim(clusters) != 1:
        raise ValueError(f"clusters must hold one label for each row, shape (n,); got shape {np.shape(clusters)}")
    return data


def _starts(
    loglik: Any, tree: Any, starts: Any, data: Tree, constraints: Tree, number: int, key: Array, groups: tuple[Any, ...], axis: Any, dtype: np.dtype
) -> tuple[Layout, Tree]:  # fmt: skip
    """The layout of one start, and all of them (s, …)."""
    if starts is None:
        if not hasattr(loglik, "start"):
            raise ValueError("starts is missing: give start values or a sampler(key) of them; only a model with a method start(data) may go without")
        starts, axis = loglik.start(data), None
    if _is_sampler(starts):
        params, many = host_params(_sampled(starts, key, number), dtype, "starts"), True
    else:
        params = host_params(starts, dtype, "starts")
        many = _are_many(tree, params, data, constraints, groups, axis)
    one = _first(params) if many else params
    layout = layout_of(one, constraints)
    if many:
        return layout, params
    check_start(layout, one)
    check_fixed(tree, layout)
    return layout, _drawn(tree, layout, one, number, key)


def _first(params: Tree) -> Tree:
    return jax.tree.map(lambda leaf: leaf[0], params)


def _is_sampler(starts: Any) -> bool:
    """A function; a tree of parameters may be callable too, but has arrays for leaves."""
    leaves = jax.tree.leaves(starts)
    return callable(starts) and (isinstance(starts, jax.tree_util.Partial) or not leaves or leaves[0] is starts)


def _are_many(loglik: Any, params: Tree, data: Tree, constraints: Tree, groups: tuple[Any, ...], axis: Any) -> bool:
    """Whether ``starts`` has a leading axis over starts, rather than being one start."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
    lengths = {shape[:1] for shape in shapes}
    possible = len(lengths) == 1 and lengths not in ({()}, {(0,)})
    if axis not in (0, None, "auto") or isinstance(axis, bool):
        raise ValueError(f"params_axis must be 0, None or 'auto'; got {axis!r}")
    if axis == 0 and not possible:
        raise ValueError(f"every leaf of starts must have the same leading axis, over starts; got shapes {shapes}")
    if axis != "auto":
        return axis == 0
    alone = _complaint(loglik, params, data, constraints, groups)
    if not possible:
        if alone is not None and shapes and all(shapes):
            raise ValueError(f"every leaf of starts must have the same leading axis, over starts; got shapes {shapes}. Nor can they be one start: {_first_line(alone)}")
        return False  # where it does not run, the error is that of the likelihood
    apart = _complaint(loglik, _first(params), data, constraints, groups)
    if alone is not None and repr(alone) == repr(apart):
        raise alone  # it does not depend on how starts are read
    if alone is not None and apart is not None:
        raise ValueError(f"the likelihood takes starts neither as one start ({_first_line(alone)}) nor as {shapes[0][0]} of them ({_first_line(apart)})")
    if alone is None and apart is None:
        raise ValueError(f"starts may be read as one start or as {shapes[0][0]} of them: say params_axis=None (one, about which others are drawn) or params_axis=0")
    return apart is None


def _complaint(loglik: Any, params: Tree, data: Tree, constraints: Tree, groups: tuple[Any, ...]) -> Exception | None:
    """What is wrong with ``params`` as one start, by shapes, bounds and symmetric groups; None where nothing is."""
    try:
        layout = layout_of(params, constraints)
        jax.eval_shape(lambda params, data: terms_of(_portable(loglik), params, data), params, data)
        check_start(layout, params)
        _blocks(layout, groups)
    except ERRORS as error:
        return error
    return None


def _portable(tree: Any) -> Any:
    """The copy of a user's function whose arrays may be traced in float64 and leave the user's own float32 programs alone."""
    return remembered(tree, "portable", lambda copy: copy)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


# ---------------------------------------------------------------- drawing starts


def _keys(key: Array, number: int) -> Array:
    """One key for each start, the same whatever their number."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(number, dtype=jnp.uint32))


def _sampled(sampler: Any, key: Array, number: int) -> Tree:
    """``number`` starts of a sampler, (number, …): vmapped where every leaf depends on the key by way of jax, else one by one.

    A leaf that does not depend on it may come from a generator of the sampler's own, which a vmapped sampler would ask once only.
    """
    keys, sampler = _keys(key, number), _portable(Opaque(sampler)).function
    traced: list[bool] = []

    def watched(one: Array) -> Tree:
        start = sampler(one)
        traced.extend(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(start))
        return start

    try:
        drawn = jax.vmap(watched)(keys)
        if traced and all(traced):
            return to_numpy(drawn)
    except Exception:
        pass  # a sampler that cannot be traced; if it cannot be called either, the next line says why
    return _stacked([jax.tree.map(np.asarray, sampler(keys[i])) for i in range(number)])


def _stacked(drawn: list[Tree]) -> Tree:
    forms = [(jax.tree.structure(start), [leaf.shape for leaf in jax.tree.leaves(start)]) for start in drawn]
    odd = next((i for i, form in enumerate(forms) if form != forms[0]), None)
    if odd is not None:
        raise ValueError(f"the sampler's start {odd} has another structure or other shapes than its first: {forms[odd][1]} and {forms[0][1]}")
    return jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)


def _drawn(loglik: Any, layout: Layout, params: Tree, number: int, key: Array) -> Tree:
    """``params`` itself, then normal draws about it on the free scale; (number, …)."""
    roots = np.asarray(roots_of(loglik, layout))
    chart = Chart(layout, tuple(bool(root != j) for j, root in enumerate(roots)))
    base = np.asarray(substituted(loglik, layout, layout.ravel(params)))
    follow = np.where(roots >= 0, roots, np.arange(layout.p))
    steps = np.asarray(jax.vmap(lambda one: jax.random.normal(one, (chart.k,), jnp.float64))(_keys(key, number)))
    centre = chart.to_free(base)
    others = [_inside(layout, chart, follow, base, centre, SPREAD * step) for step in steps[1:].astype(base.dtype)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), layout.unravel(base), *others)


def _inside(layout: Layout, chart: Chart, follow: np.ndarray, base: np.ndarray, centre: np.ndarray, step: np.ndarray) -> Tree:
    """The parameters one step away; half as far each time that rounding puts them on a bound."""
    for _ in range(HALVINGS):
        params = layout.unravel(chart.to_user(centre + step, base)[follow])
        if all(leaf.constraint.violation(value) is None for leaf, value in zip(layout.leaves, layout.treedef.flatten_up_to(params), strict=True)):
            return params
        step = 0.5 * step
    return layout.unravel(base)


# ---------------------------------------------------------------- symmetric parameters


def _checked_groups(symmetric: Any) -> tuple[Any, ...]:
    """Groups of names, by their form alone: leaves, or blocks of equal length."""
    if isinstance(symmetric, str) or not isinstance(symmetric, Iterable):
        raise TypeError(f"symmetric is a list of groups, such as [('mu', 'sigma', 'weight')]; got {symmetric!r}")
    groups = tuple(symmetric)
    for group in groups:
        if not isinstance(group, tuple | list) or not group:
            raise TypeError(f"each group of symmetric is a tuple of leaf names, as in symmetric=[('mu', 'sigma', 'weight')]; got {group!r}")
        words = [isinstance(part, str) for part in group]
        blocks = [isinstance(part, tuple | list) and bool(part) and all(isinstance(name, str) for name in part) for part in group]
        if not all(words) and not all(blocks):
            raise TypeError(f"a group of symmetric holds leaf names, or tuples of names that may be exchanged, not both; got {group!r}")
        if all(blocks) and (len(group) < 2 or len({len(part) for part in group}) > 1):
            raise ValueError(f"symmetric exchanges two or more tuples of names, of one length; got {group!r}")
    return groups


def _blocks(layout: Layout, groups: tuple[Any, ...]) -> list[np.ndarray]:
    """For each group the positions in x of its components, (components, entries of each)."""
    found = [_leaf_blocks(layout, group) if isinstance(group[0], str) else _named_blocks(layout, group) for group in groups]
    places = np.concatenate([block.ravel() for block in found]) if found else np.zeros(0, int)
    kinds, times = np.unique(places, return_counts=True)
    if np.any(times > 1):
        raise ValueError(f"symmetric names {layout.names[kinds[np.argmax(times)]]!r} twice")
    return found


def _leaf_blocks(layout: Layout, group: tuple[str, ...]) -> np.ndarray:
    """Leaves whose leading axis runs over components."""
    paths = {leaf.path or "theta": place for place, leaf in enumerate(layout.leaves)}
    pieces, lengths = [], {}
    for name in group:
        if name not in paths:
            hint = f" To exchange single entries write symmetric=[(({name!r},), …)]." if name in layout.names else ""
            raise ValueError(f"symmetric names {name!r}, which is no leaf; the leaves are {', '.join(list(paths)[:20])}.{hint}")
        leaf, span = layout.leaves[paths[name]], layout.spans[paths[name]]
        if not leaf.shape or len(leaf.entries) < np.prod(leaf.shape):
            what = "a scalar" if not leaf.shape else f"a {type(leaf.constraint).__name__.lower()} matrix"
            raise ValueError(f"symmetric names {name!r}, which is {what} and has no leading axis over components")
        lengths[name] = leaf.shape[0]
        pieces.append(np.arange(span.start, span.stop).reshape(leaf.shape[0], -1))
    if len(set(lengths.values())) > 1:
        raise ValueError("the leaves of a symmetric group need as many components: " + ", ".join(f"{name} has {k}" for name, k in lengths.items()))
    return np.concatenate(pieces, axis=1)


def _named_blocks(layout: Layout, group: tuple[tuple[str, ...], ...]) -> np.ndarray:
    """Blocks given by the names of their entries or leaves."""
    try:
        found = [[layout.find(name) for name in block] for block in group]
    except ValueError as error:
        raise ValueError(f"symmetric: {error}") from None
    for block, names in zip(found, group, strict=True):
        for own, first, name, lead in zip(block, found[0], names, group[0], strict=True):
            if len(own) != len(first):
                raise ValueError(f"symmetric exchanges {lead!r}, which has {len(first)} entries, with {name!r}, which has {len(own)}")
    return np.array([np.concatenate(block) for block in found])


# ---------------------------------------------------------------- the census


def _census(fits: Fit, blocks: list[np.ndarray]) -> tuple[Maximum, ...]:
    """The distinct ends of the converged fits, the highest first."""
    loglik, x, scale = np.asarray(fits.loglik, dtype=float), fits.x, _scales(fits)
    converged = np.flatnonzero(fits.converged)
    leads: list[int] = []
    members: list[list[int]] = []
    for i in converged[np.argsort(-loglik[converged], kind="stable")].tolist():
        level = np.flatnonzero(loglik[leads] - loglik[i] < SAME_LOGLIK * np.maximum(1.0, np.abs(loglik[leads])))
        same = next((m for m in level.tolist() if _same(x[i], x[leads[m]], scale[leads[m]], blocks)), None)
        if same is None:
            leads.append(i)
            members.append([i])
        else:
            members[same].append(i)
    top = loglik[leads[0]] if leads else np.nan
    return tuple(
        Maximum(fits[lead], float(loglik[lead]), float(top - loglik[lead]), len(own) / len(fits), np.sort(np.array(own)))
        for lead, own in zip(leads, members, strict=True)
    )


def _scales(fits: Fit) -> np.ndarray:
    """The standard error of each entry, (b, p); 1/√|H_jj| where there is none (``vcov=None``, an entry that is fixed)."""
    x, se = fits.x, fits.se
    curvature = np.abs(np.diagonal(fits.hessian, axis1=-2, axis2=-1))
    seen = np.isfinite(curvature) & (curvature > 0)
    conditional = np.where(seen, 1.0 / np.sqrt(np.where(seen, curvature, 1.0)), np.maximum(1.0, np.abs(x)))
    return np.where(np.isfinite(se) & (se > 0), se, conditional)


def _same(x: np.ndarray, lead: np.ndarray, scale: np.ndarray, blocks: list[np.ndarray]) -> bool:
    """Whether two ends are one maximum, with labels exchanged where they may be."""
    for block in blocks:
        x = _relabelled(x, lead, scale, block)
    return bool(np.all(np.abs(x - lead) < SAME_SE * scale))


def _relabelled(x: np.ndarray, lead: np.ndarray, scale: np.ndarray, block: np.ndarray) -> np.ndarray:
    """``x`` with each component of ``lead`` met by the nearest that is left.

    Sorting both would do as well, except where the values sorted by differ by rounding alone.
    """
    left, order = list(range(len(block))), []
    for component in block:
        far = [float(np.max(np.abs(x[block[own]] - lead[component]) / scale[component])) for own in left]
        order.append(left.pop(int(np.argmin(far))))
    x = x.copy()
    x[block] = x[block[order]]
    return x


def _least_bad(fits: Fit) -> int:
    """Where none converged: a start that shows the likelihood unbounded, else the last in the order of ``Status``, then the highest."""
    loglik = np.where(np.isnan(fits.loglik), -np.inf, fits.loglik)
    endless = np.flatnonzero(fits.status == Status.UNBOUNDED)
    return int(endless[0]) if endless.size else int(np.lexsort((loglik, fits.status))[-1])


# ---------------------------------------------------------------- saying


def _many(times: int, one: str, more: str | None = None) -> str:
    return f"{times} {one if times == 1 else more or one + 's'}"


def _level(maximum: Maximum) -> bool:
    """Whether a maximum is as high as the best."""
    return maximum.gap < SAME_LOGLIK * max(1.0, abs(maximum.loglik))


def _grids(found: Multistart) -> tuple[Any, ...]:
    """The maxima, or the best end where there is none; then the starts that failed, by status."""
    from jaxmle.report.layout import Grid
    from jaxmle.report.numerals import likelihood, significant
    from jaxmle.report.table import shortened

    total = len(found.fits)

    def row(place: int, maximum: Maximum) -> tuple[str, ...]:
        lower = ", as high as 1" if place and _level(maximum) else ", a local maximum" if place or found.unbounded else ""
        cells = (likelihood(maximum.loglik), significant(maximum.gap, 3), f"{100 * maximum.share:.1f}", str(len(maximum.members)))
        return (str(place + 1), *cells, f"CONVERGED{lower}")

    rows = [row(place, maximum) for place, maximum in enumerate(found.maxima)]
    if not rows:
        verdict = found.best.verdict
        rows = [("best", likelihood(float(found.best.loglik)), "n/a", f"{100 * found.counts[verdict] / total:.1f}", str(found.counts[verdict]), verdict.name)]
    header = ("", "log-likelihood", "gap", "share %", "starts", "status")
    failed = tuple((status.name, str(times), f"{100 * times / total:.1f}") for status, times in found.counts.items() if status != Status.CONVERGED)
    grids = (Grid(header, shortened(rows, SHOWN - 1, 1), words=(0, 5)),)
    return (*grids, Grid(("status", "starts", "%"), failed, "Starts that failed")) if failed else grids


def _notes(found: Multistart) -> tuple[str, ...]:
    """What a reader of the table could misread."""
    from jaxmle.report.numerals import likelihood

    fits, maxima = found.fits, found.maxima
    lone = sum(len(maximum.members) == 1 for maximum in maxima)
    twins = sum(_level(maximum) for maximum in maxima)
    level = maxima[0].loglik + SAME_LOGLIK * max(1.0, abs(maxima[0].loglik)) if maxima else np.inf
    higher = np.flatnonzero(np.isfinite(fits.loglik) & (fits.loglik > level))
    top = int(higher[np.argmax(fits.loglik[higher])]) if higher.size else -1
    end = "the best is only a local maximum." if maxima else "there is no maximum."
    said = (
        (found.unbounded > 0, f"The likelihood is unbounded: {_many(found.unbounded, 'start')} climbed without end, so {end}"),
        (top >= 0, f"{_many(len(higher), 'start')} that did not converge reached more, up to {likelihood(float(fits.loglik[top]))} ({Status(int(fits.status[top])).name}): fits[{top}].explain()."),
        (twins > 1, f"{twins} maxima are equally high: where labels may be exchanged, symmetric= makes them one."),
        (lone > 0 and len(fits) > 1, f"{_many(lone, 'maximum was found by one start', 'maxima were found by one start each')}: more starts may find others."),
        (not maxima, f"No start converged. The best ends so: {found.best.explain()}"),
    )
    return tuple(sentence for holds, sentence in said if holds)
