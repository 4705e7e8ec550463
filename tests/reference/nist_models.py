"""The 27 nonlinear regressions of NIST StRD: mean functions, data, starts and certified values.

Source: NIST Statistical Reference Datasets, https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml.
A mean function takes the regression parameters `b`, shape (p,), and the columns of one problem.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Columns = dict[str, Any]
FILE = Path(__file__).parent / "data" / "nist.json"


def _gauss(b: jax.Array, d: Columns) -> jax.Array:
    x = d["x"]
    peaks = b[2] * jnp.exp(-(((x - b[3]) / b[4]) ** 2)) + b[5] * jnp.exp(
        -(((x - b[6]) / b[7]) ** 2)
    )
    return b[0] * jnp.exp(-b[1] * x) + peaks


def _lanczos(b: jax.Array, d: Columns) -> jax.Array:
    x = d["x"]
    return b[0] * jnp.exp(-b[1] * x) + b[2] * jnp.exp(-b[3] * x) + b[4] * jnp.exp(-b[5] * x)


def _cubic_ratio(b: jax.Array, d: Columns) -> jax.Array:
    x = d["x"]
    return (b[0] + x * (b[1] + x * (b[2] + x * b[3]))) / (1 + x * (b[4] + x * (b[5] + x * b[6])))


def _enso(b: jax.Array, d: Columns) -> jax.Array:
    t = 2 * jnp.pi * d["x"]
    year = b[1] * jnp.cos(t / 12) + b[2] * jnp.sin(t / 12)
    slow = b[4] * jnp.cos(t / b[3]) + b[5] * jnp.sin(t / b[3])
    return b[0] + year + slow + b[7] * jnp.cos(t / b[6]) + b[8] * jnp.sin(t / b[6])


def _decay(b: jax.Array, d: Columns) -> jax.Array:
    return jnp.exp(-b[0] * d["x"]) / (b[1] + b[2] * d["x"])


def _saturation(b: jax.Array, d: Columns) -> jax.Array:
    return b[0] * -jnp.expm1(-b[1] * d["x"])


MEANS: dict[str, Callable[[jax.Array, Columns], jax.Array]] = {
    "Bennett5": lambda b, d: b[0] * (b[1] + d["x"]) ** (-1 / b[2]),
    "BoxBOD": _saturation,
    "Chwirut1": _decay,
    "Chwirut2": _decay,
    "DanWood": lambda b, d: b[0] * d["x"] ** b[1],
    "ENSO": _enso,
    "Eckerle4": lambda b, d: b[0] / b[1] * jnp.exp(-0.5 * ((d["x"] - b[2]) / b[1]) ** 2),
    "Gauss1": _gauss,
    "Gauss2": _gauss,
    "Gauss3": _gauss,
    "Hahn1": _cubic_ratio,
    "Kirby2": lambda b, d: (
        (b[0] + d["x"] * (b[1] + d["x"] * b[2])) / (1 + d["x"] * (b[3] + d["x"] * b[4]))
    ),
    "Lanczos1": _lanczos,
    "Lanczos2": _lanczos,
    "Lanczos3": _lanczos,
    "MGH09": lambda b, d: (
        b[0] * (d["x"] ** 2 + d["x"] * b[1]) / (d["x"] ** 2 + d["x"] * b[2] + b[3])
    ),
    "MGH10": lambda b, d: b[0] * jnp.exp(b[1] / (d["x"] + b[2])),
    "MGH17": lambda b, d: b[0] + b[1] * jnp.exp(-b[3] * d["x"]) + b[2] * jnp.exp(-b[4] * d["x"]),
    "Misra1a": _saturation,
    "Misra1b": lambda b, d: b[0] * (1 - (1 + b[1] * d["x"] / 2) ** (-2)),
    "Misra1c": lambda b, d: b[0] * (1 - (1 + 2 * b[1] * d["x"]) ** (-0.5)),
    "Misra1d": lambda b, d: b[0] * b[1] * d["x"] / (1 + b[1] * d["x"]),
    "Nelson": lambda b, d: b[0] - b[1] * d["x1"] * jnp.exp(-b[2] * d["x2"]),
    "Rat42": lambda b, d: b[0] / (1 + jnp.exp(b[1] - b[2] * d["x"])),
    "Rat43": lambda b, d: b[0] / (1 + jnp.exp(b[1] - b[2] * d["x"])) ** (1 / b[3]),
    "Roszman1": lambda b, d: b[0] - b[1] * d["x"] - jnp.arctan(b[2] / (d["x"] - b[3])) / jnp.pi,
    "Thurber": _cubic_ratio,
}


@functools.cache
def problems() -> dict[str, Any]:
    """The problems by name, as NIST prints them."""
    return json.loads(FILE.read_text())["problems"]


def columns(name: str) -> dict[str, np.ndarray]:
    """The columns of a problem, each (n,); the response of Nelson is log y."""
    data = {key: np.asarray(values) for key, values in problems()[name]["data"].items()}
    return data | {"y": np.log(data["y"])} if name == "Nelson" else data


def gaussian(name: str) -> Callable[[Any, Any], jax.Array]:
    """The Gaussian log-likelihood, terms (n,), of a problem with params `{"b": (p,), "sigma": ()}`."""

    def loglik(params: Any, data: Any) -> jax.Array:
        z = (data["y"] - MEANS[name](params["b"], data)) / params["sigma"]
        return -0.5 * z**2 - jnp.log(params["sigma"]) - 0.5 * jnp.log(2 * jnp.pi)

    return loglik


def start(name: str, which: str) -> dict[str, Any]:
    """A published start ("start1" or "start2"), with sigma at the root mean square of its residuals."""
    b, data = np.asarray(problems()[name][which]), columns(name)
    with jax.enable_x64(True):
        residuals = data["y"] - np.asarray(
            MEANS[name](jnp.asarray(b), {k: jnp.asarray(v) for k, v in data.items()})
        )
    return {"b": b, "sigma": float(np.sqrt(np.mean(residuals**2)))}
