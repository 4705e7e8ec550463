"""The explanation of a verdict, formed on demand from the witness and the parameter names."""

from __future__ import annotations

import numpy as np

from jaxmle._types import Array, ndarray
from jaxmle.likelihood.derivatives import DIFFERENCES, FORWARD_OVER_REVERSE
from jaxmle.solvers.status import (
    AT_A_KINK,
    COMPARED,
    CONCAVE_FLAG,
    HESSIAN_CONTRADICTED,
    LEVEL_BETWEEN_KINKS,
    MEAN,
    MEAN_OF_ROWS,
    SCORE_CONTRADICTED,
    SCORE_IS_NO_DERIVATIVE,
    STATUS_MEANING,
    WITHOUT_HESSIAN,
    Status,
)
from jaxmle.tables.contents import Record
from jaxmle.tables.notes import covariance_note, printed

# statuses for which a parameter with a standard error is orthogonal to the direction of the witness
WITHOUT_ESTIMATE = (Status.UNIDENTIFIED, Status.SEPARATED)
NOISE = (
    "the apparent maximum is within the rounding error of the log-likelihood in this "
    "precision ({dtype}): none of its digits can be trusted. A parameter may be going to "
    "infinity or to its bound, such as the size of a negative binomial with "
    "underdispersed counts; differences of large numbers then lose their digits, which "
    "the functions of jaxmle.special avoid."
)


SEEN_LOCALLY = (
    " This was seen along the path of the search and is not proved for all parameters: "
    "if a likelihood is not concave, another start (multistart) may lead to a higher "
    "maximum."
)

SOURCE = {
    1: (
        " The cause is in these data, such as collinear columns or a complete set of "
        "dummies with an intercept: the same model is identified when each column is "
        "shuffled separately."
    ),
    2: (
        " It is the model, not the data: with other data of this kind, and at "
        "other parameters, equally many combinations are undetermined."
    ),
}

# Sentences for a fit without a Hessian.
BY_LBFGS = {
    Status.MAX_STEPS: (
        "the step limit was reached about {distance} standard errors from the maximum by "
        "the approximate curvature of L-BFGS. Allow more steps, "
        "solver=jaxmle.solvers.LBFGS(steps=…), or continue from fit.params."
    ),
    Status.STALLED: (
        "L-BFGS makes no more progress, and the estimate is still about {distance} "
        "standard errors from the maximum by its approximate curvature. The likelihood "
        "may be rough or discontinuous, or the parameters may be of very different size."
    ),
}

BRANCH_RULE = (
    " If the cause is a branch that jnp.where does not select, make the argument safe, "
    "not the result: jnp.log(jnp.where(x > 0, x, 1.0)). If it is a probability that "
    "rounds to 0 or 1, write the logarithm in a stable form (jax.nn.log_sigmoid, "
    "jax.scipy.stats.norm.logcdf), and 0·log 0 as jax.scipy.special.xlogy."
)
NAN_FURTHER_OUT = (
    " The log-likelihood was followed up to where it or a derivative is NaN at {place}, and its "
    "limit is that close."
)
MIN_RELATIVE_PART = 1e-6  # of a direction, below which an entry is not named
MAX_NAMED_COORDINATES = 6  # of a point in a sentence
COEFFICIENT_OF_ONE = 5e-4  # distance from one: such a coefficient is not printed


def explain(fit: Record) -> str:
    """One sentence for the status of one fit, with the parameters concerned and what to do
    about it.
    """
    status = fit.verdict
    w = fit.witness
    has_row = int(w.row) >= 0
    has_distance = np.isfinite(w.distance)
    on_the_way = "a point that the search cannot get past" if int(fit.steps) else "the start values"
    place = f"row {int(w.row)} of the data" if has_row else on_the_way
    distance = f"{float(w.distance):.2g}" if has_distance else "an unknown number of"
    direction = _direction(fit)
    words = {
        "along": f"along {direction}" if direction else "in an unknown direction",
        "bound": _bounds(fit),
        "free": _free(fit),
        "place": place,
        "distance": distance,
        "digits": f"{max(float(w.digits), 0):.0f}",
        "dtype": str(fit.dtype),
    }
    meaning = STATUS_MEANING[status]
    if status == Status.IMPRECISE and not float(w.digits) > 0:
        meaning = NOISE
    elif WITHOUT_HESSIAN in fit.evaluation:
        meaning = BY_LBFGS.get(status, meaning)
    sentence = meaning.format(**words)
    if status == Status.NONFINITE:
        empty = "there are no rows: none were given, or all have missing values."
        sentence = sentence + _how_far(fit) + BRANCH_RULE if float(fit.n) else empty
    if status == Status.UNBOUNDED and int(w.row) >= 0:
        sentence += f" The term that grows is that of row {int(w.row)} of the data."
    if status == Status.UNIDENTIFIED:
        sentence += SOURCE.get(int(w.certificate), "")
    if status == Status.SEPARATED:
        sentence = _infinite(fit) + sentence + _undetermined(fit)
        sentence += SEEN_LOCALLY if not int(w.certificate) else ""
        sentence += _short_of_limit(fit)
        # of a robust covariance, the row is one of leverage one
        is_nan = has_row and fit.vcov_kind == "observed"
        sentence += NAN_FURTHER_OUT.format(place=place) + BRANCH_RULE if is_nan else ""
    if not sentence.startswith(tuple(map(printed, fit.names))):
        sentence = sentence[0].upper() + sentence[1:]
    if status == Status.CONVERGED:
        sentence = _maximum(int(w.certificate)) + _kink(fit) + covariance_note(fit) + _withheld(fit)
    sentence += _second_derivatives(fit)
    if status == Status.CONVERGED:  # for a failure a table has room only for the sentence
        sentence += _evaluation(fit)
    return sentence.replace("  ", " ").replace(" ;", ";").replace(" .", ".")


def _how_far(fit: Record) -> str:
    """The point that a search reached before ℓ was not finite, a sentence; "" at the start."""
    point = np.asarray(fit.witness.point, dtype=float)
    if not int(fit.steps) or not np.all(np.isfinite(point)):
        return ""
    named = [f"{printed(name)} = {value:.4g}" for name, value in zip(fit.names, point, strict=True)]
    shown = ", ".join(named[:MAX_NAMED_COORDINATES])
    rest = ", …" if len(named) > MAX_NAMED_COORDINATES else ""
    return (
        f" The search had come to {shown}{rest}. If a parameter cannot go beyond that point, "
        "declare its range (constraints); if it was growing, its estimate may be infinite, as "
        "with separated data."
    )


def _second_derivatives(fit: Record) -> str:
    """How second derivatives were computed, as a sentence; "" if by the usual modes."""
    if fit.hessian_by == FORWARD_OVER_REVERSE:
        return ""
    contradicted = fit.converged and int(fit.witness.certificate) & HESSIAN_CONTRADICTED
    why = (
        "differentiating a rule in the likelihood (custom_vjp or custom_jvp) does not "
        "give the derivatives of its score"
        if contradicted
        else "a part of the likelihood has no other second derivative"
    )
    sentence = f" Second derivatives were computed by {fit.hessian_by}: {why}."
    if fit.hessian_by != DIFFERENCES:
        return sentence
    share = np.asarray(fit.witness.stderr_error, float) / np.asarray(fit.se, float)
    if not np.any(np.isfinite(share)):
        return sentence + " Their measured error leaves no digit of the standard errors."
    return (
        sentence + f" Their measured error leaves {np.nanmax(share):.1g} of a standard error "
        "undetermined. Tighter tolerances inside the likelihood reduce this."
    )


SUMMATIONS = {
    "declared": "in its declared form",
    "found": "as a regression found in its program (jaxmle.opaque turns that off)",
    "opaque": "as an opaque function",
}
STARTS = {
    "head start": " It started at the maximum of a sample of the rows.",
    "float32 start": (" The first steps of most members were in float32."),
}


def _evaluation(fit: Record) -> str:
    """How the terms were summed and where the search began, in sentences; "" if not known."""
    words = fit.evaluation.split(", ") if fit.evaluation else []
    summations = [SUMMATIONS[word] for word in words if word in SUMMATIONS]
    starts = "".join(STARTS[word] for word in words if word in STARTS)
    return (
        f" The likelihood was summed {' and '.join(summations)}." if summations else ""
    ) + starts


def _maximum(certificate: int) -> str:
    """Which maximum was found: the only one, the highest of several starts, or one that was not
    compared with others.
    """
    if certificate & CONCAVE_FLAG:
        sentence = "The maximum was found."
    elif certificate & COMPARED:
        sentence = "This is the highest of the maxima found from several starts."
    else:
        sentence = (
            "A maximum was found. The likelihood is not known to be concave: multistart "
            "looks for higher maxima."
        )
    if certificate & SCORE_CONTRADICTED:
        sentence += f" But {SCORE_IS_NO_DERIVATIVE}"
    return sentence + (f" But {MEAN_OF_ROWS}" if certificate & MEAN else "")


def _kink(fit: Record) -> str:
    """For a maximum at a kink, what that means for standard errors; otherwise ""."""
    certificate = int(fit.witness.certificate)
    if not certificate & AT_A_KINK:
        return ""
    without_stderr = _listed(fit, np.isnan(fit.se))
    sentence = " It is at a kink, where the score jumps through zero, as at a median:"
    if not without_stderr:
        sentence += " the standard errors come from the expected information of the family."
    elif fit.vcov_kind == "none":
        sentence += " the Hessian gives no standard error there."
    else:
        sentence += (
            f" the Hessian gives no standard error for {without_stderr}, and those of the other "
            "parameters hold it fixed. Use a bootstrap for these."
        )
    if certificate & LEVEL_BETWEEN_KINKS:
        sentence += (
            " The likelihood is flat between two kinks, as between the two middle values "
            "of an even number of observations: the estimate is the midpoint."
        )
    return sentence


def _withheld(fit: Record) -> str:
    """Why a maximum has no standard error although its information is definite; "" if it has."""
    if int(fit.witness.certificate) & AT_A_KINK:
        return ""  # explained there
    variance = np.diagonal(np.asarray(fit.witness.vcov))
    listed = _listed(fit, np.isnan(fit.se) & np.isfinite(variance) & (variance > 0))
    if not listed:
        return ""
    return (
        f" No standard error is given for {listed}: half a standard error away from the "
        "estimate, the profile log-likelihood does not fall as the curvature at the "
        "maximum predicts, or has ended before, so a standard error would be misleading. Use a "
        "profile interval (jaxmle.profile)."
    )


def _short_of_limit(fit: Record) -> str:
    """Which finite estimates of a separated fit have not reached their limit, a sentence."""
    variance = np.diagonal(np.asarray(fit.witness.vcov))
    known = np.isfinite(variance) & (variance > 0)
    listed = _listed(fit, np.isnan(fit.se) & np.isfinite(fit.x) & known)
    if not listed:
        return ""
    return (
        f" No standard error is given for {listed}: the search ended before the estimate or its "
        "standard error reached a limit."
    )


def combination(
    names: tuple[str, ...],
    direction: Array,
    scale: float | Array = 1.0,
    limit: int = 4,
    is_oriented: bool = False,
) -> str:
    """A direction as a readable sum: ``a - b``, ``0.5*a + b``. Its largest coefficient is one, or
    minus one where the sense counts (``is_oriented``). Coefficients that are small in units of
    ``scale`` are left out.
    """
    names = tuple(map(printed, names))
    d = np.asarray(direction, dtype=float)
    size = np.abs(d) * scale
    chosen = [
        j for j in np.argsort(-size, kind="stable") if size[j] > MIN_RELATIVE_PART * np.max(size)
    ]
    largest = d[max(chosen, key=lambda j: abs(d[j]))]
    d = d / (abs(largest) if is_oriented else largest)
    text = ""
    for j in sorted(chosen[:limit]):
        term = (
            names[j] if abs(abs(d[j]) - 1) < COEFFICIENT_OF_ONE else f"{abs(d[j]):.3g}*{names[j]}"
        )
        sign = "-" if d[j] < 0 else "+"
        if text:
            text += f" {sign} {term}"
        else:
            text = term if sign == "+" else f"-{term}"
    return text + (" + …" if len(chosen) > limit else "")


def _bounds(fit: Record) -> str:
    equations = []
    names = [*map(printed, fit.names)]
    for name, before, code, (low, high) in zip(
        names, ("", *names), np.asarray(fit.witness.bound), fit.bounds, strict=False
    ):
        if code:
            end = f"{low if code < 0 else high:g}"
            equations.append(f"{name} = {before if code == 2 else end}")
    return ", ".join(equations)


def _free(fit: Record) -> str:
    """The parameters that change along a flat direction."""
    return _listed(fit, np.isnan(fit.se))


def _listed(fit: Record, chosen: ndarray) -> str:
    """The names of the chosen parameters, six at most."""
    names = [printed(name) for name, is_one in zip(fit.names, chosen, strict=True) if is_one]
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")


def _direction(fit: Record) -> str:
    """The witness's direction in words; "" if there is none. Entries are compared in standard
    units, √|H_jj|, not in those of the parameters; and a parameter with a standard error is not
    part of a direction without an estimate.
    """
    along = np.asarray(fit.witness.direction, dtype=float)
    if fit.verdict in WITHOUT_ESTIMATE and np.any(along[np.isnan(fit.se)]):
        along = np.where(np.isnan(fit.se), along, 0.0)
    if not np.any(along) or not np.all(np.isfinite(along)):
        return ""
    curvature = np.sqrt(np.abs(np.diagonal(np.asarray(fit.hessian))))
    scale = np.where(np.isfinite(curvature) & (curvature > 0), curvature, 1.0)
    if fit.verdict == Status.SEPARATED:
        # Far out the curvature along a receding direction is zero, so entries that are large
        # in either unit count.
        d = np.abs(along)
        scale = np.maximum(scale / max(np.max(scale * d), 1e-300), 1.0 / max(np.max(d), 1e-300))
    is_oriented = fit.verdict in (Status.SEPARATED, Status.UNBOUNDED)
    return combination(fit.names, along, scale, is_oriented=is_oriented)


def _undetermined(fit: Record) -> str:
    """Which parameters have no estimate at the limit although they do not recede, a sentence."""
    listed = _listed(fit, np.isnan(fit.x) & (np.asarray(fit.witness.sign) == 0))
    return f" The limit does not determine {listed}." if listed else ""


def _infinite(fit: Record) -> str:
    limits = [
        f"{printed(name)} → {'+' if s > 0 else '−'}∞"
        for name, s in zip(fit.names, np.asarray(fit.witness.sign), strict=True)
        if s
    ]
    return ", ".join(limits[:6]) + "; " if limits else ""
