"""Marginal effects on logit, Poisson, negative binomial, ordered and multinomial fits against R 4.2.2 (margins.R)."""

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import models

R = json.loads((Path(__file__).parent / "margins_of_r.json").read_text())
# R's own fits end at 1e-10 or so; its Jacobians are Richardson's differences.
SAME = {"rtol": 1e-6, "atol": 1e-9}


@functools.cache
def births():
    table = pd.DataFrame(jm.datasets.load("birthwt").data)
    race = np.where(table.black == 1, "black", np.where(table.other == 1, "other", "white"))
    weight = np.arange(len(table)) % 3 + 1
    level = pd.cut(table.lwt, [0, 110, 130, 500], labels=["a", "b", "c"])
    return table.assign(race=race.astype(object), weight=weight, level=level)


def fitted(formula, model, table=None, **options):
    frame = jm.from_formula(formula, births() if table is None else table, **options)
    return frame.fit(model), frame


def logit(**options):
    return fitted("low ~ age + I(age**2) + lwt + race", models.logistic(), **options)


def poisson():
    return fitted("ptl ~ log(lwt) * smoke + offset(log(age))", models.poisson(offset="offset"))


def negative_binomial():
    quine = {name: np.array(values) for name, values in R["quine"].items()}
    return fitted("days ~ male + old", models.negative_binomial(), quine)


CASES = {
    "logit": lambda: jm.margins(*logit()),
    "logit_weighted": lambda: jm.margins(*logit(weights=jm.frequency("weight"))),
    "logit_by": lambda: jm.margins(
        *fitted("low ~ age + I(age**2) + lwt + race", models.logistic(), by="smoke"),
        effect="prediction",
        by="smoke",
    ),
    "poisson": lambda: jm.margins(*poisson(), {"lwt": None, "smoke": (0, 1)}),
    "poisson_prediction": lambda: jm.margins(
        *poisson(), effect="prediction", values={"lwt": [120, 150]}
    ),
    "negative_binomial": lambda: jm.margins(*negative_binomial()),
    "ordinal": lambda: jm.margins(
        *fitted("level ~ age + smoke", models.ordinal(3), intercept=False)
    ),
    "multinomial": lambda: jm.margins(
        *fitted("race ~ age + smoke", models.multinomial(3)), {"age": None, "smoke": (0, 1)}
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_effects_and_their_standard_errors_are_those_of_r(case):
    found = CASES[case]()
    assert_allclose(found.estimate, R[case]["estimate"], **SAME)
    assert_allclose(found.stderr, R[case]["std_error"], **SAME)
