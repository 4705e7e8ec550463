"""Mini-batches: unbiased gradients, the full-batch fit after a polish, early stopping, checkpoints, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import jaxmle as jm
from jaxmle.parameters.tree import Chart, layout_of
from jaxmle.stochastic.minibatch import Batches
from jaxmle.stochastic.stochastic import fit_stochastic
from tests.fitting.models import BETA, BETA_SIGMA, N, linear_data, logistic_data
from tests.likelihoods import logit, normal_regression, poisson_kernel

DATA = logistic_data(11)
WEIGHTS = np.random.default_rng(5).integers(1, 4, N)
ADAM = optax.adam(0.05)  # one object: programs are kept by it


def climb(loglik=logit, start=BETA, data=DATA, **options):
    return fit_stochastic(
        loglik,
        start,
        data,
        **({"optimizer": ADAM, "batch_size": 16, "epochs": 6, "key": 3} | options),
    )


def in_errors(ours, theirs):
    return np.max(np.abs(np.asarray(ours.x) - theirs.x) / np.sqrt(np.diag(theirs.vcov)))


def test_polished_mini_batches_are_the_full_batch_fit():
    found, full = climb(polish="newton"), jm.fit(logit, BETA, DATA)
    assert found.fit.converged and full.converged
    assert in_errors(found.fit, full) < 1e-8
    assert_allclose(found.fit.vcov, full.vcov, rtol=1e-7)
    assert (
        found.fit.loglik
        >= found.loglik
        == pytest.approx(float(jnp.sum(logit(found.params, DATA))), rel=1e-6)
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_of_a_batch_is_unbiased(weighted):
    """Over the two unequal batches of an epoch, the mean of gradients by rows is the full gradient: that of either has the same expectation."""
    loglik = (
        jm.weight(logit, jm.frequency(WEIGHTS))
        if weighted
        else jm.likelihood.contract.as_tree(logit)
    )
    loglik = jm.penalize(loglik, jm.ridge(0.7))
    layout = layout_of(BETA)
    shape = Batches(Chart(layout, (False,) * 3), 1, ADAM, None, "none")
    with jax.enable_x64(True):
        beta, mass = {"beta": jnp.array([0.2, -0.1, 0.4])}, float(WEIGHTS.sum() if weighted else N)
        data = jax.tree.map(jnp.asarray, DATA)

        def gradient(rows, real):
            return jax.grad(
                lambda b: shape.loss(loglik, b, beta["beta"], data, rows, real, N, mass)
            )(beta)["beta"]

        halves = (
            np.arange(N + 20).reshape(2, 40) % N,
            np.arange(N + 20).reshape(2, 40) < N,
        )  # the second has 20 rows, and 20 that do not count
        both = jax.jit(
            lambda b: (
                jax.vmap(gradient)(*halves),
                jax.grad(lambda b: -loglik(b, data) / mass)(b)["beta"],
            )
        )
        (first, second), whole = jax.tree.map(np.array, both(beta))
    assert_allclose((40 * first + 20 * second) / 60, whole, rtol=1e-12)


def test_one_batch_of_all_rows_is_gradient_descent():
    found = climb(optimizer=optax.sgd(0.5), batch_size=N, epochs=2, dtype="float64")
    beta = np.zeros(3)
    for _ in range(2):
        beta = beta + 0.5 * DATA["x"].T @ (DATA["y"] - 1 / (1 + np.exp(-DATA["x"] @ beta))) / N
    assert_allclose(found.params["beta"], beta, rtol=1e-12)
    assert_allclose(found.path[0], [np.log(2), np.nan], rtol=1e-12)
    assert found.params["beta"].dtype == np.float64


def test_a_schedule_multiplies_the_updates():
    def half(step):
        return jnp.where(step < 4, 1.0, 0.0)

    stopped = climb(schedule=half)  # four batches are one epoch
    assert_array_equal(stopped.params["beta"], climb(epochs=1).params["beta"])
    assert_array_equal(stopped.path[1:, 0], stopped.path[1, 0])


def test_constraints_weights_and_fixed_entries_are_those_of_fit():
    data = linear_data(4)
    constraints = {"sigma": jm.positive}
    inside = jm.penalize(
        jm.weight(jm.fix(normal_regression, {"beta[0]": 0.25}), jm.frequency(WEIGHTS)),
        jm.ridge(0.5, "beta"),
    )
    found = climb(inside, BETA_SIGMA, data, constraints=constraints, polish="newton", epochs=40)
    full = jm.fit(inside, BETA_SIGMA, data, constraints=constraints)
    assert found.params["beta"][0] == 0.25 and found.params["sigma"] > 0
    free = np.array([1, 2, 3])
    assert np.max(np.abs(found.fit.x - full.x)[free] / np.sqrt(np.diag(full.vcov))[free]) < 1e-8
    assert (
        found.fit.loglik - 0.5 < found.loglik <= found.fit.loglik
    )  # near before the polish: the loss is that of the fit


@pytest.mark.parametrize("kind", ["share", "tree"])
def test_held_out_rows_stop_the_run_and_the_best_epoch_is_returned(kind):
    """Steps that are too long make the held-out value rise."""
    held = 0.25 if kind == "share" else logistic_data(29)
    found = climb(optimizer=optax.sgd(8.0), held_out=held, patience=2, epochs=50)
    assert found.stopped == "patience" and found.epochs == found.best_epoch + 2 < 50
    assert found.best_epoch == np.argmin(found.path[:, 1])
    assert found.path.shape == (found.epochs + 1, 2)
    if kind == "tree":
        assert_allclose(
            found.path[found.best_epoch, 1], -np.mean(logit(found.params, held)), rtol=1e-5
        )
    assert_allclose(found.loglik, np.sum(logit(found.params, DATA)), rtol=1e-5)


def test_kill_and_resume_gives_the_same_parameters(tmp_path):
    options = {"optimizer": optax.chain(optax.add_noise(0.1, 0.5, 7), ADAM), "held_out": 0.25}
    whole = climb(**options)
    climb(**options, epochs=2, checkpoint=tmp_path / "run")
    resumed = climb(**options, checkpoint=tmp_path / "run")
    again = climb(**options, checkpoint=tmp_path / "run")
    for other in (resumed, again):
        assert_array_equal(other.params["beta"], whole.params["beta"])
        assert_array_equal(other.path, whole.path)
    for change, told in (
        ({"batch_size": 15}, "another run"),
        ({"key": 4}, "another run"),
        ({"data": logistic_data(12)}, "data"),
        ({"epochs": 3}, "6 epochs"),
    ):
        with pytest.raises(ValueError, match=told):
            climb(**(options | change), checkpoint=tmp_path / "run")


def test_an_interrupted_epoch_loses_only_itself(tmp_path, monkeypatch):
    from jaxmle.stochastic import stochastic

    whole, save = climb(), stochastic.Checkpoint.save

    def killed(self, piece, arrays):
        save(self, piece, arrays)
        if len(arrays[0]) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(stochastic.Checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        climb(checkpoint=tmp_path)
    monkeypatch.undo()
    assert_array_equal(climb(checkpoint=tmp_path).params["beta"], whole.params["beta"])


def test_the_key_decides_the_run():
    assert_array_equal(climb().params["beta"], climb(key=jax.random.key(3)).params["beta"])
    assert np.any(climb().params["beta"] != climb(key=4).params["beta"])


def test_a_last_layer_has_the_standard_errors_conditional_on_the_rest():
    """They are those of a penalised regression on the outputs of the layer below."""
    found = climb(
        jm.penalize(two_layers, jm.ridge(0.3)), LAYERS, polish="newton", polish_over=("head",)
    )
    hidden = np.tanh(DATA["x"] @ found.params["w"])
    direct = jm.fit(
        jm.penalize(head_only, jm.ridge(0.3)), {"head": np.zeros(2)}, {"x": hidden, "y": DATA["y"]}
    )
    assert (
        found.fit.names == ("head[0]", "head[1]")
        and found.fit.converged
        and found.fit.mode == "MAP"
    )
    assert_allclose(found.fit.params["head"], direct.params["head"], rtol=1e-7)
    assert_allclose(found.fit.stderr["head"], direct.stderr["head"], rtol=1e-7)


LAYERS = {"w": np.random.default_rng(2).normal(size=(3, 2)), "head": np.zeros(2)}


def two_layers(params, data):
    eta = jnp.tanh(data["x"] @ params["w"]) @ params["head"]
    return data["y"] * eta - jnp.logaddexp(0.0, eta)


def head_only(params, data):
    eta = data["x"] @ params["head"]
    return data["y"] * eta - jnp.logaddexp(0.0, eta)


def test_steps_that_leave_the_finite_numbers_are_said():
    found = climb(poisson_kernel, optimizer=optax.sgd(1e3), polish="newton")
    assert found.stopped == "nonfinite" and np.isnan(found.loglik) and found.fit is None


def series(params, data):
    before = jnp.concatenate([jnp.zeros(1), data["y"][:-1]])
    return -0.5 * (data["y"] - params["beta"][0] * before) ** 2


NAN = {"x": np.where(np.arange(3) == 1, np.nan, DATA["x"]), "y": DATA["y"]}


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be a whole number"),
        ({"batch_size": 2.0}, ValueError, "batch_size must be a whole number"),
        ({"batch_size": 61}, ValueError, "60 rows to train on"),
        ({"epochs": -1}, ValueError, "epochs must be"),
        ({"epochs": True}, ValueError, "epochs must be"),
        ({"patience": 3}, ValueError, "held_out=0.1"),
        ({"held_out": 1.5}, ValueError, "between 0 and 1"),
        ({"held_out": 0.001}, ValueError, "leaves 60 to train on"),
        ({"held_out": {"x": DATA["x"]}}, ValueError, "tree with the structure of data"),
        ({"polish": "bfgs"}, ValueError, "polish must be"),
        ({"polish_over": ("beta",)}, ValueError, "give polish="),
        ({"polish": "newton", "polish_over": ("gamma",)}, ValueError, "keys of params0"),
        ({"vcov": "HC9"}, ValueError, "vcov"),
        ({"optimizer": optax.adam}, TypeError, "optax transformation"),
        ({"schedule": 0.1}, TypeError, "schedule must be a function"),
        ({"key": "a"}, TypeError, "integer or a single jax key"),
        ({"data": NAN}, ValueError, "NaN in row 0"),
        ({"data": None}, ValueError, "no arrays"),
        ({"start": None}, ValueError, "params0 is missing"),
        ({"dtype": "int32"}, ValueError, "dtype must be"),
        (
            {"loglik": lambda params, data: jnp.sum(logit(params, data))},
            ValueError,
            "a mini-batch needs one log-likelihood term",
        ),
        ({"loglik": jm.pool(logit, logit)}, ValueError, "a pool has several data sets"),
        (
            {
                "loglik": jm.fix(logit, {"beta[0]": 0.0}),
                "polish": "newton",
                "polish_over": ("beta",),
            },
            ValueError,
            "plain function",
        ),
        ({"loglik": series}, ValueError, "only on their own row"),
    ],
)
def test_bad_input_is_said(change, error, told):
    with pytest.raises(error, match=told):
        climb(**change)


def test_float32_stays_float32_and_its_polish_is_in_float64():
    found = climb(dtype="float32", polish="lbfgs")
    assert found.params["beta"].dtype == np.float32 and found.fit.params["beta"].dtype == np.float64
    assert in_errors(found.fit, jm.fit(logit, BETA, DATA)) < 1e-8


def test_inside_a_trace_it_says_what_to_do():
    with pytest.raises(TypeError, match="schedules its work from the host"):
        jax.jit(lambda start: climb(start=start).params)(BETA)


def test_progress_says_the_epoch(capsys):
    climb(progress=True)
    assert "epoch 1 of 6, mean negative log-likelihood 0." in capsys.readouterr().err
    climb(progress=False)
    assert capsys.readouterr().err == ""
