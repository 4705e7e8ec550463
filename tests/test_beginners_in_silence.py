"""Mistakes of a beginner that were once accepted with another meaning: each ends in one sentence."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxmle as jm
from jaxmle import models
from tests.one_sentence import assert_one_sentence

RNG = np.random.default_rng(0)
N = 24
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
Y = X @ [1.0, 0.5] + RNG.normal(size=N)
COUNTS = RNG.poisson(2.0, size=N).astype(float)
DATA = {"x": X, "y": COUNTS}
TABLE = pd.DataFrame(
    {
        "y": Y,
        "x": X[:, 1],
        "w": RNG.normal(size=N),
        "b": (Y > 1) * 1.0,
        "t": np.exp(Y),
        "e": np.arange(N) % 2,
        "g": np.array(list("abcd"))[np.arange(N) % 4],
        "text": (np.arange(N) / 8).astype(str),
    }
)
BACKWARDS = np.arange(N)[::-1]
FRAME, OTHER = jm.from_formula("b ~ x", TABLE), jm.from_formula("b ~ w", TABLE)
FIT = OTHER.fit(models.logistic())
NEW = pd.DataFrame({"x": [0.0, 1.0]})


def mean(params, data):
    return -0.5 * (data["y"] - params) ** 2


def formula(text, table=TABLE, **options):
    return lambda: jm.from_formula(text, table, **options)


def fit(data, loglik=mean, **options):
    return lambda: jm.fit(loglik, 0.0, data, **options)


MISTAKES = {
    # a fit and a frame that do not belong together
    "predict of another formula": (lambda: FRAME.predict(FIT, NEW), ["the coefficients of the fit are Intercept, w", "this frame are Intercept, x"]),
    "margins of another formula": (lambda: jm.margins(FIT, FRAME), ["margins needs the frame that was fitted"]),
    "a design of another width": (lambda: jm.from_formula("b ~ x + w", TABLE).predict(FIT), ["predict needs the frame that was fitted"]),
    # the response as its own predictor
    "the response on the right": (formula("y ~ x + y"), ["'y' on both sides"]),
    "the response in a function": (formula("t ~ log(t)"), ["'t' on both sides"]),
    "the log of the response on the left": (formula("log(t) ~ t"), ["'t' on both sides"]),
    "the time of an event as a predictor": (formula("Surv(t, e) ~ t"), ["'t' on both sides"]),
    # terms
    "the negative of a column": (formula("y ~ -x"), ["takes a term away", "I(-x)"]),
    "a difference of columns": (formula("y ~ w - x"), ["no x before it", "I(a - x)"]),
    "numbers as text": (formula("y ~ text"), ["holds numbers as text, such as '0.0'", "C(text)"]),
    # leaves that a model does not read
    "an offset that is not asked for": (lambda: jm.fit(models.poisson(), data=DATA | {"offset": Y}), ["models.poisson does not read data['offset']", "write offset='offset'"]),
    "an exposure that is not asked for": (lambda: jm.fit(models.poisson(), data=DATA | {"exposure": np.ones(N)}), ["write exposure='exposure'"]),
    "an offset in a batch": (lambda: jm.fit_batch(models.poisson(), None, [DATA | {"offset": Y}] * 2), ["write offset='offset'"]),
    # labels of pandas
    "columns in two orders": (fit({"y": TABLE["y"], "z": pd.Series(Y, BACKWARDS)}), ["data['z'] has the row labels of data['y'] in another order", ".loc"]),
    "clusters in another order": (fit(TABLE[["y"]], clusters=pd.Series(TABLE["g"].to_numpy(), BACKWARDS)), ["clusters has the row labels of data"]),
    "groups in another order": (lambda: jm.fit_groups(mean, 0.0, TABLE[["y"]], by=pd.Series(TABLE["g"].to_numpy(), BACKWARDS)), ["by has the row labels of data"]),
    "clusters of a formula in another order": (formula("y ~ x", clusters=pd.Series(TABLE["g"].to_numpy(), BACKWARDS)), ["clusters has the row labels of data"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_was_accepted_with_another_meaning_is_one_sentence(mistake):
    assert_one_sentence(*MISTAKES[mistake], (TypeError, ValueError))


def test_what_looks_like_it_and_is_sound_is_taken():
    """A size of groups on both sides, a difference, codes as text, one order of labels, another leaf as the offset."""
    table = TABLE.assign(n=10.0, hit=COUNTS, code=TABLE["e"].astype(str), before=Y / 2)
    for text in (
        "cbind(hit, n - hit) ~ x + log(n + COUNT)".replace("COUNT", "hit"),
        "y - before ~ before",
        "y ~ code",
        "y ~ C(text)",
        "y ~ x*w - x:w",
        "y ~ x - 1",
    ):
        assert jm.from_formula(text, table).n == N
    moved = TABLE.set_index(BACKWARDS)
    by_labels = jm.fit(mean, 0.0, {"y": moved["y"], "z": moved["w"]}, clusters=moved["g"])
    assert by_labels.converged
    named = jm.fit(models.poisson(offset="size"), data=DATA | {"size": Y, "offset": Y})
    assert named.converged


def test_a_fit_without_names_is_predicted_by_the_frame_of_its_columns():
    plain = jm.fit(models.logistic(), data=FRAME.data)
    ours = FRAME.predict(FRAME.fit(models.logistic()), NEW)["estimate"]
    np.testing.assert_allclose(FRAME.predict(plain, NEW)["estimate"], ours, rtol=1e-8)
    assert jnp.isfinite(ours.to_numpy()).all()
