"""Reading the reference files: each JSON holds numbers of other software for one model on one data set, beside it as CSV."""

import csv
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

FOLDER = Path(__file__).parent / "data"
Table = dict[str, np.ndarray]


@functools.cache
def expected(name: str) -> dict[str, Any]:
    """The reference numbers of a case."""
    return json.loads((FOLDER / f"{name}.json").read_text())


@functools.cache
def table(name: str) -> Table:
    """The columns of the data of a case, float64, each (n,)."""
    path = FOLDER / Path(expected(name)["data"]).name
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {key: np.asarray([float(row[key]) for row in rows]) for key in rows[0]}


def design(columns: Table, *names: str) -> np.ndarray:
    """The matrix of a regression, (n, 1 + len(names)): a column of ones, then the named columns."""
    return np.column_stack([np.ones(len(columns[names[0]])), *(columns[name] for name in names)])


def stack_groups(group: np.ndarray, **columns: np.ndarray) -> Table:
    """Rows gathered by group: each column (n, ...) becomes (groups, rows of the largest group, ...), with `real` marking rows.

    Short groups are filled with copies of their own first row, so that no filler can be non-finite.
    """
    members = [np.flatnonzero(group == g) for g in np.unique(group)]
    size = max(map(len, members))
    index = np.stack([np.concatenate([m, np.repeat(m[:1], size - len(m))]) for m in members])
    real = np.stack([np.arange(size) < len(m) for m in members]).astype(float)
    return {key: value[index] for key, value in columns.items()} | {"real": real}


def flat(case: "Case", values: dict[str, float]) -> np.ndarray:
    """The file's `values`, one per parameter of the case, in the order of the flat parameter vector, (p,)."""
    return np.asarray([values[label] for label in case.labels])


@dataclass(frozen=True)
class Case:
    """One reference file as a user would fit it.

    Args:
      name: the reference file.
      loglik: `(params, data)` to terms (n,), or to a scalar where the terms depend on each other.
      start: a tree of start values.
      data: a tree of arrays.
      names: the file's name of every entry of `start`, a tree of it with lists of names for arrays; None where the leaves of
        `start` are scalars named as in the file.
      constraints, weights: as `jm.fit` takes them.
      clusters: labels (n,) of the clusters that the file's cluster standard errors use.
      declared: the same likelihood in the declared form, with its expected information, where the file has `se_expected`.
      not_expected: parameters whose `se_expected` in the file is not of the expected information, the reason beside the case.
    """

    name: str
    loglik: Any
    start: dict[str, Any]
    data: dict[str, Any]
    names: dict[str, Any] | None = None
    constraints: dict[str, Any] | None = None
    weights: Any = None
    clusters: Any = None
    declared: Any = None
    not_expected: tuple[str, ...] = ()

    @property
    def labels(self) -> list[str]:
        """The file's parameter names in the order of the flat parameter vector."""
        return jax.tree.leaves(self.names or {key: key for key in self.start})

    @property
    def file(self) -> dict[str, Any]:
        """The reference numbers."""
        return expected(self.name)

    @property
    def units(self) -> int:
        """How many independent units the data holds."""
        return len(jax.tree.leaves(self.data)[0])
