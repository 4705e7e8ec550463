"""W13: 300 iterations of L-BFGS on a network of 1 282 parameters, ``fit`` beside a plain loop over optax.lbfgs.

    python benchmarks/w13_network.py [rows] [turns]

The network is 5-32-32-1 with tanh, its response normal with a standard deviation that is estimated, under a ridge. Both contestants run in
float64 from one start, in turns, one call of each after the other; seconds are medians of the processor time of the one core that the process
is pinned to. The first call of each, which compiles, is shown apart. ``fit`` checks its arguments, fingerprints the data and ends with a record.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import yardstick

import jaxmle as jm

ITERATIONS = 300
WIDTHS = (5, 32, 32, 1)
RIDGE = 0.5
WANTED = 1.3


def network(params: Any, x: Any) -> Any:
    for w, b in params["hidden"]:
        x = jnp.tanh(x @ w + b)
    w, b = params["out"]
    return (x @ w + b)[:, 0]


def normal(params: Any, data: Any) -> Any:
    residual = (data["y"] - network(params, data["x"])) * jnp.exp(-params["log_sigma"])
    return -0.5 * residual**2 - params["log_sigma"] - 0.5 * jnp.log(2 * jnp.pi)


def problem(rows: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(13)
    x = rng.normal(size=(rows, WIDTHS[0]))
    y = np.sin(x[:, 0]) + x[:, 1] * x[:, 2] + 0.3 * rng.normal(size=rows)
    layers = [
        (rng.normal(size=(a, b)) / np.sqrt(a), np.zeros(b))
        for a, b in zip(WIDTHS[:-1], WIDTHS[1:], strict=True)
    ]
    return {"hidden": layers[:-1], "out": layers[-1], "log_sigma": 0.0}, {"x": x, "y": y}


def by_fit(start: Any, data: Any) -> Callable[[], float]:
    penalised = jm.penalize(normal, jm.ridge(RIDGE))
    solver = jm.solvers.LBFGS(steps=ITERATIONS)

    def run() -> float:
        found = jm.fit(penalised, start, data, solver=solver, progress=False)
        assert int(found.steps) == ITERATIONS, "it ended before"
        return float(found.loglik)

    return run


def by_optax(start: Any, data: Any) -> Callable[[], float]:
    """The loop of optax's documentation: a jitted step, called 300 times."""
    optimizer = optax.lbfgs()
    rows = jax.tree.map(jnp.asarray, data)

    def loss(params: Any) -> Any:
        squares = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
        return 0.5 * RIDGE * squares - jnp.sum(normal(params, rows))

    slope = optax.value_and_grad_from_state(loss)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        value, grad = slope(params, state=state)
        updates, state = optimizer.update(
            grad, state, params, value=value, grad=grad, value_fn=loss
        )
        return optax.apply_updates(params, updates), state

    def run() -> float:
        params = jax.tree.map(jnp.asarray, start)
        state = optimizer.init(params)
        for _ in range(ITERATIONS):
            params, state = step(params, state)
        return -float(jax.jit(loss)(params))

    return run


def seconds(run: Callable[[], float]) -> tuple[float, float]:
    begun = time.process_time()
    value = run()
    return time.process_time() - begun, value


def main() -> None:
    print(yardstick.versions("jaxmle", "jax", "optax"))
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    turns = int(sys.argv[2]) if len(sys.argv) > 2 else 9
    start, data = problem(rows)
    with jax.enable_x64(True):
        optax_loop = by_optax(start, data)
        contestants = {"jaxmle.fit": by_fit(start, data), "plain optax loop": optax_loop}
        first = {name: seconds(run) for name, run in contestants.items()}
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(turns):
            for name, run in contestants.items():
                times[name].append(seconds(run)[0])
    for name, of_it in times.items():
        print(
            f"{name:18s} {statistics.median(of_it):7.3f} s a call ({min(of_it):.3f} to {max(of_it):.3f}), "
            f"the first {first[name][0]:.1f} s, ℓ less the prior {first[name][1]:.3f}"
        )
    ratio = statistics.median(times["jaxmle.fit"]) / statistics.median(times["plain optax loop"])
    whole = first["jaxmle.fit"][0] / first["plain optax loop"][0]
    print(
        f"{sum(np.size(leaf) for leaf in jax.tree.leaves(start))} parameters, {rows} rows, "
        f"{ITERATIONS} iterations: {ratio:.2f}× the loop ({whole:.2f}× with compilation); wanted "
        f"{WANTED}: {'met' if ratio <= WANTED else 'NOT met'}"
    )


if __name__ == "__main__":
    main()
