"""``fit_groups``: one likelihood on every group of rows of one table; the fits of a batch, indexed
by the keys of the groups.
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from jaxmle._types import (
    ArrayLike,
    Clusters,
    DataFrame,
    DTypeLike,
    Label,
    Loglik,
    PathLike,
    Tree,
    ndarray,
)
from jaxmle.batch.batch import fit_members
from jaxmle.batch.members.sources import Table
from jaxmle.data.frame import Frame, from_formula
from jaxmle.data.keys import coded_key, columns_of_keys, groups_of, keys_and_data, refuse_mask
from jaxmle.data.lost import ALL_MISSING, with_lost
from jaxmle.data.rows import MISSING_POLICIES
from jaxmle.data.table import backend_of
from jaxmle.fitting.options import MAX_STEPS, Options
from jaxmle.likelihood.checks import host_data
from jaxmle.likelihood.combinators import Weights, check_weights_given
from jaxmle.likelihood.contract import data_length
from jaxmle.likelihood.information.covariance import cluster_codes
from jaxmle.parameters.arguments import check_choice, shown
from jaxmle.parameters.frames import check_row_labels, is_frame
from jaxmle.parameters.keywords import missing_name, with_keyword_hints
from jaxmle.record.fit import Fit
from jaxmle.record.witness import renumbered
from jaxmle.runtime.jax_state import host_only
from jaxmle.solvers.methods import Solver
from jaxmle.solvers.status import Status
from jaxmle.tables.frame import native

FAILED_GROUPS_SHOWN = 5  # failed groups in the digest
DIGEST_COLUMNS = 100  # columns of the digest
MAX_KEYS_COMPARED = 10_000  # keys that are searched for a similar spelling


@with_keyword_hints
def fit_groups(
    loglik: Loglik,
    params0: Tree = None,
    data: Tree = None,
    *,
    by: str | Sequence[str] | Mapping[str, ArrayLike] | ArrayLike,
    formula: str | None = None,
    also: Mapping[str, str] | None = None,
    missing: str = "warn",
    constraints: Tree = None,
    solver: Solver | None = None,
    vcov: str | None = "auto",
    clusters: Clusters = None,
    weights: Weights | None = None,
    dtype: DTypeLike = None,
    max_steps: int = MAX_STEPS,
    block_rows: int | None = None,
    block: int | None = None,
    devices: Tree = None,
    progress: bool | None = None,
    checkpoint: PathLike | None = None,
) -> GroupFits:
    """Maximise one log-likelihood separately on every group of rows of a table.

    Args:
        loglik, constraints, solver, vcov, dtype, max_steps, block_rows: as in ``fit``.
        params0: start values, the same for all groups; or None for a model with a method
            ``start(data)``, which is called for each group.
        data: any tree of arrays that share the leading axis n. The rows of a group need not be
            contiguous; their order is kept.
        by: the group of each row: integers, booleans or strings, (n,); or a dict from names to such
            arrays, for several keys; or the name of a leaf of ``data``, a dict; that leaf is then
            not passed to the likelihood.
        formula: ``"y ~ x + C(g)"`` if ``data`` is a frame or a dict of columns: its rows are coded
            once, as by ``from_formula``, and ``by``, ``clusters`` and ``weights`` may name columns;
            ``by`` is then a name or a list of names. ``data`` may also be a ``Frame`` that has the
            labels, ``from_formula(…, by="store")``; leave ``formula`` out then.
        also, missing: as in ``from_formula``; only with ``formula``.
        clusters: one label for each row, (n,).
        weights: ``frequency(w)`` or ``sampling(w)``, w (n,).
        block, devices, progress, checkpoint: as in ``fit_batch``.

    Returns:
        A ``GroupFits``, sorted by key. A group that fails has its own status and does not affect
        the others. Row numbers in messages and witnesses are those of the whole table.

    Raises:
        ValueError, TypeError: for mistakes visible in shapes and types, and for a row without a
            group. NaN in a group's data gives it the status NONFINITE.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data["y"]
    >>> data = {
    ...     "y": np.array([1.0, 2.0, 3.0, 4.0, 6.0]),
    ...     "site": np.array(["b", "a", "b", "a", "a"]),
    ... }
    >>> result = jm.fit_groups(
    ...     exponential, {"rate": 1.0}, data, by="site", constraints={"rate": jm.positive}
    ... )
    >>> [(key, round(float(fit.params["rate"]), 6)) for key, fit in result]
    [('a', 0.25), ('b', 0.5)]
    """
    kind = _backend_of(data)
    host_only("fit_groups", ": the number of groups is not known there")
    if formula is not None and not isinstance(formula, str):
        raise TypeError(f"a formula is a string such as 'y ~ x + C(g)'; got {shown(formula)}")
    check_choice("missing", missing, MISSING_POLICIES)
    frame = _frame_of(loglik, params0, data, by, formula, also, missing, weights, clusters)
    if frame is not None:
        by = {name: frame.labels[name] for name in columns_of_keys(by)}
        data = frame.data
        weights = frame.weights
        clusters = frame.clusters
    check_row_labels(data=data, by=by, clusters=clusters)
    labels, data = keys_and_data(by, data)
    options = Options(
        constraints=constraints,
        solver=solver,
        vcov=vcov,
        clusters=clusters,
        weights=weights,
        dtype=dtype,
        max_steps=max_steps,
        block_rows=block_rows,
        progress=progress,
    )
    data = host_data(data, options.host_dtype, nan=True)
    rows = data_length(data)
    if rows is None:
        raise ValueError("data holds no array: there are no rows to group")
    if weights is not None:
        check_weights_given(weights)
    keys, member = groups_of(
        {name: coded_key(name, values, rows) for name, values in labels.items()}
    )
    n = np.bincount(member)
    fits = fit_members(
        loglik,
        params0,
        Table(data, member, len(n)),
        replace(options, clusters=_clusters(clusters, rows)),
        params_axis=None,
        block=block,
        devices=devices,
        checkpoint=checkpoint,
    )
    result = GroupFits(keys, _in_table(fits, member, n), n, backend=kind)
    return result if frame is None else _of_frame(result, frame, loglik)


@dataclass(frozen=True, eq=False, repr=False)
class GroupFits:
    """The fits of the groups of one table, sorted by key.

    ``keys``: for each key its value in every group, (groups,); ``fits``: a ``Fit`` with a leading
    axis over groups; ``n``: the number of rows of each group, (groups,); ``note``: what the formula
    dropped; ``backend``: the kind of the input frame, which is also that of output frames.
    ``result[key]`` is the ``Fit`` of one group; ``key`` is a value, or a tuple if there are several
    keys. Iteration gives (key, Fit).

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data["y"]
    >>> site = np.array(["b", "a", "b", "a", "a"])
    >>> data = {"y": np.array([1.0, 2.0, 3.0, 4.0, 6.0]), "site": site}
    >>> bounds = {"rate": jm.positive}
    >>> result = jm.fit_groups(exponential, {"rate": 1.0}, data, by="site", constraints=bounds)
    >>> result.n.tolist(), round(float(result["a"].params["rate"]), 6)  # 3/(2 + 4 + 6)
    ([3, 2], 0.25)
    """

    keys: dict[str, ndarray]
    fits: Fit
    n: ndarray
    note: str = ""
    backend: str | None = None

    def __len__(self) -> int:
        return len(self.n)

    if not TYPE_CHECKING:  # a checker finds the names that are not there by itself

        def __getattr__(self, name: str) -> object:
            of_fit = name[:1] != "_" and (name in Fit.__dataclass_fields__ or hasattr(Fit, name))
            public = [known for known in dir(type(self)) if known[:1] != "_"]
            hint = f"of all groups result.fits.{name}, of one result[key].{name}" if of_fit else ""
            raise missing_name("a GroupFits", name, [*self.__dataclass_fields__, *public], hint)

    def __iter__(self) -> Iterator[tuple[Label, Fit]]:
        return ((self._key(i), self.fits[i]) for i in range(len(self)))

    def __contains__(self, key: Label) -> bool:
        return self._find(key)[1]

    def __getitem__(self, key: Label) -> Fit:
        """The fit of one group."""
        place, is_member = self._find(key)
        if not is_member:
            form = f"; a key is a tuple ({', '.join(self.keys)})" if len(self.keys) > 1 else ""
            raise KeyError(
                f"no group {key!r}{form}; near it: {', '.join(map(repr, self._near(key, place)))}"
            )
        return self.fits[place]

    def reasons(self) -> dict[Label, str]:
        """For each group that did not converge, from its key to its ``explain()``."""
        return {self._key(i): self._reason(i) for i in self._failed()}

    def _reason(self, place: int) -> str:
        """Why one group did not converge."""
        return (
            self.fits[place].explain()
            if self.n[place]
            else ALL_MISSING[0].upper() + ALL_MISSING[1:]
        )

    def to_frame(self, level: float = 0.95, backend: str | None = None) -> DataFrame:
        """A tidy data frame: a row for each group and parameter, in full precision.

        Returns:
            A native frame, as ``Fit.to_frame``: the keys, status, reason ('' where converged),
            term, estimate, std_error, statistic, p_value, conf_low and conf_high. A key with the
            same name as one of these columns gets the prefix ``group_``.
        """
        frame = self.fits.to_frame(level, backend or self.backend)
        nw = import_module("narwhals")
        tidy = nw.from_native(frame, eager_only=True).drop("member")
        reason = np.full(len(self), "", dtype=object)
        for i in self._failed():
            reason[i] = self._reason(i)
        spread = {
            _free_name(name, [*tidy.columns, "reason"]): values
            for name, values in self.keys.items()
        }
        spread |= {
            "status": np.array(tidy["status"].to_list()[:: len(self.fits.names)]),
            "reason": reason,
        }
        columns = {name: np.repeat(values, len(self.fits.names)) for name, values in spread.items()}
        lists = {
            name: values.tolist() if values.dtype.kind in "UO" else values
            for name, values in columns.items()
        }
        front = nw.from_dict(lists, backend=tidy.implementation)
        return nw.concat([front, tidy.drop("status")], how="horizontal").to_native()

    def summary_frame(self, backend: str | None = None) -> DataFrame:
        """A data frame with a row for each group: the keys, n, df, loglik, aic, status, and reason
        ('' where converged).
        """
        reason = np.full(len(self), "", dtype=object)
        for i in self._failed():
            reason[i] = self._reason(i)
        taken = ["n", "df", "loglik", "aic", "status", "reason"]
        keys = {_free_name(name, taken): values for name, values in self.keys.items()}
        status = np.asarray(self.fits.status).tolist()
        columns = {
            "n": np.asarray(self.n),
            "df": np.full(len(self), self.fits.df),
            "loglik": np.asarray(self.fits.loglik),
            "aic": np.asarray(self.fits.aic),
            "status": [Status(code).name for code in status],
            "reason": reason,
        }
        return native(keys | columns, backend or self.backend)

    def __repr__(self) -> str:
        headline = (
            f"{len(self):,} group{'s' * (len(self) != 1)} by {' and '.join(self.keys)}; "
            "member i below is result.fits[i]"
        )
        headline += f"\n{self.note}" * bool(self.note)
        failed = self._failed()
        if not len(failed):
            return f"{headline}\n{self.fits!r}"
        lines = [
            _shortened(f"{self._lost_line(i)}: {self._reason(i)}")
            for i in failed[:FAILED_GROUPS_SHOWN]
        ]
        more = (
            [f"and {len(failed) - FAILED_GROUPS_SHOWN:,} more: see reasons()"]
            if len(failed) > FAILED_GROUPS_SHOWN
            else []
        )
        return "\n".join([headline, repr(self.fits), "", *lines, *more])

    # ------------------------------------------------------------ keys and places

    def _failed(self) -> list[int]:
        return np.flatnonzero(~np.asarray(self.fits.converged)).tolist()

    def _key(self, place: int) -> Label:
        values = tuple(column[place].item() for column in self.keys.values())
        return values if len(self.keys) > 1 else values[0]

    def _lost_line(self, place: int) -> str:
        return ", ".join(f"{name}={column[place].item()!r}" for name, column in self.keys.items())

    def _find(self, key: Label) -> tuple[int, bool]:
        """The position of a key and whether it exists. Groups are in lexicographic order, so each
        key narrows the range.
        """
        values = key if len(self.keys) > 1 else (key,)
        if not isinstance(values, tuple) or len(values) != len(self.keys):
            return 0, False
        low = 0
        high = len(self)
        for column, value in zip(self.keys.values(), values, strict=True):
            try:
                exact = column.dtype.type(value)
                equal = bool(exact == value)  # 2.5 is not an integer, '2' not a number
            except (OverflowError, TypeError, ValueError):  # a value of another type is not a key
                return low, False
            left, right = (
                int(np.searchsorted(column[low:high], exact, side)) for side in ("left", "right")
            )
            high = low + right
            low = low + left
            if low == high or not equal:
                return low, False
        return low, True

    def _near(self, key: Label, place: int) -> list[Label]:
        """Keys spelt like the requested one; otherwise the neighbouring keys."""
        words = any(column.dtype.kind == "U" for column in self.keys.values())
        known = (
            {str(self._key(i)): i for i in range(min(len(self), MAX_KEYS_COMPARED))}
            if words
            else {}
        )
        alike = [self._key(known[text]) for text in difflib.get_close_matches(str(key), known)]
        return alike or [
            self._key(i)
            for i in range(max(0, min(place - 2, len(self) - 4)), min(len(self), max(place + 2, 4)))
        ]


def _backend_of(data: DataFrame) -> str | None:
    """The kind of the input frame; None for arrays."""
    if isinstance(data, Frame):
        return None if data.backend == "dict" else data.backend
    return backend_of(data) if is_frame(data) else None


def _free_name(name: str, taken: list[str]) -> str:
    while name in taken:
        name = f"group_{name}"
    return name


def _shortened(sentence: str) -> str:
    first, *rest = textwrap.wrap(sentence, DIGEST_COLUMNS - 2)
    return first + (" …" if rest else "")


def _in_table(fits: Fit, member: ndarray, n: ndarray) -> Fit:
    """The fits with the row of each witness counted in the whole table, not in its group."""
    order = np.argsort(member, kind="stable")
    starts = np.cumsum(n) - n
    # Rows beyond those of a group are padding, copies of its last row.
    witness = renumbered(fits.witness, lambda row: order[starts + np.minimum(row, n - 1)])
    return replace(fits, witness=witness)


def _of_frame(result: GroupFits, frame: Frame, loglik: Loglik) -> GroupFits:
    """The fits with the names and the row numbers of the table that was coded, and with the groups
    that have no complete row.
    """
    fits = frame.named(_of_all_rows(result.fits, frame.rows), loglik)
    lost = {name: frame.lost[name] for name in result.keys if name in frame.lost}
    return GroupFits(*with_lost(result.keys, fits, result.n, lost), frame.account, result.backend)


def _of_all_rows(fits: Fit, rows: ndarray) -> Fit:
    """The fits with the row numbers of witnesses counted before rows were dropped."""
    return replace(fits, witness=renumbered(fits.witness, lambda row: rows[row]))


# ---------------------------------------------------------------- what the user gives


def _frame_of(
    loglik: Loglik,
    params0: Tree,
    data: DataFrame,
    by: str | Sequence[str] | Mapping[str, ArrayLike] | ArrayLike,
    formula: str | None,
    also: Tree,
    missing: str,
    weights: Weights | None,
    clusters: Clusters,
) -> Frame | None:
    """The table coded by its formula, or the ``Frame`` that was passed; None if data are arrays."""
    if formula is None and not isinstance(data, Frame):
        if also is not None:
            raise ValueError(
                "also needs a formula: fit_groups(model, None, df, by='store', "
                "formula='y ~ x', also=…)"
            )
        return None
    if isinstance(data, Frame):
        if any(option is not None for option in (formula, also, weights, clusters)):
            raise ValueError(
                "a Frame already has its formula, weights and clusters: leave them out"
            )
        frame = data
        for name in columns_of_keys(by):
            if name not in frame.labels:
                raise ValueError(f"the Frame has no labels {name!r}: from_formula(…, by={name!r})")
    else:
        frame = from_formula(
            formula or "",
            data,
            weights=weights,
            clusters=clusters,
            also=also,
            by=columns_of_keys(by),
            missing=missing,
        )
    start = getattr(loglik, "start", None)
    frame.check(loglik, start(frame.data) if params0 is None and start else params0)
    return frame


def _clusters(clusters: Clusters, rows: int) -> ndarray | None:
    """Integer codes of the clusters, one for each row."""
    if clusters is None:
        return None
    refuse_mask("clusters", clusters)
    code, *crossed = cluster_codes(clusters, rows)
    if crossed:
        raise ValueError(
            f"clusters must hold one label for each of the {rows} rows; two-way clusters "
            "are not available in a batch"
        )
    return np.asarray(code)
