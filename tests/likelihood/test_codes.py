"""Codes that index parameters: out of range they would join another group or lose their score, and the fit would converge."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm

N, K = 60, 3
RNG = np.random.default_rng(2)
Y, G = RNG.normal(size=N), (np.arange(N) % K).astype(np.int8)
MISSING = np.where(np.arange(N) == 4, -1, G)
BEYOND = np.where(np.arange(N) == 7, 5, G)
MEANS = {"m": np.zeros(K)}


def by_scan(p, d):
    return jax.lax.scan(
        lambda c, row: (c, -((row[0] - p["m"][row[1]]) ** 2)), 0.0, (d["y"], d["g"])
    )[1]


def by_row(p, d):
    return jax.vmap(lambda y, g: -((y - p["m"][g]) ** 2))(d["y"], d["g"])


def by_sums(p, d):
    return -jnp.sum((jax.ops.segment_sum(d["y"], d["g"], K) - 20 * p["m"]) ** 2)


def by_two(p, d):
    both = jnp.stack([p["m"], p["m"]])
    return -((d["y"] - both[jnp.zeros(len(d["y"]), int), d["g"]]) ** 2)


WAYS = {
    "brackets": lambda p, d: -((d["y"] - p["m"][d["g"]]) ** 2),
    "take": lambda p, d: -((d["y"] - jnp.take(p["m"], d["g"])) ** 2),
    "jit": jax.jit(lambda p, d: -((d["y"] - p["m"][d["g"]]) ** 2)),
    "floats": lambda p, d: -((d["y"] - p["m"][d["g"].astype(int)]) ** 2),
    "vmap": by_row,
    "scan": by_scan,
    "sums": by_sums,
    "two axes": by_two,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_code_out_of_range_is_refused_and_not_fitted(way):
    kind = float if way == "floats" else np.int8
    for codes, words in (
        (
            MISSING,
            r"data\['g'\] is -1 in row 4, .* axis of 3 entries.* pandas' code for a missing value",
        ),
        (BEYOND, r"data\['g'\] is 5 in row 7, .* no score"),
    ):
        with pytest.raises(ValueError, match=words):
            jm.fit(WAYS[way], MEANS, {"y": Y, "g": codes.astype(kind)})


def test_codes_in_range_are_fitted():
    truth = [Y[k == G].mean() for k in range(K)]
    fit = jm.fit(WAYS["brackets"], MEANS, {"y": Y, "g": G})
    assert_allclose(fit.params["m"], truth, rtol=1e-9)
    fit = jm.fit(lambda p, d: -((d["y"] - p["m"][d["g"] - 1]) ** 2), MEANS, {"y": Y, "g": G + 1})
    assert_allclose(fit.params["m"], truth, rtol=1e-9)


def test_codes_from_one_are_refused_by_what_is_taken_from_them():
    with pytest.raises(ValueError, match=r"is 0 in row 0 .*, and with -1 it indexes an axis of 3"):
        jm.fit(lambda p, d: -((d["y"] - p["m"][d["g"] - 1]) ** 2), MEANS, {"y": Y, "g": G})


@pytest.mark.parametrize(
    "loglik",
    [
        lambda p, d: -((d["y"] - jnp.where(d["g"] >= 0, p["m"][d["g"]], 0.0)) ** 2),
        lambda p, d: -((d["y"] - (d["g"] != -1) * p["m"][d["g"]]) ** 2),
        lambda p, d: jnp.where(d["g"] == -1, 0.0, -((d["y"] - p["m"][d["g"]]) ** 2)),
    ],
)
def test_a_code_that_the_function_masks_is_no_error(loglik):
    fit = jm.fit(loglik, MEANS, {"y": Y, "g": MISSING})
    assert_allclose(fit.params["m"], [Y[k == MISSING].mean() for k in range(K)], rtol=1e-9)


def test_columns_of_one_leaf_index_axes_of_their_own():
    def crossed(p, d):
        return -((d["y"] - p["m"][d["g"][:, 0]] - p["k"][d["g"][:, 1]]) ** 2)

    params, ten = {"m": np.zeros(K), "k": np.zeros(10)}, np.arange(N) % 10
    data = {"y": Y, "g": np.column_stack([G, ten])}
    jm.fit(crossed, params, data, max_steps=3)
    data["g"][5, 1] = 10
    with pytest.raises(ValueError, match=r"is 10 in row 5, column 1, and indexes an axis of 10"):
        jm.fit(crossed, params, data)


def test_batches_and_groups_name_the_member():
    loglik = WAYS["brackets"]
    with pytest.raises(ValueError, match="is -1 in row 4 of member 1"):
        jm.fit_batch(loglik, MEANS, {"y": np.stack([Y, Y]), "g": np.stack([G, MISSING])})
    with pytest.raises(ValueError, match="is 5 in row 7 of member 1"):
        jm.fit_batch(loglik, MEANS, [{"y": Y[:40], "g": G[:40]}, {"y": Y, "g": BEYOND}])
    table = {"y": Y, "g": MISSING, "site": np.arange(N) % 2}
    with pytest.raises(ValueError, match=r"is -1 in row 4 of the table \(member 0\)"):
        jm.fit_groups(loglik, MEANS, table, by="site")


# ---------------------------------------------------------------- codes that are closed over


BY_ROW = np.array([1.1, 2.3, 4.2, 9.4, 3.3, 5.7])


def grouped(codes, take=lambda means, codes: means[codes]):
    return lambda p, d: -0.5 * (d["y"] - take(p["m"], codes)) ** 2


TAKES = {
    "brackets": lambda means, codes: means[codes],
    "take": jnp.take,
    "under jit": jax.jit(lambda means, codes: means[codes]),
    "under checkpoint": jax.checkpoint(lambda means, codes: means[codes]),
}


@pytest.mark.parametrize("make", [np.array, jnp.array, pd.Series], ids=["numpy", "jax", "pandas"])
@pytest.mark.parametrize(
    ("code", "why"),
    [(2, "an index beyond the end is read as the last"), (-1, "counts from the end")],
)
def test_a_closed_over_code_out_of_range_joined_the_last_group_and_converged(code, why, make):
    codes = make([0, 1, code, 0, 1, 0])
    loglik = grouped(codes, lambda means, codes: means[jnp.asarray(codes)])
    with pytest.raises(ValueError, match=f"closes over holds {code} in entry 2, .*{why}"):
        jm.fit(loglik, {"m": np.zeros(2)}, {"y": BY_ROW})


@pytest.mark.parametrize("take", TAKES)
def test_a_closed_over_code_beyond_the_end_is_refused_however_it_is_taken(take):
    loglik = grouped(np.array([0, 1, 2, 0, 1, 0], np.int8), TAKES[take])
    start, data = {"m": np.zeros(2)}, {"y": BY_ROW}
    with pytest.raises(ValueError, match="closes over holds 2 in entry 2"):
        jm.fit(loglik, start, data)
    with pytest.raises(ValueError, match="closes over holds 2 in entry 2"):
        jm.fit_batch(
            loglik, start, {"y": np.stack([BY_ROW, BY_ROW])}, params_axis=None, progress=False
        )


def test_closed_over_codes_in_range_masked_or_from_the_end_on_purpose_are_fitted():
    """Means of the rows of each group; the last of two entries is −1 too, where codes have no entry for each row."""
    data, start = {"y": BY_ROW}, {"m": np.zeros(2)}
    codes = np.array([0, 1, 1, 0, 1, 0])
    means = [BY_ROW[codes == 0].mean(), BY_ROW[codes == 1].mean()]
    assert_allclose(jm.fit(grouped(codes), start, data).params["m"], means, rtol=1e-12)

    missing = np.array([0, 1, -1, 0, 1, 0])

    def masked(p, d):
        known = missing >= 0
        return jnp.where(known, -0.5 * (d["y"] - p["m"][jnp.where(known, missing, 0)]) ** 2, 0.0)

    means = [BY_ROW[missing == 0].mean(), BY_ROW[missing == 1].mean()]
    assert_allclose(jm.fit(masked, start, data).params["m"], means, rtol=1e-12)

    ends = np.array([0, -1])
    both = jm.fit(
        lambda p, d: -0.5 * jnp.sum((d["y"][:, None] - p["m"][ends][None, :]) ** 2, axis=1),
        start,
        data,
    )
    assert_allclose(both.params["m"], np.full(2, BY_ROW.mean()), rtol=1e-12)


# ---------------------------------------------------------------- branches, columns, counts


def by_switch(p, codes, y):
    branches = [lambda k=k: -((y - p["m"][k]) ** 2) for k in range(K)]
    return jax.lax.switch(codes, branches)


def by_count(p, d):
    odds = jax.nn.log_softmax(jnp.concatenate([jnp.zeros(1), p["m"][1:]]))
    return jnp.sum(jnp.bincount(d["g"], length=K) * odds) - p["m"][0] ** 2


CHOICES = {
    "switch": (lambda p, d: jax.vmap(by_switch, (None, 0, 0))(p, d["g"], d["y"]), "3 branches.* nearest"),
    "switch in a loop": (lambda p, d: jax.lax.map(lambda row: by_switch(p, *row), (d["g"], d["y"])), "3 branches"),
    "one_hot": (lambda p, d: -((d["y"] - jax.nn.one_hot(d["g"], K) @ p["m"]) ** 2), "3 columns.* zero"),
    "bincount": (by_count, "axis of 3 entries"),
    "dynamic_slice": (lambda p, d: jax.vmap(lambda y, g: -((y - jax.lax.dynamic_slice(p["m"], (g,), (1,))[0]) ** 2))(d["y"], d["g"]), "axis of 3 entries"),
}  # fmt: skip


@pytest.mark.parametrize("way", CHOICES)
@pytest.mark.parametrize("codes", [MISSING, BEYOND], ids=["missing", "beyond"])
def test_a_code_out_of_range_took_the_nearest_branch_a_row_of_zeros_or_was_not_counted(way, codes):
    loglik, words = CHOICES[way]
    with pytest.raises(ValueError, match=f"(?s)data.'g'. is (-1 in row 4|5 in row 7).*{words}"):
        jm.fit(loglik, MEANS, {"y": Y, "g": codes})


def test_closed_over_codes_choose_branches_and_columns_in_range_too():
    for loglik in (
        lambda p, d: jax.vmap(by_switch, (None, 0, 0))(p, jnp.asarray(BEYOND), d["y"]),
        lambda p, d: -((d["y"] - jax.nn.one_hot(BEYOND, K) @ p["m"]) ** 2),
    ):
        with pytest.raises(ValueError, match="closes over holds 5 in entry 7"):
            jm.fit(loglik, MEANS, {"y": Y})


def test_codes_without_a_branch_or_column_that_are_masked_or_the_reference_are_fitted():
    """The means of the groups; of those after the first their distances from it, where it is the reference."""
    data, known = {"y": Y, "g": MISSING}, [Y[k == MISSING].mean() for k in range(K)]
    for masked in (
        lambda p, d: jnp.where(d["g"] >= 0, CHOICES["switch"][0](p, d), 0.0),
        lambda p, d: (d["g"] >= 0) * CHOICES["one_hot"][0](p, d),
    ):
        assert_allclose(jm.fit(masked, MEANS, data).params["m"], known, rtol=1e-9)

    def from_first(p, d):
        return -((d["y"] - p["m"][0] - jax.nn.one_hot(d["g"] - 1, K - 1) @ p["m"][1:]) ** 2)

    first, *rest = (Y[k == G].mean() for k in range(K))
    fit = jm.fit(from_first, MEANS, {"y": Y, "g": G})
    assert_allclose(fit.params["m"], [first, *(mean - first for mean in rest)], rtol=1e-9)


# ---------------------------------------------------------------- numbers in the function itself


def by_a_loop(p, y):
    return jax.lax.scan(lambda c, row: (c, -((row - p[3]) ** 2)), 0.0, y)[1]


BEYOND_THE_START = {
    "brackets": lambda p, y: -((y - p[3]) ** 2) - 0 * p[0],
    "from the end": lambda p, y: -((y - p[-4]) ** 2),
    "a NumPy integer": lambda p, y: -((y - p[np.int64(2)]) ** 2),
    "a loop of Python": lambda p, y: -((y - sum(p[k] for k in range(3))) ** 2),
    "a matrix": lambda p, y: -((y - jnp.outer(p, p)[0, 2]) ** 2),
    "take": lambda p, y: -((y - jnp.take(p, 5)) ** 2),
    "scan": by_a_loop,
    "jit": jax.jit(lambda p, y: -((y - p[3]) ** 2)),
    "a branch": lambda p, y: jax.lax.cond(p[0] > 0, lambda: -((y - p[2]) ** 2), lambda: -(y**2)),
    "put in": lambda p, y: -((y - jnp.zeros(3).at[3].set(p[0]).sum()) ** 2),
}


@pytest.mark.parametrize("way", BEYOND_THE_START)
def test_theta_3_of_two_start_values_was_theta_1_and_converged(way):
    with pytest.raises(ValueError, match=r"line \d+ of test_codes.py: index -?\d is out of range"):
        jm.fit(BEYOND_THE_START[way], np.zeros(2), Y)


def test_a_column_beyond_the_last_was_the_last_and_converged():
    x = np.column_stack([Y, Y**2])
    with pytest.raises(ValueError, match="index 7 is out of range: the axis has 2 entries"):
        jm.fit(lambda p, x: -((x[:, 7] - p) ** 2), 0.0, x)


def test_indices_made_in_the_function_were_not_looked_at():
    with pytest.raises(ValueError, match="holds 5 in entry 1"):
        jm.fit(lambda p, y: -((y - p[jnp.array([0, 5])].sum()) ** 2), np.zeros(2), Y)


@pytest.mark.parametrize(
    "call",
    [
        lambda f: jax.jit(lambda y: jm.fit(f, np.zeros(2), y).x)(Y),
        lambda f: jax.vmap(lambda y: jm.fit(f, np.zeros(2), y).x)(np.stack([Y, Y])),
        lambda f: jm.fit_batch(f, np.zeros(2), np.stack([Y, Y])),
        lambda f: jm.fit_batch(f, np.zeros(2), [Y, Y[:9]]),
        lambda f: jm.multistart(f, np.zeros((2, 2)), Y),
    ],
    ids=["jit", "vmap", "batch", "ragged", "multistart"],
)
def test_an_index_beyond_the_start_is_refused_at_every_door(call):
    with pytest.raises(ValueError, match="index 3 is out of range"):
        call(BEYOND_THE_START["brackets"])


def test_a_row_that_a_shorter_member_does_not_have_was_its_last():
    with pytest.raises(ValueError, match="index 20 is out of range: the axis has 9 entries"):
        jm.fit_batch(lambda p, y: -((y - y[20] - p) ** 2), 0.0, [Y, Y[:9]])


def test_entries_from_the_end_clipped_or_filled_on_purpose_are_fitted():
    for mean in (
        lambda p: p[-1],
        lambda p: p.at[5].get(mode="clip"),
        lambda p: p.at[5].get(mode="fill", fill_value=0.0) + p[1],
        lambda p: jax.lax.dynamic_slice(p, (1,), (1,))[0],
    ):
        fit = jm.fit(lambda p, y, mean=mean: -((y - mean(p)) ** 2) - p[0] ** 2, np.zeros(2), Y)
        assert fit.converged
        assert_allclose(fit.x, [0.0, Y.mean()], atol=1e-9)
