"""Profile likelihood intervals of 1 000 data sets with 4 parameters, both ends, against the cost of the fits; one core.

    python benchmarks/profiles.py [members]

Accuracy is that of the ends: |2(ℓ̂ − ℓ) − χ²| at each of them, evaluated.
"""

from __future__ import annotations

import sys
from typing import Any

import yardstick  # isort: skip  (pins, so before NumPy)

import jax.numpy as jnp
import numpy as np

import jaxmle as jm

N = 200

declared = jm.regression(
    lambda eta, row: row["y"] * eta["mu"] - jm.special.softplus(eta["mu"]),
    eta={"mu": jm.linear("x", "beta")},
)


def logistic(params: dict[str, Any], data: dict[str, Any]) -> Any:
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jm.special.softplus(eta)


def weibull(params: dict[str, Any], data: dict[str, Any]) -> Any:
    """Accelerated failure times, three coefficients and a shape."""
    w = params["shape"] * (jnp.log(data["t"]) - data["x"] @ params["beta"])
    return data["event"] * (jnp.log(params["shape"]) + w - jnp.log(data["t"])) - jnp.exp(w)


def simulate(members: int, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    x = np.concatenate([np.ones((members, N, 1)), rng.normal(size=(members, N, 3))], axis=2)
    y = (rng.random((members, N)) < 1 / (1 + np.exp(-(x @ [0.3, 0.8, -0.5, 0.2])))).astype(float)
    life = np.exp(x[..., :3] @ [1.0, 0.5, -0.3]) * rng.weibull(1.5, size=(members, N))
    censor = rng.exponential(6.0, size=(members, N))
    return {"x": x, "y": y}, {
        "x": x[..., :3].copy(),
        "t": np.minimum(life, censor),
        "event": (life <= censor).astype(float),
    }


def main(members: int) -> None:
    print(yardstick.versions("jax", "numpy"))
    binary, survival = simulate(members)
    coefficients, shaped = {"beta": np.zeros(4)}, {"beta": np.zeros(3), "shape": np.ones(())}
    cases = [
        ("logistic, declared", declared, coefficients, binary, None),
        ("logistic, opaque", logistic, coefficients, binary, None),
        ("Weibull, opaque", weibull, shaped, survival, {"shape": jm.positive}),
    ]
    for name, loglik, start, data, constraints in cases:
        board = yardstick.Board(f"{name}: {members} data sets, n = {N}, 4 parameters")

        def fit():
            return jm.fit_batch(loglik, start, data, constraints=constraints, progress=False)

        fits = board.time("fits", fit, compiles=True, repeats=7)

        def told(p):
            return f"{np.mean(p.found):.2%} found, error {np.nanmax(np.abs(p.error)):.0e}"

        board.time(
            "profiles, both ends",
            lambda: jm.profile(loglik, fits, data),
            compiles=True,
            repeats=7,
            note=told,
        )
        board.report([yardstick.Target("profiles, both ends", "fits", 12.0)])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
