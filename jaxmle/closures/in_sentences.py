"""What Python, NumPy and jax say of numbers that are not known yet, in words for a likelihood."""

from __future__ import annotations

import re

LENGTH = "a size cannot depend on parameters: take data['x'].shape[0], or close over a plain number"
RESULTS = (
    "how many results it has is not known there: compute it before the fit, or write "
    "jnp.where(mask, a, b) over all rows"
)
# What stands on a line that needs a Python number, and what to write instead; the first counts.
CONVERSIONS_TO_NUMBERS = {
    r"\bfloat\(": "leave float() out",
    r"\bcomplex\(": "leave complex() out",
    r"\bint\(": "write x.astype(int), or close over a plain number",
    r"\.item\(": "leave .item() out",
    r"\.tolist\(": "leave out .tolist() and compute with the whole array",
    r"\brange\(": "loop over data['x'].shape[0], which is known, or use jax.lax.scan",
    r"\bround\(": "write jnp.round(x)",
    r"\b(unique|nonzero|argwhere|flatnonzero|where|compress|extract)\(": RESULTS,
    r"\b(arange|linspace|logspace|zeros|ones|full|eye|repeat|tile|split|reshape|resize)\(": LENGTH,
    r"\[": "index a jax.numpy array, jnp.asarray(table)[i], not a list or a NumPy array",
}
# Of a likelihood that was transformed as a whole, or a part of one.
TRANSFORMED = {
    r"vmap was requested to map its argument along axis .* is only 0": (
        "jax.vmap maps over every argument: write jax.vmap(f, in_axes=(None, 0)) for a function of "
        "(params, data)"
    ),
    r"^Gradient only defined for scalar-output functions": (
        "jax.grad takes a function that returns one number, and the terms are an array: give the "
        "log-likelihood itself, its derivatives are made by the fit"
    ),
}
OF_PYTHON = {
    r"Tracer.*object is not callable": (
        "An array was called like a function: an entry is params[0] or params['mu']"
    ),
    r"Tracer\.__format__": (
        "Parameters and data have no values yet inside a likelihood: print them with "
        "jax.debug.print('{x}', x=x), or after the fit"
    ),
    r"setting an array element with a sequence": (
        "An array of NumPy cannot hold parameters: compute with whole arrays, or write "
        "jnp.stack(list of entries)"
    ),
    r"unhashable type: '\w*Tracer'": (
        "A parameter has no value yet and cannot be the key of a dictionary or set: write "
        "jnp.where(condition, a, b), or index a jax.numpy array"
    ),
    r"could not convert string to float: '.*Tracer": (
        "The text of a parameter holds no number inside a likelihood: compute with the parameter "
        "itself"
    ),
    r"Tracer' and '[\w.]*(Decimal|Fraction)'|(Decimal|Fraction)' and '\w*Tracer'": (
        "jax computes with floats: convert decimals and fractions by float(…) before the fit"
    ),
    r"can't convert type '\w*Tracer'": (
        "This works only with numbers: write the function of jax.numpy, such as jnp.mean(x)"
    ),
    r"^len\(\) of unsized object": (
        "A single number has no length: give an array as the start, numpy.zeros(2), or leave len() "
        "out"
    ),
    r"^Slice entries must be static integers|slice indices must have static start": (
        "A slice cannot depend on parameters: write jnp.where(jnp.arange(n) < k, x, 0.0)"
    ),
    r"^Indexer must have integer or boolean type": (
        "An index must be a whole number: write x.astype(int) for a leaf of data; a parameter "
        "cannot be an index"
    ),
    r"must have ndim at least 1, but it has ndim 0": (
        "One side of @ is a single number: write * for a product, or give an array as the start, "
        "numpy.zeros(2)"
    ),
    r"carry input and carry output must have equal types|body_fun output and input must have": (
        "The carry of a loop must keep its shape and type: begin with an array of floats, such as "
        "jnp.zeros(())"
    ),
    r"^lower and upper arguments to fori_loop": (
        "The number of steps cannot be a parameter: close over a plain whole number"
    ),
}


def of_python(text: str) -> str | None:
    """A sentence for an error about numbers that are not known yet; None for any other."""
    unpacked = re.search(r"values to unpack \(expected (\d+)(?:, got (\d+))?\)", text)
    if unpacked is not None:
        given = f"{unpacked[2]} of them" if unpacked[2] else "more of them"
        return f"{unpacked[1]} values are unpacked, and there are {given}: count the start values"
    sentences = (words for pattern, words in OF_PYTHON.items() if re.search(pattern, text))
    return next(sentences, None)
