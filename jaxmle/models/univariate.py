"""A family fitted to one column, without regressors."""

from __future__ import annotations

import functools

import jax.numpy as jnp

from jaxmle._types import Array, Tree
from jaxmle.families.coding import check_values
from jaxmle.families.family import Family
from jaxmle.likelihood.checks import Place
from jaxmle.models.common.coding import Jointly
from jaxmle.models.common.model import Model
from jaxmle.models.common.options import made_once
from jaxmle.models.common.response_laws import of_family


@made_once
def distribution(family: Family) -> Model:
    """A family of distributions fitted to one column, or with ``fit_batch`` to thousands of
    columns. Parameters: those of the family.

    Args:
        family: one of ``jaxmle.families``, of scalar values.

    Returns:
        A ``Model`` of the values y (n,), or of ``{"y": (n,), …}`` with known constants of the
        family (such as ``trials`` of a binomial).

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import families, models
    >>> columns = np.random.default_rng(1).gamma(2.0, size=(3, 200))
    >>> fits = jm.fit_batch(models.distribution(families.gamma), None, columns, progress=False)
    >>> fits.params["shape"].round(1).tolist(), bool(fits.converged.all())
    ([2.4, 2.0, 2.4], True)
    """
    if not isinstance(family, Family):
        raise TypeError(
            "distribution needs a family, such as jaxmle.families.gamma; got "
            f"{type(family).__name__}"
        )
    names = (*family.names, *family.known)

    def natural(params: Tree, data: Tree) -> tuple[Array, ...]:
        y, known = family.parts(data)
        values = {**family.known, **params, **known}
        return tuple(jnp.broadcast_to(jnp.asarray(values[name]), jnp.shape(y)) for name in names)

    law = of_family(family, lambda *values: dict(zip(names, values, strict=True)))
    return Model(
        f"distribution({family.name})",
        family,
        family.start,
        dict(family.constraints),
        natural,
        law,
        coding=(Jointly(functools.partial(_outside, family)),),
    )


def _outside(family: Family, data: Tree, where: Place) -> str | None:
    """The problem with a value that no parameters of the family allow."""
    try:
        check_values(family, data, where)
    except ValueError as error:
        return str(error)
    return None
