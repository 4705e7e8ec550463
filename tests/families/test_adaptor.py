"""Distributions of other libraries as families."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import families as jf
from tests.marks import thorough_but_for

with warnings.catch_warnings():
    # TensorFlow Probability, which distrax imports, asks jax for names that it is about to drop; where they are gone there is no distrax.
    warnings.simplefilter("ignore")
    try:
        import distrax
    except (ImportError, AttributeError):
        distrax = None


class Softplus:
    """The shape of a TFP bijector."""


class Properties:
    """The shape of TFP's ``ParameterProperties``."""

    is_preferred = True

    def default_constraining_bijector_fn(self):
        return Softplus()


class Rate:
    """The shape of a TFP or distrax distribution: ``sample(seed=)``, moments as methods, ``quantile``."""

    def __init__(self, rate):
        self.rate = rate

    @classmethod
    def parameter_properties(cls):
        return {"rate": Properties()}

    def log_prob(self, y):
        return jnp.log(self.rate) - self.rate * y

    def cdf(self, y):
        return -jnp.expm1(-self.rate * y)

    def quantile(self, q):
        return -jnp.log1p(-q) / self.rate

    def sample(self, sample_shape=(), seed=None):
        return jax.random.exponential(seed, sample_shape) / self.rate

    def mean(self):
        return 1 / self.rate

    def variance(self):
        return 1 / self.rate**2


def test_a_distribution_with_parameter_properties():
    family, y = jf.from_distribution(Rate), np.array([1.0, 2.0, 6.0])
    assert family.constraints == {"rate": jm.positive}
    fit = jm.fit(family, data=y)
    assert_allclose(
        [fit.params["rate"], fit.stderr["rate"]], [1 / 3, 1 / 3 / np.sqrt(3)], rtol=1e-8
    )
    with jax.enable_x64(True):
        # log(1 − F) at F = 0.86 loses one of 16 digits; the quantile is one logarithm.
        assert_allclose(family.log_sf({"rate": 2.0}, 1.0), -2.0, rtol=1e-15)
        assert_allclose(family.quantile({"rate": 2.0}, 0.5), np.log(2) / 2, rtol=1e-15)
        assert family.mean({"rate": 2.0}) == 0.5
    assert family.sample({"rate": 2.0}, jax.random.key(0), (3, 2)).shape == (3, 2)


def test_numpyros_constraints_are_read():
    gamma = jf.from_distribution(dist.Gamma)
    assert gamma.constraints == {"concentration": jm.positive, "rate": jm.positive}
    y = np.array([1.0, 2.0, 6.0, 0.5])
    fit, own = jm.fit(gamma, data=y), jm.fit(jf.gamma, data=y)
    assert_allclose(fit.loglik, own.loglik, rtol=1e-8)
    assert_allclose(fit.params["concentration"], own.params["shape"], rtol=1e-6)
    assert gamma.log_prob({"concentration": 2.0, "rate": 1.0}, -1.0) == -np.inf
    normal = jf.from_distribution(
        dist.MultivariateNormal, known={}, constraints={"covariance_matrix": jm.covariance}
    )
    assert set(normal.constraints) == {"loc", "covariance_matrix"}
    binomial = jf.from_distribution(dist.BinomialProbs, known={"total_count": None}, discrete=True)
    assert binomial.constraints == {"probs": jm.interval(0.0, 1.0)}
    data = {"y": np.array([1, 2, 3]), "total_count": np.array([4, 4, 4])}
    assert_allclose(jm.fit(binomial, data=data).params["probs"], 0.5, rtol=1e-8)


def test_what_is_not_declared_is_asked_for():
    with pytest.raises(ValueError, match="declares no constraints"):
        jf.from_distribution(lambda loc, scale: None)
    with pytest.raises(TypeError, match="not an instance"):
        jf.from_distribution(Rate(1.0))
    with pytest.raises(TypeError, match="must return an object with log_prob"):
        jf.from_distribution(lambda scale: scale, {"scale": jm.positive}).log_prob(
            {"scale": 1.0}, 1.0
        )


# ---------------------------------------------------------------- censored and truncated

SCALED = {"loc": jm.free, "scale": jm.positive}
# The class, its constraints where it declares none, the family that it is, and the name there of each of its parameters.
SAME = {
    "numpyro normal": (dist.Normal, None, jf.normal, {"loc": "loc", "scale": "scale"}),
    "numpyro exponential": (dist.Exponential, None, jf.exponential, {"rate": "rate"}),
    "numpyro Weibull": (dist.Weibull, None, jf.weibull, {"scale": "scale", "concentration": "shape"}),
    "numpyro gamma": (dist.Gamma, None, jf.gamma, {"concentration": "shape", "rate": "rate"}),
    "numpyro t": (dist.StudentT, None, jf.student_t, {"df": "df", "loc": "loc", "scale": "scale"}),
    "numpyro lognormal": (dist.LogNormal, None, jf.lognormal, {"loc": "meanlog", "scale": "sdlog"}),
    "numpyro Poisson": (dist.Poisson, None, jf.poisson, {"rate": "rate"}),
}  # fmt: skip
if distrax is not None:
    SAME |= {
    "distrax normal": (distrax.Normal, SCALED, jf.normal, {"loc": "loc", "scale": "scale"}),
    "distrax gamma": (
        distrax.Gamma, {"concentration": jm.positive, "rate": jm.positive}, jf.gamma, {"concentration": "shape", "rate": "rate"},
    ),
    }  # fmt: skip
START = {"df": 4.0, "loc": 1.0, "scale": 1.0, "rate": 0.7, "concentration": 1.5}


def every_kind(family):
    """Exact values, and right, left and interval censoring, 12 of each. Of a t with two degrees of
    freedom where these are estimated: at four, this draw's likelihood rises as df → ∞.
    """
    rng = np.random.default_rng(5)
    df = 2 if "df" in family.constraints else 4
    placed, y = "loc" in family.constraints, rng.standard_t(df, 48)
    y = (
        rng.poisson(4.0, 48).astype(float)
        if family.discrete
        else 4 + y
        if placed
        else np.exp(0.6 * y)
    )
    kind, lower, upper = np.arange(48) % 4, y.copy(), y.copy()
    upper[kind == 1] = np.inf
    lower[kind == 2] = -np.inf
    lower[kind == 3], upper[kind == 3] = y[kind == 3] - 1.0, y[kind == 3] + 1.5
    return y, {"lower": lower, "upper": upper}


@pytest.mark.parametrize(
    "case",
    thorough_but_for(
        SAME, "numpyro exponential", "numpyro Weibull", "numpyro lognormal", "distrax normal"
    ),
)
def test_censored_and_truncated_foreign_families_fit_as_our_own_do(case):
    """NONFINITE throughout: their log_cdf at an infinite end sat in the branch that ``where`` leaves out."""
    kind, constraints, own, names = SAME[case]
    foreign = jf.from_distribution(kind, constraints, discrete=own.discrete)
    y, intervals = every_kind(own)
    inside = y[(y > 0.4) & (y < 9)]
    forms = [(jf.censored, intervals)]
    if case not in ("numpyro t", "numpyro gamma"):  # the same road, which takes seconds to compile
        forms.append((lambda family: jf.truncated(family, low=0.4, high=9.0), inside))
    for wrap, data in forms:
        theirs = jm.fit(wrap(foreign), {name: START[name] for name in names}, data)
        ours = jm.fit(wrap(own), {names[name]: START[name] for name in names}, data)
        assert theirs.verdict.name == ours.verdict.name == "CONVERGED"
        for name, other in names.items():
            assert_allclose(theirs.params[name], ours.params[other], rtol=1e-8)
            assert_allclose(theirs.stderr[name], ours.stderr[other], rtol=1e-8)


def second_order(family, params, data):
    with jax.enable_x64(True):

        def gradient(p):
            value, slope = jax.value_and_grad(lambda p: jnp.sum(family.log_prob(p, data)))(p)
            return slope, (value, slope)

        hessian, (value, slope) = jax.jit(jax.jacfwd(gradient, has_aux=True))(params)
        return jax.tree.map(np.asarray, (value, slope, hessian))


MADE = {
    "numpyro transformed": lambda loc, scale: dist.TransformedDistribution(dist.Normal(loc, scale), dist.transforms.ExpTransform()),
    "distrax transformed": lambda loc, scale: distrax.Transformed(distrax.Normal(loc, scale), distrax.Lambda(jnp.exp)),
    "numpyro truncated": lambda loc, scale: dist.TruncatedNormal(loc, scale, low=0.0),
    "numpyro half normal": lambda loc, scale: dist.HalfNormal(scale + 0 * loc),
}  # fmt: skip


@pytest.mark.parametrize("made", MADE)
def test_censoring_of_distributions_made_from_others(made):
    """Right censoring at 1 and values outside the support: finite to second order, or one error that names what is missing."""
    if distrax is None and made.startswith("distrax"):
        pytest.skip("distrax does not import with this jax")
    family = jf.censored(jf.from_distribution(MADE[made], SCALED))
    data = {"lower": np.array([0.5, 1.0, 2.0, 0.2]), "upper": np.array([0.5, np.inf, 2.0, 0.6])}
    try:
        found = second_order(family, {"loc": 0.3, "scale": 1.1}, data)
    except ValueError as error:
        assert "has no cdf or log_cdf" in str(error)
        return
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))


def test_a_distribution_without_a_distribution_function_says_so():
    family = jf.censored(jf.from_distribution(dist.Kumaraswamy))
    data = {"time": np.array([0.2, 0.5]), "event": np.array([1, 0])}
    with pytest.raises(ValueError, match="Kumaraswamy has no cdf or log_cdf"):
        jm.fit(family, data=data)


def test_mixtures_zero_inflation_and_codes_of_foreign_families():
    poisson = jf.from_distribution(dist.Poisson, discrete=True)
    y = np.array([0, 0, 0, 1, 3, 4, 2, 5])
    theirs, ours = (jm.fit(jf.zero_inflated(family), data=y) for family in (poisson, jf.poisson))
    assert_allclose(theirs.loglik, ours.loglik, rtol=1e-10)
    normal = jf.from_distribution(dist.Normal)
    params = {
        "weights": np.array([0.3, 0.7]),
        "components": ({"loc": 0.0, "scale": 1.0}, {"loc": 3.0, "scale": 0.5}),
    }
    values = np.array([-1.0, 2.0, 40.0])
    assert_allclose(
        jf.mixture(normal, normal).log_prob(params, values),
        jf.mixture(jf.normal, jf.normal).log_prob(params, values),
        rtol=1e-5,
    )  # fmt: skip
    codes = jf.from_distribution(dist.CategoricalProbs, discrete=True)
    assert_allclose(
        codes.log_prob({"probs": np.array([0.2, 0.3, 0.5])}, np.array([0, 2, 1])),
        np.log([0.2, 0.5, 0.3]),
        rtol=1e-6,
    )


def test_a_law_that_does_not_tell_its_support_keeps_slopes_where_its_density_is_one():
    """Uniform of distrax on (0, 1): the log-density 0 has the slopes −1/(b − a) and 1/(b − a); outside it is −∞, with none."""
    if distrax is None:
        pytest.skip("distrax does not import with this jax")
    family = jf.from_distribution(distrax.Uniform, {"low": jm.free, "high": jm.free})
    for y, slopes in ((0.4, [1.0, -1.0]), (1.5, [0.0, 0.0])):
        value, slope, _ = second_order(family, {"low": 0.0, "high": 1.0}, y)
        assert value == (0.0 if slopes[0] else -np.inf)
        assert_allclose([slope["low"], slope["high"]], slopes, atol=1e-15)


def test_a_row_that_one_component_of_another_library_cannot_have_is_the_other_ones():
    """NaN throughout: the slope of log 0 in the branch of the component that leaves the row out."""
    if distrax is None:
        pytest.skip("distrax does not import with this jax")
    unit = jf.from_distribution(lambda width: distrax.Uniform(0.0, width), {"width": jm.positive})
    y = np.array([0.2, 0.9, 0.4, 3.0])

    def loglik(p, d):
        share = jax.nn.sigmoid(p["a"])
        inside = jnp.log(share) + unit.log_prob({"width": 1.0}, d)
        return jnp.logaddexp(inside, jnp.log1p(-share) + jf.exponential.log_prob({"rate": 0.1}, d))

    value = jm.nll(loglik)({"a": 0.3}, y)
    share = 1 / (1 + np.exp(-0.3))
    rest = 0.1 * np.exp(-0.1 * y)
    inside = np.where(y < 1, 1.0, 0.0)
    assert_allclose(value, -np.sum(np.log(share * inside + (1 - share) * rest)), rtol=1e-13)
    slope = np.sum(share * (1 - share) * (inside - rest) / (share * inside + (1 - share) * rest))
    assert_allclose(jm.score(loglik)({"a": 0.3}, y)["a"], slope, rtol=1e-12)
