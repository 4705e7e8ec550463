"""Mistakes that a type checker finds before the program runs; the comment beside each is the rule that it breaks."""

import numpy as np

import jaxmle as jm
from tests.typed.user import Y, exponential


def mistakes(fit: jm.Fit) -> None:
    jm.nope(fit)  # reportAttributeAccessIssue
    jm.models.poison()  # reportAttributeAccessIssue
    jm.Status.CONVERGD  # reportAttributeAccessIssue  # noqa: B018
    fit.sumary()  # reportAttributeAccessIssue
    fit.verdict.nme  # reportAttributeAccessIssue  # noqa: B018
    jm.fit(exponential, {"rate": 1.0}, Y, constraint={"rate": jm.positive})  # reportCallIssue
    jm.fit(np.ones(3))  # reportArgumentType
    jm.profile(exponential, Y, fit)  # reportArgumentType
    jm.fit_lake(exponential, "sales", by="shop", out="fits", part=3)  # reportArgumentType
    fit.df = 3  # reportAttributeAccessIssue
    jm.profile(exponential, fit, Y, wich="rate")  # reportCallIssue
    jm.models.poisson().strat(Y)  # reportAttributeAccessIssue
