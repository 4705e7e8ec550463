"""``MLERegressor`` and ``MLEClassifier``: built-in models by scikit-learn's protocol.

The protocol is one of inheritance: scikit-learn reads tags, parameters and scores off its base
classes, and what ``fit`` finds is stored on the estimator.
"""

from __future__ import annotations

import warnings

import numpy as np
from jax import tree

from jaxmle import models
from jaxmle._types import Array, ArrayLike, Foreign, Label, Tree, ndarray
from jaxmle.data.naming import renamed
from jaxmle.distributed.public_fit import fit
from jaxmle.likelihood.combinators import Weights, frequency, sampling
from jaxmle.likelihood.information.covariance import Kind
from jaxmle.models import Model
from jaxmle.parameters.arguments import shown
from jaxmle.record.fit import Fit
from jaxmle.record.propagation import finite_point
from jaxmle.solvers.status import Status

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as missing:
    raise ImportError(
        "jaxmle.sklearn needs scikit-learn 1.6 or later: pip install 'jaxmle[sklearn]'"
    ) from missing

REGRESSIONS = (
    "normal", "student_t", "laplace", "poisson", "negative_binomial", "gamma", "inverse_gaussian",
    "beta",
)  # fmt: skip
BINARY_MODELS = ("logistic", "probit", "cloglog")
INTERCEPT = "Intercept"
INTERPOLATED = (
    "The rows are fitted exactly. The coefficients are the least-squares solution of "
    "minimal norm; they have no standard errors."
)
STATUSES_WITHOUT_POINT = (Status.NONFINITE, Status.UNBOUNDED)


class MLERegressor(RegressorMixin, BaseEstimator):
    """Maximum-likelihood regression as a scikit-learn estimator that predicts the mean of the
    response.

    Args:
        model: the name of a built-in model ("normal", "student_t", "laplace", "poisson",
            "negative_binomial", "gamma", "inverse_gaussian", "beta"), or a model object, such as
            ``penalize(models.poisson(), ridge(1.0))``.
        fit_intercept: whether a column of ones is added before the columns of X.
        vcov: the kind of covariance, as in ``jaxmle.fit``.

    Attributes:
        fit_: the ``Fit``, with the names of the columns: standard errors, intervals, tests, table.
        coef_, intercept_: the coefficients (q,) of the columns of X, and the constant, or 0 if
            there is none.
        params_: the parameters used for predictions.
        n_features_in_, feature_names_in_: of X.

    A fit that does not converge gives a warning with its explanation; a fit without an estimate
    raises. If a normal model fits its rows exactly, the coefficients are by least squares, with a
    warning. An integer ``sample_weight`` counts rows (frequency weights); other weights are
    sampling weights, with robust standard errors.

    >>> import numpy as np
    >>> from jaxmle.sklearn import MLERegressor
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([1.0, 2.0, 5.0, 8.0])
    >>> regression = MLERegressor("poisson").fit(X, y)
    >>> regression.fit_.names, regression.coef_.round(3).tolist()
    (('Intercept', 'x0'), [0.674])
    >>> round(float(regression.predict(X).sum()), 6)  # for a Poisson regression equal to that of y
    16.0
    """

    n_features_in_: int

    def __init__(
        self, model: str | Model = "normal", *, fit_intercept: bool = True, vcov: Kind = "auto"
    ) -> None:
        self.model = model
        self.fit_intercept = fit_intercept
        self.vcov = vcov

    def fit(self, X: Foreign, y: Foreign, sample_weight: ArrayLike | None = None) -> MLERegressor:
        """Fit the model to X (n, q) and y (n,); see ``jaxmle.fit``.

        Raises:
            ValueError: for data that the model does not allow, such as a negative count; for a fit
                without an estimate.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        self.model_ = _ready(self.model, REGRESSIONS)
        weights = _weights(self, sample_weight, X)
        y = np.asarray(y, np.float64)
        self.fit_, self.params_ = _fitted(self, self.model_, X, y, weights, None)
        self.n_iter_ = _iterations(self.fit_)
        slopes = np.asarray(self.params_["beta"])
        self.coef_ = slopes[1:] if self.fit_intercept else slopes
        self.intercept_ = slopes[0] if self.fit_intercept else 0.0
        return self

    def predict(self, X: Foreign) -> ndarray:
        """The mean of each response, (n,)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(_means(self, X))


class MLEClassifier(ClassifierMixin, BaseEstimator):
    """Maximum-likelihood classification as a scikit-learn estimator.

    With more than two classes "logistic" is the multinomial logit, with the first class as base.

    Args:
        model: the name of a built-in model ("logistic", "probit", "cloglog", "multinomial"), or a
            model object, such as ``penalize(models.logistic(), ridge(1.0))``, which has finite
            estimates even if the classes are separated.
        fit_intercept, vcov: as in ``MLERegressor``.

    Attributes:
        classes_: the labels, sorted, (K,).
        fit_: the ``Fit``, with the names of the columns and classes.
        coef_, intercept_: of all classes but the first: (K − 1, q) and (K − 1,). If the classes are
            separated, the maximum-likelihood estimates are infinite; predictions are then those of
            the limit, and a warning says so.

    >>> import numpy as np
    >>> from jaxmle.sklearn import MLEClassifier
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array(["no", "yes", "no", "yes"])
    >>> logit = MLEClassifier().fit(X, y)
    >>> logit.predict([[0.0], [3.0]]).tolist(), logit.fit_.verdict.name
    (['no', 'yes'], 'CONVERGED')
    """

    n_features_in_: int

    def __init__(
        self, model: str | Model = "logistic", *, fit_intercept: bool = True, vcov: Kind = "auto"
    ) -> None:
        self.model = model
        self.fit_intercept = fit_intercept
        self.vcov = vcov

    def fit(self, X: Foreign, y: Foreign, sample_weight: ArrayLike | None = None) -> MLEClassifier:
        """Fit the model to X (n, q) and labels y (n,); see ``jaxmle.fit``.

        Raises:
            ValueError: for a single class; for more than two classes with a model for two; for a
                fit without an estimate.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        count = len(self.classes_)
        if count < 2:
            raise ValueError(f"y has one class, {self.classes_[0]!r}: a classification needs two")
        several = count > 2 or self.model == "multinomial"
        name = "multinomial" if several and self.model == "logistic" else self.model
        self.model_ = _ready(name, (*BINARY_MODELS, "multinomial"), count)
        if count > 2 and self.model_.name in BINARY_MODELS:
            raise ValueError(
                f"y has {count} classes and {self.model_!r} is for two: use model='multinomial'"
            )
        weights = _weights(self, sample_weight, X)
        response = codes.astype(np.int64)
        levels = tuple(self.classes_)
        self.fit_, self.params_ = _fitted(self, self.model_, X, response, weights, levels)
        self.n_iter_ = _iterations(self.fit_)
        slopes = np.asarray(self.fit_.params["beta"], np.float64)
        slopes = slopes.reshape(X.shape[1] + bool(self.fit_intercept), -1).T
        self.coef_ = slopes[:, 1:] if self.fit_intercept else slopes
        self.intercept_ = slopes[:, 0] if self.fit_intercept else np.zeros(len(slopes))
        return self

    def predict_proba(self, X: Foreign) -> ndarray:
        """The probability of each class, (n, K), in the order of ``classes_``."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        means = np.asarray(_means(self, X))
        return means if means.ndim == 2 else np.column_stack([1 - means, means])

    def predict(self, X: Foreign) -> ndarray:
        """The most probable class of each row, (n,)."""
        check_is_fitted(self)
        return self.classes_[np.argmax(self.predict_proba(X), axis=1)]


# ---------------------------------------------------------------- shared by both


def _ready(model: str | Model, names: tuple[str, ...], classes: int = 2) -> Model:
    """The built-in model that an estimator is given, by name or made already."""
    if isinstance(model, str) and model in names:
        return models.multinomial(classes) if model == "multinomial" else getattr(models, model)()
    if isinstance(model, Model) and model.name in names:
        return model
    got = repr(model) if isinstance(model, Model) else shown(model)
    raise ValueError(
        f"model is one of {', '.join(names)}, by name or as an object, such as "
        f"models.{names[0]}(); got {got}"
    )


def _weights(
    estimator: MLERegressor | MLEClassifier, sample_weight: ArrayLike | None, X: ndarray
) -> Weights | None:
    """Weights as ``fit`` takes them: integers count rows."""
    if sample_weight is None:
        return None
    w = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    whole = bool(np.all(w == np.round(w)))
    return frequency(w) if whole else sampling(w)


def _design(estimator: MLERegressor | MLEClassifier, X: ndarray) -> ndarray:
    return np.column_stack([np.ones(len(X)), X]) if estimator.fit_intercept else X


def _columns(estimator: MLERegressor | MLEClassifier) -> tuple[str, ...]:
    given = getattr(estimator, "feature_names_in_", None)
    count = estimator.n_features_in_
    names = [f"x{j}" for j in range(count)] if given is None else [str(name) for name in given]
    return tuple([INTERCEPT, *names] if estimator.fit_intercept else names)


def _fitted(
    estimator: MLERegressor | MLEClassifier,
    model: Model,
    X: ndarray,
    y: ndarray,
    weights: Weights | None,
    levels: tuple[Label, ...] | None,
) -> tuple[Fit, Tree]:
    """The fit of a model, with readable names, and the parameters that predictions are made from;
    it warns where the fit has not converged.
    """
    data = {"x": _design(estimator, X), model.outcome: y}
    # Concave likelihoods begin at zero: start values from the rows would not know of weights, and
    # the limit that is reached on separated data depends on the way there.
    start = None if levels is None else tree.map(np.zeros_like, model.start(data))
    fitted = fit(model, start, data, weights=weights, vcov=estimator.vcov, progress=False)
    named = renamed(fitted, {"beta": "x"}, {"x": _columns(estimator)}, levels)
    params = named.layout.unravel(np.asarray(finite_point(named)))
    if named.verdict is Status.UNBOUNDED and model.name == "normal":
        params = {"beta": _interpolation(data, weights), "sigma": np.zeros(())}
        warnings.warn(f"{named.explain()} {INTERPOLATED}", ConvergenceWarning, stacklevel=3)
    elif named.verdict in STATUSES_WITHOUT_POINT:
        raise ValueError(f"{model!r} has no estimate for these data: {named.explain()}")
    elif not named.converged:
        warnings.warn(named.explain(), ConvergenceWarning, stacklevel=3)
    return named, params


def _iterations(fitted: Fit) -> int:
    return max(int(fitted.steps), 1)


def _interpolation(data: dict[str, ndarray], weights: Weights | None) -> ndarray:
    """Least squares of minimal norm: the normal likelihood is highest there whatever sigma is."""
    counted = np.ones(len(data["y"])) if weights is None else np.asarray(weights.values)
    root = np.sqrt(counted)
    return np.linalg.lstsq(root[:, None] * data["x"], root * data["y"], rcond=None)[0]


def _means(estimator: MLERegressor | MLEClassifier, X: ndarray) -> Array:
    """The means of new rows; of separated data those of the limit, at a finite point."""
    return estimator.model_.predict(estimator.params_, {"x": _design(estimator, X)})


__all__ = ["MLEClassifier", "MLERegressor"]
