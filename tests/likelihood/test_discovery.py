"""What is found in a program is compared with the general road before its first use, is left out where it is wrong, and can be switched off."""

import importlib
import re
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.likelihood.contract import as_tree
from jaxmle.likelihood.discovery import linear_predictors as predictors
from jaxmle.likelihood.discovery import rounding
from jaxmle.likelihood.discovery import self_check as discovery
from jaxmle.likelihood.discovery.linear_predictors import as_regression
from jaxmle.likelihood.discovery.rounding import evaluated, random_rounding
from jaxmle.likelihood.discovery.row_axis_rules import CALLS, ROW_RULES
from jaxmle.likelihood.regression import Regression
from jaxmle.parameters.tree import layout_of
from jaxmle.runtime.opaque import Opaque

FIT = importlib.import_module("jaxmle.fitting.fit")
BATCH = importlib.import_module("jaxmle.batch.batch")
RUN = importlib.import_module("jaxmle.batch.scheduler")
RNG = np.random.default_rng(20261128)
N = 400
X = np.column_stack([np.ones(N), RNG.normal(size=(N, 2))])
DATA = {"x": X, "y": X @ [0.5, -1.0, 2.0] + RNG.normal(size=N)}
START = {"beta": np.zeros(3)}
LEAST_SQUARES = np.linalg.lstsq(X, DATA["y"], rcond=None)[0]
ROUNDING = 1e-10  # of estimates near 1, by least squares and by Newton's method


def gaussian(p, d):
    return -0.5 * (d["y"] - d["x"] @ p["beta"]) ** 2


def fresh():
    """The likelihood as a function that has been compared with nothing yet."""
    return lambda p, d: gaussian(p, d)


@pytest.fixture
def few_rows_are_many(monkeypatch):
    monkeypatch.setattr(FIT, "MIN_ROWS_FOR_OPAQUE_BLOCKS", 1)
    monkeypatch.setattr(BATCH, "MIN_ROWS_FOR_FLOAT32_START", 1)


def spoiled(monkeypatch, room, density):
    """Makes what is found a regression of another density."""

    def find(loglik, layout, base, data):
        form = as_regression(loglik, layout, base, data)
        assert isinstance(form, Regression)
        beta = jm.linear("x", "beta")
        return jm.regression(density, {"x @ beta": beta})

    monkeypatch.setattr(room, "as_regression", find)


@jax.custom_jvp
def without_curvature(eta):
    return eta


@without_curvature.defjvp
def _(primals, tangents):
    return primals[0], jax.lax.stop_gradient(1.0 + 0.0 * primals[0]) * tangents[0]


WRONG = {
    "a factor": lambda e, r: -0.51 * (r["y"] - e["x @ beta"]) ** 2,
    "a constant": lambda e, r: -0.5 * (r["y"] - e["x @ beta"]) ** 2 + 1e-9,
    "the score alone": lambda e, r: (
        -0.5 * (r["y"] - e["x @ beta"]) ** 2
        + 1e-8 * (e["x @ beta"] - jax.lax.stop_gradient(e["x @ beta"]))
    ),
    "the Hessian alone": lambda e, r: (
        -0.5 * (r["y"] - e["x @ beta"]) ** 2
        + 1e-8 * (e["x @ beta"] - jax.lax.stop_gradient(e["x @ beta"])) ** 2
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_form_that_is_wrong_in_anything_gave_a_fit_of_something_else(
    few_rows_are_many, monkeypatch, name
):
    """Nothing compared a found form with the function; 1e-8 of the Hessian is seen as well as a factor."""
    spoiled(monkeypatch, FIT, WRONG[name])
    loglik = fresh()
    with pytest.warns(jm.DiscoveryWarning, match="Please report this"):
        fit = jm.fit(loglik, START, DATA)
    assert fit.evaluation == "opaque"
    assert_allclose(fit.params["beta"], LEAST_SQUARES, atol=ROUNDING)
    with pytest.warns(jm.DiscoveryWarning, match="differs by"):  # said again, measured once
        assert jm.fit(loglik, START, DATA).evaluation == "opaque"


def test_a_wrong_form_in_a_batch_is_left_out_too(few_rows_are_many, monkeypatch):
    spoiled(monkeypatch, BATCH, WRONG["a factor"])
    with pytest.warns(jm.DiscoveryWarning, match="the log-likelihood differs by"):
        fits = jm.fit_batch(fresh(), START, [DATA, DATA])
    assert fits.evaluation.split(", ")[0] == "opaque"
    assert_allclose(fits.params["beta"], [LEAST_SQUARES] * 2, atol=ROUNDING)


def test_a_form_that_is_right_is_used_and_compared_once(few_rows_are_many, monkeypatch):
    compared = []
    gap = discovery._gap

    def counting(*args):
        compared.append(gap(*args))
        return compared[-1]

    monkeypatch.setattr(discovery, "_gap", counting)
    loglik = fresh()
    for rows in (N, N, N - 7):  # another number of rows is no other structure
        some = {name: leaf[:rows] for name, leaf in DATA.items()}
        assert jm.fit(loglik, START, some).evaluation == "found"
    assert compared == [""]
    assert_allclose(jm.fit(loglik, START, DATA).params["beta"], LEAST_SQUARES, atol=ROUNDING)


def large_counts(p, d):
    """Differences of 2e11: only some six digits of a term are left."""
    size = jnp.exp(d["x"] @ p["beta"])
    return gammaln(d["y"] + size) - gammaln(size) - gammaln(d["y"] + 1) - d["y"] * 0.1


ROUGH = {
    "counts of 1e10": (large_counts, {"x": X, "y": np.floor(1e10 * RNG.random(N))}),
    "terms of 1e12": (lambda p, d: 1e12 + gaussian(p, d), DATA),
    "columns of 1e8": (gaussian, {"x": X * [1.0, 1e8, 1e-8], "y": DATA["y"]}),
    "a response far from zero": (gaussian, {"x": X, "y": DATA["y"] + 1e9}),
}


@pytest.mark.parametrize("name", ROUGH)
def test_rounding_is_not_taken_for_a_difference(name):
    """What rounding leaves is measured: a fixed tolerance of 1e-6 would be wrong both ways."""
    function, data = ROUGH[name]
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("error")
        layout = layout_of(START, None)
        core = as_tree(lambda p, d: function(p, d))
        base = np.asarray(layout.ravel(START))
        form = as_regression(core, layout, base, data)
        assert isinstance(form, Regression)
        assert discovery.verified(core, form, layout, base, data) is form


def test_where_the_start_has_no_value_a_found_form_is_not_used_and_nothing_is_said(
    few_rows_are_many,
):
    def loglik(p, d):
        return jnp.log(d["x"] @ p["beta"]) - (d["x"] @ p["beta"]) * jnp.abs(d["y"])

    assert jm.fit(loglik, {"beta": np.array([-9.0, 0.0, 0.0])}, DATA).evaluation == "opaque"


def test_sums_over_counts_are_compared_with_sums_over_rows(monkeypatch):
    """A wrong histogram gave another likelihood without a word."""
    right = discovery.histogram

    def wrong(y, weights, m):
        made = right(y, weights, m)
        return made._replace(weights=made.weights[::-1])

    monkeypatch.setattr(discovery, "histogram", wrong)
    eta = {"rate": "rate"}
    counts = RNG.poisson(2.0, 300).astype(float)
    poisson = jm.regression(
        lambda e, r: -jnp.exp(e["rate"]), eta, counts={"y": lambda e, y: y * e["rate"]}
    )
    with pytest.warns(
        jm.DiscoveryWarning, match="the sum over the counts that occur does not agree"
    ):
        fit = jm.fit(poisson, {"rate": 0.0}, {"y": counts})
    assert fit.evaluation == "opaque"
    assert_allclose(fit.params["rate"], np.log(counts.mean()), atol=ROUNDING)


# ---------------------------------------------------------------- switched off


def test_opaque_gives_the_same_numbers_by_the_general_road(few_rows_are_many):
    usual = jm.fit(gaussian, START, DATA)
    plain = jm.fit(jm.opaque(gaussian), START, DATA)
    assert (usual.evaluation, plain.evaluation) == ("found", "opaque")
    assert_allclose(plain.x, usual.x, atol=ROUNDING)
    assert_allclose(plain.vcov, usual.vcov, rtol=1e-10)  # of matrices of condition 2


DECLARED = jm.regression(
    lambda e, r: -0.5 * (r["y"] - e["mean"]) ** 2, {"mean": jm.linear("x", "beta")}
)
COMBINED = {
    "weight": lambda f: jm.weight(f, jm.frequency(np.ones(N))),
    "penalize": lambda f: jm.penalize(f, jm.ridge(1e-3)),
    "fix": lambda f: jm.fix(f, {"beta[2]": 2.0}),
    "tie": lambda f: jm.tie(f, ("beta[1]", "beta[2]")),
    "with_response": lambda f: jm.with_response(
        f, jm.simulation(lambda key, p, d: {**d, "y": d["x"] @ p["beta"]}, key=jax.random.key(0))
    ),
}


@pytest.mark.parametrize("name", COMBINED)
@pytest.mark.parametrize("loglik", [gaussian, DECLARED], ids=["function", "regression"])
def test_combinators_keep_it_and_are_kept_by_it(few_rows_are_many, name, loglik):
    inside = jm.fit(COMBINED[name](jm.opaque(loglik)), START, DATA)
    outside = jm.fit(jm.opaque(COMBINED[name](loglik)), START, DATA)
    usual = jm.fit(COMBINED[name](loglik), START, DATA)
    assert inside.evaluation == outside.evaluation == "opaque"
    assert usual.evaluation != "opaque" or name == "with_response"
    for fit in (inside, outside):
        assert_allclose(fit.x, usual.x, atol=ROUNDING)
        assert_allclose(fit.se, usual.se, rtol=1e-10)


def test_a_pool_says_how_each_of_its_parts_is_summed():
    both = jm.fit(jm.pool(DECLARED, jm.opaque(gaussian)), START, (DATA, DATA))
    assert both.evaluation == "declared, opaque"
    assert_allclose(both.params["beta"], LEAST_SQUARES, atol=ROUNDING)


def test_a_ready_model_that_is_marked_opaque_keeps_its_coding_and_its_numbers():
    model = jm.models.poisson()
    counts = {"x": X, "y": RNG.poisson(2.0, N).astype(float)}
    usual = jm.fit(model, None, counts)
    plain = jm.fit(jm.opaque(model), model.start(counts), counts)
    assert (usual.evaluation, plain.evaluation) == ("declared", "opaque")
    assert_allclose(plain.x, usual.x, atol=ROUNDING)
    with pytest.raises(ValueError, match="row 0"):
        jm.fit(jm.opaque(model), START, {**counts, "y": counts["y"] - 100.0})


def test_an_array_rebound_in_an_opaque_likelihood_changes_the_fit():
    held = {"shift": np.array(0.0)}

    def density(e, r):
        return -0.5 * (r["y"] + held["shift"] - e["mean"]) ** 2

    line = jm.regression(density, {"mean": jm.linear("x", "beta")})
    for loglik in (
        jm.opaque(line),
        jm.opaque(lambda p, d: gaussian(p, {**d, "y": d["y"] + held["shift"]})),
    ):
        held["shift"] = np.array(0.0)
        before = jm.fit(loglik, START, DATA).params["beta"][0]
        held["shift"] = np.array(1.0)
        assert_allclose(jm.fit(loglik, START, DATA).params["beta"][0], before + 1, atol=ROUNDING)


def test_marked_opaque_a_batch_is_not_padded(few_rows_are_many):
    members = [{name: leaf[:n] for name, leaf in DATA.items()} for n in (50, 60, 70)]
    usual, plain = (jm.fit_batch(f, START, members) for f in (gaussian, jm.opaque(gaussian)))
    assert plain.evaluation.split(", ")[0] == "opaque"
    assert_allclose(plain.x, usual.x, atol=ROUNDING)
    many = [{name: leaf[:n] for name, leaf in DATA.items()} for n in range(20, 60)]
    with pytest.raises(ValueError, match="marked opaque"):
        jm.fit_batch(jm.opaque(gaussian), START, many)


def without_addresses(program):
    return re.sub("0x[0-9a-f]+", "0x", str(program))


def test_under_vmap_and_jit_it_is_the_same_function():
    stacked = jax.tree.map(lambda leaf: leaf.reshape(4, -1, *leaf.shape[1:]), DATA)
    with jax.enable_x64(True):
        start = {"beta": jnp.zeros(3)}
        (usual, fit), (plain, plain_fit) = (
            jax.make_jaxpr(jax.vmap(lambda d, f=f: jm.fit(f, start, d)), return_shape=True)(stacked)
            for f in (gaussian, jm.opaque(gaussian))
        )
    assert fit.evaluation == plain_fit.evaluation == "opaque"
    assert without_addresses(plain) == without_addresses(usual)


@pytest.mark.parametrize("wrong", [None, 3, "f", dict, DATA])
def test_what_is_no_function_is_refused(wrong):
    with pytest.raises(TypeError, match=r"loglik must be a function of \(params, data\)"):
        jm.opaque(wrong)


# ---------------------------------------------------------------- the word in the record


def test_the_word_is_saved_and_loaded_and_absent_from_older_files(tmp_path, monkeypatch):
    from jaxmle.record import serialization as store

    fit = jm.fit(DECLARED, START, DATA)
    assert fit.evaluation == "declared"
    fit.save(tmp_path / "fit.npz")
    assert jm.Fit.load(tmp_path / "fit.npz").evaluation == "declared"
    older = tuple(word for word in store.WORDS if word != "evaluation")
    with monkeypatch.context() as before:
        before.setattr(store, "WORDS", older)
        fit.save(tmp_path / "older.npz")
    again = jm.Fit.load(tmp_path / "older.npz")
    assert again.evaluation == "" and "summed" not in again.explain()


def test_a_file_in_which_the_word_is_called_road_loads(tmp_path, monkeypatch):
    from jaxmle.record import serialization as store

    described = store._description

    def as_before(fit):
        words = described(fit)
        return words | {"road": words.pop("evaluation")}

    monkeypatch.setattr(store, "_description", as_before)
    jm.fit(DECLARED, START, DATA).save(tmp_path / "earlier.npz")
    assert jm.Fit.load(tmp_path / "earlier.npz").evaluation == "declared"


def test_explain_says_how_terms_were_summed_and_the_starts(few_rows_are_many, monkeypatch):
    found = jm.fit(gaussian, START, DATA)
    assert "as a regression found in its program" in found.explain()
    assert "as an opaque function" in jm.fit(jm.opaque(gaussian), START, DATA).explain()
    assert "in its declared form" in jm.fit(DECLARED, START, DATA).explain()
    subsample = importlib.import_module("jaxmle.fitting.head_start")
    for name, value in (("MIN_ROWS_FOR_HEAD_START", 1), ("MIN_SAMPLE_ROWS", 100)):
        monkeypatch.setattr(subsample, name, value)
    long = jax.tree.map(lambda leaf: np.concatenate([leaf] * 8), DATA)
    fit = jm.fit(gaussian, START, long)
    assert fit.evaluation == "found, head start"
    assert "It started at the maximum of a sample" in fit.explain()
    monkeypatch.setattr(RUN, "MIN_ROWS_FOR_FLOAT32_START", 1)
    fits = jm.fit_batch(DECLARED, START, [DATA, DATA])
    assert fits.evaluation == "declared, float32 start"
    assert fits[0].evaluation == fits.evaluation
    assert "first steps of most members were in float32" in fits[1].explain()


# ---------------------------------------------------------------- programs by NumPy


def loop(x):
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * x), (0, x))[1]


PROGRAMS = {
    "arithmetic": lambda x: jnp.sum(x / (1 + x**2) - x % 0.3, axis=0) ** 3,
    "products": lambda x: jnp.einsum("ij,kj->ik", x, x + 1) @ x,
    "batched products": lambda x: jnp.einsum("ij,ij->i", x, x + 1),
    "special": lambda x: gammaln(x) + jax.scipy.special.digamma(x) + jax.scipy.special.erf(x),
    "logistic": lambda x: jax.nn.sigmoid(x) + jax.nn.softplus(-x) + jnp.tanh(x),
    "lookup": lambda x: x[jnp.array([2, 0, 5])],
    "lookup in each row": lambda x: jnp.take_along_axis(x, jnp.array([[1], [0]] * 3), axis=1),
    "lookup out of bounds": lambda x: x.at[jnp.array([1, 99])].get(mode="fill"),
    "put": lambda x: jnp.zeros(8).at[jnp.array([1, 1, 99])].add(x[:3, 0]),
    "replaced": lambda x: x.at[:, 1].set(7.0),
    "pieces": lambda x: jnp.concatenate([x[::2, 1:], jnp.flip(x[:3, :2], 1)], axis=0),
    "padded": lambda x: jax.lax.pad(x, 0.5, ((1, -1, 0), (0, 2, 1))),
    "cumulated": lambda x: jnp.cumsum(x, axis=0) + jax.lax.cumsum(x, axis=1, reverse=True),
    "chosen": lambda x: jnp.where(x > 0.5, x, jnp.clip(x, 0.2, 0.4)),
    "branches": lambda x: jax.lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x),
    "loop": loop,
    "scan": lambda x: jax.lax.scan(lambda c, row: (c + row, c * row), x[0], x),
    "by jax alone": lambda x: jax.scipy.special.gammainc(2.0, x) + jnp.sort(x, axis=0),
    "linear algebra": lambda x: jnp.linalg.cholesky(x.T @ x + jnp.eye(3)),
    "numbers": lambda x: (jnp.arange(6) // 4)[:, None] + jnp.sign(x) * jnp.round(x, 1),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("order", [0, 2])
def test_a_program_evaluated_by_numpy_has_the_values_of_jax(name, order):
    x = RNG.uniform(0.1, 1.0, (6, 3))
    function = PROGRAMS[name]

    def curved(x):
        def total(x):
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(function(x)))

        forward = name in ("loop",)  # which has no reverse mode
        slope = jax.jacfwd(total) if forward else jax.grad(total)
        return jax.jvp(slope, (x,), (jnp.ones_like(x),))

    with jax.enable_x64(True):
        program = jax.make_jaxpr(curved if order else function)(x)
        by_numpy = evaluated(program, [x])
        by_jax = jax.tree.leaves((curved if order else function)(jnp.asarray(x)))
        moved = evaluated(program, [x], random_rounding(1))
    for one, other, near in zip(by_numpy, by_jax, moved, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert_allclose(one, other, rtol=1e-12, atol=1e-12)  # some hundred operations
        assert_allclose(near, one, rtol=1e-11, atol=1e-11)  # each moved by a unit


def test_random_rounding_measures_the_error_of_a_cancelling_sum():
    """(1 + x) − 1 has the rounding of 1, whatever x: some 1e-16, and x as it is has none."""
    x = np.array(1e-9 / 3)
    with jax.enable_x64(True):
        program = jax.make_jaxpr(lambda x: ((1.0 + x) - 1.0, x * 1.0))(x)
        exact = np.array(evaluated(program, [x]))
        runs = np.array([evaluated(program, [x], random_rounding(seed)) for seed in range(8)])
    lost, kept = np.abs(runs - exact).max(axis=0)
    assert 1e-16 < lost < 5e-16
    assert kept < 1e-25


# ---------------------------------------------------------------- guards


def test_a_setting_of_a_call_that_was_not_reviewed_ends_the_proof(monkeypatch):
    """``jit`` with a parameter of a later jax was followed as if it were known."""
    layout = layout_of(START, None)
    base = np.asarray(layout.ravel(START))

    def proved():
        core = as_tree(lambda p, d: jnp.where(d["y"] > 0, d["y"] - d["x"] @ p["beta"], 0.0))
        with jax.enable_x64(True):
            return importlib.import_module("jaxmle.likelihood.discovery.row_axes").is_rowwise(
                core, layout, base, DATA
            )

    assert proved()
    rule, reviewed = ROW_RULES["jit"]
    monkeypatch.setitem(ROW_RULES, "jit", (rule, reviewed - {"inline"}))
    assert not proved()


@pytest.mark.parametrize("name", sorted(ROW_RULES))
def test_each_operation_has_parameters_of_its_own(name):
    """A set for all let ``exp`` have the exponent of ``integer_pow``."""
    _, reviewed = ROW_RULES[name]
    assert "y" not in reviewed or name == "integer_pow"
    assert "new_dtype" not in reviewed or "convert" in name
    assert name not in CALLS or CALLS[name][0] in reviewed


def test_a_program_that_changes_with_the_rows_raised_nothing_under_python_o():
    """The guard was an assertion, which ``python -O`` takes out."""
    code = """
import jax, jax.numpy as jnp, numpy as np
from jaxmle.likelihood.discovery.linear_predictors import Density, Product, TracedPredictors, UnlikePrograms
from jaxmle.runtime.opaque import ById
assert False, "not under -O"
treedef = jax.tree.structure({"b": 0})
found = TracedPredictors((Product(0, 0),), ())
density = Density(ById(lambda p, d: d["y"] * jnp.sum(p["b"])), treedef, ((2,),), found, ("e",))
try:
    density({"e": jnp.zeros(3)}, {"x": jnp.ones((3, 2)), "y": jnp.ones(3)})
except UnlikePrograms as error:
    print("opaque" in str(error))
"""
    run = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "True", run.stderr


def test_a_form_whose_program_differs_for_a_few_rows_is_left_out(few_rows_are_many, monkeypatch):
    def unlike(*args):
        raise predictors.UnlikePrograms("another program")

    monkeypatch.setattr(discovery, "_gap", unlike)
    with pytest.warns(jm.DiscoveryWarning, match="its program for a few rows differs"):
        assert jm.fit(fresh(), START, DATA).evaluation == "opaque"


def test_functions_that_hold_no_array_are_not_copied():
    """Only what reaches an array needs a copy; the likelihood itself is copied so that what is compiled does not keep it alive."""
    from jaxmle.closures.copies import portable
    from jaxmle.closures.watch import look

    shift = np.array(1.0)

    def without(y):
        return 2.0 * jnp.exp(y)

    def holding(y):
        return y + shift

    def loglik(p, d):
        return without(holding(d)) * p

    copy = portable(loglik, look(loglik))
    inside = dict(zip(loglik.__code__.co_freevars, copy.__closure__, strict=True))
    assert inside["without"].cell_contents is without
    assert inside["holding"].cell_contents is not holding


def test_rounding_knows_what_the_rules_know():
    """Each table names operations that jax has: a name that is misspelt would never be met."""
    known = set(ROW_RULES) | {"copy", "iota", "scatter_add"}
    for table in (rounding.ENTRYWISE, rounding.REDUCING, rounding.SHAPING, rounding.BRANCHING):
        assert set(table) <= known | {"stop_gradient"}
    assert isinstance(jm.opaque(gaussian), Opaque)
