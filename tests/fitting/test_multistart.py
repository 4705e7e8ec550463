"""Many starts on one data set: the census against brute force, label switching, likelihoods without a maximum, how starts are given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize_scalar

import jaxmle as jm
from jaxmle import Status
from tests.likelihoods import cauchy, normal_beside_background, normal_kernel

N = 60
RNG = np.random.default_rng(41)
SPREAD = np.array([-20.0, -8.0, 0.0, 1.5, 5.0, 17.0])
Y = np.concatenate([RNG.normal(-1.5, 1.0, 20), RNG.normal(2.0, 1.0, 40)])


def mixture(params, y):
    """Two normal components of standard deviation one."""
    r = y[:, None] - params["mu"][None, :]
    return jax.scipy.special.logsumexp(jnp.log(params["weight"])[None, :] - 0.5 * r**2, axis=1)


GAUSS = {"mu": 0.0, "sigma": 1.0}
POSITIVE = {"sigma": jm.positive}
SIMPLEX = {"weight": jm.simplex}
PAIR = {"mu": np.array([-1.0, 1.0]), "weight": np.array([0.5, 0.5])}


def two_components(key):
    place, share = jax.random.split(key)
    first = jax.random.uniform(share, minval=0.2, maxval=0.8)
    return {"mu": 2.0 * jax.random.normal(place, (2,)), "weight": jnp.stack([first, 1.0 - first])}


# ---------------------------------------------------------------- the census


def local_maxima(ell, grid):
    """Every local maximum of a function of one variable: a fine grid, each peak polished."""
    values = np.array([ell(t) for t in grid])
    peaks = 1 + np.flatnonzero((values[1:-1] > values[:-2]) & (values[1:-1] > values[2:]))
    ends = [
        minimize_scalar(
            lambda t: -ell(t),
            bounds=(grid[i - 1], grid[i + 1]),
            method="bounded",
            options={"xatol": 1e-12},
        )
        for i in peaks
    ]
    return sorted(((-end.fun, end.x) for end in ends), reverse=True)


def test_a_census_of_cauchy_maxima_is_that_of_brute_force():
    found = jm.multistart(cauchy, {"centre": np.linspace(-24.0, 24.0, 16)}, SPREAD)
    oracle = local_maxima(
        lambda t: -np.sum(np.log1p((SPREAD - t) ** 2)), np.linspace(-25.0, 25.0, 20_001)
    )
    assert len(oracle) == len(found.maxima) == 4
    assert_allclose([m.loglik for m in found.maxima], [value for value, _ in oracle], rtol=1e-12)
    assert_allclose(
        [m.fit.params["centre"] for m in found.maxima], [place for _, place in oracle], atol=1e-6
    )  # a value to 1e-16 has its place to 1e-8
    assert_allclose(
        [m.gap for m in found.maxima], [oracle[0][0] - value for value, _ in oracle], atol=1e-11
    )
    assert found.best is found.maxima[0].fit
    assert_allclose(found.best.x, jm.fit(cauchy, {"centre": 0.5}, SPREAD).x, rtol=1e-9)


def test_every_start_that_converges_belongs_to_one_maximum():
    found = jm.multistart(cauchy, {"centre": np.linspace(-24.0, 24.0, 16)}, SPREAD)
    members = np.concatenate([m.members for m in found.maxima])
    assert_array_equal(np.sort(members), np.flatnonzero(found.fits.converged))
    assert_allclose(sum(m.share for m in found.maxima), found.fits.converged.mean())
    for m in found.maxima:
        assert_allclose((found.fits.x[m.members] - m.fit.x) / m.fit.se, 0.0, atol=1e-6)
        assert m.share == len(m.members) / 16
        assert m.loglik == found.fits.loglik[m.members].max()


def test_a_normal_sample_has_one_maximum():
    found = jm.multistart(normal_kernel, GAUSS, Y, number=12, constraints=POSITIVE)
    (only,) = found.maxima
    assert only.share == 1.0
    assert only.gap == 0.0
    assert found.counts == {Status.CONVERGED: 12}
    assert_allclose(
        [found.best.params["mu"], found.best.params["sigma"]], [Y.mean(), Y.std()], rtol=1e-10
    )
    assert_allclose(found.best.stderr["mu"], Y.std() / np.sqrt(N), rtol=1e-8)


# ---------------------------------------------------------------- labels


def em(mu, weight, rounds=3000):
    """ℓ at the end of an EM climb of the mixture, and its components sorted by mean."""
    for _ in range(rounds):
        density = weight * np.exp(-0.5 * (Y[:, None] - mu) ** 2)
        share = density / density.sum(axis=1, keepdims=True)
        weight, mu = share.mean(axis=0), share.T @ Y / share.sum(axis=0)
    return np.log(density.sum(axis=1)).sum(), np.sort(mu)


@pytest.mark.thorough
def test_without_symmetry_both_labellings_are_maxima():
    found = jm.multistart(mixture, two_components, Y, number=16, constraints=SIMPLEX)
    first, second = found.maxima
    assert_allclose(first.loglik, second.loglik, rtol=1e-12)
    assert_allclose(first.fit.params["mu"], second.fit.params["mu"][::-1], rtol=1e-8)
    assert_allclose(first.fit.params["weight"], second.fit.params["weight"][::-1], rtol=1e-8)
    assert "2 maxima are equally high" in repr(found)


@pytest.mark.parametrize(
    "group",
    [("mu", "weight"), ("weight", "mu"), (("mu[0]", "weight[0]"), ("mu[1]", "weight[1]"))],
    ids=["leaves", "other order", "blocks"],
)
def test_symmetry_merges_maxima_that_differ_by_labels(group):
    apart = jm.multistart(mixture, two_components, Y, number=16, constraints=SIMPLEX)
    found = jm.multistart(
        mixture, two_components, Y, number=16, constraints=SIMPLEX, symmetric=[group]
    )
    (only,) = found.maxima
    assert_array_equal(only.members, np.sort(np.concatenate([m.members for m in apart.maxima])))
    assert_allclose(only.share, sum(m.share for m in apart.maxima))
    value, mu = em(np.array([-1.0, 1.0]), np.array([0.5, 0.5]))
    assert_allclose(only.loglik, value, rtol=1e-12)
    assert_allclose(np.sort(only.fit.params["mu"]), mu, rtol=1e-6)
    # As found, not relabelled; which of two mirror images is the nearer one, rounding decides.
    assert any(np.array_equal(only.fit.x, maximum.fit.x) for maximum in apart.maxima)


def test_exchanging_means_alone_is_no_symmetry():
    """Components of other weights are not copies of each other."""
    found = jm.multistart(
        mixture, two_components, Y, number=16, constraints=SIMPLEX, symmetric=[("mu",)]
    )
    assert len(found.maxima) == 2


def test_without_a_covariance_maxima_are_told_apart_by_their_curvature():
    observed = jm.multistart(mixture, two_components, Y, number=16, constraints=SIMPLEX)
    none = jm.multistart(mixture, two_components, Y, number=16, constraints=SIMPLEX, vcov=None)
    assert [m.members.tolist() for m in none.maxima] == [
        m.members.tolist() for m in observed.maxima
    ]
    assert np.isnan(none.best.se).all()


# ---------------------------------------------------------------- what fails


UNBOUNDED = {
    "mu": np.array([2.0, 1.0, 0.0, 3.0, *Y[:3]]),
    "sigma": np.array([1.0, 1.0, 1.0, 1.0, 1e-4, 1e-4, 1e-4]),
}


def test_an_unbounded_likelihood_is_counted_and_said():
    found = jm.multistart(normal_beside_background, UNBOUNDED, Y, constraints=POSITIVE)
    grows = np.asarray(found.fits.status) == Status.UNBOUNDED
    assert found.fits.witness.row[grows].tolist() == [0, 1, 2]  # a batch names the rows too
    assert found.unbounded == found.counts[Status.UNBOUNDED] == 3
    assert found.best.verdict == Status.CONVERGED
    assert found.maxima[0].share == 4 / 7
    assert (
        "The likelihood is unbounded: from 3 starts it kept rising without end, so the best is only a local maximum."
        in " ".join(repr(found).split())
    )


def test_where_no_start_converges_the_unbounded_one_is_the_best():
    starts = jax.tree.map(lambda leaf: leaf[4:], UNBOUNDED)
    found = jm.multistart(normal_beside_background, starts, Y, constraints=POSITIVE)
    assert found.best.verdict == Status.UNBOUNDED
    assert found.maxima == ()
    assert found.unbounded == 3
    assert "there is no maximum" in repr(found)


def test_starts_where_the_likelihood_is_not_finite_fail_alone():
    starts = {"mu": np.zeros(5), "sigma": np.array([1.0, -1.0, 2.0, -3.0, 0.5])}
    found = jm.multistart(normal_kernel, starts, Y)
    assert found.counts == {Status.NONFINITE: 2, Status.CONVERGED: 3}
    assert_array_equal(found.maxima[0].members, [0, 2, 4])
    assert found.maxima[0].share == 3 / 5
    assert "NONFINITE       2  40.0" in repr(found)


def test_where_none_converges_the_status_decides_then_the_likelihood():
    starts = {"mu": np.array([40.0, 20.0, 0.0]), "sigma": np.array([1.0, 2.0, -1.0])}
    found = jm.multistart(normal_kernel, starts, Y, max_steps=1)
    assert_array_equal(found.fits.status, [Status.MAX_STEPS, Status.MAX_STEPS, Status.NONFINITE])
    assert found.best.verdict == Status.MAX_STEPS
    assert found.best.loglik == found.fits.loglik[1] > found.fits.loglik[0]
    assert "0 maxima from 3 starts" in repr(found)
    assert "MAX_STEPS" in repr(found)


def test_an_end_above_the_best_that_did_not_converge_is_said():
    lowest = jm.multistart(cauchy, {"centre": np.linspace(-24.0, 24.0, 16)}, SPREAD).maxima[-1]
    found = jm.multistart(
        cauchy, {"centre": np.array([float(lowest.fit.params["centre"]), 1.2])}, SPREAD, max_steps=2
    )
    assert_array_equal(found.fits.status, [Status.CONVERGED, Status.MAX_STEPS])
    assert_allclose(found.best.loglik, lowest.loglik, rtol=1e-12)
    assert "1 start that did not converge reached a higher value, up to -19." in repr(found)
    assert "fits[1].explain()" in repr(found)


# ---------------------------------------------------------------- how starts are given


def test_drawn_starts_begin_with_the_one_given_and_keep_to_the_constraints():
    found = jm.multistart(mixture, PAIR, Y, number=16, constraints=SIMPLEX, params_axis=None)
    assert_array_equal(found.starts["mu"][0], PAIR["mu"])
    assert_array_equal(found.starts["weight"][0], PAIR["weight"])
    assert found.starts["mu"].shape == (16, 2)
    assert len(np.unique(found.starts["mu"], axis=0)) == 16
    assert_allclose(found.starts["weight"].sum(axis=1), 1.0)
    assert (found.starts["weight"] > 0).all()


def test_drawn_starts_spread_two_about_the_one_given_on_the_free_scale():
    from jaxmle.likelihood.contract import as_tree
    from jaxmle.parameters.tree import layout_of
    from jaxmle.starts.starts import drawn_about

    start = {"mu": np.array(3.0), "sigma": np.array(0.2)}
    with jax.enable_x64(True):
        drawn = drawn_about(
            as_tree(normal_kernel), layout_of(start, POSITIVE), start, 4000, jax.random.key(1)
        )
    z = np.stack([drawn["mu"][1:] - 3.0, np.log(drawn["sigma"][1:] / 0.2)])
    assert_allclose(
        z.mean(axis=1), 0.0, atol=4 * 2 / np.sqrt(4000)
    )  # four standard errors of a mean
    assert_allclose(np.cov(z), 4.0 * np.eye(2), atol=4 * 4 * np.sqrt(2 / 4000))


@pytest.mark.thorough
def test_a_start_drawn_onto_a_bound_by_rounding_is_drawn_nearer():
    """One ulp below its bound, half of all draws would round to the bound itself."""
    start = {"share": 1.0 - 2.0**-53}

    def bernoulli(params, y):
        return jnp.where(y > 0, jnp.log(params["share"]), jnp.log1p(-params["share"]))

    found = jm.multistart(bernoulli, start, Y, number=12, constraints={"share": jm.interval(0, 1)})
    assert ((found.starts["share"] > 0) & (found.starts["share"] < 1)).all()


@pytest.mark.thorough
def test_fixed_and_tied_parameters_stay_so_in_drawn_starts():
    held = jm.fix(normal_kernel, {"sigma": 1.5})
    found = jm.multistart(held, GAUSS, Y, number=12, constraints=POSITIVE)
    assert_array_equal(found.starts["sigma"], 1.5)
    assert_allclose(found.best.params["mu"], Y.mean(), rtol=1e-10)
    tied = jm.multistart(
        jm.tie(normal_kernel, ("mu", "sigma")),
        {"mu": 1.0, "sigma": 1.0},
        np.abs(Y),
        number=12,
        constraints={"mu": jm.positive, "sigma": jm.positive},
    )
    assert_array_equal(tied.starts["mu"], tied.starts["sigma"])
    assert len(tied.maxima) == 1


def test_the_key_decides_the_starts_and_more_starts_keep_the_first():
    seven = jm.multistart(cauchy, {"centre": 0.0}, SPREAD, number=16, key=7)
    again = jm.multistart(cauchy, {"centre": 0.0}, SPREAD, number=16, key=jax.random.key(7))
    raw = jm.multistart(cauchy, {"centre": 0.0}, SPREAD, number=16, key=jax.random.PRNGKey(7))
    other = jm.multistart(cauchy, {"centre": 0.0}, SPREAD, number=16, key=8)
    fewer = jm.multistart(cauchy, {"centre": 0.0}, SPREAD, number=10, key=7)
    assert_array_equal(seven.starts["centre"], again.starts["centre"])
    assert_array_equal(seven.starts["centre"], raw.starts["centre"])
    assert_array_equal(seven.fits.x, again.fits.x)
    assert_array_equal(seven.starts["centre"][:10], fewer.starts["centre"])
    assert not np.any(seven.starts["centre"][1:] == other.starts["centre"][1:])


def test_a_sampler_that_cannot_be_traced_is_called_one_by_one():
    def hosted(key):
        return {"centre": np.random.default_rng(int(jax.random.bits(key))).normal(scale=9.0)}

    def traced(key):
        return {"centre": 9.0 * jax.random.normal(key)}

    def one_by_one(key):
        return {"centre": np.asarray(9.0 * jax.random.normal(key))}

    found = jm.multistart(cauchy, hosted, SPREAD, number=16)
    assert len(np.unique(found.starts["centre"])) == 16
    assert_array_equal(found.fits.x, jm.multistart(cauchy, hosted, SPREAD, number=16).fits.x)
    assert_allclose(
        jm.multistart(cauchy, traced, SPREAD, number=16).starts["centre"],
        jm.multistart(cauchy, one_by_one, SPREAD, number=16).starts["centre"],
        rtol=1e-14,
    )


def test_a_sampler_with_a_generator_of_its_own_is_asked_for_every_start():
    """Vmapped, it would be called once, and all starts would be the same."""
    rng = np.random.default_rng(0)
    found = jm.multistart(cauchy, lambda key: {"centre": rng.normal(scale=9.0)}, SPREAD, number=16)
    assert len(np.unique(found.starts["centre"])) == 16


def test_arrays_that_a_sampler_closes_over_stay_usable_in_float32():
    """jax keys a constant by the identity of its array: traced in float64 first, it broke the user's own program, or the other way round."""
    scale = np.array([2.0, 9.0])

    def sampler(key):
        return {"centre": jnp.sum(scale * jax.random.normal(key, (2,)))}

    first = jm.multistart(cauchy, sampler, SPREAD, number=16)
    assert jax.jit(sampler)(jax.random.key(0))["centre"].dtype == np.float32
    assert_array_equal(
        jm.multistart(cauchy, sampler, SPREAD, number=16).starts["centre"], first.starts["centre"]
    )


def test_a_start_that_could_be_read_both_ways_must_be_told():
    """Two means: one start with two components, or two starts with one. A symmetric group can decide."""

    def means(params, y):
        return jax.scipy.special.logsumexp(
            -0.5 * (y[:, None] - jnp.atleast_2d(params["mu"])) ** 2, axis=1
        )

    start = {"mu": np.array([-1.0, 1.0])}
    with pytest.raises(ValueError, match="one start or 2 starts: give params_axis=None"):
        jm.multistart(means, start, Y, number=4)
    assert jm.multistart(means, start, Y, number=4, params_axis=0).starts["mu"].shape == (2,)
    assert jm.multistart(means, start, Y, number=4, params_axis=None).starts["mu"].shape == (4, 2)
    assert jm.multistart(means, start, Y, number=4, symmetric=[("mu",)]).starts["mu"].shape == (
        4,
        2,
    )


class Exponential:
    """A model: it knows its bounds and where to start."""

    def __init__(self):
        self.constraints = {"rate": jm.positive}

    def start(self, y):
        return {"rate": 1.0 / np.mean(y)}

    def __call__(self, params, y):
        return jnp.log(params["rate"]) - params["rate"] * y


def test_a_model_knows_its_start():
    found = jm.multistart(Exponential(), data=np.abs(Y), number=12)
    assert_allclose(found.starts["rate"][0], 1 / np.abs(Y).mean())
    assert (found.starts["rate"] > 0).all()
    assert_allclose(found.best.params["rate"], 1 / np.abs(Y).mean(), rtol=1e-10)


@pytest.mark.thorough
def test_weights_and_clusters_are_those_of_a_fit():
    w, school = np.arange(N) % 3, np.arange(N) % 7
    found = jm.multistart(
        normal_kernel,
        GAUSS,
        Y,
        number=12,
        constraints=POSITIVE,
        weights=jm.frequency(w),
        clusters=school,
    )
    alone = jm.fit(
        normal_kernel, GAUSS, Y, constraints=POSITIVE, weights=jm.frequency(w), clusters=school
    )
    assert_allclose(found.best.x, alone.x, rtol=1e-9)
    assert_allclose(found.best.vcov, alone.vcov, rtol=1e-8)
    assert found.best.n == alone.n


def test_a_list_is_one_data_set():
    def paired(params, data):
        return normal_kernel(params, data[0]) + 0.0 * data[1]

    found = jm.multistart(paired, GAUSS, [Y, Y], number=4, constraints=POSITIVE)
    assert len(found.fits) == 4
    assert found.best.n == N


@pytest.mark.thorough
def test_float32_finds_the_same_maxima():
    starts = {"centre": np.linspace(-24.0, 24.0, 16)}
    found, double = (
        jm.multistart(cauchy, starts, SPREAD, dtype="float32"),
        jm.multistart(cauchy, starts, SPREAD),
    )
    assert found.fits.dtype == np.float32
    assert [m.members.tolist() for m in found.maxima] == [m.members.tolist() for m in double.maxima]


# ---------------------------------------------------------------- the table


@pytest.mark.thorough
def test_the_table_is_at_most_a_hundred_columns_and_one_screen():
    y = np.linspace(-300.0, 300.0, 30)
    found = jm.multistart(cauchy, {"centre": y.copy()}, y, params_axis=0)
    assert len(found.maxima) == 30
    lines = repr(found).split("\n")
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 40
    assert lines[0] == "30 maxima from 30 starts, 30 CONVERGED"
    assert repr(found.maxima[1]).startswith("Maximum(loglik=-")


# ---------------------------------------------------------------- bad input


def wrong_sampler(key):
    return {"mu": jnp.zeros(()), "sigma": jnp.ones(int(jax.random.bits(key) % 2) + 1)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"starts": {"mu": np.zeros(5), "sigma": np.ones(4)}}, "same leading axis"),
        (
            {"starts": {"mu": np.zeros(5), "sigma": np.ones(4)}, "params_axis": 0},
            "same leading axis",
        ),
        ({"starts": {"mu": np.zeros(5), "sigma": 1.0}, "params_axis": 0}, "same leading axis"),
        (
            {"starts": {"mu": np.zeros((5, 3)), "sigma": np.ones((5, 3))}},
            "neither as one start .* nor as 5 of them",
        ),
        ({"starts": {"mu": 0.0}}, "sigma"),
        ({"starts": None}, "starts is missing"),
        ({"starts": {"mu": False, "sigma": True}}, r"starts\['mu'\].*bool"),
        (
            {"starts": {"mu": np.array([0.0, np.nan]), "sigma": np.ones(2)}},
            r"starts\['mu'\] is not finite",
        ),
        (
            {"starts": {"mu": np.zeros(2), "sigma": np.array([1.0, -1.0])}},
            "member 1: the start of sigma",
        ),
        ({"starts": {"mu": 0.0, "sigma": -1.0}}, "start of sigma"),
        ({"starts": lambda: GAUSS}, "positional argument"),
        ({"starts": wrong_sampler}, "sampler's start . does not have the structure and shapes"),
        ({"number": 0}, "number must be"),
        ({"number": 2.5}, "number must be"),
        ({"number": True}, "number must be"),
        ({"key": "seed"}, "key must be"),
        ({"key": 1.5}, "key must be"),
        ({"key": np.zeros(2)}, "key must be"),
        ({"key": True}, "key must be"),
        ({"params_axis": 1}, "params_axis"),
        ({"symmetric": ("mu", "sigma")}, "each group of symmetric must be a tuple"),
        ({"symmetric": "mu"}, "list of groups"),
        ({"symmetric": [("nu",)]}, "'nu', which is not a leaf"),
        ({"symmetric": [("mu",)]}, "a scalar"),
        ({"symmetric": [(("mu",), ("nu",))]}, "no parameter is called 'nu'"),
        ({"symmetric": [(("mu", "sigma"), ("mu",))]}, "of the same length"),
        ({"symmetric": [(("mu",), ("mu",))]}, "twice"),
        ({"symmetric": [("mu", ("sigma",))]}, "not both"),
        ({"data": np.where(np.arange(N) == 3, np.nan, Y)}, "NaN in row 3"),
        ({"weights": jm.frequency(np.ones((4, N)))}, "weights must have shape"),
        (
            {"loglik": jm.weight(normal_kernel, jm.frequency(np.ones(N)))},
            r"multistart\(weights=…\)",
        ),
        ({"clusters": np.zeros((2, N))}, "clusters must hold"),
        ({"vcov": "HC9"}, "HC9"),
        ({"max_steps": -1}, "max_steps"),
        ({"constraints": {"scale": jm.positive}}, "'scale'"),
    ],
)
def test_bad_input_is_said(change, told):
    arguments = {
        "loglik": normal_kernel,
        "starts": GAUSS,
        "data": Y,
        "constraints": POSITIVE,
        "number": 4,
    } | change
    with pytest.raises((ValueError, TypeError, KeyError), match=told):
        jm.multistart(
            arguments.pop("loglik"), arguments.pop("starts"), arguments.pop("data"), **arguments
        )


@pytest.mark.parametrize(
    ("group", "told"),
    [
        (("mu", "scale"), "the same number of components: mu has 2, scale has 3"),
        (("mu[0]",), r"symmetric names 'mu\[0\]', which is not a leaf"),
        (("mu", "cov"), "covariance matrix"),
        ((("mu",), ("scale",)), "'mu', which has 2 entries, with 'scale', which has 3"),
    ],
)
def test_a_group_needs_leaves_of_as_many_components(group, told):
    start = {"mu": np.zeros(2), "scale": np.ones(3), "cov": np.eye(2)}

    def loglik(params, y):
        return (
            normal_kernel({"mu": params["mu"][0], "sigma": params["scale"][0]}, y)
            + 0.0 * params["cov"][0, 0]
        )

    with pytest.raises(ValueError, match=told):
        jm.multistart(loglik, start, Y, constraints={"cov": jm.covariance}, symmetric=[group])


def test_inside_a_trace_it_says_what_to_do():
    with pytest.raises(TypeError, match=r"jax\.vmap"):
        jax.jit(lambda y: jm.multistart(cauchy, {"centre": 0.0}, y).best.x)(SPREAD)
