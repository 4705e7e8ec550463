"""A fit for each group of rows is the fit of these rows alone; groups are called by their keys, and one that fails says why."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import jaxmle as jm
from jaxmle import Status
from tests.likelihoods import logit, normal_regression_kernel

SIZES = {
    "a": 20,
    "b": 28,
    "": 28,
}  # as many groups as coefficients: the start values are one tree for all
LABEL = np.repeat(list(SIZES), list(SIZES.values()))
N = len(LABEL)
POSITIVE = {"sigma": jm.positive}


def exponential(params, data):
    return jnp.log(params["rate"]) - params["rate"] * data["y"]


def never(params, data):
    raise AssertionError("the likelihood must not be looked at")


MODELS = {
    "logit": (logit, {"beta": np.zeros(3)}, None),
    "normal": (normal_regression_kernel, {"beta": np.zeros(3), "sigma": 1.0}, POSITIVE),
}


@pytest.fixture(scope="module")
def shuffled():
    """Rows of three groups in any order, and their labels."""
    rng = np.random.default_rng(11)
    x = np.column_stack([np.ones(N), rng.normal(size=(N, 2))])
    eta = x @ np.array([0.3, 0.8, -0.5])
    order = rng.permutation(N)
    data = {
        "x": x,
        "logit": (rng.random(N) < 1 / (1 + np.exp(-eta))).astype(float),
        "normal": eta + rng.normal(size=N),
    }
    return {name: leaf[order] for name, leaf in data.items()}, LABEL[order]


def table(shuffled, model):
    data, label = shuffled
    return {"x": data["x"], "y": data[model]}, label


def rows(data, chosen):
    return {name: leaf[chosen] for name, leaf in data.items()}


def assert_same(grouped, alone):
    """One nano standard error: both end by the same Newton steps."""
    assert grouped.verdict == alone.verdict == Status.CONVERGED
    assert np.max(np.abs(grouped.x - alone.x) / alone.se) < 1e-9
    assert_allclose(grouped.se, alone.se, rtol=1e-9)
    assert_allclose(grouped.loglik, alone.loglik, rtol=1e-12)
    assert grouped.n == alone.n
    assert_array_equal(grouped.data_id, alone.data_id)


@pytest.mark.thorough
@pytest.mark.parametrize("model", MODELS)
def test_a_group_is_the_fit_of_its_rows(shuffled, model):
    loglik, start, constraints = MODELS[model]
    data, label = table(shuffled, model)
    result = jm.fit_groups(loglik, start, data, by=label, constraints=constraints)
    assert len(result) == 3
    assert_array_equal(result.keys["group"], ["", "a", "b"])
    assert_array_equal(result.n, [28, 20, 28])
    for key, fit in result:
        assert_same(fit, jm.fit(loglik, start, rows(data, label == key), constraints=constraints))
        assert_array_equal(result[key].x, fit.x)
    assert result.reasons() == {}


@pytest.mark.thorough
def test_weights_and_clusters_go_by_row(shuffled):
    data, label = table(shuffled, "logit")
    rng = np.random.default_rng(3)
    counts, cluster = rng.integers(1, 4, N), rng.choice(["p", "q", "r", "s", "t"], N)
    start = {"beta": np.zeros(3)}
    for wrap in (jm.frequency, jm.sampling):
        for key, fit in jm.fit_groups(logit, start, data, by=label, weights=wrap(counts)):
            assert_same(
                fit,
                jm.fit(logit, start, rows(data, label == key), weights=wrap(counts[label == key])),
            )
    for key, fit in jm.fit_groups(logit, start, data, by=label, clusters=cluster):
        assert fit.vcov_kind == "CR1"
        assert_same(
            fit, jm.fit(logit, start, rows(data, label == key), clusters=cluster[label == key])
        )


# ---------------------------------------------------------------- keys

Y = np.array([1.0, 2.0, 3.0, 4.0, 6.0, 5.0, 7.0, 8.0])
RATE = {"rate": 1.0}


def rates(by, data=None, **options):
    """One rate in each group; all calls share one compiled shape for each number of groups."""
    return jm.fit_groups(
        exponential,
        RATE,
        {"y": Y} if data is None else data,
        by=by,
        constraints={"rate": jm.positive},
        **options,
    )


def means(result):
    return {key: round(1 / float(fit.params["rate"]), 9) for key, fit in result}


PARTITION = np.array([1, 0, 1, 1, 0, 0, 1, 0])
HALVES = {0: Y[PARTITION == 0].mean(), 1: Y[PARTITION == 1].mean()}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("by", "names"),
    [
        (PARTITION, (0, 1)),
        (PARTITION == 1, (False, True)),
        (PARTITION.astype(np.float32) - 3.0, (-3, -2)),
        (PARTITION.astype(np.uint64) + np.uint64(2**63), (2**63, 2**63 + 1)),
        (np.array(["", "x"])[PARTITION], ("", "x")),
        (np.array(["é", "日本"])[PARTITION], ("é", "日本")),
        (np.array(["u", "v"], dtype=object)[PARTITION], ("u", "v")),
        (list(np.array(["u", "v"])[PARTITION]), ("u", "v")),
        ([bool(i) for i in PARTITION], (False, True)),
        ([3.0 if i else 2 for i in PARTITION], (2, 3)),
        (jnp.asarray(PARTITION), (0, 1)),
    ],
    ids=[
        "integers",
        "booleans",
        "whole floats",
        "large unsigned",
        "strings",
        "unicode",
        "objects",
        "list of strings",
        "list of booleans",
        "list of numbers",
        "jax",
    ],
)
def test_what_a_code_may_be(by, names):
    result = rates(by)
    assert means(result) == {name: pytest.approx(HALVES[i]) for i, name in enumerate(names)}
    for i, name in enumerate(names):
        assert name in result
        assert_array_equal(result[name].x, result.fits.x[i])
    assert [type(key) for key, _ in result] == [type(name) for name in names]


def test_columns_of_a_data_frame_are_codes():
    pandas = pytest.importorskip("pandas")
    words = pandas.Series(np.array(["low", "high"])[PARTITION])
    for by in (words, words.astype("category"), words.astype("string")):
        assert means(rates(by)) == {
            "high": pytest.approx(HALVES[1]),
            "low": pytest.approx(HALVES[0]),
        }
    assert means(rates(pandas.Series(PARTITION, dtype="Int64"))) == pytest.approx(HALVES)
    with pytest.raises(ValueError, match="NaN in row 2"):
        rates(pandas.Series([1, 1, None, 1, 1, 1, 1, 1], dtype="Int64"))


def test_a_leaf_of_the_data_may_name_the_groups():
    """It is not handed to the likelihood: strings in it do no harm."""
    site = np.array(["n", "s"])[PARTITION]
    by_name = rates("site", {"y": Y, "site": site})
    assert list(by_name.keys) == ["site"]
    assert means(by_name) == means(rates(site))
    assert_array_equal(by_name.fits.data_id, rates(site).fits.data_id)


def test_several_keys_in_the_order_of_their_names():
    state, year = np.array(["b", "a"])[PARTITION], np.array([2, 1, 2, 10, 1, 2, 10, 2])
    result = rates({"state": state, "year": year})
    assert [key for key, _ in result] == [("a", 2), ("a", 10), ("b", 1), ("b", 2)]
    assert_array_equal(result.keys["state"], ["a", "a", "b", "b"])
    assert_array_equal(result.keys["year"], [2, 10, 1, 2])
    for key, fit in result:
        chosen = (state == key[0]) & (year == key[1])
        assert 1 / fit.params["rate"] == pytest.approx(Y[chosen].mean())
        assert fit.n == chosen.sum()
        assert result[key].params["rate"] == fit.params["rate"]
    assert ("a", 1) not in result
    assert [key for key, _ in rates({"year": year, "state": state})] == [
        (1, "b"),
        (2, "a"),
        (2, "b"),
        (10, "a"),
    ]


@pytest.mark.parametrize("key", ["nort", 3, ("north",), None, np.nan, [1, 2]])
def test_an_unknown_key_is_told_its_neighbours(key):
    result = rates(np.array(["north", "south"])[PARTITION])
    assert key not in result
    with pytest.raises(KeyError, match="north"):
        result[key]


@pytest.mark.parametrize("key", [9, 2.5, -1, "1", 2**70, np.inf, (1, 2)])
def test_an_unknown_number_is_told_its_neighbours(key):
    result = rates(np.array([1, 2])[PARTITION])
    with pytest.raises(KeyError, match=r"near it: 1, 2"):
        result[key]


def test_a_key_of_several_is_a_tuple():
    result = rates({"state": np.array(["b", "a"])[PARTITION], "year": np.full(8, 2020)})
    with pytest.raises(KeyError, match=r"tuple \(state, year\)"):
        result["a"]
    with pytest.raises(KeyError, match=r"near it: \('a', 2020\)"):
        result["a", 2021]


def test_neighbouring_large_keys_stay_apart():
    """As float64 the two are one number."""
    result = rates(PARTITION.astype(np.uint64) + np.uint64(2**63))
    assert 1 / result[2**63 + 1].params["rate"] == pytest.approx(HALVES[1])
    with pytest.raises(KeyError):
        result[2**63 + 2]


def test_a_model_may_know_where_to_start():
    class Exponential:
        def __init__(self):
            self.constraints = {"rate": jm.positive}

        def __call__(self, params, data):
            return exponential(params, data)

        def start(self, data):
            return {"rate": 1 / np.mean(data["y"])}

    result = jm.fit_groups(Exponential(), data={"y": Y}, by=PARTITION)
    assert means(result) == pytest.approx(HALVES)
    assert_array_equal(result.fits.steps <= 2, True)


@pytest.mark.thorough
def test_options_are_those_of_a_batch(tmp_path):
    result = rates(
        PARTITION,
        dtype="float32",
        vcov="opg",
        max_steps=50,
        block=1,
        devices=jax.devices()[:1],
        progress=False,
        checkpoint=tmp_path,
    )
    assert result.fits.dtype == np.float32
    assert result.fits.vcov_kind == "opg"
    assert list(tmp_path.iterdir())
    assert means(result) == pytest.approx(HALVES, rel=1e-5)


# ---------------------------------------------------------------- groups that fail


@pytest.fixture(scope="module")
def troubled(shuffled):
    """A sound group and five that fail, in three shapes that others have compiled; and the row that is NaN."""
    rng = np.random.default_rng(8)
    sizes = {"sound": 28, "constant": 20, "collinear": 20, "nan": 20, "one": 1, "two": 2}
    label = np.repeat(list(sizes), list(sizes.values()))
    x = np.column_stack([np.ones(len(label)), rng.normal(size=(len(label), 2))])
    y = (rng.random(len(label)) < 0.5).astype(float)
    y[label == "constant"] = 1.0
    x[label == "collinear", 2] = -2 * x[label == "collinear", 1]
    x[np.flatnonzero(label == "nan")[7], 1] = np.nan
    order = rng.permutation(len(label))
    data = {"x": x[order], "y": y[order]}
    return jm.fit_groups(logit, {"beta": np.zeros(3)}, data, by=label[order]), int(
        np.flatnonzero(np.isnan(data["x"][:, 1]))[0]
    )


def test_failed_groups_say_why(troubled):
    result, row = troubled
    wanted = {
        "collinear": "UNIDENTIFIED",
        "constant": "SEPARATED",
        "nan": "NONFINITE",
        "one": "SEPARATED",
        "sound": "CONVERGED",
        "two": "SEPARATED",
    }
    assert {key: fit.verdict.name for key, fit in result} == wanted
    reasons = result.reasons()
    assert list(reasons) == ["collinear", "constant", "nan", "one", "two"]
    assert all(reasons[key] == result[key].explain() for key in reasons)
    assert f"row {row} of the data" in reasons["nan"], (
        "a row of the table that was given, not of the group"
    )
    assert "beta[1], beta[2]" in reasons["collinear"]


def test_the_digest_names_failed_groups(troubled):
    result, row = troubled
    lines = repr(result).splitlines()
    assert lines[0].startswith("6 groups by group")
    assert repr(result.fits) in repr(result)
    assert [line.split(":")[0] for line in lines[-5:]] == [
        f"group={key!r}" for key in ("collinear", "constant", "nan", "one", "two")
    ]
    assert f"row {row} of the data." in lines[-3]
    assert max(map(len, lines)) <= 100


def test_the_digest_counts_failures_beyond_five():
    result = jm.fit_groups(
        logit, {"beta": np.zeros(3)}, {"x": np.ones((7, 3)), "y": np.ones(7)}, by=np.arange(7)
    )
    assert repr(result).splitlines()[-1] == "and 2 more: see reasons()"
    assert len(result.reasons()) == 7


def test_a_sound_batch_has_a_sound_digest():
    text = repr(rates({"state": PARTITION, "year": np.full(8, 1)}))
    assert text.startswith("2 groups by state and year")
    assert "2 of 2 fits CONVERGED" in text
    assert repr(rates(np.zeros(8))).startswith("1 group by group")


CONSTANT = np.ones(20)


@pytest.mark.parametrize(
    "y", [CONSTANT[:1], CONSTANT[:2], CONSTANT], ids=["one row", "two equal rows", "constant"]
)
def test_a_group_without_spread_has_no_standard_deviation(y):
    """The likelihood grows without bound as sigma goes to zero; the group beside it is untouched."""
    rng = np.random.default_rng(0)
    n = 28 + len(y)
    data = {
        "x": np.column_stack([np.ones(n), rng.normal(size=(n, 2))]),
        "y": np.concatenate([rng.normal(size=28), y]),
    }
    label = np.repeat(["sound", "small"], [28, len(y)])
    result = jm.fit_groups(
        normal_regression_kernel,
        {"beta": np.zeros(3), "sigma": 1.0},
        data,
        by=label,
        constraints=POSITIVE,
    )
    assert result["small"].verdict == Status.UNBOUNDED
    assert np.isnan(result["small"].x).all()
    assert result["sound"].verdict == Status.CONVERGED


def test_a_group_of_no_weight_has_no_estimate():
    result = rates(PARTITION, weights=jm.frequency(PARTITION))
    assert result[0].verdict != Status.CONVERGED
    assert np.isnan(result[0].se).all()
    assert_array_equal(result.fits.n, [0, 4])
    assert_array_equal(result.n, [4, 4])


# ---------------------------------------------------------------- frames

COLUMNS = ["term", "estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high"]


def test_the_frame_is_that_of_the_fits_with_keys_and_reasons(troubled):
    pandas = pytest.importorskip("pandas")
    result, _ = troubled
    frame, plain = result.to_frame(backend="pandas"), result.fits.to_frame(backend="pandas")
    assert list(frame.columns) == ["group", "status", "reason", *COLUMNS]
    pandas.testing.assert_frame_equal(frame[["status", *COLUMNS]], plain[["status", *COLUMNS]])
    assert frame["group"].tolist() == [key for key, _ in result for _ in range(3)]
    reasons = result.reasons()
    assert frame["reason"].tolist() == [reasons.get(key, "") for key, _ in result for _ in range(3)]


@pytest.mark.parametrize("backend", ["pandas", "pyarrow"])
def test_keys_keep_their_kind_in_a_frame(backend):
    pytest.importorskip(backend)
    frame = rates(
        {"state": np.array(["b", "a"])[PARTITION], "year": np.full(8, 2020), "late": PARTITION == 0}
    ).to_frame(0.5, backend)
    columns = frame.to_dict("list") if backend == "pandas" else frame.to_pydict()
    assert list(columns) == ["state", "year", "late", "status", "reason", *COLUMNS]
    assert columns["state"] == ["a", "b"]
    assert columns["year"] == [2020, 2020]
    assert columns["late"] == [False, True]
    assert columns["reason"] == ["", ""]
    assert columns["term"] == ["rate", "rate"]


def test_a_key_named_like_a_column_gives_way():
    pytest.importorskip("pandas")
    frame = rates({"term": PARTITION, "reason": np.zeros(8, int), "member": PARTITION}).to_frame(
        backend="pandas"
    )
    assert list(frame.columns) == [
        "group_term",
        "group_reason",
        "member",
        "status",
        "reason",
        *COLUMNS,
    ]
    assert frame["group_term"].tolist() == [0, 1]
    assert frame["term"].tolist() == ["rate", "rate"]


def test_each_failure_is_explained_once(troubled, monkeypatch):
    pytest.importorskip("pandas")
    asked = []
    explain = jm.Fit.explain
    monkeypatch.setattr(jm.Fit, "explain", lambda fit: asked.append(fit) or explain(fit))
    troubled[0].to_frame()
    assert len(asked) == 5


# ---------------------------------------------------------------- bad input

DATA = {"y": Y, "site": np.array(list("abababab"))}
MISSING = np.array(["a", None] * 4, dtype=object)
LATE = np.array(["a"] * 7 + [np.nan], dtype=object)


@pytest.mark.parametrize(
    ("error", "says", "options"),
    [
        (ValueError, "NaN in row 2 (1 in all)", {"by": np.array([1, 1, np.nan, 1, 1, 1, 1, 1])}),
        (ValueError, "NaN in row 7", {"by": LATE}),
        (ValueError, "NaN in row 7", {"by": [1] * 7 + [float("nan")]}),
        (ValueError, "None in row 1 (4 in all)", {"by": MISSING}),
        (ValueError, "by['state'] is None in row 1", {"by": {"year": np.ones(8), "state": MISSING}}),
        (ValueError, "the 8 rows of data; got 7", {"by": np.ones(7)}),
        (ValueError, "by['year'] must hold one code for each of the 8 rows of data; got 9", {"by": {"year": np.ones(9)}}),
        (ValueError, "Give several keys as a dict", {"by": np.ones((8, 2))}),
        (ValueError, "got shape ()", {"by": 1}),
        (ValueError, "got shape ()", {"by": None}),
        (ValueError, "2.5 in row 3; floating-point codes must be integers", {"by": np.array([1, 2, 3, 2.5, 1, 1, 1, 1])}),
        (ValueError, "inf in row 0", {"by": np.full(8, np.inf)}),
        (ValueError, "below 2**53", {"by": np.full(8, 2.0**60)}),
        (ValueError, "more than 64 bits", {"by": [2**80] * 8}),
        (ValueError, "by='sit' is not a leaf of data; it has ['site', 'y']", {"by": "sit", "data": DATA}),
        (TypeError, "must then be a dict or a frame; got ndarray", {"by": "site", "data": Y}),
        (ValueError, "data contains only 'site'", {"by": "site", "data": {"site": DATA["site"]}}),
        (ValueError, "empty dict", {"by": {}}),
        (TypeError, "names of keys must be strings", {"by": {1: np.ones(8)}}),
        (TypeError, "mixes strings and numbers, which cannot be sorted: row 0 holds 'a', row 1 holds 1", {"by": ["a", 1] * 4}),
        (TypeError, "mixes numbers and booleans", {"by": [0, True] * 4}),
        (TypeError, "holds (1, 2) in row 0, a tuple", {"by": np.fromiter([(1, 2)] * 8, dtype=object)}),
        (TypeError, "holds 1j in row 4", {"by": [1, 2, 1, 2, 1j, 1, 2, 1]}),
        (TypeError, "dtype complex128", {"by": np.ones(8) * 1j}),
        (TypeError, "dates and bytes: .astype(str)", {"by": np.zeros(8, "datetime64[D]")}),
        (TypeError, "by is a masked array", {"by": np.ma.masked_equal(PARTITION, 1)}),
        (TypeError, "data['y'] is a masked array", {"data": {"y": np.ma.masked_less(Y, 2.0)}}),
        (TypeError, "clusters is a masked array", {"clusters": np.ma.masked_equal(PARTITION, 1)}),
        (TypeError, "data['site'] holds strings", {"data": DATA}),
        (ValueError, "data['z'] has 3 rows", {"data": {"y": Y, "z": np.ones(3)}}),
        (ValueError, "has no rows", {"data": {"y": Y[:0]}, "by": np.ones(0)}),
        (ValueError, "holds no array", {"data": None}),
        (ValueError, "weights must have shape (8,)", {"weights": jm.frequency(np.ones(7))}),
        (ValueError, "row 1 has -1", {"weights": jm.sampling(np.array([1.0, -1.0] * 4))}),
        (ValueError, "row 0 has 0.5", {"weights": jm.frequency(np.array([0.5, 1.0] * 4))}),
        (TypeError, "weights must be numbers", {"weights": jm.frequency("site")}),
        (TypeError, "weights", {"weights": np.ones(8)}),
        (ValueError, "each of the 8 rows", {"clusters": np.ones(7)}),
        (ValueError, "NaN in row 1", {"clusters": np.array([1.0, np.nan] * 4)}),
        (ValueError, "two-way clusters are not", {"clusters": np.ones((8, 2))}),
        (ValueError, "the start of rate must be", {"params0": {"rate": -1.0}}),
        (ValueError, "params0 is missing", {"params0": None}),
        (ValueError, "vcov", {"vcov": "hc9"}),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_error_before_the_likelihood_is_looked_at(error, says, options):
    call = {
        "params0": RATE,
        "data": {"y": Y},
        "by": PARTITION,
        "constraints": {"rate": jm.positive},
    } | options
    with pytest.raises(error) as told:
        jm.fit_groups(never, **call)
    assert says in str(told.value)


def test_rows_of_a_pool_have_no_groups():
    both = jm.pool(exponential, exponential)
    with pytest.raises(ValueError, match="pool"):
        jm.fit_groups(both, RATE, ({"y": Y}, {"y": Y}), by=PARTITION)


def test_groups_are_not_cut_inside_jit():
    with pytest.raises(TypeError, match="cannot run inside jit"):
        jax.jit(lambda y: jm.fit_groups(exponential, RATE, {"y": y}, by=PARTITION).fits.loglik)(Y)


def test_a_group_whose_rows_are_all_missing_stays_in_the_result_with_its_reason():
    pytest.importorskip("formulaic")
    table = {
        "y": np.arange(8.0),
        "x": np.array([0.0, 1, 0, 1, np.nan, np.nan, 0, 1]),
        "g": list("aabbccdd"),
        "k": [1] * 8,
    }
    found = jm.fit_groups(
        jm.models.poisson(),
        None,
        table,
        by=["g", "k"],
        formula="y ~ x",
        missing="drop",
        progress=False,
    )
    assert [key for key, _ in found] == [("a", 1), ("b", 1), ("c", 1), ("d", 1)]
    assert found.n.tolist() == [2, 2, 0, 2]
    assert str(found["c", 1].status) == "NONFINITE"
    assert np.all(np.isnan(found["c", 1].x))
    assert "every row of this group" in found.reasons()["c", 1].lower()
    assert "no row" in found["c", 1].explain()
    assert found["d", 1].converged
