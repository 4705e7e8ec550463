"""``fit_stochastic``: a log-likelihood climbed by mini-batches under any optax transformation,
and an exact polish where it is wanted.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmle._types import Array, Loglik, Tree
from jaxmle.closures.program_digest import ADDRESS, model_digest
from jaxmle.fitting.fit import fit_with
from jaxmle.fitting.options import Options, Posed, constraints_of, read
from jaxmle.likelihood.checks import (
    check_coding,
    host_data,
    host_params,
)
from jaxmle.likelihood.combinators import Penalize, Pool, Weight
from jaxmle.likelihood.contract import as_tree, data_length
from jaxmle.likelihood.discovery.row_independence import check_rows_apart
from jaxmle.likelihood.indices import check_indices
from jaxmle.likelihood.structure import has, parts_of, substituted
from jaxmle.parameters.arguments import (
    check_choice,
    check_count,
    check_function,
    shown,
)
from jaxmle.record.fit import Fit
from jaxmle.runtime.checkpoint import Checkpoint, digest
from jaxmle.runtime.compile import compiled, precision, to_numpy, tracing
from jaxmle.runtime.fingerprint import digest_of_arrays
from jaxmle.runtime.keys import typed_key
from jaxmle.runtime.opaque import Opaque
from jaxmle.runtime.progress import LOGGED, QUIET, clock
from jaxmle.solvers.methods import LBFGS, Newton
from jaxmle.stochastic.minibatch import Batches, row_weights, terms_at

POLISHERS = {"newton": Newton(), "lbfgs": LBFGS()}
SPLIT = (
    2**31
)  # folded into the key for the held-out rows; epochs fold in their number, which is smaller


@dataclass(frozen=True, eq=False)
class StochasticFit:
    """The result of ``fit_stochastic``. Only its polish has a verdict and standard errors.

    Attributes:
        params: the parameters after ``best_epoch``, in the tree of the start values. A polish does
            not change them; its own are ``fit.params``.
        loglik: the log-likelihood of all the data at ``params``, with the log prior where there is
            one. NaN where ``stopped`` is ``"nonfinite"``.
        path: mean negative log-likelihood per unit of weight after each epoch, (epochs + 1, 2): of
            the rows trained on, and of those held out (NaN where none are). Row 0 is the start.
        epochs: how many epochs ran, those of an earlier run of the same checkpoint included.
        best_epoch: the one whose parameters these are: the lowest held-out value, or the last where
            nothing is held out.
        stopped: ``"epochs"`` all ran, ``"patience"`` the held-out value rose for so long,
            ``"nonfinite"`` the value left the finite numbers.
        fit: the record of the polish, or None.

    >>> import numpy as np, jax.numpy as jnp, optax
    >>> from jaxmle.stochastic.stochastic import fit_stochastic
    >>> y = np.arange(40.0) % 5
    >>> poisson = lambda params, y: y * params["log_rate"] - jnp.exp(params["log_rate"])
    >>> options = {"optimizer": optax.sgd(0.2), "batch_size": 8, "epochs": 3}
    >>> found = fit_stochastic(poisson, {"log_rate": 0.0}, y, **options)
    >>> round(float(found.path[0, 0]), 6), found.best_epoch, found.stopped  # exp(0) at the start
    (1.0, 3, 'epochs')
    """

    params: Tree = field(repr=False)
    loglik: float
    path: np.ndarray = field(repr=False)
    epochs: int
    best_epoch: int
    stopped: str
    fit: Fit | None = field(repr=False)


def fit_stochastic(
    loglik: Loglik,
    params0: Tree,
    data: Tree,
    *,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    epochs: int,
    key: Any = 0,
    schedule: Any = None,
    constraints: Tree = None,
    weights: Any = None,
    held_out: Any = None,
    patience: int | None = None,
    polish: str | None = None,
    polish_over: Any = None,
    vcov: Any = "auto",
    dtype: Any = None,
    checkpoint: Any = None,
    progress: bool | None = None,
) -> StochasticFit:
    """Maximise a log-likelihood by mini-batches, and polish the end exactly where that is wanted.

    A step descends the gradient of −{(n/m) Σ_batch w_i ℓ_i + log prior}/Σw, the mean negative
    log-likelihood, so that learning rates mean what they mean elsewhere. Each epoch walks through a
    new permutation of the rows. Its last batch may be short: m is then the rows that it has, so
    that every batch is a simple random sample of rows and its gradient is unbiased.

    Args:
        loglik: ``loglik(params, data)`` returning one term per row (n,), each of its own row alone;
            or a combinator of such, but no pool.
        params0: start values, any tree of floating-point arrays; None for a model with a method
            ``start(data)``.
        data: any tree of arrays that share the leading axis n.
        optimizer: any optax transformation; calls that share one object share their compiled
            programs. It sees the tree of the parameters; where there are constraints, fixed or tied
            entries, the vector of free coordinates.
        batch_size: rows of a batch, m.
        epochs: walks through the data, at most.
        key: a whole number or a jax key; it decides the permutations and the rows held out.
        schedule: ``schedule(step)`` multiplies the optimizer's updates; step counts batches from 0.
        constraints, weights, vcov, dtype: as in ``fit``; ``vcov`` is that of the polish. ``dtype``
            is float64 unless float32 is asked for; the polish is in float64.
        held_out: a share of the rows, between 0 and 1, drawn without replacement; or a tree like
            ``data`` of other rows, which count equally.
        patience: epochs without a lower held-out value after which to stop.
        polish: ``"newton"`` or ``"lbfgs"``: ``fit`` from the end, on all the data (held-out share
            included), with its verdict and standard errors. Newton's Hessian is (p, p).
        polish_over: keys of ``params0``, such as ``("w2", "b2")`` for the last layer: the polish
            moves these and holds the rest, and its standard errors are conditional on the rest.
        checkpoint: a folder of its own. Every epoch is kept there, and the same call resumes after
            the last one that was finished, to the same parameters bit by bit on the same machine.
            ``epochs`` and ``patience`` may change.
        progress: None for silence in the first two seconds, True for lines at once, False for none.

    Returns:
        A ``StochasticFit``.

    Raises:
        ValueError, TypeError: for what is visible in shapes and types, NaN in the data, rows that
            see each other.

    Source: Robbins & Monro (1951), Annals of Mathematical Statistics 22, 400–407; Bottou, Curtis &
    Nocedal (2018), SIAM Review 60, 223–311.

    >>> import numpy as np, jax.numpy as jnp, optax
    >>> from jaxmle.stochastic.stochastic import fit_stochastic
    >>> y = np.arange(40.0) % 5
    >>> poisson = lambda params, y: y * params["log_rate"] - jnp.exp(params["log_rate"])
    >>> found = fit_stochastic(
    ...     poisson,
    ...     {"log_rate": 0.0},
    ...     y,
    ...     optimizer=optax.sgd(0.2),
    ...     batch_size=8,
    ...     epochs=3,
    ...     polish="newton",
    ... )
    >>> (
    ...     found.path.shape,
    ...     bool(found.fit.converged),
    ...     round(float(np.exp(found.fit.params["log_rate"])), 6),
    ... )
    ((4, 2), True, 2.0)
    """
    if tracing():
        raise TypeError(
            "fit_stochastic schedules its work from the host and cannot run inside jit or vmap; "
            "there, use jaxmle.fit or optax itself"
        )
    _check_options(optimizer, batch_size, epochs, schedule, held_out, patience, polish)
    options = Options(
        constraints=constraints, vcov=vcov, weights=weights, dtype=dtype, progress=progress
    )
    _check_kind(as_tree(loglik))
    posed = read(loglik, params0, data, options)
    names = _checked_over(polish_over, polish, loglik, posed.params)
    if posed.rows is None:
        raise ValueError("data has no arrays: there are no rows to draw batches of")
    with precision(posed.dtype), np.errstate(all="ignore"), Checkpoint(checkpoint) as store:
        layout = posed.layout
        check_indices(posed.loglik, layout, layout.ravel(posed.params), posed.data)
        walk = _Run.of(posed, typed_key(key), held_out, optimizer, schedule, batch_size)
        result = walk.climb(posed.params, int(epochs), patience, store, progress)
    if polish is None or result.stopped == "nonfinite":
        return result
    options = replace(options, solver=POLISHERS[polish], dtype=None)
    polished = _polished(loglik, result.params, data, names, options)
    return replace(result, fit=polished)


# ---------------------------------------------------------------- what can be said before anything
# is compiled


def _check_options(
    optimizer: Any,
    batch_size: Any,
    epochs: Any,
    schedule: Any,
    held_out: Any,
    patience: Any,
    polish: Any,
) -> None:
    if isinstance(optimizer, type) or not (
        hasattr(optimizer, "init") and hasattr(optimizer, "update")
    ):
        raise TypeError(
            "optimizer must be an optax transformation, such as optax.adam(1e-3); got "
            f"{optimizer!r}"
        )
    check_count("batch_size", batch_size, 1)
    check_count("epochs", epochs)
    if patience is not None:
        check_count("patience", patience, 1)
    if schedule is not None:
        check_function("schedule", schedule, "optax.cosine_decay_schedule(1.0, 1000)")
    if patience is not None and held_out is None:
        raise ValueError(
            "patience watches held-out rows: give held_out=0.1, or a tree of other rows"
        )
    if isinstance(held_out, bool) or (isinstance(held_out, int | float) and not 0 < held_out < 1):
        raise ValueError(
            f"held_out must be a share between 0 and 1 or a tree of rows; got {held_out!r}"
        )
    if polish is not None:
        check_choice("polish", polish, tuple(POLISHERS))


def _check_kind(loglik: Loglik) -> None:
    """Batches are rows of one data set, and the prior is one of the parameters alone."""
    if has(loglik, Pool):
        raise ValueError(
            "a pool has several data sets, and a batch is rows of one: fit it with jaxmle.fit"
        )
    while parts_of(loglik):
        if isinstance(loglik, Penalize) and hasattr(loglik.prior, "of_likelihood"):
            raise ValueError("jeffreys's prior needs every row at once: fit it with jaxmle.fit")
        loglik = parts_of(loglik)[0]


def _checked_over(over: Any, polish: Any, loglik: Loglik, params: Tree) -> tuple[str, ...] | None:
    if over is None:
        return None
    over = (over,) if isinstance(over, str) else over
    if not isinstance(over, list | tuple) or not all(isinstance(name, str) for name in over):
        raise TypeError(f"polish_over is a key of params0, or a list of them; got {shown(over)}")
    over = tuple(over)
    if polish is None:
        raise ValueError("polish_over says what a polish moves: give polish='newton' too")
    if not isinstance(params, dict) or not over or not set(over) <= set(params):
        raise ValueError(
            "polish_over must be keys of params0, which has "
            f"{sorted(map(str, params)) if isinstance(params, dict) else type(params).__name__}; "
            f"got {over}"
        )
    core = as_tree(loglik)
    while isinstance(core, Weight | Penalize):
        core = core.loglik
    if not isinstance(core, Opaque):
        raise ValueError(
            "polish_over needs a plain function loglik(params, data), weighted or penalised; "
            f"got {type(core).__name__.lower()}"
        )
    return over


# ---------------------------------------------------------------- the run, on the host


class _Place(NamedTuple):
    """Everything that a run carries from one epoch to the next."""

    point: Tree
    state: Tree
    best: Tree


@dataclass(frozen=True, eq=False)
class _Run:
    """A mini-batch run about to begin: its data on the device and its static shape."""

    loglik: Loglik
    shape: Batches
    data: Tree
    train: Array  # (n_train,) rows
    held: Array  # (n_held,) rows of the data, or of ``other``
    other: Tree
    masses: tuple[float, float]  # Σw of the two
    key: Array
    dtype: np.dtype

    @classmethod
    def of(
        cls,
        posed: Posed,
        key: Array,
        held_out: Any,
        optimizer: Any,
        schedule: Any,
        batch_size: int,
    ) -> _Run:
        loglik = posed.loglik
        data = posed.data
        n = posed.rows or 0
        chart = posed.chart
        dtype = posed.dtype
        w = row_weights(loglik, n)
        other = None
        train = np.arange(n)
        held = np.zeros(0, int)
        kind = "none"
        if isinstance(held_out, int | float):
            order = np.array(jax.random.permutation(jax.random.fold_in(key, SPLIT), n))
            kind = "share"
            cut = round(held_out * n)
            held = np.sort(order[:cut])
            train = np.sort(order[cut:])
            if not (len(held) and len(train) and w[held].sum() > 0 and w[train].sum() > 0):
                raise ValueError(
                    f"held_out={held_out} of {n} rows leaves {len(train)} to train on and "
                    f"{len(held)} held out, and both need rows of positive weight"
                )
        elif held_out is not None:
            other = _checked_held(held_out, data, dtype)
            kind = "tree"
            check_coding(loglik, other)
            held = np.arange(data_length(other) or 0)
        if batch_size > len(train):
            raise ValueError(
                f"batch_size is {batch_size}, and there are {len(train)} rows to train on"
            )
        masses = (
            float(w[train].sum()),
            float(w[held].sum()) if kind == "share" else float(max(len(held), 1)),
        )
        shape = Batches(chart, int(batch_size), optimizer, schedule, kind)
        put = partial(jax.tree.map, jax.device_put)
        return cls(
            loglik,
            shape,
            put(data),
            jnp.asarray(train),
            jnp.asarray(held),
            put(other),
            masses,
            key,
            dtype,
        )

    def climb(
        self,
        params: Tree,
        epochs: int,
        patience: int | None,
        kept: Checkpoint,
        progress: bool | None,
    ) -> StochasticFit:
        """All epochs, with early stopping and a checkpoint after each."""
        shape = self.shape
        layout = self.shape.chart.layout
        base = np.asarray(substituted(self.loglik, layout, layout.ravel(params)), self.dtype)
        self._check_rows(params)
        point = (
            jax.tree.map(jnp.asarray, params)
            if shape.whole
            else jnp.asarray(shape.chart.to_free(base))
        )
        now = _Place(point, shape.transformation.init(point), point)
        walk = compiled(
            self.loglik, ("stochastic epoch", shape), lambda ll: partial(shape.epoch, ll)
        )
        still = replace(shape, optimizer=None, schedule=None)
        sums = compiled(self.loglik, ("stochastic sums", still), lambda ll: partial(still.sums, ll))
        mass = np.asarray(self.masses[0], self.dtype)

        def args(now: Any, number: Any) -> Any:
            return (
                now.point,
                now.state,
                base,
                self.data,
                self.train,
                mass,
                self.key,
                np.uint32(number),
            )

        def look(point: Any) -> Any:
            return np.array(sums(point, base, self.data, self.train, self.other, self.held), float)

        if kept.folder is not None:
            kept.open(self._identity(walk, args(now, 0), _arrays(now)))
        stored = kept.load("latest", partial(_check_stored, now))
        now, path = (
            (now, [self._means(look(now.point))]) if stored is None else _unpacked(stored, now)
        )
        if len(path) - 1 > epochs:
            raise ValueError(
                f"the checkpoint {str(kept.folder)!r} holds {len(path) - 1} epochs, more than "
                f"epochs={epochs}. Ask for as many, or give another folder."
            )
        told = _Teller(epochs, progress)
        stopped = _stop(path, epochs, patience)
        while stopped is None:
            point, state = walk(*args(now, len(path) - 1))
            path.append(self._means(look(point)))
            now = _Place(point, state, point if _best_epoch(path) == len(path) - 1 else now.best)
            kept.save("latest", _packed(now, path))
            told(path)
            stopped = _stop(path, epochs, patience)
        best = _best_epoch(path)
        x = shape.chart.to_user(now.best, base) if not shape.whole else layout.ravel(now.best)
        params = to_numpy(layout.unravel(substituted(self.loglik, layout, x)))
        train, held, prior = look(now.best)
        loglik = (
            train + prior + (held if shape.held == "share" else 0.0)
            if stopped != "nonfinite"
            else np.nan
        )
        return StochasticFit(
            params, float(loglik), np.array(path), len(path) - 1, best, stopped, None
        )

    def _means(self, sums: np.ndarray) -> tuple[float, float]:
        return -sums[0] / self.masses[0], np.nan if self.shape.held == "none" else -sums[
            1
        ] / self.masses[1]

    def _check_rows(self, params: Tree) -> None:
        """Terms are one for each row, and of that row alone: else a batch is no unbiased piece
        of the likelihood.
        """
        layout = self.shape.chart.layout
        jax.eval_shape(lambda p, d: terms_at(self.loglik, p, d, jnp.arange(1)), params, self.data)
        check_rows_apart(
            "a mini-batch",
            self.loglik,
            layout,
            layout.ravel(jax.tree.map(np.asarray, params)),
            self.data,
            remedy="Gather dependent rows in one leading-axis unit, or use jaxmle.fit",
        )

    def _identity(
        self, walk: Any, args: tuple[Any, ...], start: list[np.ndarray]
    ) -> dict[str, Any]:
        """What a checkpoint must agree with before it is resumed."""
        layout = self.shape.chart.layout
        parts = (self.data, self.other, self.train, self.held, self.loglik)
        return {
            "procedure": "fit_stochastic",
            "model": model_digest(walk, *args),
            "data": digest_of_arrays([leaf for part in parts for leaf in jax.tree.leaves(part)]),
            "start": digest_of_arrays([*start, args[2]]),
            "parameters": digest(repr((layout.names, layout.bounds))),
            "optimizer": digest(ADDRESS.sub("0x", str(jax.tree.structure(args[1])))),
            "batch size": self.shape.batch_size,
            "rows held out": self.shape.held,
            "key": np.asarray(jax.random.key_data(self.key)).tolist(),
            "dtype": str(self.dtype),
        }


def _checked_held(held_out: Tree, data: Tree, dtype: np.dtype) -> Tree:
    """Other rows, of the same tree and the same row shapes as the data."""
    other = host_data(held_out, dtype)
    wanted = str(jax.tree.structure(data))
    got = str(jax.tree.structure(other))
    if wanted != got:
        raise ValueError(f"held_out must be a tree like data, {wanted}; got {got}")
    data_length(other)
    for (path, mine), theirs in zip(
        jax.tree_util.tree_leaves_with_path(other), jax.tree.leaves(data), strict=True
    ):
        if np.shape(mine)[1:] != np.shape(theirs)[1:]:
            raise ValueError(
                f"held_out{jax.tree_util.keystr(path)} has rows of shape {np.shape(mine)[1:]}, "
                f"and data's have {np.shape(theirs)[1:]}"
            )
    return other


def _best_epoch(path: list[tuple[float, float]]) -> int:
    """The first epoch of the lowest held-out value; the last one where nothing is held out."""
    held = np.array(path)[:, 1]
    return int(np.nanargmin(held)) if np.any(np.isfinite(held)) else len(path) - 1


def _stop(path: list[tuple[float, float]], epochs: int, patience: int | None) -> str | None:
    """Why to stop, or None."""
    if not np.isfinite(path[-1][0]):
        return "nonfinite"
    if patience is not None and len(path) - 1 - _best_epoch(path) >= patience:
        return "patience"
    return "epochs" if len(path) - 1 >= epochs else None


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _arrays(now: _Place) -> list[np.ndarray]:
    return [
        np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        for leaf in jax.tree.leaves(now)
    ]


def _packed(now: _Place, path: list[tuple[float, float]]) -> list[np.ndarray]:
    return [np.array(path), *_arrays(now)]


def _check_stored(like: _Place, stored: list[np.ndarray]) -> None:
    """Arrays of a checkpoint are a path and a place of this run."""
    if not stored or stored[0].ndim != 2 or stored[0].shape[1] != 2 or not len(stored[0]):
        raise ValueError("it has no path of values")
    wanted = [(leaf.shape, leaf.dtype) for leaf in _arrays(like)]
    if [(leaf.shape, leaf.dtype) for leaf in stored[1:]] != wanted or stored[0].dtype != float:
        raise ValueError("its arrays have other shapes or types than this run writes")


def _unpacked(stored: list[np.ndarray], like: _Place) -> tuple[_Place, list[tuple[float, float]]]:
    leaves, treedef = jax.tree.flatten(like)
    restored = [
        jax.random.wrap_key_data(jnp.asarray(new), impl=jax.random.key_impl(old))
        if _is_key(old)
        else jnp.asarray(new)
        for new, old in zip(stored[1:], leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, restored), [(float(a), float(b)) for a, b in stored[0]]


class _Teller:
    """A line about the last epoch every so often, to standard error."""

    def __init__(self, epochs: int, shown: bool | None) -> None:
        self.epochs = epochs
        self.shown = shown
        self.begun = time.monotonic()
        self.told = -np.inf

    def __call__(self, path: list[tuple[float, float]]) -> None:
        now = time.monotonic()
        if (
            self.shown is False
            or (self.shown is None and now - self.begun < QUIET)
            or now - self.told < LOGGED
        ):
            return
        self.told, (train, held) = now, path[-1]
        also = f", held out {held:.6g}" if np.isfinite(held) else ""
        print(
            f"jaxmle.fit_stochastic: epoch {len(path) - 1} of {self.epochs}, mean negative "
            f"log-likelihood {train:.6g}{also}, {clock(now - self.begun)}",
            file=sys.stderr,
        )


# ---------------------------------------------------------------- the polish


def _over(loglik: Loglik, held: dict[str, Any], params: dict[str, Any], data: Tree) -> Array:
    return loglik({**held, **params}, data)


def _prior_over(prior: Any, held: dict[str, Any], params: dict[str, Any]) -> Array:
    return prior({**held, **params})


def _narrowed(loglik: Any, held: dict[str, Any]) -> Any:
    """The likelihood, and its priors, as functions of the parameters that are not held."""
    if isinstance(loglik, Weight):
        return replace(loglik, loglik=_narrowed(loglik.loglik, held))
    if isinstance(loglik, Penalize):
        return Penalize(
            _narrowed(loglik.loglik, held), jax.tree_util.Partial(_prior_over, loglik.prior, held)
        )
    return Opaque(partial(_over, loglik.function, held))


def _polished(
    loglik: Loglik, params: Tree, data: Tree, names: tuple[str, ...] | None, options: Options
) -> Fit:
    """``fit`` from the end of the mini-batches, of all parameters or of those named."""
    if names is None:
        return fit_with(loglik, params, data, options)
    exact = host_params(params, np.float64)
    held = {name: exact[name] for name in params if name not in names}
    moving = {name: exact[name] for name in names}
    constraints = constraints_of(loglik, options.constraints)
    if isinstance(constraints, dict):
        constraints = {name: value for name, value in constraints.items() if name in names}
    options = replace(options, constraints=constraints)
    return fit_with(_narrowed(as_tree(loglik), held), moving, data, options)
