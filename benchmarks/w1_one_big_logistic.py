"""W1: one logistic regression with standard errors, n = 1e6, p = 20 and n = 1e5, p = 200; one core, from NumPy arrays.

python benchmarks/w1_one_big_logistic.py [n p]
"""

from __future__ import annotations

import sys

import yardstick  # isort: skip  (pins, so before NumPy)

import jax
import numpy as np

import jaxmle as jm

SHAPES = ((1_000_000, 20), (100_000, 200))
BLOCKS = (1024, 8192)


def simulate(n: int, p: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A design (n, p) with an intercept, and responses (n,) of a linear predictor with variance about 1."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p))
    x[:, 0] = 1.0
    eta = x @ (rng.standard_normal(p) / np.sqrt(p))
    return x, (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)


def opaque(params: dict, data: dict) -> jax.Array:
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jax.nn.softplus(eta)


declared = jm.regression(
    lambda eta, row: row["y"] * eta["mu"] - jax.nn.softplus(eta["mu"]),
    eta={"mu": jm.linear("x", "beta")},
)
# The same density with jaxmle's own softplus, whose derivatives share one exponential.
swift = jm.regression(
    lambda eta, row: row["y"] * eta["mu"] - jm.special.softplus(eta["mu"]),
    eta={"mu": jm.linear("x", "beta")},
)


def ours(board: yardstick.Board, x: np.ndarray, y: np.ndarray, big: bool) -> None:
    """jaxmle in both forms, whole and in blocks, and its built-in model; Newton by name where the default is another solver."""
    data, start = {"x": x, "y": y}, {"beta": np.zeros(x.shape[1])}
    contests = [
        ("declared", swift, {}),
        ("declared, jax.nn.softplus", declared, {}),
        ("models.logistic", jm.models.logistic(), {}),
    ]
    contests += [(f"declared, block_rows={b}", swift, {"block_rows": b}) for b in BLOCKS]
    contests += [
        ("opaque", opaque, {}),
        (f"opaque, block_rows={BLOCKS[0]}", opaque, {"block_rows": BLOCKS[0]}),
    ]
    if x.shape[1] > 128:
        contests += [("declared, Newton", swift, {"solver": jm.solvers.Newton()})]
        contests += [
            (
                f"declared, Newton, block_rows={BLOCKS[0]}",
                swift,
                {"solver": jm.solvers.Newton(), "block_rows": BLOCKS[0]},
            )
        ]
    for name, loglik, options in contests:
        begin = None if name.startswith("models") else start

        def run(loglik=loglik, begin=begin, options=options):
            return jm.fit(loglik, begin, data, **options)

        def told(fit):
            return f"{fit.verdict.name}, {int(fit.steps)} steps"

        board.time(
            f"jaxmle {name}",
            run,
            lambda fit: (fit.x, fit.se),
            compiles=True,
            repeats=5,
            budget=8.0 if big else 20.0,
            note=told,
        )


def peers(board: yardstick.Board, x: np.ndarray, y: np.ndarray) -> None:
    few = {"repeats": 3, "budget": 4.0}
    if sm := yardstick.optional("statsmodels.api"):

        def logit():
            return sm.Logit(y, x).fit(method="newton", disp=0, tol=1e-8)

        board.time("statsmodels Logit", logit, lambda r: (r.params, r.bse), **few)

        def glm():
            return sm.GLM(y, x, family=sm.families.Binomial()).fit()

        board.time("statsmodels GLM", glm, lambda r: (r.params, r.bse), **few)
    if linear_model := yardstick.optional("sklearn.linear_model"):
        for solver in ("newton-cholesky", "lbfgs"):

            def model(s=solver):
                return linear_model.LogisticRegression(
                    C=np.inf, fit_intercept=False, solver=s, tol=1e-6, max_iter=500
                ).fit(x, y)

            board.time(
                f"sklearn {solver}", model, lambda r: (r.coef_[0], None), note="no SEs", **few
            )
    if glum := yardstick.optional("glum"):

        def model():
            return glum.GeneralizedLinearRegressor(
                family="binomial", alpha=0, fit_intercept=False, gradient_tol=1e-8
            ).fit(x, y)

        def with_covariance() -> yardstick.Reading:
            fitted = model()
            return fitted.coef_, np.sqrt(
                np.diag(fitted.covariance_matrix(x, y, dispersion=1.0, robust=False, clusters=None))
            )

        board.time("glum + covariance", with_covariance, lambda r: r, **few)


def targets(p: int) -> list[yardstick.Target]:
    found = []
    for form in (
        "jaxmle declared",
        "jaxmle declared, jax.nn.softplus",
        "jaxmle models.logistic",
        "jaxmle opaque",
    ) + (("jaxmle declared, Newton",) if p > 128 else ()):
        if p <= 128:
            found += [
                yardstick.Target(form, "glum + covariance", 0.5),
                yardstick.Target(form, "statsmodels Logit", 0.15),
            ]
            found += [yardstick.Target(form, "sklearn lbfgs", 1.0, 0.6)]
        else:
            found += [
                yardstick.Target(form, "sklearn newton-cholesky", 0.6),
                yardstick.Target(form, "statsmodels Logit", 0.2),
            ]
            found += [yardstick.Target(form, "sklearn lbfgs", None, 2.0)]
    return found


def main(shapes: tuple[tuple[int, int], ...]) -> None:
    print(yardstick.versions("jax", "numpy", "statsmodels", "scikit-learn", "glum"))
    for n, p in shapes:
        x, y = simulate(n, p)
        board = yardstick.Board(
            f"W1: one logistic fit, n = {n}, p = {p}", yardstick.newton_reference(x, y)
        )
        ours(board, x, y, big=n * p >= 10**7)
        peers(board, x, y)
        board.turns(targets(p))
        board.report(targets(p))


if __name__ == "__main__":
    main((tuple(map(int, sys.argv[1:3])),) if len(sys.argv) == 3 else SHAPES)
