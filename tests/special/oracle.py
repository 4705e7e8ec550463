"""Comparison on the scale of the condition number: an error of one ulp in an argument x moves f by |x ∂f/∂x| ulp, and nothing computed from x can do better."""

from pathlib import Path

import jax
import numpy as np

DATA = Path(__file__).parent / "data"
TOLERANCE = (1e-13, 1e-11, 1e-9)


def pairs(d):
    return [(i, j) for i in range(d) for j in range(i, d)]


def derivatives(function, arguments, where=None):
    """(n, 1 + d + d(d + 1)/2): value, gradient, upper Hessian of an elementwise function in the arguments ``where``."""
    where = tuple(range(len(arguments))) if where is None else where

    def both(*arguments):
        def gradient(*arguments):
            value, slope = jax.value_and_grad(function, where)(*arguments)
            return slope, (value, slope)

        hessian, (value, slope) = jax.jacfwd(gradient, where, has_aux=True)(*arguments)
        return [value, *slope, *(hessian[i][j] for i, j in pairs(len(where)))]

    with jax.enable_x64(True):
        return np.stack(jax.jit(jax.vmap(both))(*arguments), axis=-1)


def errors(found, exact, coordinates):
    """Errors relative to max(|g|, Σ|x ∂g/∂x|) for g the value and the first derivatives.

    Below 1e-290 nothing is asked. The second derivatives, whose own derivatives the tables lack: relative to |g|, or to a hundredth of what the first derivatives' scale makes of it where g passes through 0.
    """
    d = len(coordinates)
    size = [np.where(x == 0, 1.0, np.abs(x)) for x in coordinates]
    second = {}
    for column, (i, j) in enumerate(pairs(d), 1 + d):
        second[i, j] = second[j, i] = np.abs(exact[:, column])
    scale = [
        np.maximum(np.abs(exact[:, 0]), sum(size[i] * np.abs(exact[:, 1 + i]) for i in range(d)))
    ]
    scale += [
        np.maximum(np.abs(exact[:, 1 + i]), sum(size[j] * second[i, j] for j in range(d)))
        for i in range(d)
    ]
    scale += [
        np.maximum(second[i, j], 1e-2 * (scale[1 + i] / size[j] + scale[1 + j] / size[i]) / 2)
        for i, j in pairs(d)
    ]
    difference = np.abs(found - exact)
    difference[np.isnan(found)] = np.inf
    return difference / np.maximum(np.stack(scale, axis=-1), 1e-290)


def assert_close(found, exact, coordinates, tolerance=TOLERANCE):
    """Value, first and second derivatives within their tolerances at every point; the message names the worst."""
    d = len(coordinates)
    order = [0, *[1] * d, *[2] * len(pairs(d))]
    off = errors(found, exact, coordinates)
    for column in range(off.shape[1]):
        worst = int(np.argmax(off[:, column]))
        place = [float(x[worst]) for x in coordinates]
        assert off[worst, column] <= tolerance[order[column]], (
            f"column {column} at {place}: {found[worst, column]!r}, exactly {exact[worst, column]!r}, off by {off[worst, column]:.1e}"
        )
