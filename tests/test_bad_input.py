"""A mistake in the arguments is one clear error, before anything is compiled: what came, what was expected, what to do."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
import scipy.sparse

import jaxmle as jm

N = 6
X = np.column_stack([np.ones(N), np.arange(N) / 4])
Y = np.array([0.3, -0.2, 1.1, 0.4, 0.9, 1.6])
DATA = {"y": Y, "x": X}
START = {"beta": np.zeros(2), "sigma": 1.0}
POSITIVE = {"sigma": jm.positive}


def model():
    """A fresh normal regression: nothing has been compiled for it."""

    def loglik(params, data):
        z = (data["y"] - data["x"] @ params["beta"]) / params["sigma"]
        return -0.5 * z**2 - jnp.log(params["sigma"])

    return loglik


def data(**changed):
    return DATA | changed


def with_row(row, value, leaf="y"):
    """The data with one row of a leaf replaced."""
    array = DATA[leaf].copy()
    array[row] = value
    return data(**{leaf: array})


class Pair(NamedTuple):
    beta: np.ndarray
    sigma: float


class Case(NamedTuple):
    """A mistake: the call's arguments over the sound ones, the error, and what its message must hold."""

    error: type
    says: list
    params: object = START
    data: object = DATA
    loglik: object = None
    options: dict | None = None


def wrong(error, *says, **call):
    options = {key: value for key, value in call.items() if key not in ("params", "data", "loglik")}
    arguments = {key: value for key, value in call.items() if key in ("params", "data", "loglik")}
    return Case(error, list(says), options=options, **arguments)


def COLUMN(p, d):
    return -((d["y"][:, None] - (d["x"] @ p["beta"])[None, :]) ** 2) / p["sigma"]


CASES = {
    # ------------------------------------------------------------ the log-likelihood
    "loglik_not_a_function": wrong(TypeError, "loglik", "function", "dict", loglik=START),
    "loglik_is_a_number": wrong(TypeError, "loglik", "function", "float", loglik=1.0),
    "terms_n_by_n_from_a_column": wrong(
        ValueError, r"\(6, 6\)", r"\(n, 1\)", "one term per observation", loglik=COLUMN
    ),
    "terms_of_a_wrong_length": wrong(
        ValueError,
        r"\(5,\)",
        r"\(6,\)",
        loglik=lambda p, d: -((d["y"][1:] - p["sigma"] + 0 * p["beta"][0]) ** 2),
    ),
    "terms_are_integers": wrong(
        TypeError, "floating-point", "int", loglik=lambda p, d: jnp.zeros(N, jnp.int32)
    ),
    "terms_are_a_string": wrong(TypeError, "return an array", "str", loglik=lambda p, d: "terms"),
    "terms_are_none": wrong(TypeError, "return", "None", loglik=lambda p, d: None),
    "terms_are_a_tuple": wrong(
        TypeError, "return an array", "tuple", loglik=lambda p, d: (p["sigma"], p["sigma"])
    ),
    # ------------------------------------------------------------ the start
    "start_missing": wrong(ValueError, "params0", "start", params=None),
    "start_none_that_is_used": wrong(
        TypeError,
        r"params\['sigma'\] is None",
        "start value",
        params={"beta": np.zeros(2), "sigma": None},
    ),
    "start_keys_of_two_types": wrong(
        TypeError, "params", "several types", "strings", params={"beta": np.zeros(2), 1: 1.0}
    ),
    "start_series": wrong(
        TypeError, "params is a Series", "dictionary", params=pd.Series({"beta": 0.0, "sigma": 1.0})
    ),
    "data_sparse": wrong(
        TypeError, "data is a csr_array", "toarray", data=scipy.sparse.csr_array(np.eye(N))
    ),
    "data_generator": wrong(
        TypeError, "data is a generator", "asarray", data=(row for row in range(N))
    ),
    "data_structured": wrong(
        TypeError, "data is a structured array", "dictionary", data=np.zeros(N, [("y", float)])
    ),
    "start_empty": wrong(ValueError, "params", "no leaves|at least one parameter", params={}),
    "start_of_no_numbers": wrong(ValueError, "params", "empty", params={"beta": np.zeros(0)}),
    "start_boolean_vector": wrong(
        TypeError, "beta", "bool", params={"beta": np.zeros(2, bool), "sigma": 1.0}
    ),
    "start_boolean": wrong(TypeError, "sigma", "bool", params={"beta": np.zeros(2), "sigma": True}),
    "start_complex": wrong(
        TypeError, "beta", "complex128", params={"beta": np.zeros(2) + 0j, "sigma": 1.0}
    ),
    "start_string": wrong(
        TypeError, "sigma", "floating", params={"beta": np.zeros(2), "sigma": "one"}
    ),
    "start_object": wrong(
        TypeError, "beta", "object", params={"beta": np.array([None, 1.0]), "sigma": 1.0}
    ),
    "start_nan": wrong(
        ValueError,
        "beta",
        "nan at index \\[1\\]",
        "finite start",
        params={"beta": np.array([0.0, np.nan]), "sigma": 1.0},
    ),
    "start_infinite": wrong(
        ValueError, "sigma", "inf", "finite", params={"beta": np.zeros(2), "sigma": np.inf}
    ),
    "start_overflows_float32": wrong(
        ValueError,
        "beta",
        "finite|float32",
        params={"beta": np.full(2, 1e300), "sigma": 1.0},
        dtype="float32",
    ),
    "start_masked": wrong(
        TypeError,
        "beta",
        "mask",
        params={"beta": np.ma.array([0.0, 1.0], mask=[True, False]), "sigma": 1.0},
    ),
    "start_outside_its_bound": wrong(
        ValueError, "sigma", "between 0 and inf", "-1", params={"beta": np.zeros(2), "sigma": -1.0}
    ),
    "start_on_its_bound": wrong(
        ValueError, "sigma", "between 0 and inf", params={"beta": np.zeros(2), "sigma": 0.0}
    ),
    "start_lacks_a_name_the_model_reads": wrong(
        ValueError, "no entry 'beta'", params={"b": np.zeros(2), "sigma": 1.0}
    ),
    "start_is_another_kind_of_tree": wrong(
        (TypeError, AttributeError),
        "tuple|Pair|str",
        params=Pair(np.zeros(2), 1.0),
        constraints=None,
    ),
    # ------------------------------------------------------------ the data
    "data_nan": wrong(ValueError, "data.*y", "row 3", "[Dd]rop", data=with_row(3, np.nan)),
    "data_nan_in_several_rows": wrong(
        ValueError, "data.*x", "row 2", "2 rows", data=with_row([2, 4], np.nan, "x")
    ),
    "data_strings": wrong(
        TypeError, "data.*g", "strings", "codes|dummy", data=data(g=np.array(list("abcabc")))
    ),
    "data_objects": wrong(TypeError, "data.*y", "objects", data=data(y=Y.astype(object))),
    "data_complex": wrong(TypeError, "data.*y", "complex128", "real", data=data(y=Y + 0j)),
    "data_dates": wrong(
        TypeError,
        "data.*y",
        "datetime64",
        "timedelta64",
        data=data(y=np.arange(N).astype("datetime64[D]")),
    ),
    "data_list_leaf": wrong(TypeError, "data.*y", "list", "asarray", data=data(y=list(Y))),
    "data_scalar_leaf": wrong(
        TypeError, "data.*offset", "float", "[Cc]lose over", data=data(offset=2.0)
    ),
    "data_scalar_array_leaf": wrong(
        ValueError, "data.*offset", "scalar", "[Cc]lose over", data=data(offset=np.array(2.0))
    ),
    "data_mismatched_lengths": wrong(
        ValueError, "data.*x.* 6 rows|data.*y.* 4 rows", "x", "y", "4", "6", data=data(y=Y[:4])
    ),
    "data_empty": wrong(
        ValueError, "data", "no rows|no observations", data={"y": Y[:0], "x": X[:0]}
    ),
    "data_masked": wrong(TypeError, "data.*y", "mask", data=data(y=np.ma.array(Y, mask=Y > 1))),
    # ------------------------------------------------------------ constraints
    "constraint_misspelt": wrong(ValueError, "sgima", "sigma", constraints={"sgima": jm.positive}),
    "constraint_is_a_string": wrong(
        TypeError, "sigma", "positive", "str", constraints={"sigma": "positive"}
    ),
    "constraint_is_a_function": wrong(
        TypeError, "sigma", "constraints", constraints={"sigma": jnp.exp}
    ),
    "constraint_uncalled": wrong(
        TypeError, "sigma", "interval", constraints={"sigma": jm.interval}
    ),
    "simplex_does_not_sum_to_one": wrong(
        ValueError,
        "beta",
        "sum|simplex",
        params={"beta": np.array([0.5, 0.6]), "sigma": 1.0},
        constraints={"beta": jm.simplex},
    ),
    "ordered_start_is_not": wrong(
        ValueError,
        "beta",
        "increas|order",
        params={"beta": np.array([0.5, 0.1]), "sigma": 1.0},
        constraints={"beta": jm.ordered},
    ),
    "covariance_of_a_vector": wrong(
        ValueError, "beta|square", r"square|\(2,\)", constraints={"beta": jm.covariance}
    ),
    # ------------------------------------------------------------ covariance, clusters, weights
    "vcov_unknown": wrong(ValueError, "robust", "HC0", "observed", vcov="robust"),
    "vcov_cluster_without_clusters": wrong(ValueError, "cluster", "clusters=", vcov="cluster"),
    "clusters_with_another_kind": wrong(
        ValueError, "clusters", "HC0", vcov="HC0", clusters=np.arange(N)
    ),
    "clusters_too_short": wrong(ValueError, "clusters", r"6|\(6,\)", "4", clusters=np.arange(4)),
    "clusters_nan": wrong(
        ValueError,
        "clusters",
        "NaN|nan|missing|finite",
        clusters=np.array([1.0, 1, 2, 2, np.nan, 3]),
    ),
    "clusters_matrix": wrong(ValueError, "clusters", clusters=np.zeros((N, 3))),
    "expected_without_a_law": wrong(
        ValueError, "expected", "response|with_response|enumeration", vcov="expected"
    ),
    "scoring_without_a_law": wrong(
        ValueError, "expected", "response|with_response|enumeration", solver=jm.solvers.Scoring()
    ),
    "bhhh_on_a_scalar": wrong(
        ValueError,
        "scalar",
        "term",
        loglik=lambda p, d: -jnp.sum((d["y"] - p["sigma"]) ** 2),
        solver=jm.solvers.BHHH(),
    ),
    "sandwich_on_a_scalar": wrong(
        ValueError,
        "scalar",
        "term",
        loglik=lambda p, d: -jnp.sum((d["y"] - p["sigma"]) ** 2),
        vcov="HC0",
    ),
    "weights_on_a_scalar": wrong(
        ValueError,
        "scalar",
        "term",
        loglik=lambda p, d: -jnp.sum((d["y"] - p["sigma"]) ** 2),
        weights=jm.frequency(np.ones(N)),
    ),
    "weights_bare": wrong(TypeError, "frequency", "sampling", weights=np.ones(N)),
    "weights_not_whole": wrong(
        ValueError,
        "frequency",
        "integers",
        "row 1",
        "sampling",
        weights=jm.frequency(np.array([1, 1.5, 1, 1, 1, 1])),
    ),
    "weights_negative": wrong(
        ValueError,
        "weights",
        "negative",
        "row 2",
        weights=jm.sampling(np.array([1.0, 1, -1, 1, 1, 1])),
    ),
    "weights_nan": wrong(
        ValueError,
        "weights",
        "finite",
        "row 5",
        weights=jm.sampling(np.array([1.0, 1, 1, 1, 1, np.nan])),
    ),
    "weights_too_short": wrong(
        ValueError, "weights", r"\(6,\)", r"\(3,\)", weights=jm.frequency(np.ones(3))
    ),
    "weights_all_zero": wrong(ValueError, "weight", "zero", weights=jm.frequency(np.zeros(N))),
    "weights_name_a_column": wrong(
        TypeError, "weights must be numbers", "'w'", "from_formula", weights=jm.sampling("w")
    ),
    # ------------------------------------------------------------ options
    "dtype_unknown": wrong((ValueError, TypeError), "dtype|int32", "float64", dtype="int32"),
    "dtype_misspelt": wrong((ValueError, TypeError), "float46", "float64", dtype="float46"),
    "max_steps_negative": wrong(ValueError, "max_steps", "-1", max_steps=-1),
    "max_steps_fraction": wrong(ValueError, "max_steps", "whole", max_steps=10.5),
    "max_steps_boolean": wrong(ValueError, "max_steps", max_steps=True),
    "block_rows_zero": wrong(ValueError, "block_rows", "positive", block_rows=0),
    "solver_is_a_string": wrong(TypeError, "solver", "Newton", "str", solver="newton"),
    "solver_is_a_class": wrong(TypeError, r"Newton\(\)", solver=jm.solvers.Newton),
    "solver_is_an_optax_factory": wrong(TypeError, "solver", "optax", solver=optax.adam),
    # ------------------------------------------------------------ combinators
    "fix_of_an_unknown_name": wrong(
        ValueError, "tau", "sigma", loglik=jm.fix(model(), {"tau": 1.0})
    ),
    "fix_outside_the_bound": wrong(
        ValueError, "sigma", "between 0 and inf|bound", loglik=jm.fix(model(), {"sigma": -1.0})
    ),
    "fix_to_nan": wrong(
        ValueError, "sigma", "finite|nan", loglik=jm.fix(model(), {"sigma": np.nan})
    ),
    "fix_of_a_wrong_shape": wrong(
        ValueError, "beta", "3", loglik=jm.fix(model(), {"beta": np.zeros(3)})
    ),
    "tie_of_an_unknown_name": wrong(
        ValueError, "tau", "sigma", loglik=jm.tie(model(), ("sigma", "tau"))
    ),
    "tie_of_unequal_sizes": wrong(
        ValueError, "beta", "sigma", loglik=jm.tie(model(), ("sigma", "beta"))
    ),
    "pool_without_a_tuple": wrong(ValueError, "pool", "tuple", loglik=jm.pool(model(), model())),
    "declared_leaf_missing": wrong(
        ValueError,
        "z",
        "x",
        loglik=jm.regression(
            lambda eta, row: -((row["y"] - eta["mu"]) ** 2), eta={"mu": jm.linear("z", "beta")}
        ),
    ),
}


def compilations(caplog):
    """What was compiled of the user's function, by jax's own log; staging an array on the device does not count."""
    told = [record.getMessage() for record in caplog.records]
    return [
        line
        for line in told
        if "Finished XLA compilation" in line and "jit(likelihood_piece)" in line
    ]


def test_a_sound_fit_is_seen_to_compile(caplog):
    with jax.log_compiles(), caplog.at_level("WARNING"):
        assert jm.fit(model(), START, DATA, constraints=POSITIVE).converged
    assert compilations(caplog)


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_clear_error(name, caplog):
    case = CASES[name]
    loglik = model() if case.loglik is None else case.loglik
    options = {
        "constraints": POSITIVE
        if isinstance(case.params, dict) and "sigma" in case.params
        else None
    } | (case.options or {})
    with jax.log_compiles(), caplog.at_level("WARNING"), pytest.raises(case.error) as raised:
        jm.fit(loglik, case.params, case.data, **options)
    told = str(raised.value)
    for pattern in case.says:
        assert re.search(pattern, told), f"{pattern!r} not in: {told}"
    assert len(told) < 600
    for jargon in ("Traced<", "ShapedArray", "jaxpr", "_jaxmle"):
        assert jargon not in told, told
    assert not compilations(caplog)


def test_there_are_enough_kinds():
    assert len(CASES) >= 25


# ---------------------------------------------------------------- mistakes made while a likelihood is put together


def test_combinators_refuse_what_they_cannot_read():
    with pytest.raises(TypeError, match="dictionary"):
        jm.fix(model(), ["sigma"])
    with pytest.raises(TypeError, match="tuple of at least two"):
        jm.tie(model(), "sigma")
    with pytest.raises(TypeError, match="ridge"):
        jm.penalize(model(), 0.1)
    with pytest.raises(TypeError, match=r"frequency\(w\)"):
        jm.weight(model(), np.ones(N))
    with pytest.raises(ValueError, match="at least one"):
        jm.pool()
    with pytest.raises(TypeError, match="function"):
        jm.nll(3.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: jm.interval(1.0, 1.0),
        lambda: jm.interval(2.0, 1.0),
        lambda: jm.interval(0.0, np.nan),
        lambda: jm.lower(np.inf),
    ],
)
def test_a_constraint_without_an_inside_is_refused(make):
    with pytest.raises(ValueError, match=r"inf|nan|below|less|finite|interval"):
        make()


# ---------------------------------------------------------------- under a trace: shapes and types only


def traced(**call):
    loglik = call.pop("loglik", None) or model()
    params, rows = call.pop("params", START), call.pop("data", DATA)
    return jax.jit(lambda rows: jm.fit(loglik, params, rows, **call).loglik)(rows)


@pytest.mark.parametrize(
    ("error", "pattern", "call"),
    [
        (ValueError, r"enable_x64\(True\)", {"dtype": "float64"}),
        (ValueError, "dtype", {"dtype": "float16"}),
        (TypeError, "sigma.*bool", {"params": {"beta": np.zeros(2), "sigma": True}}),
        (ValueError, r"\(6, 6\).*\(n, 1\)", {"loglik": COLUMN}),
        (ValueError, "rows", {"data": {"y": Y[:4], "x": X}}),
        (ValueError, "no rows", {"data": {"y": Y[:0], "x": X[:0]}}),
        (ValueError, "robust", {"vcov": "robust"}),
        (ValueError, "sgima", {"constraints": {"sgima": jm.positive}}),
        (ValueError, r"weights.*\(6,\)", {"weights": jm.frequency(np.ones(3))}),
        (TypeError, r"Newton\(\)", {"solver": jm.solvers.Newton}),
        (ValueError, "params0", {"params": None}),
    ],
)
def test_under_jit_what_is_visible_in_shapes_and_types_is_an_error(error, pattern, call):
    with pytest.raises(error, match=f"(?s){pattern}"):
        traced(**call)


def test_a_batch_of_starts_and_data_of_different_sizes_is_named_by_vmap():
    with pytest.raises(ValueError, match="inconsistent sizes|vmap"):
        jax.vmap(lambda y, start: jm.fit(model(), start, {"y": y, "x": X}).loglik)(
            np.zeros((3, N)), {"beta": np.zeros((2, 2)), "sigma": np.ones(2)}
        )


# ---------------------------------------------------------------- asking a record for what it does not have


@pytest.fixture(scope="module")
def found():
    return jm.fit(model(), START, DATA, constraints=POSITIVE)


def test_reads_refuse_what_makes_no_sense(found):
    with pytest.raises(ValueError, match="level"):
        found.conf_int(95)
    with pytest.raises(ValueError, match="scale"):
        found.conf_int(scale="log")
    with pytest.raises(TypeError, match="not a batch"):
        found[0]
    with pytest.raises(TypeError, match="not a batch"):
        len(found)
    with pytest.raises(ValueError, match=r"\(3, 3\)"):
        found.with_vcov(np.eye(2))
