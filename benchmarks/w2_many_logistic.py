"""W2: 10 000 logistic regressions, n = 200, p = 5, with standard errors, by ``jm.fit_batch``; one core, from NumPy arrays.

python benchmarks/w2_many_logistic.py [members]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import yardstick  # isort: skip  (pins, so before NumPy)

import jax
import jax.numpy as jnp
import numpy as np

import jaxmle as jm

N, P = 200, 5
SUBSET = 2000  # members for the slow vmapped peers
LOOPED = 200  # members for a Python loop


def simulate(members: int, hard: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Designs (b, n, p) and responses (b, n); a share ``hard`` of the members has slopes large enough to be nearly separated."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((members, N, P))
    x[..., 0] = 1.0
    beta = 0.5 * rng.standard_normal((members, P))
    steep = rng.choice(members, int(members * hard), replace=False)
    beta[steep] = 12.0 * rng.standard_normal((len(steep), P))
    eta = np.einsum("bnp,bp->bn", x, beta)
    return x, (rng.random((members, N)) < 1 / (1 + np.exp(-eta))).astype(float)


def reference(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each member by damped Newton in NumPy; NaN where it is separated."""
    with np.errstate(all="ignore"):
        found = [_one_reference(a, b) for a, b in zip(x, y, strict=True)]
    return np.array([b for b, _ in found]), np.array([se for _, se in found])


def _one_reference(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    nothing = np.full(P, np.nan)
    try:
        beta, se = yardstick.newton_reference(x, y)
    except np.linalg.LinAlgError:
        return nothing, nothing
    finite = (
        np.all(np.isfinite(beta))
        and np.max(np.abs(x @ beta)) < 300
        and np.max(se / np.maximum(np.abs(beta), 1)) < 100
    )
    return (beta, se) if finite else (nothing, nothing)


# ---------------------------------------------------------------- ours


def opaque(params: dict, data: dict) -> jax.Array:
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jax.nn.softplus(eta)


declared = jm.regression(
    lambda eta, row: row["y"] * eta["mu"] - jax.nn.softplus(eta["mu"]),
    eta={"mu": jm.linear("x", "beta")},
)


# The same density with jaxmle's own softplus, whose derivatives share one exponential.
swift = jm.regression(
    lambda eta, row: row["y"] * eta["mu"] - jm.special.softplus(eta["mu"]),
    eta={"mu": jm.linear("x", "beta")},
)
FORMS = {
    "jaxmle declared": swift,
    "jaxmle declared, jax.nn.softplus": declared,
    "jaxmle opaque": opaque,
}


def ours(board: yardstick.Board, x: np.ndarray, y: np.ndarray) -> None:
    for name, loglik in FORMS.items():

        def run(loglik=loglik):
            return jm.fit_batch(loglik, {"beta": np.zeros(P)}, {"x": x, "y": y}, progress=False)

        board.time(
            name,
            run,
            lambda fit: (fit.params["beta"], fit.stderr["beta"]),
            compiles=True,
            budget=8.0,
            note=statuses,
        )
    program = jax.jit(jax.vmap(lambda data: jm.fit(opaque, {"beta": jnp.zeros(P)}, data)))

    def run():
        return jax.tree.map(np.asarray, program({"x": x, "y": y}))

    board.time(
        "jit(vmap(fit)), opaque",
        run,
        lambda fit: (fit.params["beta"], fit.stderr["beta"]),
        compiles=True,
        repeats=3,
        budget=8.0,
        note=statuses,
    )


def statuses(fit: jm.Fit) -> str:
    codes, counts = np.unique(fit.status, return_counts=True)
    told = ", ".join(
        f"{count} {jm.Status(int(code)).name}" for code, count in zip(codes, counts, strict=True)
    )
    return f"{told}; steps {fit.steps.mean():.1f}, at most {fit.steps.max()}"


# ---------------------------------------------------------------- written by hand


def nll(beta: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    eta = x @ beta
    return jnp.sum(jax.nn.softplus(eta) - y * eta)


def split_hessian(beta: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    mu = jax.nn.sigmoid(x @ beta)
    return x.T @ ((mu * (1 - mu))[:, None] * x)


def stderr(hessian: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.diag(jnp.linalg.inv(hessian)))


def plain_newton(hessian: Callable[..., jax.Array]) -> Callable[..., Any]:
    """Undamped Newton in a ``while_loop``, as a first version is written."""

    def fit(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        def body(state: Any) -> Any:
            beta, _, k, _ = state
            h = hessian(beta, x, y)
            step = jnp.linalg.solve(h, jax.grad(nll)(beta, x, y))
            return beta - step, jnp.max(jnp.abs(step)), k + 1, h

        start = (jnp.zeros(P), jnp.array(jnp.inf), 0, jnp.eye(P))
        beta, _, _, h = jax.lax.while_loop(lambda s: (s[1] > 1e-8) & (s[2] < 60), body, start)
        return beta, stderr(h)

    return fit


def numpy_batch(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Batched Newton in NumPy that drops the members that are done."""
    beta, se, active = np.zeros(x.shape[::2]), np.full(x.shape[::2], np.nan), np.arange(len(x))
    for k in range(60):
        xa, ya = (x, y) if k == 0 or len(active) == len(x) else (x[active], y[active])
        mu = 1 / (1 + np.exp(-np.matmul(xa, beta[active][..., None])[..., 0]))
        score = np.matmul(xa.transpose(0, 2, 1), (mu - ya)[..., None])
        information = np.matmul(xa.transpose(0, 2, 1), xa * (mu * (1 - mu))[..., None])
        step = np.linalg.solve(information, score)[..., 0]
        beta[active] -= step
        done = np.max(np.abs(step), axis=1) <= 1e-8
        if done.any():
            se[active[done]] = np.sqrt(np.linalg.inv(information[done])[:, range(P), range(P)])
            active = active[~done]
        if not len(active):
            break
    return beta, se


# ---------------------------------------------------------------- optimisers under vmap


def optimisers() -> dict[str, Callable[..., Any]]:
    """Minimisers of the negative log-likelihood, each followed by the Hessian for the standard errors."""
    found = {"optax.lbfgs": _optax_lbfgs}
    if jaxopt := yardstick.optional("jaxopt"):
        found["jaxopt.BFGS"] = lambda x, y: (
            jaxopt.BFGS(lambda b: nll(b, x, y), tol=1e-5, maxiter=100).run(jnp.zeros(P)).params
        )
        found["jaxopt.LBFGS"] = lambda x, y: (
            jaxopt.LBFGS(lambda b: nll(b, x, y), tol=1e-5, maxiter=100).run(jnp.zeros(P)).params
        )
    if optx := yardstick.optional("optimistix"):
        bfgs, newton = optx.BFGS(1e-8, 1e-8), optx.Newton(1e-8, 1e-8)
        found["optimistix.BFGS"] = lambda x, y: (
            optx.minimise(lambda b, _: nll(b, x, y), bfgs, jnp.zeros(P), throw=False).value
        )
        found["optimistix.Newton on the score"] = lambda x, y: (
            optx.root_find(
                lambda b, _: jax.grad(nll)(b, x, y), newton, jnp.zeros(P), throw=False
            ).value
        )
    return found


def _optax_lbfgs(x: jax.Array, y: jax.Array) -> jax.Array:
    import optax

    loss, method = lambda b: nll(b, x, y), optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def body(carry: Any) -> Any:
        beta, state, k, _ = carry
        value, grad = value_and_grad(beta, state=state)
        updates, state = method.update(grad, state, beta, value=value, grad=grad, value_fn=loss)
        return optax.apply_updates(beta, updates), state, k + 1, jnp.max(jnp.abs(grad))

    start = (jnp.zeros(P), method.init(jnp.zeros(P)), 0, jnp.array(jnp.inf))
    return jax.lax.while_loop(lambda c: (c[3] > 1e-5) & (c[2] < 100), body, start)[0]


def with_stderr(minimiser: Callable[..., jax.Array]) -> Callable[..., Any]:
    def fit(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        beta = minimiser(x, y)
        return beta, stderr(jax.hessian(nll)(beta, x, y))

    return fit


# ---------------------------------------------------------------- the contests


def by_vmap(
    board: yardstick.Board,
    name: str,
    fit: Callable[..., Any],
    x: np.ndarray,
    y: np.ndarray,
    members: int,
) -> None:
    program = jax.jit(jax.vmap(fit))

    def run():
        return jax.tree.map(np.asarray, program(x[:members], y[:members]))

    subset = "" if members == len(x) else f"{members} members, scaled"
    board.time(
        name,
        run,
        lambda out: out,
        compiles=True,
        repeats=3,
        budget=8.0,
        scale=len(x) / members,
        note=subset,
    )


def compiled_batch(board: yardstick.Board, x: np.ndarray, y: np.ndarray) -> None:
    """nextstat's ``fit_batch``, with and without the making of its model objects from the arrays."""
    if nextstat := yardstick.optional("nextstat"):

        def make():
            return [
                nextstat.LogisticRegressionModel(a, b, include_intercept=False)
                for a, b in zip(x, y.astype(int), strict=True)
            ]

        def read(fits):
            return (
                np.array([f.parameters for f in fits]),
                np.array([f.uncertainties for f in fits]),
            )

        models = make()
        board.time(
            "nextstat fit_batch",
            lambda: nextstat.fit_batch(models),
            read,
            repeats=3,
            note="model objects made before",
        )
        board.time("nextstat, from arrays", lambda: nextstat.fit_batch(make()), read, repeats=3)


def loops(board: yardstick.Board, x: np.ndarray, y: np.ndarray) -> None:
    m = min(LOOPED, len(x))
    if sm := yardstick.optional("statsmodels.api"):

        def run():
            return [sm.Logit(b, a).fit(disp=0, tol=1e-8) for a, b in zip(x[:m], y[:m], strict=True)]

        def read(fits):
            return (np.array([f.params for f in fits]), np.array([f.bse for f in fits]))

        board.time(
            "statsmodels loop",
            run,
            read,
            repeats=3,
            budget=5.0,
            scale=len(x) / m,
            note=f"{m} members, scaled",
        )


def easy(members: int) -> None:
    x, y = simulate(members)
    board = yardstick.Board(f"W2: {members} logistic fits, n = {N}, p = {P}", reference(x, y))
    ours(board, x, y)
    board.time(
        "NumPy batched Newton, by hand", lambda: numpy_batch(x, y), lambda out: out, repeats=3
    )
    by_vmap(board, "vmap(Newton, jax.hessian)", plain_newton(jax.hessian(nll)), x, y, members)
    by_vmap(board, "vmap(Newton, X'WX)", plain_newton(split_hessian), x, y, members)
    for name, minimiser in optimisers().items():
        by_vmap(board, f"{name}, vmap", with_stderr(minimiser), x, y, min(SUBSET, members))
    compiled_batch(board, x, y)
    loops(board, x, y)
    generic = {name: t for name, t in board.seconds.items() if name.endswith(", vmap")}
    fastest = min(generic, key=generic.get) if generic else ""
    found = []
    for form, share, aim in (
        ("jaxmle declared", 0.35, None),
        ("jaxmle declared, jax.nn.softplus", 0.35, None),
        ("jaxmle opaque", 1.0, 0.75),
    ):
        found += [
            yardstick.Target(form, "statsmodels loop", 0.05),
            yardstick.Target(form, fastest, 0.35),
        ]
        found += [
            yardstick.Target(form, "vmap(Newton, jax.hessian)", share, aim),
            yardstick.Target(form, "NumPy batched Newton, by hand", None, 0.5),
        ]
        found += [yardstick.Target(form, "nextstat fit_batch", 1.0, 0.5)]
    board.turns(found)
    board.report(found)


def nearly_separated(members: int) -> None:
    x, y = simulate(members, hard=0.005, seed=1)
    easy_x, easy_y = simulate(members)
    board = yardstick.Board(
        f"W2 with 0.5 % nearly separated: {members} logistic fits", reference(x, y)
    )
    ours(board, x, y)
    found = []
    for form in FORMS:
        before = f"{form}: the easy batch"

        def again(form=form):
            return jm.fit_batch(
                FORMS[form], {"beta": np.zeros(P)}, {"x": easy_x, "y": easy_y}, progress=False
            )

        board.time(
            before, again, compiles=True, budget=8.0, note="timed again, beside the hard one"
        )
        found += [
            yardstick.Target(form, "vmap(Newton, X'WX)", 0.25),
            yardstick.Target(form, before, 1.5, 1.3),
        ]
        found += (
            [yardstick.Target(form, "vmap(Newton, jax.hessian)", 0.4)]
            if form == "jaxmle opaque"
            else []
        )
    by_vmap(board, "vmap(Newton, jax.hessian)", plain_newton(jax.hessian(nll)), x, y, members)
    by_vmap(board, "vmap(Newton, X'WX)", plain_newton(split_hessian), x, y, members)
    board.turns(found, rounds=3)
    board.report(found)


def main(members: int) -> None:
    print(
        yardstick.versions(
            "jax", "numpy", "statsmodels", "jaxopt", "optimistix", "optax", "nextstat"
        )
    )
    with jax.enable_x64(True), np.errstate(all="ignore"):
        easy(members)
        nearly_separated(members)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
