"""One row a family: three parameter settings, and scipy's distribution of each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from jaxmle import families as jf


@dataclass(frozen=True)
class Row:
    """A family, its settings (each (3,)), and how scipy says them.

    ``rough`` where scipy's distribution function is no oracle to 1e-11 (mpmath's numbers are in test_extreme.py). ``quantile`` and ``slope``
    are False where they would compile for seconds what another row tests: bisection over the same incomplete beta function, and the
    derivative of a function whose own tests are in special/.
    """

    family: Any
    params: dict[str, list[float]]
    peer: Any
    rough: bool = False
    quantile: bool = True
    slope: bool = True

    @property
    def settings(self):
        return {name: np.asarray(values, dtype=float) for name, values in self.params.items()}

    @property
    def columns(self):
        """The settings as (3, 1), against values (3, m)."""
        return {name: values[:, None] for name, values in self.settings.items()}

    @property
    def first(self):
        return {name: values[0] for name, values in self.settings.items()}


LOC, SCALE = [0.3, -2.0, 50.0], [2.0, 0.1, 7.0]
ROWS = [
    Row(jf.normal, {"loc": LOC, "scale": SCALE}, lambda p: stats.norm(p["loc"], p["scale"])),
    Row(jf.student_t, {"df": [3.5, 0.7, 60.0], "loc": LOC, "scale": SCALE}, lambda p: stats.t(p["df"], p["loc"], p["scale"]), slope=False),
    Row(jf.laplace, {"loc": LOC, "scale": SCALE}, lambda p: stats.laplace(p["loc"], p["scale"])),
    Row(jf.logistic, {"loc": LOC, "scale": SCALE}, lambda p: stats.logistic(p["loc"], p["scale"])),
    Row(jf.cauchy, {"loc": LOC, "scale": SCALE}, lambda p: stats.cauchy(p["loc"], p["scale"])),
    Row(jf.gumbel, {"loc": LOC, "scale": SCALE}, lambda p: stats.gumbel_r(p["loc"], p["scale"])),
    Row(jf.skew_normal, {"loc": LOC, "scale": SCALE, "shape": [3.0, -1.5, 0.2]}, lambda p: stats.skewnorm(p["shape"], p["loc"], p["scale"]), rough=True),
    Row(jf.exponential, {"rate": [0.7, 20.0, 1e-3]}, lambda p: stats.expon(scale=1 / p["rate"])),
    Row(jf.gamma, {"rate": [0.7, 3.0, 1e-2], "shape": [2.3, 0.4, 80.0]}, lambda p: stats.gamma(p["shape"], scale=1 / p["rate"]), slope=False),
    Row(jf.inverse_gamma, {"scale": [0.7, 3.0, 100.0], "shape": [4.3, 0.8, 30.0]}, lambda p: stats.invgamma(p["shape"], scale=p["scale"]), slope=False),
    Row(jf.weibull, {"scale": [0.7, 3.0, 100.0], "shape": [2.3, 0.6, 9.0]}, lambda p: stats.weibull_min(p["shape"], scale=p["scale"])),
    Row(jf.lognormal, {"meanlog": [0.7, -3.0, 5.0], "sdlog": [0.6, 1.5, 0.1]}, lambda p: stats.lognorm(p["sdlog"], scale=np.exp(p["meanlog"]))),
    Row(jf.inverse_gaussian, {"mean": [1.7, 0.3, 40.0], "shape": [2.6, 4.0, 9.0]}, lambda p: stats.invgauss(p["mean"] / p["shape"], scale=p["shape"])),
    Row(jf.beta, {"shape1": [1.7, 0.5, 40.0], "shape2": [2.6, 0.8, 9.0]}, lambda p: stats.beta(p["shape1"], p["shape2"]), slope=False),
    Row(jf.gev, {"loc": LOC, "scale": SCALE, "shape": [0.2, -0.3, 0.05]}, lambda p: stats.genextreme(-p["shape"], p["loc"], p["scale"])),
    Row(jf.generalised_pareto, {"loc": [0.0, 1.0, -2.0], "scale": SCALE, "shape": [0.2, -0.3, 0.05]}, lambda p: stats.genpareto(p["shape"], p["loc"], p["scale"])),
    Row(jf.pareto, {"scale": [2.0, 0.1, 7.0], "shape": [3.2, 0.8, 20.0]}, lambda p: stats.pareto(p["shape"], scale=p["scale"])),
    Row(jf.von_mises, {"kappa": [2.0, 0.3, 20.0], "loc": [0.3, -1.0, 0.0]}, lambda p: stats.vonmises(p["kappa"], p["loc"]), rough=True),
    Row(jf.poisson, {"rate": [4.0, 0.3, 50.0]}, lambda p: stats.poisson(p["rate"])),
    Row(jf.binomial, {"prob": [0.3, 0.02, 0.9], "trials": [12.0, 40.0, 300.0]}, lambda p: stats.binom(p["trials"], p["prob"]), quantile=False),
    Row(jf.bernoulli, {"prob": [0.3, 0.02, 0.9]}, lambda p: stats.bernoulli(p["prob"])),
    Row(jf.geometric, {"prob": [0.3, 0.02, 0.9]}, lambda p: stats.geom(p["prob"], loc=-1)),
    Row(jf.negative_binomial, {"dispersion": [0.4, 3.0, 0.01], "mean": [3.0, 0.7, 60.0]}, lambda p: stats.nbinom(1 / p["dispersion"], 1 / (1 + p["dispersion"] * p["mean"]))),
    Row(jf.negative_binomial_1, {"dispersion": [0.4, 3.0, 0.1], "mean": [3.0, 0.7, 60.0]}, lambda p: stats.nbinom(p["mean"] / p["dispersion"], 1 / (1 + p["dispersion"])), quantile=False),
    Row(jf.beta_binomial, {"shape1": [1.4, 0.3, 20.0], "shape2": [0.8, 2.0, 9.0], "trials": [9.0, 30.0, 12.0]}, lambda p: stats.betabinom(p["trials"], p["shape1"], p["shape2"])),
]  # fmt: skip
