"""W5: 10 000 bootstraps of a Poisson regression, n = 1000, p = 5, drawing included, against a loop of statsmodels on resampled rows; one core.

python benchmarks/w5_bootstrap.py [replicates]
"""

from __future__ import annotations

import sys
from typing import Any

import yardstick  # isort: skip  (pins, so before NumPy)

import jax
import jax.numpy as jnp
import numpy as np

import jaxmle as jm

N, P = 1000, 5
LOOPED = 100

declared = jm.regression(
    lambda eta, row: row["y"] * eta["mu"] - jnp.exp(eta["mu"]), eta={"mu": jm.linear("x", "beta")}
)


def opaque(params: dict[str, Any], data: dict[str, Any]) -> Any:
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jnp.exp(eta)


def simulate(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(N), rng.normal(size=(N, P - 1))])
    return {"x": x, "y": rng.poisson(np.exp(x @ [0.5, 0.3, -0.2, 0.1, 0.0])).astype(float)}


def by_statsmodels(data: dict[str, np.ndarray], w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fits of given counts of rows, for the accuracy column."""
    import statsmodels.api as sm

    fits = [
        sm.GLM(data["y"], data["x"], family=sm.families.Poisson(), freq_weights=row).fit(tol=1e-10)
        for row in w
    ]
    return np.array([f.params for f in fits]), np.array([f.bse for f in fits])


def looped(data: dict[str, np.ndarray], replicates: int) -> np.ndarray:
    """The loop that one writes: draw rows, fit them."""
    import statsmodels.api as sm

    rng = np.random.default_rng(1)
    draws = (rng.integers(0, N, N) for _ in range(replicates))
    return np.array(
        [
            sm.GLM(data["y"][i], data["x"][i], family=sm.families.Poisson()).fit().params
            for i in draws
        ]
    )


def main(replicates: int) -> None:
    from jaxmle.inference.resampling.weights import (
        plan_of,  # the drawing alone, which has no public name
    )

    print(yardstick.versions("jax", "numpy", "statsmodels"))
    data, start = simulate(), {"beta": np.zeros(P)}
    m = min(LOOPED, replicates)
    counts = plan_of("pairs", declared, data, None, None, None)(
        jax.random.key(1), np.arange(m)
    ).values

    def pad(a):
        return np.concatenate([a, np.full((replicates - m, P), np.nan)])

    board = yardstick.Board(
        f"W5: {replicates} bootstraps of a Poisson regression, n = {N}, p = {P}, drawing included",
        tuple(map(pad, by_statsmodels(data, counts))),
    )

    def read(found):
        return (found.replicates, found.replicate_se)

    def told(found):
        return f"{len(found) - sum(found.failed.values()):,} CONVERGED"

    kinds = {
        "": {"acceleration": None},
        ", BCa included": {},
        ", standard errors of replicates too": {"acceleration": None, "vcov": "observed"},
    }
    for name, loglik in (("jaxmle declared", declared), ("jaxmle opaque", opaque)):
        fit = jm.fit(loglik, start, data)
        for what, options in kinds.items():

            def run(loglik=loglik, fit=fit, options=options):
                return jm.bootstrap(
                    loglik, fit, data, key=1, replicates=replicates, progress=False, **options
                )

            board.time(f"{name}{what}", run, read, compiles=True, repeats=4, note=told)

    def weights():
        return [
            np.asarray(
                plan_of("pairs", declared, data, None, None, None)(
                    jax.random.key(1), np.arange(at, at + 1000)
                ).values
            )
            for at in range(0, replicates, 1000)
        ]

    board.time("the drawing alone", weights, compiles=True, repeats=4)
    board.time(
        "statsmodels loop on weights, tol=1e-10",
        lambda: by_statsmodels(data, counts),
        lambda out: out,
        repeats=2,
        scale=replicates / m,
        note=f"{m} replicates, scaled",
    )
    board.time(
        "statsmodels loop",
        lambda: looped(data, m),
        repeats=2,
        scale=replicates / m,
        note=f"{m} replicates, scaled",
    )
    targets = [
        yardstick.Target(f"jaxmle {form}{what}", "statsmodels loop", 0.05, 0.02)
        for form in ("declared", "opaque")
        for what in kinds
    ]
    board.turns(targets, rounds=3)
    board.report(targets)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
