"""Ready models as estimators of scikit-learn."""

from jaxmle.sklearn.estimators import MLEClassifier, MLERegressor

__all__ = ["MLEClassifier", "MLERegressor"]
