"""Adjusted p-values against R's p.adjust and statsmodels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxmle.inference.hypotheses.multiplicity import benjamini_hochberg, holm

from .hypothesis_cases import R

P = np.array([np.nan if p is None else p for p in R["adjust"]["p"]])


@pytest.mark.parametrize(("adjust", "name"), [(holm, "holm"), (benjamini_hochberg, "bh")])
def test_adjusted_p_values_equal_those_of_r(adjust, name):
    """Ties, a zero, a one and a missing value among them."""
    expected = np.array([np.nan if p is None else p for p in R["adjust"][name]])
    assert_allclose(adjust(P), expected, rtol=1e-14)
    assert_allclose(
        adjust(np.stack([P, P[::-1]], axis=1), axis=0)[:, 1], expected[::-1], rtol=1e-14
    )
    assert_allclose(np.asarray(jax.jit(adjust)(jnp.asarray(P))), expected, rtol=1e-6)


@pytest.mark.parametrize(("adjust", "method"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])
def test_adjusted_p_values_equal_those_of_statsmodels(adjust, method):
    multipletests = pytest.importorskip("statsmodels.stats.multitest").multipletests
    p = np.random.default_rng(0).beta(0.4, 1.0, size=(5, 40))
    assert_allclose(adjust(p), [multipletests(row, method=method)[1] for row in p], rtol=1e-12)


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_families_at_their_edges(adjust):
    assert adjust(np.array([0.3])).tolist() == [0.3]
    assert adjust([0.5, 0.5]).shape == (2,)
    assert np.all(np.isnan(adjust(np.full(3, np.nan))))
    assert adjust(np.zeros((2, 0))).shape == (2, 0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        adjust(np.array([0.1, 1.2]))
    with pytest.raises(ValueError, match="one number"):
        adjust(0.05)
