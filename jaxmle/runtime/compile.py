"""Compiled programs on the host: in float64 without changing anyone's configuration, and stored on
the user's function.

``tracing()`` says whether a trace is open. Under a trace nothing here runs; the
dtype is that of the trace.

On the host a likelihood is traced through a *portable copy* of the user's function (``portable``):
jax knows NumPy arrays by their identity in one precision at a time, and bodies of loops and
functions under ``jit`` by theirs, whatever they read. The copies, and what was compiled of them,
live on the function: they die with it.

What is guaranteed: each procedure on the host (a fit, a batch, a profile) looks once at all that
the function depends on (``watch``), and uses what was compiled before only if it finds the same
codes, values and bytes. A rebound name, an attribute, an element or an array changed in place makes
new copies and a new trace. What cannot be watched is traced and compiled again by each procedure,
with a warning where that takes long.
Not seen are changes made while a procedure runs, inside the libraries named in ``bytecode``, and by
the function itself while it is traced.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import types
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import DTypeLike, Foreign, Function, FunctionTo, Tree
from jaxmle.closures.copies import portable, viewed
from jaxmle.closures.kinds import MEMO
from jaxmle.closures.watch import Look, look
from jaxmle.runtime import jax_state
from jaxmle.runtime.jax_state import exact_products
from jaxmle.runtime.jax_state import tracing as tracing
from jaxmle.runtime.opaque import OnceDifferentiable, Opaque, functions_of, map_functions
from jaxmle.runtime.user_code import is_of_user, said_if_long, warn_caller

SECONDS_WORTH_A_WARNING = 1.0  # of compiling what cannot be watched
WARNED = f"{MEMO}_warned"  # the attribute of a function of which that was said
CALLBACK_IN_SINGLE_PRECISION = (
    "a pure_callback in the likelihood ran on a thread started by jax, where float64 is "
    "off, and returned float32. Enable float64 for all threads, "
    "jax.config.update('jax_enable_x64', True) at the top of the program, or fit with "
    "dtype='float32'"
)


class UnwatchedClosureWarning(UserWarning):
    """A likelihood depends on something that cannot be watched for changes: it has other values
    each time it is traced, such as a random draw, or compiling it again at each call takes long.
    The warning is given once for each function.

    >>> import warnings, numpy as np, jaxmle as jm
    >>> generator = np.random.default_rng(0)
    >>> drawing = lambda p, d: -((d - p["a"]) ** 2) + 0 * generator.random()
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", jm.UnwatchedClosureWarning)
    ...     print(round(float(jm.fit(drawing, {"a": 0.0}, np.arange(5.0)).params["a"]), 6))
    2.0
    """


# ---------------------------------------------------------------- what is kept on a function


@dataclass
class Memo:
    """What is kept on a user's function. It holds no reference back, so it dies with its owner.

    A pickled function takes none of it along: the copy has None in its place, and compiles anew.
    """

    seen: Look
    copies: dict[Foreign, Foreign] = field(default_factory=dict)  # one for each precision
    pieces: dict[Foreign, Foreign] = field(default_factory=dict)
    contradicted: bool = False  # its second derivatives by jax are not those of its score
    rewritten: FunctionTo[Function] | None = None  # how its copies are changed before they compile
    rewrites: dict[Foreign, Foreign] = field(default_factory=dict)  # the changed copies
    timed: set[int] = field(default_factory=set)  # identities of pieces whose first call was timed
    seconds: float = 0.0  # that first calls took, where it cannot be watched
    called: set[int] = field(default_factory=set)  # identities of pieces that were called

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(None), ()

    def holds(self, function: Function) -> bool:
        """Whether the function depends on what it depended on when the copy was made."""
        return look(function, self.seen.names, again=True).facts == self.seen.facts

    def copy(self, function: Function) -> Tree:
        """The portable copy for the precision that is switched on."""
        real = jax.dtypes.canonicalize_dtype(np.float64)
        if real not in self.copies:
            self.copies[real] = portable(function, look(function, self.seen.names))
        return self.copies[real]

    def copy_to_compile(self, function: Function) -> Tree:
        """The portable copy, changed where that was asked for."""
        copy = self.copy(function)
        if self.rewritten is None:
            return copy
        real = jax.dtypes.canonicalize_dtype(np.float64)
        if real not in self.rewrites:
            self.rewrites[real] = self.rewritten(copy)
        return self.rewrites[real]

    def learn(self, function: Function) -> None:
        """Take what the function depends on now for known."""
        now = look(function, self.seen.names, again=True)
        self.seen = self.seen._replace(facts=now.facts, by_identity=now.by_identity)


@dataclass(frozen=True, eq=False)
class Held:
    """A likelihood tree with what is kept of its functions."""

    loglik: Tree
    functions: list[Tree]
    memos: list[Memo]
    portable: Tree  # the tree of portable copies
    structure: Tree  # of that tree
    leaves: list[Tree]
    # all that its functions depend on is watched, and no code was met that may change it
    is_plain: bool

    @property
    def pieces(self) -> dict[Tree, Tree]:
        """What was compiled, and asked, of the likelihood before."""
        return self.memos[0].pieces if self.memos else {}

    def was_called(self, piece: Tree) -> bool:
        """Whether a piece was called before."""
        return bool(self.memos) and id(piece) in self.memos[0].called


class _Procedure(threading.local):
    """The memos looked up in the procedure under way, and the likelihoods made of their copies in
    each precision: a fit looks at what its likelihood closes over once.
    """

    depth = 0
    calling: Sequence[tuple[Tree, Memo]] = ()
    memos: dict[tuple[int, str], tuple[Tree, Memo]] | None = None
    held: dict[tuple[int, Tree], Held] | None = None


_PROCEDURE = _Procedure()


@contextlib.contextmanager
def precision(dtype: DTypeLike) -> Iterator[None]:
    """The context of a host procedure: float64 on, or off for float32. Within the outermost one
    closures are looked at once.
    """
    _PROCEDURE.depth += 1
    try:
        with jax_state.precision(dtype):
            yield
    finally:
        _PROCEDURE.depth -= 1
        if not _PROCEDURE.depth:
            _PROCEDURE.memos = None
            _PROCEDURE.held = None


def _memo(function: FunctionTo[Function]) -> Memo:
    """What is kept on the function; on the object where it is a bound method."""
    owner: Tree = function
    name = MEMO
    if isinstance(function, types.MethodType):
        owner = function.__self__
        name = f"{MEMO}_{function.__name__}"
    if _PROCEDURE.memos is None:
        _PROCEDURE.memos = {}
    known = _PROCEDURE.memos.get((id(owner), name)) if _PROCEDURE.depth else None
    if known is not None:
        return known[1]
    memo = getattr(owner, "__dict__", {}).get(name)
    if memo is None or not memo.holds(function):
        seen = look(function)
        memo = Memo(seen._replace(retained=[], holders=frozenset(), kinds=frozenset()))
        _keep(owner, name, memo)
    if _PROCEDURE.depth:
        _PROCEDURE.memos[id(owner), name] = (owner, memo)
    return memo


def _keep(owner: Tree, name: str, memo: Memo) -> None:
    if memo.seen.hidden:  # what cannot be watched is traced again by each procedure
        return
    try:
        if dataclasses.is_dataclass(owner):
            object.__setattr__(owner, name, memo)
        else:
            setattr(owner, name, memo)
    except (AttributeError, TypeError):
        pass  # a slotted callable keeps nothing: it is compiled by each procedure


def _once_differentiable(node: Tree) -> OnceDifferentiable:
    """A likelihood tree whose functions and regressions have first derivatives only."""
    if isinstance(node, Opaque) or hasattr(node, "density"):
        return OnceDifferentiable(node)
    if hasattr(node, "members"):
        return dataclasses.replace(node, members=tuple(map(_once_differentiable, node.members)))
    if hasattr(node, "loglik"):
        return dataclasses.replace(node, loglik=_once_differentiable(node.loglik))
    return node


def contradict(loglik: Tree) -> None:
    """Record that second derivatives by jax are not those of the score: what is compiled of this
    likelihood from now on takes differences.
    """
    for function in functions_of(loglik):
        _memo(function).contradicted = True


def rewrite(loglik: Tree, change: FunctionTo[Function] | None) -> None:
    """Compile ``change(f)`` for each function f of this likelihood from now on; f if it is None."""
    for function in functions_of(loglik):
        _memo(function).rewritten = change


def _to_compile(held: Held) -> Tree:
    pairs = zip(held.functions, held.memos, strict=True)
    copies = iter([memo.copy_to_compile(function) for function, memo in pairs])
    return map_functions(held.loglik, lambda _: next(copies))


def is_contradicted(loglik: Tree) -> bool:
    """Whether ``contradict`` was called of a function in the likelihood as it is now."""
    return any(_memo(function).contradicted for function in functions_of(loglik))


# ---------------------------------------------------------------- compiled pieces


def compiled(loglik: Tree, key: Hashable, make: Callable[[Tree], Function]) -> Function:
    """The jitted ``make(loglik)``, kept on the user's function; ``loglik``'s arrays are arguments
    of it, not constants.

    Args:
        loglik: a likelihood tree.
        key: hashable; what distinguishes this piece from others made of the same likelihood.
        make: from a likelihood to the function to compile. Called under the trace only.
    """
    held = _held(loglik)
    piece, leaves = _piece(held, key, make)
    arrays = [jnp.asarray(viewed(leaf)) for leaf in leaves]
    return partial(_called, held, piece, arrays)


def cached_under_trace(loglik: Tree, key: Hashable, make: Callable[[Tree], Function]) -> Function:
    """``compiled`` under a trace: a jitted ``make(loglik)`` of the user's own
    function, in the trace's dtype.

    So ``vmap(fit)`` outside any ``jit`` compiles once, not at every call. A function that closes
    over a tracer belongs to one trace only, and one that cannot be watched to one call only: these
    run in place.
    """
    functions = functions_of(loglik)
    memos = [_memo(function) for function in functions]
    if any(memo.seen.traced or memo.seen.hidden for memo in memos) or not _hashable(key):
        return _in_place(make(map_functions(loglik, portable_copy)))
    held = _made(loglik, functions, memos)
    piece, leaves = _piece(held, key, make)
    return partial(_called, held, piece, leaves)


def _in_place(function: FunctionTo[Function]) -> Function:
    def run(*args: Tree) -> Tree:
        with exact_products():
            return function(*args)

    return run


def _held(loglik: Tree) -> Held:
    """What is kept of a likelihood tree, in the precision that is switched on; looked up once in a
    procedure.
    """
    place = (id(loglik), jax.dtypes.canonicalize_dtype(np.float64))
    if _PROCEDURE.held is None:
        _PROCEDURE.held = {}
    known = _PROCEDURE.held.get(place) if _PROCEDURE.depth else None
    if known is not None:
        return known
    functions = functions_of(loglik)
    held = _made(loglik, functions, [_memo(function) for function in functions])
    if _PROCEDURE.depth and not held.leaves:  # the weights of all replicates would stay in memory
        _PROCEDURE.held[place] = held
    return held


def _made(loglik: Tree, functions: list[Tree], memos: list[Memo]) -> Held:
    copies = iter([memo.copy(function) for function, memo in zip(functions, memos, strict=True)])
    portable = map_functions(loglik, lambda _: next(copies))
    leaves, structure = jax.tree.flatten(portable)
    is_plain = not any(memo.seen.hidden or memo.seen.changes for memo in memos)
    return Held(loglik, functions, memos, portable, structure, leaves, is_plain)


def _piece(held: Held, key: Tree, make: Callable[[Tree], Function]) -> tuple[Function, list[Tree]]:
    """The jitted ``make`` of the portable copy, from the first function's memo, and the
    likelihood's leaves.
    """
    leaves = held.leaves
    treedef = held.structure
    contradicted = any(memo.contradicted for memo in held.memos)
    if contradicted or any(memo.rewritten is not None for memo in held.memos):
        tree = _to_compile(held)
        leaves, treedef = jax.tree.flatten(_once_differentiable(tree) if contradicted else tree)
    pieces = held.pieces
    if (key, treedef) not in pieces:

        def likelihood_piece(leaves: list[Tree], *args: Tree) -> Tree:
            with _learning(), exact_products():
                return make(jax.tree.unflatten(treedef, leaves))(*args)

        pieces[key, treedef] = jax.jit(likelihood_piece)
    return pieces[key, treedef], leaves


def portable_copy(function: Function) -> Tree:
    """The copy of a user's function that computes in the precision of the procedure. Under a trace
    it is the function itself, unless that closes over arrays narrower than the trace's numbers.
    """
    if not tracing():
        return remembered(Opaque(function), "portable", lambda copy: copy).function
    return portable(function, look(function)) if _memo(function).seen.narrow else function


def remembered(loglik: Tree, key: Tree, find: Callable[[Tree], Tree]) -> Tree:
    """The static fact ``find(loglik)``, asked once of the portable copy and kept beside the
    compiled pieces.
    """
    held = _held(loglik)
    facts = held.pieces
    whole = ("fact", key, held.structure)
    if whole not in facts:
        with _calling(held), _learning():
            facts[whole] = find(held.portable)
    return facts[whole]


def portable_tree(loglik: Tree) -> Tree:
    """A likelihood of portable copies, for abstract evaluation on the host: their arrays may be
    traced in float64, of whatever type they are, and the user's own float32 programs are left
    alone.
    """
    return remembered(loglik, "portable", lambda copy: copy)


@contextlib.contextmanager
def _calling(held: Held) -> Iterator[None]:
    """Says whose pieces are called, to a trace that may come of it."""
    before = _PROCEDURE.calling
    _PROCEDURE.calling = [
        (function, memo)
        for function, memo in zip(held.functions, held.memos, strict=True)
        if memo.seen.changes and not memo.seen.hidden
    ]
    try:
        yield
    finally:
        _PROCEDURE.calling = before


@contextlib.contextmanager
def _learning() -> Iterator[None]:
    """Around a trace of functions that may change what they close over: what they change
    themselves counts as known.
    """
    unchanged = [(function, memo) for function, memo in _PROCEDURE.calling if memo.holds(function)]
    yield
    for function, memo in unchanged:
        memo.learn(function)


def _called(held: Held, piece: Tree, *args: Tree) -> Tree:
    try:
        if held.is_plain and held.was_called(piece):
            return piece(*args)
        with _calling(held), _timed(held, piece), _noticed(held, piece):
            return piece(*args)
    except (RuntimeError, TypeError, ValueError) as error:  # a JaxRuntimeError is a RuntimeError
        if "Expected: float64, Actual: float32" in str(error):
            raise TypeError(CALLBACK_IN_SINGLE_PRECISION) from error
        raise


def _noticed(held: Held, piece: Tree) -> contextlib.AbstractContextManager[None]:
    """Around a call of a piece: of the first one a word where it takes long."""
    if not held.memos or held.was_called(piece):
        return contextlib.nullcontext()
    held.memos[0].called.add(id(piece))
    function = held.functions[0]
    if not is_of_user(function):
        return contextlib.nullcontext()
    return said_if_long(getattr(function, "__name__", type(function).__name__))


@contextlib.contextmanager
def _timed(held: Held, piece: Tree) -> Iterator[None]:
    """Around a call of a piece: the first one compiles it, and where that is done again by each
    procedure and takes long a warning says so, once for each function.
    """
    hidden = [
        (function, memo)
        for function, memo in zip(held.functions, held.memos, strict=True)
        if memo.seen.hidden and id(piece) not in memo.timed
    ]
    began = time.perf_counter()
    yield
    for function, memo in hidden:
        memo.timed.add(id(piece))
        memo.seconds += time.perf_counter() - began
        if memo.seconds > SECONDS_WORTH_A_WARNING:
            warn_once(
                function,
                f"depends on {memo.seen.hidden}, which cannot be watched for changes: it is "
                f"traced and compiled again at each call, this time for {memo.seconds:.1f} s. "
                "Read or draw it once, outside, and let the likelihood close over the "
                "array or pass it as data.",
            )


def may_change_by_itself(loglik: Opaque) -> str:
    """What a function depends on that may differ from call to call; '' if there is nothing."""
    function: Foreign = loglik.function
    seen = _memo(function).seen
    return seen.hidden or ("what it changes itself" if seen.changes else "")


def warn_once(function: Function, sentence: str) -> None:
    """Warn of what a function closes over, once for each function, whose name comes first."""
    if _first_warning(function):
        name = getattr(function, "__name__", type(function).__name__)
        warn_caller(f"{name} {sentence}", UnwatchedClosureWarning)


def _first_warning(function: Function) -> bool:
    """Whether a function was not warned of yet; from now on it was."""
    owner = function.__self__ if isinstance(function, types.MethodType) else function
    if WARNED in getattr(owner, "__dict__", {}):
        return False
    with contextlib.suppress(AttributeError, TypeError):  # of a slotted callable: warned each time
        object.__setattr__(owner, WARNED, True)
    return True


def _hashable(key: Hashable) -> bool:
    try:
        hash(key)
    except TypeError:  # so Python says that it has no hash
        return False
    return True


def to_numpy(tree: Tree) -> Tree:
    """The tree with NumPy arrays for leaves; scalars become NumPy scalars."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[()], tree)
