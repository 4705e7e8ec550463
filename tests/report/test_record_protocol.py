"""Records compare and hash as objects, whatever arrays they hold; a status prints its name; shelves list what is public."""

import dataclasses
import inspect
import json

import numpy as np
import pytest

import jaxmle as jm

Y = np.array([1.0, 3.0, 2.0, 6.0, 0.5, 4.0])


def exponential(params, data):
    import jax.numpy as jnp

    return jnp.log(params["rate"]) - params["rate"] * data


FIT = jm.fit(exponential, {"rate": 1.0}, Y, constraints={"rate": jm.positive})
RECORDS = {
    "Fit": lambda: FIT,
    "Delta": lambda: jm.delta(lambda params: 1 / params["rate"], FIT),
    "Profile": lambda: jm.profile(exponential, FIT, Y, "rate"),
    "Test": lambda: jm.wald_test(FIT, "rate", 0.5),
    "Influence": lambda: jm.influence(exponential, FIT, Y),
    "Dataset": lambda: jm.datasets.load("beetles"),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_equals_itself_alone_and_hashes(name):
    """ValueError: the truth value of an array with more than one element is ambiguous."""
    first, second = RECORDS[name](), dataclasses.replace(RECORDS[name]())
    assert first == first and first != second and len({first, second}) == 2


def test_no_public_record_of_arrays_compares_them():
    """A pure description, such as a solver's options, compares by value."""
    arrays = ("Array", "ndarray", "Tree")
    for name in jm.__all__:
        value = getattr(jm, name)
        if inspect.isclass(value) and dataclasses.is_dataclass(value):
            held = [str(field.type) for field in dataclasses.fields(value)]
            has_arrays = any(word in kind for kind in held for word in arrays)
            assert not (has_arrays and value.__dataclass_params__.eq), name


def test_a_verdict_prints_its_name_and_counts_as_a_number():
    assert f"{jm.Status.CONVERGED}" == str(jm.Status.CONVERGED) == "CONVERGED"
    assert f"{jm.Status.CONVERGED:>10s}|{jm.Status.CONVERGED:d}" == " CONVERGED|10"
    assert jm.Status.CONVERGED == 10 and json.dumps(jm.Status.CONVERGED) == "10"


def test_a_status_prints_its_name_and_indexes_as_a_number():
    assert str(FIT.status) == f"{FIT.status}" == "CONVERGED" and int(FIT.status) == 10
    assert FIT.status == jm.Status.CONVERGED and isinstance(FIT.verdict, jm.Status)
    assert FIT.status.name == FIT.verdict.name == "CONVERGED"


@pytest.mark.parametrize(
    "shelf",
    ["datasets", "families", "models", "plots", "sklearn", "solvers", "special", "survival"],
)
def test_a_shelf_lists_the_public_names_alone(shelf):
    module = getattr(jm, shelf)
    assert sorted(dir(module)) == sorted(module.__all__)
    assert not any(name.startswith("_") for name in dir(module))
