"""Fits of rows on four virtual devices beside the same fits in memory; run as a script, prints what it finds as JSON."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxmle as jm
from jaxmle.distributed.passes import _summed
from jaxmle.likelihood.contract import as_tree
from jaxmle.parameters.tree import layout_of
from jaxmle.streams.kernels import Form, kernel

N, Q = 20_000, 6
RNG = np.random.default_rng(3)
X = np.column_stack([np.ones(N), RNG.normal(size=(N, Q - 1))])
BETA = np.linspace(-0.5, 0.5, Q)
Y = (RNG.random(N) < 1 / (1 + np.exp(-X @ BETA))).astype(float)
COUNTS = RNG.poisson(np.exp(0.3 * X @ BETA))
W = RNG.integers(0, 4, N).astype(float)
FIRM, YEAR = RNG.integers(0, 50, N), RNG.integers(0, 12, N)
START = {"beta": np.zeros(Q)}
ROWS = PartitionSpec("data")


def binary(params, data):
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jnp.logaddexp(0.0, eta)


def gaussian(params, data):
    z = (data["y"] - data["x"] @ params["beta"]) / params["sigma"]
    return -jnp.log(params["sigma"]) - z**2 / 2


def demeaned(params, data):
    return -((data["y"] - jnp.mean(data["y"]) - data["x"] @ params["beta"]) ** 2)


def placed(tree, kind=AxisType.Auto, axes=("data",), shape=(4,), spec=ROWS):
    mesh = jax.make_mesh(shape, axes, axis_types=(kind,) * len(axes))
    with jax.enable_x64(True):
        return jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh, spec)), tree)


def distances(fit, reference):
    """How far estimates are off in standard errors, and standard errors in shares of them; infinite ones are equal."""
    finite = np.isfinite(reference.se) & (reference.se > 0)
    with np.errstate(invalid="ignore"):
        equal = (fit.x == reference.x) | (np.isnan(fit.x) & np.isnan(reference.x))
        off = np.where(equal, 0.0, (fit.x - reference.x) / reference.se)
        off_se = np.where(finite, fit.se / reference.se - 1, 0.0)
    return {"off": float(np.max(np.abs(off))), "off_se": float(np.max(np.abs(off_se)))}


def both(loglik, start, data, shared=None, **options):
    """How far the fit of shared rows is off that in memory, and what both records say."""
    alone = jm.fit(loglik, start, data, **options)
    together = jm.fit(loglik, start, placed(data) if shared is None else shared, **options)
    return {
        **distances(together, alone),
        "same": [
            [
                *(fit.verdict.name, float(fit.n), fit.vcov_kind, fit.model, fit.weighting),
                *(fit.data_id.tolist(), fit.response_id.tolist()),
            ]
            for fit in (alone, together)
        ],
        "evaluation": together.evaluation,
    }


def error(call):
    try:
        call()
    except (TypeError, ValueError) as refusal:
        return f"{type(refusal).__name__}: {refusal}"
    return "no error"


def fits():
    data = {"x": X, "y": Y}
    logistic = jm.models.logistic()
    two_axes = placed(data, axes=("copy", "data"), shape=(2, 2))
    ridge = jm.penalize(logistic, jm.ridge(2.0))
    normal = {"x": X, "y": X @ BETA + RNG.normal(size=N)}
    start = START | {"sigma": 1.0}
    yield "declared", both(logistic, None, data)
    yield "explicit mesh", both(logistic, None, data, placed(data, AxisType.Explicit))
    yield "rows repeated along an axis", both(logistic, None, data, two_axes)
    yield "a function", both(binary, START, data, vcov="HC0")
    yield "a constraint", both(gaussian, start, normal, constraints={"sigma": jm.positive})
    yield "a prior and a fixed entry", both(jm.fix(ridge, {"beta[1]": 0.1}), START, data)
    yield (
        "integers and single precision",
        both(
            jm.models.poisson(),
            None,
            {"x": X.astype(np.float32), "y": COUNTS.astype(np.int32)},
            vcov="expected",
        ),
    )
    yield "frequency weights", both(logistic, None, data, weights=jm.frequency(W))
    yield "sampling weights", both(logistic, None, data, weights=jm.sampling(W + 0.5))
    yield "HC3", both(logistic, None, data, vcov="HC3")
    yield "two-way clusters", both(logistic, None, data, clusters=(FIRM, YEAR))
    apart = np.where(X[:, 1] > 0, 1.0, 0.0)
    yield "separated", both(logistic, None, {"x": X, "y": apart})
    padded = jm.distributed.rows({"x": X[:-3], "y": Y[:-3]}, weights=jm.frequency(W[:-3]))
    few = {"x": X[:-3], "y": Y[:-3]}
    alone = jm.fit(logistic, None, few, weights=jm.frequency(W[:-3]))
    shared = jm.fit(logistic, None, padded)
    yield (
        "padded",
        {
            **distances(shared, alone),
            "same": [[float(fit.n), fit.data_id.tolist()] for fit in (alone, shared)],
            "evaluation": repr(padded),
        },
    )


def errors():
    logistic = jm.models.logistic()
    hole = X.copy()
    tall = {"x": np.tile(X[:, :2], (5, 1)), "y": np.tile(Y, 5)}
    hole[17_000, 2] = np.nan
    late = tall["y"].copy()
    late[88_888] = 3.0
    half = W.copy()
    half[15_000] = 0.5
    data = placed({"x": X, "y": Y})
    by_column = placed({"x": X[:, :4]}, spec=PartitionSpec(None, "data"))
    other = placed({"y": Y}, AxisType.Explicit)
    return {
        "NaN": error(lambda: jm.fit(logistic, None, placed({"x": hole, "y": Y}))),
        "coding": error(lambda: jm.fit(logistic, None, placed(tall | {"y": late}))),
        "weights": error(lambda: jm.fit(logistic, None, data, weights=jm.frequency(half))),
        "mixing": error(lambda: jm.fit(demeaned, START, data)),
        "columns": error(lambda: jm.fit(binary, START, by_column | {"y": Y})),
        "two meshes": error(lambda: jm.fit(binary, START, {"x": data["x"]} | other)),
        "HAC": error(lambda: jm.fit(logistic, None, data, vcov="hac")),
        "a trace": error(
            lambda: jax.jit(lambda d: jm.fit(binary, START, d).x)(
                placed({"x": X, "y": Y}, AxisType.Explicit)
            )
        ),
    }


def collectives():
    """The collectives of a pass, and the bytes that it takes on a device beside its arguments, for 200 000 × 6."""
    data = placed({"x": np.tile(X, (10, 1)), "y": np.tile(Y, 10)})
    rows = jm.distributed.public_fit.shared_rows(data, None, None)
    form = Form(layout_of(START, None), rows.leaves, "none", 4096, "observed")
    model = as_tree(jm.models.logistic())
    with jax.enable_x64(True):
        program = rows.placement.over_shards(
            _summed(rows.placement, kernel(form, "evaluate")(model))
        )
        held = (rows.arrays, rows.present)
        compiled = jax.jit(program).lower(held, np.zeros(Q)).compile()
    counts = counted_collectives(compiled.as_text())
    return counts | {"temporary": compiled.memory_analysis().temp_size_in_bytes}


def counted_collectives(text):
    """How many there are of each kind in a compiled program."""
    names = ["all-reduce", "all-gather", "all-to-all", "collective-permute"]
    return {name: text.count(f" {name}(") + text.count(f" {name}-start(") for name in names}


def under_jit():
    """The collectives of a fit under ``jit``, of rows that an automatic mesh shares, and how far it is off."""
    data = {"x": np.tile(X, (2, 1)), "y": np.tile(Y, 2)}  # more than a pass takes in one block
    fit = jm.fit(jm.models.logistic(), START, data)
    shared = placed(data)
    found = {}
    for name, loglik in {"declared": jm.models.logistic(), "a function": binary}.items():
        with jax.enable_x64(True):
            run = jax.jit(lambda rows, loglik=loglik: jm.fit(loglik, START, rows).x)
            compiled = run.lower(shared).compile()
            off = np.max(np.abs((np.asarray(compiled(shared)) - fit.x) / fit.se))
        found[name] = counted_collectives(compiled.as_text()) | {"off": float(off)}
    return found


if __name__ == "__main__":
    found = {"fits": dict(fits()), "errors": errors(), "collectives": collectives()}
    found["under jit"] = under_jit()
    print(json.dumps(found | {"devices": len(jax.devices())}))
