"""W5: 10 000 weighted fits of one Poisson regression, n = 1000, p = 5, the fits of a bootstrap; one design shared by all; one core.

    python benchmarks/w5_bootstrap.py [replicates]
"""

from __future__ import annotations

import sys
from typing import Any

import yardstick  # isort: skip  (pins, so before NumPy)

import jax.numpy as jnp
import numpy as np

import jaxmle as jm

N, P = 1000, 5
LOOPED = 100

declared = jm.regression(lambda eta, row: row["y"] * eta["mu"] - jnp.exp(eta["mu"]), eta={"mu": jm.linear("x", "beta")})


def opaque(params: dict[str, Any], data: dict[str, Any]) -> Any:
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jnp.exp(eta)


def simulate(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(N), rng.normal(size=(N, P - 1))])
    return {"x": x, "y": rng.poisson(np.exp(x @ [0.5, 0.3, -0.2, 0.1, 0.0])).astype(float)}


def draw(replicates: int, seed: int = 1) -> np.ndarray:
    """How often each row is drawn, (replicates, n): pairs bootstrap."""
    return np.random.default_rng(seed).multinomial(N, np.full(N, 1 / N), size=replicates).astype(float)


def by_statsmodels(data: dict[str, np.ndarray], w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import statsmodels.api as sm

    fits = [sm.GLM(data["y"], data["x"], family=sm.families.Poisson(), freq_weights=row).fit(tol=1e-10) for row in w]
    return np.array([f.params for f in fits]), np.array([f.bse for f in fits])


def main(replicates: int) -> None:
    print(yardstick.versions("jax", "numpy", "statsmodels"))
    data, start = simulate(), {"beta": np.zeros(P)}
    read = lambda fit: (fit.params["beta"], fit.stderr["beta"])  # noqa: E731
    m = min(LOOPED, replicates)
    reference = by_statsmodels(data, draw(replicates)[:m])
    pad = lambda a: np.concatenate([a, np.full((replicates - m, P), np.nan)])  # noqa: E731
    board = yardstick.Board(f"W5: {replicates} weighted Poisson regressions, n = {N}, p = {P}, one design", (pad(reference[0]), pad(reference[1])))
    for name, loglik in (("jaxmle declared", declared), ("jaxmle opaque", opaque)):
        fit = lambda w, loglik=loglik: jm.fit_batch(loglik, start, data, in_axes=None, weights=jm.frequency(w), progress=False)  # noqa: E731
        w = draw(replicates)
        board.time(name, lambda fit=fit, w=w: fit(w), read, compiles=True, repeats=3, note=lambda f: f"{f.converged.mean():.2%} CONVERGED")
        board.time(f"{name}, drawing included", lambda fit=fit: fit(draw(replicates)), read, repeats=3)
    board.time("statsmodels loop", lambda: by_statsmodels(data, draw(replicates)[:m]), lambda out: out, repeats=1, scale=replicates / m, note=f"{m} replicates, scaled")
    board.report([yardstick.Target(ours, "statsmodels loop", 0.05, 0.02) for ours in ("jaxmle declared, drawing included", "jaxmle opaque, drawing included")])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
