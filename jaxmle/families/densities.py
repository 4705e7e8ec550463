"""What each family is, as its docstring says: the density f(y) or probability P(y) in the names of
its parameters.
"""

from __future__ import annotations

DENSITIES = {
    "Bernoulli": "P(1) = prob, P(0) = 1 − prob.",
    "beta": "f(y) = y^(shape1 − 1) (1 − y)^(shape2 − 1)/B(shape1, shape2), 0 < y < 1.",
    "beta-binomial": "A binomial count of trials whose probability is beta(shape1, shape2).",
    "binomial": "P(y) = C(trials, y) prob^y (1 − prob)^(trials − y), y = 0, …, trials.",
    "categorical": "P(k) = probs[k], k = 0, …, K − 1.",
    "Cauchy": "f(y) = 1/(π scale (1 + z²)), z = (y − loc)/scale.",
    "Dirichlet-multinomial": (
        "Counts of K categories whose probabilities are Dirichlet(concentration)."
    ),
    "exponential": "f(y) = rate e^(−rate y), y ≥ 0; the mean is 1/rate.",
    "gamma": (
        "f(y) = rate^shape y^(shape − 1) e^(−rate y)/Γ(shape), y > 0; the mean is shape/rate."
    ),
    "generalised Pareto": (
        "P(Y > y) = (1 + shape z)^(−1/shape), z = (y − loc)/scale ≥ 0; exponential at shape = 0. "
        "loc is known."
    ),
    "geometric": "P(y) = prob (1 − prob)^y, y = 0, 1, …: failures before the first success.",
    "generalised extreme value": (
        "P(Y ≤ y) = exp(−(1 + shape z)^(−1/shape)), z = (y − loc)/scale; for maxima, Gumbel at "
        "shape = 0."
    ),
    "Gumbel": "P(Y ≤ y) = exp(−e^(−z)), z = (y − loc)/scale; for maxima.",
    "inverse gamma": "f(y) = scale^shape y^(−shape − 1) e^(−scale/y)/Γ(shape), y > 0.",
    "inverse Gaussian": (
        "f(y) = √(shape/(2π y³)) exp(−shape (y − mean)²/(2 mean² y)), y > 0; the variance is "
        "mean³/shape."
    ),
    "Laplace": "f(y) = e^(−|y − loc|/scale)/(2 scale).",
    "logistic": "P(Y ≤ y) = 1/(1 + e^(−z)), z = (y − loc)/scale.",
    "lognormal": "log y is normal with mean meanlog and standard deviation sdlog.",
    "multivariate normal": "Rows (d,) with mean loc (d,) and covariance (d, d).",
    "multivariate t": (
        "Rows (d,): loc (d,) plus a normal vector of covariance scale (d, d) over √(χ²/df) with df "
        "degrees of freedom."
    ),
    "negative binomial": (
        "Counts with mean and variance mean + dispersion mean² (NB2); R's size is 1/dispersion."
    ),
    "negative binomial (NB1)": "Counts with mean and variance mean (1 + dispersion).",
    "normal": "f(y) = e^(−z²/2)/(scale √(2π)), z = (y − loc)/scale; scale is the SD.",
    "Pareto": "f(y) = shape scale^shape y^(−shape − 1), y ≥ scale, which is known.",
    "Poisson": "P(y) = rate^y e^(−rate)/y!, y = 0, 1, …",
    "skew-normal": "f(y) = 2 φ(z) Φ(shape z)/scale, z = (y − loc)/scale.",
    "Student t": "loc + scale times a t variable with df degrees of freedom.",
    "von Mises": "f(y) = e^(kappa cos(y − loc))/(2π I₀(kappa)), y an angle in radians.",
    "Weibull": "P(Y > y) = exp(−(y/scale)^shape), y ≥ 0.",
}


def described(name: str, parameters: tuple[str, ...]) -> str:
    """The docstring of a family.

    >>> print(described("exponential", ("rate",)))
    The exponential distribution, a log-likelihood of its parameters: rate.
    <BLANKLINE>
    f(y) = rate e^(−rate y), y ≥ 0; the mean is 1/rate.
    """
    head = f"The {name} distribution, a log-likelihood of its parameters: {', '.join(parameters)}."
    return "\n\n".join([head, *([DENSITIES[name]] if name in DENSITIES else [])])
