"""Kaplan–Meier, Nelson–Aalen and Aalen–Johansen against closed forms, the printed numbers of R's survival, statsmodels and lifelines."""

from __future__ import annotations

import lifelines
import numpy as np
import pytest
from numpy.testing import assert_allclose
from statsmodels.duration.survfunc import CumIncidenceRight, SurvfuncRight

import jaxmle as jm
from jaxmle.survival import (
    EmptyRiskSetWarning,
    aalen_johansen,
    cause_specific,
    kaplan_meier,
    nelson_aalen,
)

LUNG = jm.datasets.load("lung").data

# Remission times of Freireich et al. (1963), 6-MP group: Klein & Moeschberger (2003), table 4.1; Cox & Oakes (1984), table 1.1.
REMISSION = np.array([6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35])
RELAPSE = np.array([1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0])
# (time, S, standard error), printed there with three decimals
KLEIN_MOESCHBERGER = [
    (6, 0.857, 0.076), (7, 0.807, 0.087), (10, 0.753, 0.096), (13, 0.690, 0.107), (16, 0.627, 0.114),
    (22, 0.538, 0.128), (23, 0.448, 0.135),
]  # fmt: skip

# survival's tests/cancer.Rout.save: summary(survfit(Surv(time, status) ~ ph.ecog, lung), times=…), the group ph.ecog=1:
# time, at risk, S, standard error, log band at 95 %
R_LUNG_ECOG_1 = [
    (30, 111, 0.982, 0.0124, 0.9583, 1.000), (90, 104, 0.920, 0.0255, 0.8718, 0.972), (180, 82, 0.751, 0.0407, 0.6756, 0.836),
    (270, 53, 0.561, 0.0487, 0.4729, 0.665), (365, 34, 0.431, 0.0509, 0.3417, 0.543), (730, 7, 0.114, 0.0388, 0.0582, 0.222),
]  # fmt: skip
HALF_A_DIGIT = 0.55  # of the last printed decimal, and what rounding to it leaves


def ecog(code):
    chosen = LUNG["ecog"] == code
    return LUNG["time"][chosen], LUNG["death"][chosen]


def test_kaplan_meier_is_the_table_of_klein_and_moeschberger():
    curve = kaplan_meier(REMISSION, RELAPSE)
    for time, survival, stderr in KLEIN_MOESCHBERGER:
        place = np.searchsorted(curve.times, time)
        assert abs(curve.estimate[place] - survival) < HALF_A_DIGIT * 1e-3
        assert abs(curve.stderr[place] - stderr) < HALF_A_DIGIT * 1e-3


def test_kaplan_meier_is_that_of_survfit_on_the_lung_data():
    curve = kaplan_meier(*ecog(1))
    for time, _, survival, stderr, low, high in R_LUNG_ECOG_1:
        place = np.searchsorted(curve.times, time, "right") - 1
        got = curve.estimate[place], curve.stderr[place], curve.lower[place], curve.upper[place]
        digits = (1e-3, 1e-4, 1e-4, 1e-3)
        for value, printed, unit in zip(got, (survival, stderr, low, high), digits, strict=True):
            assert abs(value - printed) < HALF_A_DIGIT * unit, (time, value, printed)
    at_risk = [curve.n_risk[np.searchsorted(curve.times, time)] for time, *_ in R_LUNG_ECOG_1]
    assert_allclose(at_risk, [row[1] for row in R_LUNG_ECOG_1])


def test_medians_and_their_intervals_are_those_of_print_survfit():
    """tests/cancer.Rout.save: ph.ecog=1 306 (268, 429), ph.ecog=2 199 (156, 288)."""
    assert kaplan_meier(*ecog(1)).quantile().tolist() == [306.0, 268.0, 429.0]
    assert kaplan_meier(*ecog(2)).quantile().tolist() == [199.0, 156.0, 288.0]


def test_greenwood_s_standard_errors_are_those_of_statsmodels():
    curve, other = kaplan_meier(REMISSION, RELAPSE), SurvfuncRight(REMISSION, RELAPSE)
    place = np.searchsorted(curve.times, other.surv_times)
    assert_allclose(curve.estimate[place], other.surv_prob, rtol=1e-12)
    assert_allclose(curve.stderr[place], other.surv_prob_se, rtol=1e-12)


def test_log_log_bands_and_nelson_aalen_are_those_of_lifelines_with_late_entry_too():
    late = np.where(LUNG["age"] > 60, np.floor(LUNG["time"] / 3), 0.0)
    for entry in (None, late):
        other = lifelines.KaplanMeierFitter().fit(LUNG["time"], LUNG["death"], entry=entry)
        curve = kaplan_meier(LUNG["time"], LUNG["death"], entry=entry, band="log-log")
        times = curve.times
        assert_allclose(curve(times), other.predict(times), rtol=1e-10)
        ends = other.confidence_interval_.loc[times].to_numpy()
        known = curve.stderr > 0
        got = np.column_stack([curve.lower, curve.upper])
        assert_allclose(got[known], ends[known], rtol=1e-10)
        hazard = lifelines.NelsonAalenFitter().fit(LUNG["time"], LUNG["death"], entry=entry)
        mine = nelson_aalen(LUNG["time"], LUNG["death"], entry=entry, ties="efron")
        assert_allclose(mine.estimate, hazard.predict(times), rtol=1e-10)
        ends = hazard.confidence_interval_.loc[times].to_numpy()
        got = np.column_stack([mine.lower, mine.upper])
        assert_allclose(got[known], ends[known], rtol=1e-10)


def test_frequency_weights_equal_repeated_rows():
    w = 1 + (LUNG["age"] % 3).astype(int)
    time, event = LUNG["time"], LUNG["death"]
    few = slice(0, 60)
    for estimator in (kaplan_meier, nelson_aalen):
        weighted = estimator(time[few], event[few], weights=jm.frequency(w[few]))
        repeated = estimator(np.repeat(time[few], w[few]), np.repeat(event[few], w[few]))
        assert_allclose(weighted.estimate, repeated.estimate, rtol=1e-12)
        assert_allclose(weighted.stderr, repeated.stderr, rtol=1e-10)
    cause = (event + event * (LUNG["sex"] == 2)).astype(int)
    weighted = aalen_johansen(time[few], cause[few], weights=jm.frequency(w[few]))
    repeated = aalen_johansen(np.repeat(time[few], w[few]), np.repeat(cause[few], w[few]))
    for code in (1, 2):
        assert_allclose(weighted[code].stderr, repeated[code].stderr, rtol=1e-9, atol=1e-14)


def infinitesimal_jackknife(estimate, w):
    """√Σ w²(∂estimate/∂w)² at each time, by central differences of the weighted estimator."""
    derivatives = []
    for i in range(len(w)):
        step = 1e-5 * w[i]
        moved = [w + sign * step * (np.arange(len(w)) == i) for sign in (1, -1)]
        derivatives.append((estimate(moved[0]) - estimate(moved[1])) / (2 * step))
    return np.sqrt(np.sum((w[:, None] * np.array(derivatives)) ** 2, axis=0))


@pytest.mark.parametrize("estimator", [kaplan_meier, nelson_aalen])
@pytest.mark.parametrize("late", [False, True])
def test_standard_errors_under_sampling_weights_are_the_infinitesimal_jackknife(estimator, late):
    rng = np.random.default_rng(5)
    time, event = np.ceil(10 * rng.exponential(size=25)), rng.integers(0, 2, 25)
    time[-1], event[-1] = time.max() + 1, 0  # the last one is censored, so that S stays above 0
    entry = np.where(rng.uniform(size=25) < 0.5, 0.0, 0.4 * time) if late else None
    w = rng.uniform(0.5, 3.0, 25)

    def estimate(w):
        return estimator(time, event, entry=entry, weights=jm.sampling(w)).estimate

    curve = estimator(time, event, entry=entry, weights=jm.sampling(w))
    # central differences with a relative step of 1e-5 are good to about 1e-9
    assert_allclose(curve.stderr, infinitesimal_jackknife(estimate, w), rtol=1e-6, atol=1e-10)


def test_without_censoring_the_curve_is_the_empirical_distribution():
    """S is a share, Greenwood's variance the binomial one, the restricted mean up to the end the mean."""
    time = np.array([3.0, 1.0, 4.0, 1.5, 9.0, 2.6])
    curve = kaplan_meier(time, np.ones(6))
    share = 1 - np.arange(1, 7) / 6
    assert_allclose(curve.estimate, share, atol=1e-15)
    assert_allclose(curve.stderr[:-1], np.sqrt(share * (1 - share) / 6)[:-1], rtol=1e-12)
    mean, stderr = curve.restricted_mean(9.0)
    assert_allclose([mean, stderr], [time.mean(), time.std() / np.sqrt(6)], rtol=1e-12)
    assert np.isnan(curve.stderr[-1]) and np.isnan(curve.lower[-1])  # never SE 0 where S is 0


def test_the_curve_is_unknown_beyond_the_last_censored_time():
    curve = kaplan_meier([1.0, 2.0, 3.0], [1, 1, 0])
    assert_allclose(curve([0.0, 1.0, 2.5, 3.0]), [1.0, 2 / 3, 1 / 3, 1 / 3])
    assert np.isnan(curve(3.1))
    assert kaplan_meier([1.0, 2.0], [1, 1])(5.0) == 0.0


def test_a_risk_set_that_empties_before_later_entries_warns():
    with pytest.warns(EmptyRiskSetWarning, match="everybody at risk at 2 has the event"):
        kaplan_meier([1.0, 2.0, 6.0, 7.0], [1, 1, 1, 0], entry=[0.0, 0.0, 4.0, 4.0])


# ---------------------------------------------------------------- competing risks


def test_aalen_johansen_is_that_of_statsmodels():
    rng = np.random.default_rng(1)
    time, cause = rng.permutation(np.arange(1.0, 41.0)), rng.integers(0, 3, 40)
    with np.errstate(all="ignore"):  # a standard error of theirs at the last failure
        other = CumIncidenceRight(time, cause)
    for code, curve in aalen_johansen(time, cause).items():
        place = np.searchsorted(curve.times, other.times)
        assert_allclose(curve.estimate[place], other.cinc[code - 1], rtol=1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_standard_errors_of_incidences_are_the_infinitesimal_jackknife(tied):
    """So R's survfit has it; without late entry both are the same sum."""
    rng = np.random.default_rng(2)
    time, cause = 5 * rng.exponential(size=20), rng.integers(0, 3, 20)
    time = np.ceil(time) if tied else time
    curves = aalen_johansen(time, cause)

    def estimate(code):
        def of_weights(w):  # Σ S(s−) d/n by hand: the library takes whole frequency weights only
            times = np.unique(time)
            at_risk = np.array([w[time >= t].sum() for t in times])
            died = np.array([w[(time == t) & (cause > 0)].sum() for t in times])
            mine = np.array([w[(time == t) & (cause == code)].sum() for t in times])
            before = np.concatenate([[1.0], np.cumprod(1 - died / at_risk)[:-1]])
            return np.cumsum(before * mine / at_risk)

        return of_weights

    for code, curve in curves.items():
        assert_allclose(curve.estimate, estimate(code)(np.ones(20)), rtol=1e-12)
        jackknife = infinitesimal_jackknife(estimate(code), np.ones(20))
        assert_allclose(curve.stderr, jackknife, rtol=1e-6, atol=1e-9)


def test_incidences_and_survival_add_up_to_one():
    cause = (LUNG["death"] * (1 + (LUNG["age"] > 63))).astype(int)
    entry = np.floor(LUNG["time"] / 4)
    curves = aalen_johansen(LUNG["time"], cause, entry=entry)
    whole = kaplan_meier(LUNG["time"], LUNG["death"], entry=entry)
    total = sum(curve.estimate for curve in curves.values())
    assert_allclose(total, 1 - whole.estimate, rtol=1e-12, atol=1e-14)


def test_one_cause_has_the_variance_of_greenwood():
    curve = aalen_johansen(REMISSION, RELAPSE)[1]
    assert_allclose(curve.stderr, kaplan_meier(REMISSION, RELAPSE).stderr, rtol=1e-10)


def test_a_cause_specific_hazard_takes_the_other_causes_as_censored():
    """Two exponential hazards: the rate of each is its events over the whole time at risk."""
    data = {"x": np.ones((5, 1)), "time": np.array([1.0, 2, 3, 4, 5]), "event": [1, 2, 2, 0, 1]}
    model = jm.models.aft("exponential")
    for cause, events in ((1, 2), (2, 2)):
        fit = jm.fit(model, data=cause_specific(data, cause))
        assert_allclose(np.exp(-fit.params["beta"]), events / 15, rtol=1e-8)


# ---------------------------------------------------------------- bad input

BAD = [
    (lambda: kaplan_meier([1.0, 2.0], [1, 2]), "event is 2 in row 1; it must be 1 for an event"),
    (lambda: kaplan_meier([1.0, -2.0], [1, 1]), "time is -2 in row 1"),
    (lambda: kaplan_meier([1.0, np.nan], [1, 1]), "time is nan in row 1"),
    (lambda: kaplan_meier([1.0, 2.0], [1, 1], entry=[0.0, 2.0]), "nobody is observed before"),
    (lambda: kaplan_meier([1.0, 2.0], [1]), "event must have the shape"),
    (lambda: kaplan_meier([1.0], [1], weights=[2.0]), "jaxmle.frequency"),
    (lambda: kaplan_meier([1.0], [1], weights=jm.frequency([1.5])), "must be integers; row 0"),
    (lambda: kaplan_meier([1.0], [1], band="probit"), "band must be"),
    (lambda: aalen_johansen([1.0], [0]), "no row has an event"),
    (lambda: aalen_johansen([1.0], [1.5]), "1, 2, … for causes"),
    (lambda: cause_specific({"event": np.array([0, 1])}, 2), "no row has the cause 2"),
    (lambda: nelson_aalen([1.0], [1]).quantile(), "quantile needs a survival function"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_input_gets_one_clear_error(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()
