from .estimators import MLEClassifier as MLEClassifier
from .estimators import MLERegressor as MLERegressor
