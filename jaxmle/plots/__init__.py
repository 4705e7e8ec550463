"""Plots of fits, in matplotlib: every function takes ``ax=None`` and returns the ``Axes`` it drew
on.
"""

from typing import TYPE_CHECKING

from jaxmle.parameters.keywords import missing_name
from jaxmle.plots.effects import effects
from jaxmle.plots.estimates import batch_map, forest
from jaxmle.plots.likelihoods import likelihood_curve, likelihood_surface
from jaxmle.plots.mixtures import mixture
from jaxmle.plots.predictions import predictions, residuals
from jaxmle.plots.regions import contour, profile
from jaxmle.plots.search_path import SearchPath, path_of, trace
from jaxmle.plots.simulations import coverage
from jaxmle.plots.survival_curves import survival
from jaxmle.plots.uniformity import pit, qq

__all__ = [
    "SearchPath", "batch_map", "contour", "coverage", "effects", "forest", "likelihood_curve",
    "likelihood_surface", "mixture", "path_of", "pit", "predictions", "profile", "qq", "residuals",
    "survival", "trace",
]  # fmt: skip

if not TYPE_CHECKING:  # a checker finds the names that are not there by itself

    def __getattr__(name: str) -> object:
        raise missing_name("jaxmle.plots", name, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
