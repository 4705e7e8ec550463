"""Effects and other derived quantities with their intervals, a row for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from jaxmle._types import Array, Tree, ndarray
from jaxmle.parameters.arguments import check_level, check_number, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.plots.canvas import INK, MARKS, axes, percent
from jaxmle.plots.estimates import Row, edges_of, finish, scale_of, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@with_keyword_hints
def effects(
    record: Tree,
    level: float = 0.95,
    *,
    reference: float | None = 0.0,
    transform: Callable[[Array], Array] | None = None,
    xlabel: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Effects with their intervals, one row each: the result of ``margins``, or any result with
    estimates and ``conf_int``.

    Args:
        record: a result with ``estimate`` (q,), ``conf_int(level)`` (q, 2) and optionally
            ``names``, such as that of ``margins`` or ``delta``.
        level: coverage of the intervals.
        reference: a vertical line at this value if it is inside the plot; None for no line.
        transform: an increasing function of estimates and ends, such as ``numpy.exp``.
        xlabel: the label of the axis.
        ax: where to draw; None for a new figure.

    Returns:
        The ``Axes``. An effect without a standard error is hollow, and an effect without a value is
        labelled as such.

    Raises:
        ValueError, TypeError: for any other object, or if the estimates are not a vector of
            numbers.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle import plots
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> result = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> means = jm.delta(lambda params: {"mean": 1 / params["rate"]}, result)
    >>> [label.get_text() for label in plots.effects(means).get_yticklabels()]
    ['mean']
    """
    check_level(level)
    if reference is not None:
        reference = check_number("reference", reference)
    if not hasattr(record, "estimate") or not hasattr(record, "conf_int"):
        raise TypeError(
            "effects draws a result with estimate and conf_int, such as that of margins "
            f"or delta; got {shown(record)}"
        )
    estimate, names = _flat(record.estimate)
    ends, _ = _flat(record.conf_int(level), last_axis=2)
    names = list(getattr(record, "names", None) or names)
    labels = [str(name) for name in names]
    if len(labels) != len(estimate) or len(ends) != len(estimate):
        raise ValueError(
            f"{len(estimate)} estimates have {len(labels)} names and {len(ends)} intervals"
        )
    keys = tuple(f"{place} {label}" for place, label in enumerate(labels))
    rows = {
        key: Row(float(value), float(low), float(high))
        for key, value, (low, high) in zip(keys, estimate, ends, strict=True)
    }
    ax = axes(ax, (6.0, 1.2 + 0.3 * len(rows)))
    scale = scale_of(transform, edges_of(list(rows.values()), reference))
    series(ax, rows, keys, 0.0, scale, {"color": INK, "marker": MARKS[0]}, "")
    words = xlabel or f"{getattr(record, 'title', '') or 'estimate'} and {percent(level)} interval"
    finish(ax, labels, scale, reference, words)
    return ax


def _flat(tree: Tree, last_axis: int | None = None) -> tuple[ndarray, list[str]]:
    """The numbers of a tree, (q,) or (q, last_axis), and the position of each in it."""
    import jax

    pieces = []
    names: list[str] = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        values = np.asarray(leaf, float)
        name = ".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path)
        shape = values.shape if last_axis is None else values.shape[:-1]
        places = list(np.ndindex(shape))
        names += [name + (f"[{', '.join(map(str, index))}]" if index else "") for index in places]
        pieces.append(values.reshape(-1) if last_axis is None else values.reshape(-1, last_axis))
    if not pieces:
        raise ValueError("the result has no estimate")
    return np.concatenate(pieces), [name or "estimate" for name in names]
