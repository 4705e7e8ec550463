"""W3: Gaussian peaks on a background, fitted to Poisson pixels, 5 × 5 to 15 × 15, five parameters, with standard errors; one core.

python benchmarks/w3_peaks.py [members]
"""

from __future__ import annotations

import sys
from typing import Any

import yardstick  # isort: skip  (pins, so before NumPy)

import jax.numpy as jnp
import numpy as np

import jaxmle as jm

LOOPED = 100  # members for a Python loop
TRUE = {"amplitude": 120.0, "x": 0.0, "y": 0.0, "sigma": 1.1, "background": 4.0}
BOUNDS = {"amplitude": jm.positive, "sigma": jm.positive, "background": jm.positive}


def grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    at = np.arange(side) - (side - 1) / 2
    i, j = np.meshgrid(at, at, indexing="ij")
    return i.ravel(), j.ravel()


def simulate(members: int, side: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    i, j = grid(side)
    x, y = rng.uniform(-0.5, 0.5, (2, members, 1))
    amplitude, sigma = rng.uniform(80, 160, (members, 1)), rng.uniform(0.9, 1.4, (members, 1))
    mean = amplitude * np.exp(-((i - x) ** 2 + (j - y) ** 2) / (2 * sigma**2)) + TRUE["background"]
    return {"i": i, "j": j, "counts": rng.poisson(mean).astype(float)}


def loglik(params: dict[str, Any], data: dict[str, Any]) -> Any:
    """Poisson terms without the constant log(counts!)."""
    square = (data["i"] - params["x"]) ** 2 + (data["j"] - params["y"]) ** 2
    mean = (
        params["amplitude"] * jnp.exp(-square / (2 * params["sigma"] ** 2)) + params["background"]
    )
    return data["counts"] * jnp.log(mean) - mean


def pixel(eta: dict[str, Any], row: dict[str, Any]) -> Any:
    """The same for one pixel: every parameter is a predictor that all pixels share."""
    square = (row["i"] - eta["x"]) ** 2 + (row["j"] - eta["y"]) ** 2
    mean = eta["amplitude"] * jnp.exp(-square / (2 * eta["sigma"] ** 2)) + eta["background"]
    return row["counts"] * jnp.log(mean) - mean


declared = jm.regression(pixel, {name: name for name in sorted(TRUE)})


def starts(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Moments, as a person would start each fit."""
    counts = data["counts"]
    low = np.maximum(np.quantile(counts, 0.1, axis=1), 1.0)
    above = np.maximum(counts - low[:, None], 0.0) + 1e-9
    share = above / above.sum(axis=1, keepdims=True)
    x, y = share @ data["i"], share @ data["j"]
    return {
        "amplitude": np.maximum(counts.max(axis=1) - low, 1.0),
        "x": x,
        "y": y,
        "sigma": np.full(len(x), 1.2),
        "background": low,
    }


def by_iminuit(
    data: dict[str, np.ndarray], start: dict[str, np.ndarray], members: int
) -> tuple[np.ndarray, np.ndarray]:
    from iminuit import Minuit

    found, errors = [], []
    for m in range(members):

        def cost(amplitude: float, background: float, sigma: float, x: float, y: float) -> float:
            mean = (
                amplitude * np.exp(-((data["i"] - x) ** 2 + (data["j"] - y) ** 2) / (2 * sigma**2))
                + background
            )
            return float(np.sum(mean - data["counts"][m] * np.log(mean)))

        minuit = Minuit(cost, **{name: float(values[m]) for name, values in sorted(start.items())})
        minuit.errordef = Minuit.LIKELIHOOD
        minuit.limits["amplitude"] = minuit.limits["background"] = minuit.limits["sigma"] = (
            1e-6,
            None,
        )
        minuit.migrad()
        minuit.hesse()
        found.append(list(minuit.values))
        errors.append(list(minuit.errors))
    return np.array(found), np.array(errors)


def by_scipy(
    data: dict[str, np.ndarray], start: dict[str, np.ndarray], members: int
) -> tuple[np.ndarray, np.ndarray]:
    from scipy.optimize import minimize

    names = sorted(start)
    found, errors = [], []
    for m in range(members):
        counts = data["counts"][m]

        def cost(theta: np.ndarray, counts: np.ndarray = counts) -> tuple[float, np.ndarray]:
            a, b, s, x, y = theta
            dx, dy = data["i"] - x, data["j"] - y
            bump = np.exp(-(dx**2 + dy**2) / (2 * s**2))
            mean = a * bump + b
            slope = 1 - counts / mean
            parts = (
                bump,
                np.ones_like(bump),
                a * bump * (dx**2 + dy**2) / s**3,
                a * bump * dx / s**2,
                a * bump * dy / s**2,
            )
            return float(np.sum(mean - counts * np.log(mean))), np.array(
                [slope @ part for part in parts]
            )

        limits = [(1e-6, None), (1e-6, None), (1e-3, None), (None, None), (None, None)]
        out = minimize(
            cost,
            [float(start[name][m]) for name in names],
            jac=True,
            method="L-BFGS-B",
            bounds=limits,
            options={"ftol": 1e-13, "gtol": 1e-7},
        )
        found.append(out.x)
        errors.append(np.sqrt(np.diag(out.hess_inv.todense())))
    return np.array(found), np.array(errors)


def contest(members: int, side: int) -> None:
    data, axes = simulate(members, side), {"i": None, "j": None, "counts": 0}
    start = starts(data)
    names = sorted(start)

    def read(fit):
        return (
            np.stack([fit.params[n] for n in names], axis=1).astype(float),
            np.stack([fit.stderr[n] for n in names], axis=1).astype(float),
        )

    def fit(model, dtype):
        return jm.fit_batch(
            model, start, data, constraints=BOUNDS, in_axes=axes, dtype=dtype, progress=False
        )

    truth = jm.fit_batch(loglik, start, data, constraints=BOUNDS, in_axes=axes, progress=False)
    b, se = read(truth)
    sound = truth.converged
    board = yardstick.Board(
        f"W3: {members} Gaussian peaks, {side} × {side} Poisson pixels",
        (np.where(sound[:, None], b, np.nan), np.where(sound[:, None], se, np.nan)),
    )
    ours = {
        "jaxmle declared, float64": (declared, "float64"),
        "jaxmle declared, float32": (declared, "float32"),
        "jaxmle opaque, float64": (loglik, "float64"),
    }
    for name, how in ours.items():
        board.time(
            name,
            lambda how=how: fit(*how),
            read,
            compiles=True,
            repeats=3,
            note=lambda f: f"{f.converged.mean():.2%} CONVERGED, steps {f.steps.mean():.1f}",
        )
    m = min(LOOPED, members)
    if yardstick.optional("iminuit"):
        board.time(
            "iminuit loop",
            lambda: by_iminuit(data, start, m),
            lambda out: out,
            repeats=1,
            scale=members / m,
            note=f"{m} members, scaled",
        )
    board.time(
        "scipy L-BFGS-B loop, own gradient",
        lambda: by_scipy(data, start, m),
        lambda out: (out[0], None),
        repeats=1,
        scale=members / m,
        note=f"{m} members, scaled; errors by BFGS",
    )
    found = [
        yardstick.Target(name, peer, 1 / 40)
        for name in ours
        for peer in ("iminuit loop", "scipy L-BFGS-B loop, own gradient")
    ]
    board.turns(found)
    board.report(found)
    for name in ours:
        print(f"{name}: {members / board.seconds[name]:,.0f} fits a second on one core")


def main(members: int) -> None:
    print(yardstick.versions("jax", "numpy", "scipy", "iminuit"))
    for side in (5, 9, 15):
        contest(members, side)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
