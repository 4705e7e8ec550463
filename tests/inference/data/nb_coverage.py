"""Coverage of Wald intervals of a negative-binomial dispersion, n = 20, mean 3, alpha 0.5: the reference of test_calibration.py.

NumPy alone: 100 000 samples, the mean is its own estimate, alpha by bisection of its score on a log scale. Run: python nb_coverage.py
"""

import numpy as np

N, MU, ALPHA, RUNS, Z = 20, 3.0, 0.5, 100_000, 1.959963984540054


def score(alpha, mean, above):
    """d/dα of Σ_i [Σ_{j<y_i} log(1 + αj) − (y_i + 1/α) log(1 + αμ)] at μ = ȳ; `above` counts the rows with y > j."""
    a, j = alpha[:, None], np.arange(above.shape[1])
    return (
        (above * j / (1 + a * j)).sum(axis=1)
        + N * np.log1p(alpha * mean) / alpha**2
        - N * (mean + 1 / alpha) * mean / (1 + alpha * mean)
    )


def information(alpha, mean, above, step=1e-5):
    """By a central difference. At μ = ȳ the observed information of (μ, α) is diagonal."""
    up, down = (score(alpha * (1 + sign * step), mean, above) for sign in (1, -1))
    return -(up - down) / (2 * alpha * step)


def main():
    rng = np.random.default_rng(2026)
    y = rng.negative_binomial(1 / ALPHA, 1 / (1 + ALPHA * MU), size=(RUNS, N))
    mean = y.mean(axis=1)
    above = np.stack([(y > j).sum(axis=1) for j in range(y.max())], axis=1)
    # The score at 0 is Σ((y − ȳ)² − y)/2.
    inside = (y.astype(float) ** 2).sum(axis=1) - N * mean**2 > N * mean
    low, high = np.full(RUNS, 1e-6), np.full(RUNS, 50.0)
    for _ in range(80):
        middle = np.sqrt(low * high)
        up = score(middle, mean, above) > 0
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    end = np.sqrt(low * high)
    alpha, se = end[inside], 1 / np.sqrt(information(end, mean, above)[inside])
    print("alpha = 0:", 1 - inside.mean())
    print("coverage on the scale of alpha:", np.mean(np.abs(alpha - ALPHA) <= Z * se))
    logs = np.mean(np.abs(np.log(alpha / ALPHA)) <= Z * se / alpha)
    print("coverage on the scale of log alpha:", logs)


if __name__ == "__main__":
    main()
