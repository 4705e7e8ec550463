"""Mini-batches of a log-likelihood: the terms of some rows, an unbiased loss of a batch, one
epoch, and the sums over all rows.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmle._types import Array, Loglik, Tree, ndarray
from jaxmle.likelihood.combinators import Fix, Penalize, Tie, Weight, WithResponse
from jaxmle.likelihood.contract import need_terms, terms_of
from jaxmle.likelihood.derivatives import value_and_gradient
from jaxmle.likelihood.structure import parts_of
from jaxmle.parameters.tree import Chart, Layout


def picked(loglik: Loglik, rows: Array | None) -> Tree:
    """The likelihood of some rows: weights of these rows (none where ``rows`` is None), no
    prior.
    """
    match loglik:
        case Weight():
            inner = picked(loglik.loglik, rows)
            return (
                inner
                if rows is None
                else Weight(
                    inner,
                    dataclasses.replace(
                        loglik.weights, values=jnp.asarray(loglik.weights.values)[rows]
                    ),
                )
            )
        case Penalize():
            return picked(loglik.loglik, rows)
        case Fix() | Tie() | WithResponse():
            return dataclasses.replace(loglik, loglik=picked(loglik.loglik, rows))
    return loglik


def row_weights(loglik: Loglik, n: int) -> ndarray:
    """The product of all weights of each row, (n,)."""
    w = np.ones(n)
    while parts_of(loglik):
        if isinstance(loglik, Weight):
            w = w * np.asarray(loglik.weights.values, float)
        loglik = parts_of(loglik)[0]
    return w


def log_prior(loglik: Tree, layout: Layout, x: Array) -> Array:
    """The sum of all log priors at x (p,)."""
    if not parts_of(loglik):
        return jnp.zeros((), x.dtype)
    inside = loglik.substitute(layout, x) if isinstance(loglik, Fix | Tie) else x
    prior = loglik.prior(layout.unravel(x)) if isinstance(loglik, Penalize) else 0.0
    return prior + log_prior(loglik.loglik, layout, inside)


def terms_at(loglik: Loglik, params: Tree, data: Tree, rows: Array, weighted: bool = True) -> Array:
    """The terms of some rows, evaluated alone, (m,)."""
    some = jax.tree.map(lambda leaf: leaf[rows], data)
    return need_terms(
        terms_of(picked(loglik, rows if weighted else None), params, some), "a mini-batch"
    )


def batches(rows: Array, size: int) -> tuple[Array, ndarray]:
    """Rows (n,) in batches (⌈n/m⌉, m), and which of them count: the last batch is filled up
    with rows that do not.
    """
    n = rows.shape[0]
    places = np.arange(-(-n // size) * size).reshape(-1, size)
    return rows[places % n], places < n


@dataclass(frozen=True)
class Batches:
    """What is static of a run: the key of its programs."""

    chart: Chart
    batch_size: int
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule | None
    held: str  # "none", "share" or "tree"

    @property
    def whole(self) -> bool:
        """Whether the free coordinates are the parameters as they are: the optimizer then sees
        their tree.
        """
        return self.chart.is_identity and len(self.chart.moving) == self.chart.layout.p

    @property
    def transformation(self) -> Tree:
        chained = (
            self.optimizer
            if self.schedule is None
            else optax.chain(self.optimizer, optax.scale_by_schedule(self.schedule))
        )
        return optax.with_extra_args_support(chained)

    def params(self, point: Tree, base: Array) -> Tree:
        return point if self.whole else self.chart.layout.unravel(self.chart.to_user(point, base))

    def loss(
        self,
        loglik: Loglik,
        point: Tree,
        base: Array,
        data: Tree,
        rows: Array,
        real: Array,
        n: int,
        mass: Array,
    ) -> Array:
        """−{(n/m) Σ_batch w_i ℓ_i + log prior}/Σw."""
        params = self.params(point, base)
        layout = self.chart.layout
        terms = jnp.where(real, terms_at(loglik, params, data, rows), 0.0)
        return (
            -(n / jnp.sum(real) * jnp.sum(terms) + log_prior(loglik, layout, layout.ravel(params)))
            / mass
        )

    def epoch(
        self,
        loglik: Loglik,
        point: Tree,
        state: Tree,
        base: Array,
        data: Tree,
        train: Array,
        mass: Array,
        key: Array,
        number: Array,
    ) -> tuple[Tree, Tree]:
        """One walk through a new permutation of the training rows."""
        n = train.shape[0]
        transformation = self.transformation

        def advance(
            carry: tuple[Tree, Tree], batch: tuple[Array, Array]
        ) -> tuple[tuple[Tree, Tree], None]:
            point, state = carry

            def loss(point: Tree, **_: Tree) -> Tree:
                return self.loss(loglik, point, base, data, *batch, n, mass)

            value, grad = value_and_gradient(loss)(point)
            updates, after = transformation.update(
                grad, state, point, value=value, grad=grad, value_fn=loss
            )
            moved = (optax.apply_updates(point, updates), after)
            return jax.tree.map(
                lambda new, old: jnp.asarray(new).astype(jnp.asarray(old).dtype), moved, carry
            ), None

        order = train[jax.random.permutation(jax.random.fold_in(key, number), n)]
        return jax.lax.scan(advance, (point, state), batches(order, self.batch_size))[0]

    def sums(
        self,
        loglik: Loglik,
        point: Tree,
        base: Array,
        data: Tree,
        train: Array,
        other: Tree,
        held: Array,
    ) -> Array:
        """Σ of the training terms, Σ of the held-out ones, and the log prior, (3,); in blocks
        of a batch, so that memory does not grow with n.
        """
        params = self.params(point, base)
        layout = self.chart.layout

        def total(data: Tree, rows: Array, weighted: bool) -> Array:
            def add(so_far: Tree, batch: Tree) -> Tree:
                return (
                    so_far
                    + jnp.sum(
                        jnp.where(batch[1], terms_at(loglik, params, data, batch[0], weighted), 0.0)
                    ),
                    None,
                )

            return jax.lax.scan(add, jnp.zeros((), base.dtype), batches(rows, self.batch_size))[0]

        held_total: Array = jnp.zeros((), base.dtype)
        if self.held == "tree":
            held_total = total(other, held, False)
        elif self.held == "share":
            held_total = total(data, held, True)
        return jnp.stack(
            [
                total(data, train, True),
                held_total,
                jnp.asarray(log_prior(loglik, layout, layout.ravel(params)), base.dtype),
            ]
        )
