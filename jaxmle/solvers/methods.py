"""The solvers a user may name: frozen records of options, and the rule that chooses among them
by size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import optax

MAX_PARAMETERS_FOR_NEWTON = (
    128  # free parameters beyond which a Hessian at every step costs more than the passes it saves
)
# free parameters of a function beyond which one Hessian, k passes, costs more than an ascent by
# scores: it is formed if asked for
MAX_PARAMETERS_FOR_HESSIAN = 512


@dataclass(frozen=True)
class Newton:
    """Trust-region Newton on the observed information; it also works if the Hessian is indefinite
    or a trial point is not finite.

    >>> from jaxmle.solvers import Newton
    >>> Newton().curvature  # of fit(..., solver=Newton())
    'observed'
    """

    curvature: ClassVar[str] = "observed"


@dataclass(frozen=True)
class Scoring:
    """Fisher scoring: directions from the expected information, which the likelihood must provide;
    the last steps are Newton steps.

    >>> from jaxmle.solvers import Scoring
    >>> Scoring().curvature  # of fit(..., solver=Scoring())
    'expected'
    """

    curvature: ClassVar[str] = "expected"


@dataclass(frozen=True)
class BHHH:
    """Directions from the outer product of scores (Berndt, Hall, Hall & Hausman 1974, Ann.
    Econ. Soc. Meas. 3); the last steps are Newton steps.

    >>> from jaxmle.solvers import BHHH
    >>> BHHH().curvature  # of fit(..., solver=BHHH())
    'opg'
    """

    curvature: ClassVar[str] = "opg"


@dataclass(frozen=True)
class LBFGS:
    """optax's L-BFGS with zoom line search up to the neighbourhood of the maximum, then Newton
    steps with one or two exact Hessians. For a function with more than 512 parameters it finishes
    the fit, when its own decrement is 1e-8 or ℓ gains no more.

    A large declared regression instead starts at the maximum of a sample of its rows and continues
    with scores.

    >>> from jaxmle.solvers import LBFGS
    >>> LBFGS(memory=5)  # fit(..., solver=LBFGS(memory=5))
    LBFGS(memory=5, steps=1000)
    """

    memory: int = 10
    steps: int = 1000
    curvature: ClassVar[str] = "observed"


@dataclass(frozen=True)
class Optax:
    """Any ``optax.GradientTransformation`` as it is, for ``steps`` steps or until close to the
    maximum, followed by Newton steps.

    >>> import optax
    >>> from jaxmle.solvers import Optax
    >>> Optax(optax.adam(0.1), steps=200).check_every
    25
    """

    transformation: optax.GradientTransformation
    steps: int = 5000
    check_every: int = 25
    curvature: ClassVar[str] = "observed"


Solver = Newton | Scoring | BHHH | LBFGS | Optax


def choose(solver: Solver | None, k: int) -> Solver:
    """The solver asked for, or the one that suits k free parameters: Newton up to 128, L-BFGS
    beyond.
    """
    if solver is None:
        return Newton() if k <= MAX_PARAMETERS_FOR_NEWTON else LBFGS()
    if isinstance(solver, Solver):
        return solver
    if hasattr(solver, "init") and hasattr(solver, "update"):
        return Optax(solver)
    if isinstance(solver, type) and issubclass(solver, Solver):
        raise TypeError(f"give the solver as a value: {solver.__name__}()")
    raise TypeError(
        "solver must be one of jaxmle.solvers (Newton, Scoring, BHHH, LBFGS, Optax) or an optax "
        f"transformation; got {type(solver).__name__}"
    )
