"""W9: data sets of unequal length. 2 000 groups of 5 to 5 000 rows; 20 000 groups of counts with a negative binomial; one core.

python benchmarks/w9_ragged.py [groups of counts]
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

import yardstick  # isort: skip  (pins, so before NumPy)

import jax
import jax.numpy as jnp
import numpy as np

import jaxmle as jm
from jaxmle import models

LOOPED = 60


def logit(params: dict[str, Any], data: dict[str, Any]) -> Any:
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jm.special.softplus(eta)


def negative_binomial(params: dict[str, Any], data: dict[str, Any]) -> Any:
    """NB2 with mean exp(x'beta) and size 1/alpha."""
    mean, size = jnp.exp(data["x"] @ params["beta"]), 1.0 / params["alpha"]
    gammaln = jm.special.gammaln
    return (
        gammaln(data["y"] + size)
        - gammaln(size)
        - gammaln(data["y"] + 1)
        + size * jnp.log(size / (size + mean))
        + data["y"] * jnp.log(mean / (size + mean))
    )


def density(eta: Any, row: dict[str, Any]) -> Any:
    """The same of one row, for the declared form."""
    y, mean, size, gammaln = row["y"], jnp.exp(eta["mu"]), 1.0 / eta["alpha"], jm.special.gammaln
    return (
        gammaln(y + size)
        - gammaln(size)
        - gammaln(y + 1)
        - size * jnp.log1p(mean / size)
        + y * (eta["mu"] - jnp.log(mean + size))
    )


ETA = {"mu": jm.linear("x", "beta"), "alpha": "alpha"}
declared = jm.regression(density, ETA)


def of_mean(eta: Any, row: dict[str, Any]) -> Any:
    """What the mean enters."""
    y, alpha = row["y"], eta["alpha"]
    return y * eta["mu"] - (y + 1 / alpha) * jm.special.softplus(eta["mu"] + jnp.log(alpha))


def of_count(eta: Any, y: Any) -> Any:
    """What the count and the dispersion alone enter: once for each count that occurs."""
    size, gammaln = 1 / eta["alpha"], jm.special.gammaln
    return gammaln(y + size) - gammaln(size) - gammaln(y + 1) + y * jnp.log(eta["alpha"])


split = jm.regression(of_mean, ETA, counts={"y": of_count})


def groups(number: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Sizes from a Pareto law cut at 5 and 5 000."""
    rng = np.random.default_rng(seed)
    sizes = np.minimum(5 * (1 - rng.random(number)) ** (-1 / 0.6), 5000).astype(int)
    sets = []
    for n in sizes:
        x = np.column_stack([np.ones(n), rng.normal(size=n)])
        sets.append(
            {"x": x, "y": (rng.random(n) < 1 / (1 + np.exp(-x @ [0.2, 0.5]))).astype(float)}
        )
    return sets


def counts(number: int, seed: int = 1) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    sets = []
    for n in rng.integers(40, 200, size=number):
        x = np.column_stack([np.ones(n), rng.normal(size=n)])
        mean = np.exp(x @ [1.0, 0.4])
        sets.append({"x": x, "y": rng.poisson(mean * rng.gamma(2.0, 0.5, size=n)).astype(float)})
    return sets


def compiled_shapes(run: Any) -> tuple[Any, int]:
    """What ``run`` returns, and how many shapes of the likelihood it evaluated: one program a length."""
    import logging

    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    logger, listener = logging.getLogger("jax"), Listener()
    logger.addHandler(listener)
    with jax.log_compiles():
        out = run()
    logger.removeHandler(listener)
    return out, sum(
        "Finished XLA compilation of jit(likelihood_piece)" in message
        or "Finished XLA compilation of jit(run)" in message
        for message in told
    )


def ragged(number: int) -> None:
    from jaxmle.batch.members.sources import buckets  # lengths as fit_batch groups them

    sets = groups(number)
    sizes = np.array([[len(d["y"])] for d in sets])
    found = buckets(sizes, True)
    padded = sum(length[0] * len(members) for length, members in found) / sizes.sum()

    def run():
        return jm.fit_batch(logit, {"beta": np.zeros(2)}, sets, progress=False)

    begun = time.perf_counter()
    fits, programs = compiled_shapes(run)
    first = time.perf_counter() - begun
    begun = time.perf_counter()
    run()
    again = time.perf_counter() - begun
    print(f"\n### W9: {number} groups of {sizes.min()} to {sizes.max()} rows\n")
    print(
        f"{len(found)} lengths {[length[0] for length, _ in found]}, {programs} programs of the likelihood compiled, {padded:.2f} padded rows a row"
    )
    print(
        f"first call {first:.1f} s, second {again:.2f} s; {dict(zip(*np.unique([jm.Status(int(s)).name for s in fits.status], return_counts=True), strict=True))}"
    )
    worst = 0.0
    for i in np.flatnonzero(fits.converged)[:: max(1, number // 40)]:
        single = jm.fit(logit, {"beta": np.zeros(2)}, sets[i])
        worst = max(worst, float(np.max(np.abs(fits.x[i] - single.x) / single.se)))
    print(f"largest difference from unpadded single fits (40 groups): {worst:.1e} SE")


def by_statsmodels(sets: list[dict[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    import statsmodels.api as sm

    found = []
    for data in sets:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = sm.NegativeBinomial(data["y"], data["x"]).fit(
                disp=0
            )  # its own start and method, as it is called
        found.append((fit.params, fit.bse))
    return np.array([b for b, _ in found]), np.array([se for _, se in found])


def negative_binomials(number: int) -> None:
    sets = counts(number)
    start = {"alpha": 0.5, "beta": np.array([1.0, 0.4])}
    m = min(LOOPED, number)
    reference = by_statsmodels(sets[:m])

    def pad(a):
        return np.concatenate([a, np.full((number - m, 3), np.nan)])

    board = yardstick.Board(
        f"W9: {number} groups of counts, 40 to 200 rows, negative binomial",
        (pad(reference[0]), pad(reference[1])),
    )

    def read(fit):
        return (
            np.column_stack([fit.params["beta"], fit.params["alpha"]]),
            np.column_stack([fit.stderr["beta"], fit.stderr["alpha"]]),
        )

    ours = {
        "jaxmle.models": models.negative_binomial(),
        "jaxmle declared, counts": split,
        "jaxmle declared": declared,
        "jaxmle opaque": negative_binomial,
    }
    for name, loglik in ours.items():
        own = name == "jaxmle.models"  # its own start and bounds, as statsmodels has them

        def run(loglik=loglik, own=own):
            return jm.fit_batch(
                loglik,
                None if own else start,
                sets,
                constraints=None if own else {"alpha": jm.positive},
                progress=False,
            )

        board.time(
            name,
            run,
            read,
            compiles=True,
            repeats=2,
            note=lambda f: f"{f.converged.mean():.2%} CONVERGED, steps {f.steps.mean():.1f}",
        )
    board.time(
        "statsmodels loop",
        lambda: by_statsmodels(sets[:m]),
        lambda out: out,
        repeats=1,
        scale=number / m,
        note=f"{m} groups, scaled",
    )
    targets = [yardstick.Target(name, "statsmodels loop", 0.02) for name in ours]
    board.turns(targets)
    board.report(targets)


def main(number: int) -> None:
    print(yardstick.versions("jax", "numpy", "statsmodels"))
    negative_binomials(number)
    ragged(2000)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
