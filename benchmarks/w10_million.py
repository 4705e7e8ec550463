"""W10: a million two-parameter gamma fits, n = 50, in bounded memory, with a progress line; all cores.

python benchmarks/w10_million.py [members]
"""

from __future__ import annotations

import resource
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxmle as jm
from jaxmle.batch.scheduler import Scheduler

N = 50


def gamma(params: dict[str, jax.Array], y: jax.Array) -> jax.Array:
    """Shape and rate."""
    shape, rate = params["shape"], params["rate"]
    return (
        shape * jnp.log(rate)
        + (shape - 1) * jnp.log(y)
        - rate * y
        - jax.scipy.special.gammaln(shape)
    )


def peak() -> float:
    """The largest memory this process has held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(members: int) -> None:
    rng = np.random.default_rng(0)
    y = rng.standard_gamma(2.0, size=(members, N))
    mean = y.mean(axis=1)
    start = {"shape": mean**2 / y.var(axis=1), "rate": mean / y.var(axis=1)}
    predicted: list[float] = []
    plan = Scheduler.predicted_bytes

    def noted(self: Scheduler) -> float:
        predicted.append(plan(self) / 2**30)
        return plan(self)

    Scheduler.predicted_bytes = noted  # type: ignore[method-assign]
    held, begun = peak(), time.perf_counter()
    fits = jm.fit_batch(
        gamma, start, y, constraints={"shape": jm.positive, "rate": jm.positive}, progress=True
    )
    seconds = time.perf_counter() - begun
    print(
        f"{members:,} fits in {seconds:.1f} s, {members / seconds:,.0f} a second; {fits.converged.mean():.4%} CONVERGED"
    )
    print(
        f"peak memory {peak():.2f} GiB, predicted {predicted[0]:.2f} GiB ({predicted[0] / peak() - 1:+.0%}); {held:.2f} GiB before the call"
    )
    bias = fits.params["shape"].mean() - 2.0
    print(
        f"mean of the estimated shape {bias + 2:.4f} (true 2; the bias of order 1/n is about {bias:.3f})"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
