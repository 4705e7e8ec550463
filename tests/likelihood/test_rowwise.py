"""What the proof that rows are kept apart accepts is so in numbers, and what mixes rows is refused."""

import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm

import jaxmle as jm
from jaxmle.likelihood.contract import as_tree
from jaxmle.likelihood.discovery.row_axes import is_rowwise, proof_of
from jaxmle.likelihood.discovery.row_axis_rules import ROW_RULES
from jaxmle.parameters.tree import layout_of

N, K, G = 40, 3, 5
RNG = np.random.default_rng(0)
DATA = {
    "x": RNG.normal(size=(N, K)),
    "y": RNG.normal(size=N),
    "count": RNG.integers(0, 5, N).astype(float),
    "group": RNG.integers(0, G, N),
    "z": RNG.normal(size=(N, 4, 2)),
}
PARAMS = {
    "beta": RNG.normal(size=K),
    "matrix": RNG.normal(size=(K, G)),
    "effect": RNG.normal(size=G),
    "scale": np.array(0.7),
}
Y = DATA["y"]
LONG_CONSTANT = RNG.normal(size=N)


def softmax(p, d):
    eta = d["x"] @ p["matrix"]
    return jnp.take_along_axis(jax.nn.log_softmax(eta), d["group"][:, None], axis=1)[:, 0]


APART = {
    "linear": lambda p, d: norm.logpdf(d["y"], d["x"] @ p["beta"], p["scale"]),
    "counts": lambda p, d: (
        jm.special.gammaln(d["count"] + p["scale"]) - jm.special.softplus(d["x"] @ p["beta"])
    ),
    "effects of groups": lambda p, d: -((d["y"] - p["effect"][d["group"]]) ** 2),
    "one hot": lambda p, d: d["y"] * (jax.nn.one_hot(d["group"], G) @ p["effect"]),
    "mixture": lambda p, d: logsumexp(jnp.stack([d["y"] * p["scale"], d["x"] @ p["beta"]]), axis=0),
    "mixture, rows first": lambda p, d: logsumexp(
        d["y"][:, None] * p["effect"][None, :] + d["x"] @ p["matrix"], axis=1
    ),
    "panel": lambda p, d: (
        jnp.einsum("nij,j->ni", d["z"], p["beta"][:2]).sum(1)
        - jnp.cumsum(d["z"][:, :, 0], axis=1)[:, -1]
    ),
    "outer": lambda p, d: jnp.einsum(
        "nk,kg,ng->n", d["x"], p["matrix"], jnp.outer(d["y"], p["effect"])
    ),
    "choice": lambda p, d: jnp.where(
        d["y"] > 0, d["x"][:, 0] * p["scale"], jnp.clip(d["y"], -1.0, p["scale"])
    ),
    "vmap": lambda p, d: jax.vmap(lambda x, y: -((y - x @ p["beta"]) ** 2))(d["x"], d["y"]),
    "ones": lambda p, d: jnp.full(d["y"].shape, 1.0) * d["y"] * p["scale"],
    "loop over a panel": lambda p, d: (
        jax.lax.scan(lambda s, z: (s + z.sum(axis=1), None), d["y"], jnp.moveaxis(d["z"], 1, 0))[0]
        * p["scale"]
    ),
    "no data": lambda p, d: jnp.zeros(d["y"].shape[0]) + p["scale"],
    "reshaped": lambda p, d: d["z"].reshape(d["z"].shape[0], -1) @ jnp.ones(8) * p["scale"],
}
MIXED = {
    "centred": lambda p, d: -((d["y"] - jnp.mean(d["y"]) - p["scale"]) ** 2),
    "the row before": lambda p, d: d["y"] - p["scale"] * jnp.roll(d["y"], 1),
    "the row before, by slices": lambda p, d: (
        d["y"] - p["scale"] * jnp.concatenate([jnp.zeros(1), d["y"][:-1]])
    ),
    "running sum": lambda p, d: jnp.cumsum(d["y"]) * p["scale"],
    "time": lambda p, d: d["y"] * p["scale"] * jnp.arange(d["y"].shape[0]),
    "divided by n": lambda p, d: d["y"] * p["scale"] / d["y"].shape[0],
    "power of n": lambda p, d: p["scale"] ** d["y"].shape[0] * d["y"],
    "sorted": lambda p, d: jnp.sort(d["y"]) * p["scale"],
    "reversed": lambda p, d: d["y"][::-1] * p["scale"],
    "covariance of rows": lambda p, d: (d["x"] @ d["x"].T) @ d["y"] * p["scale"],
    "another row": lambda p, d: d["y"][d["group"]] * p["scale"],
    "series": lambda p, d: jax.lax.scan(lambda s, y: (p["scale"] * s + y, s), 0.0, d["y"])[1],
    "branch": lambda p, d: (
        jax.lax.cond(p["scale"] > 0, lambda y: y, lambda y: y[::-1], d["y"]) * p["scale"]
    ),
    "transposed": lambda p, d: (
        jnp.broadcast_to(d["y"][:, None], (d["y"].shape[0],) * 2).T[:, 0] * p["scale"]
    ),
    "constant of n rows": lambda p, d: LONG_CONSTANT[: d["y"].shape[0]] * d["y"] * p["scale"],
    "one number": lambda p, d: jnp.sum(d["y"]) * p["scale"],
}


def proved(function, data=DATA):
    with jax.enable_x64(True):
        layout = layout_of(PARAMS, None)
        return is_rowwise(as_tree(function), layout, np.asarray(layout.ravel(PARAMS)), data)


@pytest.mark.parametrize("name", APART)
def test_rows_that_are_kept_apart_are_seen(name):
    assert proved(APART[name])
    some = RNG.permutation(N)[:25]
    with jax.enable_x64(True):
        alone = APART[name](PARAMS, {key: leaf[some] for key, leaf in DATA.items()})
        np.testing.assert_allclose(alone, APART[name](PARAMS, DATA)[some], rtol=1e-12)


@pytest.mark.parametrize("name", MIXED)
def test_whatever_may_mix_rows_is_refused(name):
    assert not proved(MIXED[name])


@pytest.mark.parametrize("n", [1, 3, 5])
def test_few_rows_are_proved_apart_too_even_as_many_as_columns_or_classes(n):
    few = {key: leaf[:n] for key, leaf in DATA.items()}
    for name in ("linear", "effects of groups", "mixture, rows first", "panel", "outer", "vmap"):
        assert proved(APART[name], few), name
    for name in ("centred", "divided by n", "time", "covariance of rows", "transposed"):
        assert not proved(MIXED[name], few), name


def test_a_parameter_that_was_not_reviewed_ends_the_proof(monkeypatch):
    """A later jax may give an operation a setting that the rule does not know."""
    rule, reviewed = ROW_RULES["dot_general"]
    assert proved(lambda p, d: d["y"] - d["x"] @ p["beta"])
    monkeypatch.setitem(ROW_RULES, "dot_general", (rule, reviewed - {"precision"}))
    assert not proved(lambda p, d: d["y"] - d["x"] @ p["beta"])


def test_an_error_of_the_rules_is_not_taken_for_rows_that_mix(monkeypatch):
    def broken(operation):
        raise KeyError("a mistake of ours")

    monkeypatch.setitem(ROW_RULES, "dot_general", (broken, ROW_RULES["dot_general"][1]))
    with pytest.raises(KeyError, match="a mistake of ours"):
        proved(lambda p, d: d["y"] - d["x"] @ p["beta"])


def test_the_obstacle_is_the_operation_and_the_line_of_the_user():
    with jax.enable_x64(True):
        layout = layout_of(PARAMS, None)
        base = np.asarray(layout.ravel(PARAMS))
        told = [
            proof_of(as_tree(function), layout, base, DATA).obstacle
            for function in (MIXED["sorted"], MIXED["divided by n"], lambda p, d: d["y"] * Y)
        ]
    assert re.fullmatch(r"the operation sort in line \d+ of test_rowwise.py", told[0])
    assert told[1] == "it computes with the number of rows"
    assert "fails for another number of rows" in told[2]


def test_a_long_fit_in_blocks_is_the_fit_of_the_whole(monkeypatch):
    """Rows, weights and a prior: sums over blocks change rounding alone."""
    n = 17_000
    rng = np.random.default_rng(1)
    x = np.column_stack([np.ones(n), rng.normal(size=n)])
    data = {"x": x, "y": (rng.random(n) < 1 / (1 + np.exp(-x @ [0.3, 1.0]))).astype(float)}
    logit = jm.penalize(
        lambda p, d: d["y"] * (d["x"] @ p["beta"]) - jnp.logaddexp(0.0, d["x"] @ p["beta"]),
        jm.ridge(0.1),
    )

    def run():
        return jm.fit(logit, {"beta": np.zeros(2)}, data, weights=jm.frequency(np.arange(n) % 3))

    blocks = run()
    monkeypatch.setattr(
        importlib.import_module("jaxmle.fitting.fit"), "MIN_ROWS_FOR_OPAQUE_BLOCKS", 10**9
    )
    whole = run()
    np.testing.assert_allclose((blocks.x - whole.x) / whole.se, 0.0, atol=1e-10)
    np.testing.assert_allclose(blocks.se, whole.se, rtol=1e-12)
    np.testing.assert_allclose(blocks.loglik, whole.loglik, rtol=1e-13)
