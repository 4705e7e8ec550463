"""How a fit is shown: which parameters, with which labels, exponentiated or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxmle._types import ndarray
from jaxmle.parameters.arguments import check_flag, check_level, shown
from jaxmle.tables.contents import Record

EXPONENTIATED = (
    "Estimates and intervals are exponentiated; standard errors, z and p are those of the "
    "parameters themselves."
)


@dataclass(frozen=True)
class View:
    """What a table shows of a fit.

    ``exponentiate``: exponentiate estimates and intervals of unbounded parameters (odds ratios,
    rate ratios, hazard ratios); ``labels``: from names to labels; ``terms``: the names to show, in
    order; None for all.
    """

    level: float = 0.95
    exponentiate: bool = False
    labels: Mapping[str, str] | None = None
    terms: Sequence[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "level", check_level(self.level))
        check_flag("exponentiate", self.exponentiate)
        if self.labels is not None and not isinstance(self.labels, Mapping):
            raise TypeError(
                "labels must be a dictionary from names to labels, such as {'age': 'Age "
                f"(years)'}}; got {shown(self.labels)}"
            )
        if isinstance(self.terms, str):
            object.__setattr__(self, "terms", (self.terms,))
        is_list = isinstance(self.terms, list | tuple) or self.terms is None
        if not is_list or any(not isinstance(term, str) for term in self.terms or ()):
            raise TypeError(
                f"terms must be a list of names, such as ['age', 'race']; got {shown(self.terms)}"
            )

    @property
    def is_plain(self) -> bool:
        """Whether everything is shown as it is."""
        return not self.exponentiate and self.labels is None and self.terms is None

    def places(self, fit: Record) -> list[int]:
        """The positions of the parameters that are shown."""
        if self.terms is None:
            return list(range(len(fit.names)))
        return list(dict.fromkeys(j for term in self.terms for j in fit.layout.find(term)))

    def names(self, fit: Record) -> list[str]:
        """The label of each parameter that is shown; its name where it has none."""
        labels = {}
        for name, label in (self.labels or {}).items():
            where = fit.layout.find(name)
            if len(where) > 1:
                raise ValueError(
                    f"labels gives the same label to {name!r}, which is {len(where)} "
                    f"parameters: label each, such as {fit.names[where[0]]!r}"
                )
            labels[where[0]] = str(label)
        return [labels.get(j, fit.names[j]) for j in self.places(fit)]

    def numbers(self, fit: Record) -> dict[str, ndarray]:
        """Estimates, standard errors, z, p and interval ends, (…, shown parameters), by the names
        of R's broom, whose ``tidy(exponentiate = TRUE)`` this follows.
        """
        interval = np.asarray(fit.interval(self.level))
        columns = {
            "estimate": np.asarray(fit.x),
            "std_error": np.asarray(fit.se),
            "statistic": np.asarray(fit.zvalues),
            "p_value": np.asarray(fit.pvalues),
            "conf_low": interval[..., 0],
            "conf_high": interval[..., 1],
        }
        if self.exponentiate:
            free = np.array([np.isinf(low) and np.isinf(high) for low, high in fit.bounds])
            with np.errstate(over="ignore"):
                columns |= {
                    name: np.where(free, np.exp(columns[name]), columns[name])
                    for name in ("estimate", "conf_low", "conf_high")
                }
        places = self.places(fit)
        return {name: values[..., places] for name, values in columns.items()}
