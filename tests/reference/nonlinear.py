"""Reference cases of nonlinear regression: four of NIST's problems as Gaussian maximum likelihood, from NIST's first start."""

import jax.numpy as jnp

import jaxmle as jm

from . import nist_models as nist
from .oracle import Case, expected


def declared(name):
    """A NIST problem in the declared form: the mean is a callable predictor; the information is that of N(mu, sigma²)."""

    def density(eta, row):
        z = (row["y"] - eta["mu"]) / eta["sigma"]
        return -0.5 * z**2 - jnp.log(eta["sigma"]) - 0.5 * jnp.log(2 * jnp.pi)

    def information(eta, row):
        return jnp.diag(jnp.stack([1.0, 2.0]) / eta["sigma"] ** 2)

    eta = {"mu": lambda params, row: nist.MEANS[name](params["b"], row), "sigma": "sigma"}
    return jm.regression(density, eta=eta, response=jm.exact(information))


def case(file):
    name = next(name for name in nist.problems() if f"_{name.lower()}" in file)
    names = {
        "b": [label for label in expected(file)["parameters"] if label != "sigma"],
        "sigma": "sigma",
    }
    start, data = nist.start(name, "start1"), nist.columns(name)
    options = {"constraints": {"sigma": jm.positive}, "declared": declared(name)}
    return Case(file, nist.gaussian(name), start, data, names=names, **options)


CASES = [
    case(file)
    for file in ("s29a_nist_misra1a", "s29b_nist_rat42", "s29c_nist_thurber", "s29d_nist_chwirut2")
]
