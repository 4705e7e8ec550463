"""W11: the first answer of a process: what is compiled before it, and what a user would run instead.

    python benchmarks/w11_first_answer.py [repetitions]

Each figure is of a process of its own, without a compilation cache and, where jax compiles, with one that an earlier process filled.
Seconds are those of the one core that the process is pinned to; modules are compiled to bytecode before, as those of an installed package are.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yardstick

ROWS, P = 300, 5
SMALL_ROWS = 200


# ---------------------------------------------------------------- in the fresh process


def logits(members: int) -> dict[str, Any]:
    import numpy as np

    rng = np.random.default_rng(members)
    x = rng.standard_normal((members, ROWS, P))
    eta = x @ np.linspace(-0.5, 0.5, P)
    return {"x": x, "y": (rng.random((members, ROWS)) < 1 / (1 + np.exp(-eta))).astype(float)}


def logistic(params: Any, data: Any) -> Any:
    import jax.numpy as jnp

    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jnp.logaddexp(0.0, eta)


def batch(members: int, again: int = 0) -> Callable[[], dict[str, float]]:
    """The first ``fit_batch``; ``again``: another likelihood after it."""

    def run() -> dict[str, float]:
        import numpy as np

        import jaxmle as jm

        data = logits(members)

        def another(params: Any, data: Any) -> Any:
            return logistic(params, data) + 0.0

        def go(loglik: Any) -> Any:
            return jm.fit_batch(loglik, {"beta": np.zeros(P)}, data, progress=False)

        if again:
            go(logistic)
            return seconds(lambda: go(another))
        return seconds(lambda: go(logistic))

    return run


def pass_alone() -> dict[str, float]:
    """The likelihood's own value, score and Hessian for 500 members, compiled by hand."""
    import jax
    import jax.numpy as jnp

    with jax.enable_x64(True):
        data = jax.tree.map(jnp.asarray, logits(500))

        def value(beta: Any, member: Any) -> Any:
            return jnp.sum(logistic({"beta": beta}, member))

        def three(beta: Any, member: Any) -> Any:
            both = jax.value_and_grad(value)(beta, member)
            return *both, jax.hessian(value)(beta, member)

        start = jnp.zeros((500, P))
        return seconds(lambda: jax.jit(jax.vmap(three)).lower(start, data).compile())


def statsmodels_loop(members: int) -> Callable[[], dict[str, float]]:
    def run() -> dict[str, float]:
        import statsmodels.api as sm

        data = logits(members)
        pairs = zip(data["x"], data["y"], strict=True)
        return seconds(lambda: [sm.Logit(y, x).fit(disp=0).bse for x, y in pairs])

    return run


def bootstrap() -> dict[str, float]:
    import jax
    import numpy as np

    import jaxmle as jm

    rng = np.random.default_rng(0)
    x = rng.standard_normal((1000, P))
    data = {"x": x, "y": rng.poisson(np.exp(x @ np.full(P, 0.2))).astype(float)}

    def poisson(params: Any, data: Any) -> Any:
        eta = data["x"] @ params["beta"]
        return data["y"] * eta - jax.numpy.exp(eta)

    fit = jm.fit(poisson, {"beta": np.zeros(P)}, data)
    key = jax.random.key(0)
    return seconds(
        lambda: jm.bootstrap(poisson, fit, data, key=key, replicates=10_000, progress=False)
    )


def newton_by_hand(beta: Any, data: Any) -> Any:
    """Newton steps and standard errors as one writes them in ten lines."""
    import jax
    import jax.numpy as jnp

    def minus(beta: Any) -> Any:
        return -jnp.sum(logistic({"beta": beta}, data))

    score, hessian = jax.grad(minus), jax.hessian(minus)

    def step(now: Any) -> Any:
        beta, _, count = now
        move = jnp.linalg.solve(hessian(beta), score(beta))
        return beta - move, jnp.max(jnp.abs(move)), count + 1

    def goes_on(now: Any) -> Any:
        return (now[1] > 1e-10) & (now[2] < 50)

    beta, _, _ = jax.lax.while_loop(goes_on, step, (beta, jnp.inf, 0))
    return beta, jnp.sqrt(jnp.diag(jnp.linalg.inv(hessian(beta)))), -minus(beta)


def traced(many: bool, by_hand: bool) -> Callable[[], dict[str, float]]:
    """Lowering and compiling one fit, or a thousand under vmap; then running it."""

    def run() -> dict[str, float]:
        import jax
        import jax.numpy as jnp

        import jaxmle as jm

        def fit(data: Any) -> Any:
            beta = jnp.zeros(P)
            if by_hand:
                return newton_by_hand(beta, data)
            found = jm.fit(logistic, {"beta": beta}, data)
            return found.params["beta"], found.stderr["beta"], found.loglik, found.status

        with jax.enable_x64(True):
            data = jax.tree.map(
                jnp.asarray, {name: leaf[:, :SMALL_ROWS] for name, leaf in logits(1000).items()}
            )
            if not many:
                data = jax.tree.map(lambda leaf: leaf[0], data)
            program = jax.jit(jax.vmap(fit) if many else fit)
            start = time.process_time()
            compiled = program.lower(data).compile()
            first = time.process_time() - start
            runs = [seconds(lambda: jax.block_until_ready(compiled(data))) for _ in range(7)]
        return {"first": first, "later": statistics.median(run["first"] for run in runs)}

    return run


def small_fit_again() -> dict[str, float]:
    import numpy as np

    import jaxmle as jm

    data = {name: leaf[0] for name, leaf in logits(1).items()}
    runs = [
        seconds(lambda: jm.fit(logistic, {"beta": np.zeros(P)}, data))["first"] for _ in range(200)
    ]
    return {"first": runs[0], "later": statistics.median(runs[100:])}


def seconds(run: Callable[[], Any]) -> dict[str, float]:
    start = time.process_time()
    run()
    return {"first": time.process_time() - start}


CONTESTANTS: dict[str, Callable[[], dict[str, float]]] = {
    "fit_batch, 500 × (300 × 5)": batch(500),
    "fit_batch, 20 × (300 × 5)": batch(20),
    "fit_batch, 500, another likelihood": batch(500, again=1),
    "value, score and Hessian of 500 alone": pass_alone,
    "statsmodels loop, 500": statsmodels_loop(500),
    "bootstrap of 10 000": bootstrap,
    "jit(fit)": traced(many=False, by_hand=False),
    "jit(Newton by hand)": traced(many=False, by_hand=True),
    "jit(vmap(fit)), 1 000": traced(many=True, by_hand=False),
    "jit(vmap(Newton by hand)), 1 000": traced(many=True, by_hand=True),
    "one small fit, 300 × 5": small_fit_again,
}
RATIOS = (
    ("fit_batch, 500 × (300 × 5)", "value, score and Hessian of 500 alone", "first", 4.0),
    ("jit(fit)", "jit(Newton by hand)", "first", 4.0),
    ("jit(vmap(fit)), 1 000", "jit(vmap(Newton by hand)), 1 000", "first", 4.0),
    ("jit(vmap(fit)), 1 000", "jit(vmap(Newton by hand)), 1 000", "later", 1.3),
)
LIMITS = (
    ("fit_batch, 500 × (300 × 5)", "first", 1.5),
    ("fit_batch, 20 × (300 × 5)", "first", 1.2),
    ("fit_batch, 500, another likelihood", "first", 0.7),
    ("bootstrap of 10 000", "first", 3.0),
    ("one small fit, 300 × 5", "later", 0.0015),
)


# ---------------------------------------------------------------- the tables


def spawn(name: str, cache: str | None) -> dict[str, float]:
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("JAX_COMPILATION", "JAX_PERSISTENT", "PYTHONDONTWRITE"))
    }
    if cache is not None:
        env |= {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    command = [sys.executable, Path(__file__).resolve(), "child", name]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(repetitions: int) -> None:
    print(yardstick.versions("jax", "numpy", "statsmodels"), flush=True)
    print(
        f"\n### W11: the first answer of a process\n\nMedian of {repetitions} processes, in turns."
    )
    cold: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    warm: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as cache:
        for name in CONTESTANTS:
            spawn(name, cache)
        for _ in range(repetitions):
            for name in CONTESTANTS:
                cold[name].append(spawn(name, None))
                warm[name].append(spawn(name, cache))
    rows = [
        [
            name,
            f"{_median(cold[name], 'first'):.2f}",
            f"{_median(warm[name], 'first'):.2f}",
            f"{_median(cold[name], 'later'):.4f}" if "later" in cold[name][0] else "",
        ]
        for name in CONTESTANTS
    ]
    print("\n" + yardstick.table(["seconds", "first", "first, with the cache", "later"], rows))
    print("\n" + yardstick.table(["", "is", "must ≤", ""], _verdicts(cold)))


def _median(runs: list[dict[str, float]], what: str) -> float:
    return statistics.median(run[what] for run in runs)


def _verdicts(cold: dict[str, list[dict[str, float]]]) -> list[list[str]]:
    rows = []
    for ours, peer, what, must in RATIOS:
        pairs = zip(cold[ours], cold[peer], strict=True)
        ratio = statistics.median(a[what] / b[what] for a, b in pairs)
        rows.append(
            [f"{ours}, {what}, over {peer}", f"{ratio:.2f}", f"{must:g}", _word(ratio, must)]
        )
    for ours, what, must in LIMITS:
        value = _median(cold[ours], what)
        rows.append([f"{ours}, {what}, seconds", f"{value:.4g}", f"{must:g}", _word(value, must)])
    return rows


def _word(value: float, must: float) -> str:
    return "reached" if value <= must else "**not reached**"


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        print(json.dumps(CONTESTANTS[sys.argv[2]]()))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
