"""The epochs of a mini-batch fit: rows held out, early stopping, checkpoints, and the result."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, DType, Loglik, Tree, ndarray
from jaxmle.closures.program_digest import ADDRESS, model_digest
from jaxmle.fitting.options import Posed
from jaxmle.likelihood.checks import check_coding, host_data
from jaxmle.likelihood.contract import data_length
from jaxmle.likelihood.discovery.row_independence import check_rows_apart
from jaxmle.likelihood.structure import substituted
from jaxmle.record.fit import Fit
from jaxmle.runtime.checkpoint import Checkpoint, digest
from jaxmle.runtime.compile import compiled, portable_tree, to_numpy
from jaxmle.runtime.fingerprint import digest_of_arrays
from jaxmle.runtime.progress import SECONDS_BEFORE_A_BAR, SECONDS_BETWEEN_LOG_LINES, clock
from jaxmle.stochastic.minibatch import Batches, row_weights, terms_at

if TYPE_CHECKING:
    import optax

# folded into the key for the held-out rows; epochs fold in their number, which is smaller
SPLIT_OF_KEY = 2**31


@dataclass(frozen=True, eq=False)
class StochasticFit:
    """The result of ``fit_stochastic``. Only the polish has a verdict and standard errors.

    Attributes:
        params: the parameters after ``best_epoch``, in the tree of the start values. The polish
            does not change them; its parameters are ``fit.params``.
        loglik: the log-likelihood of all the data at ``params``, including any log prior. NaN if
            ``stopped`` is ``"nonfinite"``.
        path: mean negative log-likelihood per unit of weight after each epoch, (epochs + 1, 2): of
            the training rows, and of the held-out rows (NaN if there are none). Row 0 is the start.
        epochs: number of epochs, including those of an earlier run with the same checkpoint.
        best_epoch: the epoch of ``params``: the one with the lowest held-out value, or the last if
            no rows are held out.
        stopped: ``"epochs"`` if all ran, ``"patience"`` if the held-out value did not improve for
            that long, ``"nonfinite"`` if the value became non-finite.
        fit: the fit of the polish, or None.

    >>> import numpy as np, jax.numpy as jnp, optax
    >>> from jaxmle.stochastic.stochastic import fit_stochastic
    >>> y = np.arange(40.0) % 5
    >>> poisson = lambda params, y: y * params["log_rate"] - jnp.exp(params["log_rate"])
    >>> options = {"optimizer": optax.sgd(0.2), "batch_size": 8, "epochs": 3}
    >>> result = fit_stochastic(poisson, {"log_rate": 0.0}, y, **options)
    >>> round(float(result.path[0, 0]), 6), result.best_epoch, result.stopped  # exp(0) at the start
    (1.0, 3, 'epochs')
    """

    params: Tree = field(repr=False)
    loglik: float
    path: ndarray = field(repr=False)
    epochs: int
    best_epoch: int
    stopped: str
    fit: Fit | None = field(repr=False)


class _Carry(NamedTuple):
    """What a run carries from one epoch to the next."""

    point: Tree
    state: Tree
    best: Tree


@dataclass(frozen=True, eq=False)
class Run:
    """A mini-batch run about to begin: its data on the device and its static shape."""

    loglik: Loglik
    shape: Batches
    data: Tree
    train: Array  # (n_train,) rows
    held: Array  # (n_held,) rows of the data, or of ``other``
    other: Tree
    masses: tuple[float, float]  # Σw of the two
    key: Array
    dtype: DType

    @classmethod
    def of(
        cls,
        posed: Posed,
        key: Array,
        held_out: Tree,
        optimizer: optax.GradientTransformation,
        schedule: optax.Schedule | None,
        batch_size: int,
    ) -> Run:
        """The run of a problem, with its rows split into those trained on and those held out."""
        n = posed.rows or 0
        w = row_weights(posed.loglik, n)
        other = None
        train = np.arange(n)
        held = np.zeros(0, int)
        kind = "none"
        if isinstance(held_out, int | float):
            kind = "share"
            train, held = _split(w, held_out, key)
        elif held_out is not None:
            kind = "tree"
            other = _checked_held(held_out, posed.data, posed.dtype)
            check_coding(posed.loglik, other)
            held = np.arange(data_length(other) or 0)
        if batch_size > len(train):
            raise ValueError(
                f"batch_size is {batch_size}, and there are {len(train)} rows to train on"
            )
        held_mass = w[held].sum() if kind == "share" else max(len(held), 1)
        put = partial(jax.tree.map, jax.device_put)
        return cls(
            posed.loglik,
            Batches(posed.chart, int(batch_size), optimizer, schedule, kind),
            put(posed.data),
            jnp.asarray(train),
            jnp.asarray(held),
            put(other),
            (float(w[train].sum()), float(held_mass)),
            key,
            posed.dtype,
        )

    def maximise(
        self,
        params: Tree,
        epochs: int,
        patience: int | None,
        store: Checkpoint,
        progress: bool | None,
    ) -> StochasticFit:
        """All epochs, with early stopping and a checkpoint after each."""
        base = self._base(params)
        self._check_rows(params)
        carry = self._initial(params, base)
        epoch = compiled(
            self.loglik,
            ("stochastic epoch", self.shape),
            lambda loglik: partial(self.shape.epoch, loglik),
        )
        evaluate = self._evaluation(base)

        def arguments(carry: _Carry, number: int) -> tuple[Tree, ...]:
            mass = np.asarray(self.masses[0], self.dtype)
            rows = (base, self.data, self.train, mass, self.key)
            return (carry.point, carry.state, *rows, np.uint32(number))

        if store.folder is not None:
            store.open(self._identity(epoch, arguments(carry, 0), _arrays(carry)))
        stored = store.load("latest", partial(_check_stored, carry))
        if stored is None:
            path = [self._means(evaluate(carry.point))]
        else:
            carry, path = _unpacked(stored, carry)
        if len(path) - 1 > epochs:
            raise ValueError(
                f"the checkpoint {str(store.folder)!r} holds {len(path) - 1} epochs, more "
                f"than epochs={epochs}. Give at least that many epochs, or another "
                "folder."
            )
        report = _Report(epochs, progress)
        stopped = _stop(path, epochs, patience)
        while stopped is None:
            point, state = epoch(*arguments(carry, len(path) - 1))
            path.append(self._means(evaluate(point)))
            is_best = _best_epoch(path) == len(path) - 1
            carry = _Carry(point, state, point if is_best else carry.best)
            store.save("latest", _packed(carry, path))
            report(path)
            stopped = _stop(path, epochs, patience)
        return self._result(carry.best, base, evaluate, path, stopped)

    def _base(self, params: Tree) -> ndarray:
        layout = self.shape.chart.layout
        return np.asarray(substituted(self.loglik, layout, layout.ravel(params)), self.dtype)

    def _initial(self, params: Tree, base: ndarray) -> _Carry:
        """The start of the first epoch."""
        shape = self.shape
        point = (
            jax.tree.map(jnp.asarray, params)
            if shape.whole
            else jnp.asarray(shape.chart.to_free(base))
        )
        return _Carry(point, shape.transformation.init(point), point)

    def _evaluation(self, base: ndarray) -> Callable[[Tree], ndarray]:
        """The sums of the rows trained on and held out, and the log prior, (3,), at a point."""
        shape = replace(self.shape, optimizer=None, schedule=None)
        sums = compiled(
            self.loglik, ("stochastic sums", shape), lambda loglik: partial(shape.sums, loglik)
        )
        rows = (self.data, self.train, self.other, self.held)
        return lambda point: np.array(sums(point, base, *rows), float)

    def _result(
        self,
        point: Tree,
        base: ndarray,
        evaluate: Callable[[Tree], ndarray],
        path: list[tuple[float, float]],
        stopped: str,
    ) -> StochasticFit:
        """The record of a run that ended, at its best point."""
        shape = self.shape
        layout = shape.chart.layout
        x = layout.ravel(point) if shape.whole else shape.chart.to_user(point, base)
        params = to_numpy(layout.unravel(substituted(self.loglik, layout, x)))
        train, held, prior = evaluate(point)
        loglik = train + prior + (held if shape.held == "share" else 0.0)
        if stopped == "nonfinite":
            loglik = np.nan
        best = _best_epoch(path)
        return StochasticFit(
            params, float(loglik), np.array(path), len(path) - 1, best, stopped, None
        )

    def _means(self, sums: ndarray) -> tuple[float, float]:
        """The mean negative log-likelihoods of the rows trained on and held out."""
        held = np.nan if self.shape.held == "none" else -sums[1] / self.masses[1]
        return -sums[0] / self.masses[0], held

    def _check_rows(self, params: Tree) -> None:
        """Terms are one for each row, and of that row alone: else a batch is no unbiased piece
        of the likelihood.
        """
        layout = self.shape.chart.layout
        loglik = portable_tree(self.loglik)
        jax.eval_shape(lambda p, d: terms_at(loglik, p, d, jnp.arange(1)), params, self.data)
        check_rows_apart(
            "a mini-batch",
            self.loglik,
            layout,
            layout.ravel(jax.tree.map(np.asarray, params)),
            self.data,
            remedy="Group dependent rows in one unit of the leading axis, or use jaxmle.fit",
        )

    def _identity(
        self, epoch: Tree, args: tuple[Tree, ...], start: list[ndarray]
    ) -> dict[str, Tree]:
        """What a checkpoint must agree with before it is resumed."""
        layout = self.shape.chart.layout
        parts = (self.data, self.other, self.train, self.held, self.loglik)
        return {
            "procedure": "fit_stochastic",
            "model": model_digest(epoch, *args),
            "data": digest_of_arrays([leaf for part in parts for leaf in jax.tree.leaves(part)]),
            "start": digest_of_arrays([*start, args[2]]),
            "parameters": digest(repr((layout.names, layout.bounds))),
            "optimizer": digest(ADDRESS.sub("0x", str(jax.tree.structure(args[1])))),
            "batch size": self.shape.batch_size,
            "rows held out": self.shape.held,
            "key": np.asarray(jax.random.key_data(self.key)).tolist(),
            "dtype": str(self.dtype),
        }


def _split(w: ndarray, share: float, key: Array) -> tuple[ndarray, ndarray]:
    """The rows to train on, and a random share of them to hold out; in order."""
    n = len(w)
    order = np.array(jax.random.permutation(jax.random.fold_in(key, SPLIT_OF_KEY), n))
    cut = round(share * n)
    held = np.sort(order[:cut])
    train = np.sort(order[cut:])
    if not (len(held) and len(train) and w[held].sum() > 0 and w[train].sum() > 0):
        raise ValueError(
            f"held_out={share} of {n} rows leaves {len(train)} to train on and "
            f"{len(held)} held out, but both need rows with positive weight"
        )
    return train, held


def _checked_held(held_out: Tree, data: Tree, dtype: DType) -> Tree:
    """Other rows, of the same tree and the same row shapes as the data."""
    other = host_data(held_out, dtype)
    expected = str(jax.tree.structure(data))
    got = str(jax.tree.structure(other))
    if expected != got:
        raise ValueError(
            f"held_out must be a tree with the structure of data, {expected}; got {got}"
        )
    data_length(other)
    for (path, leaf), like in zip(
        jax.tree_util.tree_leaves_with_path(other), jax.tree.leaves(data), strict=True
    ):
        if np.shape(leaf)[1:] != np.shape(like)[1:]:
            raise ValueError(
                f"held_out{jax.tree_util.keystr(path)} has rows of shape {np.shape(leaf)[1:]}, "
                f"and data's have {np.shape(like)[1:]}"
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


def _is_key(leaf: object) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _arrays(carry: _Carry) -> list[ndarray]:
    return [
        np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        for leaf in jax.tree.leaves(carry)
    ]


def _packed(carry: _Carry, path: list[tuple[float, float]]) -> list[ndarray]:
    return [np.array(path), *_arrays(carry)]


def _check_stored(like: _Carry, stored: list[ndarray]) -> None:
    """Arrays of a checkpoint are a path and a place of this run."""
    if not stored or stored[0].ndim != 2 or stored[0].shape[1] != 2 or not len(stored[0]):
        raise ValueError("it has no history of values")
    expected = [(leaf.shape, leaf.dtype) for leaf in _arrays(like)]
    if [(leaf.shape, leaf.dtype) for leaf in stored[1:]] != expected or stored[0].dtype != float:
        raise ValueError("its arrays do not have the shapes and types that this run writes")


def _unpacked(stored: list[ndarray], like: _Carry) -> tuple[_Carry, list[tuple[float, float]]]:
    leaves, treedef = jax.tree.flatten(like)
    restored = [
        jax.random.wrap_key_data(jnp.asarray(new), impl=jax.random.key_impl(old))
        if _is_key(old)
        else jnp.asarray(new)
        for new, old in zip(stored[1:], leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, restored), [(float(a), float(b)) for a, b in stored[0]]


class _Report:
    """A line about the last epoch every so often, to standard error."""

    def __init__(self, epochs: int, shown: bool | None) -> None:
        self.epochs = epochs
        self.shown = shown
        self.start = time.monotonic()
        self.last_line = -np.inf

    def __call__(self, path: list[tuple[float, float]]) -> None:
        now = time.monotonic()
        is_early = self.shown is None and now - self.start < SECONDS_BEFORE_A_BAR
        if self.shown is False or is_early or now - self.last_line < SECONDS_BETWEEN_LOG_LINES:
            return
        self.last_line = now
        train, held = path[-1]
        held_out = f", held out {held:.6g}" if np.isfinite(held) else ""
        print(
            f"jaxmle.fit_stochastic: epoch {len(path) - 1} of {self.epochs}, mean negative "
            f"log-likelihood {train:.6g}{held_out}, {clock(now - self.start)}",
            file=sys.stderr,
        )
