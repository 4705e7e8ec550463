"""A generator of likelihoods with the verdict known by construction, and a census of the verdicts that they get.

Each problem is a small likelihood of one to three coordinates (``degenerate_cores``) beside regular normal means, all of them
linear mixtures of a bare vector theta of one to four entries. Mixture, constants and data are random.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxmle as jm
from jaxmle import Status

from . import degenerate_cores as cores
from . import degenerate_edges as edges
from .degenerate_cores import ROWS, UNDECIDED, Core, Template


def every_template():
    """The templates by name."""
    found = {
        "regular_logistic": cores.Template(
            2, cores.logistic_terms, cores.draw_overlapping_logistic
        ),
        "regular_normal": cores.Template(2, cores.normal_terms, cores.draw_normal),
        "regular_amplified": cores.Template(1, cores.amplified_terms, cores.draw_amplified),
        "regular_overdispersed": cores.Template(
            2, cores.negative_binomial_terms, cores.draw_overdispersed
        ),
        "separated_logistic": cores.Template(
            2, cores.logistic_terms, cores.draw_separated_logistic
        ),
        "inflection_3": cores.Template(1, cores.inflection(3), cores.draw_inflection),
        "inflection_5": cores.Template(1, cores.inflection(5), cores.draw_inflection),
        "quartic": cores.Template(1, cores.even_power(4), cores.draw_even_power),
        "sextic": cores.Template(1, cores.even_power(6), cores.draw_even_power),
        "plateau": cores.Template(1, cores.plateau_terms, cores.draw_plateau),
        "truncated_normal": cores.Template(
            2, cores.truncated_normal_terms, cores.draw_truncated_normal
        ),
        "flat_quotient": cores.Template(1, cores.constant_quotient_terms, cores.draw_flat(1)),
        "flat_factor": cores.Template(2, cores.cancelled_factor_terms, cores.draw_flat(2)),
        "flat_shift": cores.Template(2, cores.cancelled_shift_terms, cores.draw_flat(2)),
        "underdispersed": cores.Template(
            2, cores.negative_binomial_terms, cores.draw_underdispersed
        ),
        "equal_values": cores.Template(2, cores.normal_terms, cores.draw_equal_values),
        "threshold_gamma": cores.Template(1, edges.threshold_gamma_terms, edges.draw_threshold),
        "threshold_extreme_value": cores.Template(
            1, edges.extreme_value_terms, edges.draw_extreme_value
        ),
        "variance_component": cores.Template(3, edges.component_terms, edges.draw_component),
    }
    for name, (size, mean, positive) in cores.RIDGES.items():
        found[name] = cores.Template(
            size, cores.ridge(mean), cores.draw_ridge(size, 0.4, 2.0, positive)
        )
    for name, (rise, label, supremum) in cores.TAILS.items():
        found[name] = cores.Template(1, cores.tail(rise), cores.draw_tail(label, supremum))
    for excess, word in ((0, "touched"), (-1, "pressed"), (1, "free")):
        for size in (2, 3):
            draw = edges.draw_counting(size, excess)
            found[f"bound_{word}_{size}"] = cores.Template(
                size, edges.counting_terms, draw, bounded=True
            )
    return found


TEMPLATES = every_template()
MAX_SIZE = 4
# A CONVERGED estimate may lie this many standard errors from the maximum (STATISTICS.md, "Stopping").
TOLERANCE_IN_STDERR = 1e-3
# and its standard errors, of three digits there, are right to as much.
TOLERANCE_OF_STDERR = 1e-2
# A supremum is that of the limit: a slow ridge comes within 1e-2 of it, a tail e⁻ᵗ far nearer.
TOLERANCE_OF_SUPREMUM = 1e-2


@dataclass(frozen=True)
class Problem:
    """A likelihood, its data, a start, and what is right: the ``label``, the statuses that are ``honest`` besides, and where there
    is a maximum its place. ``sign`` is the side to which each entry of theta goes, 0 for none and NaN for either."""

    template: str
    loglik: Any
    start: np.ndarray
    data: dict
    label: Status
    honest: frozenset
    constraints: Any
    estimate: np.ndarray | None
    mixture: np.ndarray
    stderr: np.ndarray | None
    sign: np.ndarray | None
    supremum: float | None


@cache
def likelihood(name):
    """The likelihood of a template in theta: its core, and a normal mean for each coordinate that is left."""
    template = TEMPLATES[name]

    def mixed(theta, data):
        u = data["mixture"] @ theta + data["shift"]
        core = template.terms(u[:, : template.size], data["constants"], data["response"])
        return core - 0.5 * jnp.sum((data["regular"] - u[:, template.size :]) ** 2, 1)

    def bare(theta, data):
        return template.terms(
            jnp.broadcast_to(theta, (ROWS, template.size)), data["constants"], data["response"]
        )

    return bare if template.bounded else mixed


def mixing(rng, size):
    """A rotation times factors of a third to three, and a shift."""
    rotation = np.linalg.qr(rng.normal(size=(size, size)))[0]
    return rotation * 3.0 ** rng.uniform(-1, 1, size), rng.normal(size=size)


def rows_of(values):
    return np.tile(values, (ROWS, *[1] * np.ndim(values)))


def draw(seed, name=None):
    """The problem of a seed; the templates take turns unless one is named."""
    names = list(TEMPLATES)
    name = names[seed % len(names)] if name is None else name
    template: Template = TEMPLATES[name]
    rng = np.random.default_rng([seed, 19])
    core = template.draw(rng)
    if template.bounded:
        return _bounded(name, core)
    extra = int(rng.integers(0, MAX_SIZE - template.size + 1))
    mixture, shift = mixing(rng, template.size + extra)
    regular = rng.normal(size=(ROWS, extra))
    data = {
        "mixture": rows_of(mixture),
        "shift": rows_of(shift),
        "constants": rows_of(core.constants),
        "response": core.response,
        "regular": regular,
    }
    start = np.concatenate([core.start, rng.normal(size=extra)])
    ends = _ends(core, mixture, shift, regular)
    return Problem(
        template=name,
        loglik=likelihood(name),
        start=np.linalg.solve(mixture, start - shift),
        data=data,
        label=core.label,
        honest=UNDECIDED | core.also_honest | {core.label},
        constraints=None,
        mixture=mixture,
        **ends,
    )


def _ends(core: Core, mixture, shift, regular):
    """Maximum, standard errors of the coordinates, and signs of theta."""
    extra = regular.shape[1]
    ends = {"estimate": None, "stderr": None, "sign": None, "supremum": None}
    if core.supremum is not None:
        ends["supremum"] = core.supremum - 0.5 * np.sum((regular - regular.mean(0)) ** 2)
    if core.estimate is not None:
        place = np.concatenate([core.estimate, regular.mean(0)])
        ends["estimate"] = np.linalg.solve(mixture, place - shift)
        ends["stderr"] = np.concatenate([core.stderr, np.full(extra, ROWS**-0.5)])
    if core.sign is not None and (core.sign != 0).sum() == 1 and not np.isnan(core.sign).any():
        # One coordinate goes to infinity: theta follows the column of the inverse mixture.
        ends["sign"] = np.sign(
            np.linalg.solve(mixture, np.concatenate([core.sign, np.zeros(extra)]))
        )
    return ends


def _bounded(name, core: Core):
    """A problem whose parameters are declared positive and stay as they are."""
    return Problem(
        template=name,
        loglik=likelihood(name),
        start=core.start,
        data={"constants": rows_of(core.constants), "response": core.response},
        label=core.label,
        honest=UNDECIDED | core.also_honest | {core.label},
        constraints=jm.positive,
        mixture=np.eye(len(core.start)),
        estimate=core.estimate,
        stderr=core.stderr,
        sign=None,
        supremum=None,
    )


def solve(problem):
    """The library's fit of a problem."""
    return jm.fit(
        problem.loglik, problem.start, problem.data, constraints=problem.constraints, progress=False
    )


def judge(problem, fit):
    """How a fit does: "right", "honest", or "false" with what is false."""
    status = fit.verdict
    if status == Status.CONVERGED and not is_maximum(problem, fit):
        return "false CONVERGED"
    if status == Status.SEPARATED:
        wrong = separated_wrongly(problem, fit)
        if wrong:
            return wrong
    if status == Status.BOUNDARY and problem.estimate is not None and not is_maximum(problem, fit):
        return "false estimate"
    if status == problem.label:
        return "right"
    return "honest" if status in problem.honest else f"false {status.name}"


def separated_wrongly(problem, fit):
    """What is false of a supremum at infinity: a sign, or its value."""
    infinite = np.isinf(fit.x)
    if problem.sign is not None and np.any(np.sign(fit.x)[infinite] != problem.sign[infinite]):
        return "false sign"
    if problem.supremum is None:
        return ""
    far = abs(fit.loglik - problem.supremum) > TOLERANCE_OF_SUPREMUM
    return "false supremum" if far else ""


def is_maximum(problem, fit):
    """Whether there is a maximum and estimate and standard errors are its own, in the coordinates of the core.

    A standard error may be withheld where the parabola does not hold as far as that, as between an inflection and a maximum.
    """
    if problem.estimate is None:
        return False
    scale = np.where(np.isnan(problem.stderr), 1.0, problem.stderr)
    distance = problem.mixture @ (fit.x - problem.estimate) / scale
    stderr = np.sqrt(np.diag(problem.mixture @ fit.vcov @ problem.mixture.T))
    if problem.constraints is not None:
        stderr = fit.se
    near = bool(np.all(np.abs(distance) <= TOLERANCE_IN_STDERR))
    close = np.isclose(stderr, problem.stderr, rtol=TOLERANCE_OF_STDERR, equal_nan=True)
    skewed = problem.template.startswith(("inflection", "plateau", "bound_free"))
    return near and bool(np.all(close | (skewed & np.isnan(stderr))))


@dataclass(frozen=True)
class Census:
    """Counts of ``(template, label, status, judgement)``, and the seeds of what was neither right nor honest."""

    counts: Counter
    seeds: dict

    @property
    def total(self):
        return sum(self.counts.values())

    def share(self, *judgements):
        return sum(k for key, k in self.counts.items() if key[3] in judgements) / self.total

    def false(self):
        """The counts of what is neither right nor honest."""
        return {key: k for key, k in self.counts.items() if key[3] not in ("right", "honest")}

    def __str__(self):
        lines = [f"{self.total} problems: {self.share('right'):.1%} the right name"]
        for key in sorted(self.counts):
            name, label, status, judgement = key
            examples = self.seeds.get(key, [])[:3]
            seeds = f"  seeds {examples}" if examples else ""
            lines.append(
                f"{name:30s} {label:13s} {status:13s} {self.counts[key]:5d}  {judgement}{seeds}"
            )
        return "\n".join(lines)


def census(seeds, name=None):
    """The verdicts over problems of these seeds."""
    counts = Counter()
    examples = {}
    for seed in seeds:
        problem = draw(seed, name)
        fit = solve(problem)
        judgement = judge(problem, fit)
        key = (problem.template, problem.label.name, fit.verdict.name, judgement)
        counts[key] += 1
        if judgement != "right":
            examples.setdefault(key, []).append(seed)
    return Census(counts, examples)
