"""The state of jax: whether a trace is open, and which precision is in force. Under a trace
functions are plain JAX in its precision; on the host they run in float64, or as asked, and return
NumPy arrays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import is_traced
from jaxmle._types import DTypeLike, Tree

try:
    from jax._src.core import trace_state_clean
except ImportError:  # a future jax
    trace_state_clean = None  # type: ignore[assignment]

GUARDS = tuple(
    f"jax_transfer_guard_{transfer}"
    for transfer in ("host_to_device", "device_to_device", "device_to_host")
)


def tracing() -> bool:
    """Whether we are inside somebody's ``jit``, ``vmap`` or ``grad``."""
    if trace_state_clean is None:
        # a fresh constant is a tracer exactly when a trace is open
        return is_traced(jnp.zeros(()) + 0)
    return not trace_state_clean()


def host_only(what: str, remedy: str = "") -> None:
    """Refuse to run inside somebody's ``jit``, ``vmap`` or ``grad``: for procedures that look at
    values and decide what to compute next.

    Raises:
        TypeError: under a trace; ``remedy`` ends its message.
    """
    if tracing():
        raise TypeError(
            f"{what} schedules its work from the host and cannot run inside jit, vmap or grad"
            f"{remedy}"
        )


@contextlib.contextmanager
def precision(dtype: DTypeLike) -> Iterator[None]:
    """The context of a host procedure: float64 on, or off for float32, and none of the user's
    alarms.
    """
    with jax.enable_x64(np.dtype(dtype) == np.float64), without_alarms():
        yield


def without_alarms() -> contextlib.AbstractContextManager[Tree]:
    """A context for our own passes: a trial point may be NaN, data go to the device and back.

    ``jax_debug_nans``, ``jax_debug_infs``, a ``transfer_guard`` and strict promotion are for the
    user's own programs. Each is set for this thread and this block only, and only where it is set
    at all: entering all of them takes 50 µs.
    """
    config: Tree = jax.config
    contexts = []
    if config.jax_debug_nans:
        contexts.append(jax.debug_nans(False))
    if config.jax_debug_infs:
        contexts.append(jax.debug_infs(False))
    if config.jax_numpy_dtype_promotion != "standard":
        contexts.append(jax.numpy_dtype_promotion("standard"))
    if any(getattr(config, guard, None) for guard in GUARDS):
        contexts.append(jax.transfer_guard("allow"))
    return _entered(contexts) if contexts else contextlib.nullcontext()


@contextlib.contextmanager
def _entered(contexts: list[contextlib.AbstractContextManager[Tree]]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


def exact_products() -> contextlib.AbstractContextManager[object]:
    """A context for tracing: products of single precision keep all its digits.

    An accelerator multiplies such matrices in fewer digits unless asked: an NVIDIA GPU since Ampere
    in TF32, a TPU in bfloat16, of 11 and 8 bits. A score is a small difference of such sums.
    """
    return jax.default_matmul_precision("highest")


def exact(tree: Tree) -> Tree:
    """The numbers of a tree as float64 arrays, inside ``precision(float64)``; what is no number
    stays.
    """

    def convert(leaf: Tree) -> Tree:
        number = isinstance(leaf, bool | int | float) or getattr(leaf, "dtype", None) is not None
        if not number or jnp.issubdtype(getattr(leaf, "dtype", float), jax.dtypes.prng_key):
            return leaf
        value = np.asarray(leaf)
        return jnp.asarray(value.astype(np.float64)) if value.dtype.kind in "fiubV" else leaf

    return jax.tree.map(convert, tree)
