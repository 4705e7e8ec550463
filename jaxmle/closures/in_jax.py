"""What stands in jax for a function of NumPy, SciPy or math that a likelihood calls."""

from __future__ import annotations

import importlib
import re
import sys
import types
from collections.abc import Mapping

import numpy as np

from jaxmle._types import Foreign

IN_WORDS = "the same computation in jax.numpy"
IN_JAX_OF_MATH = {
    "lgamma": "jax.scipy.special.gammaln",
    "gamma": "jax.scipy.special.gamma",
    "erf": "jax.scipy.special.erf",
    "erfc": "jax.scipy.special.erfc",
    "factorial": "jax.scipy.special.factorial",
    "fabs": "jnp.abs",
    "fsum": "jnp.sum",
}


def foreign_calls(text: str, names: Mapping[str, Foreign]) -> list[tuple[str, str]]:
    """Calls of NumPy, SciPy and math in a line of code, each with what to write instead.

    Args:
        names: what the names in the line mean.

    >>> import math
    >>> foreign_calls("y - np.exp(a) * math.lgamma(b)", {"np": np, "math": math})
    [('np.exp()', 'jnp.exp'), ('math.lgamma()', 'jax.scipy.special.gammaln')]
    """
    calls = []
    for match in re.finditer(r"([A-Za-z_]\w*)((?:\.\w+)*)\s*\(", text):
        head = match[1]
        attributes = match[2]
        held = names.get(head)
        if held is None:
            continue
        instead = _instead(held, attributes)
        if instead is not None:
            calls.append((f"{head}{attributes}()", instead))
    return calls


def _instead(held: object, attributes: str) -> str | None:
    """What stands in jax for a function of NumPy, SciPy or math."""
    path = _path_of(held)
    if path is None or (isinstance(held, types.ModuleType) and not attributes):
        return None
    library, _, name = f"{path}{attributes}".partition(".")
    if library == "math":
        name = IN_JAX_OF_MATH.get(name, f"jnp.{name}")
        return name if name.startswith("jax") or _exists("jax.numpy", name[4:]) else IN_WORDS
    if library == "numpy":
        if name.startswith("random."):
            return "a draw made before the fit, passed as data"
        return f"jnp.{name}" if _exists("jax.numpy", name) else IN_WORDS
    if _exists("jax.scipy", name):
        return f"jax.scipy.{name}"
    if name.startswith("stats."):
        return "a density of jaxmle.families, or the formula of it in jax.numpy"
    return IN_WORDS


def _path_of(held: object) -> str | None:
    """The dotted name of a module, function or distribution of NumPy, SciPy or math; None for
    anything else.
    """
    if isinstance(held, types.ModuleType):
        path = held.__name__
    else:
        module = str(getattr(held, "__module__", None) or type(held).__module__)
        name = str(getattr(held, "__name__", None) or getattr(held, "name", ""))
        if isinstance(held, np.ufunc):
            special = sys.modules.get("scipy.special")  # who holds one of it has imported it
            is_special = getattr(special, name, None) is held
            module = "scipy.special" if is_special else "numpy"
        if module.startswith("scipy."):  # without the private module that it is written in
            module = ".".join(module.split(".")[:2])
        path = f"{'numpy' if module.startswith('numpy') else module}.{name}"
    return path if path.split(".")[0] in ("math", "numpy", "scipy") else None


def _exists(module: str, name: str) -> bool:
    """Whether a name, such as ``stats.norm.logpdf``, is found in a module of jax."""
    *inner, last = name.split(".")
    for depth in range(len(inner), -1, -1):
        try:
            held: Foreign = importlib.import_module(".".join([module, *inner[:depth]]))
        except ImportError:  # a name in a module, or of nothing
            continue
        for part in (*inner[depth:], last):
            held = getattr(held, part, None)
        return held is not None
    return False
