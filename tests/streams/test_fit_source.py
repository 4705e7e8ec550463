"""A fit of rows that are read from files is the fit of the same rows in memory."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmle as jm
from jaxmle.fitting import head_start
from jaxmle.streams.totals import Sum

from .conftest import CUTS, Q, logit, write

SE = 1e-9  # of a standard error: sums in another order


def assert_same(streamed, memory):
    assert streamed.status == memory.status
    assert float(streamed.n) == float(memory.n)
    assert (streamed.vcov_kind, streamed.mode) == (memory.vcov_kind, memory.mode)
    held = ~(memory.se > 0)  # by fix: no standard error
    assert np.all(streamed.x[held] == memory.x[held])
    assert np.all(np.abs(streamed.x - memory.x)[~held] <= SE * memory.se[~held])
    np.testing.assert_allclose(
        streamed.vcov, memory.vcov, rtol=SE, atol=SE * np.nanmax(memory.vcov)
    )
    np.testing.assert_allclose(streamed.loglik, memory.loglik, rtol=1e-13)


CASES = {
    "plain": ({}, {}),
    "frequency weights and a cluster of words": (
        {"weights": jm.frequency("w"), "clusters": "firm"},
        {"weights": lambda c: jm.frequency(c["w"]), "clusters": lambda c: c["firm"]},
    ),
    "sampling weights": (
        {"weights": jm.sampling("w")},
        {"weights": lambda c: jm.sampling(c["w"])},
    ),
    "two-way clusters": (
        {"clusters": ("firm", "year"), "vcov": "CR1S"},
        {
            "clusters": lambda c: [c["firm"].tolist(), c["year"].tolist()],
            "vcov": lambda c: "CR1S",
        },
    ),
}


HC0_BY_WEIGHTS = pytest.param("sampling weights", marks=pytest.mark.thorough)


@pytest.mark.parametrize(
    "case", [HC0_BY_WEIGHTS if case == "sampling weights" else case for case in CASES]
)
def test_a_streamed_fit_is_the_fit_in_memory(survey, case):
    streamed, memory = CASES[case]
    held = {name: of(survey.columns) for name, of in memory.items()}
    model = jm.models.logistic()
    assert_same(
        jm.fit(model, source=survey.source, **streamed), jm.fit(model, data=survey.data, **held)
    )


KINDS = {
    "HC3 of a function": ({"vcov": "HC3"}, lambda model: model),
    "opg with a prior and a fixed entry": (
        {},
        lambda model: jm.fix(jm.penalize(model, jm.ridge(2.0)), {"beta[1]": 0.8}),
    ),
}


@pytest.mark.parametrize("case", KINDS)
def test_constraints_priors_and_leverage_of_a_users_function(survey, case):
    """The rows of a function are summed in blocks; a prior is added once, not once a chunk."""
    options, changed = KINDS[case]

    def normal(params, data):
        z = (data["y"] - data["x"] @ params["beta"]) / params["sigma"]
        return -jnp.log(params["sigma"]) - 0.5 * z**2

    source = jm.parquet(survey.folder, {"x": [1, "x1", "x2"], "y": "price"})
    data = {"x": survey.data["x"][:, :3], "y": survey.columns["price"]}
    start = {"beta": np.zeros(3), "sigma": 1.0}
    options = options | {"constraints": {"sigma": jm.positive}}
    assert_same(
        jm.fit(changed(normal), start, source=source, **options),
        jm.fit(changed(normal), start, data, **options),
    )


def test_least_squares_over_files_is_least_squares(survey):
    """Against numpy.linalg.lstsq, and White's covariance by its formula."""
    x = survey.data["x"][:, :3]
    y = survey.columns["price"]
    source = jm.parquet(survey.folder, {"x": [1, "x1", "x2"], "y": "price"})

    def squares(params, data):
        return -0.5 * (data["y"] - data["x"] @ params["beta"]) ** 2

    fit = jm.fit(squares, {"beta": np.zeros(3)}, source=source, vcov="HC0")
    beta, *_ = np.linalg.lstsq(x, y, rcond=None)
    bread = np.linalg.inv(x.T @ x)
    residual = y - x @ beta
    white = bread @ (x.T * residual**2) @ x @ bread
    np.testing.assert_allclose(fit.params["beta"], beta, rtol=1e-11)
    np.testing.assert_allclose(fit.vcov, white, rtol=1e-10, atol=1e-16)
    assert fit.evaluation.endswith("streamed")


def test_many_rows_get_a_head_start(survey, monkeypatch, capsys):
    """The sample start with few rows: score passes, one Hessian, one pass that confirms."""
    monkeypatch.setattr(head_start, "MIN_ROWS_FOR_HEAD_START", 1000)
    monkeypatch.setattr(head_start, "MIN_SAMPLE_ROWS", 1000)
    model = jm.models.logistic()
    fit = jm.fit(model, source=survey.source, progress=True)
    assert fit.evaluation == "declared, head start, streamed"
    passes = [line for line in capsys.readouterr().err.splitlines() if "100% of 4,000" in line]
    # of so few rows the sample says little: passes for the score are six, of a million three
    assert sum("evaluate" in line for line in passes) <= 3
    memory = jm.fit(model, data=survey.data)
    assert np.all(np.abs(fit.x - memory.x) <= SE * memory.se)
    np.testing.assert_allclose(fit.se, memory.se, rtol=1e-6)  # what a reused Hessian leaves open


def test_a_separated_fit_says_what_it_says_in_memory(tmp_path):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 600))
    y = (a > 0.3).astype(float)
    write(tmp_path, {"a": a, "b": b, "y": y}, (0, 250, 600))
    source = jm.parquet(tmp_path, {"x": [1.0, "a", "b"], "y": "y"})
    streamed = jm.fit(jm.models.logistic(), source=source)
    memory = jm.fit(jm.models.logistic(), data={"x": np.column_stack([a * 0 + 1, a, b]), "y": y})
    assert streamed.verdict.name == "SEPARATED"
    assert (
        streamed.explain().split(" The likelihood was")[0]
        == (memory.explain().split(" The likelihood was")[0])
    )


def test_a_row_without_a_term_is_named_by_its_place_among_all_rows(tmp_path):
    b = np.full(900, 2.0)
    b[700] = -50.0
    write(tmp_path, {"b": b}, (0, 300, 900))
    fit = jm.fit(
        lambda p, d: jnp.log(d["b"] + p["a"]) - (p["a"] - 1) ** 2,
        {"a": 1.0},
        source=jm.parquet(tmp_path, {"b": "b"}),
    )
    assert fit.verdict.name == "NONFINITE"
    assert int(fit.witness.row) == 700


def test_fits_of_one_source_can_be_compared(survey):
    """The same response has the same fingerprint, whatever the design; another one another."""
    wide = jm.fit(jm.models.logistic(), source=survey.source)
    narrow = jm.parquet(survey.folder, {"x": [1.0, "x1"], "y": "y"})
    small = jm.fit(jm.models.logistic(), source=narrow)
    weighted = jm.fit(jm.models.logistic(), source=narrow, weights=jm.frequency("w"))
    assert np.array_equal(wide.response_id, small.response_id) and np.any(wide.response_id)
    assert not np.array_equal(wide.data_id, small.data_id)
    assert not np.array_equal(weighted.response_id, small.response_id)


def test_a_sum_of_many_chunks_loses_no_digit():
    """A naive sum of 1, 1e16, −1e16 is 0; Neumaier's is 1."""
    total = Sum()
    for term in (1.0, 1e16, -1e16):
        total.add({"a": np.array([term])})
    assert total.value["a"].tolist() == [1.0]


# ---------------------------------------------------------------- what is refused


def mixing(params, data):
    return -((data["y"] - data["y"].mean() - params["a"]) ** 2)


def squares(params, data):
    return -((data["y"] - params["a"]) ** 2)


REFUSED = {
    "keep dependent rows together": (mixing, {}, "reduce_sum"),
    "one number for all rows": (lambda p, d: squares(p, d).sum(), {}, "one log-likelihood term"),
    "marked opaque": (jm.opaque(squares), {}, "marked opaque"),
    "hac": (squares, {"vcov": "hac"}, "vcov='hac'"),
    "CR2": (squares, {"vcov": "CR2", "clusters": "firm"}, "vcov='CR2'"),
    "an array of weights": (
        squares,
        {"weights": jm.frequency([1.0])},
        "weights must name a column",
    ),
    "weights inside": (jm.weight(squares, jm.frequency([1.0])), {}, "they must be a column"),
    "an array of clusters": (squares, {"clusters": np.arange(3)}, "clusters must name a column"),
    "a pool": (jm.pool(squares, squares), {}, "a pool has several data sets"),
    "another solver": (squares, {"solver": jm.solvers.BHHH()}, "Newton's method"),
    "float32": (squares, {"dtype": "float32"}, "float64"),
    "data too": (squares, {"data": np.arange(3.0)}, "give data or source"),
    "no executor": (squares, {"engine": 3}, "engine must be a concurrent.futures.Executor"),
    "a column that is not there": (squares, {"clusters": "frim"}, "no column 'frim'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_source_cannot_give_is_refused_by_name(survey, case):
    loglik, options, message = REFUSED[case]
    source = jm.parquet(survey.folder, {"y": "price"})
    with pytest.raises((TypeError, ValueError), match=message):
        jm.fit(loglik, {"a": 0.0}, source=source, **options)


def test_engine_and_checkpoint_belong_to_a_source(survey):
    with pytest.raises(ValueError, match="engine and checkpoint"):
        jm.fit(logit, {"beta": np.zeros(Q)}, survey.data, engine=3, checkpoint="x")
    with pytest.raises(TypeError, match="source must be rows on disk"):
        jm.fit(logit, {"beta": np.zeros(Q)}, source=survey.data)
    assert CUTS[-1] == survey.source.rows
