"""Data sets read from CSV files beside this module; `provenance.toml` says where each comes
from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Dataset:
    """A numeric table and its source.

    Attributes:
        name: its name for `load`.
        data: one float64 array of shape (n,) per column, in the order of `names`.
        columns: what each column holds, with its unit.
        description, source, licence: one sentence or two each.

    >>> from jaxmle import datasets
    >>> lung = datasets.load("lung")
    >>> lung.columns["age"], lung.data["age"].shape
    ('years', (227,))
    """

    name: str
    data: dict[str, NDArray[np.float64]]
    columns: Mapping[str, str]
    description: str
    source: str
    licence: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in the order of the file."""
        return tuple(self.data)

    def __str__(self) -> str:
        rows = next(iter(self.data.values())).size
        columns = (f"    {name:<10} {text}" for name, text in self.columns.items())
        return "\n".join(
            [
                f"{self.name}: {rows} rows. {self.description}",
                *columns,
                f"Source: {self.source}",
                f"Licence: {self.licence}",
            ]
        )


def names() -> tuple[str, ...]:
    """The names of the data sets, in alphabetical order.

    >>> names()
    ('aircondit', 'beetles', 'birthwt', 'faithful', 'horsekicks', 'lung')
    """
    return tuple(sorted(_provenance()))


def load(name: str) -> Dataset:
    """The data set called `name`, read again at each call.

    Args:
        name: one of `names()`.

    Returns:
        A `Dataset`; you may change its `data` without affecting the next `load`.

    Raises:
        ValueError: if there is no data set of that name.

    >>> lung = load("lung")
    >>> lung.names
    ('time', 'death', 'age', 'sex', 'ecog')
    >>> lung.data["death"].sum()
    np.float64(164.0)
    """
    provenance = _provenance()
    if name not in provenance:
        raise ValueError(
            f"there is no data set {name!r}; jaxmle.datasets holds {', '.join(sorted(provenance))}."
        )
    return Dataset(name=name, data=_columns(name), **provenance[name])


def _provenance() -> dict[str, dict]:
    import tomllib  # only where somebody asks for a source

    return tomllib.loads(_text("provenance.toml"))


def _columns(name: str) -> dict[str, NDArray[np.float64]]:
    header, *rows = _text(f"{name}.csv").splitlines()
    table = np.array([row.split(",") for row in rows], dtype=np.float64)
    return {column: table[:, j].copy() for j, column in enumerate(header.split(","))}


def _text(filename: str) -> str:
    return resources.files("jaxmle.datasets").joinpath(filename).read_text(encoding="utf-8")
