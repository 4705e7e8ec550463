"""Every family over the whole range of floats: no NaN in value, gradient or Hessian, and right at points far out, by mpmath."""

import functools
import warnings

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxmle as jm
from jaxmle import families as jf
from tests.marks import thorough_where

with warnings.catch_warnings():
    # TensorFlow Probability, which distrax imports, asks jax for names that it is about to drop; where they are gone there is no distrax.
    warnings.simplefilter("ignore")
    try:
        import distrax
    except (ImportError, AttributeError):
        distrax = None

SIZES = np.array(
    [1e-300, 1e-150, 1e-30, 1e-8, 1e-3, 0.5, 1.0, 3.0, 50.0, 1e4, 1e8, 1e30, 1e150, 1e300]
)
LINE = np.concatenate([[-np.inf], -SIZES[::-1], [0.0], SIZES, [np.inf]])
HALF = np.concatenate([[-1.0, 0.0], SIZES, [np.inf]])
UNIT = np.array([0.0, 1e-300, 1e-30, 1e-8, 0.1, 0.5, 0.9, 1 - 1e-8, 1 - 1e-16, 1.0, -1.0, 2.0])
WHOLE = np.array([-1, 0, 1, 2, 9, 10, 11, 100, 1e4, 1e6, 1e9, 1e12, np.inf])
TURN = np.array([-np.inf, -1e8, -np.pi, -3.0, -1e-8, 0.0, 1e-300, 1.0, np.pi, 10.0, 1e300, np.inf])
SCALES = [1e-100, 1e-30, 1e-7, 1.0, 7.0, 1e7, 1e30, 1e100]
SHAPES = [1e-8, 1e-3, 0.3, 1.0, 2.5, 30.0, 1e3, 1e6]
LOCS, TAILS = [0.0, -3.0, 1e7, -1e30], [0.0, 1e-12, -1e-12, 0.2, -0.3, 5.0, -4.0, 1e3]
SHARES = [1e-140, 1e-12, 0.02, 0.5, 1 - 1e-12]
PLACED = {"loc": LOCS, "scale": SCALES}
GRIDS = {
    "normal": (jf.normal, PLACED, LINE), "laplace": (jf.laplace, PLACED, LINE), "logistic": (jf.logistic, PLACED, LINE),
    "cauchy": (jf.cauchy, PLACED, LINE), "gumbel": (jf.gumbel, PLACED, LINE), "exponential": (jf.exponential, {"rate": SCALES}, HALF),
    "weibull": (jf.weibull, {"scale": SCALES, "shape": SHAPES}, HALF),
    "lognormal": (jf.lognormal, {"meanlog": [0.0, 300.0, -1e6], "sdlog": SHAPES}, HALF),
    "pareto": (jf.pareto, {"scale": [1e-30, 1.0, 1e30], "shape": SHAPES}, HALF),
    "inverse Gaussian": (jf.inverse_gaussian, {"mean": [1e-30, 1e-4, 1.0, 1e8], "shape": [1e-30, 1e-4, 1.0, 1e8]}, HALF),
    "slow gev": (jf.gev, {"loc": [0.0, 1e7], "scale": [1e-30, 1.0, 1e30], "shape": TAILS}, LINE),
    "generalised Pareto": (jf.generalised_pareto, {"loc": [0.0, 1e3], "scale": [1e-30, 1.0, 1e30], "shape": TAILS}, LINE),
    "slow skew-normal": (jf.skew_normal, {"loc": [0.0, 1e7], "scale": [1e-30, 1.0, 1e30], "shape": [0.0, 0.5, -2.0, 30.0, -1e4, 1e8]}, LINE),
    "slow Student t": (jf.student_t, {"df": [*SHAPES, 1e12], "loc": [0.0, 1e7], "scale": [1e-30, 1.0, 1e30]}, LINE),
    "slow gamma": (jf.gamma, {"rate": SCALES, "shape": [*SHAPES, 1e12]}, HALF),
    "slow inverse gamma": (jf.inverse_gamma, {"scale": SCALES, "shape": [*SHAPES, 1e12]}, HALF),
    "slow beta": (jf.beta, {"shape1": SHAPES, "shape2": SHAPES}, UNIT),
    "slow von Mises": (jf.von_mises, {"kappa": SHAPES, "loc": [0.0, 1e4]}, TURN),
    "slow Poisson": (jf.poisson, {"rate": SCALES}, WHOLE), "geometric": (jf.geometric, {"prob": SHARES}, WHOLE),
    "bernoulli": (jf.bernoulli, {"prob": SHARES}, WHOLE),
    "slow binomial": (jf.binomial, {"prob": SHARES, "trials": [1.0, 12.0, 1e6]}, WHOLE),
    "slow negative binomial": (jf.negative_binomial, {"dispersion": SHAPES, "mean": [1e-8, 0.3, 1e4, 1e9]}, WHOLE),
    "slow beta-binomial": (jf.beta_binomial, {"shape1": SHAPES, "shape2": SHAPES, "trials": [1.0, 12.0, 1e6]}, WHOLE),
    "zero-inflated geometric": (jf.zero_inflated(jf.geometric), {"prob": [1e-12, 0.02, 0.98], "zero": [1e-12, 0.3]}, WHOLE),
    "hurdle geometric": (jf.hurdle(jf.geometric), {"prob": [1e-12, 0.02, 0.98], "zero": [1e-12, 0.3]}, WHOLE),
    "truncated Weibull": (jf.truncated(jf.weibull), {"scale": [1e-7, 1.0, 1e7], "shape": [0.3, 1.0, 30.0], "low": [0.5, -np.inf], "high": [np.inf, 1e8]}, HALF),
    "truncated normal": (jf.truncated(jf.normal), {"loc": LOCS[:3], "scale": [1e-7, 1.0, 1e7], "low": [0.5, -np.inf], "high": [np.inf, 1e8]}, LINE),
    "slow NB1": (jf.negative_binomial_1, {"dispersion": SHAPES, "mean": [1e-8, 0.3, 1e4, 1e9]}, WHOLE),
    "zero-inflated Poisson": (jf.zero_inflated(jf.poisson), {"rate": [1e-30, 1e-7, 1.0, 1e7], "zero": [1e-140, 1e-12, 0.3, 1 - 1e-12]}, WHOLE),
    "hurdle Poisson": (jf.hurdle(jf.poisson), {"rate": [1e-30, 1e-7, 1.0, 1e7], "zero": [1e-140, 1e-12, 0.3, 1 - 1e-12]}, WHOLE),
    "zero-truncated Poisson": (jf.truncated(jf.poisson, 0), {"rate": [1e-30, 1e-7, 1.0, 700.0, 1e7]}, WHOLE),
    "rounded exponential": (jf.rounded(jf.exponential), {"rate": SCALES, "width": [1e-30, 1.0, 1e30]}, HALF),
    "rounded normal": (jf.rounded(jf.normal), {"loc": LOCS[:3], "scale": [1e-30, 1e-7, 1.0, 1e7, 1e30], "width": [1e-7, 1.0]}, LINE),
    "rounded logistic": (jf.rounded(jf.logistic), {"loc": LOCS[:3], "scale": [1e-30, 1e-7, 1.0, 1e7, 1e30], "width": [1e-7, 1.0]}, LINE),
    "numpyro normal": (jf.from_distribution(dist.Normal), {"loc": [0.0, 1e7], "scale": SCALES[1:]}, LINE[np.abs(LINE) < 1e50]),
    "numpyro exponential": (jf.from_distribution(dist.Exponential), {"rate": SCALES}, HALF),
}  # fmt: skip
FUNCTIONS = ("log_prob", "log_cdf", "log_sf")


def two_orders(function, places):
    """(Hessian, value, gradient) of a function, from one program for all three."""

    def gradient(*args):
        value, slope = jax.value_and_grad(function, places)(*args)
        return slope, (value, slope)

    def all_of_them(*args):
        hessian, (value, slope) = jax.jacfwd(gradient, places, has_aux=True)(*args)
        return hessian, value, slope

    return all_of_them


def to_second_order(family, names, functions, columns):
    """(functions, n, 1 + k + k²) of a family at the rows of ``columns``, by parameters that are not known."""
    free = [i for i, name in enumerate(names) if name in family.constraints]

    def all_at(*row):
        def one(what, *free_values):
            full = list(row[:-1])
            for i, value in zip(free, free_values, strict=True):
                full[i] = value
            return getattr(family, what)(dict(zip(names, full, strict=True)), row[-1])

        at, places = [row[i] for i in free], tuple(range(len(free)))

        def parts(what):
            hessian, value, slope = two_orders(functools.partial(one, what), places)(*at)
            return jnp.stack([value, *slope, *(entry for line in hessian for entry in line)])

        return jnp.stack([parts(what) for what in functions])

    with jax.enable_x64(True):
        return np.moveaxis(np.asarray(jax.jit(jax.vmap(all_at))(*columns)), 1, 0)


def had(family):
    return [what for what in FUNCTIONS if getattr(family.law, what) is not None]


@pytest.mark.parametrize("case", thorough_where(GRIDS, lambda case: case.startswith("slow")))
def test_no_function_is_nan_to_second_order_over_the_whole_range(case):
    family, settings, y = GRIDS[case]
    names = list(settings)
    grid = np.meshgrid(*settings.values(), y, indexing="ij")
    columns = [np.ravel(axis) for axis in grid]
    with np.errstate(all="ignore"):
        found = to_second_order(family, names, had(family), columns)
    bad = np.isnan(found)
    where = np.argwhere(bad)[:3]
    told = [(had(family)[f], [float(c[n]) for c in columns], entry) for f, n, entry in where]
    assert not bad.any(), f"{bad.any(axis=2).sum()} of {bad.shape[1]} points: {told}"


def of_distrax():
    """Distributions of distrax: the family, its grid, the values, and the functions that the class has."""
    place, shape = {"loc": jm.free, "scale": jm.positive}, {"concentration": jm.positive}
    grid = {"loc": [0.0, 1e7], "scale": SCALES[1:]}

    def two(loc, scale):
        weights = distrax.Categorical(probs=jnp.array([0.3, 0.7]))
        return distrax.MixtureSameFamily(
            weights, distrax.Normal(jnp.stack([loc, loc + 1]), jnp.stack([scale, scale]))
        )

    return {
        "normal": (distrax.Normal, place, grid, LINE, FUNCTIONS),
        "laplace": (distrax.Laplace, place, grid, LINE, FUNCTIONS),
        "logistic": (distrax.Logistic, place, grid, LINE, FUNCTIONS),
        "gumbel": (distrax.Gumbel, place, grid, LINE, FUNCTIONS),
        "log-sd normal": (distrax.LogStddevNormal, {"loc": jm.free, "log_scale": jm.free}, {"loc": [0.0, 1e7], "log_scale": [-60.0, -3.0, 0.0, 10.0, 60.0]}, LINE, FUNCTIONS),
        "uniform": (distrax.Uniform, {"low": jm.free, "high": jm.free}, {"low": [-1.0, 0.0], "high": [1.0, 1e7]}, LINE[np.abs(LINE) > 1e-100], FUNCTIONS),
        "bernoulli": (distrax.Bernoulli, {"probs": jm.interval(0, 1)}, {"probs": SHARES}, WHOLE, FUNCTIONS),
        "quantized normal": (lambda loc, scale: distrax.Quantized(distrax.Normal(loc, scale)), place, {"loc": [0.0, 1e4], "scale": [0.1, 1.0, 1e4]}, WHOLE, FUNCTIONS),
        "mixture": (two, place, grid, LINE, FUNCTIONS[:1]),
        "slow gamma": (distrax.Gamma, shape | {"rate": jm.positive}, {"concentration": SHAPES, "rate": SCALES}, HALF, FUNCTIONS),
        "slow beta": (distrax.Beta, {"alpha": jm.positive, "beta": jm.positive}, {"alpha": SHAPES, "beta": SHAPES}, UNIT, FUNCTIONS),
        "slow von Mises": (distrax.VonMises, {"loc": jm.free} | shape, {"loc": [0.0], "concentration": SHAPES[1:6]}, TURN, FUNCTIONS),
    }  # fmt: skip


DISTRAX = {} if distrax is None else of_distrax()


@pytest.mark.parametrize("case", thorough_where(DISTRAX, lambda case: case.startswith("slow")))
def test_no_distribution_of_distrax_is_nan_to_second_order_over_the_whole_range(case):
    """Densities and tails, which are both branches of a censored row: NaN where a library's own value was −∞ or 0."""
    kind, constraints, settings, y, functions = DISTRAX[case]
    family = jf.from_distribution(kind, constraints)
    grid = np.meshgrid(*settings.values(), y, indexing="ij")
    columns = [np.ravel(axis) for axis in grid]
    with np.errstate(all="ignore"):
        found = to_second_order(family, list(settings), functions, columns)
    bad = np.isnan(found)
    where = np.argwhere(bad)[:3]
    told = [(functions[f], [float(c[n]) for c in columns], entry) for f, n, entry in where]
    assert not bad.any(), f"{bad.any(axis=2).sum()} of {bad.shape[1]} points: {told}"


MIXTURES = {
    "normals": (jf.mixture(jf.normal, jf.normal), [("loc", [0.0, -3.0, 1e7]), ("scale", SCALES[1:-1])], LINE),
    "Poissons": (jf.mixture(jf.poisson, jf.poisson), [("rate", SCALES)], WHOLE),
    "normal and Cauchy": (jf.mixture(jf.normal, jf.cauchy), [("loc", [0.0, 1e7]), ("scale", SCALES[1:-1])], LINE),
}  # fmt: skip


@pytest.mark.parametrize("case", MIXTURES)
def test_no_mixture_is_nan_to_second_order_over_the_whole_range(case):
    """Weights down to 1e-140, the first component anywhere, the second at a usual place."""
    family, settings, y = MIXTURES[case]
    names = [name for name, _ in settings]
    usual = {"loc": 1.0, "scale": 2.0, "rate": 3.0}

    def log_prob(*row):
        *values, share, y = row
        first = dict(zip(names, values, strict=True))
        second = {name: usual[name] for name in names}
        weights = jnp.stack([share, 1 - share])
        return family.log_prob({"weights": weights, "components": (first, second)}, y)

    grid = np.meshgrid(*(values for _, values in settings), [1e-140, 1e-12, 0.5, 1 - 1e-12], y)
    columns = [np.ravel(axis) for axis in grid]
    free = tuple(range(len(names) + 1))
    with jax.enable_x64(True):
        leaves = jax.tree.leaves(jax.jit(jax.vmap(two_orders(log_prob, free)))(*columns))
    for found in leaves:
        bad = np.isnan(found)
        assert not bad.any(), (
            bad.sum(),
            [[float(c[n]) for c in columns] for n in np.flatnonzero(bad)[:3]],
        )


def test_no_dirichlet_multinomial_is_nan_to_second_order_over_the_whole_range():
    counts = np.array(
        [[0, 0, 0], [1, 0, 0], [5, 3, 0], [1e6, 2, 1e3], [1e9, 1e9, 1e9], [np.inf, 0, 1]]
    )
    shapes = np.stack(np.meshgrid(*[[1e-140, 1e-8, 0.3, 30.0, 1e6, 1e140]] * 3), axis=-1).reshape(
        -1, 3
    )
    family = jf.dirichlet_multinomial

    def log_prob(a, y):
        return family.log_prob({"concentration": a}, y)

    rows = [np.repeat(shapes, len(counts), axis=0), np.tile(counts, (len(shapes), 1))]
    with jax.enable_x64(True):
        for found in jax.jit(jax.vmap(two_orders(log_prob, 0)))(*rows):
            assert not np.isnan(found).any()


# ---------------------------------------------------------------- quantiles

LEVELS = np.array([1e-140, 1e-100, 1e-12, 0.02, 0.5, 0.7, 1 - 1e-12, 1 - 1e-16])
QUANTILES = {
    "normal": (jf.normal, PLACED), "laplace": (jf.laplace, PLACED), "logistic": (jf.logistic, PLACED),
    "cauchy": (jf.cauchy, {"loc": LOCS, "scale": SCALES[:6]}), "gumbel": (jf.gumbel, PLACED), "exponential": (jf.exponential, {"rate": SCALES}),
    "weibull": (jf.weibull, {"scale": SCALES, "shape": [0.3, 1.0, 2.5, 30.0, 1e3, 1e6]}),
    "lognormal": (jf.lognormal, {"meanlog": [0.0, 300.0, -1e6], "sdlog": SHAPES[:6]}),
    "pareto": (jf.pareto, {"scale": [1e-30, 1.0, 1e30], "shape": SHAPES[2:]}),
    "gev": (jf.gev, {"loc": [0.0, 1e7], "scale": [1e-30, 1.0, 1e30], "shape": TAILS[:7]}),
    "generalised Pareto": (jf.generalised_pareto, {"loc": [0.0, 1e3], "scale": [1e-30, 1.0, 1e30], "shape": TAILS[:7]}),
    "slow Student t": (jf.student_t, {"df": [1.0, 2.5, 30.0, 1e3, 1e6], "loc": [0.0, 1e7], "scale": [1e-30, 1.0, 1e30]}),
    "slow gamma": (jf.gamma, {"rate": SCALES, "shape": SHAPES[2:]}),
    "slow inverse gamma": (jf.inverse_gamma, {"scale": SCALES, "shape": SHAPES[2:]}),
    "slow beta": (jf.beta, {"shape1": SHAPES[2:7], "shape2": SHAPES[2:7]}),
    "slow inverse Gaussian": (jf.inverse_gaussian, {"mean": [1e-4, 1.0, 1e4], "shape": [1e-4, 1.0, 1e4]}),
    "slow skew-normal": (jf.skew_normal, {"loc": [0.0, 1e7], "scale": [1e-30, 1.0, 1e30], "shape": [0.0, 0.5, -2.0, 30.0]}),
    "slow von Mises": (jf.von_mises, {"kappa": SHAPES[:7], "loc": [0.0]}),
    "truncated normal": (jf.truncated(jf.normal), {"loc": [0.0, 3.0], "scale": [0.3, 1.0, 7.0], "low": [-1.0, 0.5], "high": [np.inf, 4.0]}),
}  # fmt: skip


def is_slow(case):
    return case.startswith("slow") and case != "slow gamma"


@pytest.mark.parametrize("case", thorough_where(QUANTILES, is_slow))
def test_quantiles_and_their_slopes_are_those_of_the_implicit_function_theorem(case):
    """At levels of 1e-140 to 1 − 1e-16: no NaN; and dq/dθ = −F_θ/f where the value has the digits to show it."""
    family, settings = QUANTILES[case]
    names = list(settings)
    free = [name for name in names if name in family.constraints]
    grid = np.meshgrid(*settings.values(), LEVELS, indexing="ij")
    columns = [np.ravel(axis) for axis in grid]

    def all_at(*row):
        p = dict(zip(names, row[:-1], strict=True))
        values = {name: p[name] for name in free}

        def quantile(free_values, level):
            return family.quantile(p | free_values, level)

        def log_cdf(free_values):
            return family.log_cdf(p | free_values, at)

        at, (slopes, in_level) = jax.value_and_grad(quantile, (0, 1))(values, row[-1])
        below, moved = jax.value_and_grad(log_cdf)(values)
        tails = [family.log_prob(p, at), below, family.log_sf(p, at)]
        slopes = jnp.stack([in_level, *(slopes[name] for name in free)])
        return at, slopes, jnp.stack(tails), jnp.stack([moved[name] for name in free])

    with jax.enable_x64(True):
        value, slopes, tails, moved = map(np.asarray, jax.jit(jax.vmap(all_at))(*columns))
    bad = np.isnan(value) | np.isnan(slopes).any(axis=1)
    where = [[float(c[n]) for c in columns] for n in np.flatnonzero(bad)[:4]]
    assert not bad.any(), (bad.sum(), len(bad), where)
    density, cdf, sf = tails.T
    q = columns[-1]
    with np.errstate(all="ignore"):
        # An ulp of the value moves F by f times it, and log F by that over F.
        grain = np.exp(density + np.log(np.spacing(np.abs(value))) - np.where(q <= 0.5, cdf, sf))
        implied = -moved * np.exp(cdf - density)[:, None]
    plain = np.isfinite(value) & (grain < 1e-11) & (q > 1e-15) & (q < 1 - 1e-9)
    assert plain.sum() > len(q) / 8
    plain &= slopes[:, 0] > 0  # of a law 1e100 wide its log does not overflow, it does
    np.testing.assert_allclose(np.log(slopes[plain, 0]), -density[plain], rtol=1e-7, atol=1e-7)
    size = np.abs(implied[plain]).max(axis=1, keepdims=True)
    assert np.all(np.abs(slopes[plain, 1:] - implied[plain]) <= 1e-6 * np.maximum(size, 1e-290))


def test_censored_rows_are_sound_to_second_order_whatever_the_unit():
    """Exact, right, left and interval rows of a Weibull law of 1e-30 to 1e30 units: NaN once shape · log10(scale) passed 154."""
    family = jf.censored(jf.weibull)
    lower = np.array([1.0, 0.5, -np.inf, 0.2, 0.0, -np.inf])
    upper = np.array([1.0, np.inf, 0.4, 3.0, 2.0, np.inf])

    def total(p, unit):
        return jnp.sum(family.log_prob(p, {"lower": lower * unit, "upper": upper * unit}))

    def second(shape, unit):
        p = {"shape": shape, "scale": 0.9 * unit}
        return total(p, unit), jax.grad(total)(p, unit), jax.hessian(total)(p, unit)

    with jax.enable_x64(True):
        shape, unit = np.meshgrid([0.5, 3.0, 20.0, 150.0], [1e-30, 1e-7, 1.0, 1e7, 1e30])
        found = jax.jit(jax.vmap(second))(shape.ravel(), unit.ravel())
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))


# ---------------------------------------------------------------- right far out, by sixty digits


def log_weibull(z, p):
    return p["shape"] * (mp.log(z) - mp.log(p["scale"]))


def log_ndtr(z):
    return mp.log(mp.erfc(-z / mp.sqrt(2)) / 2)


def standard(y, p):
    return (y - p["loc"]) / p["scale"]


EXACT = {
    "weibull": (
        jf.weibull,
        {
            "log_cdf": lambda y, p: mp.log(-mp.expm1(-mp.exp(log_weibull(y, p)))),
            "log_sf": lambda y, p: -mp.exp(log_weibull(y, p)),
            "log_prob": lambda y, p: mp.log(p["shape"]) - mp.log(y) + log_weibull(y, p) - mp.exp(log_weibull(y, p)),
        },
        [
            ({"shape": 20.0, "scale": 1e7}, 1.0), ({"shape": 20.0, "scale": 1e7}, 1.2e7), ({"shape": 0.5, "scale": 1e-9}, 1e-200),
            ({"shape": 150.0, "scale": 100.0}, 50.0), ({"shape": 2.0, "scale": 1e30}, 3e30), ({"shape": 3.0, "scale": 1.0}, 1e-80),
        ],
    ),
    "gumbel": (
        jf.gumbel,
        {
            "log_cdf": lambda y, p: -mp.exp(-standard(y, p)),
            "log_sf": lambda y, p: mp.log(-mp.expm1(-mp.exp(-standard(y, p)))),
        },
        [({"loc": 0.0, "scale": 1.0}, y) for y in (-5.0, 0.3, 40.0, 900.0, 1e8)],
    ),
    "cauchy": (
        jf.cauchy,
        {
            "log_prob": lambda y, p: -mp.log(mp.pi * p["scale"]) - mp.log(1 + standard(y, p) ** 2),
            "log_cdf": lambda y, p: mp.log(mp.atan2(1, -standard(y, p)) / mp.pi),
        },
        [({"loc": 0.3, "scale": 2.0}, y) for y in (-1e140, -1e20, -3.0, 0.7, 40.0)],
    ),
    "generalised Pareto": (
        jf.generalised_pareto,
        {
            "log_cdf": lambda y, p: mp.log(1 - (1 + p["shape"] * y / p["scale"]) ** (-1 / p["shape"])),
            "log_sf": lambda y, p: -mp.log(1 + p["shape"] * y / p["scale"]) / p["shape"],
        },
        [({"scale": 2.0, "shape": 0.3}, y) for y in (1e-40, 1e-3, 1.0, 1e20, 1e100)] + [({"scale": 1e-30, "shape": -0.3}, 1e-30)],
    ),
    "inverse Gaussian": (
        jf.inverse_gaussian,
        {
            "log_prob": lambda y, p: mp.log(p["shape"] / (2 * mp.pi * y**3)) / 2 - p["shape"] * (y - p["mean"]) ** 2 / (2 * p["mean"] ** 2 * y),
            "log_cdf": lambda y, p: mp.log(
                mp.exp(log_ndtr(mp.sqrt(p["shape"] / y) * (y / p["mean"] - 1)))
                + mp.exp(2 * p["shape"] / p["mean"] + log_ndtr(-mp.sqrt(p["shape"] / y) * (y / p["mean"] + 1)))
            ),
        },
        [({"mean": 1.0, "shape": 2.0}, y) for y in (1e-3, 0.4, 1.0, 5.0)] + [({"mean": 1e-4, "shape": 3.0}, 0.9e-4)],
    ),
    "gamma": (
        jf.gamma,
        {"log_prob": lambda y, p: p["shape"] * mp.log(p["rate"]) + (p["shape"] - 1) * mp.log(y) - p["rate"] * y - mp.loggamma(p["shape"])},
        [({"shape": 1e9, "rate": 1e3}, 1.00001e6), ({"shape": 1e-6, "rate": 2.0}, 1e-200), ({"shape": 12.0, "rate": 1e-40}, 1e41)],
    ),
    "beta-binomial": (
        jf.beta_binomial,
        {
            "log_prob": lambda y, p: mp.log(mp.binomial(p["trials"], y)) + mp.log(mp.beta(y + p["shape1"], p["trials"] - y + p["shape2"]))
            - mp.log(mp.beta(p["shape1"], p["shape2"])),
        },
        [({"shape1": a, "shape2": b, "trials": 12.0}, 5.0) for a, b in ((0.4, 3.0), (1e-5, 2.0), (1e7, 2e7), (40.0, 1e9))],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", EXACT)
def test_values_and_two_derivatives_far_out_are_mpmaths(case):
    """Value, gradient and Hessian to 1e-11, 1e-10 and 1e-8 of their own size, or of what an ulp of the arguments makes of them."""
    family, functions, points = EXACT[case]
    names = list(points[0][0])
    free = [name for name in names if name in family.constraints]
    columns = [np.array([p[name] for p, _ in points]) for name in names]
    found = to_second_order(
        family, names, list(functions), [*columns, np.array([y for _, y in points])]
    )
    for f, function in enumerate(functions.values()):
        for n, (p, y) in enumerate(points):
            exact = derivatives_of(function, p, y, free)
            k = len(free)
            scale = np.maximum(np.abs(exact), 1e-300)
            sizes = np.array([abs(p[name]) or 1.0 for name in free])
            # What an ulp of a parameter does: the value moves by |θ ∂f/∂θ|, a slope by |θ ∂²f/∂θ²|.
            scale[0] += np.abs(exact[1 : 1 + k]) @ sizes
            curved = np.abs(exact[1 + k :]).reshape(k, k)
            scale[1 : 1 + k] += curved @ sizes
            scale[1 + k :] += (scale[1 : 1 + k, None] / sizes[None, :]).ravel() * 1e-2
            limit = np.concatenate([[1e-11], np.full(k, 1e-10), np.full(k * k, 1e-8)])
            off = np.abs(found[f, n] - exact) / scale
            assert np.all(off <= limit), (list(functions)[f], p, y, found[f, n], exact)


def derivatives_of(function, p, y, free):
    with mp.workdps(80):
        held = {name: mp.mpf(value) for name, value in p.items()}

        def of(*logs):
            return function(
                mp.mpf(y),
                held
                | {
                    name: held[name] + (held[name] or 1) * u
                    for name, u in zip(free, logs, strict=True)
                },
            )

        unit, k = np.eye(len(free), dtype=int), len(free)
        sizes = [held[name] or mp.mpf(1) for name in free]
        orders = [
            (0,) * k,
            *unit.tolist(),
            *((unit[i] + unit[j]).tolist() for i in range(k) for j in range(k)),
        ]
        values = []
        for order in orders:
            step = (
                mp.diff(of, (0,) * k, tuple(order), h=mp.mpf(10) ** -20)
                if any(order)
                else of(*(0,) * k)
            )
            values.append(float(step / mp.fprod(s**o for s, o in zip(sizes, order, strict=True))))
        return np.array(values)


# ---------------------------------------------------------------- fits


@pytest.mark.parametrize("family", [jf.gev, jf.skew_normal, jf.student_t], ids=lambda f: f.name)
def test_values_above_a_datum_of_a_million_start_from_their_own_spread(family):
    """SD below 1e-6 of the mean was taken for a constant: the start was 1e6 scales wide."""
    y = np.random.default_rng(2).gumbel(size=80) * 0.1
    near, far = jm.fit(family, data=y), jm.fit(family, data=y + 1e6)
    assert far.verdict.name == near.verdict.name == "CONVERGED"
    # The data themselves are rounded to 1e-10 there, a billionth of their spread.
    np.testing.assert_allclose(far.params["scale"], near.params["scale"], rtol=1e-7)
