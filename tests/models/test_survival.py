"""Survival models in every kind of censoring, truncation and tie, against R's survival 3.5.3 (R 4.2.2) on the lung data.

The data of R: ``month <- ceiling(time/30)``, ``entry <- ifelse(age > 60, floor(month/3), 0)``, ``w <- 1 + age %% 3``. The numbers are
checked where R's estimates stand: there the score is zero, the inverse information has R's standard errors, and the log-likelihood is R's.
"""

import itertools

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import models
from jaxmle.models.proportional_hazards import CoxOptions, cox_loglik, second_order
from jaxmle.models.time_order import time_order

LUNG = jm.datasets.load("lung").data
MONTH = np.ceil(LUNG["time"] / 30)
AGE_SEX = np.column_stack([LUNG["age"], LUNG["sex"]])
COX = {
    "x": AGE_SEX,
    "time": MONTH,
    "event": LUNG["death"],
    "ecog": LUNG["ecog"].astype(int),
    "entry": np.where(LUNG["age"] > 60, np.floor(MONTH / 3), 0.0),
    "w": 1.0 + LUNG["age"] % 3,
}

# options of cox(), coefficients, standard errors, partial log-likelihood; coxph(Surv(month, death) ~ age + sex, …)
R_COX = [
    ({"ties": "efron"}, [0.0174426927521983, -0.5188984852022896], [0.00921012148540546, 0.16776281623100958], -739.645327312426),
    ({"ties": "breslow"}, [0.0167519866560119, -0.5074992492068029], [0.0091928620719012, 0.1677757424486234], -745.796215522442),
    ({"ties": "efron", "strata": "ecog"}, [0.0106553984750297, -0.5711751075856908], [0.00922324636381634, 0.1708004919434814], -562.867376512414),
    ({"ties": "efron", "entry": "entry"}, [0.0341490661595509, -0.4856116005404719], [0.0093538126584213, 0.168163365830103], -710.087114227157),
    (
        {"ties": "breslow", "entry": "entry", "strata": "ecog"},
        [0.0242993537637759, -0.4977149837617866], [0.00931950169602135, 0.17272813349529195], -542.445478537330,
    ),
    ({"ties": "efron", "weights": "w"}, [0.0103901163039411, -0.4685551343543661], [0.00611572403354944, 0.11654431086041657], -1783.68735756571),
    ({"ties": "breslow", "weights": "w"}, [0.00993671631866263, -0.45717192035635551], [0.00610744494101321, 0.11653075203069564], -1796.40889211977),
]  # fmt: skip


def assert_maximum(model, params, data, stderr, loglik):
    """At a maximum of R: no score (in standard errors), its standard errors, its log-likelihood."""
    value, _, score, hessian = jm.evaluate(model, params, data)
    vcov = np.linalg.inv(-hessian)
    assert_allclose(np.sqrt(np.diag(vcov)), stderr, rtol=1e-6)
    assert_allclose(vcov @ score / stderr, 0.0, atol=1e-6)
    assert_allclose(value, loglik, rtol=1e-11)


@pytest.mark.parametrize(
    ("options", "beta", "stderr", "loglik"),
    R_COX,
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_cox_is_that_of_coxph(options, beta, stderr, loglik):
    assert_maximum(
        models.cox(**options), {"beta": np.asarray(beta)}, COX, np.asarray(stderr), loglik
    )


def test_a_breslow_weight_of_two_is_the_row_twice():
    model, few = (
        models.cox(ties="breslow", weights="w"),
        {key: value[:20] for key, value in COX.items()},
    )
    w = few["w"].astype(int)
    twice = {key: np.repeat(value, w, axis=0) for key, value in few.items()} | {
        "w": np.ones(w.sum())
    }
    beta = {"beta": np.array([0.02, -0.4])}
    assert_allclose(
        jm.evaluate(model, beta, few).value, jm.evaluate(model, beta, twice).value, rtol=1e-12
    )


def test_cox_refuses_what_needs_one_term_a_row():
    with pytest.raises(ValueError, match="scalar"):
        jm.fit(models.cox(entry="entry"), data=COX, weights=jm.sampling(COX["w"]))


@pytest.mark.parametrize("ties", ["efron", pytest.param("breslow", marks=pytest.mark.thorough)])
def test_the_derivatives_that_cox_brings_are_those_of_its_likelihood(ties):
    options = CoxOptions(ties, "ecog", None, "w", "offset")
    data = {**COX, "offset": 0.01 * LUNG["age"]}
    with jax.enable_x64(True):
        beta = np.array([0.02, -0.4])

        def of_beta(beta):
            return cox_loglik({"beta": beta}, data, options)

        value, score, hessian = jax.jit(lambda b: second_order({"beta": b}, data, options))(beta)
        assert_allclose(value, jax.jit(of_beta)(beta), rtol=1e-13)
        assert_allclose(score, jax.jit(jax.grad(of_beta))(beta), rtol=1e-9)
        assert_allclose(hessian, jax.jit(jax.hessian(of_beta))(beta), rtol=1e-10)


# Deaths in turn exact, left censored and interval censored: ev = 0 if alive, else (1, 2, 3, 3) by row number modulo 4 = (0, 1, 2, 3).
TURN = np.array([1.0, 2.0, 3.0, 3.0])[np.arange(1, len(MONTH) + 1) % 4]
KIND = np.where(LUNG["death"] == 0, 0.0, TURN)
INTERVALS = {
    "x": np.column_stack([np.ones(len(MONTH)), AGE_SEX]),
    "time": np.where(KIND == 3, np.maximum(MONTH - 1, 0.5), MONTH),
    "upper": np.where(KIND == 3, MONTH + 1, MONTH),
    "event": KIND,
}

# survreg(Surv(time, upper, event, type = "interval") ~ age + sex): coefficients, scale, standard errors (the last of log scale)
R_AFT = {
    "exponential": (
        [2.9126339913795158, -0.0155137359872844, 0.4696643952490533], None, [0.63583580320660305, 0.00906015755965031, 0.16870247710193034],
        -440.564850474239,
    ),
    "weibull": (
        [2.857136830833761, -0.013116456391424, 0.403408290994246], 0.825743124073776,
        [0.52576685822848190, 0.00755504391416047, 0.14121005748463411, 0.07118923547900344], -437.285298284004,
    ),
    "lognormal": (
        [2.7413442199655313, -0.0189014455819943, 0.4625774501982673], 0.998109075356909,
        [0.58233128959924829, 0.00823228173614321, 0.15298403865412041, 0.06767824251366870], -438.806158506060,
    ),
    "loglogistic": (
        [2.5720568305165430, -0.0159257340491174, 0.4696645498380344], 0.589105242090894,
        [0.57322124154569909, 0.00826341568581158, 0.15155289772504477, 0.07497265856443099], -439.991281318611,
    ),
}  # fmt: skip


@pytest.mark.parametrize("law", R_AFT)
def test_interval_censored_times_are_those_of_survreg(law):
    beta, scale, stderr, loglik = R_AFT[law]
    params = {"beta": np.asarray(beta)} | ({} if scale is None else {"scale": np.float64(scale)})
    user = np.asarray(stderr) * (1 if scale is None else np.array([1, 1, 1, scale]))
    assert_maximum(models.aft(law, upper="upper"), params, INTERVALS, user, loglik)


def test_a_left_truncated_term_is_divided_by_the_probability_of_being_seen():
    params = {"beta": np.array([2.5, -0.01, 0.3]), "scale": np.float64(0.8)}
    late = np.where(np.arange(len(MONTH)) % 2 == 0, 0.0, 0.4 * INTERVALS["time"])
    data = {**INTERVALS, "entry": late}
    whole, seen = (
        models.aft("weibull", upper="upper"),
        models.aft("weibull", upper="upper", entry="entry"),
    )
    survival = -((late * np.exp(-(data["x"] @ params["beta"]))) ** (1 / params["scale"]))
    value = jm.evaluate(seen, params, data).value
    assert_allclose(value, jm.evaluate(whole, params, data).value - survival.sum(), rtol=1e-12)


def test_an_unknown_event_code_is_not_taken_for_a_known_one():
    data = {**INTERVALS, "event": np.where(np.arange(len(KIND)) == 7, 5.0, KIND)}
    with pytest.raises(ValueError, match="is 5 in row 7; .* 3 for between two times"):
        jm.fit(models.aft("weibull", upper="upper"), data=data)


def test_a_tobit_censored_on_both_sides_is_that_of_survreg():
    """month cut to [3, 20], dist = "gaussian"."""
    params = {
        "beta": np.array([10.9597534930580309, -0.0571794067008027, 1.9688543278557804]),
        "sigma": np.float64(6.8496343423276),
    }
    stderr = np.array(
        [
            3.6470802043301394,
            0.0515311606949596,
            0.9550940604701479,
            6.8496343423276 * 0.0574154512315558,
        ]
    )
    assert_maximum(
        models.tobit(lower=3, upper=20),
        params,
        {"x": INTERVALS["x"], "y": np.clip(MONTH, 3, 20)},
        stderr,
        -642.372035230363,
    )


def test_conditional_logit_with_several_cases_is_the_sum_over_all_choices():
    rng = np.random.default_rng(3)
    x, beta = rng.normal(size=(6, 5, 2)), np.array([0.4, -0.7])
    y = np.array([np.arange(5) < m for m in (0, 1, 2, 3, 2, 5)], float)
    real = np.ones((6, 5))
    real[4, 4] = 0.0
    terms = []
    for s in range(6):
        members = np.flatnonzero(real[s])
        eta, cases = x[s] @ beta, np.flatnonzero(y[s])
        choices = [
            np.exp(eta[list(choice)].sum())
            for choice in itertools.combinations(members, len(cases))
        ]
        terms.append(eta[cases].sum() - np.log(sum(choices)))
    model = models.conditional_logit(cases=5, real="real")
    assert_allclose(
        jm.evaluate(model, {"beta": beta}, {"x": x, "y": y, "real": real}).value,
        sum(terms),
        rtol=1e-12,
    )


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("times", [30, 4000, 10**9])
@pytest.mark.parametrize("n", [300, 2**14 + 5])
def test_ties_are_added_up_whole_and_give_the_derivatives_of_the_likelihood(n, times, ties):
    """Above 2**14 rows a sixteenth of so many ties at a time: one turn, several, or all."""
    rng = np.random.default_rng(5)
    data = {
        "x": rng.normal(size=(n, 2)),
        "time": rng.integers(1, times, n) / 7.0,
        "event": rng.integers(0, 2, n) * 1.0,
        "stratum": rng.integers(0, 3, n),
        "w": rng.random(n) + 0.5,
    }
    options = CoxOptions(ties, "stratum", None, "w", None)

    def of_beta(beta, data):
        return cox_loglik({"beta": beta}, data, options)

    def three(beta, data):
        by_ties = second_order({"beta": beta}, data, options)
        return by_ties, jax.value_and_grad(of_beta)(beta, data), jax.hessian(of_beta)(beta, data)

    with jax.enable_x64(True):
        found, (value, score), hessian = jax.jit(three)(np.array([0.02, -0.4]), data)
        assert_allclose(found[0], value, rtol=1e-13)
        assert_allclose(found[1], score, rtol=1e-9)
        assert_allclose(found[2], hessian, rtol=1e-10)


ORDERED_TIMES = {
    "with ties": lambda rng, n: rng.choice([-np.inf, -2.5, -1e-300, 0.0, 1e-300, 3.0, np.inf], n),
    "zeros of both signs": lambda rng, n: rng.choice([-0.0, 0.0], n),
    "continuous": lambda rng, n: rng.exponential(size=n),
    "one value": lambda rng, n: np.ones(n),
    # the last bits alone tell these apart, which the first sort does not see
    "next to one another": lambda rng, n: 1.0 + rng.permutation(n) * 2.0**-52,
    "far from one another": lambda rng, n: rng.exponential(size=n) ** 9 * rng.choice([1, 1e300], n),
}


@pytest.mark.parametrize("n", [1, 2, 300])
@pytest.mark.parametrize("times", ORDERED_TIMES.values(), ids=ORDERED_TIMES)
def test_rows_are_in_the_order_of_time_with_events_first(times, n):
    rng = np.random.default_rng(6)
    time = times(rng, n)
    event = rng.integers(0, 2, n) * 1.0
    ordered = jax.jit(lambda time, event: time_order(None, time, event))
    with jax.enable_x64(True):
        order = np.asarray(ordered(time, event))
    assert np.array_equal(order, np.lexsort((np.arange(n), -event, time)))
