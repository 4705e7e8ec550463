"""Every built-in model against data in another coding: one error with what came, what is wanted and the line that recodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import families, models

RNG = np.random.default_rng(11)
N = 40
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
ONE = np.arange(N) % 2  # 0, 1, 0, 1, …
THREE = np.arange(N) % 3
TIME = RNG.exponential(size=N) + 0.1
GOOD = {"x": X, "z": X, "time": TIME, "event": ONE, "trials": np.full(N, 3), "years": np.ones(N)}

BINARY = [
    ("minus one and one", 2 * ONE - 1, r"'y'\] is -1 in row 0 \(20 such values\); {} takes 0 and 1.* Write y = \(y \+ 1\) / 2"),
    ("one and two", ONE + 1, r"is 2 in row 1 .* Write y = \(y == 2\)\.astype\(float\)"),
    ("zero and seven", 7 * ONE, r"is 7 in row 1 .* y = \(y == 7\)"),
    ("percent", np.linspace(0, 100, N), r"is 2.5641 in row 1 .* y = y / 100"),
    ("words", np.where(ONE == 1, "yes", "no"), r"holds strings: 'no' in row 0.*astype\(float\) for two"),
    ("objects", np.where(ONE == 1, "yes", "no").astype(object), r"'no' in row 0.*astype\(float\) for two"),
]  # fmt: skip
CLASSES = [
    ("from one", THREE + 1, r"is 3 in row 2 .* takes the classes 0 … 2.* Write y = y - 1"),
    ("missing", THREE - 1, r"is -1 in row 0 .* pandas' code for a missing value"),
    ("halves", THREE / 2, r"is 0.5 in row 1 .* numpy.unique\(y, return_inverse=True\)"),
    ("gaps", 2 * THREE, r"is 4 in row 2 .* numpy.unique"),
    ("too many", np.arange(N) % 5, r"is 3 in row 3 .* classes=5"),
]  # fmt: skip
COUNTS = [
    ("negative", THREE - 1, r"is -1 in row 0 .* takes integers, 0 or more.* y < 0"),
    ("fractions", THREE + 0.5, r"is 0.5 in row 0 .* y = rate \* exposure"),
    ("infinite", np.where(ONE == 1, np.inf, 1.0), "is inf in row 1"),
]
POSITIVE = [
    ("zero", 1.0 * THREE, r"is 0 in row 0 .* finite numbers above 0.* not 0 < y < inf"),
    ("negative", THREE - 1.0, "is -1 in row 0"),
]
EVENTS = [
    ("one and two", ONE + 1, r"'event'\] is 2 in row 1 .* event = \(event == 2\)\.astype\(int\)"),
    ("halves", 0.5 * ONE, r"is 0.5 in row 1"),
    ("seven", 7 * ONE, r"is 7 in row 1 .* event = \(event == 7\)"),
]
TIMES = [
    ("zero", "time", TIME * ONE, r"'time'\] is 0 in row 0"),
    ("negative", "time", -TIME, r"'time'\] is -.* in row 0 \(40 such values\)"),
]


def cases():
    for name in ("logistic", "probit", "cloglog"):
        for what, y, words in BINARY:
            yield name, what, getattr(models, name)(), {"y": y}, words.replace("{}", name)
    for name, model in (("multinomial", models.multinomial(3)), ("ordinal", models.ordinal(3))):
        for what, y, words in CLASSES:
            yield name, what, model, {"y": y}, words
    counted = {
        "negative_binomial": models.negative_binomial(),
        "zero_inflated": models.zero_inflated(),
        "zero_inflated_nb": models.zero_inflated("negative_binomial"),
        "hurdle": models.hurdle(),
        "hurdle_nb": models.hurdle("negative_binomial"),
        "binomial": models.binomial(),
    }
    for name, model in counted.items():
        for what, y, words in COUNTS:
            yield name, what, model, {"y": y}, words
    for name in ("gamma", "inverse_gaussian"):
        for what, y, words in POSITIVE:
            yield name, what, getattr(models, name)(), {"y": y}, words
    for name, model in (("cox", models.cox()), ("aft", models.aft("weibull"))):
        for what, event, words in EVENTS:
            yield name, what, model, {"event": event}, words
    for law in ("exponential", "weibull", "lognormal", "loglogistic"):
        for what, leaf, time, words in TIMES:
            yield law, what, models.aft(law), {leaf: time}, words
    late = {"entry": TIME + 0.5}
    bad_upper = {"event": np.full(N, 3), "upper": TIME / 2}
    yield "poisson", "negative", models.poisson(), {"y": THREE - 1}, "finite numbers, 0 or more"
    yield (
        "poisson",
        "exposure",
        models.poisson(exposure="years"),
        {"y": THREE, "years": ONE},
        r"'years'\] is 0 in row 0",
    )
    yield (
        "poisson",
        "offset",
        models.poisson(offset="years"),
        {"y": THREE, "years": np.log(ONE, where=ONE > 0, out=np.full(N, -np.inf))},
        r"'years'\] is -inf in row 0",
    )
    yield (
        "binomial",
        "beyond trials",
        models.binomial(),
        {"y": 4 * ONE},
        r"is 4 in row 1 .*, where trials is 3; y counts the successes",
    )
    yield (
        "beta",
        "ends",
        models.beta(),
        {"y": 1.0 * ONE},
        r"is 0 in row 0 .* strictly between 0 and 1.*\(len\(y\) - 1\) \+ 0.5",
    )
    yield "beta", "percent", models.beta(), {"y": np.linspace(1, 99, N)}, r"y = y / 100"
    yield (
        "truncated",
        "beyond",
        models.truncated(),
        {"y": ONE - 0.5},
        r"is -0.5 in row 0 .* models.tobit",
    )
    yield (
        "cox",
        "entry",
        models.cox(entry="entry"),
        late,
        r"'entry'\] is .* in row 0 .*, where time is .* entry must be before the time",
    )
    yield (
        "aft",
        "entry",
        models.aft("weibull", entry="entry"),
        late,
        r"'entry'\] is .* entry must be before the time",
    )
    yield (
        "aft",
        "interval",
        models.aft("weibull", upper="upper"),
        bad_upper,
        "the lower end of an interval is in time",
    )
    yield (
        "aft",
        "code 3 alone",
        models.aft("weibull"),
        {"event": 3 * ONE},
        r"is 3 in row 1 .*\(3 needs upper=\)",
    )
    yield (
        "cox",
        "strata",
        models.cox(strata="s"),
        {"s": ONE - 1},
        r"'s'\] is -1 in row 0 .* pandas' code",
    )
    yield (
        "cox",
        "strata",
        models.cox(strata="s"),
        {"s": ONE + 0.5},
        r"'s'\] is 0.5 in row 0 .* numpy.unique",
    )
    yield "cox", "weights", models.cox(weights="w"), {"w": -1.0 * ONE}, r"'w'\] is -1 in row 1"
    yield (
        "distribution",
        "support",
        models.distribution(families.gamma),
        {"only": -TIME},
        "data is -.* in row 0 .* takes numbers from 0 on",
    )
    yield (
        "distribution",
        "proportion",
        models.distribution(families.beta),
        {"only": {"y": 20 * TIME}},
        r"data\['y'\] is .*; beta takes numbers from 0 to 1",
    )
    yield (
        "distribution",
        "event",
        models.distribution(families.censored(families.weibull)),
        {"only": {"time": TIME, "event": ONE + 1}},
        r"event = \(event == 2\)",
    )


CASES = [(f"{name}, {what}", *rest) for name, what, *rest in cases()]


@pytest.mark.parametrize(
    ("model", "change", "words"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_a_response_in_another_coding_is_refused_and_not_fitted(model, change, words):
    data = change.get("only", {**GOOD, **change})
    with pytest.raises((ValueError, TypeError), match=words):
        jm.fit(model, data=data)


def matched(y, **more):
    return {"x": X[:, 1:].reshape(20, 2, 1), "y": y.reshape(20, 2), **more}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (matched(ONE + 1), r"is 2 in row 0, column 1 .* \(y == 2\)"),
        (matched(np.ones(N)), "the stratum of row 0 has 2 cases; .* cases=2"),
        (matched(ONE, real=np.full((20, 2), 2)), r"'real'\] is 2 in row 0"),
    ],
)
def test_matched_sets_in_another_coding_are_refused(data, words):
    model = models.conditional_logit(real="real" if "real" in data else None)
    with pytest.raises(ValueError, match=words):
        jm.fit(model, data=data)


# ---------------------------------------------------------------- every door

WRONG = {"x": X, "y": ONE + 1}
RIGHT = {"x": X, "y": ONE}
BETA = {"beta": np.zeros(2)}
LOGIT = models.logistic()


@pytest.mark.parametrize(
    "ask",
    [
        lambda: LOGIT.start(WRONG),
        lambda: LOGIT.check(WRONG),
        lambda: LOGIT(BETA, WRONG),
        lambda: jm.fit(LOGIT, BETA, WRONG),
        lambda: jm.fit(LOGIT, BETA, WRONG, weights=jm.frequency(ONE)),
        lambda: jm.fit(jm.fix(LOGIT, {"beta[0]": 0.0}), BETA, WRONG),
        lambda: jm.fit(jm.penalize(jm.tie(LOGIT, ("beta[0]", "beta[1]")), jm.ridge(1.0)), BETA, WRONG),
        lambda: jm.fit(jm.pool(LOGIT, LOGIT), BETA, (RIGHT, WRONG)),
        lambda: jm.fit_batch(LOGIT, None, {"x": np.stack([X, X]), "y": np.stack([ONE, ONE + 1])}),
        lambda: jm.fit_batch(LOGIT, None, {"x": X, "y": np.stack([ONE, ONE + 1])}, in_axes={"x": None, "y": 0}),
        lambda: jm.fit_batch(LOGIT, BETA, [RIGHT, {"x": X[:30], "y": ONE[:30] + 1}]),
        lambda: jm.fit_groups(LOGIT, None, {**WRONG, "g": THREE}, by="g"),
        lambda: jm.multistart(LOGIT, {"beta": np.zeros((2, 2))}, WRONG),
        lambda: jm.em(jm.mixture_of(LOGIT, 2), data=WRONG, starts=1),
        lambda: jm.score(LOGIT)(BETA, WRONG),
        lambda: jm.vcov(LOGIT)(BETA, WRONG),
        lambda: jax.jit(lambda beta: jm.fit(LOGIT, {"beta": beta}, WRONG).loglik)(jnp.zeros(2)),
    ],
)  # fmt: skip
def test_every_door_asks(ask):
    with pytest.raises(ValueError, match=r"'y'\] is 2 in row \d+.*; logistic takes 0 and 1"):
        ask()


def test_a_batch_of_starts_that_shares_its_data_asks_the_model_inside_a_function():
    """It ended in StopIteration: no leaf of the data told the number of members."""
    starts = {"beta": np.zeros((2, 2))}
    options = {"params_axis": 0, "in_axes": None, "progress": False}

    def inside(params, data):
        return LOGIT(params, data)

    fits = jm.fit_batch(inside, starts, RIGHT, **options)
    alone = jm.fit(inside, BETA, RIGHT)
    assert_allclose(fits.params["beta"], [alone.params["beta"]] * 2, rtol=1e-8)  # both converged
    wrong = r"'y'\] is 2 in row \d+.*; logistic takes 0 and 1"
    for ask in (jm.fit_batch, jm.multistart):
        given = options if ask is jm.fit_batch else {"progress": False}
        with pytest.raises(ValueError, match=wrong):
            ask(inside, starts, WRONG, **given)


def test_the_member_and_its_row_are_named():
    y = np.stack([ONE, ONE, ONE])
    y[2, 5] = 4
    with pytest.raises(ValueError, match="is 4 in row 5 of member 2;"):
        jm.fit_batch(LOGIT, None, {"x": np.stack([X] * 3), "y": y})
    with pytest.raises(ValueError, match="is 4 in row 5 of member 2;"):
        jm.fit_batch(LOGIT, None, [{"x": X, "y": one} for one in y])
    with pytest.raises(ValueError, match=r"is 4 in row 9 of the table \(member 1\);"):
        jm.fit_groups(
            LOGIT, None, {"x": X, "y": np.where(np.arange(N) == 9, 4, ONE), "g": ONE}, by="g"
        )


def test_what_is_coded_so_is_fitted():
    truth = jm.fit(LOGIT, data={"x": X, "y": 1.0 * ONE}).params["beta"]
    for y in (ONE, ONE.astype(bool), ONE.astype(np.int8), ONE.astype(np.uint64)):
        assert_allclose(jm.fit(LOGIT, data={"x": X, "y": y}).params["beta"], truth, rtol=1e-12)


def test_a_missing_row_is_a_matter_of_its_member():
    y = np.stack([1.0 * ONE, 1.0 * ONE])
    y[1, 3] = np.nan
    fits = jm.fit_batch(LOGIT, None, {"x": np.stack([X, X]), "y": y}, progress=False)
    assert [jm.Status(s).name for s in fits.status] == ["CONVERGED", "NONFINITE"]


STRATA = np.repeat([0.0, 1.0], N // 2)
LATE = np.zeros(N)
COX = models.cox(entry="entry", strata="strata")
SURVIVAL = GOOD | {"entry": LATE, "strata": STRATA}
MISSING = {
    "the time of a Cox model": (models.cox(), "time", SURVIVAL),
    "the event of a Cox model": (models.cox(), "event", SURVIVAL),
    "the entry of a Cox model": (COX, "entry", SURVIVAL),
    "the stratum of a Cox model": (COX, "strata", SURVIVAL),
    "the entry of an AFT model": (models.aft("weibull", entry="entry"), "entry", SURVIVAL),
    "the count of a hurdle model": (models.hurdle(), "y", GOOD | {"y": 1.0 * THREE}),
    "the count of a negative binomial hurdle": (models.hurdle("negative_binomial"), "y", GOOD | {"y": 1.0 * THREE}),
}  # fmt: skip


@pytest.mark.parametrize("case", MISSING)
def test_a_missing_number_that_is_only_compared_was_taken_for_one(case):
    """NaN > 0 is False, and sorting puts NaN last: the likelihood was finite, and in a batch the member CONVERGED."""
    model, leaf, data = MISSING[case]
    params = model.start(data)
    assert np.all(np.isfinite(model(params, data)))
    missing = data | {leaf: np.where(np.arange(N) == 3, np.nan, data[leaf])}
    assert np.isnan(np.sum(model(params, missing)))


def test_a_member_with_a_missing_time_was_converged():
    times = np.stack([TIME, np.where(np.arange(N) == 3, np.nan, TIME)])
    data = {"x": np.stack([X[:, 1:]] * 2), "time": times, "event": np.stack([ONE] * 2)}
    fits = jm.fit_batch(models.cox(), None, data, progress=False)
    assert [jm.Status(s).name for s in fits.status] == ["CONVERGED", "NONFINITE"]


def test_events_and_left_censored_times_alone_are_fitted_where_that_is_said():
    """Codes 1 and 2 are censored and dead in older software; a likelihood of both readings exists."""
    data = {"x": X, "time": TIME, "event": ONE + 1}
    with pytest.raises(ValueError, match="left_censored=True"):
        jm.fit(models.aft("lognormal"), data=data)
    fit = jm.fit(models.aft("lognormal", left_censored=True), data=data)
    assert fit.converged
    assert (
        fit.params["beta"][0]
        < jm.fit(models.aft("lognormal"), data={**data, "event": np.ones(N)}).params["beta"][0]
    )


def test_a_limit_is_a_number_and_infinity_is_written_so():
    with pytest.raises(TypeError, match="got None. No limit is lower=-inf"):
        models.tobit(lower=None)
    with pytest.raises(ValueError, match=r"upper is 1e\+300; no limit is upper=inf"):
        models.truncated(upper=1e300)


# ---------------------------------------------------------------- inside of a user's function

LOGISTIC = models.logistic()
RAISED = jax.jit(lambda p, d: LOGISTIC(p, d))
WITHIN = {
    "a lambda": lambda p, d: LOGISTIC(p, d),
    "weights inside": lambda p, d: jm.weight(LOGISTIC, jm.frequency(np.ones(N, int)))(p, d),
    "vmap": lambda p, d: jax.vmap(
        lambda row: LOGISTIC(p, jax.tree.map(lambda leaf: leaf[None], row))[0]
    )(d),
    "a loop over rows": lambda p, d: jax.lax.map(
        lambda row: LOGISTIC(p, jax.tree.map(lambda leaf: leaf[None], row))[0], d
    ),
    "jit inside": lambda p, d: jax.jit(lambda p, d: LOGISTIC(p, d))(p, d),
    "jit outside": RAISED,
    "checkpoint": lambda p, d: jax.checkpoint(LOGISTIC)(p, d),
    "other names": lambda p, d: LOGISTIC(p, {"x": d["x"], "y": 1.0 * d["y"]}),
    "a mixture": lambda p, d: jnp.logaddexp(LOGISTIC(p, d), LOGISTIC({"beta": p["beta"] + 1}, d)),
    "a sum": lambda p, d: jnp.sum(LOGISTIC(p, d)),
    "a penalty": jm.penalize(lambda p, d: LOGISTIC(p, d), jm.ridge(0.1)),
    "its likelihood": lambda p, d: LOGISTIC.likelihood(p, d),
}
AT = {"beta": np.zeros(2)}
NOISY = (RNG.uniform(size=N) < 1 / (1 + np.exp(-X[:, 1]))).astype(float)
TRUTH = jm.fit(LOGISTIC, data={"x": X, "y": NOISY})


@pytest.mark.parametrize("form", WITHIN)
def test_classes_one_and_two_in_a_model_that_a_function_calls_gave_a_number(form):
    """The symptom: CONVERGED or UNBOUNDED, where the model alone refuses."""
    for other in (NOISY + 1, 2 * NOISY - 1):
        with pytest.raises(ValueError, match=r"data\['y'\] is (2|-1) in row .* Write y = \(y"):
            jm.fit(WITHIN[form], AT, {"x": X, "y": other})
    assert jm.fit(WITHIN[form], AT, {"x": X, "y": NOISY}).converged


def test_what_a_function_recodes_itself_is_right():
    for loglik in (
        lambda p, d: LOGISTIC(p, {**d, "y": d["y"] - 1}),
        lambda p, d: LOGISTIC(p, {**d, "y": d["y"] == 2}),
    ):
        fit = jm.fit(loglik, AT, {"x": X, "y": NOISY + 1})
        assert_allclose(fit.x, TRUTH.x, atol=1e-8)
    with pytest.raises(ValueError, match="is 2 in row 0 .40 such"):
        jm.fit(lambda p, d: LOGISTIC(p, {**d, "y": 2 * d["y"]}), AT, {"x": X, "y": NOISY + 1})


def test_rows_that_a_function_masks_may_hold_anything():
    y = np.where(np.arange(N) % 5 == 0, 7.0, NOISY)
    rest = np.arange(N) % 5 != 0
    truth = jm.fit(LOGISTIC, data={"x": X[rest], "y": NOISY[rest]})
    masked = jm.fit(lambda p, d: jnp.where(d["y"] < 2, LOGISTIC(p, d), 0.0), AT, {"x": X, "y": y})
    assert_allclose(masked.x, truth.x, atol=1e-8)
    with pytest.raises(ValueError, match="is 7 in row 0 "):
        jm.fit(lambda p, d: jnp.where(d["x"][:, 1] < 9, LOGISTIC(p, d), 0.0), AT, {"x": X, "y": y})


@pytest.mark.parametrize("kind", ["stacked", "shared", "ragged", "ragged and mixing rows"])
def test_a_member_in_another_coding_is_named(kind):
    def loglik(p, d):
        if kind == "ragged and mixing rows":
            d = {**d, "y": d["y"] - jnp.min(d["y"])}
        return LOGISTIC(p, d)

    y = [NOISY, NOISY, 2 * NOISY + 1]
    if kind.startswith("ragged"):
        data, axes = [{"x": X[:-k], "y": one[:-k]} for k, one in enumerate(y, 1)], 0
    elif kind == "shared":
        data, axes = {"x": X, "y": np.stack(y)}, {"x": None, "y": 0}
    else:
        data, axes = {"x": np.stack([X] * 3), "y": np.stack(y)}, 0
    with pytest.raises(ValueError, match=r"is \d in row \d+ of member 2 "):
        jm.fit_batch(loglik, AT, data, in_axes=axes, progress=False)


def test_events_one_and_two_in_a_family_and_a_model_that_a_function_calls():
    event = np.where(ONE == 1, 2, 1)
    censored = families.censored(families.exponential)
    with pytest.raises(ValueError, match=r"'event'\] is 2 in row 1"):
        jm.fit(lambda p, d: censored(p, d), {"rate": 1.0}, {"time": TIME, "event": event})
    cox = models.cox()
    with pytest.raises(ValueError, match=r"'event'\] is 2 in row 1"):
        data = {"x": X[:, 1:], "time": TIME, "event": event}
        jm.fit(lambda p, d: cox(p, d), {"beta": np.zeros(1)}, data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": None}, r"data\['y'\] is None; give an array"),
        ({"x": None}, r"data\['x'\] is None; give an array"),
        ({"y": 1.0 * ONE[:, None]}, r"data\['y'\] has shape \(40, 1\); .* y\[:, 0\]"),
        ({"y": 1.0 * ONE[:5]}, "y.* has 5 rows"),
        ({"y": 1.0 * ONE[:0], "x": X[:0]}, "no rows"),
    ],
    ids=["no response", "no design", "column", "short", "no rows"],
)
@pytest.mark.parametrize("name", ["poisson", "logistic"])
def test_a_response_that_is_no_column_of_numbers_was_an_error_of_numpy(name, change, words):
    with pytest.raises((ValueError, TypeError), match=words):
        jm.fit(getattr(models, name)(), data={"x": X, "y": 1.0 * ONE} | change)


def test_one_column_against_several_coefficients_was_an_error_of_broadcasting():
    with pytest.raises(ValueError, match=r"one column of shape \(40,\).*\(2,\).*\[:, None\]"):
        jm.fit(models.multinomial(3), data={"x": X[:, 1], "y": THREE})
