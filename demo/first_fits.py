"""Two regressions on real data beside R's numbers, then 10 000 simulated ones in one batch and the coverage of their intervals.

Run by `make demo`, or `python demo/first_fits.py`.
"""

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import published

import jaxmle as jm

OUTPUT = Path(__file__).parent / "output" / "first_fits.png"
DATASETS, ROWS, TRUTH, SEED = 10_000, 200, np.array([-0.5, 0.6, -0.3]), 1922


def weibull(params, data):
    """Log density of a death at `time`; log survival beyond `time` where the follow-up ended first."""
    mean = params["const"] + sum(params[name] * data[name] for name in ("age", "sex", "ecog"))
    z = (jnp.log(data["time"]) - mean) / params["sigma"]
    return data["death"] * (z - jnp.log(params["sigma"] * data["time"])) - jnp.exp(z)


def logistic(params, data):
    """Log probability of `low`, one term per birth."""
    eta = params["const"] + sum(params[name] * data[name] for name in params if name != "const")
    return data["low"] * eta - jnp.logaddexp(0.0, eta)


def binary(params, data):
    """Log probability of `y`, its log odds a linear function of `x`."""
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jnp.logaddexp(0.0, eta)


def main() -> None:
    lung, birthwt = jm.datasets.load("lung"), jm.datasets.load("birthwt")
    survival = fit_weibull(lung)
    fit_logistic(birthwt)
    fits = fit_simulated()
    report_simulated(fits)
    with step(f"drawing {OUTPUT.relative_to(Path(__file__).parents[1])}"):
        from figure import draw  # matplotlib is needed from here on

        slope = (fits.x[:, 1] - TRUTH[1]) / fits.se[:, 1]
        caption = f"z of the slope whose true value is {TRUTH[1]}, n = {ROWS}"
        draw(survival, lung.data, z=slope[fits.converged], caption=caption, path=OUTPUT)


def fit_weibull(lung: jm.datasets.Dataset) -> jm.Fit:
    announce("1. Censored Weibull regression", lung, weibull)
    start = {"const": 6.0, "age": 0.0, "sex": 0.0, "ecog": 0.0, "sigma": 1.0}
    with step("fitting, compilation included"):
        fit = jm.fit(weibull, start, lung.data, constraints={"sigma": jm.positive})
    print(f"\n{fit}\n")
    log_sigma = jm.delta(lambda params: jnp.log(params["sigma"]), fit)
    ours = coefficients(fit) | {"log(sigma)": (float(log_sigma.estimate), float(log_sigma.stderr))}
    beside(ours, published.WEIBULL, published.WEIBULL_SOURCE)
    print(f"log-likelihood {float(fit.loglik):.9f}, R {published.WEIBULL_LOGLIK:.9f}\n")
    return fit


def fit_logistic(birthwt: jm.datasets.Dataset) -> None:
    announce("2. Logistic regression", birthwt, logistic)
    start = {name: 0.0 for name in ("const", *birthwt.names[1:])}
    with step("fitting, compilation included"):
        fit = jm.fit(logistic, start, birthwt.data)
    print(f"\n{fit}\n")
    beside(coefficients(fit), published.LOGISTIC, published.LOGISTIC_SOURCE)
    print(f"log-likelihood {float(fit.loglik):.9f}, R {published.LOGISTIC_LOGLIK:.9f}\n")


def fit_simulated() -> jm.Fit:
    """All the simulated data sets in one call: a `Fit` whose leaves have a leading axis of 10 000."""
    print(
        f"3. {DATASETS:,} simulated logistic regressions, {ROWS} rows and {TRUTH.size} coefficients each\n"
    )
    with step("simulating"):
        data = simulate(np.random.default_rng(SEED))
    print("    fitting, standard errors and compilation included:")
    begun = time.perf_counter()
    fits = jm.fit_batch(
        binary, {"beta": np.zeros(TRUTH.size)}, data
    )  # its own line of progress after two seconds
    print(f"    {time.perf_counter() - begun:.2f} s")
    return fits


def simulate(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Designs with an intercept and normal columns (b, n, p), and responses of 0 and 1 (b, n)."""
    x = np.concatenate(
        [np.ones((DATASETS, ROWS, 1)), rng.normal(size=(DATASETS, ROWS, TRUTH.size - 1))], axis=-1
    )
    y = rng.random((DATASETS, ROWS)) < 1 / (1 + np.exp(-x @ TRUTH))
    return {"x": x, "y": y.astype(np.float64)}


def report_simulated(fits: jm.Fit) -> None:
    """The digest of the batch, then for each coefficient the share of intervals that hold the truth."""
    print(f"\n{fits}\n")
    sound = fits.converged
    ends = fits.interval(0.95)[sound]  # (b, p, 2)
    held = (ends[..., 0] <= TRUTH) & (TRUTH <= ends[..., 1])
    print(
        f"Coverage of the 95 % intervals in the {sound.sum():,} converged fits ± its Monte-Carlo standard error"
    )
    for name, truth, share in zip(fits.names, TRUTH, held.mean(axis=0), strict=True):
        print(
            f"{name:<8} true {truth:5.2f}    {share:.4f} ± {np.sqrt(share * (1 - share) / sound.sum()):.4f}"
        )
    print()


def announce(title: str, dataset: jm.datasets.Dataset, loglik: Callable) -> None:
    print(f"{title}\n{dataset.description}\n\n{inspect.getsource(loglik)}")


def coefficients(fit: jm.Fit) -> dict[str, tuple[float, float]]:
    return dict(zip(fit.names, zip(fit.x, fit.se, strict=True), strict=True))


def beside(
    ours: Mapping[str, tuple[float, float]], theirs: Mapping[str, tuple[float, float]], source: str
) -> None:
    """Our estimates and standard errors next to the published ones, and how far apart they are."""
    print(f"{'':<12}{'jaxmle':>22}{source:>26}{'difference':>16}{'ratio':>12}")
    print(
        f"{'':<12}{'estimate':>12}{'SE':>10}{'estimate':>14}{'SE':>12}{'in SE':>16}{'of SE − 1':>12}"
    )
    for name, (estimate, se) in theirs.items():
        x, own = ours[name]
        print(
            f"{name:<12}{x:>12.6f}{own:>10.6f}{estimate:>14.6f}{se:>12.6f}{(x - estimate) / se:>16.0e}{own / se - 1:>12.0e}"
        )


@contextmanager
def step(what: str) -> Iterator[None]:
    """Says what runs now, then how long it took."""
    print(f"    {what} ... ", end="", flush=True)
    start = time.perf_counter()
    yield
    print(f"{time.perf_counter() - start:.2f} s", flush=True)


if __name__ == "__main__":
    main()
