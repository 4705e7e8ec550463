"""Built-in models by scikit-learn's protocol: its own checks, and the numbers of ``fit``."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, PoissonRegressor
from sklearn.utils.estimator_checks import check_estimator

import jaxmle as jm
from jaxmle.sklearn import MLEClassifier, MLERegressor

RNG = np.random.default_rng(12)
X = RNG.normal(size=(80, 2))
COUNTS = RNG.poisson(np.exp(0.3 + X @ [0.6, -0.4]))
BINARY = np.where(RNG.random(80) < 1 / (1 + np.exp(-X[:, 0])), "yes", "no")


def assert_passes_the_checks(estimator):
    """Every check of scikit-learn but those that it skips itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks fit to rows that are fitted exactly
        results = check_estimator(estimator, on_skip=None, on_fail=None)
    failed = [result for result in results if result["status"] == "failed"]
    assert len(results) > 50 and not failed, failed


@pytest.mark.thorough
def test_the_classifier_passes_the_checks_of_scikit_learn():
    assert_passes_the_checks(MLEClassifier())


def test_the_regressor_passes_the_checks_of_scikit_learn():
    assert_passes_the_checks(MLERegressor())


def test_a_normal_regression_is_least_squares():
    ours, theirs = MLERegressor().fit(X, X[:, 0] ** 2), LinearRegression().fit(X, X[:, 0] ** 2)
    assert_allclose(ours.coef_, theirs.coef_, atol=1e-8)
    assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-8)
    assert ours.fit_.names == ("Intercept", "x0", "x1", "sigma")


def test_a_poisson_regression_is_that_of_scikit_learn_without_its_penalty():
    theirs = PoissonRegressor(alpha=0.0, tol=1e-10).fit(X, COUNTS)
    ours = MLERegressor("poisson", vcov="HC1").fit(X, COUNTS)
    assert_allclose([*ours.coef_, ours.intercept_], [*theirs.coef_, theirs.intercept_], atol=1e-5)
    design = np.column_stack([np.ones(80), X])
    direct = jm.fit(jm.models.poisson(), data={"x": design, "y": COUNTS}, vcov="HC1")
    assert_allclose(ours.fit_.se, direct.se, rtol=1e-10)


def test_weights_of_whole_numbers_count_rows_and_others_are_sampling_weights():
    doubled = MLERegressor("poisson").fit(X, COUNTS, sample_weight=np.full(80, 2.0))
    again = MLERegressor("poisson").fit(np.tile(X, (2, 1)), np.tile(COUNTS, 2))
    assert_allclose(doubled.fit_.se, again.fit_.se, rtol=1e-8)
    halves = MLERegressor("poisson").fit(X, COUNTS, sample_weight=np.full(80, 0.5))
    assert halves.fit_.weighting == "sampling" and halves.fit_.vcov_kind == "HC0"


def test_classes_keep_their_labels_and_probabilities_add_up():
    fitted = MLEClassifier().fit(X, BINARY)
    assert fitted.classes_.tolist() == ["no", "yes"]
    probability = fitted.predict_proba(X)
    assert_allclose(probability.sum(axis=1), 1.0, rtol=1e-12)
    assert (fitted.predict(X) == np.where(probability[:, 1] > 0.5, "yes", "no")).all()
    three = MLEClassifier().fit(X, np.digitize(X[:, 0] + RNG.normal(size=80), [-0.5, 0.5]))
    assert three.coef_.shape == (2, 2) and three.model_.name == "multinomial"
    assert three.predict_proba(X).shape == (80, 3)


def test_separated_classes_warn_and_are_predicted_at_the_limit():
    separated = X[:, 0] > 0
    with pytest.warns(ConvergenceWarning, match="supremum only at infinity"):
        fitted = MLEClassifier().fit(X, separated)
    assert np.isinf(fitted.coef_).any() and fitted.score(X, separated) == 1.0
    ridge = MLEClassifier(jm.penalize(jm.models.logistic(), jm.ridge(1.0))).fit(X, separated)
    assert np.isfinite(ridge.coef_).all() and clone(ridge).model is not None


def test_rows_that_are_fitted_exactly_have_least_squares_and_a_warning():
    with pytest.warns(ConvergenceWarning, match="fitted exactly"):
        fitted = MLERegressor().fit(X, X @ [1.0, 2.0] + 3.0)
    assert_allclose([fitted.intercept_, *fitted.coef_], [3.0, 1.0, 2.0], rtol=1e-10)
    assert np.isnan(fitted.fit_.se).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MLERegressor("cox").fit(X, COUNTS), "model is one of normal"),
        (lambda: MLEClassifier("probit").fit(X, COUNTS), "classes and models.probit is for two"),
        (lambda: MLEClassifier().fit(X, np.ones(80)), "y has one class"),
        (lambda: MLERegressor("poisson").fit(X, X[:, 0]), "poisson"),
    ],
)
def test_what_a_model_cannot_have_is_refused_in_a_sentence(make, words):
    with pytest.raises(ValueError, match=words):
        make()
