"""W6: 30 EM steps of a Gaussian mixture, k = 5 full covariances, d = 2, n = 1e6, from equal starts; one core, from NumPy arrays.

    python benchmarks/w6_mixture.py [n]

scikit-learn runs with ``reg_covar=0`` and a tolerance that it never meets. Both end at the same parameters and the same log-likelihood.
"""

from __future__ import annotations

import sys
import time
import warnings

import numpy as np

import jaxmle as jm

K, D, STEPS = 5, 2, 30
MUST, AMBITION = 0.10, 0.04


def sample(n: int, rng: np.random.Generator) -> np.ndarray:
    centres = np.array([[0.0, 0.0], [3.0, 1.0], [-2.0, 3.0], [1.0, -3.0], [4.0, 4.0]])
    roots = np.stack([np.array([[1.0, 0.0], [slope, 0.7]]) for slope in (0.0, 0.5, -0.4, 0.3, 0.8)])
    which = rng.integers(K, size=n)
    return centres[which] + np.einsum("nij,nj->ni", roots[which], rng.normal(size=(n, D)))


def theirs(y: np.ndarray, start: dict) -> tuple[dict, float]:
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(
        K, reg_covar=0.0, tol=0.0, max_iter=STEPS, weights_init=start["weights"], means_init=start["loc"], precisions_init=np.linalg.inv(np.stack(start["covariance"])),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(y)
    return {
        "weights": model.weights_,
        "loc": model.means_,
        "covariance": tuple(model.covariances_),
    }, float(model.score(y) * len(y))


def timed(run: object, times: int) -> tuple[float, object]:
    seconds, found = [], None
    for _ in range(times):
        begun = time.perf_counter()
        found = run()  # type: ignore[operator]
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds)), found


def main() -> None:
    n = int(float(sys.argv[1])) if len(sys.argv) > 1 else 1_000_000
    rng = np.random.default_rng(6)
    y = sample(n, rng)
    model = jm.gaussian_mixture(K)
    start = model.starts(y, 1, rng)[0]
    first, _ = timed(lambda: jm.em_steps(model, start, y, STEPS), 1)
    ours, (params, _) = timed(lambda: jm.em_steps(model, start, y, STEPS), 3)
    peer, (other, loglik) = timed(lambda: theirs(y, start), 1)
    final = jm.em_steps(model, params, y, 1)[1][0]
    gap = max(
        float(np.max(np.abs(np.asarray(params[name]) - np.asarray(other[name])))) for name in other
    )
    print(
        f"n = {n}: jaxmle {ours:.3f} s (first call {first:.3f} s), scikit-learn {peer:.3f} s, ratio {ours / peer:.3f} (must {MUST}, ambition {AMBITION})"
    )
    print(
        f"log-likelihood {final:.10g} and {loglik:.10g}, relative difference {abs(final / loglik - 1):.1e}; parameters within {gap:.1e}"
    )


if __name__ == "__main__":
    main()
