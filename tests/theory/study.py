"""What a Monte-Carlo study is compared by: everything in units of its own simulation error."""

import numpy as np
import scipy.stats

TIMES = 4.0  # a right figure strays so many of its standard errors in 1 study of 16 000; the seeds are fixed, so that it never does


def assert_near(found, exact, error, times=TIMES):
    """``found`` lies within ``times`` of its Monte-Carlo standard errors of ``exact``, entry by entry."""
    distance = np.abs(np.asarray(found) - exact) / error
    assert np.all(distance < times), (
        f"{found} is not {exact}: {distance} Monte-Carlo standard errors of {error} away"
    )


def assert_far(found, wrong, error, times=TIMES):
    """The study can tell: ``wrong`` lies more than ``times`` standard errors away in every entry."""
    distance = np.abs(np.asarray(found) - wrong) / error
    assert np.all(distance > times), (
        f"{found} could be {wrong}: {distance} Monte-Carlo standard errors of {error} away"
    )


def mean(values):
    """A mean over the first axis and its standard error."""
    values = np.asarray(values, dtype=float)
    return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))


def share(hits):
    """A share and its standard error, that of a share of one half a hit at least."""
    p, total = np.mean(hits, axis=0), len(hits)
    kept = np.clip(p, 0.5 / total, 1 - 0.5 / total)
    return p, np.sqrt(kept * (1 - kept) / total)


def variance(values):
    """A variance and its standard error, from the variance of (v − v̄)²."""
    square = (values - values.mean(axis=0)) ** 2
    return mean(square * len(values) / (len(values) - 1))


def ratio_of_variances(a, b):
    """var a / var b of paired columns and its standard error by the delta method."""
    square_a, square_b = (a - a.mean(axis=0)) ** 2, (b - b.mean(axis=0)) ** 2
    ratio = square_a.mean(axis=0) / square_b.mean(axis=0)
    return ratio, mean((square_a - ratio * square_b) / square_b.mean(axis=0))[1]


def skewness(values):
    """The skewness of (R,) values and its standard error, from the influence z³ − γ − 3z − (3/2)γ(z² − 1)."""
    z = (values - values.mean()) / values.std()
    gamma = np.mean(z**3)
    return gamma, mean(z**3 - gamma - 3 * z - 1.5 * gamma * (z**2 - 1))[1]


def log_rmse(errors):
    """log √(mean of squares) of (R, …) errors and its standard error by the delta method."""
    square, error = mean(errors**2)
    return 0.5 * np.log(square), 0.5 * error / square


def slope(x, y, error):
    """The slope of y (m,) on x (m,) by least squares weighted by error⁻², and its standard error."""
    weight = error**-2.0
    centred = x - np.sum(weight * x) / np.sum(weight)
    return np.sum(weight * centred * y) / np.sum(weight * centred**2), np.sum(
        weight * centred**2
    ) ** -0.5


def follows(values, cdf):
    """The Kolmogorov–Smirnov p-value of (R,) values against a distribution function."""
    return scipy.stats.kstest(values, cdf).pvalue
