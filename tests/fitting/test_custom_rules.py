"""Likelihoods with rules of differentiation of their own: no mode of jax is there for all of them, and the record says which was used.

The oracle is the same likelihood written as a plain formula, and the closed form of the exponential.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.likelihood.evaluate import sums
from jaxmle.parameters import layout_of
from jaxmle.runtime.opaque import OnceDifferentiable

Y = np.random.default_rng(17).exponential(2.0, size=30)
MEAN = Y.mean()
STOP = 1.5e-9  # standard errors from the maximum at which a climb may end: √(2δ), δ = 1e-18
PLAIN_ERROR = 1 / np.sqrt(len(Y))  # of a log rate


@jax.custom_vjp
def exponential(x):
    """e(x), whose backward rule calls e again."""
    return jnp.exp(x)


exponential.defvjp(lambda x: (exponential(x), x), lambda x, g: (g * exponential(x),))


def called_out(x):
    return jax.pure_callback(
        lambda x: np.exp(np.asarray(x)),
        jax.ShapeDtypeStruct(x.shape, x.dtype),
        x,
        vmap_method="sequential",
    )


@jax.custom_vjp
def from_outside(x):
    """exp(x) by a call out of jax, with a reverse rule by another."""
    return called_out(x)


from_outside.defvjp(lambda x: (called_out(x), x), lambda x, g: (g * called_out(x),))


@jax.custom_jvp
def from_outside_forward(x):
    """The same with a forward rule, whose loop has no reverse mode."""
    return called_out(x)


@from_outside_forward.defjvp
def forward_rule(primals, tangents):
    slope = called_out(*primals) * tangents[0]
    step = lambda carry: (carry[0], carry[1] + 1)  # noqa: E731
    return called_out(*primals), jax.lax.while_loop(lambda c: c[1] < 1, step, (slope, 0))[0]


def solved(a):
    """log a as the root z of eᶻ = a by Newton's steps, in a loop whose length depends on a."""

    def step(carry):
        z, _, count = carry
        new = z - 1 + a * jnp.exp(-z)
        return new, jnp.abs(new - z), count + 1

    start = (jnp.zeros_like(a), jnp.ones_like(a), 0)
    return jax.lax.while_loop(lambda c: (c[1] > 1e-13) & (c[2] < 100), step, start)[0]


@jax.custom_vjp
def implicit(a):
    """The same root with its derivative by the implicit function theorem, at any order."""
    return solved(a)


def implicit_forward(a):
    z = implicit(a)
    return z, z


implicit.defvjp(implicit_forward, lambda z, g: (g * jnp.exp(-z),))


def plain(params, data):
    return params["a"] - jnp.exp(params["a"]) * data


def self_calling(params, data):
    return params["a"] - exponential(params["a"]) * data


def outside(params, data):
    return params["a"] - from_outside(params["a"]) * data


def outside_forward(params, data):
    return params["a"] - from_outside_forward(params["a"]) * data


def implicit_layer(params, data):
    return implicit(jnp.exp(params["a"])) - jnp.exp(params["a"]) * data


def looping(params, data):
    return solved(jnp.exp(params["a"])) - jnp.exp(params["a"]) * data


METHOD = {
    plain: "forward over reverse",
    self_calling: "reverse over reverse",
    implicit_layer: "reverse over reverse",
    looping: "forward over forward",
    outside: "differences of the score",
    outside_forward: "differences of the score",
}
CUSTOM = [loglik for loglik in METHOD if loglik is not plain]


def name_of(loglik):
    return loglik.__name__


@pytest.mark.parametrize("loglik", METHOD, ids=name_of)
def test_a_fit_with_custom_rules_equals_the_closed_form_and_says_how_it_was_differentiated(loglik):
    """The symptom: TypeError, can't apply forward-mode differentiation to a custom_vjp function."""
    fit = jm.fit(loglik, {"a": 0.0}, Y)
    assert fit.converged and fit.hessian_by == METHOD[loglik]
    assert_allclose(fit.params["a"], -np.log(MEAN), atol=STOP * PLAIN_ERROR)
    error = np.abs(fit.stderr["a"] - PLAIN_ERROR)
    assert error <= STOP * PLAIN_ERROR + fit.witness.stderr_error[0]
    assert fit.witness.stderr_error[0] < 1e-9 * PLAIN_ERROR
    said = "Second derivatives were computed by " + METHOD[loglik]
    assert (said in fit.explain()) == (loglik is not plain)
    measured = METHOD[loglik] == "differences of the score"
    assert ("Their measured error" in fit.explain()) == measured


@pytest.fixture
def float64_on_every_thread():
    """Two calls out of jax in one program may run at once, one of them on a thread of jax's own, where float64 is
    off unless it is on for the process: jaxmle's error says so, and it comes and goes (jax 0.8).
    """
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("loglik", CUSTOM, ids=name_of)
def test_what_else_takes_derivatives_takes_them_too(loglik, request):
    if loglik in (outside, outside_forward):
        request.getfixturevalue("float64_on_every_thread")
    at = ({"a": -0.4}, Y)
    assert_allclose(jm.score(loglik)(*at)["a"], jm.score(plain)(*at)["a"], rtol=1e-12)
    assert_allclose(jm.scores(loglik)(*at), jm.scores(plain)(*at), rtol=1e-12)
    for quantity in (jm.hessian, jm.information, lambda f: jm.vcov(f, "HC3")):
        assert_allclose(quantity(loglik)(*at), quantity(plain)(*at), rtol=1e-10)
    fit, reference = (jm.fit(f, {"a": 0.0}, Y, vcov="HC0") for f in (loglik, plain))
    assert_allclose(fit.se, reference.se, rtol=1e-10)
    ends, truth = (jm.profile(f, r, Y).interval() for f, r in ((loglik, fit), (plain, reference)))
    assert_allclose(ends, truth, rtol=1e-8)


@pytest.mark.parametrize(
    "loglik",
    [
        self_calling,
        pytest.param(looping, marks=pytest.mark.thorough),
        pytest.param(outside, marks=pytest.mark.thorough),
    ],
    ids=name_of,
)
def test_a_fit_under_jit_is_the_fit_of_the_host(loglik):
    with jax.enable_x64(True):
        fit = jax.jit(lambda y: jm.fit(loglik, {"a": 0.0}, y))(Y)
    assert int(fit.status) == jm.Status.CONVERGED and fit.hessian_by == METHOD[loglik]
    assert_allclose(fit.params["a"], -np.log(MEAN), atol=STOP * PLAIN_ERROR)
    assert_allclose(fit.stderr["a"], PLAIN_ERROR, rtol=1e-10)


@pytest.mark.parametrize("loglik", [self_calling, looping], ids=name_of)
def test_a_batch_with_custom_rules_is_its_members(loglik):
    y = np.random.default_rng(18).exponential(3.0, size=(5, 20))
    fits = jm.fit_batch(loglik, {"a": 0.0}, y, progress=False)
    assert np.all(fits.converged) and fits.hessian_by == METHOD[loglik]
    assert_allclose(fits.params["a"], -np.log(y.mean(axis=1)), atol=STOP)
    assert_allclose(fits.stderr["a"], 1 / np.sqrt(20), rtol=1e-9)


def test_the_derivative_of_a_fit_goes_through_a_rule_that_reverse_mode_can_take_twice():
    """â = −log ȳ and SE = 1/√n: each y_i moves â by −1/Σy."""
    with jax.enable_x64(True):
        fit = jax.grad(lambda y: jm.fit(self_calling, {"a": 0.0}, y).params["a"])
        slope = np.asarray(jax.jit(fit)(Y))
    assert_allclose(slope, -1 / Y.sum(), rtol=1e-10)


def test_the_derivative_of_a_fit_by_differences_is_refused_by_name():
    with jax.enable_x64(True), pytest.raises(TypeError, match="by differences of the score cannot"):
        jax.jit(jax.grad(lambda y: jm.fit(outside, {"a": 0.0}, y).params["a"]))(Y)


def test_a_call_out_of_jax_without_a_rule_is_refused_by_name():
    def bare(params, data):
        return params["a"] - called_out(params["a"]) * data

    for ask in (jm.fit, lambda *at: jm.score(bare)(*at[1:]), lambda *at: jm.scores(bare)(*at[1:])):
        with pytest.raises(TypeError, match=r"a pure_callback has no rule .* jax.custom_vjp"):
            ask(bare, {"a": 0.0}, Y)


@pytest.mark.parametrize("loglik", METHOD, ids=name_of)
def test_wherever_rows_have_scores_there_are_differences_of_their_sum(loglik):
    """So that there is no road after differences: outer products of scores need a score too."""
    at = ({"a": -0.4}, Y)
    assert_allclose(jm.scores(loglik)(*at), jm.scores(plain)(*at), rtol=1e-12)
    with jax.enable_x64(True):
        found = jax.jit(lambda x: sums(OnceDifferentiable(loglik), layout_of(at[0]), x, Y))(
            np.array([-0.4])
        )
    assert found.hessian_by.method == "differences of the score"
    assert_allclose(found.hessian, jm.hessian(plain)(*at), rtol=1e-10)


def test_a_rough_score_makes_the_standard_errors_imprecise():
    """A score with ripples of 1e-4 standard errors has no second derivative to three digits, and the status says so."""

    @jax.custom_vjp
    def rough(x):
        return jnp.exp(x)

    def rule(x, g):
        return (g * called_out(x) * (1 + 2e-5 * jnp.sin(3e4 * x)),)

    rough.defvjp(lambda x: (called_out(x), x), rule)
    fit = jm.fit(lambda p, y: p["a"] - rough(p["a"]) * y, {"a": 0.0}, Y)
    assert fit.verdict == jm.Status.IMPRECISE
    assert fit.witness.stderr_error[0] > 1e-3 * PLAIN_ERROR or np.isnan(fit.se[0])


def test_the_error_of_differences_is_not_smaller_than_the_error_made():
    """Coordinates of scales 1 and 1e-9, at zero and far from the maximum, against the Hessian of the formula."""

    def with_scale(exp):
        def loglik(params, data):
            z = (data - params["m"] * 1e9) * exp(-params["s"])
            return -0.5 * z**2 - params["s"]

        return loglik

    def hessian_of(loglik, layout, x):
        return jax.jit(lambda x: sums(loglik, layout, x, Y))(x)

    for point in ({"m": 0.0, "s": 0.0}, {"m": 2e-9, "s": 0.7}, {"m": 1e-3, "s": 2.0}):
        layout = layout_of(point)
        with jax.enable_x64(True):
            x = layout.ravel(jax.tree.map(jnp.asarray, point))
            measured, exact = (
                hessian_of(with_scale(e), layout, x) for e in (from_outside, jnp.exp)
            )
        scale = np.sqrt(np.outer(*[np.abs(np.diagonal(exact.hessian))] * 2))
        gap, stated = (
            np.asarray(v) / scale
            for v in (np.abs(measured.hessian - exact.hessian), measured.hessian_by.error)
        )
        assert np.all(gap <= stated + 1e-14) and np.max(stated) < 1e-6


def test_a_saved_record_and_a_resumed_batch_keep_how_they_were_differentiated(tmp_path):
    fit = jm.fit(self_calling, {"a": 0.0}, Y)
    fit.save(tmp_path / "fit.npz")
    assert jm.Fit.load(tmp_path / "fit.npz").hessian_by == fit.hessian_by
    y = np.random.default_rng(18).exponential(3.0, size=(5, 20))
    first, again = (
        jm.fit_batch(self_calling, {"a": 0.0}, y, progress=False, checkpoint=tmp_path / "batch")
        for _ in range(2)
    )
    assert again.hessian_by == first.hessian_by == "reverse over reverse"
    assert_allclose(again.params["a"], first.params["a"], rtol=0)


# ---------------------------------------------------------------- rules that are right once only


def held_root(a):
    """log a, with a rule that takes the root for a number: right once, and its derivative is wrong."""

    @jax.custom_vjp
    def root(a):
        return solved(a)

    def forward(a):
        z = jax.lax.stop_gradient(solved(a))
        return z, z

    root.defvjp(forward, lambda z, g: (g * jnp.exp(-z),))
    return root(a)


def held_tangent(a):
    """The same with a forward rule."""

    @jax.custom_jvp
    def root(a):
        return solved(a)

    @root.defjvp
    def rule(primals, tangents):
        z = jax.lax.stop_gradient(solved(*primals))
        return z, jnp.exp(-z) * tangents[0]

    return root(a)


CHAIN = np.diag(np.full(6, 2.0)) - np.diag(np.ones(5), 1) - np.diag(np.ones(5), -1)
FORCE = np.linspace(0.5, 2.0, 6)


def stiffness(theta):
    return CHAIN * jnp.exp(theta[0]) + jnp.eye(6) * jnp.exp(theta[1])


@jax.custom_vjp
def displaced(theta):
    """z of A(θ)z = f, whose rule uses the solution it was given."""
    return jnp.linalg.solve(stiffness(theta), FORCE)


def displaced_forward(theta):
    z = jax.lax.stop_gradient(displaced(theta))
    return z, (theta, z)


def displaced_backward(held, g):
    theta, z = held
    adjoint = jnp.linalg.solve(stiffness(theta), g)
    return (-jax.vjp(lambda theta: stiffness(theta) @ z, theta)[1](adjoint)[0],)


displaced.defvjp(displaced_forward, displaced_backward)
STEPS = 40


def euler(k, y0):
    """y' = −ky in explicit steps of 1/40: y0(1 − k/40)ⁱ."""

    def step(y, _):
        return y - k * y / STEPS, y

    return jax.lax.scan(step, y0, None, length=STEPS)[1]


@jax.custom_vjp
def decayed(k, y0):
    """The path, with a hand-made adjoint over a path that was stored as numbers."""
    return euler(k, y0)


def decayed_forward(k, y0):
    path = jax.lax.stop_gradient(euler(k, y0))
    return path, (k, path)


def decayed_backward(held, g):
    k, path = held

    def back(carry, at):
        adjoint, slope = carry
        y, g = at
        return (adjoint * (1 - k / STEPS) + g, slope - adjoint * y / STEPS), None

    zero = (jnp.zeros_like(k), jnp.zeros_like(k))
    (adjoint, slope), _ = jax.lax.scan(back, zero, (path, g), reverse=True)
    return slope, adjoint


decayed.defvjp(decayed_forward, decayed_backward)
NOISE = np.random.default_rng(170).normal(size=STEPS)
DISPLACEMENT = np.linalg.solve(CHAIN * np.exp(0.3) + np.eye(6) * np.exp(-0.5), FORCE)
SEEN_DISPLACEMENT = DISPLACEMENT + 0.05 * NOISE[:6]
SEEN_PATH = 2.0 * (1 - 1.5 / STEPS) ** np.arange(STEPS) + 0.05 * NOISE


def with_root(root):
    return lambda p, y: root(jnp.exp(p["a"])) - jnp.exp(p["a"]) * y


def with_displacement(displacement):
    return lambda p, y: -0.5 * ((y - displacement(p["theta"])) / 0.05) ** 2


def with_path(path):
    return lambda p, y: -0.5 * ((y - path(p["k"], p["y0"])) / 0.05) ** 2


ONCE_ONLY = {  # the likelihood, the same as a formula, start and data
    "a fixed point": (with_root(held_root), plain, {"a": 0.0}, Y),
    "a fixed point by a forward rule": (with_root(held_tangent), plain, {"a": 0.0}, Y),
    "an implicit linear solution": (
        with_displacement(displaced),
        with_displacement(lambda theta: jnp.linalg.solve(stiffness(theta), FORCE)),
        {"theta": np.zeros(2)},
        SEEN_DISPLACEMENT,
    ),
    "an adjoint over a stored path": (
        with_path(decayed),
        with_path(lambda k, y0: y0 * (1 - k / STEPS) ** jnp.arange(STEPS)),
        {"k": 1.0, "y0": 1.0},
        SEEN_PATH,
    ),
}


@pytest.mark.parametrize("case", ONCE_ONLY)
def test_a_rule_that_holds_its_solution_still_gave_converged_with_wrong_standard_errors(case):
    """The score is right and jax's derivative of it is not: differences of the score are taken."""
    loglik, formula, start, data = ONCE_ONLY[case]
    fit = jm.fit(loglik, start, data)
    truth = jm.fit(formula, start, data)
    assert fit.converged and fit.hessian_by == "differences of the score"
    assert "does not give the derivatives of its score" in fit.explain()
    assert_allclose(fit.x, truth.x, atol=1e-8 * truth.se.min())  # two climbs end within √(2δ)
    assert np.all(np.abs(fit.se - truth.se) <= 1e-9 * truth.se + fit.witness.stderr_error)
    assert truth.hessian_by == "forward over reverse" and "derivatives" not in truth.explain()


@pytest.mark.thorough
@pytest.mark.parametrize("case", ONCE_ONLY)
def test_what_is_asked_of_such_a_rule_first_is_right_too(case):
    loglik, formula, start, data = ONCE_ONLY[case]
    fresh = lambda p, d: loglik(p, d)  # noqa: E731  nothing is known of it yet
    assert_allclose(jm.hessian(fresh)(start, data), jm.hessian(formula)(start, data), rtol=1e-8)
    batch = np.stack([data, data[::-1]]) if case.startswith("a fixed") else np.stack([data, data])
    fits, truth = (
        jm.fit_batch(f, start, batch, progress=False) for f in (lambda p, d: loglik(p, d), formula)
    )
    assert fits.hessian_by == "differences of the score"
    assert_allclose(fits.se, truth.se, rtol=1e-7)  # ends √(2δ) apart, and the error of differences


@pytest.mark.thorough
def test_under_jit_a_rule_that_is_right_once_only_is_never_converged():
    loglik = with_root(held_root)
    with jax.enable_x64(True):
        fit = jax.jit(lambda y: jm.fit(lambda p, d: loglik(p, d), {"a": 0.0}, y))(Y)
    assert int(fit.status) != jm.Status.CONVERGED

    @jax.custom_vjp
    def nearly(a):
        return jnp.log(a)

    def rule(held, g):
        return (g / (0.9 * held[0] + 0.1 * held[1]),)

    nearly.defvjp(lambda a: (jnp.log(a), (a, jax.lax.stop_gradient(a))), rule)
    with jax.enable_x64(True):
        fit = jax.jit(lambda y: jm.fit(with_root(nearly), {"a": 0.0}, y))(Y)
    assert int(fit.status) == jm.Status.IMPRECISE
    # the curvature is a tenth off, and the error stated covers it
    gap = abs(float(fit.stderr["a"]) - PLAIN_ERROR)
    assert 0.04 * PLAIN_ERROR < gap < float(fit.witness.stderr_error[0])


def test_a_rule_that_is_not_the_derivative_of_its_values_gave_converged_without_a_word():
    """A rule twice too large leaves the estimate and divides its standard error by √2."""

    @jax.custom_vjp
    def doubled(x):
        return x

    doubled.defvjp(lambda x: (x, None), lambda _, g: (2 * g,))

    def loglik(p, y):
        return doubled(p["a"]) - jnp.exp(doubled(p["a"])) * y

    with pytest.warns(UserWarning, match=r"^doubled: a custom_vjp .* is not the derivative"):
        fit = jm.fit(loglik, {"a": 0.0}, Y)
    assert "is not the derivative of its values" in fit.explain()


def test_functions_of_jax_and_of_this_package_are_not_compared():
    from jaxmle.likelihood.discovery.derivative_rules import written_rules

    def theirs(p, y):
        return jax.nn.softplus(p["a"]) + jnp.logaddexp(p["a"], y) + jm.special.log_ndtr(p["a"])

    layout = layout_of({"a": 0.0})
    with jax.enable_x64(True):
        assert written_rules(theirs, layout, np.zeros(1), Y) == ()
        assert written_rules(with_root(implicit), layout, np.zeros(1), Y) == ("implicit",)
