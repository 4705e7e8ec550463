"""Every special function by itself over the whole range of floats: no NaN in value, gradient or Hessian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmle import special
from tests.special.oracle import derivatives

SIZES = np.array([1e-300, 1e-150, 1e-30, 1e-8, 1e-3, 0.5, 1.0, 3.0, 9.5, 50.0, 1e4, 1e8, 1e30, 1e150, 1e300])  # fmt: skip
LINE = np.concatenate([[-np.inf], -SIZES[::-1], [0.0], SIZES, [np.inf]])
POSITIVE = np.concatenate([SIZES, [np.inf]])
HALF = np.concatenate([[0.0], POSITIVE])
# The second derivative of log x is itself beyond the largest number below 1e-154.
NOT_TINY = SIZES[SIZES > 1e-200]
UNIT = np.array([0.0, 1e-140, 1e-30, 1e-8, 0.1, 0.5, 0.9, 1 - 1e-8, 1 - 1e-16, 1.0])
COUNTS = np.array([0.0, 1, 2, 9, 10, 11, 100, 1e4, 1e6, 1e9, 1e12])
SHAPES = np.array([1e-8, 1e-3, 0.3, 1.0, 2.5, 9.9, 30.0, 1e3, 1e6, 1e12])
# Student's t: its square must be a number; at the normal also its fourth power, which the slope in 1/df is.
FAR = LINE[(np.abs(LINE) < 1e149) | np.isinf(LINE)]
NORMAL = LINE[(np.abs(LINE) < 1e75) | np.isinf(LINE)]
LARGE = np.array([1e15, 1e100, 1e300, np.inf])
MEANS = np.array([1e-150, 1e-8, 0.3, 1.0, 1e4, 1e9])

FUNCTIONS = {
    "gammaln": (special.gammaln, [POSITIVE]),
    "digamma": (special.digamma, [POSITIVE]),
    "trigamma": (special.trigamma, [POSITIVE]),
    "betaln": (special.betaln, [NOT_TINY, NOT_TINY]),
    "log_factorial": (special.log_factorial, [HALF]),
    "held_exp": (special.held_exp, [LINE]),
    "log1mexp": (special.log1mexp, [-HALF]),
    "log_cloglog": (special.log_cloglog, [LINE]),
    "softplus": (special.softplus, [LINE]),
    "sigmoid": (special.sigmoid, [LINE]),
    "log_sigmoid": (special.log_sigmoid, [LINE]),
    "log_ndtr": (special.log_ndtr, [LINE]),
    "ndtri": (special.ndtri, [UNIT]),
    "log_i0": (special.log_i0, [LINE]),
    "log_i1": (special.log_i1, [HALF]),
    "bessel_ratio": (special.bessel_ratio, [HALF]),
    "log_gammainc": (special.log_gammainc, [SHAPES, [0.0, *NOT_TINY, np.inf]]),
    "log_gammaincc": (special.log_gammaincc, [SHAPES, [0.0, *NOT_TINY, np.inf]]),
    "log_betainc": (special.log_betainc, [SHAPES, SHAPES, UNIT]),
    "log_betaincc": (special.log_betaincc, [SHAPES, SHAPES, UNIT]),
    "student_t_logpdf": (special.student_t_logpdf, [FAR, SHAPES]),
    "student_t_logpdf near the normal": (special.student_t_logpdf, [NORMAL, LARGE]),
    "student_t_logpdf_inverse_df": (special.student_t_logpdf_inverse_df, [FAR, 1 / SHAPES]),
    "student_t_logpdf_inverse_df at 0": (special.student_t_logpdf_inverse_df, [NORMAL, [0.0]]),
    "student_t_logcdf": (special.student_t_logcdf, [FAR, SHAPES]),
    "student_t_logcdf near the normal": (special.student_t_logcdf, [NORMAL, LARGE]),
    "student_t_logsf": (special.student_t_logsf, [FAR, SHAPES]),
}
# Counts are no argument that is differentiated.
OF_COUNTS = {
    "poisson_logpmf": (special.poisson_logpmf, [COUNTS, LINE]),
    "negative_binomial_logpmf": (special.negative_binomial_logpmf, [COUNTS, MEANS, [0.0, 1e-300, *SHAPES]]),
    "beta-binomial": (
        lambda y, m, a, b: special.dirichlet_multinomial_logpmf(jnp.stack([y, m]), jnp.stack([a, b])),
        [COUNTS, COUNTS, [1e-150, *SHAPES, 1e150], [1e-150, *SHAPES, 1e150]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*FUNCTIONS, *OF_COUNTS])
def test_no_special_function_is_nan_to_second_order_over_its_whole_range(name):
    function, axes = (FUNCTIONS | OF_COUNTS)[name]
    columns = [np.ravel(axis) for axis in np.meshgrid(*axes, indexing="ij")]
    first = 0 if name in FUNCTIONS else 2 if name == "beta-binomial" else 1
    with jax.debug_infs(False):
        found = derivatives(function, columns, tuple(range(first, len(columns))))
    bad = np.isnan(found)
    where = [([float(c[n]) for c in columns], entry) for n, entry in np.argwhere(bad)[:6]]
    assert not bad.any(), f"{bad.any(axis=1).sum()} of {len(bad)} points: {where}"
