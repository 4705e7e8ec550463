"""The host road: float64 without touching anyone's configuration, compiled pieces kept on the user's function, inputs checked.

``tracing()`` tells the two roads apart. Under a trace nothing here runs: the dtype is the trace's own.
On the host a likelihood is traced through a *portable copy* of the user's function, in which every NumPy array that it closes over is a
fresh view (jax keys constants by the identity of the array object, so an array traced once with float64 off and once on cannot be
compiled again), and functions already wrapped by ``jit`` are unwrapped. The copy, and what was compiled of it, live on the function:
they die with it. What the function closes over is compared at each call; a rebound global or a changed array makes a new copy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import types
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any
MEMO = "_jaxmle_compiled"
CALLBACK_IN_SINGLE_PRECISION = (
    "a pure_callback of the likelihood ran on a thread of jax's own, where float64 is off, and came back in float32. Switch it on for all threads, "
    "jax.config.update('jax_enable_x64', True) at the head of the program, or fit with dtype='float32'"
)
TRANSFERS = ("host_to_device", "device_to_device", "device_to_host")


def tracing() -> bool:
    """Whether we are inside somebody's ``jit``, ``vmap`` or ``grad``."""
    try:
        from jax._src.core import trace_state_clean
    except (
        ImportError
    ):  # a future jax: a fresh constant is then a tracer exactly when a trace is open
        return isinstance(jnp.zeros(()) + 0, jax.core.Tracer)
    return not trace_state_clean()


@contextlib.contextmanager
def precision(dtype: Any) -> Iterator[None]:
    """The context in which a host procedure runs: float64 on, or off for float32, and none of the user's alarms."""
    with jax.enable_x64(np.dtype(dtype) == np.float64), without_alarms():
        yield


@contextlib.contextmanager
def without_alarms() -> Iterator[None]:
    """A context for our own passes: a trial point may be NaN, data go to the device and back, and what is promoted is known.

    ``jax_debug_nans``, ``jax_debug_infs``, a ``transfer_guard`` and strict promotion are for the user's own programs. Each is set for this thread and
    this block only.
    """
    config: Any = jax.config
    with (
        contextlib.ExitStack() as stack
    ):  # entered where they are set: a small fit takes few milliseconds
        if config.jax_debug_nans:
            stack.enter_context(jax.debug_nans(False))
        if config.jax_debug_infs:
            stack.enter_context(jax.debug_infs(False))
        if config.jax_numpy_dtype_promotion != "standard":
            stack.enter_context(jax.numpy_dtype_promotion("standard"))
        if any(getattr(config, f"jax_transfer_guard_{way}", None) for way in TRANSFERS):
            stack.enter_context(jax.transfer_guard("allow"))
        yield


# ---------------------------------------------------------------- portable copies


def _memo(function: Callable[..., Any]) -> dict[str, Any]:
    """What is kept on the function; on the object where it is a bound method. It holds no reference back, so it dies with its owner."""
    owner, name = (
        (function.__self__, f"{MEMO}_{function.__name__}")
        if isinstance(function, types.MethodType)
        else (function, MEMO)
    )
    now = [
        item
        for item in _closed_over(function, set())
        if item[0] is not function and item[0] is not owner
    ]
    memo = getattr(owner, "__dict__", {}).get(name)
    if memo is None or not _same(memo["closed"], now):
        memo = {"closed": now, "copy": _copy(function, {}), "pieces": {}}
        try:
            object.__setattr__(owner, name, memo) if dataclasses.is_dataclass(owner) else setattr(
                owner, name, memo
            )
        except (AttributeError, TypeError):
            pass  # a slotted callable keeps nothing: it is compiled at each call
    return memo


def _same(old: list[tuple[Any, int]], new: list[tuple[Any, int]]) -> bool:
    def equal(a: Any, b: Any) -> bool:
        return a is b or (
            type(a) is type(b) and isinstance(a, int | float | complex | str) and a == b
        )

    return len(old) == len(new) and all(
        m == n and equal(a, b) for (a, m), (b, n) in zip(old, new, strict=True)
    )


def _fingerprint(value: Any) -> int:
    """A checksum of an array's bytes, so that a change in place is noticed too."""
    return (
        zlib.adler32(np.ascontiguousarray(value).view(np.uint8).data)
        if isinstance(value, np.ndarray) and value.dtype != object and value.size
        else 0
    )


def unwrapped(function: Any) -> Any:
    """The function below any ``jit``, told by its ``lower``; a ``custom_jvp`` has a ``__wrapped__`` too, and a rule that must stay."""
    while (
        not isinstance(function, types.FunctionType | functools.partial)
        and hasattr(function, "__wrapped__")
        and hasattr(function, "lower")
    ):
        function = function.__wrapped__
    return function


def _is_users(function: Any) -> bool:
    """Whether a function was written by the user rather than installed with a package."""
    function = unwrapped(function)
    return isinstance(function, types.FunctionType) and not any(
        part in function.__code__.co_filename
        for part in ("site-packages", "dist-packages", "/lib/python")
    )


def _is_users_object(value: Any) -> bool:
    """Whether a value is an instance of a class whose ``__call__`` or methods the user wrote, with attributes of its own."""
    if isinstance(
        value, type | types.ModuleType | types.FunctionType | np.ndarray | jax.Array
    ) or not hasattr(value, "__dict__"):
        return False
    return any(
        _is_users(member)
        for kind in type(value).__mro__
        for member in vars(kind).values()
        if isinstance(member, types.FunctionType)
    )


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _surroundings(function: types.FunctionType) -> Iterator[Any]:
    """The values a plain function reads from outside: cells, defaults, and the globals its code names."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a name not bound yet
            yield None
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for name in _names(function.__code__):
        if name in function.__globals__:
            yield function.__globals__[name]


def _closed_over(value: Any, seen: set[int]) -> Iterator[tuple[Any, int]]:
    """Everything a function depends on beyond its arguments, flat, each with its fingerprint."""
    if id(value) in seen:
        return
    if isinstance(value, functools.partial):
        seen.add(id(value))
        for part in (value.func, *value.args, *value.keywords.values()):
            yield from _closed_over(part, seen)
    elif isinstance(value, types.MethodType):
        for part in (value.__self__, value.__func__):
            yield from _closed_over(part, seen)
    elif _is_users(value):
        seen.add(id(value))
        plain = unwrapped(value)
        yield plain, 0
        for inner in _surroundings(plain):
            yield from _closed_over(inner, seen)
    elif _is_users_object(value):
        seen.add(id(value))
        yield value, 0
        yield from _closed_over(vars(type(value)).get("__call__"), seen)
        for name, inner in vars(value).items():
            if not name.startswith(MEMO):
                yield from _closed_over(inner, seen)
    elif type(value) in (list, tuple, dict):
        seen.add(id(value))
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _closed_over(inner, seen)
    else:
        yield value, _fingerprint(value)


def _copy(value: Any, done: dict[int, Any]) -> Any:
    """A copy of a function, or of what it closes over, with fresh views of every NumPy array."""
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, np.ndarray):
        return value.view()
    if isinstance(value, functools.partial):
        return functools.partial(
            _copy(value.func, done),
            *(_copy(a, done) for a in value.args),
            **{k: _copy(v, done) for k, v in value.keywords.items()},
        )
    if type(value) in (list, tuple):
        return type(value)(_copy(inner, done) for inner in value)
    if type(value) is dict:
        return {key: _copy(inner, done) for key, inner in value.items()}
    if isinstance(value, types.MethodType):
        return types.MethodType(_copy(value.__func__, done), _copy(value.__self__, done))
    if _is_users(value):
        return _copy_function(value, done)
    if _is_users_object(value):
        return _copy_object(value, done)
    return value


def _copy_object(value: Any, done: dict[int, Any]) -> Any:
    copy = object.__new__(type(value))
    done[id(value)] = copy
    for name, inner in vars(value).items():
        if not name.startswith(MEMO):
            object.__setattr__(copy, name, _copy(inner, done))
    return copy


def _copy_function(function: Any, done: dict[int, Any]) -> types.FunctionType:
    plain = unwrapped(function)
    scope = {
        name: plain.__globals__[name]
        for name in ("__builtins__", "__name__", "__package__")
        if name in plain.__globals__
    }
    cells = tuple(types.CellType() for _ in plain.__closure__ or ())
    copy = types.FunctionType(plain.__code__, scope, plain.__name__, None, cells or None)
    done[id(function)] = done[id(plain)] = (
        copy  # before the walk: functions may refer to themselves
    )
    copy.__defaults__ = _copy(plain.__defaults__, done)
    copy.__kwdefaults__ = _copy(plain.__kwdefaults__, done)
    for new, old in zip(cells, plain.__closure__ or (), strict=True):
        try:
            new.cell_contents = _copy(old.cell_contents, done)
        except ValueError:
            pass  # a name not bound yet stays unbound
    for name in _names(plain.__code__):
        if name in plain.__globals__:
            scope[name] = _copy(plain.__globals__[name], done)
    return copy


def map_functions(node: Any, change: Callable[[Any], Any]) -> Any:
    """A likelihood tree with ``change`` applied to every user function in it."""
    if isinstance(node, jax.tree_util.Partial):
        return jax.tree_util.Partial(change(node.func), *node.args, **node.keywords)
    if (
        dataclasses.is_dataclass(node)
        and not isinstance(node, type)
        and type(node).__module__.startswith("jaxmle.likelihood")
    ):
        return dataclasses.replace(
            node,
            **{
                f.name: map_functions(getattr(node, f.name), change)
                for f in dataclasses.fields(node)
            },
        )
    if type(node) in (tuple, list):
        return type(node)(map_functions(inner, change) for inner in node)
    return (
        change(node)
        if callable(node)
        and not isinstance(node, type)
        and not isinstance(node, np.ndarray | jax.Array)
        else node
    )


def functions_of(loglik: Any) -> list[Callable[..., Any]]:
    """Every user function in a likelihood tree, in the order in which ``map_functions`` meets them."""
    found: list[Callable[..., Any]] = []

    def note(function: Callable[..., Any]) -> Callable[..., Any]:
        found.append(function)
        return function

    map_functions(loglik, note)
    return found


# ---------------------------------------------------------------- compiled pieces


def compiled(
    loglik: Any, key: Any, make: Callable[[Any], Callable[..., Any]]
) -> Callable[..., Any]:
    """The jitted ``make(loglik)``, kept on the user's function; ``loglik``'s arrays are arguments of it, not constants.

    Args:
        loglik: a likelihood tree.
        key: hashable; what distinguishes this piece from others made of the same likelihood.
        make: from a likelihood to the function to compile. Called under the trace only.
    """
    memos = [_memo(f) for f in functions_of(loglik)]
    piece, leaves = _piece(loglik, key, make, memos)
    return lambda *args: _with_retry(piece, [jnp.asarray(leaf) for leaf in leaves], *args)


def kept(loglik: Any, key: Any, make: Callable[[Any], Callable[..., Any]]) -> Callable[..., Any]:
    """The same for the road under a trace: a jitted ``make(loglik)`` of the user's own function, in the trace's dtype.

    So ``vmap(fit)`` outside any ``jit`` compiles once, not at every call. A function that closes over a tracer belongs to one trace only:
    it is run in place.
    """
    memos = [_memo(f) for f in functions_of(loglik)]
    if any(
        isinstance(value, jax.core.Tracer) for memo in memos for value, _ in memo["closed"]
    ) or not _hashable(key):
        return make(loglik)
    piece, leaves = _piece(loglik, key, make, memos)
    return partial(piece, leaves)


def _piece(
    loglik: Any, key: Any, make: Callable[[Any], Callable[..., Any]], memos: list[dict[str, Any]]
) -> tuple[Callable[..., Any], list[Any]]:
    """The jitted ``make`` of the portable copy, from the first function's memo, and the likelihood's leaves."""
    copies = iter([memo["copy"] for memo in memos])
    leaves, treedef = jax.tree.flatten(map_functions(loglik, lambda f: next(copies)))
    pieces = memos[0]["pieces"] if memos else {}
    if (key, treedef) not in pieces:
        pieces[key, treedef] = jax.jit(
            lambda leaves, *args: make(jax.tree.unflatten(treedef, leaves))(*args)
        )
    return pieces[key, treedef], leaves


def remembered(loglik: Any, key: Any, find: Callable[[Any], Any]) -> Any:
    """The static fact ``find(loglik)``, asked once of the portable copy and kept beside the compiled pieces."""
    memos = [_memo(f) for f in functions_of(loglik)]
    copies = iter([memo["copy"] for memo in memos])
    portable = map_functions(loglik, lambda f: next(copies))
    facts = memos[0]["pieces"] if memos else {}
    whole = ("fact", key, jax.tree.structure(portable))
    if whole not in facts:
        facts[whole] = find(portable)
    return facts[whole]


def _hashable(key: Any) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True


def _with_retry(piece: Callable[..., Any], *args: Any) -> Any:
    """Call a compiled piece; where a constant traced under the other precision gets in the way, clear jax's caches and try once more."""
    try:
        return piece(*args)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        if "Expected: float64, Actual: float32" in told:
            raise TypeError(CALLBACK_IN_SINGLE_PRECISION) from error
        if not any(
            sign in told
            for sign in (
                "verifier error",
                "lax.dot_general requires",
                "mlir",
                "MLIR",
                "cannot be lowered",
            )
        ):
            raise
        jax.clear_caches()
        return piece(*args)


def to_numpy(tree: Tree) -> Tree:
    """The tree with NumPy arrays for leaves; scalars become NumPy scalars."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[()], tree)
