"""The eleven verdicts on a fit: failure as data, in the order in which the rules apply."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """What a fit is. The first rule that applies decides; only CONVERGED counts as converged."""

    NONFINITE = 0
    UNBOUNDED = 1
    BOUNDARY = 2
    SEPARATED = 3
    SADDLE = 4
    UNIDENTIFIED = 5
    SINGULAR = 6
    STALLED = 7
    MAX_STEPS = 8
    IMPRECISE = 9
    CONVERGED = 10


MEANING = {
    Status.NONFINITE: "the log-likelihood or a derivative is not finite at {place}.",
    Status.UNBOUNDED: "the likelihood grows without bound {along}; there is no maximum. Look for a variance that goes to zero, a component on one point, or fewer rows than parameters.",
    Status.BOUNDARY: "the maximum lies on a bound: {bound}. It has no standard error; those of the other parameters hold it there.",
    Status.SEPARATED: "the likelihood approaches its supremum only at infinity {along}; those estimates do not exist. The log-likelihood is the supremum, and parameters not named are those of the limit. A prior (penalize) or fewer regressors give finite estimates.",
    Status.SADDLE: "the score is zero but the likelihood curves upwards {along}; this is not a maximum. Start elsewhere.",
    Status.UNIDENTIFIED: "the data cannot tell {free} apart: the likelihood is flat along that combination. Estimable parameters keep their standard errors. Fix or drop one of those named.",
    Status.SINGULAR: "the information is singular {along} to within rounding, and the likelihood is not flat there: its curvature vanishes at the maximum, or this precision cannot decide. Reparametrise, or centre and scale the columns.",
    Status.STALLED: "no step raises the likelihood above its rounding noise, and the estimate is still {distance} standard errors from the maximum by its own derivatives. The likelihood may be rough or discontinuous.",
    Status.MAX_STEPS: "the step limit was reached {distance} standard errors from the maximum by its own derivatives. Raise max_steps or give a better start.",
    Status.IMPRECISE: "the estimates are right to about {digits} digits of a standard error at most in this precision ({dtype}). Centre and scale the columns, or use float64.",
    Status.CONVERGED: "the maximum was found.",
}
