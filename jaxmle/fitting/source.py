"""What ``fit(source=…)`` wants of rows that are not in memory."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jaxmle._types import Loglik, Tree
from jaxmle.fitting.options import Options
from jaxmle.parameters.arguments import shown
from jaxmle.record.fit import Fit


@runtime_checkable
class RowSource(Protocol):
    """Rows that are read again for each pass of a fit, such as ``parquet(…)``."""

    def fit(
        self, loglik: Loglik, params0: Tree, options: Options, engine: Any, checkpoint: Any
    ) -> Fit:
        """The fit of a log-likelihood to these rows."""


def check_source(source: Any, data: Tree) -> None:
    """Refuse what is no source, and data beside one."""
    if isinstance(source, type) or not isinstance(source, RowSource):
        raise TypeError(
            "source must be rows on disk, such as jaxmle.parquet('sales', {'x': ['price', 'age'], "
            f"'y': 'sold'}}); got {shown(source)}"
        )
    if data is not None:
        raise ValueError(
            "data and source are given: a fit is of one of them. Rows in memory are data, files "
            "are a source"
        )


def refuse_without_source(engine: Any, checkpoint: Any) -> None:
    """An engine and a checkpoint belong to a fit that reads its rows again and again."""
    arguments = {"engine": engine, "checkpoint": checkpoint}
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise ValueError(
            f"{' and '.join(given)}: for a fit of files only, fit(loglik, source=parquet(…)); "
            "leave it out where the data are in memory"
        )
